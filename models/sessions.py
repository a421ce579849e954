"""The market's calendar: which dates are sessions, and which of them have closed."""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import cast

import exchange_calendars
import pandas as pd
from exchange_calendars import ExchangeCalendar

from models.errors import NotASession

FIRST_DATE = date(1970, 1, 1)  # exchange_calendars 4.13 counts holidays of the 1960s as sessions
LOOKAHEAD = timedelta(days=400)  # forecasts need the sessions of the coming weeks


@lru_cache(maxsize=8)
def _calendar(name: str, last: date) -> ExchangeCalendar:
    return exchange_calendars.get_calendar(name, start=str(FIRST_DATE), end=str(last))


def market_calendar(name: str = "XNYS") -> ExchangeCalendar:
    """The exchange's calendar from 1970 to about a year from today."""
    return _calendar(name, datetime.now(UTC).date() + LOOKAHEAD)


def sessions_between(first: date, last: date, calendar: str = "XNYS") -> pd.DatetimeIndex:
    """The sessions from `first` to `last`, both included: tz-naive midnights, ascending; none when `last` is earlier.

    Raises NotASession when either date is outside of the calendar.
    """
    return market_calendar(calendar).sessions_in_range(_within(first, calendar), _within(last, calendar))


def last_closed_session(now: datetime, calendar: str = "XNYS") -> date:
    """The newest session whose closing time (half days included) is not after `now` (timezone-aware).

    Raises NotASession for a time before the first close of the calendar, ValueError for one without a time zone.
    """
    if now.tzinfo is None:
        raise ValueError(f"last_closed_session needs a time with a time zone, got {now}.")
    closes = market_calendar(calendar).closes
    closed = closes.loc[closes <= now].index
    if closed.empty:
        raise NotASession(f"{now:%Y-%m-%d} is before the first close of {calendar}, on {closes.index[0]:%Y-%m-%d}.")
    return cast(pd.Timestamp, closed[-1]).date()


def last_session_on_or_before(day: date, calendar: str = "XNYS") -> date:
    """The session `day`, or the one before it when the market is closed on `day`.

    Raises NotASession when `day` is outside of the calendar.
    """
    return market_calendar(calendar).date_to_session(_within(day, calendar), direction="previous").date()


def next_session(session: date, calendar: str = "XNYS") -> date:
    """The session that follows `session`. Raises NotASession when the market is closed on `session`."""
    label = _within(session, calendar)
    if not market_calendar(calendar).is_session(label):
        raise NotASession(f"{calendar} is closed on {label:%A}, {label:%Y-%m-%d}. Expected a session.")
    return market_calendar(calendar).next_session(label).date()


def sessions_after(session: date, through: date, calendar: str = "XNYS") -> int:
    """How many sessions come after `session`, up to `through`; 0 when `through` is earlier. Raises NotASession."""
    later = sessions_between(session, through, calendar)
    return len(later) - int(_within(session, calendar) in later)


def session_before(session: date, sessions: int, calendar: str = "XNYS") -> date:
    """The session so many before `session`. Raises NotASession when the market is closed on `session`."""
    label = _within(session, calendar)
    if not market_calendar(calendar).is_session(label):
        raise NotASession(f"{calendar} is closed on {label:%A}, {label:%Y-%m-%d}. Expected a session.")
    return market_calendar(calendar).session_offset(label, -sessions).date()


def _within(day: date, calendar: str) -> pd.Timestamp:
    """`day` at midnight; NotASession where the calendar does not reach it."""
    first, last = market_calendar(calendar).first_session, market_calendar(calendar).last_session
    label = cast(pd.Timestamp, pd.Timestamp(day))
    if not first <= label <= last:
        raise NotASession(
            f"{label:%Y-%m-%d} is outside of the calendar of {calendar}: its sessions are those from "
            f"{first:%Y-%m-%d} to {last:%Y-%m-%d}."
        )
    return label
