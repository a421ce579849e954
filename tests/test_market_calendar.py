from datetime import date

import numpy as np
import pandas as pd
import pytest

from volcast.models.market_calendar import CALENDAR_COLUMNS, NEW_YORK_ONLY, calendar_columns, weekend_columns
from volcast.models.sessions import sessions_between
from volcast.tasks.sources.exchange_calendar import trading_grid

FLAGS = set(CALENDAR_COLUMNS) - {"monday", "tuesday", "wednesday", "thursday", "month_phase"}


def flags(day: str, calendar: str = "XNYS") -> set[str]:
    """The names of the columns that are 1 on a date, but for weekdays and phases."""
    row_K = calendar_columns(pd.DatetimeIndex([day]), calendar)[0]
    return {name for name, value in zip(CALENDAR_COLUMNS, row_K, strict=True) if value == 1 and name in FLAGS}


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("2021-06-25", {"russell"}),
        ("2021-06-18", {"expiry", "triple_witching", "week_of_expiry"}),
        ("2021-07-16", {"expiry", "week_of_expiry"}),
        ("2021-07-14", {"week_of_expiry"}),
        ("2021-11-26", {"half_day", "black_friday", "after_holiday"}),
        ("2021-11-24", {"before_holiday"}),
        ("2019-04-18", {"expiry", "week_of_expiry", "before_holiday"}),  # the third Friday was Good Friday
        ("2019-04-22", {"after_holiday"}),
        ("2012-10-26", set()),  # nobody knew of the hurricane's two sessions
        ("2012-10-31", {"month_end"}),
        ("2021-08-31", {"month_end", "msci"}),
        ("2021-09-30", {"month_end", "quarter_end"}),
        ("2022-01-03", {"month_start", "first_week"}),
        ("2021-12-31", {"month_end", "quarter_end", "year_end"}),
        ("2020-12-24", {"half_day", "before_holiday", "year_end"}),
    ],
)
def test_known_dates(day: str, expected: set[str]) -> None:
    assert flags(day) == expected


def test_friday_is_no_other_weekday() -> None:
    week_SK = calendar_columns(sessions_between(date(2021, 6, 7), date(2021, 6, 11)))
    assert week_SK[:, :4].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_a_month_has_one_expiry_and_a_year_four_triple_witchings() -> None:
    sessions = sessions_between(date(2010, 1, 1), date(2024, 12, 31))
    flags_SK, months, years = calendar_columns(sessions), sessions.month.to_numpy(), sessions.year.to_numpy()

    def counted(name: str, group_S: np.ndarray) -> set[int]:
        return set(np.bincount(group_S, weights=flags_SK[:, CALENDAR_COLUMNS.index(name)]).astype(int).tolist())

    for name in ("expiry", "month_start", "month_end"):
        assert counted(name, (years - 2010) * 12 + months - 1) == {1}
    for name, count in {"triple_witching": 4, "msci": 4, "quarter_end": 4, "russell": 1, "black_friday": 1}.items():
        assert counted(name, years - 2010) == {count}


def test_model_and_simulated_exchange_have_the_russell_reconstitution_on_the_fourth_friday_of_june() -> None:
    days = [23, 22, 28, 27, 25, 24, 23, 22, 27, 26, 25, 24, 22, 28, 27, 26, 24, 23, 22, 28, 26, 25, 24, 23, 28, 27, 26]
    expected = [pd.Timestamp(2000 + place, 6, day) for place, day in enumerate(days)]
    grid = trading_grid()
    years = (grid.sessions.year >= 2000) & (grid.sessions.year <= 2026)
    flags_S = calendar_columns(grid.sessions)[:, CALENDAR_COLUMNS.index("russell")] == 1
    assert list(grid.sessions[flags_S & years]) == expected
    late = (grid.sessions.month == 6) & (grid.sessions.day_of_week == 4) & (grid.sessions.day >= 22)
    fridays, effects = grid.sessions[late & years], grid.effects[late & years]
    largest = [fridays[np.where(fridays.year == year, effects, -np.inf).argmax()] for year in range(2000, 2027)]
    assert largest == expected


def test_the_sessions_of_a_month_count_up_from_its_first() -> None:
    phase_S = calendar_columns(sessions_between(date(2021, 6, 30), date(2021, 7, 7)))[
        :, CALENDAR_COLUMNS.index("month_phase")
    ]
    assert (phase_S * 22).round(4).tolist() == [21, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("calendar", "day", "expected"),
    [
        ("XLON", "2024-12-24", {"half_day", "before_holiday", "year_end"}),  # and two days of Christmas follow
        ("XLON", "2024-12-27", {"after_holiday", "year_end"}),
        ("XLON", "2024-05-03", {"before_holiday"}),  # a bank holiday
        ("XLON", "2024-07-03", set()),  # New York has a half day
        ("XLON", "2024-03-15", set()),  # New York's triple witching
        ("XLON", "2024-06-28", {"month_end", "quarter_end"}),  # its Russell reconstitution
        ("XLON", "2024-11-29", {"month_end", "msci"}),  # its Black Friday
        ("XTKS", "2024-05-02", {"before_holiday"}),
        ("XTKS", "2024-09-20", {"before_holiday"}),  # the day after the equinox, which moves
        ("XHKG", "2024-02-09", {"half_day", "before_holiday"}),  # the eve of the lunar new year
        ("XSHG", "2024-02-08", {"before_holiday"}),
        ("XSAU", "2024-03-17", set()),  # a Sunday, after the weekend of Friday and Saturday
        ("24/7", "2024-12-25", {"year_end"}),
        ("24/7", "2024-03-15", set()),
    ],
)
def test_a_market_has_its_own_half_days_and_holidays_and_nothing_of_new_york(
    calendar: str, day: str, expected: set[str]
) -> None:
    assert flags(day, calendar) == expected


@pytest.mark.parametrize("calendar", ["XLON", "XETR", "XTKS", "24/7"])
def test_what_only_new_york_has_is_off_elsewhere(calendar: str) -> None:
    columns_SK = calendar_columns(sessions_between(date(2010, 1, 4), date(2024, 12, 31), calendar), calendar)
    assert not columns_SK[:, [CALENDAR_COLUMNS.index(name) for name in NEW_YORK_ONLY]].any()
    assert columns_SK[:, CALENDAR_COLUMNS.index("month_end")].sum() == 15 * 12


def test_a_market_that_never_closes_tells_saturday_from_sunday() -> None:
    week = sessions_between(date(2024, 3, 8), date(2024, 3, 11), "24/7")
    assert weekend_columns(week, "24/7").tolist() == [[0, 0], [1, 0], [0, 1], [0, 0]]
    assert weekend_columns(week[:1], "XNYS").shape == (1, 0)
