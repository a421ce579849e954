"""The rows that broke a rule, each with the rule, as long as anyone wants to look at them."""

import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import TableNotFoundError

from storage.schemas import QUARANTINE, conform
from storage.store import Store

KEY = ["ticker", "session", "rule", "value", "source"]


class QuarantineTable:
    """Quarantined rows; the same row from the same source is kept once, with the time at which it was first seen."""

    def __init__(self, store: Store) -> None:
        self._url = store.table_url("quarantine")
        self._options = store.table_options

    def add(self, rows: pd.DataFrame) -> int:
        """Keep the rows (ticker, session, rule, value, source, seen_at) that are not there yet; returns how many."""
        known = self.read()[KEY].assign(known=True)
        marked = rows.drop_duplicates(KEY).astype({"session": known["session"].dtype}).merge(known, on=KEY, how="left")
        fresh = marked.loc[marked["known"].isna(), QUARANTINE.names]
        if len(fresh):
            table = conform(fresh, QUARANTINE)
            write_deltalake(
                self._url,
                table,
                mode="append",
                storage_options=self._options,
                configuration={"delta.enableExpiredLogCleanup": "false"},
            )
        return len(fresh)

    def read(self, ticker: str | None = None) -> pd.DataFrame:
        """All rows, or a ticker's: ticker, session (datetime64), rule, value, source, seen_at; by the first three."""
        try:
            table = DeltaTable(self._url, storage_options=self._options)
        except TableNotFoundError:
            arrow = QUARANTINE.empty_table()
        else:
            arrow = pa.table(
                QueryBuilder().register("quarantine", table).execute("select * from quarantine").read_all()
            ).cast(QUARANTINE)
        rows = arrow.to_pandas(date_as_object=False)
        chosen = rows if ticker is None else rows[rows["ticker"] == ticker]
        return chosen.sort_values(["ticker", "session", "rule"]).reset_index(drop=True)
