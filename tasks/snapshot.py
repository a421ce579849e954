"""Fix which rows a run works on, and make of them what a recipe works on.

A snapshot is some tickers of one version of the prices, and nothing after the cutoff: as of a past session the version
of then, so that no value that was restated later is in it, and a caveat where that cannot be had. It is known by the
digest of its rows and the version of the events table, not by when it was taken. What a method prepares from it takes a
while, and all steps of a run want the same, so that what was made of the newest snapshot stays in the process.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pandas as pd
from prefect import get_run_logger, task

from volcast.models.panel import Panel
from volcast.models.recipes import digest
from volcast.models.text import counted, listed, meant
from volcast.storage.announced_dates import EventTable
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.errors import NotStored
from volcast.storage.prices import AsOf, PriceTable
from volcast.storage.records import ArtifactRef, FeatureSet, ModelVersion, PriceCounts, Snapshot
from volcast.storage.store import Store, open_store
from volcast.tasks.methods.method import Method, Prepared, Rows
from volcast.tasks.preflight import tickers_in_use
from volcast.tasks.settings import DataSettings, calendar_of
from volcast.tasks.stored_models import reader


@task(task_run_name="take a snapshot of the prices")
def take_snapshot(data: DataSettings, counts: PriceCounts | None = None) -> Snapshot:
    """The stored rows that `data` names, else of all tickers in use, with the values known at its close, if stored.

    Raises NotStored when there are none.
    """
    store = open_store(data.root)
    table, last = PriceTable(store), data.session
    newest = table.version()
    if newest is None:
        raise NotStored(f"{store.url} holds no prices. Bring some with: volcast ingest --source … --store {data.store}")
    then = table.as_of(last) if data.prices_version is None else None
    version = then.version if then else newest if data.prices_version is None else data.prices_version
    known = then.known if then else None
    tickers = list(data.tickers) or tickers_in_use(store, last, version)
    rows = table.describe(tickers, last=last, version=version, known=known)
    lacking = sorted(set(tickers) - set(rows.tickers))
    if lacking or rows.first_session is None or rows.last_session is None:
        until = f" up to {data.as_of}" if data.as_of else ""
        stored = table.coverage(version)
        held = stored.loc[stored.index.isin(lacking)] if stored.index.isin(lacking).any() else stored
        there = [f"{name} from {row['first']:%Y-%m-%d} to {row['last']:%Y-%m-%d}" for name, row in held.iterrows()]
        raise NotStored(
            f"{store.url} holds no prices of {listed(lacking)}{until}. It holds {listed(there)}."
            f"{meant(lacking, map(str, stored.index))} Ingest them first."
        )
    snapshot = Snapshot(
        store=store.url,
        prices=ArtifactRef(kind="prices", name="prices", version=version, digest=rows.digest),
        source=data.source,
        simulated=data.source.startswith("simulated"),
        tickers=rows.tickers,
        first_session=rows.first_session,
        cutoff=rows.last_session,
        rows=rows.rows,
        uses_earnings=data.uses_earnings,
        prices_known=known,
        caveat=_caveat(then, last, tickers) if then else "",
        counts=counts,
    )
    if snapshot.caveat:
        get_run_logger().warning("prices as of %s: %s", last, snapshot.caveat)
    unused = "" if data.uses_earnings else "; announced earnings are not used (--events none)"
    get_run_logger().info(
        "prices v%d: %s, cutoff %s%s", version, counted(snapshot.rows, "row"), snapshot.cutoff, unused
    )
    return snapshot


def _caveat(then: AsOf, last: date, tickers: Sequence[str]) -> str:
    """What is not as it was known at the close of `last`; empty where nothing is."""
    found = []
    if then.goes_on_to > last:
        found.append(
            f"no version of then was ever stored; v{then.values_of} is the first one that reaches it, and "
            f"goes on to {then.goes_on_to}: it may know corrections of later, those after it are left out"
        )
    if then.put_back is not None:
        late = f"; {then.late:,} of its rows came later and cannot be told from the others" if then.late else ""
        found.append(
            f"v{then.values_of} is not kept any more (volcast gc --keep-versions); v{then.version} is read, "
            f"with {counted(then.put_back, 'value')} of before a restatement put back{late}"
        )
    if newcomers := [ticker for ticker in then.newcomers if ticker in tickers]:
        found.append(f"first stored after v{then.values_of}, with the values of v{then.version}: {listed(newcomers)}")
    return ". ".join(found)


def universes(snapshot: Snapshot, champion: ModelVersion | None) -> list[tuple[Snapshot, tuple[str, ...]]]:
    """The rows that forecasts are made from, each with the tickers of the snapshot that are forecast from them.

    What a model sees of a ticker depends on the other ones, so they are the same whichever tickers a run is asked for:
    those that the champion was trained on, as far as they are stored; for any other ticker, and without a champion,
    all that are stored.
    """
    stored = PriceTable(open_store(snapshot.store)).tickers(snapshot.prices.version)
    trained = set(stored if champion is None else champion.snapshot.tickers)
    members = tuple(ticker for ticker in snapshot.tickers if ticker in trained)
    others = tuple(ticker for ticker in snapshot.tickers if ticker not in trained)
    found = [(trained, members), (stored, others)]
    return [(of_tickers(snapshot, universe), asked) for universe, asked in found if asked]


def of_tickers(snapshot: Snapshot, tickers: Iterable[str]) -> Snapshot:
    """The rows of other tickers of the same version, up to the same cutoff; those without a row are left out."""
    if set(tickers) == set(snapshot.tickers):
        return snapshot
    table = PriceTable(open_store(snapshot.store))
    rows = table.describe(tickers, last=snapshot.cutoff, version=snapshot.prices.version, known=snapshot.prices_known)
    facts = {"tickers": rows.tickers, "first_session": rows.first_session, "rows": rows.rows}
    prices = snapshot.prices.model_copy(update={"digest": rows.digest})
    return snapshot.model_copy(update={"prices": prices, **facts})


def read_parts(store: Store, snapshot: Snapshot) -> Iterator[pd.DataFrame]:
    """The rows of a snapshot, as `PriceTable.read_parts` gives them."""
    version, known = snapshot.prices.version, snapshot.prices_known
    return PriceTable(store).read_parts(snapshot.tickers, last=snapshot.cutoff, version=version, known=known)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cached:
    """What was made of the rows of one snapshot; nobody changes it."""

    key: tuple[str, str, date, int | None]  # store, digest of the rows, cutoff, version of the events (None: unused)
    rows: Rows
    prepared: dict[str, Any] = field(default_factory=dict)  # digest of the recipe, or of the features -> of them


_newest: list[_Cached] = []  # one, or none yet


def prepare(snapshot: Snapshot, method: Method[Any, Prepared, Any]) -> Prepared:
    """From the snapshot's prices, and the announcements that were known at its cutoff. Raises ModelError."""
    cached, recipe = _cached(snapshot), digest(method.recipe)
    if recipe not in cached.prepared:
        cached.prepared[recipe] = method.prepare(cached.rows)
    return cached.prepared[recipe]


def rows_of(snapshot: Snapshot) -> Rows:
    """The snapshot's prices, and the announcements that were known at its cutoff."""
    return _cached(snapshot).rows


def read_panel(snapshot: Snapshot) -> Panel:
    """The same, as the forecasters take them."""
    return rows_of(snapshot).panel


def remember(features: FeatureSet, prepared: object) -> None:
    """Let `read_prepared` have it, as long as no other snapshot is asked for."""
    _cached(features.snapshot).prepared[features.artifact.digest] = prepared


def read_prepared(features: FeatureSet, method: Method[Any, Prepared, Any]) -> Prepared:
    """What a stored version of the features is of. Raises NotStored, Corrupt."""
    cached, ref = _cached(features.snapshot), features.artifact
    if ref.digest not in cached.prepared:
        read = reader(ArtifactStore(open_store(features.snapshot.store)), ref)
        cached.prepared[ref.digest] = method.restore(read, cached.rows)
    return cached.prepared[ref.digest]


def _cached(snapshot: Snapshot) -> _Cached:
    """The newest, where it is of these rows, else a new one in its place."""
    store = open_store(snapshot.store)
    events = EventTable(store)
    version = events.version() if snapshot.uses_earnings else None
    key = (snapshot.store, snapshot.prices.digest, snapshot.cutoff, version)
    if not _newest or _newest[0].key != key:
        known = events.events(snapshot.tickers, as_of=snapshot.cutoff)
        known = known if snapshot.uses_earnings else known.head(0)
        rows = Rows(lambda: read_parts(store, snapshot), known, calendar_of(snapshot.store))
        _newest[:] = [_Cached(key=key, rows=rows)]
    return _newest[0]
