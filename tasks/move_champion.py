"""Put another version of a model in the champion's place, by hand: forward to a chosen one, or back to the one before.

The alias is only ever appended to, so that every move stays on record with its reason.
"""

from typing import Annotated

from prefect import get_run_logger, task
from pydantic import Field, StringConstraints

from storage.records import AliasEntry
from storage.store import open_store
from tasks.events import emit
from tasks.preflight import artifacts_of
from tasks.stored import CHAMPION, champion_version

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"\S")]
VersionNumber = Annotated[int, Field(ge=1)]


class AlreadyChampion(ValueError):
    """The version that was to be promoted forecasts already; nothing was changed."""


def promote(root: str, model: str, version: int, reason: str) -> AliasEntry:
    """Let a stored version forecast. Raises NotStored, AlreadyChampion, ValueError (no reason)."""
    artifacts = artifacts_of(root, model, writable=True)
    if champion_version(artifacts, model) == version:
        raise AlreadyChampion(f"{model} v{version} is the {CHAMPION} already; nothing was changed.")
    return artifacts.set_alias("model", model, CHAMPION, version, _stated(reason))


def roll_back(root: str, model: str, reason: str) -> AliasEntry:
    """Let the version forecast that did so before the present one came. Raises NotStored, ValueError (no reason)."""
    return artifacts_of(root, model, writable=True).roll_back("model", model, CHAMPION, _stated(reason))


@task(task_run_name="promote {model} v{version}")
def promote_version(root: str, model: str, version: int, reason: str) -> AliasEntry:
    """`promote`, with a line in the run's log, and told to the server."""
    return _logged(root, promote(root, model, version, reason))


@task(task_run_name="roll {model} back")
def roll_back_version(root: str, model: str, reason: str) -> AliasEntry:
    """`roll_back`, with a line in the run's log, and told to the server."""
    return _logged(root, roll_back(root, model, reason))


def tell_move(root: str, entry: AliasEntry) -> None:
    """Send the event that starts the deployment `forecast`, so that the version forecasts at once."""
    words, url = move_words(entry), open_store(root).url
    emit("volcast.champion.moved", url, words=words, model=entry.name, version=entry.version)


def move_words(entry: AliasEntry) -> str:
    """One line for logs and people."""
    return f"{entry.name} v{entry.version} forecasts since {entry.set_at:%Y-%m-%d %H:%M} UTC. {entry.reason}"


def _stated(reason: str) -> str:
    if not reason.strip():
        raise ValueError("A move of the champion needs a reason; it stays on record. Give one with: --reason")
    return reason.strip()


def _logged(root: str, entry: AliasEntry) -> AliasEntry:
    get_run_logger().info(move_words(entry))
    tell_move(root, entry)
    return entry
