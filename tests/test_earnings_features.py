from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from panels import announced, drawn_volumes, panel_of

from volcast.models.earnings_features import EARNINGS_COLUMNS, EarningsCalendar, earnings_calendar

PANEL = panel_of(drawn_volumes(2, 200))
SURPRISE_NS = np.zeros((2, 210), dtype=np.float32)


def calendar(*rows: tuple[int, int, int], surprise_NS: np.ndarray = SURPRISE_NS) -> EarningsCalendar:
    return earnings_calendar(replace(PANEL, announcements=announced(PANEL, rows)), surprise_NS, use=True)


def said(made: EarningsCalendar, cutoff: int, target: int, *, ticker: int = 0) -> dict[str, float]:
    """The columns that are not 0."""
    row_C = made.columns(*torch.tensor([[ticker], [cutoff], [target]]))[0]
    return {name: float(value) for name, value in zip(EARNINGS_COLUMNS, row_C, strict=True) if value}


def test_a_date_enters_when_first_seen_and_not_more_than_ten_sessions_ahead() -> None:
    early, late = calendar((0, 100, 50)), calendar((0, 100, 97))
    assert said(early, 89, 99) == {}
    assert said(early, 90, 100) == {"earnings_today": 1, "earnings_covered": 1}
    assert said(late, 96, 100) == {}
    assert said(late, 97, 100) == {"earnings_today": 1, "earnings_covered": 1}


def test_the_sessions_around_a_date() -> None:
    made = calendar((0, 100, 50))
    covered = {"earnings_covered": 1}
    assert said(made, 95, 99) == {"earnings_next": 1, "earnings_ramp_before": pytest.approx(10 / 11), **covered}
    assert said(made, 95, 96) == {"earnings_ramp_before": pytest.approx(7 / 11), **covered}
    assert said(made, 95, 101) == {"earnings_after_1": 1, "earnings_ramp_after": pytest.approx(6 / 7), **covered}
    assert said(made, 100, 106) == {"earnings_ramp_after": pytest.approx(1 / 7), **covered}
    assert said(made, 100, 107) == covered
    assert said(made, 199, 200) == covered  # a hundred sessions on
    assert said(made, 95, 100, ticker=1) == {}  # has no calendar


def test_usual_reactions_are_those_of_the_announcements_before() -> None:
    surprise_NS = SURPRISE_NS.copy()
    surprise_NS[0, [40, 41, 80, 81]] = [1.0, 0.5, 2.0, 1.0]
    made = calendar((0, 40, 20), (0, 80, 60), (0, 120, 100), (0, 128, 100), surprise_NS=surprise_NS)
    assert "earnings_usual_0" not in said(made, 39, 40)
    assert said(made, 75, 80)["earnings_usual_0"] == 0.5  # 1 / 2: a mean of one, shrunk
    assert said(made, 115, 120)["earnings_usual_0"] == 1.0  # (1 + 2) / 3
    assert said(made, 115, 121)["earnings_usual_1"] == 0.5


def test_a_moved_date_holds_from_the_close_at_which_it_was_seen() -> None:
    made = calendar((0, 100, 50), (0, 104, 95))
    assert said(made, 94, 100)["earnings_today"] == 1  # nobody knew better
    assert said(made, 94, 104) == {"earnings_ramp_after": pytest.approx(3 / 7), "earnings_covered": 1}
    assert "earnings_today" not in said(made, 95, 100)
    assert said(made, 95, 100)["earnings_ramp_before"] == pytest.approx(7 / 11)
    assert said(made, 95, 104)["earnings_today"] == 1


def test_a_date_on_which_the_market_is_closed_is_the_next_session() -> None:
    saturday = pd.DataFrame(
        {
            "ticker": ["A"],
            "announced_for": pd.DatetimeIndex(["2012-06-02"]),
            "first_seen": pd.DatetimeIndex(["2012-05-01"]),
        }
    )
    made = earnings_calendar(replace(PANEL, announcements=saturday), SURPRISE_NS, use=True)
    monday = int(PANEL.sessions.get_indexer(pd.DatetimeIndex(["2012-06-04"]))[0])
    assert said(made, monday - 2, monday)["earnings_today"] == 1


def test_without_earnings_no_ticker_has_a_calendar() -> None:
    panel = replace(PANEL, announcements=announced(PANEL, [(0, 100, 50)]))
    assert said(earnings_calendar(panel, SURPRISE_NS, use=False), 95, 100) == {}
