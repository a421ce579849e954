"""Who beats whom on the same rows of a backtest, and whether a challenger takes the champion's place.

A duel says by how much one forecaster beats another, and whether the difference may be chance. At the gate:

1. nothing bars it: it serves every ticker that the champion serves, there are sessions to compare them on, and its
   forecasts can be believed (models/plausibility.py)
2. it beats the baseline that gates its recipe (har, where volume is forecast ahead; a nowcast has none), and its
   quantiles are not worse by more than the margin: pinball loss
3. it is not worse than the champion: the upper end of the 90 % interval of the difference of their errors stays below a
   margin, so that few data pass less easily than many; one by another recipe must not have the larger error at all;
   its pinball loss, too, stays within the margin
4. nor is it worse, by twice the margin, than the best version that ever took the place: a series of small losses ends

All numbers are of one measure and of present models on the same test rows, never a champion's old score.

P points in time (cutoffs).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from volcast.models.forecast_columns import models_of
from volcast.models.recipes import MARGIN
from volcast.models.scores import (
    BANDS,
    FEWEST,
    GATE_BAND,
    ROLLING,
    Bands,
    Scores,
    scaled,
    scored_rows,
    stretch,
)
from volcast.models.text import format_p, format_shares

NOT_SURE = 0.05  # a larger p-value may be chance
OUTSIDE = 0.1  # the share of cases in which the true difference lies outside of its interval


@dataclass(frozen=True, kw_only=True)
class Duel:
    """One forecaster against another, in one band of horizons."""

    band: str
    model: str
    rival: str
    mase_ratio: float  # below 1: the model is better
    pinball_ratio: float
    ticker_share: float  # of the tickers, those on which the model's MASE is the smaller one
    p_value: float  # Diebold and Mariano, two-sided; NaN where the test has no answer
    spread: float  # half the 90 % interval of the difference of their MASE; NaN where there is none


def duels(frame: pd.DataFrame, scale: pd.DataFrame, scores: Scores, *, model: str, bands: Bands = BANDS) -> list[Duel]:
    """`model` against each other forecaster, in each of `bands`, the bands of `scores`."""
    errors = _scaled_errors(scored_rows(frame, scale), scale)
    return [
        _duel(errors, scores, band, between, (model, rival))
        for band, between in bands.items()
        for rival in models_of(frame)
        if rival != model
    ]


def diebold_mariano(difference_P: np.ndarray, *, h: int) -> float:
    """The two-sided p-value that losses differ by nothing on the whole, from their differences in order of time.

    Diebold and Mariano (1995), "Comparing Predictive Accuracy", with Student's t with P - 1 degrees of freedom. NaN
    where the differences are all the same, or fewer than 2 h.
    """
    if np.ptp(difference_P) == 0:
        return float("nan")
    statistic = difference_P.mean() / standard_error(difference_P, h=h)
    return float(2 * student_t.sf(abs(statistic), len(difference_P) - 1))


def half_interval(difference_P: np.ndarray, *, h: int) -> float:
    """Half the width of the 90 % interval of the mean difference, by the same law; NaN for fewer than 2 h."""
    return float(student_t.isf(OUTSIDE / 2, len(difference_P) - 1) * standard_error(difference_P, h=h))


def standard_error(difference_P: np.ndarray, *, h: int) -> float:
    """Of the mean of differences in order of time, of forecasts h ahead; NaN for fewer than 2 h of them.

    The variance is that of Newey and West (1987), h - 1 lags, with the correction for short tests of Harvey, Leybourne
    and Newbold (1997).
    """
    count = len(difference_P)
    if count < 2 * h:
        return float("nan")
    variance = max(long_run_variance(difference_P, lags=h - 1), 0.0)
    correction = (count + 1 - 2 * h + h * (h - 1) / count) / count
    return float(np.sqrt(variance / count / correction))


def long_run_variance(values_P: np.ndarray, *, lags: int) -> float:
    """Of values in order of time; over P, it is that of their mean. The weights of Newey and West (1987) fall to 0."""
    count, centred_P = len(values_P), values_P - values_P.mean()
    covariances = [centred_P[lag:] @ centred_P[: count - lag] / count for lag in range(lags + 1)]
    return covariances[0] + 2 * sum((1 - lag / (lags + 1)) * covariances[lag] for lag in range(1, lags + 1))


def verdict(duels: Sequence[Duel]) -> str:
    """In one sentence: what the model beats, and by how much, in the band of all horizons that `duels` ends with."""
    last = duels[-1].band
    clauses = [_clause(duel) for duel in duels if duel.band == last]
    return f"{duels[-1].model}, horizons {last}: {'; '.join(clauses)}."


def errors_over_time(frame: pd.DataFrame, scale: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """MASE of 1 to 5 sessions ahead over the last ROLLING target sessions: index ds, a column a forecaster."""
    rows, models = scored_rows(frame, scale), models_of(frame)
    inside = rows["h"].between(*BANDS[GATE_BAND])
    errors = _scaled_errors(rows, scale).loc[inside]
    stretch_R = errors["unique_id"].map(stretch(_ticker_errors(scores, GATE_BAND))).to_numpy()
    counted = pd.DataFrame(errors[models]).div(stretch_R, axis=0)
    means = pd.DataFrame(counted.groupby(rows.loc[inside, "ds"]).mean())
    return pd.DataFrame(means.rolling(ROLLING, min_periods=FEWEST).mean())


def _ticker_errors(scores: Scores, band: str) -> pd.DataFrame:
    """MASE: index unique_id, a column a forecaster."""
    tickers = scores.by_ticker.loc[scores.by_ticker["band"] == band]
    return tickers.pivot(index="unique_id", columns="model", values="mase")


def _scaled_errors(rows: pd.DataFrame, scale: pd.DataFrame) -> pd.DataFrame:
    """cutoff, unique_id, h and for each forecaster its |y - f| / scale."""
    scale_R = scale["absolute"].reindex(list(rows["unique_id"])).to_numpy()
    errors = {model: scaled((rows["y"] - rows[model]).abs(), scale_R) for model in models_of(rows)}
    return rows[["cutoff", "unique_id", "h"]].assign(**errors)


def _duel(errors: pd.DataFrame, scores: Scores, band: str, between: tuple[int, int], pair: tuple[str, str]) -> Duel:
    """The tickers and horizons of a cutoff make one difference: what moves the market moves them all at once."""
    model, rival = pair
    losses = scores.panel.loc[scores.panel["band"] == band].set_index("model")[["mase", "pinball"]].to_dict("index")
    tickers, inside = _ticker_errors(scores, band), errors.loc[errors["h"].between(*between)]
    stretch_R = inside["unique_id"].map(stretch(tickers)).to_numpy()  # as in the means of `scores`
    difference = pd.Series((inside[model] - inside[rival]) / stretch_R)
    difference_P = np.asarray(difference.groupby(inside["cutoff"]).mean())
    return Duel(
        band=band,
        model=model,
        rival=rival,
        mase_ratio=losses[model]["mase"] / losses[rival]["mase"],
        pinball_ratio=losses[model]["pinball"] / losses[rival]["pinball"],
        ticker_share=float(np.mean(tickers[model] < tickers[rival])),
        p_value=diebold_mariano(difference_P, h=between[1]),
        spread=half_interval(difference_P, h=between[1]),
    )


def _clause(duel: Duel) -> str:
    change = abs(1 - duel.mase_ratio)
    verb = "beats" if duel.mase_ratio < 1 else "loses to"
    return (
        f"{verb} {duel.rival} by {change:.1%} of MASE, better on {duel.ticker_share:.0%} of the tickers "
        f"({_sureness(duel.p_value)})"
    )


def _sureness(p_value: float) -> str:
    if np.isnan(p_value):
        return "too few sessions to tell it from chance"
    if p_value > NOT_SURE:
        return f"p {p_value:.2f}: it may be chance"
    return f"p {format_p(p_value)}"


# --- the gate --------------------------------------------------------------------------------------------------------

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
    pinball_ratio: float = 1.0  # below 1: the challenger's quantiles are better; 1: the recipe has none
    must_be_better: bool = False

    @property
    def is_passed(self) -> bool:
        """Whether the challenger is not worse; not where the spread is NaN."""
        is_within = self.challenger + self.spread <= self.predecessor * (1 + self.margin)
        return is_within and self.has_quantiles and not (self.must_be_better and self.challenger > self.predecessor)

    @property
    def has_quantiles(self) -> bool:
        """Whether the challenger's quantiles are as good, within the margin."""
        return self.pinball_ratio <= 1 + self.margin

    @property
    def rule(self) -> str:
        """What it would have to keep to."""
        return "another recipe must be better" if self.must_be_better else f"the margin is {self.margin:.1%}"

    @property
    def words(self) -> str:
        """`-0.9% against the champion, at most +0.4%`; its pinball loss where that is too large."""
        change, most = (each / self.predecessor - 1 for each in (self.challenger, self.challenger + self.spread))
        lost = "" if self.has_quantiles else f", pinball {self.pinball_ratio - 1:+.1%}"
        return f"{change:+.1%} against the {self.name}" + (f", at most {most:+.1%}" if self.spread else "") + lost


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
    error = f"{measure.name} {measure.shown(challenger)}{measure.unit}{beaten}"
    return Decision(
        promote=not why_not,
        reason=f"{error}{why_not or _passed(contest, comparisons)}.",
        best=_best(comparisons),
    )


def _why_not(contest: Contest, comparisons: Sequence[Comparison]) -> str:
    """What keeps it from the place, the baseline aside; empty where nothing does."""
    if contest.bar:
        return f", but {contest.bar}"
    failed = [] if contest.gives_way else [each for each in comparisons if not each.is_passed]
    return f", but {'; '.join(f'{each.words}: {each.rule}' for each in failed)}" if failed else ""


def _passed(contest: Contest, comparisons: Sequence[Comparison]) -> str:
    beside = "; ".join(each.words for each in comparisons) or "with no champion beside it"
    return f", {beside}" + (f"; the champion gives way: {contest.gives_way}" if contest.gives_way else "")


def _best(comparisons: Sequence[Comparison]) -> str:
    """The predecessor that is ahead of the challenger by most; empty where none is."""
    ahead = [each for each in comparisons if each.predecessor < each.challenger]
    return min(ahead, key=lambda each: each.predecessor / each.challenger).name if ahead else ""
