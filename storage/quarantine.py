"""The rows that broke a rule, each with the rule, as long as anyone wants to look at them."""

import pandas as pd

from storage.additions import Additions
from storage.queries import among
from storage.schemas import QUARANTINE
from storage.store import Store

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
