"""What history said before, and what it says since: one row for each changed value of an old row.

Versions of the prices hold the same facts; this table is where to look for them, and what can be counted quickly.
"""

import pandas as pd

from storage.additions import Additions
from storage.queries import among
from storage.schemas import RESTATEMENTS
from storage.store import Store

KEY = ["ticker", "session", "column", "version_after"]


class RestatementTable:
    """The table `restatements` of a store; rows are only ever added."""

    def __init__(self, store: Store) -> None:
        self._table = Additions(store, "restatements", RESTATEMENTS)

    def add(self, rows: pd.DataFrame) -> int:
        """Keep the rows (the columns of RESTATEMENTS) that are not there yet; returns how many."""
        if rows.empty:
            return 0
        return self._table.add_new(rows, KEY, among=among("version_after", rows["version_after"]))

    def read(self) -> pd.DataFrame:
        """All rows, by version_after, ticker, session and column; sessions as datetime64."""
        return self._table.rows().sort_values(["version_after", "ticker", "session", "column"], ignore_index=True)

    def sessions(self) -> pd.Series:
        """How many sessions of each ticker (the index) were ever restated."""
        counts = self._table.query("DISTINCT ticker, session").to_pandas().value_counts("ticker")
        return counts.rename("restated")
