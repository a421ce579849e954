"""The calendars of markets: which dates are sessions, and which of them have closed.

Every function takes the name of a calendar, New York's by default. A date outside of it (1970, or the first year that
exchange_calendars knows, to about a year from today) raises NotASession.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import cast
from zoneinfo import ZoneInfo

import exchange_calendars
import numpy as np
import pandas as pd
from exchange_calendars import ExchangeCalendar

from volcast.models.calendar_names import NEW_YORK
from volcast.models.errors import NotASession, UnknownCalendar

FIRST_DATE = date(1970, 1, 1)  # exchange_calendars 4.13 counts holidays of the 1960s as sessions
LOOKAHEAD = timedelta(days=400)  # forecasts need the sessions of the coming weeks
YEAR = 260  # sessions


def market_calendar(name: str = NEW_YORK) -> ExchangeCalendar:
    """A market's calendar from 1970 to about a year from today, as far as it is known. Raises UnknownCalendar."""
    return _calendar(name, datetime.now(UTC).date() + LOOKAHEAD)


@lru_cache(maxsize=32)  # one takes 0.1 s, XKRX 2 s
def _calendar(name: str, last: date) -> ExchangeCalendar:
    first, end = cast(pd.Timestamp, pd.Timestamp(FIRST_DATE)), cast(pd.Timestamp, pd.Timestamp(last))
    try:
        if name != NEW_YORK:
            own = exchange_calendars.get_calendar(name)  # of the last 20 years; only a calendar knows its bounds
            first, end = max(first, own.bound_min() or first), min(end, own.bound_max() or end)
        return exchange_calendars.get_calendar(name, start=first, end=end)
    except (ValueError, NotImplementedError) as error:  # 5 of them fail in exchange_calendars 4.13 with pandas 3
        raise UnknownCalendar(f"exchange_calendars cannot compute {name} here ({error}). Choose another one") from error


def sessions_between(first: date, last: date, calendar: str = NEW_YORK) -> pd.DatetimeIndex:
    """The sessions from `first` to `last`, both included: tz-naive midnights, ascending; none when `last` is earlier.

    Raises NotASession when either date is outside of the calendar.
    """
    return market_calendar(calendar).sessions_in_range(_in_calendar(first, calendar), _in_calendar(last, calendar))


def sessions_ahead(first: date, last: date, ahead: int, calendar: str = NEW_YORK) -> pd.DatetimeIndex:
    """The sessions from `first` to `last`, and `ahead` more. Raises NotASession where the calendar ends before."""
    whole, known = market_calendar(calendar).sessions, sessions_between(first, last, calendar)
    begin = int(whole.searchsorted(np.datetime64(first)))
    end = begin + len(known) + ahead
    if end > len(whole):
        raise NotASession(
            f"{ahead} sessions are needed after {last:%Y-%m-%d}; exchange_calendars knows those of {calendar} only up "
            f"to {whole[-1]:%Y-%m-%d}. A newer release of it may know more."
        )
    return whole[begin:end]


def last_closed_session(now: datetime, calendar: str = NEW_YORK) -> date:
    """The newest session whose closing time (half days included) is not after `now` (timezone-aware).

    Raises NotASession for a time before the first close of the calendar or after its last one, ValueError for one
    without a time zone.
    """
    if now.tzinfo is None:
        raise ValueError(f"last_closed_session needs a time with a time zone, got {now}.")
    closes = market_calendar(calendar).closes
    closed = closes.loc[closes <= now].index
    if closed.empty:
        raise NotASession(f"{now:%Y-%m-%d} is before the first close of {calendar}, on {closes.index[0]:%Y-%m-%d}.")
    if len(closed) == len(closes):
        raise NotASession(
            f"{now:%Y-%m-%d} is after the last close of {calendar} that exchange_calendars knows, on "
            f"{closed[-1]:%Y-%m-%d}. A newer release of it may know more."
        )
    return cast(pd.Timestamp, closed[-1]).date()


def due_session(now: datetime, by: time, calendar: str = NEW_YORK) -> date:
    """The newest session after whose close it has been `by` o'clock in the market's time zone at `now`.

    Of New York a session is due by 18:15 on its own evening, and by 09:00 on the next morning. Raises NotASession.
    """
    session, market = last_closed_session(now, calendar), market_calendar(calendar)
    zone = ZoneInfo(str(market.tz))
    close = market.session_close(_in_calendar(session, calendar)).to_pydatetime().astimezone(zone)
    due = datetime.combine(close.date(), by, zone)
    if due <= close:
        due = datetime.combine(close.date() + timedelta(days=1), by, zone)
    return session if due <= now else session_before(session, 1, calendar)


def last_session_on_or_before(day: date, calendar: str = NEW_YORK) -> date:
    """The session `day`, or the one before it when the market is closed on `day`. Raises NotASession."""
    return market_calendar(calendar).date_to_session(_in_calendar(day, calendar), direction="previous").date()


def next_session(session: date, calendar: str = NEW_YORK) -> date:
    """The session that follows `session`. Raises NotASession when the market is closed on `session`."""
    return session_before(session, -1, calendar)


def session_before(session: date, sessions: int, calendar: str = NEW_YORK) -> date:
    """The session so many before `session`. Raises NotASession when the market is closed on `session`."""
    label = _in_calendar(session, calendar)
    if not market_calendar(calendar).is_session(label):
        raise NotASession(f"{calendar} is closed on {label:%A}, {label:%Y-%m-%d}. Expected a session.")
    return market_calendar(calendar).session_offset(label, -sessions).date()


def sessions_after(session: date, through: date, calendar: str = NEW_YORK) -> int:
    """How many sessions come after `session`, up to `through`; 0 when `through` is earlier. Raises NotASession."""
    later = sessions_between(session, through, calendar)
    return len(later) - int(_in_calendar(session, calendar) in later)


@dataclass(frozen=True, kw_only=True)
class MarketHours:
    """When a market's sessions begin and end."""

    zone: str  # the time zone
    open: timedelta  # after the session's midnight there: the earliest of the last year; the evening before is below 0
    close: timedelta  # likewise, the latest; 24 hours for 24/7
    weekdays: tuple[int, ...]  # on which there are sessions; Monday is 0


def market_hours(calendar: str) -> MarketHours:
    """The hours of the last year. Raises UnknownCalendar."""
    market = market_calendar(calendar)
    opened, closed = (
        times.dt.tz_convert(market.tz).dt.tz_localize(None) - times.index
        for times in (market.opens.iloc[-YEAR:], market.closes.iloc[-YEAR:])
    )
    return MarketHours(
        zone=str(market.tz),
        open=opened.min().to_pytimedelta(),
        close=closed.max().to_pytimedelta(),
        weekdays=tuple(day for day, trades in enumerate(market.weekmask) if trades == "1"),
    )


def _in_calendar(day: date, calendar: str) -> pd.Timestamp:
    """`day` at midnight. Raises NotASession where the calendar does not reach it."""
    first, last = market_calendar(calendar).first_session, market_calendar(calendar).last_session
    label = cast(pd.Timestamp, pd.Timestamp(day))
    if not first <= label <= last:
        raise NotASession(
            f"{label:%Y-%m-%d} is outside of the calendar of {calendar}: its sessions are those from "
            f"{first:%Y-%m-%d} to {last:%Y-%m-%d}."
        )
    return label
