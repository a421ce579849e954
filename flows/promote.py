"""Let a chosen version of a model forecast, whatever its scorecard says.

version -> a new entry of the alias
"""

from prefect import flow

from storage.records import AliasEntry
from tasks.move_champion import ModelName, Reason, SourceSpec, StoreUrl, VersionNumber, promote_version
from tasks.plan_ingest import root_of
from tasks.settings import DEFAULT_STORE


@flow(flow_run_name="promote {model} v{version}")
def promote(
    model: ModelName,
    version: VersionNumber,
    reason: Reason,
    source: SourceSpec = "stored",
    store: StoreUrl = DEFAULT_STORE,
) -> AliasEntry:
    """Let this version forecast, from the next forecast on."""
    return promote_version(root_of(store, source), model, version, reason)
