"""Score every forecast in the ledger whose target session has come."""

from datetime import UTC, datetime

import pandas as pd
from prefect import get_run_logger, task

from models.live_scores import score_forecasts as scores_of
from models.sessions import session_before
from storage.ledger import Ledger
from storage.prices import PriceTable
from storage.records import Snapshot
from storage.schemas import SCORES
from storage.store import open_store

LOOK_BACK = 63  # sessions: an actual that comes later than a quarter is not waited for


@task(task_run_name="score the forecasts of sessions up to {snapshot.cutoff}")
def score_forecasts(snapshot: Snapshot) -> int:
    """How many scores are new. The volume is the one known now; a later restatement does not change a score."""
    store = open_store(snapshot.store, writable=True)
    ledger = Ledger(store)
    pending = ledger.pending(first=session_before(snapshot.cutoff, LOOK_BACK), last=snapshot.cutoff)
    added = 0
    if len(pending):
        prices = PriceTable(store).read(
            list(pending["ticker"].unique()),
            first=pending["cutoff"].min().date(),
            last=snapshot.cutoff,
            version=snapshot.prices.version,
        )
        rows = scores_of(pending, prices).assign(
            prices_version=snapshot.prices.version, scored_at=pd.Timestamp(datetime.now(UTC))
        )
        added = ledger.record_scores(rows.loc[:, SCORES.names])
    get_run_logger().info("%d scores new, of %d forecasts of sessions up to %s", added, len(pending), snapshot.cutoff)
    return added
