"""Move the champion of a model by hand: to a chosen version, or back to the one that forecast before.

version, or the alias's history -> a new entry of the alias -> status
"""

from prefect import flow

from volcast.storage.records import AliasEntry
from volcast.tasks.gate import Reason, VersionNumber, move_words, promote_version, roll_back_version
from volcast.tasks.reports.publish import publish_models, refresh_status
from volcast.tasks.run_tools import complete
from volcast.tasks.settings import DEFAULT_STORE, Location


@flow(flow_run_name="promote {model} v{version}")
def promote(model: str, version: VersionNumber, reason: Reason, store: Location = DEFAULT_STORE) -> AliasEntry:
    """Let a chosen version of a model forecast, from the next forecast on, whatever its scorecard says.

    The artifact volcast-models compares the versions there are.

    Args:
        model: The model's name, such as volume or tutorial.SBUX; the artifact volcast-models shows them
        version: The version that is to forecast; the artifact volcast-models has the scores of each
        reason: Why; it stays on record beside the move
        store: Where the model is kept: the store, or its folder of a simulated exchange or of another calendar
    """
    entry = promote_version(store, model, version, reason)
    publish_models(store)
    refresh_status(store)
    return complete(entry, move_words(entry))


@flow(flow_run_name="rollback {model}")
def rollback(model: str, reason: Reason, store: Location = DEFAULT_STORE) -> AliasEntry:
    """Let the version forecast again that did so before the present one came; its forecasts are as they were.

    The artifact volcast-models says which one that is, and compares the versions.

    Args:
        model: The model's name, such as volume or tutorial.SBUX; the artifact volcast-models shows them
        reason: Why; it stays on record beside the move
        store: Where the model is kept: the store, or its folder of a simulated exchange or of another calendar
    """
    entry = roll_back_version(store, model, reason)
    publish_models(store)
    refresh_status(store)
    return complete(entry, move_words(entry))
