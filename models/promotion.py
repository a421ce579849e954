"""Whether a challenger takes the champion's place.

1. nothing bars it: it serves every ticker that the champion serves, and there are sessions to compare them on
2. it beats the baseline that gates its recipe (har, where volume is forecast ahead; a nowcast has none)
3. it is not worse than the champion: the upper end of the 90 % interval of the difference of their errors stays below a
   margin, so that few data pass less easily than many; one by another recipe must not have the larger error at all
4. nor is it worse, by twice the margin, than the best version that ever took the place: a series of small losses ends

All numbers are of one measure and of present models on the same test rows, never a champion's old score.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from models.metrics import format_shares
from models.recipes import MARGIN

CHAMPION, BEST = "champion", "best"  # predecessors: the version that forecasts now; the best one that ever did
CUMULATED = 2  # margins that a series of promotions may lose in all


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What models are compared by, the less the better, and how a reader sees it."""

    name: str
    unit: str  # after the number, with the space before it
    shown: Callable[[float], str]


RMSE = Measure(name="RMSE", unit=" shares", shown=format_shares)
MASE = Measure(name="MASE", unit="", shown="{:.3f}".format)


@dataclass(frozen=True, kw_only=True)
class Predecessor:
    """A version that forecasts or did, and what must be known of it to compare another one with it."""

    predictor: Any  # as the recipe's method loads it
    tickers: tuple[str, ...]  # that it was made of, all known to the challenger
    trained_through: date  # the last session that its weights or calibration have seen


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What a challenger is held against, and by which rules."""

    predecessors: Mapping[str, Predecessor] = field(default_factory=dict)  # CHAMPION and BEST, where there is one
    margin: float = MARGIN
    bar: str = ""  # why it cannot take the place, whatever its errors are
    gives_way: str = ""  # why the champion does not forecast any more: only the baseline is to be beaten


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A challenger and a predecessor, on the same rows."""

    name: str  # of the predecessor
    challenger: float
    predecessor: float
    margin: float  # of the predecessor's error
    spread: float = 0.0  # half the 90 % interval of the difference; 0: the measure has no test
    must_be_better: bool = False

    @property
    def is_passed(self) -> bool:
        """Whether the challenger is not worse; not where the spread is NaN."""
        is_within = self.challenger + self.spread <= self.predecessor * (1 + self.margin)
        return is_within and not (self.must_be_better and self.challenger > self.predecessor)

    @property
    def rule(self) -> str:
        """What it would have to keep to."""
        return "another recipe must be better" if self.must_be_better else f"the margin is {self.margin:.1%}"

    @property
    def words(self) -> str:
        """`-0.9% against the champion, at most +0.4%`."""
        change, most = (each / self.predecessor - 1 for each in (self.challenger, self.challenger + self.spread))
        return f"{change:+.1%} against the {self.name}" + (f", at most {most:+.1%}" if self.spread else "")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The gate's answer, and the sentence that says why."""

    promote: bool
    reason: str
    best: str = ""  # the predecessor that remains the best version; empty where the challenger is


def decide(
    challenger: float,
    contest: Contest,
    comparisons: Sequence[Comparison] = (),
    *,
    gate: tuple[str, float] | None = None,
    measure: Measure = RMSE,
) -> Decision:
    """What becomes of a challenger with that error; `gate` is the baseline that must be beaten, and its error.

    Raises ValueError for an error that is not finite.
    """
    named = [("challenger", challenger), *([gate] if gate else [])]
    named += [(each.name, error) for each in comparisons for error in (each.challenger, each.predecessor)]
    unusable = [f"{name} {value}" for name, value in named if not math.isfinite(value)]
    if unusable:
        raise ValueError(f"A decision needs finite {measure.name}s; {', '.join(unusable)} came.")
    if gate and not challenger < gate[1]:
        why_not = f", does not beat {gate[0]} {measure.shown(gate[1])}"
    else:
        why_not = _why_not(contest, comparisons)
    beaten = f" < {gate[0]} {measure.shown(gate[1])}" if gate and challenger < gate[1] else ""
    said = f"{measure.name} {measure.shown(challenger)}{measure.unit}{beaten}"
    return Decision(
        promote=not why_not,
        reason=f"{said}{why_not or _passed(contest, comparisons)}.",
        best=_best(comparisons),
    )


def _why_not(contest: Contest, comparisons: Sequence[Comparison]) -> str:
    """What keeps it from the place, the baseline aside; empty where nothing does."""
    if contest.bar:
        return f", but {contest.bar}"
    failed = [] if contest.gives_way else [each for each in comparisons if not each.is_passed]
    return f", but {'; '.join(f'{each.words}: {each.rule}' for each in failed)}" if failed else ""


def _passed(contest: Contest, comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return ", with no champion beside it"
    beside = "; ".join(each.words for each in comparisons)
    return f", {beside}" + (f"; the champion gives way: {contest.gives_way}" if contest.gives_way else "")


def _best(comparisons: Sequence[Comparison]) -> str:
    """The predecessor that is ahead of the challenger by most; empty where none is."""
    ahead = [each for each in comparisons if each.predecessor < each.challenger]
    return min(ahead, key=lambda each: each.predecessor / each.challenger).name if ahead else ""
