"""Go back to the version of a model that forecast before the present one came.

alias's history -> the version before -> a new entry of the alias
"""

from prefect import flow

from storage.records import AliasEntry
from tasks.move_champion import ModelName, Reason, SourceSpec, StoreUrl, roll_back_version
from tasks.plan_ingest import root_of
from tasks.settings import DEFAULT_STORE


@flow(flow_run_name="rollback {model}")
def rollback(
    model: ModelName, reason: Reason, source: SourceSpec = "stored", store: StoreUrl = DEFAULT_STORE
) -> AliasEntry:
    """Let the earlier version forecast again; its forecasts are the same as they were, bit for bit."""
    return roll_back_version(root_of(store, source), model, reason)
