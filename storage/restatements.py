"""What history said before, and what it says since: one row for each changed value of an old row.

Versions of the prices hold the same facts; this table is where to look for them, and what can be counted quickly.
"""

import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import TableNotFoundError

from storage.schemas import RESTATEMENTS, conform
from storage.store import Store


class RestatementTable:
    """The table `restatements` of a store; rows are only ever added."""

    def __init__(self, store: Store) -> None:
        self._url, self._options = store.table_url("restatements"), store.table_options

    def add(self, rows: pd.DataFrame) -> None:
        """Keep the rows (the columns of RESTATEMENTS; none are no commit)."""
        if len(rows):
            write_deltalake(
                self._url,
                conform(rows, RESTATEMENTS),
                mode="append",
                storage_options=self._options,
                configuration={"delta.enableExpiredLogCleanup": "false"},
            )

    def read(self) -> pd.DataFrame:
        """All rows, by version_after, ticker, session and column; sessions as datetime64."""
        rows = self._query("*").cast(RESTATEMENTS).to_pandas(date_as_object=False)
        return rows.sort_values(["version_after", "ticker", "session", "column"], ignore_index=True)

    def sessions(self) -> pd.Series:
        """How many sessions of each ticker (the index) were ever restated."""
        counts = self._query("DISTINCT ticker, session").to_pandas().value_counts("ticker")
        return counts.rename("restated")

    def _query(self, columns: str) -> pa.Table:
        try:
            table = DeltaTable(self._url, storage_options=self._options)
        except TableNotFoundError:
            return RESTATEMENTS.empty_table()
        return pa.table(QueryBuilder().register("restatements", table).execute(f"SELECT {columns} FROM restatements"))
