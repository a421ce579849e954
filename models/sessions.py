"""The calendar of the New York Stock Exchange: which dates are sessions, and which of them have closed.

A date outside of the calendar (1970 to about a year from today) raises NotASession.
"""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import cast

import exchange_calendars
import pandas as pd
from exchange_calendars import ExchangeCalendar

from models.errors import NotASession

EXCHANGE = "XNYS"
FIRST_DATE = date(1970, 1, 1)  # exchange_calendars 4.13 counts holidays of the 1960s as sessions
LOOKAHEAD = timedelta(days=400)  # forecasts need the sessions of the coming weeks


def market_calendar() -> ExchangeCalendar:
    """The exchange's calendar from 1970 to about a year from today."""
    return _calendar(datetime.now(UTC).date() + LOOKAHEAD)


@lru_cache(maxsize=2)
def _calendar(last: date) -> ExchangeCalendar:
    return exchange_calendars.get_calendar(EXCHANGE, start=str(FIRST_DATE), end=str(last))


def sessions_between(first: date, last: date) -> pd.DatetimeIndex:
    """The sessions from `first` to `last`, both included: tz-naive midnights, ascending; none when `last` is earlier.

    Raises NotASession when either date is outside of the calendar.
    """
    return market_calendar().sessions_in_range(_in_calendar(first), _in_calendar(last))


def last_closed_session(now: datetime) -> date:
    """The newest session whose closing time (half days included) is not after `now` (timezone-aware).

    Raises NotASession for a time before the first close of the calendar, ValueError for one without a time zone.
    """
    if now.tzinfo is None:
        raise ValueError(f"last_closed_session needs a time with a time zone, got {now}.")
    closes = market_calendar().closes
    closed = closes.loc[closes <= now].index
    if closed.empty:
        raise NotASession(f"{now:%Y-%m-%d} is before the first close of {EXCHANGE}, on {closes.index[0]:%Y-%m-%d}.")
    return cast(pd.Timestamp, closed[-1]).date()


def last_session_on_or_before(day: date) -> date:
    """The session `day`, or the one before it when the market is closed on `day`. Raises NotASession."""
    return market_calendar().date_to_session(_in_calendar(day), direction="previous").date()


def next_session(session: date) -> date:
    """The session that follows `session`. Raises NotASession when the market is closed on `session`."""
    return session_before(session, -1)


def session_before(session: date, sessions: int) -> date:
    """The session so many before `session`. Raises NotASession when the market is closed on `session`."""
    label = _in_calendar(session)
    if not market_calendar().is_session(label):
        raise NotASession(f"{EXCHANGE} is closed on {label:%A}, {label:%Y-%m-%d}. Expected a session.")
    return market_calendar().session_offset(label, -sessions).date()


def sessions_after(session: date, through: date) -> int:
    """How many sessions come after `session`, up to `through`; 0 when `through` is earlier. Raises NotASession."""
    later = sessions_between(session, through)
    return len(later) - int(_in_calendar(session) in later)


def _in_calendar(day: date) -> pd.Timestamp:
    """`day` at midnight. Raises NotASession where the calendar does not reach it."""
    first, last = market_calendar().first_session, market_calendar().last_session
    label = cast(pd.Timestamp, pd.Timestamp(day))
    if not first <= label <= last:
        raise NotASession(
            f"{label:%Y-%m-%d} is outside of the calendar of {EXCHANGE}: its sessions are those from "
            f"{first:%Y-%m-%d} to {last:%Y-%m-%d}."
        )
    return label
