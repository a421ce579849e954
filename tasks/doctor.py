"""Whether what volcast needs is there and works: a check each, which is OK or says what a person has to do."""

import os
import platform
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from volcast.models.plugins import adding_packages
from volcast.models.sessions import session_before
from volcast.models.text import counted, listed
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.errors import NotStored, first_line
from volcast.storage.prices import PriceTable
from volcast.storage.records import Check
from volcast.storage.store import Store, open_store
from volcast.tasks.preflight import kept_roots, last_ingest
from volcast.tasks.run_tools import PACKAGES, attempt, code_version
from volcast.tasks.settings import calendar_of, last_session
from volcast.tasks.sources.source import Outcome, open_source, why_not

DRIVER = Path("/dev/nvidiactl")  # is there where NVIDIA's driver is
CLOCK_MINUTES = timedelta(minutes=5)  # by which machines that write to one store may differ
ASKED_SESSIONS = 10  # of the source


def checks_of(store_url: str, service: Callable[[str], Iterable[Check]]) -> Iterator[Check]:
    """Of the machine, the store at this URL with its parts, the sources that its prices came from, and the service.

    The last are what `service` finds of the root of each part.
    """
    yield _check(
        "versions", _versions, "Install what it asks for: pip install --upgrade volcast, or in a checkout make install"
    )
    yield _check("device", _device, "Install a torch for this driver, or train on the CPU: --device cpu")
    roots = attempt(_kept, store_url)
    if isinstance(roots, Exception):
        yield Check(of="store", found=f"{first_line(roots)}.", remedy="See: volcast verify")
        return
    if not roots:
        yield Check(of="store", found=f"there is none at {store_url} yet; volcast ingest begins one")
    for root in roots:
        yield _check("store", partial(_store, root), "See: volcast verify")
    yield _check("clock", partial(_clock, roots), "Set the clock, and let it be kept: systemd-timesyncd or the like")
    for root in roots:
        if last_ingest(root.url):
            yield _check("source", partial(_source, root), "Mend it, or name another one: volcast ingest --source …")
        yield from service(root.url)


def _kept(store_url: str) -> list[Store]:
    """The parts of the store that hold prices; none before there is a store. Raises StoreError."""
    try:
        return [root for root in kept_roots(store_url) if PriceTable(root).version() is not None]
    except NotStored:
        return []


def _check(of: str, look: Callable[[], str], remedy: str) -> Check:
    found = attempt(look)
    if isinstance(found, Exception):
        return Check(of=of, found=f"{first_line(found)}.", remedy=remedy)
    return Check(of=of, found=found)


def _versions() -> str:
    needs = [Requirement(each) for each in metadata.requires("volcast") or ()]
    wanted = [each for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]
    wrong = [
        f"{each.name} {came} (expected {each.specifier})"
        for each in wanted
        if not each.specifier.contains(came := metadata.version(each.name), prereleases=True)
    ]
    if wrong:
        raise ValueError(f"volcast does not go with {listed(wrong)}")
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in (*PACKAGES, *adding_packages()))
    return f"volcast {code_version()}, Python {platform.python_version()}, {packages}"


def _device() -> str:
    from volcast.models.weights import choose_device, describe_device

    found = describe_device(choose_device("auto"))
    if found == "cpu" and DRIVER.exists():
        raise ValueError(f"torch {metadata.version('torch')} sees no GPU, and NVIDIA's driver is there")
    return f"{found}, {counted(os.cpu_count() or 1, 'core')}"


def _store(root: Store) -> str:
    """Raises StoreError for one that cannot be read, or written."""
    ends = PriceTable(root).coverage()["last"]
    open_store(root.url, writable=True)
    return f"{root.url}: prices of {counted(len(ends), 'ticker')} to {ends.max().date()}; it can be written"


def _clock(roots: list[Store]) -> str:
    now, newest = datetime.now(UTC), [ArtifactStore(root).newest("ingest", "prices") for root in roots]
    if late := [each.created_at for each in newest if each and each.created_at > now + CLOCK_MINUTES]:
        raise ValueError(
            f"It is {now:%Y-%m-%d %H:%M} UTC here, and the store was written at {max(late):%Y-%m-%d %H:%M}"
        )
    return f"{now:%Y-%m-%d %H:%M} UTC; New York's last closed session is {last_session(None)}"


def _source(root: Store) -> str:
    """Raises SourceError, or ValueError with what the source said."""
    last, calendar, ticker = last_ingest(root.url), calendar_of(root.url), PriceTable(root).tickers()[0]
    assert last is not None
    source, session = open_source(last.source), last_session(None, calendar=calendar)
    first = session_before(session, ASKED_SESSIONS, calendar) if source.incremental else None
    answer = source.fetch(ticker, first=first, last=session)
    if answer.outcome != Outcome.OK:
        raise ValueError(f"{last.source}: {why_not(answer)}")
    return f"{last.source} answers: {counted(len(answer.bars), 'row')} of {ticker}"
