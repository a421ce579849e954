"""The market's calendar: which dates are sessions, and which of them have closed."""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

import exchange_calendars
import pandas as pd
from exchange_calendars import ExchangeCalendar

from models.errors import NotASession

FIRST_DATE = date(1990, 1, 1)
LOOKAHEAD = timedelta(days=400)  # forecasts need the sessions of the coming weeks


@lru_cache(maxsize=8)
def _calendar(name: str, last: date) -> ExchangeCalendar:
    return exchange_calendars.get_calendar(name, start=str(FIRST_DATE), end=str(last))


def market_calendar(name: str = "XNYS") -> ExchangeCalendar:
    """The exchange's calendar from 1990 to about a year from today."""
    return _calendar(name, datetime.now(UTC).date() + LOOKAHEAD)


def sessions_between(first: date, last: date, calendar: str = "XNYS") -> pd.DatetimeIndex:
    """The sessions from `first` to `last`, both included: tz-naive midnights, ascending."""
    return market_calendar(calendar).sessions_in_range(pd.Timestamp(first), pd.Timestamp(last))


def last_closed_session(now: datetime, calendar: str = "XNYS") -> date:
    """The newest session whose closing time (half days included) is not after `now` (timezone-aware)."""
    if now.tzinfo is None:
        raise ValueError("last_closed_session needs a timezone-aware time")
    closes = market_calendar(calendar).closes
    position = int(closes.searchsorted(pd.Timestamp(now), side="right")) - 1
    if position < 0:
        raise NotASession(f"{now:%Y-%m-%d} is before the first session of {calendar}, {closes.index[0]:%Y-%m-%d}.")
    return closes.index[position].date()


def last_session_on_or_before(day: date, calendar: str = "XNYS") -> date:
    """The session `day`, or the one before it when the market is closed on `day`."""
    return market_calendar(calendar).date_to_session(pd.Timestamp(day), direction="previous").date()


def next_session(session: date, calendar: str = "XNYS") -> date:
    """The session that follows `session`."""
    return market_calendar(calendar).next_session(pd.Timestamp(session)).date()
