"""What history said before, and what it says since: one row for each changed value of an old row.

Prices and restatements are two tables, and so two commits. So that a run that dies between them loses nothing:
1. `intend`: the rows are laid down under `intents/<version>/`, for the version that the prices will get
2. the prices are committed, with the key of these rows in the commit's metadata
3. `complete`, also by the next run: the rows whose key is in the commit of their version are added, once, and the
   intent goes; one whose version another writer took goes without; one whose version is not there yet stays
"""

import json
from contextlib import suppress
from datetime import UTC, datetime
from uuid import uuid4

import obstore
import pandas as pd

from storage.additions import Additions
from storage.queries import among
from storage.schemas import RESTATEMENTS
from storage.staging import from_arrow, to_arrow
from storage.store import Store, put

KEY = ["ticker", "session", "column", "version_after"]
INTENTS = "intents"
COMMITTED = "restatements"  # in the metadata of a commit of the prices: the key of its intent


class RestatementTable:
    """The table `restatements` of a store; rows are only ever added."""

    def __init__(self, store: Store) -> None:
        self._store, self._table = store, Additions(store, "restatements", RESTATEMENTS)

    def intend(self, changes: pd.DataFrame, version: int, source: str) -> str:
        """Lay the changes (ticker, session, column, old, new) down for a version of the prices to come; the key."""
        rows = changes.assign(
            seen_at=pd.Timestamp(datetime.now(UTC)), version_before=version - 1, version_after=version, source=source
        )
        key = f"{INTENTS}/{version:020d}/{uuid4().hex}.arrow"
        put(self._store, key, to_arrow(rows))
        return key

    def complete(self) -> None:
        """Add the rows of every intent whose prices were committed, and forget those whose prices never will be."""
        for key in intents(self._store):
            with suppress(FileNotFoundError):  # not committed yet, or another run has completed it meanwhile
                if _committed(self._store, int(key.split("/")[1])) == key:
                    rows = from_arrow(bytes(obstore.get(self._store.objects, key).bytes()))
                    self._table.add_new(rows, KEY, among=among("version_after", rows["version_after"]))
                obstore.delete(self._store.objects, key)

    def read(self) -> pd.DataFrame:
        """All rows, by version_after, ticker, session and column; sessions as datetime64."""
        return self._table.rows().sort_values(["version_after", "ticker", "session", "column"], ignore_index=True)

    def sessions(self) -> pd.Series:
        """How many sessions of each ticker (the index) were ever restated."""
        counts = self._table.query("DISTINCT ticker, session").to_pandas().value_counts("ticker")
        return counts.rename("restated")


def intents(store: Store) -> list[str]:
    """The keys of the intents that no run has completed yet."""
    return [entry["path"] for chunk in obstore.list(store.objects, INTENTS) for entry in chunk]


def _committed(store: Store, version: int) -> str | None:
    """The key in the metadata of the commit that made a version of the prices. Raises FileNotFoundError before it."""
    log = bytes(obstore.get(store.objects, f"prices/_delta_log/{version:020d}.json").bytes())
    actions = [json.loads(line) for line in log.splitlines() if line.strip()]
    return next((action["commitInfo"].get(COMMITTED) for action in actions if "commitInfo" in action), None)
