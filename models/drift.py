"""Whether what a model sees, or how far it is off, is still what it was when it was trained and tested.

Population stability index of a feature, from the shares p of recent rows and q of train rows in bins between the
train rows' deciles (Siddiqi 2006, "Credit Risk Scorecards", p. 136):

    PSI = sum over bins of (p - q) ln(p / q)

Below 0.1 nothing has changed, from 0.25 on much has. But where nothing drifts it is still about chi2(bins - 1) / n for
n independent rows (Yurdakul and Naranjo 2020, "Statistical properties of the population stability index"): a mean of
252 sessions hardly moves within 63, and would always be far from the law of all the years. So that is added to the
0.25, with n = S (1 - r) / (1 + r) of S sessions whose neighbours have the correlation r (the variance of the mean of an
autoregression of first order). Tickers do not count as rows: the market moves them together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import chi2
from scipy.stats import t as student_t

from models.comparisons import long_run_variance
from models.forecasters import HAR
from models.scores import BANDS, GATE_BAND, scaled

# N tickers, S sessions, R rows, E edges of bins, P points in time (target sessions)

DRIFTED = 0.25  # of the PSI
DECILES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
MOST_ALIKE = 0.99  # correlation of neighbouring sessions
LEAST_SHARE = 1e-3  # of a bin, or an empty one would be infinitely far from what it was
SURE = 0.01  # of false alarms a look
RECENT = 20  # target sessions of the errors that are looked at
LEAST_SESSIONS = 10  # with fewer nothing is said about errors
MUCH_WORSE = 1.1  # times the test's error: the test's own mean is no more certain than that


@dataclass(frozen=True, kw_only=True)
class FeatureDrift:
    """How far a feature is from what it was, and from where on that is drift."""

    index: float  # PSI
    limit: float


@dataclass(frozen=True, kw_only=True)
class ErrorDrift:
    """Errors of the champion over the last sessions, in units of the tickers' scales, against those of its test."""

    sessions: int
    recent: float  # MASE
    expected: float  # MASE of the test
    har: float  # MASE of har over the same rows
    p_value: float  # one-sided: of a recent mean as high as this, were the errors those of the test
    grown: bool  # beyond noise, and by more than the test's own uncertainty
    breached: bool  # grown, and har would have been better: not just a harder market


def psi(recent_R: np.ndarray, edges: Sequence[float], levels: Sequence[float]) -> float:
    """The index of a feature, from its recent values and the train rows' quantiles `edges` at `levels` (ascending).

    An edge that several levels share belongs to a value that comes often: it parts nothing, and the bins around it are
    one. NaN without a row, or where no edge is left.
    """
    single, count = np.unique(np.asarray(edges, dtype=np.float64), return_counts=True)
    kept = np.isin(np.asarray(edges, dtype=np.float64), single[count == 1])
    if not kept.any() or not len(recent_R):
        return float("nan")
    edge_E = np.asarray(edges, dtype=np.float64)[kept]
    before = np.diff(np.concatenate([[0.0], np.asarray(levels)[kept], [1.0]]))
    bins_R = np.searchsorted(edge_E, recent_R, side="left")
    now = np.bincount(bins_R, minlength=len(before)) / len(recent_R)
    now, before = np.maximum(now, LEAST_SHARE), np.maximum(before, LEAST_SHARE)
    return float(((now - before) * np.log(now / before)).sum())


def feature_drift(recent: Mapping[str, np.ndarray], deciles: Mapping[str, Sequence[float]]) -> dict[str, FeatureDrift]:
    """The drift of each feature that can be measured, those nearest to or farthest beyond their limit first.

    `recent`: feature -> (N, S) float64 of N tickers and the newest S sessions, NaN where there is none.
    """
    found = {
        name: FeatureDrift(index=psi(values_NS[np.isfinite(values_NS)], deciles[name], DECILES), limit=limit(values_NS))
        for name, values_NS in recent.items()
    }
    measured = [(name, own) for name, own in found.items() if np.isfinite(own.index)]
    return dict(sorted(measured, key=lambda pair: pair[1].index / pair[1].limit, reverse=True))


def limit(values_NS: np.ndarray, bins: int = 10) -> float:
    """The index from which a feature has drifted: DRIFTED, and what chance alone exceeds with probability SURE."""
    there_NS = np.isfinite(values_NS)
    mean_N1 = np.nansum(values_NS, axis=1, keepdims=True) / np.maximum(there_NS.sum(axis=1, keepdims=True), 1)
    centred_NS = np.where(there_NS, values_NS - mean_N1, 0.0)
    squares, products = (centred_NS**2).sum(), (centred_NS[:, 1:] * centred_NS[:, :-1]).sum()
    correlation = float(np.clip(products / squares, 0.0, MOST_ALIKE)) if squares > 0 else 0.0
    independent = values_NS.shape[1] * (1 - correlation) / (1 + correlation)
    return DRIFTED + float(chi2.isf(SURE, bins - 1)) / independent


def error_drift(scores: pd.DataFrame, *, expected: float, model: str, sessions: int = RECENT) -> ErrorDrift | None:
    """Recent errors of `model` against `expected`, the MASE of its test; None with fewer than LEAST_SESSIONS.

    `scores`: ticker, cutoff, ds, h, model, scale, absolute_error. The mean over the rows of a target session is one
    error: what moves the market moves all its rows. The variance of their mean is that of Newey and West (1987) with as
    many lags as horizons of GATE_BAND, less one, for neighbouring sessions are forecast from the same cutoffs.
    """
    nearest, farthest = BANDS[GATE_BAND]
    is_scored = scores["h"].between(nearest, farthest) & scores["scale"].notna()
    inside = scores.loc[is_scored & scores["model"].isin([model, HAR])]
    errors = inside.assign(mase=scaled(inside["absolute_error"], inside["scale"]))
    mase = errors.pivot_table(index="ds", columns="model", values="mase")
    if model not in mase or HAR not in mase:
        return None
    both = mase.dropna().sort_index().tail(sessions)
    if len(both) < LEAST_SESSIONS:
        return None
    own_P = both[model].to_numpy()
    recent, har = float(own_P.mean()), float(both[HAR].mean())
    p_value = _above(own_P - expected, lags=farthest - 1)
    grown = p_value < SURE and recent > MUCH_WORSE * expected
    return ErrorDrift(
        sessions=len(both),
        recent=recent,
        expected=expected,
        har=har,
        p_value=p_value,
        grown=grown,
        breached=grown and har < recent,
    )


def _above(excess_P: np.ndarray, *, lags: int) -> float:
    """The p-value of a mean above 0, of values in order of time; Student's t."""
    count, variance = len(excess_P), long_run_variance(excess_P, lags=lags)
    if variance <= 0:
        return 0.0 if excess_P.mean() > 0 else 1.0
    return float(student_t.sf(excess_P.mean() / np.sqrt(variance / count), count - 1))
