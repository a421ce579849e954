"""What the commands do: check the request, find or start a server, run flows, say how it went.

What is heavy is imported by the command that needs it, after the request has been checked.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from flows.server import ServerError, ServerOptions
from models.errors import ImpossibleTest, ModelError, UnknownRecipe
from models.text import brief
from storage.artifacts import ArtifactStore
from storage.errors import StoreError
from storage.records import AliasEntry, ForecastBatch, PipelineResult
from storage.store import open_store
from tasks.preflight import (
    PAGE_FORMATS,
    artifacts_of,
    check,
    check_backtest,
    check_out,
    kept_roots,
    last_ingest,
    require_ahead,
    stored_parts,
    stored_source,
    usual_events,
    usual_source,
)
from tasks.settings import (
    BacktestSettings,
    DataSettings,
    RetrainSettings,
    TrainingSettings,
    WatchSettings,
    last_session,
    root_of,
)
from tasks.sources.registry import open_source
from tasks.sources.source import SourceError, UnknownSource

if TYPE_CHECKING:
    from flows.server import Server

EXPECTED = (ModelError, StoreError, SourceError, ServerError, ValueError, OSError)
MISTAKES = (ImpossibleTest, UnknownRecipe, UnknownSource, ValidationError)  # of the request itself: exit 2


console = Console(highlight=False, soft_wrap=True)


def data_settings(
    source: str | None,
    tickers: str,
    store: str,
    as_of: datetime | None,
    events: str | None = None,
    **more: Any,
) -> DataSettings:
    """The settings of a command that brings prices in; from where the store's came before, unless told otherwise."""
    data = _data_settings(source or usual_source(store), tickers, store, as_of, events, **more)
    data = data if data.events else data.model_copy(update={"events": usual_events(data)})
    if source is None:
        _say_source(data)
    return data


def stored_data_settings(
    source: str | None, tickers: str, store: str, as_of: datetime | None, events: str | None = None
) -> DataSettings:
    """The settings of a command that works on stored prices: simulated ones on request, or where no real ones are."""
    return _data_settings(stored_source(store, source), tickers, store, as_of, events)


def training_settings(recipe: str, sessions: str = "253", **settings: Any) -> TrainingSettings:
    """The settings of a training; `sessions` is a number or `all`."""
    if sessions != "all" and not re.fullmatch("[0-9]{1,9}", sessions):
        raise UnknownRecipe(f"--sessions must be a whole number or 'all'; {brief(sessions)} came.")
    return TrainingSettings(recipe=recipe, window_sessions=None if sessions == "all" else int(sessions), **settings)


def recipe_settings(given: Sequence[str]) -> dict[str, Any]:
    """Settings of a recipe from NAME=VALUE, the value as JSON or else a word."""
    found: dict[str, Any] = {}
    for each in given:
        name, _, value = (word.strip() for word in each.partition("="))
        if not (name and value):
            raise UnknownRecipe(f"--set must be NAME=VALUE, such as steps=1000; {brief(each)} came.")
        try:
            found[name] = json.loads(value)
        except ValueError:  # a word, or an integer of more digits than Python reads
            found[name] = value
        except RecursionError:
            found[name] = {}
        members = found[name] if isinstance(found[name], list) else [found[name]]
        if any(isinstance(member, list | dict) for member in members):
            expected = "expected a number, a word or a list of them"
            raise UnknownRecipe(f"--set {brief(name)}: {expected}; {brief(value)} came.")
    return found


def run(data: DataSettings, training: TrainingSettings, why: RetrainSettings, out: Path | None) -> None:
    """Ingest, retrain, forecast, report; then a summary. Raises SomeModelsFailed after the summary of the others."""
    check_out(out)
    check(data, training)
    from flows import summary
    from flows.pipeline import pipeline
    from tasks.runs import SomeModelsFailed

    failed: SomeModelsFailed | None = None
    with _server() as server:
        try:
            result: PipelineResult = pipeline(data, training, why)
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
    from flows import summary
    from flows.ingest import ingest as ingest_flow
    from tasks.fetch_prices import FetchFailed

    try:
        with _server() as server:
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
    from flows import summary
    from flows.daily import daily as daily_flow

    with _server() as server:
        result = daily_flow(data, training, watch)
    summary.show_daily(console, result)
    summary.show_server(console, server)


def monitor(data: DataSettings, training: TrainingSettings, watch: WatchSettings) -> None:
    """Score what came true and look at everything; then what is to be known."""
    check(data, training)
    require_ahead(training)
    from flows import summary
    from flows.monitor import monitor as monitor_flow

    with _server() as server:
        health = monitor_flow(data, training, watch)
    summary.show_health(console, health)
    summary.show_server(console, server)


def status(data: DataSettings) -> bool:
    """Print what is stored and how it stands, without a server; whether nobody has to do anything."""
    from flows import summary
    from tasks.count_prices import status_of
    from tasks.monitor import present_health

    root = root_of(data.store, data.source)
    counts = status_of(root, data.tickers, last_session(None, data.now))
    summary.show_status(console, root, counts)
    health = present_health(data)
    summary.show_health(console, health)
    return not health.needs_person


def report(data: DataSettings, out: Path) -> None:
    """Write the page, without a server."""
    check_out(out, PAGE_FORMATS)
    from flows import summary
    from tasks.reports.page import page

    out.write_text(page(data), encoding="utf-8")
    console.print(f"The page is {summary.nice_path(str(out.resolve()))}", markup=False)


def quarantine(data: DataSettings, limit: int) -> None:
    """Print the newest quarantined rows, without a server."""
    from flows import summary
    from tasks.count_prices import quarantined_rows

    root = root_of(data.store, data.source)
    summary.show_quarantine(console, root, *quarantined_rows(root, data.tickers, limit))


def retrain(data: DataSettings, training: TrainingSettings, why: RetrainSettings) -> None:
    """Train each model of the stored tickers; then its scorecard, and what became of it."""
    check(data, training)
    from flows import summary
    from flows.retrain import retrain as retrain_flow

    parts = stored_parts(data, training)
    with _server() as server:
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
    from flows import summary
    from flows.forecast import forecast as forecast_flow

    parts = stored_parts(data, training)
    with _server() as server:
        batches = [forecast_flow(part, training) for part in parts]
    for batch in batches:
        summary.show_forecast(console, batch)
    _export(batches, out)
    summary.show_server(console, server)


def backtest(data: DataSettings, request: BacktestSettings) -> None:
    """Test the forecasters on the past; `data` is brought in up to the end of the test, and not beyond it."""
    check_backtest(data, request)
    from flows import summary
    from flows.backtest import backtest as backtest_flow

    with _server() as server:
        result = backtest_flow(data.model_copy(update={"as_of": request.test_end}), request)
    summary.show_backtest(console, result)
    summary.show_server(console, server)


def up(data: DataSettings, training: TrainingSettings, options: ServerOptions, began: float) -> None:
    """Server, worker and deployments, until Ctrl-C; `began` is when the command did, on the monotonic clock."""
    check(data, training)
    require_ahead(training)
    _quiet()
    from flows.deploy import Served
    from flows.up import stay_up

    stay_up(console, Served(data, training), options, began)


def deploy(data: DataSettings, training: TrainingSettings, pool: str, image: str | None) -> None:
    """prefect.yaml and the alerts, onto a server that is up."""
    open_source(data.source)  # what it holds may be seen only from where the runs are
    training.make()
    require_ahead(training)
    _quiet()
    from flows.deploy import Served
    from flows.up import deploy_to

    deploy_to(console, Served(data, training), pool=pool, image=image)


def list_models(data: DataSettings) -> None:
    """Print every version of every model."""
    from flows import summary

    summary.show_models(console, root_of(data.store, data.source))


def show_models(data: DataSettings, name: str) -> None:
    """Print the lineage of one model's newest forecast, or of each model's."""
    root = root_of(data.store, data.source)
    if name:
        artifacts_of(root, name, kinds=("model", "forecast"))
    from flows import summary

    names = [name] if name else ArtifactStore(open_store(root)).names("model")
    for each in names:
        summary.show_lineage(console, root, each)
    if not names:
        summary.show_models(console, root)


def promote(data: DataSettings, name: str, version: int, reason: str) -> None:
    """Let a version forecast; it works when Prefect is down, too."""
    root = root_of(data.store, data.source)
    artifacts_of(root, name)
    from tasks import gate

    _tell_move(root, gate.promote(root, name, version, reason))


def roll_back(data: DataSettings, name: str, reason: str) -> None:
    """Go back one version; it works when Prefect is down, too."""
    root = root_of(data.store, data.source)
    artifacts_of(root, name)
    from tasks import gate

    _tell_move(root, gate.roll_back(root, name, reason))


def verify(store: str) -> bool:
    """Print what is wrong in a store, a line each; whether nothing is damaged."""
    kept_roots(store)
    from tasks.maintenance import find_faults

    findings = list(find_faults(store))
    for finding in findings:
        console.print(finding.words, markup=False)
    damaged = sum(finding.damage for finding in findings)
    console.print(f"{damaged} faults found." if damaged else "Everything that is stored is as it was written.")
    return not damaged


def gc(store: str, keep_versions: int, dry_run: bool) -> None:
    """Take away what nothing needs any more, and say how much that was."""
    kept_roots(store)
    from tasks.maintenance import collect_garbage

    garbage = collect_garbage(store, keep_versions=keep_versions, dry_run=dry_run)
    for url in garbage if dry_run else ():
        console.print(url, markup=False)
    done = "Would remove" if dry_run else "Removed"
    console.print(f"{done} {len(garbage):,} files, {sum(garbage.values()) / 1e6:,.1f} MB.")


def _data_settings(
    source: str, tickers: str, store: str, as_of: datetime | None, events: str | None = None, **more: Any
) -> DataSettings:
    wanted = tuple(dict.fromkeys(ticker.strip().upper() for ticker in tickers.split(",") if ticker.strip()))
    until = as_of.date() if as_of else None
    return DataSettings(source=source, events=events, tickers=wanted, store=store, as_of=until, **more)


def _say_source(data: DataSettings) -> None:
    """Where an ingest's prices come from that did not say it."""
    known = last_ingest(root_of(data.store, data.source)) is not None
    why = "as they last did" if known else "the store is empty" if data.source == "simulated" else "what it holds"
    told = f"{data.source}, announcements of {data.event_source}, for {data.store}: {why}; another by --source"
    console.print(f"[bold]Source[/]    {escape(told)}")


def _tell_move(root: str, entry: AliasEntry) -> None:
    """To the person, and to a server that is up, which starts a forecast."""
    from flows.server import present_server
    from tasks import gate

    console.print(gate.move_words(entry), markup=False)
    with present_server() as server:
        if server is None:
            console.print("To publish a forecast by it before the next daily run: volcast forecast")
        else:
            gate.tell_move(root, entry)
            console.print(f"Prefect at {server.ui_url} was told, and starts `forecast` if it is deployed there.")


def _export(batches: Sequence[ForecastBatch], out: Path | None) -> None:
    if out is not None:
        from tasks.forecast import write_forecasts

        console.print(f"          {write_forecasts(batches, out)} rows in {out}")


@contextmanager
def _server() -> "Iterator[Server]":
    """Prefect's server for the length of a command, whose log is quiet."""
    from flows.server import prefect_server

    _quiet()
    with prefect_server() as server:
        yield server


def _quiet() -> None:
    if not os.environ.get("VOLCAST_DEBUG"):
        from flows.prefect_processes import quiet_console

        quiet_console()
