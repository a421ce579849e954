from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import pytest

from volcast.models.calendar_names import calendar_named
from volcast.models.errors import NotASession, UnknownCalendar
from volcast.models.sessions import (
    due_session,
    last_closed_session,
    last_session_on_or_before,
    market_calendar,
    market_hours,
    next_session,
    sessions_ahead,
    sessions_between,
)
from volcast.tasks.settings import last_session


def new_york(*numbers: int) -> datetime:
    return datetime(*numbers, tzinfo=ZoneInfo("America/New_York"))  # pyright: ignore[reportArgumentType]


def test_a_week_with_a_holiday_has_four_sessions():
    # Memorial Day is 27 May 2024
    found = sessions_between(date(2024, 5, 25), date(2024, 6, 1))
    assert [session.day for session in found] == [28, 29, 30, 31]
    assert found.tz is None


@pytest.mark.parametrize(("year", "count"), [(1970, 254), (1987, 253), (2001, 248), (2012, 250), (2024, 252)])
def test_a_year_has_the_sessions_that_the_exchange_held(year, count):
    assert len(sessions_between(date(year, 1, 2), date(year, 12, 31))) == count


def test_no_sessions_lie_between_a_date_and_an_earlier_one_or_on_a_weekend():
    assert len(sessions_between(date(2024, 5, 8), date(2024, 5, 7))) == 0
    assert len(sessions_between(date(2024, 5, 4), date(2024, 5, 5))) == 0


@pytest.mark.parametrize("day", [date(1962, 1, 2), date(2200, 1, 2)])
def test_a_date_that_the_calendar_does_not_reach_is_named(day):
    for ask in (last_session_on_or_before, next_session, lambda day: sessions_between(day, day)):
        with pytest.raises(NotASession, match=rf"{day}.* from 1970-01-02 to "):
            ask(day)


@pytest.mark.parametrize(
    ("now", "closed"),
    [
        (datetime(2024, 7, 3, 16, 59, tzinfo=UTC), date(2024, 7, 2)),  # a half session closes at 13:00 in New York
        (datetime(2024, 7, 3, 17, 0, tzinfo=UTC), date(2024, 7, 3)),
        (datetime(2024, 7, 4, 23, 0, tzinfo=UTC), date(2024, 7, 3)),  # a holiday
        (datetime(2024, 1, 8, 20, 59, 59, tzinfo=UTC), date(2024, 1, 5)),  # 16:00 in winter
        (datetime(2024, 1, 8, 21, 0, tzinfo=UTC), date(2024, 1, 8)),
        (new_york(2024, 1, 8, 15, 30), date(2024, 1, 5)),
        (new_york(2024, 1, 8, 16, 5), date(2024, 1, 8)),
        (new_york(2024, 11, 29, 12, 59), date(2024, 11, 27)),  # the half session after Thanksgiving
        (new_york(2024, 11, 29, 13, 5), date(2024, 11, 29)),
        # New York has its summer time, Europe not yet (March) or no more (autumn): 16:00 is 20:00 UTC
        (datetime(2024, 3, 11, 19, 59, tzinfo=UTC), date(2024, 3, 8)),
        (datetime(2024, 3, 11, 20, 0, tzinfo=UTC), date(2024, 3, 11)),
        (datetime(2024, 10, 28, 19, 59, tzinfo=UTC), date(2024, 10, 25)),
        (datetime(2024, 10, 28, 20, 0, tzinfo=UTC), date(2024, 10, 28)),
        (datetime(2024, 11, 4, 20, 0, tzinfo=UTC), date(2024, 11, 1)),  # and a week later 21:00
    ],
)
def test_a_session_counts_from_its_close(now, closed):
    assert last_closed_session(now) == closed


def test_a_date_to_come_is_refused_by_the_clock_that_is_given():
    noon = datetime(2024, 7, 3, 16, 0, tzinfo=UTC)
    assert last_session(date(2024, 7, 3), noon) == date(2024, 7, 2)
    with pytest.raises(NotASession, match=r"2024-07-04 is still to come. The last closed session is 2024-07-02"):
        last_session(date(2024, 7, 4), noon)


def test_a_time_without_a_zone_or_before_the_calendar_has_no_closed_session():
    with pytest.raises(ValueError, match="time zone"):
        last_closed_session(datetime(2024, 1, 8, 21, 0))
    with pytest.raises(NotASession, match="before the first close of XNYS, on 1970-01-02"):
        last_closed_session(datetime(1970, 1, 1, tzinfo=UTC))


def test_the_last_session_on_or_before_a_sunday_is_friday():
    assert last_session_on_or_before(date(2024, 3, 10)) == date(2024, 3, 8)
    assert last_session_on_or_before(date(2024, 3, 8)) == date(2024, 3, 8)


def test_the_next_session_of_a_friday_is_monday_and_a_sunday_has_none():
    assert next_session(date(2024, 3, 8)) == date(2024, 3, 11)
    with pytest.raises(NotASession, match="closed on Sunday, 2024-03-10"):
        next_session(date(2024, 3, 10))


@pytest.mark.parametrize(
    ("calendar", "session", "following"),
    [
        ("24/7", date(2024, 3, 8), date(2024, 3, 9)),  # Friday, Saturday
        ("XLON", date(2024, 5, 3), date(2024, 5, 7)),  # over the early May bank holiday
        ("XNYS", date(2024, 5, 3), date(2024, 5, 6)),
        ("XTKS", date(2024, 5, 2), date(2024, 5, 7)),  # the golden week
    ],
)
def test_the_next_session_is_that_of_the_market(calendar, session, following):
    assert next_session(session, calendar) == following


@pytest.mark.parametrize(
    ("calendar", "now", "closed"),
    [
        ("24/7", datetime(2024, 3, 9, 23, 59, tzinfo=UTC), date(2024, 3, 8)),
        ("24/7", datetime(2024, 3, 10, 0, 0, tzinfo=UTC), date(2024, 3, 9)),  # a Saturday
        ("XLON", datetime(2023, 12, 22, 12, 29, tzinfo=UTC), date(2023, 12, 21)),  # the half day before Christmas
        ("XLON", datetime(2023, 12, 22, 12, 30, tzinfo=UTC), date(2023, 12, 22)),
        ("XTKS", datetime(2024, 11, 5, 6, 29, tzinfo=UTC), date(2024, 11, 1)),  # Tokyo's close moved to 15:30 that day
        ("XTKS", datetime(2024, 11, 5, 6, 30, tzinfo=UTC), date(2024, 11, 5)),
    ],
)
def test_a_session_of_another_market_counts_from_its_own_close(calendar, now, closed):
    assert last_closed_session(now, calendar) == closed


@pytest.mark.parametrize(
    ("calendar", "by", "now", "due"),
    [
        ("XNYS", time(18, 15), datetime(2024, 3, 8, 23, 14, tzinfo=UTC), date(2024, 3, 7)),
        ("XNYS", time(18, 15), datetime(2024, 3, 8, 23, 15, tzinfo=UTC), date(2024, 3, 8)),
        (
            "XNYS",
            time(18, 15),
            datetime(2024, 3, 11, 22, 14, tzinfo=UTC),
            date(2024, 3, 8),
        ),  # a weekend, and an hour less
        ("XNYS", time(18, 15), datetime(2024, 3, 11, 22, 15, tzinfo=UTC), date(2024, 3, 11)),
        ("XNYS", time(18, 15), datetime(2024, 3, 29, 23, 0, tzinfo=UTC), date(2024, 3, 28)),  # Good Friday
        ("XNYS", time(9, 0), datetime(2024, 3, 9, 13, 59, tzinfo=UTC), date(2024, 3, 7)),  # Friday's, on Saturday
        ("XNYS", time(9, 0), datetime(2024, 3, 9, 14, 0, tzinfo=UTC), date(2024, 3, 8)),
        ("XNYS", time(14, 0), datetime(2024, 7, 3, 18, 0, tzinfo=UTC), date(2024, 7, 3)),  # a half day, until 13:00
        ("XLON", time(18, 0), datetime(2024, 7, 1, 17, 0, tzinfo=UTC), date(2024, 7, 1)),
        ("24/7", time(1, 30), datetime(2024, 3, 10, 1, 30, tzinfo=UTC), date(2024, 3, 9)),
        ("24/7", time(1, 30), datetime(2024, 3, 10, 1, 29, tzinfo=UTC), date(2024, 3, 8)),
    ],
)
def test_a_forecast_is_due_by_the_market_s_own_clock_after_each_close(calendar, by, now, due):
    assert due_session(now, by, calendar) == due


@pytest.mark.parametrize(
    ("calendar", "zone", "hours", "weekdays"),
    [
        ("XNYS", "America/New_York", 16, (0, 1, 2, 3, 4)),
        ("XLON", "Europe/London", 16.5, (0, 1, 2, 3, 4)),
        ("XSAU", "Asia/Riyadh", 15, (0, 1, 2, 3, 6)),
        ("24/7", "UTC", 24, (0, 1, 2, 3, 4, 5, 6)),
    ],
)
def test_a_market_has_hours_of_its_own(calendar, zone, hours, weekdays):
    found = market_hours(calendar)
    assert (found.zone, found.close.total_seconds() / 3600, found.weekdays) == (zone, hours, weekdays)


@pytest.mark.parametrize(
    ("word", "name"),
    [("xlon", "XLON"), ("LSE", "XLON"), ("NYSE", "XNYS"), ("24/7", "24/7"), ("US_FUTURES", "us_futures")],
)
def test_a_calendar_is_known_in_any_case_and_by_its_aliases(word, name):
    assert calendar_named(word) == name


def test_a_calendar_that_is_none_or_cannot_be_computed_is_refused():
    with pytest.raises(UnknownCalendar, match=r"^'XXXX' is no calendar of exchange_calendars. Expected .* XLON"):
        calendar_named("XXXX")
    with pytest.raises(UnknownCalendar, match="cannot compute ASEX here"):
        market_calendar("ASEX")  # pandas 3 has no Orthodox Easter for it; drop when exchange_calendars has


def test_sessions_that_exchange_calendars_does_not_know_yet_are_said_to_be_unknown():
    newest = market_calendar().last_session.date()
    with pytest.raises(
        NotASession, match=f"10 sessions are needed after {newest}; .* those of XNYS only up to {newest}"
    ):
        sessions_ahead(date(2024, 1, 2), newest, 10)
    with pytest.raises(NotASession, match="2200-01-01 is after the last close of XNYS that exchange_calendars knows"):
        last_closed_session(datetime(2200, 1, 1, tzinfo=UTC))


def test_a_calendar_begins_where_exchange_calendars_knows_its_holidays():
    assert market_calendar("XTKS").first_session.date() == date(1997, 1, 6)
    assert market_calendar("XLON").first_session.date() == date(1970, 1, 2)
