"""Find a mistake in a request before a server is started for it; the flows check the same things again."""

from datetime import UTC, datetime

from models.devices import choose_device
from models.errors import ImpossibleTest
from storage.errors import NotStored
from storage.prices import PriceTable
from storage.store import open_store
from tasks.export import check_out
from tasks.plan_ingest import (
    SIMULATED_FOLDER,
    last_ingest,
    last_session,
    require_event_source,
    root_of,
    whole_spec,
)
from tasks.settings import BacktestSettings, DataSettings, TrainingSettings
from tasks.sources.registry import open_source

STORED = "stored"  # the source of a run that only uses what the store holds


def check(data: DataSettings, training: TrainingSettings | None = None) -> None:
    """Raises ModelError, SourceError or StoreError for what cannot work."""
    if training is not None:
        training.make()
        choose_device(training.device)
    last_session(data.as_of, data.now)
    if data.source != STORED:
        open_source(data.source).tickers()
        require_event_source(data)
    open_store(root_of(data.store, data.source))


def check_backtest(data: DataSettings, request: BacktestSettings) -> None:
    """Raises what `check` does, ImpossibleTest, and ValueError for a file that cannot be written."""
    request.span(data.day)
    request.recipe()
    check_out(request.out)
    choose_device(request.device)
    today = (data.now or datetime.now(UTC)).date()
    if request.test_end is not None and request.test_end > today:
        raise ImpossibleTest(f"--test-end {request.test_end} is still to come: what is not known cannot be scored.")
    check(data)


def stored_parts(data: DataSettings, training: TrainingSettings) -> list[DataSettings]:
    """`data` for each of its models, of the tickers that are asked for or stored. Raises NotStored."""
    table = PriceTable(open_store(root_of(data.store, data.source)))
    parts = training.method().parts(data.tickers or table.tickers())
    return [data.model_copy(update={"tickers": tickers}) for tickers in parts]


def stored_source(store_url: str) -> str:
    """Whose prices the store holds: real ones before simulated. Raises NotStored for none, or several exchanges."""
    held = _held(store_url)
    if not held:
        raise NotStored(f"{store_url} holds no prices. Bring some with: volcast ingest --source … --store {store_url}")
    if len(held) > 1:
        specs = ", ".join(held)
        raise NotStored(f"{store_url} holds several simulated exchanges; say which by --source: {specs}.")
    return held[0]


def usual_source(store_url: str) -> str:
    """The source of an ingest that names none: the last one's; simulated for an empty store. Raises NotStored."""
    if not _held(store_url):
        return "simulated"
    held = stored_source(store_url)
    if last := last_ingest(root_of(store_url, held)):
        return last.source
    if held == STORED:
        raise NotStored(
            f"{store_url} does not know where its prices came from: release 0.1.0 did not keep it. Say it "
            "once: --source yahoo, or --source files:…"
        )
    return held


def usual_events(data: DataSettings) -> str | None:
    """The source of announcements of an ingest that names none: the last one's, where the prices' source is its own."""
    last = last_ingest(root_of(data.store, data.source))
    return last.events if last and last.source == whole_spec(open_source(data.source).spec) else None


def _held(store_url: str) -> list[str]:
    """The sources whose prices are stored: `stored` for real ones, else a spec for each simulated exchange."""
    store = open_store(store_url)
    if PriceTable(store).version() is not None:
        return [STORED]
    folders = [prefix.rsplit("/", 1)[-1] for prefix in store.objects.list_with_delimiter()["common_prefixes"]]
    simulated = sorted(folder for folder in folders if folder.startswith(SIMULATED_FOLDER))
    return [name.replace(SIMULATED_FOLDER, "simulated:").replace("-shift-", "?shift=") for name in simulated]
