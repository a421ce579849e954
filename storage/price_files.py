"""The data files of the prices table: sorted rows of one partition as Parquet, and what Delta's log says of them.

They are written here, not by Delta's own writer, for two reasons. However many rows a commit has, only one bucket of
them is in memory. And a flipped bit can be found: Delta's writer knows no checksums, so the file's name carries the
sha256 of its content (`volcast verify` compares them).

SQL on the prices table: conditions that name bucket and year too, so that only their files are opened.
"""

import json
import re
import time
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import pairwise
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction

from storage.artifacts import sha256
from storage.errors import StoreError, first_line
from storage.price_rows import bucket_of
from storage.schemas import BARS
from storage.store import Store, put

ROW_GROUP = 16_384
FEW_VALUES = ["ticker", "dividend", "split", "later_adjustment"]  # the others are faster and no larger without


def write_files(store: Store, table: str, rows: pa.Table) -> list[AddAction]:
    """Lay down `rows` (`PRICES`, sorted by bucket, year, ticker, session), a file a partition, for a commit to name."""
    return [_write(store, table, part) for part in _partitions(rows)]


def recorded_sha256(path: str) -> str | None:
    """The sha256 in a data file's name, or None for a file of Delta's own writer."""
    found = re.search(r"-([0-9a-f]{64})\.parquet$", path)
    return found[1] if found else None


def _partitions(rows: pa.Table) -> list[pa.Table]:
    place = rows["bucket"].to_numpy().astype(np.int64) * 10_000 + rows["year"].to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(place)) + 1).tolist(), rows.num_rows]
    return [rows.slice(start, end - start) for start, end in pairwise(starts)]


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
    partition = {name: str(rows[name][0].as_py()) for name in ("bucket", "year")}
    folder = "/".join(f"{name}={value}" for name, value in partition.items())
    # The first part is of this one attempt: no two commits share a file, so that one may go without the other.
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


def query(table: DeltaTable, columns: Sequence[str], condition: str) -> pa.Table:
    """The columns of the rows that meet the condition, in no order. Raises StoreError (a data file cannot be read)."""
    sql = f"SELECT {', '.join(columns)} FROM prices WHERE {condition}"
    try:
        return pa.table(QueryBuilder().register("prices", table).execute(sql))
    except (pa.ArrowException, DeltaError, OSError) as error:
        raise StoreError(
            f"{table.table_uri}: version {table.version()} cannot be read: {first_line(error)}. See: volcast verify"
        ) from error


def where(tickers: Sequence[str] | None, first: date | None, last: date | None) -> str:
    """The rows asked for; year and bucket are named too, so that only their files are opened."""
    parts = ["true"]
    if tickers is not None:
        parts += [among("bucket", map(bucket_of, tickers)), among("ticker", tickers)]
    if first is not None:
        parts += [f"year >= {first.year}", f"session >= {literal(first)}"]
    if last is not None:
        parts += [f"year <= {last.year}", f"session <= {literal(last)}"]
    return " AND ".join(parts)


def around(source: pa.Table) -> str:
    """Every row that an upsert of `source` could change, and some more."""
    tickers = source["ticker"].unique().to_pylist()
    sessions = source["session"].to_numpy()
    bounds = where(tickers if len(tickers) <= 100 else None, sessions.min().item(), sessions.max().item())
    return f"({touched(source)}) AND {bounds}"


def touched(rows: pa.Table) -> str:
    """The partitions of the rows."""
    pairs = rows.group_by(["year", "bucket"]).aggregate([]).to_pandas()
    years = pairs.groupby("year")["bucket"]
    return " OR ".join(f"(year = {year} AND {among('bucket', buckets.tolist())})" for year, buckets in years)


def among(column: str, values: Iterable[object]) -> str:
    listed = ", ".join(sorted({literal(value) for value in values}))
    return f"{column} IN ({listed})" if listed else "false"


def literal(value: object) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"DATE '{value.isoformat()}'" if isinstance(value, date) else str(value)
