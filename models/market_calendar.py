"""What is known of a session long before it: its place in the week, the month and the year, and what the market does.

Every column is a function of the market's calendar alone, so that it may be used for a session that is to come. What
only New York has is 0 on any other market's sessions.
"""

from functools import lru_cache

import numpy as np
import pandas as pd

from volcast.models.calendar_names import NEW_YORK
from volcast.models.sessions import market_calendar

# S sessions, K columns

CALENDAR_COLUMNS = (
    *("monday", "tuesday", "wednesday", "thursday"),  # Friday is none of them
    "half_day",
    "before_holiday",  # a day without trading follows that is no weekend, as was known ahead: not a hurricane
    "after_holiday",
    "month_start",  # the first session of a month
    "month_end",
    "quarter_end",
    "expiry",  # monthly options: the third Friday, or the session before it
    "triple_witching",  # the expiry of March, June, September, December
    "msci",  # index reviews take effect at the close of the last session of February, May, August, November
    "russell",  # the reconstitution: the fourth Friday of June
    "first_week",  # of January
    "year_end",  # 24 December and later
    "black_friday",  # the session after Thanksgiving
    *("year_sin", "year_cos", "year_sin_2", "year_cos_2"),
    "month_phase",  # trading day of the month, 0 to 1
    *("quarter_sin", "quarter_cos"),  # phase of the quarter: when companies report
    "week_of_expiry",
)
SPECIAL_DAYS = {  # column -> what a person calls such a session
    "triple_witching": "triple witching",
    "expiry": "option expiry",
    "week_of_expiry": "week of an option expiry",
    "half_day": "half day",
    "black_friday": "after Thanksgiving",
    "before_holiday": "before a holiday",
    "after_holiday": "after a holiday",
    "month_start": "month start",
    "quarter_end": "quarter end",
    "month_end": "month end",
    "msci": "MSCI review",
    "russell": "Russell reconstitution",
    "first_week": "first week of the year",
    "year_end": "end of the year",
}
SPECIAL_WEEKS = ("week_of_expiry", "first_week")
IMPLIED = {  # by a column that stands for more
    "triple_witching": ("expiry", "week_of_expiry"),
    "expiry": ("week_of_expiry",),
    "black_friday": ("after_holiday",),
    "quarter_end": ("month_end",),
}
NEW_YORK_ONLY = ("expiry", "triple_witching", "week_of_expiry", "russell", "black_friday")
WEEKEND = (5, 6)  # Saturday and Sunday, as pandas counts weekdays


def calendar_columns(sessions: pd.DatetimeIndex, calendar: str = NEW_YORK) -> np.ndarray:
    """(S, K) float32, the columns of CALENDAR_COLUMNS for each session: 0 or 1, phases in -1..1.

    `sessions`: sessions of the market, ascending.
    """
    whole = market_calendar(calendar).sessions
    return _table_of(calendar, len(whole))[whole.get_indexer(sessions)]


def special_days(
    sessions: pd.DatetimeIndex, calendar: str = NEW_YORK, *, weeks: bool = True
) -> dict[pd.Timestamp, str]:
    """Session -> what it is in the calendar, in words: "half day, after Thanksgiving"; empty for an ordinary one.

    Without `weeks` those that only lie in a special week are ordinary.
    """
    days = sessions.unique()
    shown = [name for name in SPECIAL_DAYS if weeks or name not in SPECIAL_WEEKS]
    found = []
    for flags_K in calendar_columns(days, calendar) == 1:
        names = [name for name in shown if flags_K[CALENDAR_COLUMNS.index(name)]]
        implied = {less for name in names for less in IMPLIED.get(name, ())}
        found.append(", ".join(SPECIAL_DAYS[name] for name in names if name not in implied))
    return dict(zip(days, found, strict=True))


def weekend_columns(sessions: pd.DatetimeIndex, calendar: str) -> np.ndarray:
    """(S, 2) float32: Saturday and Sunday, 0 or 1, for a market that trades on both; else (S, 0).

    The weekdays of CALENDAR_COLUMNS do not tell them from a Friday, and one shape serves the networks of all markets.
    """
    weekday_S = sessions.day_of_week.to_numpy()
    days = WEEKEND if trades_at_weekends(calendar) else ()
    return np.array([weekday_S == day for day in days], dtype=np.float32).reshape(len(days), len(sessions)).T


def trades_at_weekends(calendar: str) -> bool:
    """Whether Saturdays and Sundays are sessions like any other day."""
    return market_calendar(calendar).weekmask == "1111111"


@lru_cache(maxsize=8)
def _table_of(calendar: str, _count: int) -> np.ndarray:
    """(count, K): the columns of the whole calendar, which grows with the days."""
    sessions = market_calendar(calendar).sessions
    day = sessions.day.to_numpy()
    month = sessions.month.to_numpy()
    weekday = sessions.day_of_week.to_numpy()
    before = _before_closing(sessions, calendar)
    month_key = sessions.year.to_numpy() * 12 + month
    starts = np.r_[True, month_key[1:] != month_key[:-1]]
    ends = np.r_[month_key[1:] != month_key[:-1], True]
    expiry = _is_near_third_friday(sessions)
    year_phase = 2 * np.pi * sessions.day_of_year.to_numpy() / 365.25
    quarter_phase = 2 * np.pi * _quarter_share(sessions)
    first_of_month = np.maximum.accumulate(np.where(starts, np.arange(len(sessions)), 0))
    columns = {
        **{name: weekday == number for number, name in enumerate(CALENDAR_COLUMNS[:4])},
        "half_day": sessions.isin(market_calendar(calendar).early_closes),
        "before_holiday": before,
        "after_holiday": np.r_[False, before[:-1]],
        "month_start": starts,
        "month_end": ends,
        "quarter_end": ends & (month % 3 == 0),
        "expiry": expiry,
        "triple_witching": expiry & (month % 3 == 0),
        "msci": ends & np.isin(month, (2, 5, 8, 11)),
        "russell": (month == 6) & (weekday == 4) & (day >= 22) & (day <= 28),
        "first_week": (month == 1) & (day <= 7),
        "year_end": (month == 12) & (day >= 24),
        "black_friday": (month == 11) & (weekday == 4) & (day >= 23) & (day <= 29),
        "year_sin": np.sin(year_phase),
        "year_cos": np.cos(year_phase),
        "year_sin_2": np.sin(2 * year_phase),
        "year_cos_2": np.cos(2 * year_phase),
        "month_phase": (np.arange(len(sessions)) - first_of_month) / 22,
        "quarter_sin": np.sin(quarter_phase),
        "quarter_cos": np.cos(quarter_phase),
        "week_of_expiry": _in_week_of(expiry, sessions),
    }
    if calendar != NEW_YORK:
        columns |= dict.fromkeys(NEW_YORK_ONLY, np.zeros(len(sessions)))
    return np.stack([np.asarray(columns[name], dtype=np.float32) for name in CALENDAR_COLUMNS], axis=1)


def _before_closing(sessions: pd.DatetimeIndex, calendar: str) -> np.ndarray:
    """(S,) bool: a day that is none of the market's weekend lies between a session and the next one.

    In New York unplanned closings do not count. Elsewhere exchange_calendars keeps feasts that follow the moon, which
    are known years ahead, among them, so that all closings count.
    """
    market, days = market_calendar(calendar), sessions.to_numpy().astype("datetime64[D]")
    unplanned = np.array(market.adhoc_holidays if calendar == NEW_YORK else [], dtype="datetime64[D]")
    between = np.busday_count(days[:-1], days[1:], weekmask=market.weekmask, holidays=unplanned)
    return np.r_[between > 1, False]


def _is_near_third_friday(sessions: pd.DatetimeIndex) -> np.ndarray:
    """(S,) bool: the third Friday of a month, or the last session before it where that is a holiday."""
    months = pd.date_range(f"{sessions[0]:%Y-%m}-01", sessions[-1], freq="MS")
    fridays = months + pd.to_timedelta((4 - months.day_of_week) % 7 + 14, unit="D")
    places = sessions.searchsorted(fridays[fridays <= sessions[-1]], side="right") - 1
    flags = np.zeros(len(sessions), dtype=bool)
    flags[places[places >= 0]] = True
    return flags


def _in_week_of(flags: np.ndarray, sessions: pd.DatetimeIndex) -> np.ndarray:
    weeks = sessions.to_period("W")
    return np.asarray(weeks.isin(weeks[flags]))


def _quarter_share(sessions: pd.DatetimeIndex) -> np.ndarray:
    quarters = sessions.to_period("Q")
    return (sessions.to_numpy() - quarters.start_time.to_numpy()) / np.timedelta64(92, "D")
