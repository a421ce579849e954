"""The simulated exchange's sessions, and how much each one trades because of its place in the calendar.

Sizes are the field's, as measured on SBUX: early closes 0.35 of the trailing mean, triple witching 1.41, Russell
reconstitution 1.23, before holidays 0.77.
"""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
import pandas as pd

from volcast.models.market_calendar import CALENDAR_COLUMNS, calendar_columns
from volcast.models.sessions import market_calendar, sessions_between
from volcast.tasks.sources.exchange_prices import stream

FIRST_SESSION = date(2000, 1, 3)
LOOKAHEAD = 60  # sessions after the clock for which calendar and earnings schedule exist

WEEKDAY = np.log([0.95, 1.0, 1.02, 1.02, 1.0])  # Monday first
EARLY_CLOSE = np.log(0.35)  # in place of every other effect
TRIPLE_WITCHING = np.log(1.41)  # third Friday of March, June, September, December
MONTHLY_EXPIRY = np.log(1.10)  # third Friday of the other months
RUSSELL = np.log(1.23)  # fourth Friday of June
BEFORE_HOLIDAY = np.log(0.77)
YEAR_END_LULL = np.log(0.75)  # 24 to 31 December, in place of the effect before a holiday
MONTH_END = np.log(1.08)
QUARTER_END = np.log(1.06)  # on top of the month's
# Of a shifted regime: large, so that models that do not know it fare worse; the tickers' weekdays differ, so that the
# market as a whole hardly moves, and a forecaster must learn to look at each ticker's own habits.
RHYTHM = np.log([2.5, 0.5, 1.9, 0.45, 0.7])  # in an order of the ticker's own


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every session that the exchange can be asked about, and its calendar effect."""

    sessions: pd.DatetimeIndex  # datetime64[s], ascending from FIRST_SESSION
    effects: np.ndarray  # (sessions,), added to log volume

    def count_until(self, last: date) -> int:
        """The number of sessions up to and with `last`; ValueError when the grid does not reach LOOKAHEAD beyond."""
        count = int(np.count_nonzero(_days(self.sessions) <= np.datetime64(last)))
        if count > len(self.sessions) - LOOKAHEAD:
            end = self.sessions[-LOOKAHEAD - 1]
            raise ValueError(f"the simulated exchange's clock runs to {end:%Y-%m-%d}, but {last} was asked for")
        return count


def trading_grid() -> Grid:
    """The XNYS sessions from 2000-01-03 to the end of the market's calendar, about a year from today."""
    return _grid_until(market_calendar().last_session.date())


def own_rhythm(seed: int, ticker: str, sessions: pd.DatetimeIndex, *, since: date) -> np.ndarray:
    """(T,): what a regime shift adds to a ticker's log volume on each weekday from `since` on; 0 before it."""
    weekdays = stream(seed, ticker, "rhythm").permutation(RHYTHM)
    return np.where(sessions >= pd.Timestamp(since), weekdays[sessions.day_of_week], 0.0)


@lru_cache(maxsize=2)
def _grid_until(end: date) -> Grid:
    sessions = sessions_between(FIRST_SESSION, end).as_unit("s")
    return Grid(sessions=sessions, effects=_effects(sessions))


def _effects(sessions: pd.DatetimeIndex) -> np.ndarray:
    """(T,): the calendar's part of log volume."""
    flags = dict(zip(CALENDAR_COLUMNS, calendar_columns(sessions).T, strict=True))
    following = pd.DatetimeIndex(np.r_[sessions[1:], sessions[-1:] + pd.offsets.BDay(1)])
    lull = (sessions.month == 12) & (sessions.day >= 24)
    before_holiday = np.busday_count(_days(sessions), _days(following)) > 1
    month_end = np.asarray(sessions.month != following.month)
    quarter_month = np.asarray(sessions.month % 3 == 0)
    effects = WEEKDAY[sessions.day_of_week]
    effects = effects + np.where(lull, YEAR_END_LULL, BEFORE_HOLIDAY * before_holiday)
    effects = effects + month_end * (MONTH_END + QUARTER_END * quarter_month)
    effects = effects + flags["expiry"] * np.where(quarter_month, TRIPLE_WITCHING, MONTHLY_EXPIRY)
    effects = effects + RUSSELL * flags["russell"]
    return np.where(flags["half_day"] == 1, EARLY_CLOSE, effects)


def _days(sessions: pd.DatetimeIndex) -> np.ndarray:
    return sessions.to_numpy().astype("datetime64[D]")
