"""Whether what a model sees, how far it is off, and how often its intervals hold, is still what it was.

Population stability index of a feature, from the shares p of recent rows and q of train rows in bins between the
train rows' deciles (Siddiqi 2006, "Credit Risk Scorecards", p. 136):

    PSI = sum over bins of (p - q) ln(p / q)

Below 0.1 nothing has changed, from 0.25 on much has. But where nothing drifts it is still about chi2(bins - 1) / n for
n independent rows (Yurdakul and Naranjo 2020, "Statistical properties of the population stability index"): a mean of
252 sessions hardly moves within 63, and would always be far from the law of all the years. So that is added to the
0.25, with n = S (1 - r) / (1 + r) of S sessions whose neighbours have the correlation r (the variance of the mean of an
autoregression of first order). Tickers do not count as rows: the market moves them together.

Intervals: x, of each session, is the share of tickers inside of the interval that was said one session ahead. Where
intervals hold, its expectation given the past is their level, however much the tickers depend on each other. So each
bet b makes a fair or losing game of 1 + b (level - x), and with S sessions, the mean over the bets of

    evidence = sum over sessions s of the product over sessions t from s on of 1 + b (level - x_t)

has the expectation S at most. Alarms at CHANCE are as many sessions apart or more, on average, while intervals hold (an
e-detector of the kind of Shiryaev and Roberts: Shin, Ramdas and Rinaldo, 2024, "E-detectors: a nonparametric framework
for sequential change detection"; such bets: Waudby-Smith and Ramdas, 2024, "Estimating means of bounded random
variables by betting"). The session s that brings most of it is the one from which on they most likely did not hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from scipy.stats import chi2
from scipy.stats import t as student_t

from volcast.models.comparisons import long_run_variance
from volcast.models.forecasters import HAR
from volcast.models.scores import BANDS, GATE_BAND, scaled

# N tickers, S sessions, R rows, E edges of bins, P points in time (target sessions)

DRIFTED = 0.25  # of the PSI
DECILES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
MOST_ALIKE = 0.99  # correlation of neighbouring sessions
LEAST_SHARE = 1e-3  # of a bin, or an empty one would be infinitely far from what it was
SURE = 0.01  # of false alarms a look
CHANCE = 500.0  # sessions, two years, that lie between two false alarms of the intervals, at least
BETS = (0.5, 1.0, 2.0, 4.0, -0.3, -0.6, -1.0)  # on too few inside, and too many; 1 + b (0.8 - x) stays above 0
COVERAGE_LEVEL = 0.8
COVERAGE_SESSIONS = 60  # that are looked at
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


@dataclass(frozen=True, kw_only=True)
class IntervalDrift:
    """How often volumes came inside of the 80 % intervals that were said last before them, since that changed."""

    first: date  # target session from which on they most likely did not hold
    last: date
    sessions: int
    covered: float  # the mean over the sessions of the share of tickers
    expected: float
    evidence: float  # against intervals that hold
    broken: bool  # more of it than comes by chance


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


def interval_drift(scores: pd.DataFrame) -> IntervalDrift | None:
    """Whether the published 80 % intervals hold over the last COVERAGE_SESSIONS target sessions; None without a score.

    A session counts by the forecast that was the nearest to it: one session ahead, or after an outage a few.

    `scores`: ds (datetime64), h, published, in_80.
    """
    published = scores.loc[scores["published"] & scores["h"].between(*BANDS[GATE_BAND])]
    nearest = published.loc[published["h"] == published.groupby("ds")["h"].transform("min")]
    inside = nearest.groupby("ds")["in_80"].mean().sort_index().tail(COVERAGE_SESSIONS)
    if inside.empty:
        return None
    growth_PB = 1 + np.array(BETS) * (COVERAGE_LEVEL - inside.to_numpy(np.float64)[:, None])
    evidence_P = np.cumprod(growth_PB[::-1], axis=0)[::-1].mean(axis=1)
    since = inside.iloc[int(evidence_P.argmax()) :]
    return IntervalDrift(
        first=since.index[0].date(),
        last=since.index[-1].date(),
        sessions=len(since),
        covered=float(since.mean()),
        expected=COVERAGE_LEVEL,
        evidence=float(evidence_P.sum()),
        broken=bool(evidence_P.sum() >= CHANCE),
    )


def _above(excess_P: np.ndarray, *, lags: int) -> float:
    """The p-value of a mean above 0, of values in order of time; Student's t."""
    count, variance = len(excess_P), long_run_variance(excess_P, lags=lags)
    if variance <= 0:
        return 0.0 if excess_P.mean() > 0 else 1.0
    return float(student_t.sf(excess_P.mean() / np.sqrt(variance / count), count - 1))
