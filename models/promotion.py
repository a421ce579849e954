"""Whether a challenger takes the champion's place.

1. it beats the baseline that gates its recipe (har, where volume is forecast ahead; a nowcast has none)
2. it is not worse than the present champion beyond what chance explains, by a paired test on the same rows

All numbers are of one measure and of present models on the same test rows, never a champion's old score.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from models.metrics import format_shares

NOISE = 0.05  # a champion that is better with a smaller one-sided p-value is better beyond noise


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What models are compared by, the less the better, and how a reader sees it."""

    name: str
    unit: str  # after the number, with the space before it
    shown: Callable[[float], str]


RMSE = Measure(name="RMSE", unit=" shares", shown=format_shares)
MASE = Measure(name="MASE", unit="", shown="{:.3f}".format)


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """What a challenger is compared with, on the same rows as itself."""

    champion: float | None  # None: there is none
    champion_p: float = math.nan  # one-sided: of a champion better by as much, were both as good; NaN: no test
    gate: tuple[str, float] | None = None  # the baseline that must be beaten, and its error


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The gate's answer, and the sentence that says why."""

    promote: bool
    reason: str


def decide(challenger: float, rivals: Rivals, *, measure: Measure = RMSE) -> Decision:
    """What becomes of a challenger with that error. Raises ValueError for an error that is not finite."""
    named = {"challenger": challenger, "champion": rivals.champion, **dict([rivals.gate] if rivals.gate else [])}
    unusable = [f"{name} {value}" for name, value in named.items() if value is not None and not math.isfinite(value)]
    if unusable:
        raise ValueError(f"A decision needs finite {measure.name}s; {', '.join(unusable)} came.")
    why_not = _why_not(challenger, rivals, measure)
    why = f", {why_not}" if why_not else _passed(challenger, rivals, measure)
    return Decision(promote=not why_not, reason=f"{measure.name} {measure.shown(challenger)}{measure.unit}{why}.")


def _why_not(challenger: float, rivals: Rivals, measure: Measure) -> str:
    """What keeps it from the place; empty where nothing does."""
    if rivals.gate is not None and not challenger < rivals.gate[1]:
        return f"does not beat {rivals.gate[0]} {measure.shown(rivals.gate[1])}"
    if rivals.champion is None or challenger <= rivals.champion or rivals.champion_p > NOISE:
        return ""
    tested = "" if math.isnan(rivals.champion_p) else f" beyond noise (paired test, p {rivals.champion_p:.3f})"
    return f"worse than the champion {measure.shown(rivals.champion)} on the same sessions{tested}"


def _passed(challenger: float, rivals: Rivals, measure: Measure) -> str:
    """` < champion 0.551 < har 0.574`, or that it is worse by no more than noise."""
    beaten, noise = dict([rivals.gate] if rivals.gate else []), ""
    if rivals.champion is not None and challenger <= rivals.champion:
        beaten["champion"] = rivals.champion
    elif rivals.champion is not None:
        shown, p_value = measure.shown(rivals.champion), f"{rivals.champion_p:.2f}"
        noise = f", not worse than the champion {shown} beyond noise (paired test, p {p_value})"
    chain = [
        f" {'<' if value > challenger else '='} {name} {measure.shown(value)}"
        for name, value in sorted(beaten.items(), key=lambda pair: pair[1])
    ]
    return "".join(chain) + noise + (", with no champion beside it" if rivals.champion is None else "")
