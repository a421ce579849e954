"""Look after what is kept: is all of it as it was written, and what may go?"""

import re
from collections.abc import Iterator
from functools import partial

from prefect import get_run_logger, task

from models.text import listed
from storage.artifacts import ArtifactStore
from storage.errors import Corrupt
from storage.integrity import Finding, find_garbage, remove, verify
from storage.store import Store
from tasks.preflight import kept_roots
from tasks.stored_models import read_model, read_or_fault

SHOWN = 5  # findings in the message of a failed run; the log has them all


def find_faults(store_url: str) -> Iterator[Finding]:
    """What is wrong in the store and in the simulated exchanges inside it; a model must also load by its recipe.

    Raises NotStored where nothing is kept, StoreUnreachable.
    """
    for root in kept_roots(store_url):
        named = list[str]()
        for finding in verify(root):
            named.append(finding.words)
            yield finding
        for model, fault in _unusable_models(root):
            if not any(re.match(rf"{re.escape(model)}\b", words) for words in named):  # it, or a file of it
                yield Finding(f"{model}: {fault} Train another one, and let that forecast.")


def _unusable_models(store: Store) -> Iterator[tuple[str, str]]:
    """Each version of a model that cannot be loaded, and why. Raises StoreUnreachable."""
    artifacts = ArtifactStore(store)
    versions, _ = read_or_fault(
        lambda: [(name, version) for name in artifacts.names("model") for version in artifacts.versions("model", name)]
    )
    for name, version in versions or ():  # none where they cannot be listed, which `verify` has named
        _, fault = read_or_fault(partial(read_model, artifacts, name, version))
        if fault:
            yield f"model {name} v{version}", fault


@task(task_run_name="verify what is stored")
def require_undamaged(store_url: str) -> int:
    """Logs each finding; gives how many are only left over. Raises NotStored, Corrupt (something is damaged)."""
    damaged: list[str] = []
    left_over = 0
    for finding in find_faults(store_url):
        get_run_logger().warning(finding.words)
        left_over += not finding.damage
        damaged += [finding.words] if finding.damage else []
    if damaged:
        raise Corrupt(f"{len(damaged)} faults found in {store_url}. {listed(damaged, SHOWN, ' ')}")
    get_run_logger().info(undamaged_words(store_url, left_over))
    return left_over


def undamaged_words(store_url: str, left_over: int) -> str:
    """One line for logs and people."""
    words = f"everything in {store_url} is as it was written"
    return words + (f"; {left_over:,} files are left over, see: volcast gc" if left_over else "")


def collect_garbage(store_url: str, *, keep_versions: int, dry_run: bool) -> dict[str, int]:
    """Take away what nothing needs any more: URL -> bytes. Raises NotStored, Corrupt."""
    found: dict[str, int] = {}
    for root in kept_roots(store_url):
        garbage = find_garbage(root, keep_versions=keep_versions)
        if not dry_run:
            remove(root, garbage)
        found |= {f"{root.url}/{key}": size for key, size in garbage.items()}
    return found
