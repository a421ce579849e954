from datetime import date

import numpy as np
import pandas as pd
import pytest

from volcast.models.errors import IncompletePrices, NotASession
from volcast.models.panel import FIELDS, HORIZONS, join_panels, make_panel


def prices(*rows: tuple[str, str, float]) -> pd.DataFrame:
    """Of (ticker, session, volume); every price is 1."""
    tickers, sessions, volumes = zip(*rows, strict=True)
    frame = pd.DataFrame({"ticker": tickers, "session": pd.DatetimeIndex(sessions), **dict.fromkeys(FIELDS, 1.0)})
    return frame.assign(volume=volumes)


THREE = (("B", "2021-07-02", 10.0), ("A", "2021-07-07", 30.0), ("B", "2021-07-06", 0.0))


def test_rows_stand_where_they_belong_and_nothing_is_filled() -> None:
    panel = make_panel(prices(*THREE))
    assert panel.tickers == ("A", "B")
    assert panel.known == 3  # 5 July was a holiday
    assert len(panel.sessions) == 3 + HORIZONS
    assert panel.cutoff == date(2021, 7, 7)
    nan = np.nan
    np.testing.assert_array_equal(panel.fields["volume"], [[nan, nan, 30], [10, nan, nan]])  # 0 shares is no row
    assert panel.traded_NT.tolist() == [[False, False, True], [True, False, False]]
    assert np.isnan(panel.fields["close"][1, 1])


def test_a_position_is_that_of_a_session() -> None:
    panel = make_panel(prices(*THREE))
    assert panel.position(date(2021, 7, 6)) == 1
    with pytest.raises(NotASession, match="2021-07-05 is not one of the sessions 2021-07-02 to 2021-07-21"):
        panel.position(date(2021, 7, 5))


def test_since_begins_the_grid_later_and_keeps_its_end() -> None:
    panel = make_panel(prices(*THREE))
    later = panel.since(1)
    assert (later.known, later.cutoff, later.position(date(2021, 7, 6))) == (2, panel.cutoff, 0)
    np.testing.assert_array_equal(later.fields["volume"], panel.fields["volume"][:, 1:])
    assert len(later.sessions) == 2 + HORIZONS


def test_until_forgets_prices_and_announcements_of_later() -> None:
    seen = pd.DatetimeIndex(["2021-07-02", "2021-07-06", "2021-07-08"])
    events = pd.DataFrame({"ticker": "A", "announced_for": pd.DatetimeIndex(["2021-07-14"] * 3), "first_seen": seen})
    panel = make_panel(prices(*THREE), events)
    assert len(panel.announcements) == 2  # the third was seen after the last session
    before = panel.until(1)
    assert before.cutoff == date(2021, 7, 2)
    assert before.fields["volume"].shape == (2, 1)
    assert len(before.sessions) == 1 + HORIZONS
    assert before.announcements["first_seen"].tolist() == [pd.Timestamp("2021-07-02")]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ((*THREE, ("A", "2021-07-05", 1.0)), NotASession, "A 2021-07-05: the market is closed"),
        ((*THREE, ("A", "2021-07-07", 1.0)), IncompletePrices, "A 2021-07-07 is there twice"),
    ],
)
def test_rows_that_cannot_be_are_refused(rows: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_panel(prices(*rows))


def test_a_panel_that_is_joined_of_parts_is_that_of_all_prices() -> None:
    rows, events = prices(*THREE), pd.DataFrame({"ticker": ["A", "B", "C"], "announced_for": "2021-07-14"})
    events = events.assign(first_seen=pd.DatetimeIndex(["2021-07-07", "2021-07-08", "2021-07-06"]))
    whole = make_panel(rows, events)
    joined = join_panels([make_panel(rows.loc[rows["ticker"] == ticker]) for ticker in ("B", "A")], events)
    assert (joined.tickers, joined.known, joined.cutoff) == (whole.tickers, whole.known, whole.cutoff)
    assert joined.sessions.equals(whole.sessions)
    for name in FIELDS:
        np.testing.assert_array_equal(joined.fields[name], whole.fields[name])
    assert joined.announcements.equals(whole.announcements)
    assert joined.announcements["ticker"].tolist() == ["A"]


def test_a_panel_of_no_rows_is_refused() -> None:
    with pytest.raises(IncompletePrices, match="Ingest some first"):
        make_panel(prices(*THREE).iloc[:0])
