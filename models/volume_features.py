"""What the volume recipe looks at, from a panel: all of it known at the close of the cutoff.

Of each session up to the cutoff: the past features, and where the ticker stands in its earnings cycle. Of the target
session: the calendar, the echoes of earlier quarters, the ticker's habits, announced earnings. The unit of volume is
its log less the level: the mean of the last 20 sessions at the cutoff.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from models.ahead_features import (
    ECHO_COLUMNS,
    ECHO_DAYS,
    ECHO_OFFSETS,
    HABIT_COLUMNS,
    SEASON_COLUMNS,
    earnings_season,
    echo_places,
    habits,
)
from models.earnings_features import EARNINGS_COLUMNS, EarningsCalendar, earnings_calendar
from models.market_calendar import CALENDAR_COLUMNS, calendar_columns
from models.neighbours import mean_of_neighbours
from models.panel import HORIZONS, Panel
from models.past_features import PAST_COLUMNS, past_features, surprise
from models.rolling import trailing_mean

# N tickers, T sessions with prices, S = T + HORIZONS, F past features, K calendar columns, R rows of any selection

MIN_LEVEL_ROWS = 10  # of the last 20 sessions, for a forecast

AT_COLUMNS = (*PAST_COLUMNS, *(f"at_{name}" for name in EARNINGS_COLUMNS))
AHEAD_COLUMNS = (*CALENDAR_COLUMNS, *ECHO_COLUMNS, *HABIT_COLUMNS, *SEASON_COLUMNS, *EARNINGS_COLUMNS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """The features of a panel."""

    panel: Panel
    past_NTF: np.ndarray  # float32, of PAST_COLUMNS
    level_NT: np.ndarray  # float64, mean log volume of t-19..t; NaN where fewer than MIN_LEVEL_ROWS traded
    surprise_NS: np.ndarray  # float32; 0 where nothing traded, or not yet
    calendar_SK: np.ndarray  # float32, of CALENDAR_COLUMNS
    echo_places_SE: np.ndarray  # int64, places in the sessions; 0 before them
    known_ahead_NSA: np.ndarray  # float32, of HABIT_COLUMNS and SEASON_COLUMNS
    earnings: EarningsCalendar  # all 0 where no calendar is used

    @cached_property
    def log_volume_NS(self) -> np.ndarray:
        """(N, S) float64: log volume; NaN where nothing traded, or not yet. Less the cutoff's level, the target."""
        ahead_NH = np.full((len(self.panel.tickers), HORIZONS), np.nan)
        return np.concatenate([self.panel.log_volume_NT, ahead_NH], axis=1)

    @cached_property
    def usable_NT(self) -> np.ndarray:
        """(N, T) bool: a forecast can be made at the session: it traded, and its level is known."""
        return self.panel.traded_NT & np.isfinite(self.level_NT)


def build_inputs(panel: Panel, *, use_earnings: bool) -> Inputs:
    """The features of every ticker and session of a panel; without earnings, as if no ticker had a calendar."""
    level_NT, rows_NT = trailing_mean(panel.log_volume_NT, 20)
    level_NT = np.where(rows_NT >= MIN_LEVEL_ROWS, level_NT, np.nan)
    surprise_NT = surprise(panel, level_NT)
    ahead_NH = np.zeros((len(panel.tickers), HORIZONS))
    surprise_NS = np.concatenate([np.nan_to_num(surprise_NT), ahead_NH], axis=1).astype(np.float32)
    calendar_SK = calendar_columns(panel.sessions)
    earnings = earnings_calendar(panel, surprise_NS, use=use_earnings)
    neighbours_NT = mean_of_neighbours(surprise_NS, surprise_NT)[:, : panel.known]
    weekday_S = panel.sessions.day_of_week.to_numpy()
    known_ahead = [habits(surprise_NT, calendar_SK, weekday_S), earnings_season(earnings, surprise_NT)]
    return Inputs(
        panel=panel,
        past_NTF=past_features(panel, surprise_NT, neighbours_NT),
        level_NT=level_NT,
        surprise_NS=surprise_NS,
        calendar_SK=calendar_SK,
        echo_places_SE=echo_places(panel.sessions),
        known_ahead_NSA=np.concatenate(known_ahead, axis=2),
        earnings=earnings,
    )


def at_cutoff(inputs: Inputs, ticker_R: np.ndarray, cutoff_R: np.ndarray) -> np.ndarray:
    """(R, len(AT_COLUMNS)) float32: what there is of each ticker at each cutoff (places in the grid), unscaled."""
    earnings_RC = inputs.earnings.columns(ticker_R, cutoff_R, cutoff_R)
    return np.concatenate([inputs.past_NTF[ticker_R, cutoff_R], earnings_RC], axis=1)


def ahead(inputs: Inputs, ticker_R: np.ndarray, cutoff_R: np.ndarray, target_R: np.ndarray) -> np.ndarray:
    """(R, len(AHEAD_COLUMNS)) float32: what is known at the cutoff of a session up to HORIZONS after it."""
    around_RE = inputs.surprise_NS[ticker_R[:, None], inputs.echo_places_SE[target_R]]
    strongest = around_RE.reshape(-1, len(ECHO_DAYS), len(ECHO_OFFSETS)).max(axis=2)
    return np.concatenate(
        [
            inputs.calendar_SK[target_R],
            around_RE,
            strongest,
            inputs.known_ahead_NSA[ticker_R, target_R],
            inputs.earnings.columns(ticker_R, cutoff_R, target_R),
        ],
        axis=1,
    )


def targets(
    inputs: Inputs, ticker_R: np.ndarray, cutoff_R: np.ndarray, *, through: int
) -> tuple[np.ndarray, np.ndarray]:
    """(R, HORIZONS) float32 log volume less the cutoff's level, and bool: the target is there and not after `through`.

    Where it is not, the first is 0.
    """
    place_RH = cutoff_R[:, None] + np.arange(1, HORIZONS + 1)
    target_RH = inputs.log_volume_NS[ticker_R[:, None], place_RH] - inputs.level_NT[ticker_R, cutoff_R][:, None]
    is_there_RH = np.isfinite(target_RH) & (place_RH <= through) & inputs.panel.traded_NT[ticker_R, cutoff_R][:, None]
    return np.where(is_there_RH, target_RH, 0.0).astype(np.float32), is_there_RH


def table(inputs: Inputs, ticker_R: np.ndarray, cutoff_R: np.ndarray, horizon: int) -> np.ndarray:
    """(R, columns) float32: everything that the network is given for a target `horizon` sessions after each cutoff."""
    target_R = cutoff_R + horizon
    return np.concatenate([at_cutoff(inputs, ticker_R, cutoff_R), ahead(inputs, ticker_R, cutoff_R, target_R)], axis=1)
