import numpy as np
import pandas as pd
import pytest
from panels import drawn_volumes, panel_of

from volcast.models.ahead_features import ECHO_COLUMNS, HABIT_COLUMNS, echo_places, habits
from volcast.models.market_calendar import calendar_columns

SESSIONS = panel_of(drawn_volumes(1, 420)).sessions
WEEKDAY_S = SESSIONS.day_of_week.to_numpy()


def test_an_echo_is_of_the_same_weekday_a_year_ago() -> None:
    target = SESSIONS.get_indexer(pd.DatetimeIndex(["2013-06-12"]))[0]
    places_E = echo_places(SESSIONS)[target]
    year_ago, quarter_ago = (places_E[ECHO_COLUMNS.index(f"echo_{days}_+0")] for days in (364, 91))
    found = SESSIONS[[year_ago, quarter_ago]].strftime("%Y-%m-%d")
    assert found.tolist() == ["2012-06-13", "2013-03-13"]
    assert places_E[ECHO_COLUMNS.index("echo_91_-3")] == quarter_ago - 3


def test_there_is_no_echo_before_the_first_session_and_none_of_the_last_ten() -> None:
    places_SE = echo_places(SESSIONS)
    assert (places_SE[:30] == 0).all()
    assert (places_SE.max(axis=1) <= np.maximum(np.arange(len(SESSIONS)) - 11, 0)).all()


def test_a_habit_is_the_shrunk_mean_of_such_sessions_more_than_ten_before() -> None:
    surprise_NT = np.full((1, 420), np.nan)
    calendar_SK, ends = calendar_columns(SESSIONS), []
    for month in ("2012-03-30", "2012-04-30", "2012-05-31"):
        ends.append(int(SESSIONS.get_indexer(pd.DatetimeIndex([month]))[0]))
    surprise_NT[0, ends] = [1.0, 9.0, 1.0]  # the second counts as 2
    usual_S = habits(surprise_NT, calendar_SK, WEEKDAY_S)[0, :, HABIT_COLUMNS.index("usual_month_end")]
    assert usual_S[ends] == pytest.approx([0, 1 / 3, 3 / 4])
    assert usual_S[ends[0] + 1] == 0  # no end of a month


def test_a_habit_of_mondays() -> None:
    surprise_NT = np.where(WEEKDAY_S[:420] == 0, 0.5, 0.0)[None]
    usual_S = habits(surprise_NT, calendar_columns(SESSIONS), WEEKDAY_S)[0, :, HABIT_COLUMNS.index("usual_weekday")]
    monday = int(np.flatnonzero(WEEKDAY_S == 0)[60])
    assert usual_S[monday] == pytest.approx(0.5 * 26 / (26 + 6))
    assert usual_S[monday + 1] == 0
