"""Look after what is kept: is all of it as it was written, which tickers are in use, and what may go?"""

import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from getpass import getuser

from prefect import get_run_logger, task

from volcast.models.text import counted, listed
from volcast.storage.artifacts import ArtifactStore, Draft
from volcast.storage.errors import Corrupt
from volcast.storage.integrity import Finding, find_garbage, remove, verify
from volcast.storage.records import Retirement
from volcast.storage.store import Store, open_store
from volcast.tasks.gate import require_reason
from volcast.tasks.preflight import RETIREMENT, kept_roots, require_prices, retirements
from volcast.tasks.run_tools import provenance
from volcast.tasks.settings import DataSettings
from volcast.tasks.stored_models import read_model, read_or_fault

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
        raise Corrupt(f"{counted(len(damaged), 'fault')} found in {store_url}. {listed(damaged, SHOWN, ' ')}")
    get_run_logger().info(undamaged_words(store_url, left_over))
    return left_over


def undamaged_words(store_url: str, left_over: int) -> str:
    """One line for logs and people."""
    words = f"everything in {store_url} is as it was written"
    return words + (f"; {counted(left_over, 'file is', 'files are')} left over, see: volcast gc" if left_over else "")


def retire(data: DataSettings, tickers: Sequence[str], reason: str, *, undo: bool = False) -> list[Retirement]:
    """Put on record that tickers are in use no more, or again, from the close of the session of `data` on.

    Raises NotStored (no prices of one), ValueError (no reason, or one that is so already).
    """
    store, since, reason = open_store(data.root, writable=True), data.session, require_reason(reason)
    require_prices(store, tickers)
    retired = retirements(store)
    if same := sorted(ticker for ticker in tickers if (ticker in retired) is not undo):
        already = "are not retired" if undo else "are retired already; with --undo they are in use again"
        raise ValueError(f"These tickers {already}: {listed(same)}. Nothing was changed.")
    found = []
    for ticker in tickers:
        said = Retirement(ticker=ticker, is_retired=not undo, since=since, by=_user(), reason=reason)
        facts = said.model_dump(mode="json", exclude={"ticker"})
        draft = Draft(kind=RETIREMENT, name=ticker, files={}, facts=facts, provenance=provenance(source=data.source))
        ArtifactStore(store).put(draft)
        found.append(said)
    return found


def _user() -> str:
    """Who runs this; a container may have a number alone."""
    try:
        return getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def collect_garbage(store_url: str, *, keep_versions: int, dry_run: bool) -> dict[str, int]:
    """Take away what nothing needs any more: URL -> bytes. Raises NotStored, Corrupt."""
    found: dict[str, int] = {}
    for root in kept_roots(store_url):
        garbage = find_garbage(root, keep_versions=keep_versions)
        if not dry_run:
            remove(root, garbage)
        found |= {f"{root.url}/{key}": size for key, size in garbage.items()}
    return found
