import logging
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prefect import flow

from volcast.flows.ingest import ingest
from volcast.models.sessions import market_calendar
from volcast.storage.announced_dates import MARKET, EventTable
from volcast.storage.prices import PriceTable
from volcast.storage.records import Announcements
from volcast.storage.store import open_store
from volcast.tasks.announcements import record_events
from volcast.tasks.plan_ingest import plan_ingest
from volcast.tasks.preflight import check
from volcast.tasks.settings import DataSettings
from volcast.tasks.snapshot import read_panel
from volcast.tasks.sources.files import FileEvents
from volcast.tasks.sources.known_events import known_events
from volcast.tasks.sources.simulated import SimulatedSource
from volcast.tasks.sources.source import (
    Announced,
    EventSource,
    Outcome,
    Pace,
    SourceMissing,
    SourceUnusable,
    UnknownSource,
    open_event_source,
)

AS_OF = date(2020, 12, 10)


def record(table: EventTable, source: EventSource, tickers: list[str], as_of: date, *, is_now: bool = False) -> None:
    answers = [source.announced(ticker, as_of=as_of) for ticker in tickers]
    events = known_events(answers, as_of=as_of, is_now=is_now)
    table.record(events, as_of=as_of, source=source.spec, asked=tickers)


def dates_of(table: EventTable, as_of: date, ticker: str = "SBUX") -> list[str]:
    return list(table.known([ticker], as_of=as_of)["announced_for"].dt.strftime("%Y-%m-%d"))


@pytest.fixture
def table(tmp_path: Path) -> EventTable:
    return EventTable(open_store(str(tmp_path / "data"), writable=True))


@pytest.fixture
def calendar(tmp_path: Path) -> Path:
    """Dates of SBUX, one of them to come at AS_OF."""
    path = tmp_path / "earnings.csv"
    path.write_text("Ticker,Earnings_Date,When\nSBUX,2020-07-28,AMC\nsbux,2020-10-29,\nSBUX,2020-12-21,amc\n")
    return path


def test_a_date_without_first_seen_counts_as_known_ten_sessions_before(table: EventTable, calendar: Path) -> None:
    record(table, FileEvents(str(calendar)), ["SBUX"], date(2021, 1, 29))
    # 2020-12-21 is a Monday: ten sessions before it is Monday 2020-12-07
    assert dates_of(table, date(2020, 12, 4)) == ["2020-07-28", "2020-10-29"]
    assert dates_of(table, date(2020, 12, 7)) == ["2020-07-28", "2020-10-29", "2020-12-21"]
    known = table.known(as_of=AS_OF)
    assert list(known["first_seen_assumed"]) == [True] * 3
    assert list(known["when"]) == ["amc", "", "amc"]


def test_an_ingest_of_the_past_takes_nothing_that_was_not_known_then(table: EventTable, calendar: Path) -> None:
    record(table, FileEvents(str(calendar)), ["SBUX"], date(2020, 12, 4))
    assert dates_of(table, date(2030, 1, 1)) == ["2020-07-28", "2020-10-29"]
    record(table, FileEvents(str(calendar)), ["SBUX"], date(2020, 12, 7))
    assert dates_of(table, date(2020, 12, 7))[-1] == "2020-12-21"


def test_a_date_to_come_is_known_as_of_the_last_session_when_that_is_asked_for(
    table: EventTable, calendar: Path
) -> None:
    record(table, FileEvents(str(calendar)), ["SBUX"], date(2020, 12, 1), is_now=True)
    known = table.known(["SBUX"], as_of=date(2020, 12, 1))
    assert list(known["announced_for"])[-1] == pd.Timestamp(2020, 12, 21)
    assert list(known["first_seen"])[-1] == pd.Timestamp(2020, 12, 1)
    assert list(known["first_seen_assumed"]) == [True, True, False]


def test_the_simulated_exchange_moves_dates_and_each_clock_knows_its_own(table: EventTable) -> None:
    source, tickers = SimulatedSource(7), ["SBUX", "AAPL", "MSFT"]
    record(table, source, tickers, date(2024, 6, 28))
    sessions = list(market_calendar().sessions)
    history = table.history()
    moved = pd.DataFrame(history.loc[history["withdrawn"]])
    assert len(moved) > 20
    for ticker, seen, withdrawn in zip(moved["ticker"], moved["seen"], moved["announced_for"], strict=True):
        before, after = sessions[sessions.index(seen) - 1].date(), seen.date()
        lost = set(dates_of(table, before, ticker)) - set(dates_of(table, after, ticker))
        gained = set(dates_of(table, after, ticker)) - set(dates_of(table, before, ticker))
        assert lost == {f"{withdrawn:%Y-%m-%d}"}
        (new,) = gained
        assert abs(sessions.index(pd.Timestamp(new)) - sessions.index(withdrawn)) <= 5


def test_what_the_exchange_shows_later_changes_nothing_that_was_known(tmp_path: Path) -> None:
    source, tickers = SimulatedSource(7), ["SBUX", "AAPL", "MSFT"]
    clocks = [stamp.date() for stamp in market_calendar().sessions_in_range("2023-01-03", "2023-12-29")[::5]]
    step_by_step, at_once = (EventTable(open_store(str(tmp_path / name), writable=True)) for name in ("steps", "once"))
    then = {}
    for clock in clocks:
        record(step_by_step, source, tickers, clock)
        then[clock] = step_by_step.known(as_of=clock)
    record(at_once, source, tickers, clocks[-1])
    for clock in clocks:
        pd.testing.assert_frame_equal(step_by_step.known(as_of=clock), then[clock])
        pd.testing.assert_frame_equal(at_once.known(as_of=clock), then[clock])


def test_the_real_calendar_is_read_whole(table: EventTable, shared_data: Path) -> None:
    source = FileEvents(str(shared_data / "earnings.csv"))
    raw = pd.read_csv(shared_data / "earnings.csv", keep_default_na=False)
    tickers = sorted(raw["Ticker"].unique())
    record(table, source, tickers, date(2023, 12, 29))
    known = table.known(as_of=date(2023, 12, 29))
    assert (len(known), known["ticker"].nunique()) == (15_758, 509)
    pairs = zip(known["ticker"], known["announced_for"].dt.strftime("%Y-%m-%d"), strict=True)
    assert set(pairs) == set(zip(raw["Ticker"], raw["Earnings_Date"], strict=True))
    sessions = market_calendar().sessions
    dated, seen = (sessions.searchsorted(pd.DatetimeIndex(known[name])) for name in ("announced_for", "first_seen"))
    assert set(np.asarray(dated) - np.asarray(seen)) == {10}
    record(table, source, tickers, date(2023, 12, 29))
    assert table.version() == 0


def test_a_calendar_may_repeat_rows_write_dots_and_be_parquet(tmp_path: Path) -> None:
    frame = pd.DataFrame({"Symbol": ["BRK.B", "BRK.B", "SBUX"], "Earnings Date": ["2020-11-07"] * 2 + ["2020-10-29"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.assign(**{"Earnings Date": pd.to_datetime(frame["Earnings Date"])}).to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        source = FileEvents(str(tmp_path / name))
        for ticker in ("BRK.B", "BRK-B"):
            announced = source.announced(ticker, as_of=AS_OF)
            assert list(announced.events["ticker"]) == [ticker]
            assert list(announced.events["announced_for"]) == [pd.Timestamp(2020, 11, 7)]
        nothing = source.announced("ZZZZ", as_of=AS_OF)
        assert (nothing.outcome, nothing.events.empty) == (Outcome.EMPTY, True)


def test_a_calendar_that_says_when_it_was_known_is_taken_at_its_word(table: EventTable, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "Ticker,Earnings_Date,When,First_Seen\nSBUX,2020-10-29,amc,2020-09-01\nSBUX,2020-10-27,amc,2020-10-05\n"
    )
    record(table, FileEvents(str(path)), ["SBUX"], AS_OF)
    assert dates_of(table, date(2020, 9, 1)) == ["2020-10-29"]
    assert dates_of(table, date(2020, 10, 5)) == ["2020-10-27"]  # two sessions apart: the later seen one holds
    assert list(table.known(as_of=AS_OF)["first_seen_assumed"]) == [False]


def test_events_of_any_kind_are_read_of_a_ticker_or_of_the_market(table: EventTable, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "Date,Event,Ticker,First_Seen,Time_ET\n2020-11-05,FOMC decision,,2019-06-03,14:00\n"
        "2020-11-20,index-addition,brk.b,,\n2020-12-16,fomc decision,,2019-06-03,\n"
        "2020-10-29,earnings,SBUX,,\n2020-12-01,Investor Day,SBUX,2020-10-01,\n"
    )
    source = FileEvents(str(path))
    record(table, source, ["SBUX", "BRK-B", MARKET], AS_OF)
    known = table.dated(["SBUX"], as_of=AS_OF)
    assert list(zip(known["ticker"], known["kind"], known["announced_for"].dt.strftime("%m-%d"), strict=True)) == [
        (MARKET, "fomc_decision", "11-05"),
        (MARKET, "fomc_decision", "12-16"),
        ("SBUX", "investor_day", "12-01"),
    ]
    assert dates_of(table, AS_OF) == ["2020-10-29"]  # of earnings alone
    assert table.dated(["SBUX"], as_of=date(2020, 9, 30))["ticker"].tolist() == [MARKET, MARKET]
    (addition,) = table.dated(["BRK-B"], as_of=AS_OF).to_dict("records")[2:]
    assert (addition["kind"], addition["first_seen_assumed"]) == ("index_addition", True)
    assert addition["first_seen"] == pd.Timestamp(2020, 11, 6)  # ten sessions ahead
    both = table.events(["SBUX"], as_of=AS_OF)
    assert both["kind"].tolist() == ["earnings", "fomc_decision", "fomc_decision", "investor_day"]


def test_the_real_dates_of_decisions_and_of_the_index_are_read_whole(table: EventTable, shared_data: Path) -> None:
    source, as_of = FileEvents(str(shared_data / "dated_events.csv")), date(2023, 12, 29)
    raw = pd.read_csv(shared_data / "dated_events.csv", keep_default_na=False)
    tickers = sorted(set(raw["Ticker"]))
    record(table, source, tickers, as_of)
    found = table.dated(tickers, as_of=as_of)
    assert found["kind"].value_counts().to_dict() == raw.drop_duplicates()["Event"].value_counts().to_dict()
    assert set(found.loc[found["ticker"] == MARKET, "kind"]) == {"fomc_decision", "fomc_minutes"}


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("Ticker,Event\nSBUX,investor day\n", "no column Date. Expected Date, Event (and, if there is, Ticker)"),
        ("Date,Event\nsoon,fomc\n", "line 2, column Date: 'soon' is not a date"),
        ("Date,Event\n2020-10-29,fomc\n2020-10-30,\n", "line 3, column Event: '' is no event"),
        ("Date,Event,Ticker\n2020-10-29,earnings,\n", "line 2, column Ticker: '' is no ticker"),
        ("Date,Event\n2020-10-29,earnings\n", "no column Ticker. Expected one, for earnings are of a ticker"),
        ("Date,Event,First_Seen\n2020-10-29,fomc,\n2020-10-29,vote,early\n", "line 3, column First_Seen: 'early' is"),
        ("Ticker,When\nSBUX,amc\n", "no column Earnings_Date. Expected Ticker, Earnings_Date"),
        ("Ticker,Earnings_Date\nSBUX,soon\n", "line 2, column Earnings_Date: 'soon' is not a date"),
        ("Ticker,Earnings_Date,When\nSBUX,2020-10-29,noon\n", "line 2, column When: 'noon' is neither bmo"),
        ("Ticker,Earnings_Date\n,2020-10-29\n", "line 2, column Ticker: '' is no ticker"),
        ("", "the file is empty"),
    ],
)
def test_a_calendar_that_cannot_be_used_is_named_before_anything_is_fetched(
    tmp_path: Path, sbux_csv: Path, text: str, fact: str
) -> None:
    (tmp_path / "e.csv").write_text(text)
    data = DataSettings(source=f"files:{sbux_csv}", events=f"files:{tmp_path / 'e.csv'}", store=str(tmp_path / "data"))
    with pytest.raises(SourceUnusable, match=re.escape(fact)):
        check(data)
    assert not (tmp_path / "data").exists()


def test_a_wrong_spec_and_a_missing_file_are_named(tmp_path: Path, sbux_csv: Path) -> None:
    data = DataSettings(source=f"files:{sbux_csv}", store=str(tmp_path / "data"))
    with pytest.raises(UnknownSource, match=r"'nasdaq' is not a source of announcements. Expected one of: .* none"):
        check(data.model_copy(update={"events": "nasdaq"}))
    with pytest.raises(SourceMissing, match=r"e\.csv: there is no such file"):
        check(data.model_copy(update={"events": f"files:{tmp_path}/e.csv"}))
    with pytest.raises(SourceUnusable, match=r"a folder\. Expected one CSV or Parquet file"):
        check(data.model_copy(update={"events": f"files:{tmp_path}"}))
    with pytest.raises(UnknownSource, match="--events simulated:3 does not go with --source files:"):
        check(data.model_copy(update={"events": "simulated:3"}))
    with pytest.raises(UnknownSource, match="--events yahoo does not go with --source simulated:7"):
        check(data.model_copy(update={"source": "simulated:7", "events": "yahoo"}))


def test_announcements_come_from_where_the_prices_come_from_but_for_files() -> None:
    specs = ["simulated:7", "yahoo", "files:a.csv"]
    assert [DataSettings(source=spec).event_source for spec in specs] == ["simulated:7", "yahoo", "none"]
    assert DataSettings(source="yahoo", events="none").event_source == "none"
    assert open_event_source("none") is None


class Faulty:
    """A source that does not answer the first calls for some tickers, and notes who was asked for when."""

    knows_market = False
    spec = "simulated:7"
    remarks: Sequence[str] = ()
    pace = Pace(limit="volcast-test-announcements", calls_per_second=2.0, pause_seconds=0.0)

    def __init__(self, failures: Mapping[str, int] | None = None, *, always: bool = False) -> None:
        self.left, self.always = Counter(failures or {}), always
        self.calls: list[tuple[str, float]] = []

    def announced(self, ticker: str, *, as_of: date, calendar: str = "XNYS") -> Announced:
        assert calendar == "XNYS"
        self.calls.append((ticker, time.monotonic()))
        if self.always or self.left[ticker]:
            self.left[ticker] -= 1
            return Announced(ticker=ticker, outcome=Outcome.DOWN, known=f"no answer at {as_of}")
        return Announced(ticker=ticker, outcome=Outcome.EMPTY, known="no date")

    @property
    def asked(self) -> list[str]:
        return [ticker for ticker, _ in self.calls]


TICKERS = tuple(f"T{number:02}" for number in range(12))


@flow
def only_announcements(data: DataSettings, changes: dict[str, Any]) -> Announcements | None:
    return record_events(plan_ingest(data).model_copy(update=changes))


def record_from(source: Faulty, folder: Path, patch: pytest.MonkeyPatch, **changes: object) -> Announcements:
    """What an ingest of TICKERS from the simulated exchange records, with announcements from `source`."""
    patch.setattr("volcast.tasks.sources.source._market", lambda _spec: source)
    data = DataSettings(source="simulated:7", tickers=TICKERS, store=str(folder / "data"), as_of=AS_OF)
    recorded = only_announcements(data, changes)
    assert recorded is not None
    return recorded


@pytest.mark.usefixtures("prefect_api")
def test_a_source_that_is_down_is_not_asked_for_every_ticker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Faulty(always=True)
    recorded = record_from(source, tmp_path, monkeypatch)
    assert source.asked == ["T00", "T01", "T02"] * 3
    assert recorded.failed.startswith("T00: down: no answer at 2020-12-10; T01: ")
    assert recorded.failed.endswith(" and 9 more")


@pytest.mark.usefixtures("prefect_api")
def test_a_source_that_fails_now_and_then_is_not_down_and_only_who_failed_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Faulty(dict.fromkeys(TICKERS[::2], 1))
    recorded = record_from(source, tmp_path, monkeypatch)
    assert recorded.failed == ""
    assert source.asked == [*TICKERS, *TICKERS[::2]]


@pytest.mark.usefixtures("prefect_api")
def test_calls_for_announcements_take_turns_under_the_limit_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Faulty()
    record_from(source, tmp_path, monkeypatch)
    times = [moment for _, moment in source.calls]
    assert times[-1] - times[0] > 0.4 * len(TICKERS)


@pytest.mark.usefixtures("prefect_api")
def test_no_announcement_is_asked_for_after_the_deadline_and_the_ingest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, past = Faulty(), datetime.now(UTC) - timedelta(seconds=1)
    recorded = record_from(source, tmp_path, monkeypatch, deadline=past)
    assert source.asked == []
    assert "T00: down: not asked for: the ingest's deadline of " in recorded.failed


@pytest.mark.usefixtures("no_server")
def test_a_calendar_that_is_taken_away_during_an_ingest_is_named_and_does_not_fail_it(
    tmp_path: Path, sbux_csv: Path, calendar: Path
) -> None:
    data = DataSettings(source=f"files:{sbux_csv}", events=f"files:{calendar}", store=str(tmp_path / "data"))

    @flow
    def taken_away() -> Announcements | None:
        plan = plan_ingest(data)
        calendar.unlink()
        return record_events(plan)

    recorded = taken_away()
    assert recorded is not None
    assert "earnings.csv: there is no such file" in recorded.failed


@pytest.mark.usefixtures("no_server")
def test_an_ingest_records_new_moved_and_withdrawn_dates(tmp_path: Path, sbux_csv: Path, calendar: Path) -> None:
    data = DataSettings(source=f"files:{sbux_csv}", events=f"files:{calendar}", store=str(tmp_path / "data"))
    first = ingest(data.model_copy(update={"as_of": AS_OF})).announcements
    assert first is not None
    assert (first.known, first.new, first.moved, first.withdrawn, first.failed) == (3, 3, 0, 0, "")
    assert first.coming == {"SBUX": date(2020, 12, 21)}
    calendar.write_text(calendar.read_text().replace("2020-12-21", "2020-12-22"))
    second = ingest(data.model_copy(update={"as_of": date(2020, 12, 11)})).announcements
    assert second is not None
    assert second.words.endswith("0 new, 1 moved, 0 withdrawn; next SBUX 2020-12-22")
    table = EventTable(open_store(data.store))
    assert dates_of(table, AS_OF)[-1] == "2020-12-21"
    assert ingest(data.model_copy(update={"events": "none"})).announcements is None
    assert table.version() == 1


@pytest.mark.usefixtures("no_server")
def test_an_ingest_records_the_events_of_the_market_and_only_those_of_its_tickers(
    tmp_path: Path, sbux_csv: Path
) -> None:
    (tmp_path / "a.csv").write_text(
        "Date,Event,Ticker\n2020-11-05,fomc,\n2020-11-20,addition,TSLA\n2020-12-01,vote,SBUX\n"
    )
    events, store = f"files:{tmp_path / 'a.csv'}", str(tmp_path / "data")
    snapshot = ingest(DataSettings(source=f"files:{sbux_csv}", events=events, store=store, as_of=AS_OF))
    assert snapshot.announcements is not None
    assert snapshot.announcements.dated == {"fomc": 1, "vote": 1}
    words = f"0 announced dates, 1 of fomc, 1 of vote of {events}: 2 new, 0 moved, 0 withdrawn"
    assert snapshot.announcements.words == words
    assert read_panel(snapshot).dated["kind"].tolist() == ["fomc", "vote"]
    assert read_panel(snapshot.model_copy(update={"uses_earnings": False})).dated.empty  # --events none


@pytest.mark.usefixtures("no_server")
def test_a_calendar_that_is_down_stops_no_prices_and_is_named(
    tmp_path: Path, sbux_csv: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = "http://127.0.0.1:1/earnings.csv"
    data = DataSettings(source=f"files:{sbux_csv}", events=f"files:{nobody}", store=str(tmp_path / "data"))
    with caplog.at_level(logging.WARNING):
        snapshot = ingest(data)
    assert snapshot.announcements is not None
    assert snapshot.announcements.failed.startswith(f"SBUX: down: {nobody}: no answer")
    assert "announcements are not complete: SBUX: down: " in caplog.text
    assert PriceTable(open_store(data.store)).version() == 0
    assert EventTable(open_store(data.store)).version() is None
