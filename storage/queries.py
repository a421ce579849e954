"""SQL on the prices table: conditions that name bucket and year too, so that only their files are opened."""

from collections.abc import Iterable, Sequence
from datetime import date

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from storage.errors import StoreError, first_line
from storage.rows import bucket_of


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
