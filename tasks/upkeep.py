"""Look after what is kept: is all of it as it was written, and what may go?"""

from collections.abc import Iterator

from storage.errors import NotStored
from storage.retention import find_garbage, remove
from storage.store import Store, open_store
from storage.verify import TABLES, Finding, verify
from tasks.plan_ingest import SIMULATED_FOLDER

KEPT = {*TABLES, "artifacts", "blobs", "aliases", "staging"}


def find_faults(store_url: str) -> Iterator[Finding]:
    """What is wrong in the store and in the simulated exchanges inside it. Raises NotStored where nothing is kept."""
    for root in _roots(store_url):
        yield from verify(root)


def collect_garbage(store_url: str, *, keep_versions: int, dry_run: bool) -> dict[str, int]:
    """Take away what nothing needs any more: URL -> bytes. Raises NotStored, Corrupt."""
    found: dict[str, int] = {}
    for root in _roots(store_url):
        garbage = find_garbage(root, keep_versions=keep_versions)
        if not dry_run:
            remove(root, garbage)
        found |= {f"{root.url}/{key}": size for key, size in garbage.items()}
    return found


def _roots(store_url: str) -> list[Store]:
    top = open_store(store_url)
    inside = _folders(top)
    simulated = sorted(folder for folder in inside if folder.startswith(SIMULATED_FOLDER))
    roots = [top, *(open_store(f"{top.url}/{folder}") for folder in simulated)]
    if not simulated and inside.isdisjoint(KEPT):
        raise NotStored(f"{top.url} holds nothing of volcast's. Give the right one with: --store")
    return roots


def _folders(store: Store) -> set[str]:
    return {prefix.rsplit("/", 1)[-1] for prefix in store.objects.list_with_delimiter()["common_prefixes"]}
