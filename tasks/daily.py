"""What a daily run works on, whether there is anything for it to do, and how it ended."""

from datetime import date
from typing import Any, cast

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State

from storage.artifacts import ArtifactStore
from storage.errors import NotStored
from storage.ledger import Ledger
from storage.prices import PriceTable
from storage.records import Daily, ForecastBatch, Health
from storage.store import Store, open_store
from tasks.preflight import require_ahead
from tasks.run_tools import emit, ended
from tasks.settings import DataSettings, TrainingSettings, last_session, root_of
from tasks.stored_models import champion_version


def with_stored_tickers(data: DataSettings) -> DataSettings:
    """Where no tickers are asked for, those that are stored; before any are, those that the source holds."""
    table = PriceTable(open_store(root_of(data.store, data.source), writable=True))
    if data.tickers or table.version() is None:
        return data
    return data.model_copy(update={"tickers": tuple(table.tickers())})


def stored_part(data: DataSettings, ingested: State[Any]) -> DataSettings:
    """The tickers that have prices, whether or not the ingest could bring new ones. Raises its error for none."""
    table = PriceTable(open_store(root_of(data.store, data.source)))
    if table.version() is None:
        ingested.result()  # raises what went wrong
        raise NotStored(f"{data.store} holds no prices after an ingest of {data.source}.")
    stored = set(table.tickers())
    if not ingested.is_completed():
        get_run_logger().warning("the ingest failed, and the run goes on with what is stored: %s", ingested.message)
    return data.model_copy(update={"tickers": tuple(t for t in data.tickers or sorted(stored) if t in stored)})


@task(task_run_name="look for anything new on {data.day}")
def find_nothing_new(data: DataSettings, training: TrainingSettings) -> str:
    """Why there is nothing to do, or an empty text.

    That is so when the prices are up to date, the newest forecast of each ticker was made from this version of them, by
    the present champion or in its place, with announced earnings or without as it is asked now, and somebody has looked
    at how things stand since this session.
    """
    require_ahead(training)
    store = open_store(root_of(data.store, data.source))
    session, name = last_session(data.as_of, data.now), training.method().model_name(data.tickers)
    last = PriceTable(store).coverage()["last"].reindex(list(data.tickers)).max().date()
    if last < session or not _is_forecast(store, data, name) or not _is_looked_at(store, name, session):
        return ""
    closed = "" if data.day == session else f"{data.day} is no session. "
    return f"{closed}No session or price is new since {session}, which has been forecast from."


def _is_forecast(store: Store, data: DataSettings, name: str) -> bool:
    ledger = Ledger(store)
    cutoff = ledger.newest_cutoff(name)
    if cutoff is None or cutoff < last_session(data.as_of, data.now):
        return False
    artifacts, prices = ArtifactStore(store), PriceTable(store).version()
    present, is_current = champion_version(artifacts, name), dict[str, bool]()
    for version, rows in ledger.forecasts(name, first=cutoff).groupby("version"):  # a later one replaces it
        facts: dict[str, Any] = artifacts.get("forecast", name, cast(int, version)).facts
        used = rows["model_version"].dropna().unique().tolist()
        same_champion = used == ([] if present is None else [present])
        same_earnings = facts.get("uses_earnings", True) == data.uses_earnings
        is_same = same_champion and same_earnings and rows["prices_version"].iloc[0] == prices
        is_current |= dict.fromkeys(facts.get("asked_for", data.tickers), is_same)
    return all(is_current.get(ticker, False) for ticker in data.tickers)


def _is_looked_at(store: Store, name: str, session: date) -> bool:
    newest = ArtifactStore(store).newest("health", name)
    return newest is not None and newest.fact("session") == str(session)


def skipped_day(data: DataSettings, why: str) -> Daily:
    """The early return of a day on which nothing is new."""
    words = f"Skipped: {why}"
    get_run_logger().info(words)
    _tell_end(data, words)
    return ended(Daily(batch=None, health=None, skipped=why), words, "skipped")


def ended_day(data: DataSettings, batch: ForecastBatch, health: Health) -> Daily:
    """The final state, with what was published and what is to be known."""
    message = f"{batch.artifact} by {batch.author}; {health.words}"
    _tell_end(data, message)
    return ended(Daily(batch=batch, health=health), message, _outcome(health))


def ended_look(health: Health) -> Health:
    """The final state of a look at how things stand."""
    return ended(health, health.words, _outcome(health))


def _outcome(health: Health) -> str:
    return "needs a person" if health.needs_person else ""


def _tell_end(data: DataSettings, words: str) -> None:
    """The sign of life that an alert waits for."""
    emit("volcast.day.ended", open_store(root_of(data.store, data.source)).url, words=words)
