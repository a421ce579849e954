"""What a recipe works on, made from the rows of a snapshot.

It takes a while, and all steps of a run want the same, so what was made of the newest snapshot is kept in the process.
A snapshot is known by the digest of its rows and the version of the events table, not by when it was taken.
"""

from dataclasses import dataclass, field

from models.panel import Panel
from models.recipes import digest
from storage.artifacts import ArtifactStore
from storage.events import EventTable
from storage.records import FeatureSet, Snapshot
from storage.store import open_store
from tasks.methods.protocol import Method, Prepared, Rows
from tasks.stored import reader
from tasks.take_snapshot import read_prices

Key = tuple[str, str, str, int | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kept:
    """What was made of the rows of one snapshot; nobody changes it."""

    key: Key  # store, digest of the rows, cutoff, version of the events (None: none are used)
    rows: Rows
    prepared: dict[str, Prepared] = field(default_factory=dict)  # digest of the recipe, or of the features -> of them


_newest: list[_Kept] = []  # one, or none yet


def prepare(snapshot: Snapshot, method: Method) -> Prepared:
    """From the snapshot's prices, and the announcements that were known at its cutoff. Raises ModelError."""
    kept, recipe = _kept(snapshot), digest(method.recipe)
    if recipe not in kept.prepared:
        kept.prepared[recipe] = method.prepare(kept.rows)
    return kept.prepared[recipe]


def read_panel(snapshot: Snapshot) -> Panel:
    """The snapshot's prices, and the announcements that were known at its cutoff, as the forecasters take them."""
    return _kept(snapshot).rows.panel


def keep(features: FeatureSet, prepared: Prepared) -> None:
    """Let `read_prepared` have it, as long as no other snapshot is asked for."""
    _kept(features.snapshot).prepared[features.artifact.digest] = prepared


def read_prepared(features: FeatureSet, method: Method) -> Prepared:
    """What a stored version of the features is of. Raises NotStored, Corrupt."""
    kept, ref = _kept(features.snapshot), features.artifact
    if ref.digest not in kept.prepared:
        read = reader(ArtifactStore(open_store(features.snapshot.store)), ref)
        kept.prepared[ref.digest] = method.restore(read, kept.rows.read_prices)
    return kept.prepared[ref.digest]


def _kept(snapshot: Snapshot) -> _Kept:
    """The newest, where it is of these rows, else a new one in its place."""
    store = open_store(snapshot.store)
    events = EventTable(store)
    version = events.version() if snapshot.uses_earnings else None
    key = (snapshot.store, snapshot.prices.digest, str(snapshot.cutoff), version)
    if not _newest or _newest[0].key != key:
        known = events.known(snapshot.tickers if snapshot.uses_earnings else (), as_of=snapshot.cutoff)
        rows = Rows(read_prices=lambda: read_prices(store, snapshot), announcements=known)
        _newest[:] = [_Kept(key=key, rows=rows)]
    return _newest[0]
