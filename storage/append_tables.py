"""Delta tables to which rows are only ever added: quarantine, restatements, events, forecasts and scores.

The rows that broke a rule, each with the rule, as long as anyone wants to look at them.

What history said before, and what it says since: one row for each changed value of an old row.

Prices and restatements are two tables, and so two commits. So that a run that dies between them loses nothing:
1. `intend`: the rows are laid down under `intents/<version>/`, for the version that the prices will get
2. the prices are committed, with the key of these rows in the commit's metadata
3. `complete`, also by the next run: the rows whose key is in the commit of their version are added, once, and the
   intent goes; one whose version another writer took goes without; one whose version is not there yet stays
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import uuid4

import obstore
import pandas as pd
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from storage.errors import StoreNotWritable, VersionConflict, first_line
from storage.price_files import among
from storage.schemas import QUARANTINE, RESTATEMENTS, conform
from storage.staging import from_arrow, to_arrow
from storage.store import Store, put

CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",  # or old versions vanish after 30 days
    "delta.checkpointInterval": "10",  # commits: opening a table reads those since, 2 ms; by default 100, up to 40 ms
}
NO_REBASE = CommitProperties(max_commit_retries=0)  # rows were compared with one version: commit on top of it or not
MAX_LOST_RACES = 50
MAX_FILES = 24  # about a month of one commit a session before they are joined


class Additions:
    """One such table of a store."""

    def __init__(self, store: Store, name: str, schema: pa.Schema) -> None:
        self.url, self._options = store.table_url(name), store.table_options
        self._name, self._schema = name, schema

    def add_new(self, rows: pd.DataFrame, key: Sequence[str], *, among: str) -> int:
        """Add the rows whose `key` is not among the stored ones (SQL) yet; returns how many, in one commit or none.

        The commit is on top of the version that was looked at, so that of two writers of the same rows one adds them.
        Raises ValueError, VersionConflict, StoreNotWritable.
        """
        source = conform(rows.drop_duplicates(list(key)), self._schema)
        for _ in range(MAX_LOST_RACES):
            table = self.open()
            known = self.query(", ".join(f'"{name}"' for name in key), among, table=table)
            fresh = _without(source, known, list(key))
            if not fresh.num_rows:
                return 0
            try:
                self.commit(table, fresh)
            except CommitFailedError:
                continue
            return fresh.num_rows
        raise VersionConflict(f"{self.url}: lost the next version {MAX_LOST_RACES} times. See what else writes there.")

    def open(self) -> DeltaTable | None:
        """The newest version, or None where there is no table."""
        try:
            return DeltaTable(self.url, storage_options=self._options)
        except TableNotFoundError:
            return None

    def query(self, columns: str, condition: str = "true", *, table: DeltaTable | None = None) -> pa.Table:
        """The columns, as SQL has them, of the rows that meet the condition; none where there is no table."""
        table = table or self.open()
        if table is None:
            return self._schema.empty_table()
        sql = f"SELECT {columns} FROM {self._name} WHERE {condition}"
        return pa.table(QueryBuilder().register(self._name, table).execute(sql))

    def rows(self, condition: str = "true", *, table: DeltaTable | None = None) -> pd.DataFrame:
        """The rows that meet the condition (SQL; by default every row), in no order; sessions as datetime64."""
        return (
            self.query("*", condition, table=table)
            .select(self._schema.names)
            .cast(self._schema)
            .to_pandas(date_as_object=False)
        )

    def commit(self, table: DeltaTable | None, rows: pa.Table) -> None:
        """Add the rows on top of the version that was read; then, of many small files, one or a few are made.

        Raises CommitFailedError where another writer was faster, StoreNotWritable.
        """
        try:
            write_deltalake(
                table or self.url,
                rows,
                mode="error" if table is None else "append",
                storage_options=self._options,
                configuration=CONFIGURATION if table is None else None,
                commit_properties=NO_REBASE,
            )
            if table is not None and len(table.file_uris()) >= MAX_FILES:
                with suppress(CommitFailedError):  # another writer joined them
                    table.optimize.compact()
        except CommitFailedError:
            raise
        except (DeltaError, OSError) as error:
            if table is None and self.open():
                raise CommitFailedError("another writer made the table first") from error
            raise StoreNotWritable(
                f"{self.url}: the commit could not be written: {first_line(error)}. Run the same command again."
            ) from error


def _without(rows: pa.Table, known: pa.Table, key: list[str]) -> pa.Table:
    """The rows whose key is not known; other than in SQL and in Arrow's join, a null is equal to a null."""
    keys = rows.select(key)
    marked = known.select(key).cast(keys.schema).to_pandas().drop_duplicates().assign(known=True)
    return rows.filter(pa.array(keys.to_pandas().merge(marked, on=key, how="left")["known"].isna()))


KEY = ["ticker", "session", "rule", "value", "source"]


class QuarantineTable:
    """Quarantined rows; the same row from the same source is kept once, with the time at which it was first seen."""

    def __init__(self, store: Store) -> None:
        self._table = Additions(store, "quarantine", QUARANTINE)

    def add(self, rows: pd.DataFrame) -> int:
        """Keep the rows (ticker, session, rule, value, source, seen_at) that are not there yet; returns how many."""
        if rows.empty:
            return 0
        return self._table.add_new(rows, KEY, among=among("source", rows["source"]))

    def read(self, ticker: str | None = None) -> pd.DataFrame:
        """All rows, or a ticker's: ticker, session (datetime64), rule, value, source, seen_at; by the first three."""
        rows = self._table.rows()
        chosen = rows if ticker is None else rows.loc[rows["ticker"] == ticker]
        return chosen.sort_values(["ticker", "session", "rule"]).reset_index(drop=True)


RESTATEMENTS_KEY = ["ticker", "session", "column", "version_after"]
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
                    self._table.add_new(rows, RESTATEMENTS_KEY, among=among("version_after", rows["version_after"]))
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
