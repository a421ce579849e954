"""Prices of other markets than New York's, from the file to the forecast, in a store of several markets."""

import re
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from days import TRAINING
from exchange_calendars import get_calendar_names
from programs import Volcast
from rows import yahoo_frame

from benchmarks.programs import BEATS_HAR
from volcast.flows.backtest import backtest
from volcast.flows.daily import daily
from volcast.flows.forecast import forecast
from volcast.flows.ingest import ingest
from volcast.flows.prefect_processes import without_server
from volcast.flows.retrain import retrain
from volcast.models.market_calendar import CALENDAR_COLUMNS, calendar_columns
from volcast.storage.append_tables import QuarantineTable
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.storage.store import open_store
from volcast.tasks.count_prices import status_of
from volcast.tasks.fetch_prices import FetchFailed
from volcast.tasks.monitor import present_health
from volcast.tasks.settings import BacktestSettings, DataSettings, calendar_of, root_of
from volcast.tasks.snapshot import read_panel

alone = pytest.mark.usefixtures("no_server")

LAST = {"XLON": date(2024, 12, 20), "24/7": date(2024, 3, 8), "XNYS": date(2024, 12, 20)}  # Fridays
NOW = {"XLON": "2024-12-20T18:00:00Z", "24/7": "2024-03-09T01:30:00Z", "XNYS": "2024-12-20T22:00:00Z"}
TICKER = {"XLON": "VOD.L", "24/7": "BTC-USD", "XNYS": "SBUX"}
CASES = Path(__file__).parents[2] / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"the files as people have them are not at {CASES}")


def prices_of(calendar: str, until: date | None = None) -> pd.DataFrame:
    """Four years of a made-up ticker; where a market trades at weekends, half as much as on other days."""
    frame = yahoo_frame(1000, last=LAST[calendar], calendar=calendar)
    dates = pd.DatetimeIndex(frame["Date"])
    frame["Volume"] = np.where(dates.day_of_week > 4, frame["Volume"] // 2, frame["Volume"])
    return frame.loc[dates <= pd.Timestamp(until or LAST[calendar])]


def data_of(folder: Path, calendar: str, **settings: Any) -> DataSettings:
    return DataSettings.model_validate(
        {
            "source": f"files:{folder / TICKER[calendar]}.csv",
            "calendar": calendar,
            "store": str(folder / "store"),
            "now": NOW[calendar],
            **settings,
        }
    )


@pytest.fixture(scope="module")
def markets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a ticker of each of three markets, trained and forecast from."""
    folder = tmp_path_factory.mktemp("markets")
    with without_server():
        for calendar, ticker in TICKER.items():
            prices_of(calendar).to_csv(folder / f"{ticker}.csv", index=False)
            ingest(data_of(folder, calendar))
        for calendar in ("XLON", "24/7"):
            retrain(data_of(folder, calendar, source="stored"), TRAINING)
            forecast(data_of(folder, calendar, source="stored"), TRAINING)
    return folder


@pytest.mark.parametrize(
    ("calendar", "first"),
    [
        # Christmas Eve is a half day, Christmas and Boxing Day are none; no half day is left out
        ("XLON", ["2024-12-23", "2024-12-24", "2024-12-27", "2024-12-30", "2024-12-31", "2025-01-02"]),
        ("24/7", ["2024-03-09", "2024-03-10", "2024-03-11", "2024-03-12", "2024-03-13", "2024-03-14"]),
    ],
)
def test_a_forecast_is_of_the_next_sessions_of_the_market(markets: Path, calendar: str, first: list[str]) -> None:
    store = open_store(data_of(markets, calendar).root)
    rows = Ledger(store).forecasts("volume", first=LAST[calendar])
    assert sorted(set(map(str, rows["ds"].dt.date)))[:6] == first
    assert set(rows["model"]) >= {"har", "naive"}
    assert set(rows["ticker"]) == {TICKER[calendar]}


@alone
def test_a_holiday_of_the_market_is_no_gap_and_a_lost_session_is_one(markets: Path, tmp_path: Path) -> None:
    for calendar, ticker in TICKER.items():
        counts = status_of(data_of(markets, calendar).root, (), LAST[calendar])
        assert (counts.total.stored, counts.total.missing, counts.total.behind) == (1000, 0, 0)
        assert [row.ticker for row in counts.worst] == [ticker]
    lost = prices_of("XLON")
    lost = lost.loc[lost["Date"] != "2024-05-07"]  # the day after a bank holiday
    lost.to_csv(tmp_path / "VOD.L.csv", index=False)
    snapshot = ingest(data_of(tmp_path, "XLON"))
    assert snapshot.counts is not None
    assert snapshot.counts.worst[0].gaps == "2024-05-07"


def test_each_market_has_its_own_champion_or_none_and_the_same_name(markets: Path) -> None:
    def versions(calendar: str) -> list[int]:
        return ArtifactStore(open_store(data_of(markets, calendar).root)).versions("model", "volume")

    assert (versions("XLON"), versions("24/7"), versions("XNYS")) == ([1], [1], [])
    assert PriceTable(open_store(str(markets / "store"))).tickers() == ["SBUX"]


@alone
def test_the_panel_has_the_half_days_of_the_market_and_no_witching(markets: Path) -> None:
    panel = read_panel(ingest(data_of(markets, "XLON")))
    calendar_SK = calendar_columns(panel.sessions, panel.calendar)
    half_days = panel.sessions[calendar_SK[:, CALENDAR_COLUMNS.index("half_day")] == 1].strftime("%Y-%m-%d")
    assert half_days[-4:].tolist() == ["2023-12-22", "2023-12-29", "2024-12-24", "2024-12-31"]
    assert not calendar_SK[:, CALENDAR_COLUMNS.index("triple_witching")].any()


def test_health_counts_the_sessions_of_the_market(markets: Path) -> None:
    data = data_of(markets, "24/7", source="stored")
    health = present_health(data)
    assert (health.session, health.cutoff, health.behind) == (date(2024, 3, 8), date(2024, 3, 8), 0)
    later = present_health(data_of(markets, "24/7", source="stored", now="2024-03-12T01:30:00Z"))
    assert (later.session, later.behind) == (date(2024, 3, 11), 3)  # Saturday, Sunday, Monday
    london = present_health(data_of(markets, "XLON", source="stored", now="2024-12-27T18:00:00Z"))
    assert (london.session, london.behind) == (date(2024, 12, 27), 3)  # Monday, Christmas Eve, Friday


@alone
def test_a_daily_run_after_a_friday_forecasts_saturday_and_scores_what_came(tmp_path: Path) -> None:
    for day, now in ((date(2024, 3, 7), "2024-03-08T01:30:00Z"), (date(2024, 3, 8), "2024-03-09T01:30:00Z")):
        prices_of("24/7", day).to_csv(tmp_path / "BTC-USD.csv", index=False)
        batch = daily(data_of(tmp_path, "24/7", now=now), TRAINING).batch
        assert batch is not None
        assert batch.snapshot.cutoff == day
    assert batch.first_session == date(2024, 3, 9)
    scores = Ledger(open_store(data_of(tmp_path, "24/7").root)).scores("volume", first=date(2024, 3, 7))
    assert set(scores["ds"].dt.date) == {date(2024, 3, 8)}


@alone
def test_a_backtest_has_the_sessions_of_the_market_as_targets(markets: Path) -> None:
    request = BacktestSettings(
        test_start=date(2024, 2, 1), test_end=date(2024, 2, 11), device="cpu", settings={**BEATS_HAR, "steps": 20}
    )
    result = backtest(data_of(markets, "24/7", as_of=request.test_end), request)
    assert result.cutoffs == 11  # each day, Saturdays and Sundays too


def test_a_store_of_several_markets_asks_which_one_is_meant(markets: Path, volcast: Volcast) -> None:
    store = ("--store", markets / "store")
    refused = volcast("status", *store)
    assert refused.code == 1
    words = "holds prices of several calendars; say which by --calendar: XNYS, 24/7, XLON."
    assert words in refused.errors[0]
    assert words in volcast("daily", *store).errors[0]
    shown = volcast("status", "--calendar", "xlon", *store)
    assert "sessions behind XLON's last closed session" in shown.out
    assert "VOD.L" in shown.out
    assert "SBUX" not in shown.out
    assert "VOD.L" in volcast("status", "--tickers", "VOD.L", *store).out
    lacking = volcast("report", "--calendar", "XTKS", *store)
    assert "holds no prices of the calendar XTKS, but of XNYS, 24/7, XLON." in lacking.errors[0]
    assert volcast("verify", *store).out == "Everything that is stored is as it was written.\n"


@pytest.mark.usefixtures("prefect_api")
def test_the_calendar_is_named_once_and_the_next_ingest_goes_on_with_it(volcast: Volcast, tmp_path: Path) -> None:
    prices_of("XLON", date(2024, 12, 19)).to_csv(tmp_path / "VOD.L.csv", index=False)
    first = volcast("ingest", "--source", "files:VOD.L.csv", "--calendar", "LSE")
    assert first.code == 0, first.errors
    assert re.search(r"sessions of XLON, 2021-01-\d\d to 2024-12-19, kept in data/calendar-XLON", first.out)
    prices_of("XLON").to_csv(tmp_path / "VOD.L.csv", index=False)
    for words in (["--source", "files:VOD.L.csv"], []):
        again = volcast("ingest", *words)
        assert again.code == 0, again.errors
        assert "sessions of XLON," in again.out
        assert "to 2024-12-20" in again.out
    assert f"files:{tmp_path}/VOD.L.csv, sessions of XLON, announcements of none" in again.out
    assert not (tmp_path / "data" / "prices").exists()
    assert (tmp_path / "data" / "calendar-XLON" / "prices").is_dir()
    assert "sessions behind XLON's last closed session" in volcast("status").out
    prices_of("XNYS").to_csv(tmp_path / "SBUX.csv", index=False)
    assert volcast("ingest", "--source", "files:SBUX.csv").code == 0  # a new source is New York's
    assert (tmp_path / "data" / "prices").is_dir()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--calendar", "XXXX", "--source", "files:a.csv"], "'XXXX' is no calendar of exchange_calendars. Expected"),
        (["--calendar", "XLON"], "holds no prices of XLON. Bring some with: volcast ingest --source … --calendar XLON"),
        (["--calendar", "XLON", "--source", "simulated"], "the simulated exchange has New York's calendar, XNYS"),
        (["--store", "data/calendar-XLON", "--source", "yahoo"], "this is a part of a store. Give the folder above it"),
    ],
)
def test_a_calendar_that_cannot_be_is_refused_in_a_line(
    words: list[str], error: str, volcast: Volcast, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    said = volcast("ingest", *words)
    assert said.code
    assert len(said.errors) == 1
    assert error in said.errors[0]


def test_the_folder_of_each_calendar_says_which_it_is_and_no_other_folder_does() -> None:
    for name in get_calendar_names(include_aliases=False):
        assert calendar_of(root_of("s3://bucket/x", "yahoo", name)) == name
        assert calendar_of(root_of("data/", "yahoo", name)) == name
    assert root_of("data", "yahoo", "24/7") == "data/calendar-24-7"
    assert root_of("data", "simulated:3", "XNYS") == "data/simulated-3"
    for folder in ("data", "data/calendar-2024", "calendar-of-mine", "old-calendar-XLON", "data/calendar-XLON/prices"):
        assert calendar_of(folder) == "XNYS"


@alone
@needs_cases
@pytest.mark.parametrize(
    ("case", "error"),
    [
        (
            "btc",
            "BTC-USD: wrong calendar: 171 of its 545 dates are no sessions of XNYS: Sun 2023-01-01, Mon 2023-01-02, "
            "Sat 2023-01-07 and 168 more. They fit 24/7: give --calendar 24/7. Nothing was changed.",
        ),
        ("vix", "^VIX: no volume: none of its 374 rows has one; an index or a rate cannot be forecast here."),
    ],
)
def test_a_file_of_another_market_or_without_volumes_is_refused_in_one_line(
    case: str, error: str, tmp_path: Path
) -> None:
    data = DataSettings(source=f"files:{CASES / case}", store=str(tmp_path))
    with pytest.raises(FetchFailed) as refused:
        ingest(data)
    assert str(refused.value).startswith(error)
    assert PriceTable(open_store(str(tmp_path))).version() is None


@alone
@needs_cases
def test_a_halt_of_forty_sessions_is_no_fault_of_the_source(tmp_path: Path) -> None:
    snapshot = ingest(DataSettings(source=f"files:{CASES / 'halted'}", store=str(tmp_path)))
    assert snapshot.counts is not None
    assert (snapshot.counts.total.stored, snapshot.counts.total.quarantined) == (334, 40)
    assert set(QuarantineTable(open_store(snapshot.store)).read()["rule"]) == {"nothing was traded"}


@alone
@needs_cases
def test_bitcoin_has_no_gap_on_its_own_calendar(tmp_path: Path) -> None:
    snapshot = ingest(DataSettings(source=f"files:{CASES / 'btc'}", store=str(tmp_path), calendar="24/7"))
    assert snapshot.counts is not None
    total = snapshot.counts.total
    assert (total.stored, total.missing, total.quarantined) == (545, 0, 0)


@alone
def test_a_row_of_a_holiday_is_in_quarantine_by_the_market_s_name(tmp_path: Path) -> None:
    frame = prices_of("XLON")
    slip = frame.iloc[[-200]].assign(Date="2024-05-06")
    pd.concat([frame, slip]).to_csv(tmp_path / "VOD.L.csv", index=False)
    snapshot = ingest(data_of(tmp_path, "XLON"))
    assert snapshot.rows == 1000
    assert QuarantineTable(open_store(snapshot.store)).read()["rule"].tolist() == ["XLON was closed on this date"]
