"""Whether a challenger takes the champion's place."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.metrics import format_shares


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What models are compared by, the less the better, and how a reader sees it."""

    name: str
    unit: str  # after the number, with the space before it
    shown: Callable[[float], str]


RMSE = Measure(name="RMSE", unit=" shares", shown=format_shares)
MASE = Measure(name="MASE", unit=" of 1 to 5 sessions ahead", shown="{:.3f}".format)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The gate's answer, and the sentence that says why."""

    promote: bool
    reason: str


def decide(
    challenger: float, champion: float | None, *, baselines: Mapping[str, float], measure: Measure = RMSE
) -> Decision:
    """Promotes the first version, and then each that is not worse (<=) than the present champion.

    All numbers are of one measure and of present models on the same test rows (never a champion's old score);
    `champion` is None when there is none. Baselines do not gate: the verdict against each is part of the reason. Raises
    ValueError for a number that is not finite, or without a baseline.
    """
    if not baselines:
        raise ValueError(f"A decision needs at least one baseline's {measure.name} on the same rows.")
    named = {"challenger": challenger, **({} if champion is None else {"champion": champion}), **baselines}
    unusable = [f"{name} {value}" for name, value in named.items() if not math.isfinite(value)]
    if unusable:
        raise ValueError(f"A decision needs finite {measure.name}s; {', '.join(unusable)} came.")
    promote = champion is None or challenger <= champion
    reason = f"{_verdict(challenger, champion, measure)} {_against(challenger, baselines, measure)}"
    return Decision(promote=promote, reason=reason)


def _verdict(challenger: float, champion: float | None, measure: Measure) -> str:
    own = f"{measure.name} {measure.shown(challenger)}{measure.unit}"
    if champion is None:
        return f"Promoted: the first version, {own}."
    verdict = "Promoted: not worse" if challenger <= champion else "Not promoted: worse"
    return f"{verdict} than the champion on the same sessions, {own} against {measure.shown(champion)}."


def _against(challenger: float, baselines: Mapping[str, float], measure: Measure) -> str:
    beaten = [f"{name} ({measure.shown(value)})" for name, value in baselines.items() if challenger < value]
    others = [f"{name} ({measure.shown(value)})" for name, value in baselines.items() if not challenger < value]
    if not others:
        return f"It beats every baseline: {', '.join(beaten)}."
    if not beaten:
        return f"It beats no baseline: {', '.join(others)}."
    return f"It beats {', '.join(beaten)}, and does not beat {', '.join(others)}."
