"""Delta tables to which rows are only ever added, and that are read as a whole: quarantine and restatements."""

import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import TableNotFoundError

from storage.prices import CONFIGURATION
from storage.schemas import conform
from storage.store import Store


class Additions:
    """One such table of a store."""

    def __init__(self, store: Store, name: str, schema: pa.Schema) -> None:
        self._url, self._options = store.table_url(name), store.table_options
        self._name, self._schema = name, schema

    def add(self, rows: pd.DataFrame) -> None:
        """Add the rows (the schema's columns) in one commit; none are no commit. Raises ValueError."""
        if len(rows):
            write_deltalake(
                self._url,
                conform(rows, self._schema),
                mode="append",
                storage_options=self._options,
                configuration=CONFIGURATION,
            )

    def query(self, columns: str) -> pa.Table:
        """The columns, as SQL has them, of every row; the schema without rows where there is no table."""
        try:
            table = DeltaTable(self._url, storage_options=self._options)
        except TableNotFoundError:
            return self._schema.empty_table()
        return pa.table(QueryBuilder().register(self._name, table).execute(f"SELECT {columns} FROM {self._name}"))

    def rows(self) -> pd.DataFrame:
        """Every row, in no order; sessions as datetime64."""
        return self.query("*").cast(self._schema).to_pandas(date_as_object=False)
