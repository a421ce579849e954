"""Bring the stored prices up to the last closed session.

source -> fetch and validate -> store -> count -> announcements -> snapshot -> event, status
                                  └-> quarantine, restatements
"""

from prefect import flow, unmapped

from volcast.flows.task_runner import runner
from volcast.storage.records import Snapshot
from volcast.tasks.announcements import record_events
from volcast.tasks.count_prices import count_prices
from volcast.tasks.fetch_prices import fetch_prices
from volcast.tasks.plan_ingest import plan_ingest, record_sources
from volcast.tasks.reports.publish import refresh_status
from volcast.tasks.settings import DataSettings
from volcast.tasks.snapshot import take_snapshot
from volcast.tasks.store_prices import announce_prices, finish_ingest, ingested_part, require_fetched, store_prices

AT_ONCE = 4  # batches in memory; at 6,700 tickers one has 2.5 M rows


@flow(flow_run_name="ingest {data.label} {data.day}", task_runner=runner(at_once=AT_ONCE))
def ingest(data: DataSettings) -> Snapshot:
    """Fetch what the source has, keep the good rows as a version of the prices, and say which rows a run may use."""
    plan = plan_ingest(data)

    fetched = fetch_prices.map(unmapped(plan), plan.batches).result()
    ingested = store_prices(plan, fetched)
    counts = count_prices(plan, ingested)
    require_fetched(plan, ingested, counts)

    announced = record_events(plan)
    record_sources(data, plan)

    snapshot = take_snapshot(ingested_part(data, plan, ingested), counts)
    announce_prices(snapshot, ingested)
    refresh_status(plan.root, data.session)
    return finish_ingest(ingested, snapshot, announced)
