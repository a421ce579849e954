"""What happens to stored prices when their source changes its mind, loses rows, is late or refuses."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rows import yahoo_frame

from volcast.flows.ingest import ingest
from volcast.models.sessions import sessions_between
from volcast.models.text import counted
from volcast.storage.append_tables import QuarantineTable, RestatementTable
from volcast.storage.prices import PriceTable
from volcast.storage.records import Snapshot, TickerCount
from volcast.storage.store import open_store
from volcast.tasks.fetch_prices import FetchFailed
from volcast.tasks.monitor import present_health
from volcast.tasks.settings import DataSettings
from volcast.tasks.sources.simulated import SimulatedSource, simulated_source
from volcast.tasks.sources.source import Fetch, Outcome

pytestmark = pytest.mark.usefixtures("no_server")
SESSIONS = [
    date.fromisoformat(day) for day in sessions_between(date(2020, 1, 2), date(2023, 12, 29)).strftime("%Y-%m-%d")
]
SPLIT = date(2024, 2, 20)  # of SBUX on the exchange of seed 0


def settings(source: str, store: Path, **changes: object) -> DataSettings:
    return DataSettings.model_validate({"source": source, "store": str(store / "data"), **changes})


def count_of(snapshot: Snapshot) -> TickerCount:
    assert snapshot.counts is not None
    (count,) = snapshot.counts.worst
    return count


def bars_of(spec: str, last: date) -> pd.DataFrame:
    return simulated_source(spec).fetch("SBUX", first=None, last=last).bars


def stored(snapshot: Snapshot, **window: date) -> pd.DataFrame:
    return PriceTable(open_store(snapshot.store)).read(**window)  # pyright: ignore[reportArgumentType]


def write(path: Path, frame: pd.DataFrame) -> str:
    frame.to_csv(path, index=False)
    return f"files:{path}"


def test_a_changed_old_row_is_kept_as_it_was_and_as_it_is(tmp_path: Path) -> None:
    frame = yahoo_frame()
    source = write(tmp_path / "SBUX.csv", frame)
    first = ingest(settings(source, tmp_path))
    frame.loc[100, "Volume"] += 1000
    frame.loc[100, "Open"] *= 1 + 1e-7  # less than a download's rounding
    frame.loc[101, "Open"] += 0.01
    write(tmp_path / "SBUX.csv", frame)
    second = ingest(settings(source, tmp_path))
    found = RestatementTable(open_store(second.store)).read()
    assert list(found["column"]) == ["volume", "open"]
    assert list(found["session"].dt.strftime("%Y-%m-%d")) == list(frame["Date"][100:102])
    assert (found["new"] - found["old"]).tolist() == pytest.approx([1000, 0.01])
    assert set(found["source"]) == {source}
    assert set(zip(found["version_before"], found["version_after"], strict=True)) == {(0, 1)}
    assert (count_of(first).restated, count_of(second).restated) == (0, 2)
    assert ingest(settings(source, tmp_path)).prices.version == 1


def test_broken_rows_alarm_by_the_session_and_no_longer_once_good_ones_have_come(tmp_path: Path) -> None:
    frame = yahoo_frame()
    bad = frame.copy()
    bad.loc[frame.index[-5:-1], "Volume"] = 0
    bad = pd.concat([bad, bad.tail(3).assign(High=1.0)])  # of one session two rows that break a rule
    data = settings(write(tmp_path / "SBUX.csv", bad), tmp_path, as_of=date(2020, 12, 10))
    ingest(data)
    assert len(QuarantineTable(open_store(data.store)).read()) > 4
    found = {finding.code: finding.words for finding in present_health(data).findings}
    assert found["BAD_PRICES"].startswith(
        "5 of 20 sessions, the last 20 of each ticker, have only rows that broke a rule"
    )
    write(tmp_path / "SBUX.csv", frame)
    ingest(data)
    healed = present_health(data)
    assert healed.quarantined == 0
    assert not {"BAD_PRICES", "QUARANTINE"} & {finding.code for finding in healed.findings}


def test_later_dividends_rewrite_no_history(tmp_path: Path) -> None:
    frame = yahoo_frame()
    source = write(tmp_path / "SBUX.csv", frame)
    ingest(settings(source, tmp_path))
    frame["Adj Close"] *= 0.97  # as a download after further dividends has it
    write(tmp_path / "SBUX.csv", frame)
    snapshot = ingest(settings(source, tmp_path))
    assert (snapshot.prices.version, count_of(snapshot).restated) == (1, 0)
    assert RestatementTable(open_store(snapshot.store)).read().empty
    np.testing.assert_allclose(stored(snapshot)["adj_close"], frame["Adj Close"], rtol=1e-4)


def test_two_downloads_of_sbux_agree_but_for_later_dividends(shared_data: Path, tmp_path: Path) -> None:
    files = [shared_data / "SBUX_tutorial.csv", shared_data / "yahoo_csv" / "SBUX.csv"]
    snapshots = [ingest(settings(f"files:{path}", tmp_path)) for path in files]
    table = PriceTable(open_store(snapshots[0].store))
    for version, path in enumerate(files):
        theirs, ours = pd.read_csv(path), table.read(version=version)
        np.testing.assert_allclose(ours["adj_close"], theirs["Adj Close"], rtol=1e-3)
        for name in ("Open", "High", "Low", "Close", "Volume"):
            np.testing.assert_array_equal(ours[name.lower()], theirs[name])
    assert [count_of(snapshot).restated for snapshot in snapshots] == [0, 0]
    assert RestatementTable(open_store(snapshots[0].store)).read().empty


def test_a_history_that_shrinks_is_refused_for_its_ticker_alone(tmp_path: Path) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    for seed, ticker in enumerate(("AAA", "BBB")):
        write(folder / f"{ticker}.csv", yahoo_frame(seed=seed, last=date(2020, 12, 9)))
    data = settings(f"files:{folder}", tmp_path, max_failed_share=0.5)
    before = ingest(data)
    some = np.flatnonzero(np.arange(253) % 8 < 2)  # days, and no bars of a week
    write(folder / "AAA.csv", yahoo_frame(seed=0, last=date(2020, 12, 9)).iloc[some])
    write(folder / "BBB.csv", pd.concat([yahoo_frame(seed=1, last=date(2020, 12, 9)), yahoo_frame(seed=1).tail(1)]))
    snapshot = ingest(data)
    assert snapshot.tickers == ("BBB",)
    assert snapshot.rows == 254
    assert snapshot.counts is not None
    assert "gives 64 of the 250 sessions" in snapshot.counts.worst[0].outcome
    with pytest.raises(FetchFailed, match=r"AAA: shrunk: .* 2019-12-12, .*--allow-shrink") as caught:
        ingest(settings(f"files:{folder}", tmp_path))
    assert caught.value.counts is not None
    assert len(stored(before)) == 253 + 254
    allowed = ingest(data.model_copy(update={"allow_shrink": True}))
    assert (allowed.tickers, len(stored(allowed))) == (("AAA", "BBB"), 253 + 254)


def broken_frame(broken: int, rows: int = 100) -> pd.DataFrame:
    """Rows of which the last but one are broken."""
    frame = yahoo_frame(rows)
    frame.loc[frame.index[-broken - 1 : -1], "High"] = 1.0
    return frame


@pytest.mark.parametrize(("broken", "rows"), [(6, 100), (4, 20), (5, 9), (1, 1), (2, 3), (99, 100)])
def test_a_ticker_with_too_many_broken_rows_has_failed_and_the_others_go_on(
    broken: int, rows: int, tmp_path: Path
) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    write(folder / "GOOD.csv", yahoo_frame(100))
    bad = broken_frame(broken, rows) if rows > broken else broken_frame(1, 2).head(1)
    write(folder / "BAD.csv", bad)
    snapshot = ingest(settings(f"files:{folder}", tmp_path, max_failed_share=0.5))
    assert snapshot.tickers == ("GOOD",)
    assert PriceTable(open_store(snapshot.store)).tickers() == ["GOOD"]
    assert snapshot.counts is not None
    (outcome,) = (row.outcome for row in snapshot.counts.worst if row.ticker == "BAD")
    came = counted(rows, "row breaks", "rows break")
    assert outcome.startswith(f"broken: {broken} of {came} a rule ({broken}: high is below open, low or close)")
    assert len(QuarantineTable(open_store(snapshot.store)).read("ticker = 'BAD'")) == broken  # to be looked at
    with pytest.raises(FetchFailed, match=r"BAD: broken: .* volcast quarantine BAD\. .* is stored\.$"):
        ingest(settings(f"files:{folder}", tmp_path))


@pytest.mark.parametrize(("broken", "rows"), [(5, 100), (3, 20), (1, 10), (1, 2)])
def test_a_few_broken_rows_are_no_failure(broken: int, rows: int, tmp_path: Path) -> None:
    snapshot = ingest(settings(write(tmp_path / "SBUX.csv", broken_frame(broken, rows)), tmp_path))
    assert (snapshot.rows, count_of(snapshot).quarantined) == (rows - broken, broken)


def test_what_was_stored_of_a_ticker_that_comes_broken_stays_and_the_share_is_a_setting(tmp_path: Path) -> None:
    source = write(tmp_path / "SBUX.csv", yahoo_frame(100))
    before = stored(ingest(settings(source, tmp_path)))
    write(tmp_path / "SBUX.csv", broken_frame(98))
    with pytest.raises(
        FetchFailed, match=r"98 of 100 rows break a rule .* --max-broken-share 0\.98\. Nothing"
    ) as caught:
        ingest(settings(source, tmp_path))
    assert caught.value.counts is not None
    assert caught.value.counts.total.stored == 100
    taken = ingest(settings(source, tmp_path, max_broken_share=0.98))
    pd.testing.assert_frame_equal(stored(taken), before)  # the two good rows are as they were


def test_what_was_made_of_the_rows_and_what_looks_wrong_is_told(tmp_path: Path) -> None:
    frame = yahoo_frame(100)
    frame.loc[frame.index[60:], ["Open", "High", "Low", "Close", "Adj Close"]] *= 7.0
    snapshot = ingest(settings(write(tmp_path / "SBUX.csv", frame), tmp_path))
    assert snapshot.counts is not None
    (note,) = snapshot.counts.notes
    assert note.startswith(f"SBUX {frame['Date'].iloc[60]}: the close is ")
    assert note.endswith("times the one before it, without a split; it is stored")


def test_after_a_split_the_rows_that_come_broken_are_taken_to_the_new_shares(tmp_path: Path) -> None:
    frame = yahoo_frame(100)
    source = write(tmp_path / "SBUX.csv", frame.iloc[:80])
    ingest(settings(source, tmp_path))
    frame["Stock Splits"] = 0.0
    frame.loc[frame.index[85], "Stock Splits"] = 10.0
    frame[["Open", "High", "Low", "Close", "Adj Close"]] /= 10
    frame["Volume"] *= 10
    broken, lost = frame.index[[20, 30, 40]], frame.index[[50]]
    spoilt = frame.copy()
    spoilt.loc[broken, "Volume"] = 0
    write(tmp_path / "SBUX.csv", spoilt.drop(index=lost))
    snapshot = ingest(settings(source, tmp_path))
    held = stored(snapshot).set_index("session")
    whole = frame.set_index(pd.DatetimeIndex(frame["Date"]))
    np.testing.assert_allclose(held["close"], whole["Close"], rtol=1e-6)
    np.testing.assert_array_equal(held["volume"], whole["Volume"])
    assert (count_of(snapshot).restated, count_of(snapshot).quarantined) == (80, 3)


def test_a_file_of_a_part_of_the_stored_years_is_no_shrunk_one(tmp_path: Path) -> None:
    ingest(settings(write(tmp_path / "SBUX.csv", yahoo_frame(300)), tmp_path))
    part = yahoo_frame(300).iloc[150:250]
    snapshot = ingest(settings(write(tmp_path / "SBUX_part.csv", part), tmp_path))
    assert (snapshot.cutoff.isoformat(), snapshot.rows) == (part["Date"].iloc[-1], 250)
    assert len(stored(snapshot)) == 300


def test_a_file_that_ends_earlier_is_no_shrunk_one(tmp_path: Path) -> None:
    source = write(tmp_path / "SBUX.csv", yahoo_frame())
    ingest(settings(source, tmp_path))
    write(tmp_path / "SBUX.csv", yahoo_frame().iloc[:60])
    assert ingest(settings(source, tmp_path)).rows == 60


def test_a_missing_session_is_named_with_its_reason_until_it_comes(tmp_path: Path) -> None:
    frame = yahoo_frame()
    damaged = frame.drop(index=50)
    damaged.loc[60, "Volume"] = 0
    source = write(tmp_path / "SBUX.csv", damaged)
    count = count_of(ingest(settings(source, tmp_path)))
    assert (count.stored, count.missing, count.quarantined) == (251, 2, 1)
    assert count.gaps == f"{frame['Date'][60]} (nothing was traded), {frame['Date'][50]}"
    write(tmp_path / "SBUX.csv", frame)
    count = count_of(ingest(settings(source, tmp_path)))
    assert (count.stored, count.missing, count.gaps) == (253, 0, "")


def test_three_missed_sessions_are_caught_up_by_asking_for_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[date | None] = []
    fetch = SimulatedSource.fetch

    def listen(self: SimulatedSource, ticker: str, *, first: date | None, last: date) -> Fetch:
        asked.append(first)
        return fetch(self, ticker, first=first, last=last)

    monkeypatch.setattr(SimulatedSource, "fetch", listen)
    data = settings("simulated:4", tmp_path)
    first = ingest(data.model_copy(update={"as_of": date(2020, 6, 5)}))  # a Friday
    second = ingest(data.model_copy(update={"as_of": date(2020, 6, 10)}))
    again = ingest(data.model_copy(update={"as_of": date(2020, 6, 10)}))
    assert asked == [None, date(2020, 5, 21), date(2020, 5, 27)]  # ten sessions before 5 and 10 June
    assert (second.rows - first.rows, second.prices.version) == (3, 1)
    assert again == second
    want = bars_of("simulated:4", date(2020, 6, 10))
    np.testing.assert_array_equal(stored(second)["volume"], want["volume"])


def test_a_split_brings_the_whole_history_again_and_an_earlier_date_still_shows_what_was_known(tmp_path: Path) -> None:
    data = settings("simulated:0", tmp_path)
    before = ingest(data.model_copy(update={"as_of": date(2024, 2, 16)}))
    known_then = stored(before)
    after = ingest(data.model_copy(update={"as_of": SPLIT}))
    assert count_of(after).restated == before.rows
    want = bars_of("simulated:0", SPLIT)
    for name in ("open", "close", "volume", "split", "dividend"):
        np.testing.assert_array_equal(stored(after)[name], want[name])
    again = ingest(data.model_copy(update={"as_of": date(2024, 2, 16)}))  # writes nothing: its clock knew no split
    assert PriceTable(open_store(again.store)).version() == after.prices.version
    assert (again.prices.version, again.rows) == (before.prices.version, before.rows)  # the one of then
    read_then = stored(again, last=date(2024, 2, 16))
    np.testing.assert_allclose(read_then["volume"], known_then["volume"], atol=1)
    for name in ("open", "high", "low", "close", "adj_close", "dividend"):
        np.testing.assert_allclose(read_then[name], known_then[name], rtol=1e-5, atol=2e-6)


def volume_at(spec: str, clock: date) -> float:
    return float(bars_of(spec, clock)["volume"].iloc[-1])


def faulty(fault: str, store: Path, *clocks: date) -> list[Snapshot]:
    data = settings(f"simulated:7?faults={fault}", store)
    return [ingest(data.model_copy(update={"as_of": clock})) for clock in clocks]


def test_a_gap_heals_when_its_row_comes_late(tmp_path: Path) -> None:
    late = next(
        session
        for session in SESSIONS
        if pd.Timestamp(session) not in set(bars_of("simulated:7?faults=gap", session)["session"])
        and pd.Timestamp(session) in set(bars_of("simulated:7?faults=gap", date(2024, 3, 1))["session"])
    )
    place = SESSIONS.index(late)
    snapshots = faulty("gap", tmp_path, *(SESSIONS[place + step] for step in (4, 9, 10)))
    held = [pd.Timestamp(late) in set(stored(snapshot)["session"]) for snapshot in snapshots[-1:]]
    assert held == [True]
    missing = [count_of(snapshot).missing for snapshot in snapshots]
    assert missing[0] == missing[1] == missing[2] + 1
    assert str(late) in count_of(snapshots[1]).gaps
    assert str(late) not in count_of(snapshots[2]).gaps


def test_rows_that_come_twice_are_stored_once(tmp_path: Path) -> None:
    (snapshot,) = faulty("duplicate", tmp_path, date(2023, 6, 30))
    np.testing.assert_array_equal(stored(snapshot)["close"], bars_of("simulated:7", date(2023, 6, 30))["close"])
    assert (count_of(snapshot).missing, count_of(snapshot).quarantined) == (0, 0)


def test_rows_without_values_are_quarantined_and_missing(tmp_path: Path) -> None:
    first, second = faulty("null", tmp_path, date(2023, 6, 29), date(2023, 6, 30))
    nulls = bars_of("simulated:7?faults=null", date(2023, 6, 30))["close"].isna().sum()
    assert len(QuarantineTable(open_store(second.store)).read()) == nulls == count_of(first).quarantined
    assert count_of(second).missing == nulls
    assert count_of(second).gaps.count("(a value is missing)") == 4
    assert count_of(second).gaps.endswith(f"and {nulls - 4} more")


def test_a_partial_last_bar_is_restated_the_next_time(tmp_path: Path) -> None:
    first, second = faulty("partial", tmp_path, date(2023, 6, 29), date(2023, 6, 30))
    assert (first.prices.version, second.prices.version, count_of(second).restated) == (0, 1, 1)
    found = RestatementTable(open_store(second.store)).read()
    assert set(found["session"].dt.date) == {date(2023, 6, 29)}
    assert "volume" in set(found["column"])
    np.testing.assert_array_equal(
        stored(second)["volume"][:-1], bars_of("simulated:7", date(2023, 6, 30))["volume"][:-1]
    )


def test_volumes_that_are_corrected_after_weeks_are_recorded(tmp_path: Path) -> None:
    spec, honest = "simulated:7?faults=restated", "simulated:7"
    wrong = next(place for place, clock in enumerate(SESSIONS) if volume_at(spec, clock) != volume_at(honest, clock))
    clock, later = SESSIONS[wrong], SESSIONS[wrong + 31]
    _, second = faulty("restated", tmp_path, clock, later)
    found = RestatementTable(open_store(second.store)).read()
    assert len(found) == count_of(second).restated > 0
    assert set(found["column"]) == {"volume"}
    np.testing.assert_allclose(found["old"] / found["new"], 0.9, atol=1e-3)


def test_a_refused_ticker_is_asked_for_again(tmp_path: Path) -> None:
    (snapshot,) = faulty("ratelimit", tmp_path, date(2023, 6, 30))
    assert (count_of(snapshot).outcome, count_of(snapshot).stored) == ("ok", snapshot.rows)


def test_an_outage_is_named_and_changes_nothing(tmp_path: Path) -> None:
    source = simulated_source("simulated:7?faults=outage")
    clock = next(day for day in SESSIONS if source.fetch("SBUX", first=None, last=day).outcome == Outcome.DOWN)
    data = settings("simulated:7?faults=outage", tmp_path, as_of=clock, deadline_hours=1e-3)  # 4 s: no third try
    with pytest.raises(FetchFailed, match=r"SBUX: down: .* Nothing was changed"):
        ingest(data)


@pytest.mark.parametrize(
    ("now", "newest"),
    [
        (datetime(2024, 1, 8, 20, 30, tzinfo=UTC), date(2024, 1, 5)),  # 15:30 in New York
        (datetime(2024, 1, 8, 21, 5, tzinfo=UTC), date(2024, 1, 8)),  # 16:05
        (datetime(2024, 7, 3, 17, 5, tzinfo=UTC), date(2024, 7, 3)),  # 13:05 on a half session
        (datetime(2024, 3, 12, 20, 5, tzinfo=UTC), date(2024, 3, 12)),  # New York has its summer time, Europe has not
    ],
)
def test_only_closed_sessions_are_stored(now: datetime, newest: date, tmp_path: Path) -> None:
    snapshot = ingest(settings("simulated:4", tmp_path, now=now))
    assert snapshot.cutoff == newest == count_of(snapshot).last
