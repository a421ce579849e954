from datetime import date

import pandas as pd
import pytest

from volcast.models.calendar_fit import misfit
from volcast.models.sessions import sessions_between

FIRST, LAST = date(2022, 1, 3), date(2023, 12, 29)


def dates_of(calendar: str) -> pd.DatetimeIndex:
    return sessions_between(FIRST, LAST, calendar).as_unit("s")


@pytest.mark.parametrize("calendar", ["XNYS", "XLON", "XETR", "XTKS", "XHKG", "XTSE", "CMES", "24/7"])
def test_dates_of_a_market_fit_it_and_elsewhere_it_is_named(calendar: str) -> None:
    assert misfit(dates_of(calendar), calendar) == ""
    elsewhere = "XTKS" if calendar == "XNYS" else "XNYS"
    assert misfit(dates_of(calendar), elsewhere).endswith(f": give --calendar {calendar}")


def test_what_does_not_fit_is_shown() -> None:
    words = misfit(dates_of("XLON"), "XNYS")
    # New York's holidays on which London trades: seven in 2022, and six in 2023, when both rest on 29 May
    assert words.startswith(
        "13 of its 501 dates are no sessions of XNYS: Mon 2022-01-17, Mon 2022-02-21, Mon 2022-05-30"
    )
    assert "They fit XLON" in words


def test_a_market_with_weekends_has_dates_of_them() -> None:
    words = misfit(dates_of("XNYS"), "24/7")
    assert words.startswith("none of its 501 dates is a Saturday or a Sunday, which 24/7 has. They fit XNYS")


def test_a_few_slips_lost_sessions_and_old_dates_are_no_other_market() -> None:
    sessions = dates_of("XNYS")
    slips = ["2022-07-04", "2022-09-05", "2022-12-26"]
    before = pd.bdate_range("1960-01-04", "1969-12-31")
    dates = pd.DatetimeIndex(sorted({*sessions[60:], *before, *pd.to_datetime(slips)})).as_unit("s")
    assert misfit(dates, "XNYS") == ""
    assert "They fit 24/5" in misfit(pd.bdate_range(FIRST, LAST).as_unit("s"), "XNYS")


def test_weekly_and_monthly_bars_say_nothing_of_a_calendar() -> None:
    for frequency in ("W-SUN", "MS"):
        assert misfit(pd.date_range(FIRST, LAST, freq=frequency).as_unit("s"), "XNYS") == ""
    assert misfit(pd.DatetimeIndex([]).as_unit("s"), "XNYS") == ""


def test_dates_of_no_major_market_are_refused_with_what_to_look_for() -> None:
    saudi = sessions_between(FIRST, LAST, "XSAU").as_unit("s")
    assert misfit(saudi, "XSAU") == ""
    assert misfit(saudi, "XNYS").endswith("among the names of exchange_calendars, and give it by --calendar")
