import datetime as dt
import shutil
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from deltalake import DeltaTable
from golden import GOLDEN
from rows import announced

from volcast.storage import append_tables
from volcast.storage.announced_dates import MARKET, Changes, EventTable
from volcast.storage.store import open_store

SEEN = dt.date(2024, 1, 5)
LATER = dt.date(2024, 1, 12)


def dates_of(known: pd.DataFrame) -> list[str]:
    return list(known["announced_for"].dt.strftime("%m-%d"))


@pytest.fixture
def table(tmp_path) -> EventTable:
    return EventTable(open_store(str(tmp_path)))


def test_what_was_announced_is_known_from_the_session_on_which_it_was_seen(table):
    assert table.known(as_of=SEEN).empty
    assert table.record(announced("2024-01-30"), as_of=SEEN, source="yahoo") == Changes(new=1)
    assert table.known(as_of=dt.date(2024, 1, 4)).empty
    known = table.known(["SBUX"], as_of=SEEN)
    assert list(known.columns) == ["ticker", "announced_for", "when", "first_seen", "first_seen_assumed", "source"]
    assert known["announced_for"].dtype == known["first_seen"].dtype == "datetime64[s]"
    (row,) = known.itertuples(index=False)
    assert (row.when, row.first_seen, row.first_seen_assumed) == ("amc", pd.Timestamp(SEEN), False)
    assert table.known(["AAPL"], as_of=SEEN).empty


def test_the_same_announcements_twice_make_no_commit(table):
    both = pd.concat([announced("2024-01-30", "2024-04-30"), announced("2024-01-25", ticker="AAPL")])
    assert table.record(both, as_of=SEEN, source="yahoo") == Changes(new=3)
    assert table.record(both.sample(frac=1, random_state=1), as_of=SEEN, source="yahoo") == Changes()
    assert table.record(pd.concat([both, both]), as_of=LATER, source="yahoo") == Changes()
    assert table.version() == 0


def test_a_date_that_moved_is_withdrawn_and_the_new_one_known_from_then_on(table):
    table.record(announced("2024-01-30"), as_of=SEEN, source="yahoo")
    assert table.record(announced("2024-02-01"), as_of=LATER, source="yahoo") == Changes(moved=1)
    assert dates_of(table.known(as_of=dt.date(2024, 1, 11))) == ["01-30"]
    assert dates_of(table.known(as_of=LATER)) == ["02-01"]
    history = table.history(["SBUX"])
    assert list(zip(dates_of(history), history["seen"].dt.strftime("%m-%d"), history["withdrawn"], strict=True)) == [
        ("01-30", "01-05", False),
        ("01-30", "01-12", True),
        ("02-01", "01-12", False),
    ]


def test_only_a_date_to_come_of_a_ticker_that_was_asked_can_be_withdrawn(table):
    table.record(announced("2024-01-10", "2024-01-30", "2024-04-30"), as_of=SEEN, source="yahoo")
    table.record(announced("2024-01-30", ticker="AAPL"), as_of=SEEN, source="yahoo")
    assert table.record(announced("2024-01-30"), as_of=LATER, source="yahoo") == Changes(withdrawn=1)
    assert dates_of(table.known(["SBUX"], as_of=LATER)) == ["01-10", "01-30"]
    assert dates_of(table.known(["AAPL"], as_of=LATER)) == ["01-30"]
    nothing = announced()
    assert table.record(nothing, as_of=LATER, source="yahoo", asked=["AAPL"]) == Changes(withdrawn=1)
    assert table.known(["AAPL"], as_of=LATER).empty


def test_another_source_withdraws_nothing_and_adds_no_second_row(table):
    table.record(announced("2024-01-30"), as_of=SEEN, source="yahoo")
    assert table.record(announced("2024-02-01"), as_of=LATER, source="files:a.csv") == Changes(new=1)
    table.record(announced("2024-02-01", "2024-01-30"), as_of=dt.date(2024, 1, 16), source="files:a.csv")
    known = table.known(as_of=dt.date(2024, 1, 17))
    assert dates_of(known) == ["01-30", "02-01"]
    assert list(known["source"]) == ["yahoo", "files:a.csv"]


def test_a_withdrawn_date_may_be_named_again_and_its_hour_may_change(table):
    table.record(announced("2024-01-30", "2024-04-30", when=""), as_of=SEEN, source="yahoo")
    table.record(announced("2024-04-30", when=""), as_of=LATER, source="yahoo")
    again = table.record(announced("2024-01-30", "2024-04-30"), as_of=dt.date(2024, 1, 16), source="yahoo")
    assert again == Changes(other=2)
    assert list(table.known(as_of=LATER)["when"]) == [""]
    known = table.known(as_of=dt.date(2024, 1, 16))
    assert list(known["when"]) == ["amc", "amc"]
    assert set(known["first_seen"]) == {pd.Timestamp(SEEN)}


def test_an_assumed_first_seen_holds_for_the_first_answer_only(table):
    history = announced("2023-08-01", "2023-11-02", first_seen=pd.DatetimeIndex(["2023-07-18", "2023-10-19"]))
    table.record(history.assign(first_seen_assumed=True), as_of=SEEN, source="files:a.csv")
    assert dates_of(table.known(as_of=dt.date(2023, 10, 18))) == ["08-01"]
    more = announced("2023-12-20", first_seen=pd.Timestamp("2023-12-05"), first_seen_assumed=True)
    table.record(pd.concat([history.assign(first_seen_assumed=True), more]), as_of=LATER, source="files:a.csv")
    assert dates_of(table.known(as_of=SEEN)) == ["08-01", "11-02"]  # what came later cannot have been known then
    known = table.known(as_of=LATER)
    assert list(known["first_seen"].dt.strftime("%Y-%m-%d")) == ["2023-07-18", "2023-10-19", "2024-01-12"]
    assert known["first_seen_assumed"].all()


def test_nothing_that_comes_later_changes_what_was_known_then(table):
    start = pd.concat([announced("2023-11-02", "2024-01-30", "2024-04-30"), announced("2024-01-25", ticker="AAPL")])
    table.record(start, as_of=SEEN, source="yahoo")
    then = table.known(as_of=SEEN)
    later = [
        pd.concat(
            [
                announced("2024-02-01", "2024-04-30", when="bmo"),
                announced("2024-01-25", "2024-04-25", ticker="AAPL"),
            ]
        ),
        pd.concat(
            [
                announced("2024-01-30", "2024-06-30"),
                announced("2024-03-03", ticker="AAPL"),
                announced("2024-01-16", ticker="X"),
            ]
        ),
        announced("2024-01-08", "2024-01-30", when=""),
    ]
    for number, announcements in enumerate(later):
        table.record(announcements, as_of=LATER + dt.timedelta(number), source="yahoo")
        table.record(announcements, as_of=LATER, source=f"files:{number}")
        pd.testing.assert_frame_equal(table.known(as_of=SEEN), then)
    assert table.record(announced("2024-01-29"), as_of=SEEN, source="yahoo") == Changes()  # that past is closed
    pd.testing.assert_frame_equal(table.known(as_of=SEEN), then)


def test_a_row_from_the_future_is_refused(table):
    with pytest.raises(ValueError, match=r"SBUX 2024-01-30: expected what was seen by 2024-01-05, got .* 2024-01-08"):
        table.record(announced("2024-01-30", first_seen=pd.Timestamp("2024-01-08")), as_of=SEEN, source="a")
    assert table.version() is None


def test_racing_creators_and_writers_lose_nothing_and_write_nothing_twice(table):
    def write(writer: int) -> int:
        own = announced("2024-01-30", "2024-04-30", ticker=f"T{writer}")
        both = pd.concat([own, announced("2024-01-25")])
        return sum(table.record(both, as_of=SEEN, source="yahoo").new for _ in range(3))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(4))) == 9
    assert len(table.known(as_of=SEEN)) == len(table.history()) == 9


def test_a_table_of_release_0_1_0_gets_kinds_and_what_it_knew_stays_earnings(tmp_path, monkeypatch):
    shutil.copytree(GOLDEN / "0.1.0" / "store" / "simulated-3" / "events", tmp_path / "events")
    table, as_of = EventTable(open_store(str(tmp_path))), dt.date(2040, 1, 3)
    before, version = table.known(as_of=as_of), table.version() or 0
    assert len(before) > 20
    assert table.dated(["SBUX"], as_of=as_of).empty
    fomc = announced("2040-01-25", ticker=MARKET, when="", kind="fomc")
    assert table.record(fomc, as_of=as_of, source="files:a.csv") == Changes(new=1)
    assert table.version() == version + 2  # the column, and the rows
    pd.testing.assert_frame_equal(table.known(as_of=as_of), before)
    assert table.dated(["SBUX"], as_of=as_of)["kind"].tolist() == ["fomc"]
    assert table.record(fomc, as_of=as_of, source="files:a.csv") == Changes()
    monkeypatch.setattr(append_tables, "MAX_FILES", 3)  # the files of before have no kind, and are joined with new ones
    table.record(announced("2040-02-01", ticker="ZZZ"), as_of=as_of, source="files:a.csv")
    assert len(DeltaTable(tmp_path / "events").file_uris()) == 1
    pd.testing.assert_frame_equal(table.known(as_of=as_of).iloc[:-1].reset_index(drop=True), before)


def test_an_assumed_first_seen_of_a_kind_that_is_new_to_the_source_holds(table):
    assumed = {"first_seen": pd.Timestamp(2023, 6, 1), "first_seen_assumed": True}
    table.record(announced("2023-06-15", **assumed), as_of=SEEN, source="files:a.csv")
    addition = announced("2023-06-15", kind="addition", **assumed)
    table.record(addition, as_of=LATER, source="files:a.csv")
    table.record(announced("2023-06-22", kind="addition", **assumed), as_of=dt.date(2024, 1, 19), source="files:a.csv")
    seen = table.dated(["SBUX"], as_of=dt.date(2024, 1, 19))["first_seen"]
    assert list(seen.dt.strftime("%Y-%m-%d")) == ["2023-06-01", "2024-01-19"]


def test_old_versions_are_kept_and_many_small_files_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(append_tables, "MAX_FILES", 3)
    table = EventTable(open_store(str(tmp_path)))
    for session in range(1, 9):
        table.record(announced("2024-02-01", ticker=f"T{session}"), as_of=dt.date(2024, 1, session), source="yahoo")
    delta = DeltaTable(tmp_path / "events")
    assert delta.metadata().configuration["delta.enableExpiredLogCleanup"] == "false"
    assert len(delta.file_uris()) <= 3
    assert list(table.known(as_of=dt.date(2024, 1, 8))["ticker"]) == [f"T{number}" for number in range(1, 9)]
