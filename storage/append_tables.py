"""Delta tables to which rows are only ever added, and what every Delta table of a store has in common.

A commit is on top of the version that was read, or fails: `retried` then begins again with the version that came.

A data file is written here, not by Delta's own writer, which knows no checksums, so that a flipped bit is found: the
file's name carries the sha256 of its content. It is compared by `volcast verify`, by every read of rows
(`require_unchanged`, once a process and file) and again before a file is replaced, so that no new one is made of what
is damaged. Files of releases that left them to Delta have no sha256, and are read as they are.

Prices and restatements are two tables, and so two commits. So that a run that dies between them loses nothing:
1. `intend`: the rows are put under `intents/<version>/`, for the version that the prices will get;
2. the prices are committed, with the key of these rows in the commit's metadata;
3. `complete`, also by the next run: the rows whose key is in the commit of their version are added, once, and the
   intent goes; one whose version another writer took goes without; one whose version is not there yet stays.
"""

import io
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, QueryBuilder, Schema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions
from obstore.exceptions import BaseError

from volcast.storage.artifacts import get_unchanged, recorded_sha256, sha256
from volcast.storage.bounds import (
    MAX_RECORD_BYTES,
    in_full,
    max_bytes,
    open_parquet,
    read_json,
    require_shallow,
    require_size,
)
from volcast.storage.errors import (
    RESTORE,
    SEE,
    Corrupt,
    Foreign,
    StoreNotWritable,
    VersionConflict,
    first_line,
    reading,
    require_reachable,
)
from volcast.storage.records import REMAKE
from volcast.storage.schemas import QUARANTINE, RESTATEMENTS, conform
from volcast.storage.staging import from_arrow, to_arrow
from volcast.storage.store import Store, delete, entries, find_foreign, get, put, require_own

CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",  # or old versions vanish after 30 days
    "delta.checkpointInterval": "10",  # commits: opening a table reads those since, 2 ms; by default 100, up to 40 ms
}
ATTEMPT = "attempt"  # in the metadata of a commit: which attempt of which writer made it
MAX_LOST_RACES = 50
MAX_FILES = 24  # about a month of one commit a session before they are joined
SMALL_BYTES = 8 * 2**20  # of a file that is joined with others; together they are in memory

Result = TypeVar("Result")

# --- what every Delta table has in common ---------------------------------------------------------------------------

LARGE_COMMIT = 16_384  # bytes; Delta's parser of a commit dies of brackets that are nested some 20,000 deep
READER_VERSION = 1  # of Delta's protocol; with a later one, a log may name files outside of the table

READERS = 8  # files at once; a bucket takes its time for each
SELECTED_BY = ("ticker", "session", "announced_for", "cutoff", "ds", "source", "version_after")

_unchanged: set[str] = set()  # URLs of the data files that this process has compared with their sha256
_sound: dict[str, set[str]] = {}  # URL of a table -> what this process has looked at before


def open_table(store: Store, name: str, version: int | None = None) -> DeltaTable | None:
    """A version of a table, by default the newest, or None where there is no table.

    Raises StoreError: Foreign where its log or a file that it names is none that volcast would have written.
    """
    url = store.table_url(name)
    with reading(f"{url}: the newest version" if version is None else f"{url}: version {version}"):
        require_sound_log(store, name)
        try:
            table = DeltaTable(url, version=version, storage_options=store.table_options)
        except TableNotFoundError:
            return None
        _require_own_files(store, name, table)
    return table


def require_sound_log(store: Store, name: str) -> None:
    """Raises Foreign for a log that must not be given to Delta Lake: with links or pipes in it, or nested too deep."""
    folder, seen = f"{name}/_delta_log", _sound.setdefault(store.table_url(name), set())
    require_own(store, folder)
    for fault in find_foreign(store, folder):
        raise Foreign(fault)
    for entry in entries(store, folder):
        place, is_json = f"{store.url}/{entry.path}", not entry.path.endswith(".parquet")
        require_size(entry.size, f"{place} has", MAX_RECORD_BYTES if is_json else max_bytes())
        if entry.size < LARGE_COMMIT or not is_json or entry.path in seen:
            continue
        try:
            require_shallow(get(store, entry.path))
        except ValueError as error:
            raise Foreign(f"{place}: expected a commit of volcast's, found {error}. It is not read.") from error
        seen.add(entry.path)


def _require_own_files(store: Store, name: str, table: DeltaTable) -> None:
    """Raises Foreign where the log names a file that is not below the table's folder, or is no plain file there."""
    url, version = store.table_url(name), f"v{table.version()} of {table.metadata().id}"
    seen = _sound.setdefault(url, set())
    if version in seen:
        return
    if (protocol := table.protocol().min_reader_version) > READER_VERSION:
        raise Foreign(f"{url}: expected a table of Delta's reader version {READER_VERSION}, found {protocol}. {REMAKE}")
    for path in pa.table(table.get_add_actions())["path"].to_pylist():
        if re.match(r"[a-z0-9+.-]+:|/", path, re.IGNORECASE):
            raise Foreign(f"{url}: its log names the file {path}, which is no part of the table, and is not touched.")
        require_own(store, f"{name}/{path}")
    seen.add(version)


def retried(url: str, attempt: Callable[[], Result]) -> Result:
    """What the attempt to commit gives as soon as no other writer is faster. Raises VersionConflict."""
    for _ in range(MAX_LOST_RACES):
        with suppress(CommitFailedError):
            return attempt()
    raise VersionConflict(f"{url}: lost the next version {MAX_LOST_RACES} times. See what else writes there.")


@contextmanager
def committing(
    store: Store, name: str, version: int, metadata: dict[str, str] | None = None
) -> Iterator[CommitProperties]:
    """What to commit a version with: on top of the one before it, for rows were compared with that, or not at all.

    A commit whose answer was lost is sent again and refused: where the version is this attempt's own, it has succeeded.
    Raises CommitFailedError where another writer was faster, StoreUnreachable, StoreNotWritable.
    """
    attempt, url = uuid4().hex, store.table_url(name)
    try:
        yield CommitProperties(max_commit_retries=0, custom_metadata={**(metadata or {}), ATTEMPT: attempt})
    except (DeltaError, OSError, BaseError) as error:
        require_reachable(url, error)
        found = _metadata_of(store, name, version)
        if found is not None and found.get(ATTEMPT) != attempt and not isinstance(error, CommitFailedError):
            raise CommitFailedError("another writer was faster") from error
        if found is None:
            raise StoreNotWritable(
                f"{url}: the commit could not be written: {first_line(error)}. Run the same command again."
            ) from error
        if found.get(ATTEMPT) != attempt:
            raise


def _metadata_of(store: Store, name: str, version: int) -> dict[str, Any] | None:
    """What stands in the commit that made a version of a table; None where there is none yet. Raises StoreError."""
    key = f"{name}/_delta_log/{version:020d}.json"
    with reading(f"{store.url}/{key}"):
        try:
            log = get(store, key, MAX_RECORD_BYTES)
        except FileNotFoundError:
            return None
    try:
        actions = [read_json(line) for line in log.splitlines() if line.strip()]
        return next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    except (ValueError, TypeError) as error:
        raise Corrupt(f"{store.url}/{key}: expected a commit, found {len(log)} bytes that are none.{SEE}") from error


def data_files(table: DeltaTable) -> pd.DataFrame:
    """The data files of a version, with what Delta's log says of each: path, size_bytes, num_records, min.…, max.…"""
    return pa.table(table.get_add_actions(flatten=True)).to_pandas()


def write_file(
    store: Store, name: str, rows: pa.Table, partition: dict[str, str] | None = None, **options: Any
) -> AddAction:
    """Write the rows as one data file of a table, or of a partition of it, for a commit to name."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", write_page_checksum=True, **options)
    content = sink.getvalue().to_pybytes()
    folder = "".join(f"{column}={value}/" for column, value in (partition or {}).items())
    # The uuid is of this one attempt: no two commits share a file, so that one may go without the other.
    path = f"{folder}{uuid4().hex[:12]}-{sha256(content)}.parquet"
    put(store, f"{name}/{path}", content)
    return AddAction(path, len(content), partition or {}, _now_ms(), True, _statistics(rows))


def removals(files: pd.DataFrame, partition: Sequence[str] = ()) -> list[RemoveAction]:
    """Some of the `data_files`, for a commit to replace; `partition`: the columns that the table is divided by."""
    return [
        RemoveAction(file["path"], True, _now_ms(), file["size_bytes"], {each: str(file[each]) for each in partition})
        for file in files.to_dict("records")
    ]


def _now_ms() -> int:
    return int(time.time() * 1000)


def _statistics(rows: pa.Table) -> str:
    """What lets a reader pass over the file: the extent of what rows are selected by."""
    ends = {
        name: pc.call_function("min_max", [rows[name]]).as_py() for name in rows.schema.names if name in SELECTED_BY
    }
    ends = {name: end for name, end in ends.items() if end["min"] is not None}
    low, high = ({name: _plain(end[which]) for name, end in ends.items()} for which in ("min", "max"))
    nulls = {name: rows[name].null_count for name in ends}
    return json.dumps({"numRecords": rows.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls})


def _plain(value: object) -> object:
    return value if isinstance(value, int) else str(value)


def require_unchanged(store: Store, table: DeltaTable, condition: str = "true", *, again: bool = False) -> None:
    """Raises StoreError where a data file of the table that the condition opens is not as it was written.

    What this process has found unchanged before is read `again` only where it is about to be replaced.
    """
    with reading(table.table_uri):
        uris = table.file_uris(file_pruning_predicate=condition)
    name = table.table_uri.rstrip("/").rsplit("/", 1)[-1]
    paths = [uri.rsplit(f"/{name}/", 1)[-1] for uri in uris]
    due = [path for path in paths if again or f"{store.url}/{name}/{path}" not in _unchanged]
    due = [path for path in due if recorded_sha256(path)]

    def look(path: str) -> None:
        try:
            read_data_file(store, f"{name}/{path}")
        except Corrupt as error:
            raise Corrupt(f"{_tickers_of(table, path)}{error}") from error
        _unchanged.add(f"{store.url}/{name}/{path}")

    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(look, due))


def _tickers_of(table: DeltaTable, path: str) -> str:
    """The beginning of a sentence on a data file: whose rows it has; empty where the log does not say it."""
    files = data_files(table).set_index("path")
    if "min.ticker" not in files or pd.isna(files.at[path, "min.ticker"]):
        return ""
    first, last = files.at[path, "min.ticker"], files.at[path, "max.ticker"]
    return f"{first}: " if first == last else f"tickers from {first} to {last}: "


def read_data_file(store: Store, key: str) -> bytes:
    """The content of a data file, as it was written. Raises StoreError: Corrupt for one that has changed."""
    with reading(f"{store.url}/{key}"):
        try:
            return get_unchanged(store, key)
        except Corrupt as error:
            raise Corrupt(f"{error}. None of it was used. {RESTORE}{SEE}") from error


def query(sql: str, **tables: DeltaTable) -> pa.Table:
    """What the SQL gives of the tables, in no order. Raises StoreError (a data file that cannot be read; too much)."""
    builder = QueryBuilder()
    for name, table in tables.items():
        builder.register(name, table)
    place = " and ".join(f"{table.table_uri}: version {table.version()}" for table in tables.values())
    with reading(place):
        found = pa.RecordBatchReader.from_stream(builder.execute(sql))
        batches, size = list[pa.RecordBatch](), 0
        for batch in found:
            size += batch.nbytes
            require_size(size, f"{place}: what is asked for has")
            batches.append(batch)
        return pa.Table.from_batches(batches, found.schema)


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

    def open(self, condition: str | None = None) -> DeltaTable | None:
        """The newest version, to be asked for rows that meet the condition; None where there is no table.

        Raises StoreError: Corrupt for a data file that is not as it was written.
        """
        table = open_table(self._store, self.name)
        if table is not None and condition is not None:
            require_unchanged(self._store, table, condition)
        return table

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
        require_unchanged(self._store, table, condition)
        return query(f"SELECT {columns} FROM {self.name} WHERE {condition}", **{self.name: table})

    def read(self, condition: str = "true", table: DeltaTable | None = None) -> pd.DataFrame:
        """The rows that meet the condition (SQL; by default all), in the declared order; sessions as datetime64."""
        return self.frame(self.select("*", condition, table)).sort_values(list(self.order), ignore_index=True)

    def frame(self, rows: pa.Table) -> pd.DataFrame:
        """Rows that a query gave, with the schema's columns and types; sessions as datetime64."""
        return _widened(rows, self.schema).to_pandas(date_as_object=False)

    def _commit(self, table: DeltaTable | None, rows: pa.Table) -> None:
        """Add the rows on top of the version that was read; of many small files one is made, with them."""
        if table is None:
            add = write_file(self._store, self.name, rows)
            with committing(self._store, self.name, 0) as properties:
                create_table_with_add_actions(  # of two creators one loses
                    self.url,
                    Schema.from_arrow(self.schema),
                    [add],
                    configuration=CONFIGURATION,
                    storage_options=self._store.table_options,
                    commit_properties=properties,
                )
            return
        self._add_columns(table)
        files = data_files(table)
        joined = files.loc[files["size_bytes"] < SMALL_BYTES]
        joined = joined if len(joined) + 1 >= MAX_FILES else joined.head(0)
        rows = pa.concat_tables([*map(self._rows_of, joined["path"]), rows])
        actions = [write_file(self._store, self.name, rows), *removals(joined)]
        with committing(self._store, self.name, table.version() + 1) as properties:
            table.create_write_transaction(actions, "append", table.schema(), commit_properties=properties)

    def _add_columns(self, table: DeltaTable) -> None:
        """Commit the columns that a table of an earlier release lacks; its rows have nulls there."""
        known = {field.name for field in table.schema().fields}
        if lacking := [field for field in self.schema if field.name not in known]:
            with committing(self._store, self.name, table.version() + 1) as properties:
                table.alter.add_columns(Schema.from_arrow(pa.schema(lacking)).fields, commit_properties=properties)

    def _rows_of(self, path: str) -> pa.Table:
        """The rows of one data file, checked as it is about to be replaced. Raises StoreError."""
        content, place = read_data_file(self._store, f"{self.name}/{path}"), f"{self.url}/{path}"
        with reading(place):
            return _widened(in_full(open_parquet(io.BytesIO(content), place).read(), place), self.schema)


def _widened(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in a schema, with nulls in the columns that they lack, being of an earlier release."""
    for name in set(schema.names) - set(rows.schema.names):
        rows = rows.append_column(name, pa.nulls(rows.num_rows))
    return rows.select(schema.names).cast(schema)


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
        content = to_arrow(rows)
        key = f"{INTENTS}/{version:020d}/{uuid4().hex}-{sha256(content)}.arrow"
        put(self._store, key, content)
        return key

    def complete(self) -> None:
        """Add the rows of every intent whose prices were committed, and forget those whose prices never will be."""
        for key in intents(self._store):
            metadata = _metadata_of(self._store, "prices", int(key.split("/")[1]))
            if metadata is None:
                continue  # not committed yet
            with suppress(FileNotFoundError):  # another run has completed it meanwhile
                if metadata.get(COMMITTED) == key:
                    self.add(from_arrow(get_unchanged(self._store, key)))
                delete(self._store, key)

    def sessions(self) -> pd.Series:
        """How many sessions of each ticker (the index) were ever restated."""
        return self.select("DISTINCT ticker, session").to_pandas().value_counts("ticker").rename("restated")


def intents(store: Store) -> list[str]:
    """The keys of the intents that no run has completed yet."""
    return [entry.path for entry in entries(store, INTENTS)]
