"""Let the automations know of a new version of the prices."""

from prefect.runtime import flow_run

from storage.records import Snapshot
from tasks.events import emit
from tasks.store_prices import Ingested


def announce_prices(snapshot: Snapshot, ingested: Ingested) -> None:
    """The event `volcast.prices.published`, unless nothing is new.

    Its label followed-by says whether the run goes on by itself (daily, pipeline) or leaves the forecast to others.
    """
    if not ingested.inserted + ingested.updated:
        return
    emit(
        "volcast.prices.published",
        snapshot.store,
        words=f"{ingested.words}, to {snapshot.cutoff}",
        labels={"volcast.followed-by": "nothing" if flow_run.parent_flow_run_id is None else "the-run-itself"},
        version=snapshot.prices.version,
        cutoff=str(snapshot.cutoff),
    )
