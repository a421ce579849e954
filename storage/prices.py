"""The prices table: raw bars of every ticker, each version readable for ever.

Partitioned by bucket = crc32(ticker) % 16 and year, sorted by ticker and session. An upsert is one commit:
1. conform the bars, collapse equal rows, refuse two different rows of one key;
2. compare with the rows that the newest version has for these keys, within the rounding of a download
   (`storage.rows.TOLERANCE`: there the stored value stays); nothing new or changed: no commit;
3. only new rows: append them as small files; a changed row, or a partition of too many small files: replace the
   touched partitions by their sorted rows (Delta's MERGE writes them unsorted: reading one ticker then scans them all);
4. if another writer committed since 2, start again at 2.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, QueryBuilder, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from storage.adjustment import adjusted_close, without_splits
from storage.errors import NotStored, VersionConflict
from storage.rows import (
    bucket_of,
    changed_values,
    compare,
    digest,
    keys_of,
    sorted_rows,
    with_partition,
    without_duplicates,
)
from storage.schemas import BARS, PRICES, conform
from storage.store import Store

READ_COLUMNS = ["ticker", "session", "open", "high", "low", "close", "adj_close", "volume", "dividend", "split"]
CONFIGURATION = {"delta.enableExpiredLogCleanup": "false"}  # or old versions vanish after 30 days
WRITER = WriterProperties(compression="ZSTD", max_row_group_size=16_384)
NO_REBASE = CommitProperties(max_commit_retries=0)  # rows were compared with one version: commit on top of it or not
MAX_FILES_A_PARTITION = 24  # about a month of one-session appends before they are joined
MAX_LOST_RACES = 50
LATER_SPLITS = "exp(sum(CASE WHEN split > 0 THEN ln(split) ELSE 0 END)) AS shares"  # for one share now


@dataclass(frozen=True)
class Commit:
    """What an upsert did; `version` is the present one where nothing was committed."""

    version: int
    inserted: int
    updated: int
    unchanged: int
    # what history said before: ticker, session, column, old, new (storage/rows.py); of later dividends, nothing
    changes: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False, repr=False)


class PriceTable:
    """The table `prices` of a store."""

    digest = staticmethod(digest)

    def __init__(self, store: Store) -> None:
        self._url, self._options = store.table_url("prices"), store.table_options

    def upsert(self, bars: pd.DataFrame) -> Commit:
        """Insert new rows and replace changed ones, in one commit, or in none where nothing is new or changed.

        `bars`: the columns of `storage.schemas.BARS`, one row or more, in any order. Raises ValueError (a value that
        the schema does not hold exactly, or two different rows of one ticker and session), VersionConflict.
        """
        if bars.empty:
            raise ValueError(
                "Expected one bar or more, got an empty frame. A source without rows says so by its outcome."
            )
        source = without_duplicates(with_partition(conform(bars, BARS)))
        for _ in range(MAX_LOST_RACES):
            try:
                return self._upsert_once(source) if self._exists() else self._create(source)
            except CommitFailedError:
                continue
        raise VersionConflict(f"{self._url}: lost the next version {MAX_LOST_RACES} times. See what else writes there.")

    def version(self) -> int | None:
        """The newest version, or None where there is no table."""
        return self._open().version() if self._exists() else None

    def read(
        self,
        tickers: Iterable[str] | None = None,
        *,
        first: date | None = None,
        last: date | None = None,
        version: int | None = None,
    ) -> pd.DataFrame:
        """Rows with their adjusted close, sorted by ticker and session; all tickers and sessions by default.

        Columns: ticker str, session datetime64[s], open, high, low, close, adj_close float64, volume int64 (shares),
        dividend, split float64. A ticker without rows is simply absent. `last` means "as known at that close":
        dividends and splits after it do not count. Raises NotStored (no table, or no such version).
        """
        wanted = None if tickers is None else sorted(set(tickers))
        table = self._open(version)
        found = _query(table, BARS.names, _where(wanted, first, last))
        frame = found.to_pandas(date_as_object=False).sort_values(["ticker", "session"], ignore_index=True)
        frame["session"] = frame["session"].astype("datetime64[s]")
        if last is not None:
            later = f"session > {_literal(last)} AND {_where(wanted, last, None)} GROUP BY ticker"
            after = _query(table, ["ticker", LATER_SPLITS], later).to_pandas().set_index("ticker")["shares"]
            goes_on = frame["ticker"].isin(after.index)
            frame["later_adjustment"] = frame["later_adjustment"].mask(goes_on, 1.0)
            frame = without_splits(frame, frame["ticker"].map(after).fillna(1.0))
        return frame.assign(adj_close=adjusted_close(frame)).loc[:, READ_COLUMNS]

    def tickers(self, version: int | None = None) -> list[str]:
        """Tickers that have a row, sorted. Raises NotStored."""
        return sorted(self.last_sessions(version))

    def last_sessions(self, version: int | None = None) -> dict[str, date]:
        """The last session of each ticker. Raises NotStored."""
        return {str(ticker): last.date() for ticker, last in self.coverage(version)["last"].items()}

    def coverage(self, version: int | None = None) -> pd.DataFrame:
        """A row a ticker, which is the index, sorted: first and last session (datetime64), rows. Raises NotStored."""
        columns = ["ticker", "min(session) AS first", "max(session) AS last", "count(*) AS rows"]
        found = _query(self._open(version), columns, "true GROUP BY ticker ORDER BY ticker")
        return found.to_pandas(date_as_object=False).set_index("ticker")

    def sessions(self, tickers: Iterable[str]) -> dict[str, pd.DatetimeIndex]:
        """The sessions that are stored of each of the tickers, ascending. Raises NotStored."""
        found = _query(self._open(), ["ticker", "session"], _where(sorted(set(tickers)), None, None))
        rows = found.to_pandas(date_as_object=False).sort_values(["ticker", "session"])
        return {str(name): pd.DatetimeIndex(group) for name, group in rows.groupby("ticker")["session"]}

    def raw(self, tickers: Iterable[str], *, first: date) -> pd.DataFrame:
        """The bars from `first` on as they are stored: the columns of BARS, in no order. Raises NotStored."""
        found = _query(self._open(), BARS.names, _where(sorted(set(tickers)), first, None))
        return found.to_pandas(date_as_object=False)

    def _exists(self) -> bool:
        return DeltaTable.is_deltatable(self._url, storage_options=self._options)

    def _open(self, version: int | None = None) -> DeltaTable:
        if not self._exists():
            raise NotStored(f"{self._url}: no prices are stored yet. Ingest some first.")
        newest = DeltaTable(self._url, storage_options=self._options)
        if version is None or version == newest.version():
            return newest
        if not 0 <= version < newest.version():
            raise NotStored(f"{self._url}: there is no version {version}; the newest is {newest.version()}.")
        try:
            return DeltaTable(self._url, version=version, storage_options=self._options)
        except DeltaError as error:
            raise NotStored(f"{self._url}: version {version} cannot be read any more: {error}") from error

    def _upsert_once(self, source: pa.Table) -> Commit:
        table = self._open()
        is_new, is_changed, before = compare(source, _query(table, PRICES.names, _around(source)).cast(PRICES))
        inserted, updated = int(is_new.sum()), int(is_changed.sum())
        commit = Commit(table.version(), inserted, updated, source.num_rows - inserted - updated)
        if not inserted and not updated:
            return commit
        changes = changed_values(before, source.filter(pa.array(is_changed)))
        rows = source.filter(pa.array(is_new | is_changed))
        if updated or _is_fragmented(table, rows):
            self._replace(table, rows)
        else:
            self._commit(table, sorted_rows(rows), mode="append")
        return Commit(commit.version + 1, inserted, updated, commit.unchanged, changes)

    def _create(self, source: pa.Table) -> Commit:
        """Table and first rows in one commit, so that of two creators one loses, and then upserts."""
        try:
            self._commit(self._url, sorted_rows(source), mode="error")
        except DeltaError as error:
            if self._exists():
                raise CommitFailedError("another writer made the table first") from error
            raise
        return Commit(0, source.num_rows, 0, 0)

    def _replace(self, table: DeltaTable, rows: pa.Table) -> None:
        partitions = _touched(rows)
        whole = _query(table, PRICES.names, partitions).cast(PRICES)
        stays = ~np.isin(*keys_of(whole, rows))
        joined = pa.concat_tables([whole.filter(pa.array(stays)), rows])
        self._commit(table, sorted_rows(joined), mode="overwrite", predicate=partitions)

    def _commit(
        self,
        target: DeltaTable | str,
        rows: pa.Table,
        *,
        mode: Literal["error", "append", "overwrite"],
        predicate: str | None = None,
    ) -> None:
        write_deltalake(
            target,
            rows,
            mode=mode,  # pyright: ignore[reportArgumentType]  # its overloads allow a predicate with overwrite only
            predicate=predicate,
            partition_by=["bucket", "year"],
            configuration=CONFIGURATION if mode == "error" else None,
            storage_options=self._options,
            writer_properties=WRITER,
            commit_properties=NO_REBASE,
        )


def _query(table: DeltaTable, columns: Sequence[str], where: str) -> pa.Table:
    sql = f"SELECT {', '.join(columns)} FROM prices WHERE {where}"
    return pa.table(QueryBuilder().register("prices", table).execute(sql))


def _where(tickers: Sequence[str] | None, first: date | None, last: date | None) -> str:
    """The rows asked for; year and bucket are named too, so that only their files are opened."""
    parts = ["true"]
    if tickers is not None:
        parts += [_among("bucket", map(bucket_of, tickers)), _among("ticker", tickers)]
    if first is not None:
        parts += [f"year >= {first.year}", f"session >= {_literal(first)}"]
    if last is not None:
        parts += [f"year <= {last.year}", f"session <= {_literal(last)}"]
    return " AND ".join(parts)


def _around(source: pa.Table) -> str:
    """Every row that an upsert of `source` could change, and some more."""
    tickers = source["ticker"].unique().to_pylist()
    sessions = source["session"].to_numpy()
    bounds = _where(tickers if len(tickers) <= 100 else None, sessions.min().item(), sessions.max().item())
    return f"({_touched(source)}) AND {bounds}"


def _touched(rows: pa.Table) -> str:
    """The partitions of the rows."""
    pairs = rows.group_by(["year", "bucket"]).aggregate([]).to_pandas()
    years = pairs.groupby("year")["bucket"]
    return " OR ".join(f"(year = {year} AND {_among('bucket', buckets.tolist())})" for year, buckets in years)


def _is_fragmented(table: DeltaTable, rows: pa.Table) -> bool:
    """Whether a touched partition holds so many files that they had better be joined."""
    files = pa.table(table.get_add_actions(flatten=True)).select(["partition.year", "partition.bucket"]).to_pandas()
    touched = rows.group_by(["year", "bucket"]).aggregate([]).to_pandas()
    counts = files.value_counts()
    return bool(
        (counts[counts.index.isin(list(touched.itertuples(index=False, name=None)))] >= MAX_FILES_A_PARTITION).any()
    )


def _among(column: str, values: Iterable[object]) -> str:
    listed = ", ".join(sorted({_literal(value) for value in values}))
    return f"{column} IN ({listed})" if listed else "false"


def _literal(value: object) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"DATE '{value.isoformat()}'" if isinstance(value, date) else str(value)
