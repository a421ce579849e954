"""Delta tables to which rows are only ever added, and what every Delta table of a store has in common.

A commit is on top of the version that was read, or fails: `retried` then begins again with the version that came.

Prices and restatements are two tables, and so two commits. So that a run that dies between them loses nothing:
1. `intend`: the rows are put under `intents/<version>/`, for the version that the prices will get;
2. the prices are committed, with the key of these rows in the commit's metadata;
3. `complete`, also by the next run: the rows whose key is in the commit of their version are added, once, and the
   intent goes; one whose version another writer took goes without; one whose version is not there yet stays.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from typing import ClassVar, TypeVar
from uuid import uuid4

import pandas as pd
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from storage.errors import StoreNotWritable, VersionConflict, first_line, reading
from storage.schemas import QUARANTINE, RESTATEMENTS, conform
from storage.staging import from_arrow, to_arrow
from storage.store import Store, delete, entries, get, put

CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",  # or old versions vanish after 30 days
    "delta.checkpointInterval": "10",  # commits: opening a table reads those since, 2 ms; by default 100, up to 40 ms
}
NO_REBASE = CommitProperties(max_commit_retries=0)  # rows were compared with one version: commit on top of it or not
MAX_LOST_RACES = 50
MAX_FILES = 24  # about a month of one commit a session before they are joined

Result = TypeVar("Result")

# --- what every Delta table has in common ---------------------------------------------------------------------------


def retried(url: str, attempt: Callable[[], Result]) -> Result:
    """What the attempt to commit gives as soon as no other writer is faster. Raises VersionConflict."""
    for _ in range(MAX_LOST_RACES):
        with suppress(CommitFailedError):
            return attempt()
    raise VersionConflict(f"{url}: lost the next version {MAX_LOST_RACES} times. See what else writes there.")


@contextmanager
def committing(store: Store, url: str, *, is_new: bool) -> Iterator[None]:
    """Raises CommitFailedError where another writer was faster, also in making a new table, or StoreNotWritable."""
    try:
        yield
    except CommitFailedError:
        raise
    except (DeltaError, OSError) as error:
        if is_new and DeltaTable.is_deltatable(url, storage_options=store.table_options):
            raise CommitFailedError("another writer made the table first") from error
        raise StoreNotWritable(
            f"{url}: the commit could not be written: {first_line(error)}. Run the same command again."
        ) from error


def query(sql: str, **tables: DeltaTable) -> pa.Table:
    """What the SQL gives of the tables, in no order. Raises StoreError (a data file cannot be read)."""
    builder = QueryBuilder()
    for name, table in tables.items():
        builder.register(name, table)
    with reading(" and ".join(f"{table.table_uri}: version {table.version()}" for table in tables.values())):
        return pa.table(builder.execute(sql))


def among(column: str, values: Iterable[object]) -> str:
    """The SQL condition that the column holds one of the values."""
    listed = ", ".join(sorted({literal(value) for value in values}))
    return f"{column} IN ({listed})" if listed else "false"


def literal(value: object) -> str:
    """A string, date or number as SQL has it."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"DATE '{value.isoformat()}'" if isinstance(value, date) else str(value)


# --- tables that only grow ------------------------------------------------------------------------------------------


class AppendTable:
    """A table of a store to which rows are only ever added; a subclass declares which."""

    name: ClassVar[str]
    schema: ClassVar[pa.Schema]
    order: ClassVar[Sequence[str]]  # of the rows as they are read
    key: ClassVar[Sequence[str]]  # `add` adds no second row of a key
    near: ClassVar[str]  # a column of the key: the new rows' range of it bounds what they are compared with

    def __init__(self, store: Store) -> None:
        self._store, self.url = store, store.table_url(self.name)

    def open(self) -> DeltaTable | None:
        """The newest version, or None where there is no table."""
        try:
            return DeltaTable(self.url, storage_options=self._store.table_options)
        except TableNotFoundError:
            return None

    def add(self, rows: pd.DataFrame) -> int:
        """Add the rows whose key is not stored yet, in one commit or none; returns how many.

        `rows`: the columns of the schema, in any order. Raises ValueError (a value that the schema does not hold
        exactly), VersionConflict, StoreNotWritable.
        """
        if rows.empty:
            return 0
        source = conform(rows.drop_duplicates(list(self.key)), self.schema)
        near = source[self.near].unique().to_pylist()
        columns = ", ".join(f'"{name}"' for name in self.key)
        condition = f"{self.near} BETWEEN {literal(min(near))} AND {literal(max(near))}"
        return self.append(lambda table: _without(source, self.select(columns, condition, table), list(self.key)))

    def append(self, find_new: Callable[[DeltaTable | None], pa.Table]) -> int:
        """Commit the rows that are new to the newest version, on top of that version; returns how many.

        When another writer is faster, `find_new` is called again with what it made. Raises as `add` does.
        """

        def attempt() -> int:
            table = self.open()
            rows = find_new(table)
            if rows.num_rows:
                self._commit(table, rows)
            return rows.num_rows

        return retried(self.url, attempt)

    def select(self, columns: str, condition: str = "true", table: DeltaTable | None = None) -> pa.Table:
        """The columns (SQL) of the rows that meet the condition, in no order; no rows where there is no table."""
        table = table or self.open()
        if table is None:
            return self.schema.empty_table()
        return query(f"SELECT {columns} FROM {self.name} WHERE {condition}", **{self.name: table})

    def read(self, condition: str = "true", table: DeltaTable | None = None) -> pd.DataFrame:
        """The rows that meet the condition (SQL; by default all), in the declared order; sessions as datetime64."""
        return self.frame(self.select("*", condition, table)).sort_values(list(self.order), ignore_index=True)

    def frame(self, rows: pa.Table) -> pd.DataFrame:
        """Rows that a query gave, with the schema's columns and types; sessions as datetime64."""
        return rows.select(self.schema.names).cast(self.schema).to_pandas(date_as_object=False)

    def _commit(self, table: DeltaTable | None, rows: pa.Table) -> None:
        """Add the rows on top of the version that was read; then, of many small files, one or a few are made."""
        with committing(self._store, self.url, is_new=table is None):
            write_deltalake(
                table or self.url,
                rows,
                mode="error" if table is None else "append",
                storage_options=self._store.table_options,
                configuration=CONFIGURATION if table is None else None,
                commit_properties=NO_REBASE,
            )
            if table is not None and len(table.file_uris()) >= MAX_FILES:
                with suppress(CommitFailedError):  # another writer joined them
                    table.optimize.compact()


def _without(rows: pa.Table, known: pa.Table, key: list[str]) -> pa.Table:
    """The rows whose key is not known; other than in SQL and in Arrow's join, a null is equal to a null."""
    keys = rows.select(key)
    marked = known.select(key).cast(keys.schema).to_pandas().drop_duplicates().assign(known=True)
    return rows.filter(pa.array(keys.to_pandas().merge(marked, on=key, how="left")["known"].isna()))


class QuarantineTable(AppendTable):
    """The rows that broke a rule, each with the rule, the source and the time at which it was first seen."""

    name, schema = "quarantine", QUARANTINE
    order = ("ticker", "session", "rule")
    key, near = ("ticker", "session", "rule", "value", "source"), "source"


# --- restatements ---------------------------------------------------------------------------------------------------

INTENTS = "intents"
COMMITTED = "restatements"  # in the metadata of a commit of the prices: the key of its intent


class RestatementTable(AppendTable):
    """What history said before, and what it says since: one row for each changed value of an old row."""

    name, schema = "restatements", RESTATEMENTS
    order = ("version_after", "ticker", "session", "column")
    key, near = ("ticker", "session", "column", "version_after"), "version_after"

    def intend(self, changes: pd.DataFrame, version: int, source: str) -> str:
        """Put the changes (ticker, session, column, old, new) down for a version of the prices to come; their key."""
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
                    self.add(from_arrow(get(self._store, key)))
                delete(self._store, key)

    def sessions(self) -> pd.Series:
        """How many sessions of each ticker (the index) were ever restated."""
        return self.select("DISTINCT ticker, session").to_pandas().value_counts("ticker").rename("restated")


def intents(store: Store) -> list[str]:
    """The keys of the intents that no run has completed yet."""
    return [entry["path"] for entry in entries(store, INTENTS)]


def _committed(store: Store, version: int) -> str | None:
    """The key in the metadata of the commit that made a version of the prices. Raises FileNotFoundError before it."""
    log = get(store, f"prices/_delta_log/{version:020d}.json")
    actions = [json.loads(line) for line in log.splitlines() if line.strip()]
    return next((action["commitInfo"].get(COMMITTED) for action in actions if "commitInfo" in action), None)
