"""The data files of the prices table: those that a condition opens, and new ones with what Delta's log says of them.

A condition names bucket and year too, so that only their files are opened. A file is the sorted rows of one partition.
However many rows a commit has, only one bucket of them is in memory, for which Delta's own writer has no way.
"""

from collections.abc import Sequence
from datetime import date
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from volcast.storage.append_tables import among, data_files, literal, write_file
from volcast.storage.price_rows import bucket_of
from volcast.storage.schemas import BARS
from volcast.storage.store import Store

PARTITION = ["bucket", "year"]
ROW_GROUP = 16_384
FEW_VALUES = ["ticker", "dividend", "split", "later_adjustment"]  # the others are faster and no larger without
MANY_TICKERS = 100  # to be named one by one; their buckets are named in any case


def where(tickers: Sequence[str] | None, first: date | None, last: date | None) -> str:
    """The rows of some tickers (by default all) from session `first` to `last`."""
    conditions = ["true"]
    if tickers is not None:
        conditions += [among("bucket", map(bucket_of, tickers)), among("ticker", tickers)]
    if first is not None:
        conditions += [f"year >= {first.year}", f"session >= {literal(first)}"]
    if last is not None:
        conditions += [f"year <= {last.year}", f"session <= {literal(last)}"]
    return " AND ".join(conditions)


def around(rows: pa.Table) -> str:
    """Every row that an upsert of `rows` could change, and some more."""
    tickers = rows["ticker"].unique().to_pylist()
    sessions = rows["session"].to_numpy()
    bounds = where(tickers if len(tickers) <= MANY_TICKERS else None, sessions.min().item(), sessions.max().item())
    return f"({touched(rows)}) AND {bounds}"


def touched(rows: pa.Table) -> str:
    """All rows of the partitions that `rows` are in."""
    buckets_of = rows.group_by(PARTITION).aggregate([]).to_pandas().groupby("year")["bucket"]
    return " OR ".join(f"(year = {year} AND {among('bucket', buckets.tolist())})" for year, buckets in buckets_of)


def files_of(table: DeltaTable, rows: pa.Table) -> pd.DataFrame:
    """The data files of the partitions that `rows` are in: path, size_bytes, bucket, year."""
    files = data_files(table).rename(columns={"partition.bucket": "bucket", "partition.year": "year"})
    wanted = rows.group_by(PARTITION).aggregate([]).to_pandas()
    return files[["path", "size_bytes", *PARTITION]].merge(wanted, on=PARTITION)


def write_files(store: Store, table: str, rows: pa.Table) -> list[AddAction]:
    """Write `rows` (`PRICES`, sorted by bucket, year, ticker, session), a file a partition, for a commit to name."""
    partitions = rows["bucket"].to_numpy().astype(np.int64) * 10_000 + rows["year"].to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(partitions)) + 1).tolist(), rows.num_rows]
    return [_write(store, table, rows.slice(start, end - start)) for start, end in pairwise(starts)]


def _write(store: Store, table: str, rows: pa.Table) -> AddAction:
    partition = {name: str(rows[name][0].as_py()) for name in PARTITION}
    return write_file(
        *(store, table, rows.select(BARS.names), partition),
        row_group_size=ROW_GROUP,
        use_dictionary=FEW_VALUES,
    )
