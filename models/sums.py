"""The volume of several sessions together, from the forecasts of each: the quantiles of the sum, and how good they are.

Quantiles of single sessions do not add up: their sum would be right if a heavy first session meant that all the others
are as heavy. How far they do go together was measured:

1. a session's log volume is a straight line of its normal score between the quantiles of `SCORED_LEVELS`, and goes on
   so beyond them
2. the scores of sessions h and k ahead are normal with the correlation NEAREST * DECAY^|h - k| (a Gaussian copula)
3. the sums of DRAWS such paths, the same ones for every forecast, have the quantiles that are said of the sum
4. the mean of a sum is the sum of the means

Both constants were chosen on real prices of 2017 to 2020, for the network and for har alike, and hold on other years,
other tickers and the simulated exchange (docs/results.md). So a sum follows from the quantiles of its sessions alone,
as the forecast and the ledger of every release have them, and is as honest and as steady in its bits as these are.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pandas as pd

from volcast.models.forecast_columns import SCORED_LEVELS, mean_column, median_column, models_of, scored_columns
from volcast.models.forecasters import MODEL
from volcast.models.panel import HORIZONS
from volcast.models.scores import score

# R forecasts, H horizons (1 to HORIZONS), Q SCORED_LEVELS, D draws

SUMMED = (2, 5, 10)  # sessions of the sums that are published and scored
NEAREST, DECAY = 0.45, 0.9  # the correlation of neighbours is their product
DRAWS = 2048  # the levels of quantiles are right to within 0.003
AT_A_TIME = 64  # forecasts: 10 MB
SCORED_STEP = 3  # cutoffs of a scorecard from one whose sums are scored to the next: they overlap anyway
ADDED = "+"  # behind a forecaster's name: the sum of its sessions' quantiles
KEYS = ["unique_id", "cutoff"]


@cache
def _paths() -> tuple[np.ndarray, np.ndarray]:
    """(H, D) int: the lower one of the two levels between which a path is, and (H, D) where it is between them."""
    from scipy.special import ndtri
    from scipy.stats.qmc import Sobol  # which what only reads forecasts does without

    apart_HH = np.abs(np.subtract.outer(np.arange(HORIZONS), np.arange(HORIZONS)))
    correlation_HH = np.where(apart_HH == 0, 1.0, NEAREST * DECAY**apart_HH)
    score_HD = np.linalg.cholesky(correlation_HH) @ ndtri(Sobol(HORIZONS, rng=0).random(DRAWS)).T
    return between(SCORED_LEVELS, score_HD)


def between(levels: Sequence[float], score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where normal scores are among those of quantile levels, on the straight lines of step 1.

    Returns int, which is the lower one of its two levels, and how far it is from there to the upper one: 0 to 1, and
    less or more beyond the first and the last level.
    """
    from scipy.special import ndtri

    level_Q = ndtri(np.array(levels))
    below = np.clip(np.searchsorted(level_Q, score) - 1, 0, len(level_Q) - 2)
    return below, (score - level_Q[below]) / np.diff(level_Q)[below]


def drawn_sums(quantile_RHQ: np.ndarray) -> np.ndarray:
    """(R, H, D) shares: the volume of the sessions up to each horizon along each path; NaN from a NaN on."""
    below_HD, share_HD = _paths()
    log_RHQ, at_H1 = np.log(quantile_RHQ.astype(np.float64)), np.arange(HORIZONS)[:, None]
    lower_RHD, upper_RHD = log_RHQ[:, at_H1, below_HD], log_RHQ[:, at_H1, below_HD + 1]
    return np.exp(lower_RHD + share_HD * (upper_RHD - lower_RHD)).cumsum(axis=1)


def of_sums(quantile_RHQ: np.ndarray, find: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(R, ...): what `find` says of `drawn_sums`, of some forecasts at a time."""
    begins = range(0, max(len(quantile_RHQ), 1), AT_A_TIME)
    return np.concatenate([find(drawn_sums(quantile_RHQ[begin : begin + AT_A_TIME])) for begin in begins])


def wide(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """(R, H) of a column of a frame of forecasts: a row a ticker and cutoff, NaN where a session is not there."""
    return frame.pivot(index=KEYS, columns="h", values=column).reindex(columns=range(1, HORIZONS + 1))


def session_quantiles(frame: pd.DataFrame, name: str = MODEL) -> np.ndarray:
    """(R, H, Q) of a frame of forecasts, its rows as those of `wide`; ascending, as a stand-in's point may not be."""
    median = median_column(name) if median_column(name) in frame else name
    columns = [median if column == name else column for column in scored_columns(name)]
    return np.sort(np.stack([wide(frame, column).to_numpy() for column in columns], axis=2), axis=2)


def sums_of(frame: pd.DataFrame, name: str = MODEL) -> pd.DataFrame:
    """The forecasts of the sums of SUMMED sessions, from a frame of forecasts of each: a backtest's, or published.

    Returns unique_id, cutoff, ds (the last session that is summed), sessions (int64), and, in the order in which the
    frame has them, y and what is said of the sum (float64 shares): the median, the mean, and the ends of the intervals.
    By unique_id, cutoff and sessions; only sums of sessions that are all there.
    """
    ds, at = wide(frame, "ds"), [sessions - 1 for sessions in SUMMED]
    quantile_RSQ = of_sums(
        session_quantiles(frame, name),
        lambda sum_RHD: np.moveaxis(np.quantile(sum_RHD[:, at], SCORED_LEVELS, axis=2), 0, 2),
    )
    values = dict(zip(scored_columns(name), np.moveaxis(quantile_RSQ, 2, 0), strict=True)) | {
        column: wide(frame, column).to_numpy().cumsum(axis=1)[:, at]
        for column in ("y", mean_column(name))
        if column in frame
    }
    rows = pd.DataFrame(
        {
            **{key: np.repeat(ds.index.get_level_values(key), len(SUMMED)) for key in KEYS},
            "ds": ds.iloc[:, at].to_numpy().ravel(),
            "sessions": np.tile(SUMMED, len(ds)),
            **{column: values[column].ravel() for column in frame.columns if column in values},
        }
    )
    return rows.dropna(ignore_index=True)


def score_sums(frame: pd.DataFrame, scale: pd.DataFrame) -> pd.DataFrame:
    """How good the sums were of the forecasters in a frame of `backtest` whose point is their median.

    Returns the means over the tickers that `volcast.models.scores.score` gives, the number of sessions being the band;
    and `of_added`: the pinball loss over that of what the quantiles of the single sessions add up to. No row where no
    sum is known.
    """
    names = [name for name in models_of(frame) if mean_column(name) in frame]
    rows = pd.concat([_added(frame, name) for name in names], axis=1)
    sums = [sums_of(frame, name).set_index([*KEYS, "ds", "sessions", "y"]) for name in names]
    rows = pd.concat(sums, axis=1).reset_index().rename(columns={"sessions": "h"}).merge(rows, on=[*KEYS, "h"])
    if rows.empty:
        return pd.DataFrame({"band": [], "model": [], "mean_of": []})
    found = score(
        rows, scale, bands={str(sessions): (sessions, sessions) for sessions in SUMMED if sessions in set(rows["h"])}
    ).panel
    pinball = found.set_index(["band", "model"])["pinball"]
    own = found.loc[found["model"].isin(names)]
    added = pinball.reindex(list(zip(own["band"], own["model"] + ADDED, strict=True)))
    return own.assign(of_added=own["pinball"].to_numpy() / added.to_numpy()).reset_index(drop=True)


def sum_words(frame: pd.DataFrame, scale: pd.DataFrame, name: str) -> str:
    """How good a forecaster's sums were, from every SCORED_STEP-th cutoff of a backtest; empty where none is known."""
    cutoffs = sorted(set(frame["cutoff"]))[::SCORED_STEP]
    columns = [*KEYS, "ds", "h", "y", *scored_columns(name), mean_column(name)]
    found = score_sums(frame.loc[frame["cutoff"].isin(cutoffs), columns], scale)
    parts = [
        f"of {row['band']} {row['coverage_80']:.0%} and {row['coverage_95']:.0%} (pinball {row['of_added'] - 1:+.1%})"
        for row in found.to_dict("records")
    ]
    if not parts:
        return ""
    return (
        f"Sums of sessions inside of the 80 and the 95 % interval: {', '.join(parts)}; pinball against the sessions' "
        "own quantiles, added up."
    )


def _added(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """What the sessions' quantiles and means add up to: (unique_id, cutoff, h) -> the columns of NAME+ADDED."""
    columns = [*scored_columns(name), mean_column(name)]
    ordered = frame.sort_values([*KEYS, "h"]).set_index([*KEYS, "h"])[columns]
    totals = pd.DataFrame(ordered.groupby(level=KEYS).cumsum())
    return totals.set_axis([each.replace(name, name + ADDED, 1) for each in columns], axis=1)
