"""Go back to the version of a model that forecast before the present one came.

alias's history -> the version before -> a new entry of the alias
"""

from prefect import flow

from storage.records import AliasEntry
from tasks.ended import ended
from tasks.move_champion import Reason, move_words, roll_back_version
from tasks.settings import DEFAULT_STORE, root_of


@flow(flow_run_name="rollback {model}")
def rollback(model: str, reason: Reason, source: str = "stored", store: str = DEFAULT_STORE) -> AliasEntry:
    """Let the version forecast again that did so before the present one came; its forecasts are as they were.

    Args:
        model: The model's name, such as volume or tutorial.SBUX; `volcast models list` shows them
        reason: Why; it stays on record beside the move
        source: Whose prices the model was trained on: simulated[:SEED], or anything else
        store: The root of everything that is kept: a folder, or s3://, gs://, az://
    """
    entry = roll_back_version(root_of(store, source), model, reason)
    return ended(entry, move_words(entry))
