from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from deltalake import DeltaTable
from rows import quarantined

from volcast.storage.append_tables import QuarantineTable, among
from volcast.storage.schemas import QUARANTINE
from volcast.storage.store import open_store


@pytest.fixture
def table(tmp_path) -> QuarantineTable:
    return QuarantineTable(open_store(str(tmp_path / "a store"), writable=True))


def test_what_is_added_comes_back_sorted(table):
    assert table.add(quarantined("SBUX")) == 2
    assert table.add(quarantined("AAPL")) == 2
    found = table.read()
    assert list(found.columns) == QUARANTINE.names
    assert list(found["ticker"]) == ["AAPL", "AAPL", "SBUX", "SBUX"]
    assert list(found["session"].dt.strftime("%m-%d")) == ["01-02", "01-03"] * 2
    assert list(table.read("ticker = 'SBUX'")["value"]) == ["volume=-1", "volume=0"]
    assert (found["seen_at"] == pd.Timestamp("2024-01-04 12:00", tz="UTC")).all()


def test_the_same_rows_later_add_nothing_and_keep_when_they_were_first_seen(table, tmp_path):
    table.add(quarantined())
    assert table.add(quarantined(seen_at=pd.Timestamp("2025-01-01", tz="UTC"))) == 0
    assert set(table.read()["seen_at"]) == {pd.Timestamp("2024-01-04 12:00", tz="UTC")}
    assert DeltaTable(str(tmp_path / "a store" / "quarantine")).version() == 0


def test_a_row_with_another_value_rule_or_source_is_another_row(table):
    table.add(quarantined())
    assert table.add(quarantined(value="volume=5")) == 2
    assert table.add(quarantined(rule="a value is missing")) == 2
    assert table.add(quarantined(source="yahoo")) == 2
    assert len(table.read()) == 8


def test_rows_that_are_there_twice_in_one_call_are_kept_once(table):
    assert table.add(pd.concat([quarantined(), quarantined()])) == 2


def test_a_row_without_a_session_or_value_is_kept_once(table):
    odd = quarantined(session=pd.Series([pd.NaT, pd.NaT], dtype="datetime64[s]"), value=None)
    assert table.add(odd) == 1
    assert table.add(odd) == 0
    assert table.read()["session"].isna().all()


def test_of_many_writers_of_the_same_rows_one_adds_them(table):
    odd = quarantined(session=pd.Series([pd.NaT, pd.NaT], dtype="datetime64[s]"))
    for batch in (quarantined(), odd):
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(table.add, [batch] * 4)) == 2
    assert len(table.read()) == 4


def test_no_rows_at_all_make_no_table(table, tmp_path):
    assert table.read().empty
    assert list(table.read("ticker = 'SBUX'").columns) == QUARANTINE.names
    assert table.add(quarantined().iloc[:0]) == 0
    assert not (tmp_path / "a store" / "quarantine").exists()


def test_a_ticker_that_has_none_has_no_rows(table):
    table.add(quarantined())
    assert table.read(among("ticker", ["O'NEIL"])).empty
