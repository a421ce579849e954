"""What is shown of a service that ran for some sessions: artifacts, final states, reports, the page."""

import io
import re
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from days import DAYS, TRAINED, TRAINING, Served, data_in, store_in
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
)
from programs import Volcast
from rich.console import Console
from rows import yahoo_frame
from runs import artifacts_of, forecasts_of, message_of, run_named

from volcast.flows.daily import daily
from volcast.flows.forecast import forecast
from volcast.flows.ingest import ingest
from volcast.flows.pipeline import pipeline, report
from volcast.flows.retrain import retrain
from volcast.models.sums import sums_of
from volcast.models.text import format_millions
from volcast.storage.announced_dates import EventTable
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.errors import NotStored
from volcast.storage.ledger import Ledger
from volcast.tasks.monitor import present_health
from volcast.tasks.reports import plots
from volcast.tasks.reports.changes import _revisions, changes_since, health_history
from volcast.tasks.reports.page import page
from volcast.tasks.reports.render import show_reasons, show_result, show_what_if
from volcast.tasks.reports.views import (
    LATEST_COLUMNS,
    explained,
    explained_row,
    health_lines,
    history_of,
    read_forecast,
    session_notes,
    skill_rows,
)
from volcast.tasks.run_tools import artifact_key
from volcast.tasks.settings import DataSettings, WatchSettings, supposition_of
from volcast.tasks.stored_models import CHAMPION
from volcast.tasks.what_if import NothingToSuppose, what_if

pytestmark = pytest.mark.usefixtures("prefect_api")

TICKERS = "SBUX, T1, T2"
FRAMES = {f"{what}.{ending}" for what in ("forecast", "sums") for ending in ("parquet", "csv")}
FEW_STEPS = TRAINING.model_copy(update={"settings": TRAINING.settings | {"steps": 10}})  # too few to beat har
ROW = r"^\| \w{3} 2004-07-\d\d \| [\d.]+ \| [\d.]+-[\d.]+ \| [\d.]+-[\d.]+ \| \d+% \|( [^|]* \|)$"  # of a table


class Read(HTMLParser):
    """What a browser finds in a page: tags, pictures, the words, and the cells of each table."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.tags[-1:] in (["td"], ["th"]) and data.strip():
            self.tables[-1][-1][-1] += data

    def table(self, *headings: str) -> list[list[str]]:
        """The rows of the first table whose headings begin so."""
        return next(rows for heading, *rows in self.tables if heading[: len(headings)] == list(headings))


def seen_on(data: DataSettings, day: date) -> DataSettings:
    """The settings, on the evening of a day."""
    return data.model_copy(update={"as_of": None, "now": datetime(day.year, day.month, day.day, 23, tzinfo=UTC)})


def test_each_day_adds_a_version_of_the_forecast_of_each_leading_ticker(served: Served) -> None:
    root = store_in(served[0]).url
    found = artifacts_of(run_named(f"forecast volume {TICKERS} {DAYS[-1]}"), root)
    assert set(found) == {"forecast-sbux", "forecast-t1", "forecast-t2", "status"}
    newest = found["forecast-sbux"]
    words = str(newest.data)
    assert len(words) < 300_000
    assert words.count("](data:image/png;base64,") == 1
    assert f"forecast volume v6 by model volume v1; from the close of {DAYS[-1]}, prices v6." in words
    assert "Simulated data" in words
    assert len(re.findall(ROW, words, re.MULTILINE)) == 10
    assert re.search(r"^\* Thu 2004-07-08: \d\.\d\d times normal: .* \d\.\d\d$", words, re.MULTILINE)
    assert "| SBUX | 5 | " in words  # live skill
    assert re.fullmatch(r"SBUX, Thu 2004-07-08: [\d.]+ M shares \([\d.]+-[\d.]+\)", str(newest.description))

    of_t2 = ArtifactFilter(key=ArtifactFilterKey(any_=[artifact_key("forecast-t2", root)]))
    with get_client(sync_client=True) as client:
        assert len(client.read_artifacts(artifact_filter=of_t2)) >= len(DAYS)  # the history
    first = artifacts_of(run_named(f"forecast volume {TICKERS} {DAYS[0]}"), root)["forecast-sbux"]
    assert "None of its forecasts has been scored yet." in str(first.data)


def test_the_newest_forecast_is_explained_in_80_columns(served: Served) -> None:
    console, store = Console(record=True, width=80, file=io.StringIO()), store_in(served[0])
    newest = explained(store, "volume", "SBUX")
    show_reasons(console, store, newest, explained_row(store, newest, "SBUX", date(2004, 7, 16)))
    words = console.export_text()
    frame = read_forecast(store, "volume", 6).by_ticker["SBUX"]
    (row,) = frame.loc[frame["ds"] == pd.Timestamp("2004-07-16")].to_dict("records")
    assert max(map(len, words.splitlines())) <= 80
    assert f"SBUX, Fri 2004-07-16: {format_millions(row['volcast'])} M shares" in words
    expiry = f"{row['reason-calendar']:.2f}"
    assert re.search(rf"^ option expiry +{expiry} .*█", words, re.MULTILINE)
    assert re.search(rf"^ Fri 07-16 .* {expiry} .* {row['reason-rest']:.2f} *$", words, re.MULTILINE)
    assert len(re.findall(r"^ (Mon|Tue|Wed|Thu|Fri) \d\d-\d\d ", words, re.MULTILINE)) == 10
    assert words.rstrip().endswith("Fri 07-16: option expiry")


def test_a_supposed_announcement_is_shown_beside_the_forecast_and_is_stored_nowhere(served: Served) -> None:
    folder, days = served
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    batch = days[DAYS[-1]].batch
    assert batch is not None
    found = what_if(batch, supposition_of("T1 earnings 2004-07-14 amc"))
    pd.testing.assert_frame_equal(found.real, read_forecast(store_in(folder), "volume", 6).by_ticker["T1"])
    changed = found.supposed["reason-earnings"].to_numpy() / found.real["reason-earnings"].to_numpy()
    assert changed.argmax() in (4, 5)  # on the date or the session after it
    assert changed.max() > 1.2
    console = Console(record=True, width=80, file=io.StringIO())
    show_what_if(console, found)
    assert re.search(r"^ Wed 2004-07-14 .* \+\d+% ", words := console.export_text(), re.MULTILINE)
    assert "T1 announced earnings for 2004-07-14: hypothetical, and stored nowhere" in words
    assert max(map(len, words.splitlines())) <= 80
    with pytest.raises(NothingToSuppose, match="has no XX"):
        what_if(batch, supposition_of("XX earnings 2004-07-14"))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_cannot_be_explained_is_named(served: Served) -> None:
    store = store_in(served[0])
    newest = explained(store, "volume", "SBUX")
    with pytest.raises(NotStored, match=r"no 'XX'\. It is of SBUX, T1, T2"):
        explained(store, "volume", "XX")
    with pytest.raises(NotStored, match=r"no session 2004-07-24 of SBUX\. Its sessions are 2004-07-08 to 2004-07-21"):
        explained_row(store, newest, "SBUX", date(2004, 7, 24))
    by_har = replace(newest, frame=newest.frame.drop(columns="reason-rest"))
    with pytest.raises(NotStored, match="gives no reasons for SBUX"):
        explained_row(store, by_har, "SBUX", None)


def test_a_forecast_of_the_past_has_no_charts_and_the_status_stays_that_of_today(
    served: Served, tmp_path: Path
) -> None:
    folder = shutil.copytree(served[0], tmp_path / "past")
    forecast(data_in(folder, date(2004, 6, 24)), TRAINING)
    found = artifacts_of(run_named("forecast volume all of simulated 2004-06-24"), store_in(folder).url)
    (status,) = found.values()
    assert f"volume from {DAYS[-1]} by volcast; STALE_PRICES" in str(status.description)  # years behind the clock


def test_every_run_ends_with_what_it_came_to(served: Served) -> None:
    assert served[1]
    day = DAYS[-1]
    how_it_stands = f"volume from {day} by volcast; nothing to report"
    by_name = {
        f"ingest {TICKERS} {day}": f"prices v6: 3 rows new, 0 restated, 33 as before; to {day}",
        f"forecast volume {TICKERS} {day}": f"forecast volume v6 by model volume v1, from {day}, 30 rows",
        f"monitor volume {day}": how_it_stands,
        f"daily volume {day}": f"forecast volume v6 by model volume v1; {how_it_stands}",
    }
    assert {name: message_of(run_named(name)) for name in by_name} == by_name


def test_the_report_of_a_fallback_has_its_charts_and_says_whose_scorecard_lies_beside_it(
    served: Served, tmp_path: Path
) -> None:
    folder = shutil.copytree(served[0], tmp_path / "old")
    batch = forecast(data_in(folder, DAYS[-1]), TRAINING, WatchSettings(max_model_age=1))
    assert (batch.model, batch.by) == (None, "har")
    written = report(batch)
    assert written.scorecard is not None
    assert str(written.scorecard.model.artifact) == "model volume v1"
    charts = {"forecast-SBUX.png", "forecast-T1.png", "forecast-T2.png"}
    assert set(written.files) == {*FRAMES, "scorecard.md", *charts}
    sums = pd.read_parquet(written.files["sums.parquet"])
    assert sums.groupby("unique_id")["sessions"].agg(list).to_dict() == {
        each: [2, 5, 10] for each in TICKERS.split(", ")
    }
    first, *_ = Path(written.files["scorecard.md"]).read_text().splitlines()
    assert first == f"**The forecast is not by this model, but by {batch.author}.**"
    assert batch.author == "har, a fallback: model volume v1 is 6 sessions old, more than 1"
    assert message_of(run_named(f"report on {batch.artifact}")) == written.words


def test_before_anything_was_trained_the_report_has_no_scorecard(tmp_path: Path) -> None:
    data = data_in(tmp_path, TRAINED, tickers=("SBUX",))
    ingest(data)
    written = report(forecast(data, TRAINING, WatchSettings()))
    assert written.scorecard is None
    assert set(written.files) == {*FRAMES, "forecast-SBUX.png"}


def test_the_summary_says_first_that_har_forecasts_where_the_model_did_not_pass(tmp_path: Path) -> None:
    result = pipeline(data_in(tmp_path, TRAINED, tickers=("SBUX", "T1")), FEW_STEPS)
    out = io.StringIO()
    show_result(Console(file=out, width=200), result)
    words = out.getvalue()
    in_order = (
        "Training  Kept volume v1: MASE",
        "scorecard volume v1",
        "Fallback  har forecasts in place of volume: no version of volume has passed the gate yet.",
        "Forecast  forecast volume v1 by har: 20 rows",
        "Median and 80 % interval",
    )
    places = [words.index(each) for each in in_order]
    assert places == sorted(places)
    assert words.count(", does not beat har ") == 1
    card = artifacts_of(run_named(f"retrain volume SBUX, T1 {TRAINED}"), store_in(tmp_path).url)["scorecard"]
    assert str(card.description).startswith("Did not pass the gate: MASE")
    assert str(card.data).count("](data:image/png;base64,") == 3  # two fan charts and the calibration
    assert len(str(card.data)) < 300_000


def test_the_page_has_status_forecasts_skill_calibration_drift_prices_and_versions(served: Served) -> None:
    data = seen_on(data_in(served[0], DAYS[-1]), DAYS[-1])
    found = Read(page(data))
    health = present_health(data)
    assert health is not None
    assert all(line in found.words for line in health_lines(health))
    assert "Nothing to report." in found.words
    assert "Simulated data" in found.words

    assert f"by model volume v1; from the close of {DAYS[-1]}, prices v6" in found.words
    forecasts = [rows for heading, *rows in found.tables if heading[:2] == ["session", "median"]]
    assert [len(rows) for rows in forecasts] == [10, 10, 10]
    assert forecasts[0][0][0] == "Thu 2004-07-08"
    assert found.table("of", "last") == [list(row.values()) for row in skill_rows(health.skill)]
    observed = found.table("quantile", "1 ahead")
    assert [row[0] for row in observed] == ["2.5%", "10.0%", "50.0%", "90.0%", "97.5%"]
    assert all(0 <= float(cell.rstrip("%")) <= 100 for row in observed for cell in row[1:])
    assert len(found.table("feature", "PSI", "limit")) == 8
    assert [row[0] for row in found.table("ticker", "stored")] == ["SBUX", "T1", "T2", "total"]
    (version,) = found.table("version", "trained")
    assert version[0] == "v1"
    assert re.match(r"MASE 0\.\d+ < har 0\.\d+, with no champion beside it", version[-1])
    assert [row[:2] for row in found.table("version", "is")] == [["v1", "champion"]]
    assert found.tags.count("img") == 3 + 1 + 2 + 1  # fan charts, errors over time, live and tested calibration, drift

    came = {row[0]: row for row in found.table("ticker", "forecast")}
    assert set(came) == {"SBUX", "T1", "T2"}
    scores = Ledger(store_in(served[0])).scores("volume", first=DAYS[-1])
    own = scores.loc[(scores["ticker"] == "SBUX") & (scores["h"] == 1) & scores["published"]].iloc[0]
    off = own["absolute_error"] / own["actual"] * (1 if own["over"] else -1)
    assert (came["SBUX"][3], came["SBUX"][4]) == (format_millions(own["actual"]), f"{off:+.0%}")
    assert f"{DAYS[-1]}: of 3 tickers " in found.words
    assert f"What has changed since {DAYS[-2]}" in found.words
    assert "a deployment's daily run lists them here" in found.words


def test_the_newest_forecast_and_the_page_lie_under_names_that_stay(served: Served, tmp_path: Path) -> None:
    folder = shutil.copytree(served[0], tmp_path / "again")
    latest = folder / "simulated-0" / "reports" / "volume"
    table = pd.read_parquet(latest / "latest.parquet")
    assert list(table.columns) == LATEST_COLUMNS == list(pd.read_csv(latest / "latest.csv").columns)
    assert table.groupby("ticker")["h"].apply(list).to_dict() == {each: [*range(1, 11)] for each in TICKERS.split(", ")}
    assert set(table["cutoff"].dt.date) == {DAYS[-1]}
    assert set(table["model"]) == {"volcast"}
    batch = served[1][DAYS[-1]].batch
    assert batch is not None
    own = forecasts_of(batch).sort_values(["unique_id", "h"])
    assert table["median"].tolist() == own["volcast"].tolist()
    sums, of_sums = pd.read_parquet(latest / "latest-sums.parquet"), sums_of(own)
    assert list(sums.columns) == list(pd.read_csv(latest / "latest-sums.csv").columns)
    assert sums[["ticker", "sessions", "median"]].to_numpy().tolist() == (
        of_sums[["unique_id", "sessions", "volcast"]].to_numpy().tolist()
    )
    assert sums["mean"].iloc[0] == pytest.approx(table["mean"].iloc[:2].sum())
    whole = Read((latest / "latest.html").read_text(encoding="utf-8"))
    assert f"by model volume v1; from the close of {DAYS[-1]}" in whole.words
    assert [row[0] for row in whole.table("ticker", "forecast")] == TICKERS.split(", ")
    published = artifacts_of(run_named(f"daily volume {DAYS[-1]}"), store_in(served[0]).url)["latest"]
    assert str(published.description).startswith(f"{DAYS[-1]}: of 3 tickers ")
    assert all(f"volume/latest.{ending}`" in str(published.data) for ending in ("html", "csv", "parquet"))

    before = (latest / "latest.csv").read_bytes()
    forecast(data_in(folder, date(2004, 6, 24)), TRAINING)  # of the past
    assert (latest / "latest.csv").read_bytes() == before
    forecast(data_in(folder, DAYS[-1], tickers=("T1",)), TRAINING, WatchSettings(max_model_age=1))  # one ticker anew
    table = pd.read_parquet(latest / "latest.parquet")
    assert table.groupby("ticker")["model"].first().to_dict() == {"SBUX": "volcast", "T1": "har", "T2": "volcast"}
    assert "har" in Read((latest / "latest.html").read_text(encoding="utf-8")).words


def test_announced_earnings_are_marked_and_what_has_changed_is_named(served: Served, tmp_path: Path) -> None:
    folder = shutil.copytree(served[0], tmp_path / "marked")
    store = store_in(folder)
    facts = {"ticker": "SBUX", "announced_for": pd.Timestamp("2004-07-13"), "when": "amc", "first_seen_assumed": False}
    announced = pd.DataFrame([facts])
    EventTable(store).record(announced, as_of=DAYS[-1], source="files:own")
    forecast_6 = read_forecast(store, "volume", 6)
    marks = session_notes(store, forecast_6.frame, DAYS[-1])
    notes = {f"{ticker} {day:%Y-%m-%d}": note for (ticker, day), note in marks.items()}
    assert notes["SBUX 2004-07-13"].endswith("earnings after the close")
    found = Read(page(seen_on(data_in(folder, DAYS[-1]), DAYS[-1])))
    own = next(rows for heading, *rows in found.tables if heading[:2] == ["session", "median"])
    assert [row[-1] for row in own if row[0] == "Tue 2004-07-13"] == [notes["SBUX 2004-07-13"]]
    after_thanksgiving = forecast_6.frame.assign(ds=pd.Timestamp("2004-11-26"))
    assert set(session_notes(store, after_thanksgiving, DAYS[-1]).values()) == {"half day, after Thanksgiving"}

    artifacts, ledger = ArtifactStore(store), Ledger(store)
    newest, before = health_history(artifacts, "volume", 2)
    assert [each.fact("session") for each in (newest, before)] == [str(DAYS[-1]), str(DAYS[-2])]
    artifacts.set_alias("model", "volume", CHAMPION, 1, "as a trial")
    health = present_health(seen_on(data_in(folder, DAYS[-1]), DAYS[-1])).model_copy(update={"restated": 7})
    lines = changes_since(before, health, history_of(artifacts, "volume"), ledger)
    assert "Restated sessions of the last 20: none then, 7 now" in lines
    assert any(re.match(r"volume v1 is champion since .* UTC\. as a trial$", line) for line in lines)
    rows = ledger.forecasts("volume", first=DAYS[-2])
    rows.loc[rows["cutoff"] == pd.Timestamp(DAYS[-1]), "median"] *= 2
    revised = _revisions(rows)
    assert len(revised) == 5 + 1
    assert re.match(r"\w+, \w{3} 2004-07-\d\d: [\d.]+ M shares, [\d.]+ M before \(\+\d+%\)$", revised[0])


def test_every_chart_of_a_simulated_exchange_says_so(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    titles, canvas = [], plots._canvas

    def noted(title: str, **more: Any) -> Any:
        titles.append(title)
        return canvas(title, **more)

    monkeypatch.setattr(plots, "_canvas", noted)
    page(data_in(served[0], DAYS[-1]))
    assert len(titles) >= 5
    assert [title for title in titles if "(simulated)" not in title] == []


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(served: Served) -> None:
    found = Read(page(seen_on(data_in(served[0], DAYS[-1]), DAYS[-1])))
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert all(re.match(r"data:image/png;base64,|#\w+$", link) for link in found.links)


def test_a_reason_is_shown_as_text_and_what_needs_a_person_with_what_to_do(served: Served, tmp_path: Path) -> None:
    folder = shutil.copytree(served[0], tmp_path / "moved")
    artifacts = ArtifactStore(store_in(folder))
    artifacts.set_alias("model", "volume", CHAMPION, 1, "<script>alert('&')</script>")
    html = page(seen_on(data_in(folder, DAYS[-1]), date(2004, 7, 14)))
    assert "<script" not in html
    found = Read(html)
    assert found.table("version", "is")[0][-1] == "<script>alert('&')</script>"
    assert "needs a person" in found.words
    assert "STALE_PRICES" in found.words
    assert "What to do: See why the last ingest failed" in found.words


def test_where_har_forecasts_the_page_says_why_and_the_thirteenth_ticker_is_in_the_short_table(tmp_path: Path) -> None:
    tickers = ("SBUX", *(f"T{number}" for number in range(10, 23)))
    daily(data_in(tmp_path, TRAINED, tickers=tickers), TRAINING)
    data = seen_on(data_in(tmp_path, TRAINED), TRAINED)
    found = Read(page(data))
    assert "by har, a fallback: no version of volume has passed the gate yet" in found.words
    assert "NO_CHAMPION" in found.words
    assert "No forecast has been scored yet" in found.words
    assert found.tags.count("img") == 12
    (heading, *rows) = next(table for table in found.tables if table[0][0] == "ticker" and "median" not in table[0])
    assert heading[:2] == ["ticker", "Tue 2004-06-29"]
    assert [row[0] for row in rows] == ["T21", "T22"]
    alone = Read(page(data.model_copy(update={"tickers": ("T22",)})))
    assert (alone.tags.count("img"), [row[0] for row in alone.table("ticker", "stored")]) == (1, ["T22", "total"])


def test_a_version_that_was_kept_is_listed_with_its_verdict(tmp_path: Path, volcast: Volcast) -> None:
    data = data_in(tmp_path, TRAINED, tickers=("SBUX", "T1"))
    ingest(data)
    retrain(data, FEW_STEPS)
    found = Read(page(seen_on(data, TRAINED)))
    assert "Nothing has been forecast ahead yet." in found.words
    (version,) = found.table("version", "trained")
    assert re.search(r"MASE 0\.\d+, does not beat har 0\.\d+", version[-1])
    assert "Nothing has been decided yet." in found.words
    assert "volume v1: MASE 0." in volcast("models", "list", "--store", tmp_path).out


def test_the_command_writes_the_page_and_a_bad_request_is_one_line(volcast: Volcast, sbux_csv: Path) -> None:
    assert volcast("report").code == 1
    assert volcast("ingest", "--source", f"files:{sbux_csv.name}").code == 0
    said = volcast("report", "--out", "page.html")
    assert (said.code, said.out) == (0, "The page is page.html\n")
    found = Read(Path("page.html").read_text(encoding="utf-8"))
    assert "Nothing has been forecast ahead yet." in found.words
    assert "No version of volume has been trained yet." in found.words
    assert "Simulated" not in found.words
    assert found.table("ticker", "stored")[-1][:2] == ["total", f"{len(yahoo_frame()):,}"]
    for out, words in (("page.pdf", "expected a name that ends in .html"), ("nowhere/page.html", "there is no folder")):
        refused = volcast("report", "--out", out)
        assert (refused.code, len(refused.errors)) == (1, 1)
        assert words in refused.errors[0]
