"""What a daily run and a run of the whole pipeline work on, and how they finish.

A daily run forecasts the stored tickers, unless nothing is new. A pipeline run divides its tickers into models, and one
of these that fails stops no other.
"""

import os
import time
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from prefect import Flow, State, get_run_logger, task
from prefect.client.schemas.objects import FlowRun
from prefect.logging.loggers import flow_run_logger

from volcast.models.errors import ModelError
from volcast.models.text import counted, listed
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.errors import NotStored
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.storage.records import Daily, ForecastBatch, Health, PipelineResult, Report, Scorecard, Snapshot
from volcast.storage.store import Store, open_store
from volcast.tasks.preflight import require_ahead, tickers_in_use
from volcast.tasks.run_tools import attempt, complete, emit, store_label
from volcast.tasks.settings import DataSettings, TrainingSettings
from volcast.tasks.stored_models import find_champion, read_or_fault


def with_stored_tickers(data: DataSettings) -> DataSettings:
    """Where no tickers are asked for, those that are in use; before any are stored, those that the source holds."""
    store = open_store(data.root, writable=True)
    if data.tickers or PriceTable(store).version() is None:
        return data
    return data.model_copy(update={"tickers": tuple(tickers_in_use(store, data.session))})


def stored_only(data: DataSettings, ingested: Snapshot | Exception) -> DataSettings:
    """The tickers that have prices, whether or not the ingest could bring new ones. Raises its error for none."""
    store = open_store(data.root)
    table = PriceTable(store)
    if table.version() is None:
        if isinstance(ingested, Exception):
            raise ingested
        raise NotStored(f"{data.store} holds no prices after an ingest of {data.source}.")
    stored, asked = set(table.tickers()), data.tickers or tickers_in_use(store, data.session)
    if isinstance(ingested, Exception):
        get_run_logger().warning("the ingest failed, and the run goes on with what is stored: %s", ingested)
    return data.model_copy(update={"tickers": tuple(ticker for ticker in asked if ticker in stored)})


@task(task_run_name="look for anything new on {data.day}")
def find_nothing_new(data: DataSettings, training: TrainingSettings) -> str:
    """Why there is nothing to do, or an empty text.

    That is so when the prices are up to date, the newest forecast of each ticker was made from this version of them, by
    the present champion or in its place, with announced earnings or without as it is asked now, and somebody has looked
    at how things stand since this session.
    """
    require_ahead(training)
    store = open_store(data.root)
    session, name = data.session, training.method().model_name(data.tickers)
    last = PriceTable(store).coverage()["last"].reindex(list(data.tickers)).max().date()
    if last < session or not _is_forecast(store, data, name) or not _is_looked_at(store, name, session):
        return ""
    closed = "" if data.day == session else f"{data.day} is no session. "
    return f"{closed}No session or price is new since {session}, which has been forecast from."


def _is_forecast(store: Store, data: DataSettings, name: str) -> bool:
    ledger = Ledger(store)
    cutoff = ledger.newest_cutoff(name)
    if cutoff is None or cutoff < data.session:
        return False
    artifacts, prices, is_current = ArtifactStore(store), PriceTable(store).version(), dict[str, bool]()
    champion = find_champion(artifacts, name).model
    present = champion and champion.artifact.version
    for version, rows in ledger.forecasts(name, first=cutoff).groupby("version"):  # a later one replaces it
        manifest, _ = read_or_fault(partial(artifacts.get, "forecast", name, cast(int, version)))
        if manifest is None:
            return False
        facts: dict[str, Any] = manifest.facts
        used = rows["model_version"].dropna().unique().tolist()
        same_champion = used == ([] if present is None else [present])
        same_earnings = facts.get("uses_earnings", True) == data.uses_earnings
        is_same = same_champion and same_earnings and rows["prices_version"].iloc[0] == prices
        is_current |= dict.fromkeys(facts.get("asked_for", data.tickers), is_same)
    return all(is_current.get(ticker, False) for ticker in data.tickers)


def _is_looked_at(store: Store, name: str, session: date) -> bool:
    newest, _ = read_or_fault(partial(ArtifactStore(store).newest, "health", name))
    return newest is not None and newest.fact("session") == str(session)


def skip_day(data: DataSettings, why: str) -> Daily:
    """The early return of a day on which nothing is new."""
    message = f"Skipped: {why}"
    get_run_logger().info(message)
    _signal_life(data, message)
    return complete(Daily(batch=None, health=None, skipped=why), message, "skipped")


def complete_day(data: DataSettings, batch: ForecastBatch, health: Health) -> Daily:
    """The final state, with what was published and what is to be known."""
    message = f"{batch.artifact} by {batch.author}; {health.words}"
    _signal_life(data, message)
    return complete(Daily(batch=batch, health=health), message, _outcome(health))


def complete_monitoring(health: Health) -> Health:
    """The final state, with what is to be known."""
    return complete(health, health.words, _outcome(health))


def _outcome(health: Health) -> str:
    return "needs a person" if health.needs_person else ""


def _signal_life(data: DataSettings, message: str) -> None:
    """The sign of life that an alert waits for."""
    emit("volcast.day.ended", open_store(data.root).url, words=message)


PING_WAITS = (0, 3, 10)  # seconds before each try
PING_SECONDS = 10  # for its answer


def ping(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """A hook of the daily run: tell the monitor at VOLCAST_PING_URL, if any, that it has done its work, or that not.

    Such a monitor (healthchecks.io and its like) raises an alarm where no ping comes in time, and at one to `/fail`.
    The address is a secret, and stays out of the log; a ping that fails changes nothing of the run.
    """
    url, failed = os.environ.get("VOLCAST_PING_URL"), None
    for wait in PING_WAITS if url else ():
        time.sleep(wait)
        if (failed := attempt(_ping, str(url), flow_run, state)) is None:
            break
    if failed:
        flow_run_logger(flow_run, flow).warning(
            "the monitor at VOLCAST_PING_URL was not told: %s", type(failed).__name__
        )


def _ping(url: str, run: FlowRun, state: State) -> None:
    if "{store}" in url:
        data = DataSettings.model_validate(run.parameters["data"])
        url = url.replace("{store}", store_label(open_store(data.root).url))
    parts = urlsplit(url)
    if not state.is_completed():
        parts = parts._replace(path=f"{parts.path.rstrip('/')}/fail")
    with urlopen(Request(urlunsplit(parts), headers={"User-Agent": "volcast"}), timeout=PING_SECONDS):
        """An answer that is no error is all that is wanted."""


class SomeModelsFailed(ModelError):
    """Some of the models failed; `result` holds what the others gave."""

    def __init__(self, message: str, result: PipelineResult) -> None:
        super().__init__(message)
        self.result = result


def data_of_models(data: DataSettings, training: TrainingSettings, snapshot: Snapshot) -> list[DataSettings]:
    """The prices of each model: its tickers, up to the snapshot's cutoff, as the snapshot has them."""
    of_models = training.method().split_tickers(snapshot.tickers)
    same: dict[str, Any] = {"as_of": snapshot.cutoff}
    if data.as_of is None:
        same["prices_version"] = snapshot.prices.version
    return [data.model_copy(update={"tickers": tickers, **same}) for tickers in of_models]


def with_forecaster(
    models: Sequence[DataSettings], training: TrainingSettings, snapshot: Snapshot
) -> list[DataSettings]:
    """Those that can be forecast: by a model, trained now or left from an earlier run, or ahead, by har."""
    artifacts, method = ArtifactStore(open_store(snapshot.store)), training.method()

    def can_forecast(name: str) -> bool:
        har_stands_in = bool(method.horizon and artifacts.versions("scorecard", name))
        return har_stands_in or find_champion(artifacts, name).model is not None

    return [data for data in models if can_forecast(method.model_name(data.tickers))]


def outcomes(
    models: Sequence[DataSettings], retrained: Sequence[Scorecard | Exception], training: TrainingSettings
) -> dict[str, str | Exception]:
    """For each model, by name: how its training ended, in words, or the error of one that failed."""
    names = [training.method().model_name(data.tickers) for data in models]
    return {
        name: each if isinstance(each, Exception) else each.outcome for name, each in zip(names, retrained, strict=True)
    }


def complete_pipeline(
    snapshot: Snapshot, reports: Sequence[Report], trained: Mapping[str, str | Exception]
) -> PipelineResult:
    """The result of the run.

    Raises the error of the only model where it could not be forecast either, else SomeModelsFailed with all errors.
    """
    failed = [outcome for outcome in trained.values() if isinstance(outcome, Exception)]
    if len(failed) == len(trained) == 1 and not reports:
        raise failed[0]
    trainings = {name: str(outcome) for name, outcome in trained.items()}
    result = PipelineResult(snapshot=snapshot, reports=tuple(reports), trainings=trainings)
    if failed:
        why = listed([str(error) for error in failed], 3, " ")
        raise SomeModelsFailed(f"Not trained: {len(failed)} of {counted(len(trained), 'model')}. {why}", result)
    forecasts = [f"{report.batch.artifact} by {report.batch.author}" for report in reports[:3]]
    prices = f"prices v{snapshot.prices.version} to {snapshot.cutoff}"
    trained_so = [outcome.rstrip(".") for outcome in list(trainings.values())[:3]]
    return complete(result, "; ".join([prices, *trained_so, *forecasts]))
