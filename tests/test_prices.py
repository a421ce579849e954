import datetime as dt
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from rows import bars

from volcast.storage import prices
from volcast.storage.errors import NotStored
from volcast.storage.price_rows import bucket_of
from volcast.storage.prices import READ_COLUMNS, Commit, PriceTable
from volcast.storage.schemas import BARS, QUARANTINE, conform
from volcast.storage.store import open_store

AWKWARD_TICKERS = ["BF.B", "BRK-B", "EURUSD=X", "O'NEIL", "SBUX", "^GSPC"]


@pytest.fixture
def table(tmp_path) -> PriceTable:
    return PriceTable(open_store(str(tmp_path / "a store"), writable=True))


def test_what_is_upserted_comes_back_sorted(table):
    both = pd.concat([bars("SBUX"), bars("AAPL", first="2023-12-28", sessions=4)])
    commit = table.upsert(both.sample(frac=1, random_state=0))
    assert commit == Commit(version=0, inserted=7, updated=0, unchanged=0)
    found = table.read()
    assert list(found.columns) == READ_COLUMNS
    assert found["session"].dtype == "datetime64[s]"
    assert found["volume"].dtype == np.int64
    assert list(found["ticker"]) == ["AAPL"] * 4 + ["SBUX"] * 3
    assert list(found["volume"]) == [1000, 1001, 1002, 1003, 1000, 1001, 1002]
    assert found["adj_close"].equals(found["close"].rename("adj_close"))


@pytest.mark.parametrize("window", [{"tickers": ["NOSUCH"]}, {}, {"tickers": []}], ids=str)
def test_what_has_no_rows_is_empty_and_typed_also_as_of_a_date(table, window):
    table.upsert(bars())
    for last in (None, pd.Timestamp("2020-01-02").date()) if window else (pd.Timestamp("2020-01-02").date(),):
        found = table.read(**window, last=last)
        assert found.empty
        pd.testing.assert_series_equal(found.dtypes, table.read().dtypes)
        assert table.describe(**window, last=last).rows == 0


def test_the_same_bars_twice_make_no_commit(table):
    table.upsert(bars())
    assert table.upsert(bars()) == Commit(version=0, inserted=0, updated=0, unchanged=3)
    assert table.version() == 0


def test_only_new_and_changed_rows_are_committed_at_once(table):
    table.upsert(bars(sessions=3))
    more = bars(sessions=5)
    more.loc[1, "volume"] = 9
    assert table.upsert(more) == Commit(version=1, inserted=2, updated=1, unchanged=2)
    assert list(table.read()["volume"]) == [1000, 9, 1002, 1003, 1004]


def test_parts_of_disjoint_buckets_are_one_commit(table):
    both = [bars("SBUX"), bars("AAPL")]
    assert table.upsert_parts(both) == Commit(version=0, inserted=6, updated=0, unchanged=0)
    more = [bars("SBUX", sessions=4, close=7.0), bars("AAPL", sessions=5)]
    assert table.upsert_parts(more) == Commit(version=1, inserted=3, updated=3, unchanged=3)
    assert table.tickers() == ["AAPL", "SBUX"]
    with pytest.raises(ValueError, match=r"parts without a common bucket; .* came twice"):
        table.upsert_parts([bars("SBUX", close=8.0), bars("SBUX", close=9.0)])
    assert table.version() == 1


def test_rows_are_described_as_they_would_be_read(table):
    table.upsert(pd.concat([bars(ticker, dividend=[0.0, 0.0, 1.0]) for ticker in AWKWARD_TICKERS]))
    rows = table.describe(last=dt.date(2024, 1, 3))
    assert rows.digest == table.digest(table.read(last=dt.date(2024, 1, 3)))
    assert (list(rows.tickers), rows.rows) == (AWKWARD_TICKERS, 12)
    assert (rows.first_session, rows.last_session) == (dt.date(2024, 1, 2), dt.date(2024, 1, 3))
    nothing = table.describe(["NONE"])
    assert (nothing.tickers, nothing.rows, nothing.first_session) == ((), 0, None)
    table.upsert(bars("ZZZ"))
    assert table.describe(AWKWARD_TICKERS, last=dt.date(2024, 1, 3)) == rows


def test_a_table_of_many_commits_opens_by_the_last_ten_of_them(table, tmp_path):
    for sessions in range(1, 13):
        table.upsert(bars(sessions=sessions))
    log = tmp_path / "a store" / "prices" / "_delta_log"
    assert [path.name for path in log.glob("*.checkpoint.parquet")] == ["00000000000000000009.checkpoint.parquet"]
    for commit in log.glob("0*0[0-8].json"):
        commit.unlink()
    assert len(PriceTable(open_store(str(tmp_path / "a store"))).read()) == 12


def test_a_description_is_of_its_version_and_the_same_bucket_by_bucket(table, tmp_path, monkeypatch):
    table.upsert(pd.concat([bars(ticker) for ticker in AWKWARD_TICKERS]))
    before, coverage = table.describe(), table.coverage()
    table.upsert(bars("SBUX", sessions=5, close=7.0))
    assert table.describe() != before
    assert table.coverage().loc["SBUX", "rows"] == 5
    assert table.describe(version=0) == before
    pd.testing.assert_frame_equal(table.coverage(version=0), coverage)
    monkeypatch.setattr(prices, "READ_AT_ONCE", 1)
    elsewhere = PriceTable(open_store(str(shutil.copytree(tmp_path / "a store", tmp_path / "another"))))
    assert elsewhere.describe() == table.describe()


def test_an_earlier_version_still_shows_the_old_rows(table):
    table.upsert(bars(sessions=3))
    table.upsert(bars(sessions=4))
    table.upsert(bars(sessions=1, close=77.0))
    assert list(table.read(version=0)["close"]) == [100.0, 101.0, 102.0]
    assert list(table.read(version=1)["close"]) == [100.0, 101.0, 102.0, 103.0]
    assert list(table.read(version=2)["close"]) == [77.0, 101.0, 102.0, 103.0]
    assert table.last_sessions(version=0) == {"SBUX": dt.date(2024, 1, 4)}
    assert table.last_sessions() == {"SBUX": dt.date(2024, 1, 5)}


def test_a_changed_row_leaves_other_years_and_tickers_alone(table):
    table.upsert(pd.concat([bars(ticker, first="2023-12-27", sessions=8) for ticker in AWKWARD_TICKERS]))
    before = table.read()
    table.upsert(bars("SBUX", first="2023-12-28", sessions=1, volume=5))
    after = table.read()
    changed = (before != after).any(axis=1)
    assert list(after[changed]["ticker"]) == ["SBUX"]
    assert list(after[changed]["volume"]) == [5]


def test_a_window_of_awkward_tickers_is_read(table):
    table.upsert(pd.concat([bars(ticker, first="2023-12-27", sessions=8) for ticker in AWKWARD_TICKERS]))
    assert table.tickers() == AWKWARD_TICKERS
    for ticker in AWKWARD_TICKERS:
        found = table.read([ticker], first=dt.date(2023, 12, 29), last=dt.date(2024, 1, 2))
        assert set(found["ticker"]) == {ticker}
        assert list(found["session"].dt.day) == [29, 1, 2]
    assert table.read(["NONE"]).empty
    assert table.read([]).empty


def test_what_is_not_stored_is_named(table):
    assert table.version() is None
    with pytest.raises(NotStored, match="no prices are stored yet"):
        table.read()
    table.upsert(bars())
    for version in (-1, 1, 2**70):
        with pytest.raises(NotStored, match=f"no version {version}; the newest is 0"):
            table.read(version=version)


def test_equal_duplicates_collapse_and_different_ones_are_refused(table):
    assert table.upsert(pd.concat([bars(), bars()])).inserted == 3
    with pytest.raises(ValueError, match=r"SBUX 2024-01-02: expected one row, got two.*'volume': 1\b"):
        table.upsert(pd.concat([bars(), bars(sessions=1, volume=1)]))
    with pytest.raises(ValueError, match="empty frame"):
        table.upsert(bars(sessions=0))


def test_a_fraction_of_a_share_is_refused(table):
    with pytest.raises(ValueError, match=r"SBUX 2024-01-03 00:00:00: expected volume as int64, got .*1\.5.*row 1 of 3"):
        table.upsert(bars(volume=[1.0, 1.5, 2.0]))
    assert table.version() is None
    assert table.upsert(bars(volume=[1.0, 2.0, 3.0])).inserted == 3


def test_a_midnight_with_a_time_zone_is_refused(table):
    sessions = pd.bdate_range("2024-01-02", periods=3, tz="Asia/Tokyo")
    with pytest.raises(ValueError, match=r"SBUX 2024-01-02.*without a time zone.*Asia/Tokyo"):
        table.upsert(bars(session=sessions))
    with pytest.raises(ValueError, match="as a date or a midnight"):
        table.upsert(bars(session=list(sessions)).astype({"session": object}))


def test_a_session_may_be_a_date_but_not_a_time(table):
    as_dates = bars().assign(session=[dt.date(2024, 1, 2), dt.date(2024, 1, 3), dt.date(2024, 1, 4)])
    assert table.upsert(as_dates).inserted == 3
    assert table.upsert(bars()).unchanged == 3
    with pytest.raises(ValueError, match=r"got Timestamp\('2024-01-02 16:00:00'\)"):
        table.upsert(bars(session=bars()["session"] + pd.Timedelta(hours=16)))
    with pytest.raises(ValueError, match="got '2024-01-02'"):
        table.upsert(bars(session=["2024-01-02", "2024-01-03", "2024-01-04"]))


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"close": [1.0, np.nan, 3.0]}, "a value for close, got none"),
        ({"volume": [1.0, np.nan, 3.0]}, "a value for volume, got none"),
        ({"volume": [1.0, np.inf, 3.0]}, "volume as int64, got .*inf"),
        ({"close": ["1", "2", "3"]}, "close as numbers, got str, such as '1'"),
        ({"ticker": ["SBUX", None, "SBUX"]}, "a value for ticker, got none"),
        ({"session": [pd.Timestamp("2024-01-02"), pd.NaT, pd.NaT]}, "a value for session, got none"),
        ({"volume": [True, True, False]}, "volume as numbers, got bool"),
        ({"volume": [10, None, 2**70]}, "volume as numbers, got object"),
        ({"surprise": 1}, "Expected the columns"),
    ],
)
def test_a_value_that_the_schema_does_not_hold_is_refused(changes, fact):
    with pytest.raises(ValueError, match=fact):
        conform(bars(**changes), BARS)


def test_a_quarantined_row_may_lack_its_session():
    seen_at = pd.Timestamp("2024-01-05 22:00", tz="UTC")
    row = {
        "ticker": "SBUX",
        "session": None,
        "rule": "date",
        "value": "2024-13-01",
        "source": "files",
        "seen_at": seen_at,
    }
    found = conform(pd.DataFrame([row]), QUARANTINE)
    assert found.schema == QUARANTINE
    assert found.to_pylist() == [row]


def test_racing_creators_and_writers_lose_nothing(table):
    def write(writer: int) -> int:
        own = bars(f"T{writer}", sessions=4)
        return sum(table.upsert(pd.concat([own.iloc[: step + 1], bars("SBUX")])).inserted for step in range(4))

    with ThreadPoolExecutor(4) as pool:
        inserted = sum(pool.map(write, range(4)))
    assert inserted == 4 * 4 + 3 == len(table.read())
    assert not table.read().duplicated(["ticker", "session"]).any()


def test_many_small_files_are_joined_and_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(prices, "MAX_FILES_A_PARTITION", 3)
    table = PriceTable(open_store(str(tmp_path)))
    whole = bars(sessions=8)
    for session in range(8):
        table.upsert(whole.iloc[[session]])
    assert table.version() == 7
    assert len(DeltaTable(tmp_path / "prices").file_uris()) <= 3
    assert list(table.read()["volume"]) == list(whole["volume"])
    assert list(table.read(version=4)["volume"]) == list(whole["volume"][:5])


def test_the_table_is_laid_out_for_reading_one_ticker_and_kept_for_ever(tmp_path):
    table = PriceTable(open_store(str(tmp_path)))
    table.upsert(pd.concat([bars(f"T{number:02}", first="2023-12-28", sessions=4) for number in range(40, 0, -1)]))
    table.upsert(bars("T07", first="2023-12-28", sessions=1, volume=1))
    delta = DeltaTable(tmp_path / "prices")
    assert delta.metadata().partition_columns == ["bucket", "year"]
    assert delta.metadata().configuration["delta.enableExpiredLogCleanup"] == "false"
    for path in delta.file_uris():
        rows = pq.ParquetFile(path).read()
        assert rows.equals(rows.sort_by([("ticker", "ascending"), ("session", "ascending")]))
    (folder,) = {path.rsplit("/", 3)[1] for path in delta.file_uris() if f"bucket={bucket_of('T07')}/" in path}
    assert folder == f"bucket={bucket_of('T07')}"


def test_the_digest_is_of_the_values_and_not_of_their_layout(tmp_path):
    whole = pd.concat([bars("SBUX", sessions=6), bars("AAPL", sessions=6)])
    one, many = (PriceTable(open_store(str(tmp_path / name), writable=True)) for name in ("one", "many"))
    one.upsert(whole)
    for _, rows in whole.groupby("session"):
        many.upsert(rows)
    assert one.digest(one.read()) == many.digest(many.read())
    before = one.digest(one.read())
    one.upsert(bars("AAPL", sessions=1, volume=1001))
    assert one.digest(one.read()) != before == one.digest(one.read(version=0))
    assert one.digest(one.read(["SBUX"])) != one.digest(one.read(["AAPL"], version=0))


def test_a_dividend_lowers_the_adjusted_closes_before_it(table):
    # closes 100, 101, 102; 1.01 paid on the third session: the factor before it is 1 - 1.01 / 101 = 0.99
    table.upsert(pd.concat([bars("SBUX", dividend=[0.0, 0.0, 1.01]), bars("AAPL")]))
    assert list(table.read(["SBUX"])["adj_close"]) == pytest.approx([99.0, 99.99, 102.0])
    assert list(table.read(["AAPL"])["adj_close"]) == [100.0, 101.0, 102.0]


def test_dividends_after_the_last_row_count_through_its_later_adjustment(table):
    table.upsert(bars(dividend=[0.0, 0.0, 1.01], later_adjustment=[1.0, 1.0, 0.5]))
    assert list(table.read()["adj_close"]) == pytest.approx([49.5, 49.995, 51.0])


def test_a_read_up_to_a_session_knows_no_later_dividend(table):
    table.upsert(bars(dividend=[0.0, 0.0, 1.01], later_adjustment=[1.0, 0.7, 0.5]))
    assert list(table.read(last=dt.date(2024, 1, 3))["adj_close"]) == [100.0, 101.0]
    assert list(table.read(last=dt.date(2024, 1, 4))["adj_close"]) == pytest.approx([49.5, 49.995, 51.0])
    assert list(table.read(last=dt.date(2024, 2, 1))["adj_close"]) == pytest.approx([49.5, 49.995, 51.0])


def test_a_read_from_a_session_has_the_same_adjusted_closes(table):
    table.upsert(bars(sessions=6, dividend=[0.0, 0.0, 1.0, 0.0, 2.0, 0.0]))
    whole, part = table.read(), table.read(first=dt.date(2024, 1, 4))
    assert list(part["adj_close"]) == list(whole["adj_close"][2:])
