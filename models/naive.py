"""The forecasts that anybody can make: the last volume, the same weekday's, and the average of a month.

Each says its number as it is, also as its mean; the intervals around it come from its recent errors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from models.forecasters import Forecasts
from models.panel import HORIZONS, Panel
from models.residual_quantiles import with_errors

# N tickers, T sessions, C cutoffs, H horizons

SEASON = 5  # sessions of a week
SEASONS_BACK = 4  # weeks that the seasonal naive goes back for a session that was traded
ADV_SESSIONS = 20  # about a month, as traders have it: the average daily volume
WINDOW = 500  # sessions of errors, two years: enough for the tails, and no longer than a change of regime

Volumes = Callable[[np.ndarray, int], np.ndarray]


@dataclass(kw_only=True, eq=False)
class NaiveForecaster:
    """A forecast that needs no fit: a function of the volumes so far."""

    name: str
    volumes: Volumes  # (volume_NT, h) -> (N, T) the forecasts, in shares, made at each session

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Itself: there is nothing to fit."""
        assert 0 <= through < panel.known, f"through is place {through} of {panel.known} known sessions"
        return self

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts at `cutoffs` (C,), places in `panel.sessions`; NaN where the ticker has no row at the cutoff."""
        volume_NT = panel.fields["volume"][:, : int(cutoffs.max()) + 1]
        stated_HNT = [self.volumes(volume_NT, h) for h in range(1, HORIZONS + 1)]
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


def last_volume(volume_NT: np.ndarray, _h: int) -> np.ndarray:
    """(N, T) the volume of the cutoff itself, whatever the horizon."""
    return volume_NT


def same_weekday(volume_NT: np.ndarray, h: int) -> np.ndarray:
    """(N, T) the newest volume known that stands a whole number of weeks (5 sessions) before the target.

    Where the ticker was not traded then, that of a week before, and so on for SEASONS_BACK weeks. NaN where it was not
    traded at the cutoff.
    """
    found_NT = np.full_like(volume_NT, np.nan)
    for lag in range(-h % SEASON, (SEASONS_BACK + 1) * SEASON, SEASON):
        found_NT = np.where(np.isfinite(found_NT), found_NT, _lagged(volume_NT, lag))
    return np.where(np.isfinite(volume_NT), found_NT, np.nan)


def month_mean(volume_NT: np.ndarray, _h: int) -> np.ndarray:
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
    lagged_NT[:, lag:] = values_NT[:, : values_NT.shape[1] - lag]
    return lagged_NT
