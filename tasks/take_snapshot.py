"""Fix which rows a run works on: some tickers, one version of the prices, nothing after the cutoff."""

import pandas as pd
from prefect import get_run_logger, task

from storage.errors import NotStored
from storage.prices import PriceTable
from storage.records import ArtifactRef, Snapshot
from storage.store import Store, open_store
from tasks.plan_ingest import last_session, root_of
from tasks.settings import DataSettings


@task(task_run_name="take a snapshot of the prices")
def take_snapshot(data: DataSettings) -> Snapshot:
    """The stored rows that `data` names, as they are now. Raises NotStored when there are none."""
    store = open_store(root_of(data.store, data.source))
    table = PriceTable(store)
    version = table.version()
    if version is None:
        raise NotStored(f"{store.url} holds no prices. Bring some with: volcast ingest --source … --store {data.store}")
    tickers = list(data.tickers) or table.tickers(version)
    prices = table.read(tickers, last=last_session(data.as_of), version=version)
    held = set(prices["ticker"])
    lacking = [ticker for ticker in tickers if ticker not in held]
    if lacking:
        until = f" up to {data.as_of}" if data.as_of else ""
        raise NotStored(f"{store.url} holds no prices of {', '.join(lacking)}{until}. Ingest them first.")
    snapshot = Snapshot(
        store=store.url,
        prices=ArtifactRef(kind="prices", name="prices", version=version, digest=table.digest(prices)),
        source=data.source,
        simulated=data.source.startswith("simulated"),
        tickers=tuple(sorted(tickers)),
        first_session=prices["session"].min().date(),
        cutoff=prices["session"].max().date(),
        rows=len(prices),
    )
    get_run_logger().info("prices v%d: %s rows, cutoff %s", version, f"{snapshot.rows:,}", snapshot.cutoff)
    return snapshot


def read_prices(store: Store, snapshot: Snapshot) -> pd.DataFrame:
    """The rows of a snapshot, as `PriceTable.read` gives them."""
    return PriceTable(store).read(list(snapshot.tickers), last=snapshot.cutoff, version=snapshot.prices.version)
