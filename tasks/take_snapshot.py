"""Fix which rows a run works on: some tickers, one version of the prices, nothing after the cutoff."""

import pandas as pd
from prefect import get_run_logger, task

from models.words import listed
from storage.errors import NotStored
from storage.prices import PriceTable
from storage.records import ArtifactRef, PriceCounts, Snapshot
from storage.store import Store, open_store
from tasks.settings import DataSettings, last_session, root_of


@task(task_run_name="take a snapshot of the prices")
def take_snapshot(data: DataSettings, counts: PriceCounts | None = None) -> Snapshot:
    """The stored rows that `data` names, as they are now. Raises NotStored when there are none."""
    store = open_store(root_of(data.store, data.source))
    table = PriceTable(store)
    version = table.version()
    if version is None:
        raise NotStored(f"{store.url} holds no prices. Bring some with: volcast ingest --source … --store {data.store}")
    tickers = list(data.tickers) or table.tickers(version)
    rows = table.describe(tickers, last=last_session(data.as_of, data.now), version=version)
    lacking = sorted(set(tickers) - set(rows.tickers))
    if lacking or rows.first_session is None or rows.last_session is None:
        until = f" up to {data.as_of}" if data.as_of else ""
        raise NotStored(f"{store.url} holds no prices of {listed(lacking)}{until}. Ingest them first.")
    snapshot = Snapshot(
        store=store.url,
        prices=ArtifactRef(kind="prices", name="prices", version=version, digest=rows.digest),
        source=data.source,
        simulated=data.source.startswith("simulated"),
        tickers=rows.tickers,
        first_session=rows.first_session,
        cutoff=rows.last_session,
        rows=rows.rows,
        counts=counts,
    )
    get_run_logger().info("prices v%d: %s rows, cutoff %s", version, f"{snapshot.rows:,}", snapshot.cutoff)
    return snapshot


def read_prices(store: Store, snapshot: Snapshot) -> pd.DataFrame:
    """The rows of a snapshot, as `PriceTable.read` gives them."""
    return PriceTable(store).read(list(snapshot.tickers), last=snapshot.cutoff, version=snapshot.prices.version)
