import datetime as dt

import numpy as np
import pandas as pd
import pytest
from rows import bars

from volcast.storage.append_tables import RestatementTable
from volcast.storage.prices import PriceTable
from volcast.storage.store import open_store

ROWS = 20
CLOSE, VOLUME = np.linspace(92.0, 95.8, ROWS), 1000 + 10 * np.arange(ROWS)


def history(price: float = 1.0, volume: float = 1.0, *, split: dict[int, float] | None = None) -> pd.DataFrame:
    """20 rows from 2023-12-20 on; all prices, dividends and volumes multiplied."""
    frame = bars(
        first="2023-12-20", sessions=ROWS, close=CLOSE * price, volume=np.round(VOLUME * volume).astype("int64")
    )
    for name in ("open", "high", "low"):
        frame[name] = frame["close"]
    frame["dividend"] = np.where(np.arange(ROWS) == 8, 0.5 * price, 0.0)
    for row, ratio in (split or {}).items():
        frame.loc[row, "split"] = ratio
    return frame


@pytest.fixture
def table(tmp_path) -> PriceTable:
    return PriceTable(open_store(str(tmp_path / "store"), writable=True))


def test_rows_that_a_split_history_lacks_are_taken_to_its_shares(table: PriceTable, tmp_path) -> None:
    table.upsert(history().iloc[:15])
    lacking = [3, 4, 8, 14]  # in two years; 14 is the last stored one
    commit = table.upsert(history(0.1, 10.0, split={15: 10.0}).drop(index=lacking), source="files:x")
    assert (commit.version, commit.inserted, commit.updated) == (1, 5, 15)
    found = table.read()
    np.testing.assert_allclose(found["close"], CLOSE / 10)
    assert found.at[3, "close"] == 9.26
    assert found["volume"].tolist() == (VOLUME * 10).tolist()
    assert found.at[8, "dividend"] == 0.05
    restated = RestatementTable(open_store(str(tmp_path / "store"))).read()
    of_one = restated[restated["session"] == found["session"][3]].set_index("column")
    assert of_one.loc["close", ["old", "new"]].tolist() == [92.6, 9.26]
    assert of_one.loc["volume", ["old", "new"]].tolist() == [1030, 10300]
    assert set(restated["source"]) == {"files:x"}
    before = table.read(last=dt.date(2024, 1, 9))
    np.testing.assert_allclose(before["close"], CLOSE[:15])
    assert before["volume"].tolist() == VOLUME[:15].tolist()
    again = table.upsert(history(0.1, 10.0, split={15: 10.0}).drop(index=lacking))
    assert (again.version, again.updated) == (1, 0)


def test_after_a_reverse_split_of_thin_shares_what_came_as_no_volume_stays_at_least_one_share(
    table: PriceTable,
) -> None:
    thin = history().assign(volume=np.where(np.arange(ROWS) % 2, 50, 5000))
    table.upsert(thin.iloc[:15])
    new = thin.assign(volume=np.round(thin["volume"] / 190).astype("int64"), close=thin["close"] * 190, split=0.0)
    new.loc[15, "split"] = 1 / 190
    commit = table.upsert(new.loc[new["volume"] > 0])  # the others came as 0, and are in quarantine
    assert commit.updated == 15
    found = table.read()
    np.testing.assert_allclose(found["close"][:15], CLOSE[:15] * 190)
    assert found["volume"][:6].tolist() == [26, 1, 26, 1, 26, 1]


def test_a_split_that_the_stored_history_already_counts_changes_nothing(table: PriceTable) -> None:
    table.upsert(history().iloc[:15])  # adjusted, though it does not list the split
    commit = table.upsert(history(split={10: 4.0}).drop(index=[3, 4]))
    assert (commit.inserted, commit.updated) == (5, 1)
    np.testing.assert_allclose(table.read()["close"], CLOSE)


def test_a_file_that_begins_with_a_split_takes_the_rows_before_it_along(table: PriceTable) -> None:
    table.upsert(history(4.0, 0.25).iloc[:15])
    commit = table.upsert(history(split={15: 4.0}).iloc[15:])
    assert (commit.inserted, commit.updated) == (5, 15)
    np.testing.assert_allclose(table.read()["close"], CLOSE)
    np.testing.assert_allclose(table.read()["volume"], VOLUME, atol=2)
    table.upsert(bars("AAPL"))
    table.upsert(bars("AAPL", first="2024-01-05", split=[4.0, 0.0, 0.0]))  # the close goes on: it was adjusted before
    assert table.read(["AAPL"])["close"].tolist()[:3] == [100.0, 101.0, 102.0]


def test_rows_on_both_sides_of_two_splits_change_by_the_later_ones(table: PriceTable) -> None:
    stored = history(split={5: 2.0})
    table.upsert(stored.iloc[:12])  # in the shares of after the first split
    new = history(1 / 3, 3.0, split={5: 2.0, 13: 3.0}).drop(index=[2, 5, 9])
    table.upsert(new)
    np.testing.assert_allclose(table.read()["close"], (CLOSE / 3).round(6), rtol=1e-6)
    assert table.read().at[5, "split"] == 2.0


def test_a_history_that_changed_its_shares_without_a_word_takes_the_other_rows_along(table: PriceTable) -> None:
    table.upsert(history())
    table.upsert(history(0.5, 2.0).drop(index=[7]))
    assert table.read().at[7, "close"] == round(CLOSE[7] / 2, 6)
    assert table.read().at[7, "volume"] == VOLUME[7] * 2
    table.upsert(history(0.4, 2.0).drop(index=[7]))  # a spin-off: prices alone
    assert table.read().at[7, "close"] == pytest.approx(CLOSE[7] * 0.4, abs=2e-6)
    assert table.read().at[7, "volume"] == VOLUME[7] * 2


def test_corrected_values_are_no_change_of_shares(table: PriceTable) -> None:
    table.upsert(history())
    some = history().iloc[[3, 4, 5]]
    commit = table.upsert(some.assign(close=some["close"] * 1.3))
    assert commit.updated == 3
    np.testing.assert_allclose(table.read()["close"].drop([3, 4, 5]), np.delete(CLOSE, [3, 4, 5]))
