"""The data files of the prices table: those that a condition opens, and new ones with what Delta's log says of them.

A condition names bucket and year too, so that only their files are opened. A file is the sorted rows of one partition.
It is written here, not by Delta's own writer, for two reasons. However many rows a commit has, only one bucket of them
is in memory. And a flipped bit can be found: Delta's writer knows no checksums, so the file's name carries the sha256
of its content (`volcast verify` compares them).
"""

import json
import re
import time
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from storage.append_tables import among, literal
from storage.artifacts import sha256
from storage.price_rows import bucket_of
from storage.schemas import BARS
from storage.store import Store, put

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
    files = pa.table(table.get_add_actions(flatten=True)).to_pandas()
    files = files.rename(columns={"partition.bucket": "bucket", "partition.year": "year"})
    wanted = rows.group_by(PARTITION).aggregate([]).to_pandas()
    return files[["path", "size_bytes", *PARTITION]].merge(wanted, on=PARTITION)


def removals(files: pd.DataFrame) -> list[RemoveAction]:
    """The files of `files_of`, for a commit to replace."""
    now = int(time.time() * 1000)
    return [
        RemoveAction(file["path"], True, now, file["size_bytes"], {name: str(file[name]) for name in PARTITION})
        for file in files.to_dict("records")
    ]


def write_files(store: Store, table: str, rows: pa.Table) -> list[AddAction]:
    """Write `rows` (`PRICES`, sorted by bucket, year, ticker, session), a file a partition, for a commit to name."""
    partitions = rows["bucket"].to_numpy().astype(np.int64) * 10_000 + rows["year"].to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(partitions)) + 1).tolist(), rows.num_rows]
    return [_write(store, table, rows.slice(start, end - start)) for start, end in pairwise(starts)]


def recorded_sha256(path: str) -> str | None:
    """The sha256 in a data file's name, or None for a file of Delta's own writer."""
    found = re.search(r"-([0-9a-f]{64})\.parquet$", path)
    return found[1] if found else None


def _write(store: Store, table: str, rows: pa.Table) -> AddAction:
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows.select(BARS.names),
        sink,
        row_group_size=ROW_GROUP,
        compression="zstd",
        use_dictionary=FEW_VALUES,  # pyright: ignore[reportArgumentType]  # documented: a list of columns
        write_page_checksum=True,
    )
    content = sink.getvalue().to_pybytes()
    partition = {name: str(rows[name][0].as_py()) for name in PARTITION}
    folder = "/".join(f"{name}={value}" for name, value in partition.items())
    # The uuid is of this one attempt: no two commits share a file, so that one may go without the other.
    path = f"{folder}/{uuid4().hex[:12]}-{sha256(content)}.parquet"
    put(store, f"{table}/{path}", content)
    return AddAction(path, len(content), partition, int(time.time() * 1000), True, _statistics(rows))


def _statistics(rows: pa.Table) -> str:
    """What lets a reader pass over the file: the extent of tickers and sessions."""
    tickers, sessions = rows["ticker"], rows["session"].to_numpy()
    low = {"ticker": tickers[0].as_py(), "session": str(sessions.min())}
    high = {"ticker": tickers[-1].as_py(), "session": str(sessions.max())}
    nulls = dict.fromkeys(low, 0)
    return json.dumps({"numRecords": rows.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls})
