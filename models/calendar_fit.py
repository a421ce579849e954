"""Whether a ticker's dates are the sessions of a market, and whose they are where they are not.

1. dates that are too few for daily bars say nothing here
2. they do not fit a calendar when more than a handful of them are no sessions of it, or when there is none of a weekday
   on which it has sessions
3. of the major calendars that they do fit, those with the fewest sessions that the dates lack or have beside them
"""

import numpy as np
import pandas as pd

from volcast.models.calendar_names import MAJOR
from volcast.models.errors import UnknownCalendar
from volcast.models.sessions import market_calendar
from volcast.models.text import counted, listed

HANDFUL, SHARE = 3, 0.005  # dates: as many may be slips of a vendor; Frankfurt has 2.6 % that New York has not
DAILY = 0.5  # of the weekdays from the first to the last date; fewer are weekly bars, or hardly traded
LEAST = 5  # sessions of a weekday, before it counts that there is no date of it
NAMED = 3  # dates, calendars
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def misfit(dates: pd.DatetimeIndex, calendar: str) -> str:
    """Why a ticker's dates (ascending, each once) are not those of a calendar, and whose they are; or an empty text.

    Dates that the calendar does not reach do not count. Raises UnknownCalendar.
    """
    why = _why_not(dates, calendar)
    days = dates.to_numpy().astype("datetime64[D]")
    if not why or len(days) < DAILY * np.busday_count(days[0], days[-1]):
        return ""
    apart = {name: _apart(dates, name) for name in MAJOR if _fits(dates, name)}
    best = [name for name in apart if apart[name] == min(apart.values())]
    if not best:
        return f"{why}. Find the market's calendar among the names of exchange_calendars, and give it by --calendar"
    return f"{why}. They fit {listed(best, NAMED)}: give --calendar {best[0]}"


def _fits(dates: pd.DatetimeIndex, calendar: str) -> bool:
    try:
        return not _why_not(dates, calendar)
    except UnknownCalendar:
        return False


def _why_not(dates: pd.DatetimeIndex, calendar: str) -> str:
    reached, sessions = _reached(dates, calendar)
    closed = reached.difference(sessions)
    if len(closed) > max(HANDFUL, SHARE * len(dates)):
        shown = [f"{day:%a %Y-%m-%d}" for day in closed]
        return f"{len(closed):,} of its {len(dates):,} dates are no sessions of {calendar}: {listed(shown, NAMED)}"
    held, had = (np.bincount(days.day_of_week, minlength=7) for days in (sessions, reached))
    never = [WEEKDAYS[day] for day in np.flatnonzero((held >= LEAST) & (had == 0))]
    return (
        f"none of its {counted(len(dates), 'date')} is a {' or a '.join(never)}, which {calendar} has" if never else ""
    )


def _apart(dates: pd.DatetimeIndex, calendar: str) -> int:
    """How many dates are no sessions, and sessions no dates."""
    reached, sessions = _reached(dates, calendar)
    return len(reached.symmetric_difference(sessions))


def _reached(dates: pd.DatetimeIndex, calendar: str) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex]:
    """The dates that the calendar reaches, and its sessions from the first of these to the last."""
    whole = market_calendar(calendar).sessions.as_unit("s")  # nanoseconds could not be compared with 2400
    reached = dates[(dates >= whole[0]) & (dates <= whole[-1])]
    return reached, whole[(whole >= reached.min()) & (whole <= reached.max())]
