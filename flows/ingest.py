"""Bring the stored prices up to the last closed session.

source -> fetch -> validate -> store -> announcements -> snapshot
                      └-> quarantine
"""

from prefect import flow, unmapped

from storage.records import Snapshot
from tasks.fetch_prices import fetch_prices
from tasks.plan_ingest import plan_ingest
from tasks.record_events import record_events, with_announcements
from tasks.settings import DataSettings
from tasks.store_prices import ingested_part, require_fetched, store_prices
from tasks.take_snapshot import take_snapshot
from tasks.validate_prices import validate_prices


@flow(flow_run_name="ingest {data.label}")
def ingest(data: DataSettings) -> Snapshot:
    """Fetch what the source has, keep the good rows as a version of the prices, and say which rows a run may use."""
    plan = plan_ingest(data)

    fetched = fetch_prices.map(unmapped(plan), plan.batches).result()
    checked = validate_prices.map(unmapped(plan), plan.batches, fetched).result()

    ingested = store_prices(plan, checked)
    require_fetched(plan, fetched, ingested)

    announced = record_events(plan)

    return with_announcements(take_snapshot(ingested_part(data, plan, fetched, ingested)), announced)
