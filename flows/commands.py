"""What the commands do: find or start a server, run flows, say how it went."""

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from flows import summary
from flows.backtest import backtest as backtest_flow
from flows.daily import daily as daily_flow
from flows.deploy import Served
from flows.forecast import forecast as forecast_flow
from flows.ingest import ingest as ingest_flow
from flows.monitor import monitor as monitor_flow
from flows.pipeline import pipeline
from flows.quiet import quiet_console
from flows.retrain import retrain as retrain_flow
from flows.server import ServerError, prefect_server, present_server
from flows.server_options import ServerOptions
from flows.up import deploy_to, stay_up
from models.errors import ImpossibleTest, ModelError, UnknownRecipe
from storage.artifacts import ArtifactStore
from storage.errors import StoreError
from storage.records import AliasEntry, ForecastBatch, PipelineResult
from storage.store import open_store
from tasks import move_champion
from tasks.check_health import present_health
from tasks.choose_forecaster import require_ahead
from tasks.count_prices import quarantined_rows, status_of
from tasks.export import check_out, write_forecasts
from tasks.fetch_prices import FetchFailed
from tasks.page import FORMATS as PAGE_FORMATS
from tasks.page import page
from tasks.parts import SomeModelsFailed
from tasks.plan_ingest import last_session, root_of
from tasks.preflight import (
    STORED,
    check,
    check_backtest,
    stored_parts,
    stored_source,
    usual_events,
    usual_source,
)
from tasks.settings import BacktestSettings, DataSettings, RetrainSettings, TrainingSettings, WatchSettings
from tasks.sources.protocol import SourceError, UnknownSource
from tasks.upkeep import collect_garbage, find_faults

EXPECTED = (ModelError, StoreError, SourceError, ServerError, ValueError, OSError)
MISTAKES = (ImpossibleTest, UnknownRecipe, UnknownSource, ValidationError)  # of the request itself: exit 2


console = Console(highlight=False, soft_wrap=True)


def data_settings(
    source: str | None, tickers: str, store: str, as_of: datetime | None, events: str | None = None
) -> DataSettings:
    """The settings of a command that brings prices in; from where the store's came before, unless told otherwise."""
    data = _data_settings(source or usual_source(store), tickers, store, as_of, events)
    data = data if data.events else data.model_copy(update={"events": usual_events(data)})
    if source is None:
        summary.show_usual_source(console, data)
    return data


def stored_data_settings(source: str | None, tickers: str, store: str, as_of: datetime | None) -> DataSettings:
    """The settings of a command that works on stored prices: simulated ones on request, or where no real ones are."""
    if source is None:
        return _data_settings(stored_source(store), tickers, store, as_of)
    return _data_settings(source if source.startswith("simulated") else STORED, tickers, store, as_of)


def training_settings(recipe: str, sessions: str = "253", **settings: Any) -> TrainingSettings:
    """The settings of a training; `sessions` is a number or `all`."""
    if sessions != "all" and not sessions.isdigit():
        raise UnknownRecipe(f"--sessions must be a whole number or 'all'; {sessions!r} came.")
    return TrainingSettings(recipe=recipe, window_sessions=None if sessions == "all" else int(sessions), **settings)


def recipe_settings(given: Sequence[str]) -> dict[str, Any]:
    """Settings of a recipe from NAME=VALUE, the value as JSON or else a word."""
    found: dict[str, Any] = {}
    for each in given:
        name, is_there, value = each.partition("=")
        if not is_there:
            raise UnknownRecipe(f"--set must be NAME=VALUE, such as steps=1000; {each!r} came.")
        try:
            found[name.strip()] = json.loads(value)
        except json.JSONDecodeError:
            found[name.strip()] = value
    return found


def run(data: DataSettings, training: TrainingSettings, out: Path | None) -> None:
    """Ingest, retrain, forecast, report; then a summary. Raises SomeModelsFailed after the summary of the others."""
    check_out(out)
    check(data, training)
    failed: SomeModelsFailed | None = None
    _quiet()
    with prefect_server() as server:
        try:
            result: PipelineResult = pipeline(data, training)
        except SomeModelsFailed as error:
            failed, result = error, error.result
    summary.show_result(console, result)
    _export([report.batch for report in result.reports], out)
    summary.show_server(console, server)
    if failed:
        raise failed


def ingest(data: DataSettings) -> None:
    """Bring the prices up to date."""
    check(data)
    _quiet()
    try:
        with prefect_server() as server:
            snapshot = ingest_flow(data)
    except FetchFailed as error:
        summary.show_counts(console, error.counts, ingested=True)
        raise
    summary.show_prices(console, snapshot)
    summary.show_counts(console, snapshot.counts, ingested=True)
    summary.show_server(console, server)


def daily(data: DataSettings, training: TrainingSettings, watch: WatchSettings) -> None:
    """Ingest, forecast, monitor; then what was published, and what is to be known."""
    check(data, training)
    require_ahead(training)
    _quiet()
    with prefect_server() as server:
        result = daily_flow(data, training, watch)
    summary.show_daily(console, result)
    summary.show_server(console, server)


def monitor(data: DataSettings, training: TrainingSettings, watch: WatchSettings) -> None:
    """Score what came true and look at everything; then what is to be known."""
    check(data, training)
    require_ahead(training)
    _quiet()
    with prefect_server() as server:
        health = monitor_flow(data, training, watch)
    summary.show_health(console, health)
    summary.show_server(console, server)


def status(data: DataSettings) -> bool:
    """Print what is stored and how it stands, without a server; whether nobody has to do anything."""
    root = root_of(data.store, data.source)
    counts = status_of(root, data.tickers, last_session(None, data.now))
    summary.show_status(console, root, counts)
    health = present_health(data)
    summary.show_health(console, health)
    return health is None or not health.needs_person


def report(data: DataSettings, out: Path) -> None:
    """Write the page, without a server."""
    check_out(out, PAGE_FORMATS)
    out.write_text(page(data), encoding="utf-8")
    console.print(f"The page is {summary.nice_path(str(out.resolve()))}", markup=False)


def quarantine(data: DataSettings, limit: int) -> None:
    """Print the newest quarantined rows, without a server."""
    root = root_of(data.store, data.source)
    summary.show_quarantine(console, root, *quarantined_rows(root, data.tickers, limit))


def retrain(data: DataSettings, training: TrainingSettings, why: RetrainSettings) -> None:
    """Train each model of the stored tickers; then its scorecard, and what became of it."""
    check(data, training)
    parts = stored_parts(data, training)
    _quiet()
    with prefect_server() as server:
        states = [retrain_flow(part, training, why, return_state=True) for part in parts]
        scorecards = [state.result() for state in states]
    for scorecard, state in zip(scorecards, states, strict=True):
        summary.show_scorecard(console, scorecard)
        console.print(f"\n[bold]Outcome[/]   {state.message}", highlight=False)
    summary.show_server(console, server)


def forecast(data: DataSettings, training: TrainingSettings, out: Path | None) -> None:
    """Forecast with the champion of each model."""
    check_out(out)
    check(data, training)
    parts = stored_parts(data, training)
    _quiet()
    with prefect_server() as server:
        batches = [forecast_flow(part, training) for part in parts]
    for batch in batches:
        summary.show_forecast(console, batch)
    _export(batches, out)
    summary.show_server(console, server)


def backtest(data: DataSettings, request: BacktestSettings) -> None:
    """Test the forecasters on the past; `data` is brought in up to the end of the test, and not beyond it."""
    check_backtest(data, request)
    _quiet()
    with prefect_server() as server:
        result = backtest_flow(data.model_copy(update={"as_of": request.test_end}), request)
    summary.show_backtest(console, result)
    summary.show_server(console, server)


def up(data: DataSettings, training: TrainingSettings, options: ServerOptions, began: float) -> None:
    """Server, worker and deployments, until Ctrl-C; `began` is when the command did, on the monotonic clock."""
    check(data, training)
    require_ahead(training)
    _quiet()
    stay_up(console, Served(data, training), options, began)


def deploy(data: DataSettings, training: TrainingSettings, pool: str, image: str | None) -> None:
    """prefect.yaml and the alerts, onto a server that is up."""
    training.make()
    require_ahead(training)
    _quiet()
    deploy_to(console, Served(data, training), pool=pool, image=image)


def list_models(data: DataSettings) -> None:
    """Print every version of every model."""
    summary.show_models(console, root_of(data.store, data.source))


def show_models(data: DataSettings, name: str) -> None:
    """Print the lineage of one model's newest forecast, or of each model's."""
    root = root_of(data.store, data.source)
    names = [name] if name else ArtifactStore(open_store(root)).names("model")
    for each in names:
        summary.show_lineage(console, root, each)
    if not names:
        summary.show_models(console, root)


def promote(data: DataSettings, name: str, version: int, reason: str) -> None:
    """Let a version forecast; it works when Prefect is down, too."""
    root = root_of(data.store, data.source)
    _tell_move(root, move_champion.promote(root, name, version, reason))


def roll_back(data: DataSettings, name: str, reason: str) -> None:
    """Go back one version; it works when Prefect is down, too."""
    root = root_of(data.store, data.source)
    _tell_move(root, move_champion.roll_back(root, name, reason))


def verify(store: str) -> bool:
    """Print what is wrong in a store, a line each; whether nothing is damaged."""
    findings = list(find_faults(store))
    for finding in findings:
        console.print(finding.words, markup=False)
    damaged = sum(finding.damage for finding in findings)
    console.print(f"{damaged} faults found." if damaged else "Everything that is stored is as it was written.")
    return not damaged


def gc(store: str, keep_versions: int, dry_run: bool) -> None:
    """Take away what nothing needs any more, and say how much that was."""
    garbage = collect_garbage(store, keep_versions=keep_versions, dry_run=dry_run)
    for url in garbage if dry_run else ():
        console.print(url, markup=False)
    done = "Would remove" if dry_run else "Removed"
    console.print(f"{done} {len(garbage):,} files, {sum(garbage.values()) / 1e6:,.1f} MB.")


def _data_settings(
    source: str, tickers: str, store: str, as_of: datetime | None, events: str | None = None
) -> DataSettings:
    wanted = tuple(dict.fromkeys(ticker.strip().upper() for ticker in tickers.split(",") if ticker.strip()))
    until = as_of.date() if as_of else None
    return DataSettings(source=source, events=events, tickers=wanted, store=store, as_of=until)


def _tell_move(root: str, entry: AliasEntry) -> None:
    """To the person, and to a server that is up, which starts a forecast."""
    console.print(move_champion.move_words(entry), markup=False)
    with present_server() as server:
        if server is None:
            console.print("To publish a forecast by it before the next daily run: volcast forecast")
        else:
            move_champion.tell_move(root, entry)
            console.print(f"Prefect at {server.ui_url} was told, and starts `forecast` if it is deployed there.")


def _export(batches: Sequence[ForecastBatch], out: Path | None) -> None:
    if out is not None:
        console.print(f"          {write_forecasts(batches, out)} rows in {out}")


def _quiet() -> None:
    if not os.environ.get("VOLCAST_DEBUG"):
        quiet_console()
