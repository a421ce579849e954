"""Find a mistake in a request before a server is started for it; the flows check the same things again."""

from datetime import UTC, datetime

from models.devices import choose_device
from models.errors import ImpossibleTest
from storage.errors import NotStored
from storage.prices import PriceTable
from storage.store import open_store
from tasks.export import check_out
from tasks.plan_ingest import SIMULATED_FOLDER, last_session, require_event_source, root_of
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
    open_store(root_of(data.store, data.source), writable=True)


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
    store = open_store(store_url)
    if PriceTable(store).version() is not None:
        return STORED
    folders = [prefix.rsplit("/", 1)[-1] for prefix in store.objects.list_with_delimiter()["common_prefixes"]]
    simulated = sorted(folder for folder in folders if folder.startswith(SIMULATED_FOLDER))
    if not simulated:
        raise NotStored(f"{store.url} holds no prices. Bring some with: volcast ingest --source … --store {store_url}")
    if len(simulated) > 1:
        specs = ", ".join(folder.replace(SIMULATED_FOLDER, "simulated:") for folder in simulated)
        raise NotStored(f"{store.url} holds several simulated exchanges; say which by --source: {specs}.")
    return simulated[0].replace(SIMULATED_FOLDER, "simulated:")
