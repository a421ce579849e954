"""What every forecaster of volume is to the rest: something fitted on the past that answers at cutoffs.

The network and the baselines are of this one kind, so that they are scored, calibrated and drawn by the same code.

Intervals for a forecaster that only gives a point: how far off it was lately, put around what it says now.

1. an error is log(volume) minus log(forecast), and stands at its target session: at cutoff c those up to c are known
2. per ticker and horizon, the quantiles and the variance of the errors of the `window` sessions that end at c, or up to
   REFRESH - 1 sessions before it: at the last place that is a multiple of REFRESH, so that they follow from c alone
3. a quantile of the forecast is exp(log(forecast) + quantile of the errors)

Only elementwise arithmetic and sorting of whole windows: a cutoff gives the same bits alone and among others.

The forecasts that anybody can make: the last volume, the same weekday's, and the average of a month.

Each says its number as it is, also as its mean; the intervals around it come from its recent errors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, Self

import numpy as np
import pandas as pd

from volcast.models.panel import HORIZONS, Panel

# N tickers, C cutoffs, H horizons (1 to HORIZONS), Q quantile levels

LEVELS = (0.025, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.975)  # among them the ends of the 80 % and the 95 % interval
MEDIAN = LEVELS.index(0.5)
MODEL, HAR = "volcast", "har"  # the names of the trained forecaster, and of the least squares one, the one to beat
PART = 64  # tickers that a baseline works on at a time
FALLBACK = HAR  # what is published where no model can answer


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecasts:
    """Forecasts of every ticker at some cutoffs; NaN where it had no row at the cutoff, or too short a history."""

    cutoffs: np.ndarray  # (C,) int, places in the panel's sessions
    quantiles_NCHQ: np.ndarray  # float32, shares; ascending along Q, of LEVELS
    mean_NCH: np.ndarray  # float32, shares: the conditional mean, right for squared errors as the median is for MAE
    stated_NCH: np.ndarray | None = None  # float64, shares: what a forecaster says instead of its median

    @property
    def point_NCH(self) -> np.ndarray:
        """The one number that is scored by absolute errors, in shares: what is stated, else the median."""
        return self.quantiles_NCHQ[..., MEDIAN] if self.stated_NCH is None else self.stated_NCH


def joined(parts: Sequence[Forecasts]) -> Forecasts:
    """The forecasts of all tickers, from those of parts of them."""
    stated = [part.stated_NCH for part in parts if part.stated_NCH is not None]
    return Forecasts(
        cutoffs=parts[0].cutoffs,
        quantiles_NCHQ=np.concatenate([part.quantiles_NCHQ for part in parts]),
        mean_NCH=np.concatenate([part.mean_NCH for part in parts]),
        stated_NCH=np.concatenate(stated) if stated else None,
    )


class Forecaster(Protocol):
    """A way to forecast volume.

    `forecast` uses nothing of the panel after each cutoff, although the panel may hold it: `panel.until(cutoff + 1)`
    must give the same numbers, bit for bit.
    """

    name: str

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Fitted on the sessions up to place `through`, targets included: the last target is that session."""
        ...

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts at `cutoffs` (C,), places in `panel.sessions`, each below `panel.known`."""
        ...


# N tickers, T sessions, C cutoffs, E ends of windows, H horizons, Q quantile levels, W sessions of a window

REFRESH = 5  # sessions; sorting each window anew for each cutoff takes 5 times as long and changes next to nothing
MANY_ERRORS = 60  # of a window: with fewer, the ends of the 95 % interval would be the smallest and the largest error
LEAST_ERRORS = 20  # of a window, for an interval


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

    def widened(self, times_NH: np.ndarray) -> Self:
        """With errors so many times as far from their median."""
        median_NCH1 = self.error_NCHQ[..., MEDIAN, None]
        return replace(
            self,
            error_NCHQ=median_NCH1 + (self.error_NCHQ - median_NCH1) * times_NH[:, None, :, None],
            variance_NCH=self.variance_NCH * times_NH[:, None, :] ** 2,
        )


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
    neighbours, as numpy does; those of fewer than MANY_ERRORS are Student's t for one more error, around their median.
    The variance is that of a sample.
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
    few_N = np.flatnonzero(enough_N & (count_N < MANY_ERRORS))
    quantiles_NQ[few_N] = quantiles_NQ[few_N, MEDIAN, None] + _of_few(count_N[few_N], variance_N[few_N])
    return np.where(enough_N[:, None], quantiles_NQ, np.nan), np.where(enough_N, variance_N, np.nan)


def _of_few(count_N: np.ndarray, variance_N: np.ndarray) -> np.ndarray:
    """(N, Q) quantiles of the next error less the median, from the variance of the errors so far."""
    from scipy.stats import t as student_t  # which what only reads a forecaster's name does without

    return student_t.ppf(np.array(LEVELS), count_N[:, None] - 1) * np.sqrt(variance_N * (1 + 1 / count_N))[:, None]


def _end_of(cutoffs: np.ndarray) -> np.ndarray:
    """(C,) the place at which each cutoff's window of errors ends."""
    return cutoffs - cutoffs % REFRESH


# N tickers, T sessions, C cutoffs, H horizons

SEASON, WHOLE_SEASON = 5, 7  # sessions of a week; of a market that is open every day
SATURDAYS = 0.1  # of all dates; where more of them are Saturdays, they are sessions like any other: 1 in 7
SEASONS_BACK = 4  # weeks that the seasonal naive goes back for a session that was traded
ADV_SESSIONS = 20  # about a month, as traders have it: the average daily volume
WINDOW = 500  # sessions of errors, two years: enough for the tails, and no longer than a change of regime

Volumes = Callable[[np.ndarray, int, int], np.ndarray]


@dataclass(kw_only=True, eq=False)
class NaiveForecaster:
    """A forecast that needs no fit: a function of the volumes so far."""

    name: str
    volumes: Volumes  # (volume_NT, h, sessions of a week) -> (N, T) the forecasts, in shares, made at each session

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Itself: there is nothing to fit."""
        assert 0 <= through < panel.known, f"through is place {through} of {panel.known} known sessions"
        return self

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts at `cutoffs` (C,), places in `panel.sessions`; NaN where the ticker has no row at the cutoff."""
        from volcast.models.weights import side_by_side  # which what only reads a forecaster's name does without

        return joined(list(side_by_side(partial(self._forecast, cutoffs), panel.parts(PART))))

    def _forecast(self, cutoffs: np.ndarray, panel: Panel) -> Forecasts:
        volume_NT = panel.fields["volume"][:, : int(cutoffs.max()) + 1]
        season = season_of(panel.sessions)
        stated_HNT = [self.volumes(volume_NT, h, season) for h in range(1, HORIZONS + 1)]
        errors = with_errors(
            panel, cutoffs, window=WINDOW, log_forecast=lambda places, h: np.log(stated_HNT[h - 1][:, places])
        )
        stated_NCH = np.stack([stated_NT[:, cutoffs] for stated_NT in stated_HNT], axis=2)
        return Forecasts(
            cutoffs=cutoffs,
            quantiles_NCHQ=errors.quantiles_NCHQ,
            mean_NCH=stated_NCH.astype(np.float32),
            stated_NCH=stated_NCH,
        )


def season_of(dates: pd.DatetimeIndex) -> int:
    """How many sessions a week of the market has whose sessions these are: 5, or 7 of one that is open every day."""
    return WHOLE_SEASON if np.mean(dates.day_of_week == 5) > SATURDAYS else SEASON


def last_volume(volume_NT: np.ndarray, _h: int, _season: int) -> np.ndarray:
    """(N, T) the volume of the cutoff itself, whatever the horizon."""
    return volume_NT


def same_weekday(volume_NT: np.ndarray, h: int, season: int = SEASON) -> np.ndarray:
    """(N, T) the newest volume known that stands a whole number of weeks (`season` sessions) before the target.

    Where the ticker was not traded then, that of a week before, and so on for SEASONS_BACK weeks. NaN where it was not
    traded at the cutoff.
    """
    found_NT = np.full_like(volume_NT, np.nan)
    for lag in range(-h % season, (SEASONS_BACK + 1) * season, season):
        found_NT = np.where(np.isfinite(found_NT), found_NT, _lagged(volume_NT, lag))
    return np.where(np.isfinite(volume_NT), found_NT, np.nan)


def month_mean(volume_NT: np.ndarray, _h: int, _season: int) -> np.ndarray:
    """(N, T) the mean of the last ADV_SESSIONS traded sessions, whatever the horizon."""
    return traded_mean(volume_NT, ADV_SESSIONS)


def traded_mean(values_NT: np.ndarray, sessions: int) -> np.ndarray:
    """(N, T) for each value the mean of it and those before it, `sessions` in all; NaN are jumped over.

    NaN where the value itself is, and where fewer have come.
    """
    mean_NT = np.full_like(values_NT, np.nan)
    for value_T, mean_T in zip(values_NT, mean_NT, strict=True):
        is_traded_T = np.isfinite(value_T)
        mean_T[is_traded_T] = np.asarray(pd.Series(value_T[is_traded_T]).rolling(sessions).mean())
    return mean_NT


def naive_forecasters() -> tuple[NaiveForecaster, ...]:
    """One of each: naive, seasonal_naive, adv20."""
    volumes = {"naive": last_volume, "seasonal_naive": same_weekday, "adv20": month_mean}
    return tuple(NaiveForecaster(name=name, volumes=each) for name, each in volumes.items())


def _lagged(values_NT: np.ndarray, lag: int) -> np.ndarray:
    """(N, T) the values `lag` sessions before; NaN for the first ones."""
    lagged_NT = np.full_like(values_NT, np.nan)
    lagged_NT[:, lag:] = values_NT[:, : max(values_NT.shape[1] - lag, 0)]
    return lagged_NT
