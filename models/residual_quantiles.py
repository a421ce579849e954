"""Intervals for a forecaster that only gives a point: how far off it was lately, put around what it says now.

1. an error is log(volume) minus log(forecast), and stands at its target session: at cutoff c those up to c are known
2. per ticker and horizon, the quantiles and the variance of the errors of the `window` sessions that end at c, or up to
   REFRESH - 1 sessions before it: at the last place that is a multiple of REFRESH, so that they follow from c alone
3. a quantile of the forecast is exp(log(forecast) + quantile of the errors)

Only elementwise arithmetic and sorting of whole windows: a cutoff gives the same bits alone and among others.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.forecasters import LEVELS, MEDIAN
from models.panel import HORIZONS, Panel

# N tickers, T sessions, C cutoffs, E ends of windows, H horizons, Q quantile levels, W sessions of a window

REFRESH = 5  # sessions; sorting each window anew for each cutoff takes 5 times as long and changes next to nothing
LEAST_ERRORS = 60  # of a window: with fewer, the ends of the 95 % interval are the smallest and the largest error


@dataclass(frozen=True, kw_only=True, eq=False)
class LogForecasts:
    """Log-space forecasts with their errors' spread; NaN where there is no forecast or too few errors are known."""

    log_NCH: np.ndarray  # float64, log shares: as the forecaster gave it
    error_NCHQ: np.ndarray  # float64: quantiles of its recent errors, of LEVELS
    variance_NCH: np.ndarray  # float64: of the same errors

    @property
    def quantiles_NCHQ(self) -> np.ndarray:
        """float32, shares, ascending along Q."""
        return np.exp(self.log_NCH[..., None] + self.error_NCHQ).astype(np.float32)

    @property
    def mean_NCH(self) -> np.ndarray:
        """float32, shares: the mean of a log-normal volume, exp(median of the log + variance / 2)."""
        return np.exp(self.log_NCH + self.error_NCHQ[..., MEDIAN] + self.variance_NCH / 2).astype(np.float32)


def with_errors(
    panel: Panel, cutoffs: np.ndarray, *, window: int, log_forecast: Callable[[slice, int], np.ndarray]
) -> LogForecasts:
    """Forecasts at `cutoffs` (C,), places in the panel's sessions, with the spread of their recent errors.

    `log_forecast(places, h)` gives the forecasts of h sessions ahead that were made at a slice of the places: (N, T)
    log shares, NaN where there is none; element by element, so that the slice does not matter.
    """
    places = slice(max(0, int(_end_of(cutoffs).min()) - window - HORIZONS), int(cutoffs.max()) + 1)
    shape = (len(panel.tickers), len(cutoffs), HORIZONS)
    log_NCH, variance_NCH = np.full(shape, np.nan), np.full(shape, np.nan)
    error_NCHQ = np.full((*shape, len(LEVELS)), np.nan)
    volume_NT = panel.log_volume_NT[:, places]
    for h in range(1, HORIZONS + 1):
        log_NT = log_forecast(places, h)
        error_NT = np.full_like(log_NT, np.nan)
        error_NT[:, h:] = volume_NT[:, h:] - log_NT[:, :-h]
        log_NCH[:, :, h - 1] = log_NT[:, cutoffs - places.start]
        ends, which_C = np.unique(_end_of(cutoffs) - places.start, return_inverse=True)
        error_NEQ, variance_NE = trailing_spread(error_NT, ends, window=window)
        error_NCHQ[:, :, h - 1], variance_NCH[:, :, h - 1] = error_NEQ[:, which_C], variance_NE[:, which_C]
    return LogForecasts(log_NCH=log_NCH, error_NCHQ=error_NCHQ, variance_NCH=variance_NCH)


def trailing_spread(error_NT: np.ndarray, ends: np.ndarray, *, window: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, E, Q) quantiles and (N, E) variances of the errors in the `window` sessions that end at each of `ends`.

    NaN errors do not count; NaN where fewer than LEAST_ERRORS are left. Quantiles are interpolated linearly between
    neighbours, as numpy does; the variance is that of a sample.
    """
    spreads = [_spread(np.sort(error_NT[:, max(0, end + 1 - window) : end + 1], axis=1)) for end in ends]
    quantiles, variances = zip(*spreads, strict=True)
    return np.stack(quantiles, axis=1), np.stack(variances, axis=1)


def _spread(sorted_NW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, Q) and (N,) of ascending errors, NaN at the end."""
    known_NW = np.isfinite(sorted_NW)
    count_N = known_NW.sum(axis=1)
    enough_N = count_N >= LEAST_ERRORS
    place_NQ = np.maximum(count_N - 1, 0)[:, None] * np.array(LEVELS)
    below_NQ = place_NQ.astype(np.int64)
    above_NQ = np.minimum(below_NQ + 1, np.maximum(count_N - 1, 0)[:, None])
    lower_NQ, upper_NQ = (np.take_along_axis(sorted_NW, each, axis=1) for each in (below_NQ, above_NQ))
    quantiles_NQ = lower_NQ + (place_NQ - below_NQ) * (upper_NQ - lower_NQ)
    mean_N = np.where(known_NW, sorted_NW, 0).sum(axis=1) / np.maximum(count_N, 1)
    square_NW = np.where(known_NW, (sorted_NW - mean_N[:, None]) ** 2, 0)
    variance_N = square_NW.sum(axis=1) / np.maximum(count_N - 1, 1)
    return np.where(enough_N[:, None], quantiles_NQ, np.nan), np.where(enough_N, variance_N, np.nan)


def _end_of(cutoffs: np.ndarray) -> np.ndarray:
    """(C,) the place at which each cutoff's window of errors ends."""
    return cutoffs - cutoffs % REFRESH
