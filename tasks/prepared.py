"""What a recipe works on, made from the rows of a snapshot; the newest is kept in the process, for it takes a while."""

import pandas as pd

from models.panel import Panel, make_panel
from storage.artifacts import ArtifactStore
from storage.events import EventTable
from storage.records import ArtifactRef, FeatureSet, Snapshot
from storage.store import open_store
from tasks.methods.protocol import Method, Prepared
from tasks.stored import reader
from tasks.take_snapshot import read_prices

_newest: dict[str, Prepared] = {}  # digest of the features -> what they are of


def prepare(snapshot: Snapshot, method: Method) -> Prepared:
    """From the snapshot's prices, and the announcements that were known at its cutoff. Raises ModelError."""
    return method.prepare(*_read(snapshot))


def read_panel(snapshot: Snapshot) -> Panel:
    """The snapshot's prices, and the announcements that were known at its cutoff, as the forecasters take them."""
    return make_panel(*_read(snapshot))


def keep(ref: ArtifactRef, prepared: Prepared) -> None:
    """Keep it instead of the one before it."""
    _newest.clear()
    _newest[ref.digest] = prepared


def read_prepared(features: FeatureSet, method: Method) -> Prepared:
    """What a stored version of the features is of. Raises NotStored, Corrupt."""
    ref, snapshot = features.artifact, features.snapshot
    if ref.digest not in _newest:
        store = open_store(snapshot.store)
        read = reader(ArtifactStore(store), ref)
        keep(ref, method.restore(read, lambda: read_prices(store, snapshot)))
    return _newest[ref.digest]


def _read(snapshot: Snapshot) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Its prices, and the announcements that were known at its cutoff."""
    store = open_store(snapshot.store)
    return read_prices(store, snapshot), EventTable(store).known(snapshot.tickers, as_of=snapshot.cutoff)
