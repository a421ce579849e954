"""What was known of the prices at the close of a past session, whatever has come since."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from rows import bars

from volcast.storage.integrity import find_garbage, remove
from volcast.storage.prices import AsOf, PriceTable
from volcast.storage.store import Store, open_store

DAY = date(2024, 1, 4)  # the third session of `bars`
FEW = pd.Timestamp("2024-01-05")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def known(store: Store, tickers: tuple[str, ...] = ("SBUX",), last: date = DAY) -> pd.DataFrame:
    """The rows as of a date, and that their description is of them."""
    table = PriceTable(store)
    found = table.as_of(last)
    version, values_of = (table.version() or 0, None) if found is None else (found.version, found.known)
    frame = table.read_known(tickers, last=last, version=version, known=values_of)
    assert table.describe(tickers, last=last, version=version, known=values_of).digest == table.digest(frame)
    return frame


def restate(store: Store, **changes: object) -> None:
    """Three old sessions once more, with other values."""
    PriceTable(store).upsert(bars(**{"close": [170.0, 171.0, 172.0], "volume": 9_999, **changes}))


def collect(store: Store) -> None:
    """As `volcast gc --keep-versions 1` does, a while later."""
    remove(store, find_garbage(store, keep_versions=1, now=datetime.now(UTC) + timedelta(days=2)))


def test_without_a_later_session_the_newest_values_are_those_of_the_day(store: Store) -> None:
    PriceTable(store).upsert(bars())
    restate(store)
    assert PriceTable(store).as_of(DAY) is None
    assert PriceTable(store).as_of(DAY - timedelta(days=30)) is None  # nor is there a row
    assert known(store)["volume"].tolist() == [9_999] * 3


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_later_restatement_does_not_change_what_was_known(store: Store, is_kept: bool) -> None:
    table = PriceTable(store)
    table.upsert(bars())
    before = known(store)
    table.upsert(bars(sessions=5))
    restate(store, dividend=[0.0, 0.5, 0.0])
    restate(store, close=[1.0, 171.0, 172.0], low=0.5, open=1.0)
    if not is_kept:
        collect(store)
    found = table.as_of(DAY)
    assert found == (AsOf(0, 0, DAY) if is_kept else AsOf(3, 0, DAY, put_back=13))
    pd.testing.assert_frame_equal(known(store), before)


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_later_split_changes_neither_shares_nor_prices(store: Store, is_kept: bool) -> None:
    table = PriceTable(store)
    table.upsert(bars())
    before = known(store)
    later = bars(sessions=5, split=[0.0, 0, 0, 2, 0])
    halved = {name: 0.5 * later[name] for name in ("open", "high", "low", "close")}
    table.upsert(later.assign(volume=2 * later["volume"], **halved))
    if not is_kept:
        collect(store)
    pd.testing.assert_frame_equal(known(store), before)


def test_a_store_that_was_filled_at_once_says_what_it_held_first(store: Store) -> None:
    table = PriceTable(store)
    table.upsert(bars(sessions=5, split=[0.0, 0, 0, 2, 0]))
    before = known(store)
    assert before["volume"].tolist() == [500, 500, 501]
    restate(store)
    assert table.as_of(DAY) == AsOf(0, 0, date(2024, 1, 8))
    pd.testing.assert_frame_equal(known(store), before)
    collect(store)
    assert table.as_of(DAY) == AsOf(1, 0, date(2024, 1, 8), put_back=6)
    pd.testing.assert_frame_equal(known(store), before)


def test_a_store_that_missed_the_day_says_what_it_held_when_it_caught_up(store: Store) -> None:
    table = PriceTable(store)
    table.upsert(bars(sessions=1))
    table.upsert(bars(sessions=5))
    restate(store)
    assert table.as_of(DAY) == AsOf(1, 1, date(2024, 1, 8))
    assert known(store)["volume"].tolist() == [1000, 1001, 1002]


def test_a_ticker_that_was_stored_later_is_named_and_changes_no_other_one(store: Store) -> None:
    table = PriceTable(store)
    table.upsert(bars())
    before = known(store)
    table.upsert(bars(sessions=5))
    restate(store)
    table.upsert(bars("KO", sessions=5))
    table.upsert(bars("KO", volume=7))
    assert table.as_of(DAY) == AsOf(3, 0, DAY, newcomers=("KO",))
    both = known(store, ("SBUX", "KO"))
    pd.testing.assert_frame_equal(both.loc[both["ticker"] == "SBUX"].reset_index(drop=True), before)
    assert both.loc[both["ticker"] == "KO", "volume"].tolist() == [1000, 1001, 1002]


def test_tickers_that_came_one_after_the_other_each_have_what_was_first_stored_of_them(store: Store) -> None:
    table = PriceTable(store)
    table.upsert(bars(sessions=5))
    restate(store)
    table.upsert(bars("KO", sessions=5))
    restate(store, ticker="KO")
    assert table.as_of(DAY) == AsOf(2, 0, date(2024, 1, 8), newcomers=("KO",))
    assert known(store, ("KO", "SBUX"))["volume"].tolist() == [1000, 1001, 1002] * 2


def test_a_row_that_came_later_is_left_out_or_where_it_cannot_be_told_counted(store: Store) -> None:
    table = PriceTable(store)
    table.upsert(bars().drop(1))
    before = known(store)
    assert len(before) == 2
    table.upsert(bars(sessions=5))
    pd.testing.assert_frame_equal(known(store), before)
    restate(store)
    collect(store)
    found = table.as_of(DAY)
    assert found is not None
    assert (found.version, found.known, found.late) == (2, 0, 1)
    assert known(store)["volume"].tolist() == [1000, 1001, 1002]
