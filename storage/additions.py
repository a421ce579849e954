"""Delta tables to which rows are only ever added: quarantine, restatements, events, forecasts and scores."""

from collections.abc import Sequence
from contextlib import suppress

import pandas as pd
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from storage.errors import StoreNotWritable, VersionConflict, first_line
from storage.schemas import conform
from storage.store import Store

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
