"""The prices table: raw bars of every ticker, each version readable for ever.

Partitioned by bucket = crc32(ticker) % 16 and year, sorted by ticker and session. An upsert is one commit. For one
bucket after the other, so that no more than a bucket is ever in memory:
1. conform the bars, collapse equal rows, refuse two different rows of one key;
2. compare with the rows that the newest version has for these keys, within the rounding of a download
   (`storage.price_rows.TOLERANCE`: there the stored value stays);
3. only new rows: write them as small files; a changed row, or a partition of too many small files: write the touched
   partitions anew (Delta's MERGE writes them unsorted: reading one ticker then scans them all).
Then all files in one commit, or none where nothing is new or changed. If another writer was faster, start again.
A writer that dies before its commit leaves files that no version names; `volcast gc` takes them away.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from storage.adjustment import adjusted_close, without_splits
from storage.append_tables import (
    COMMITTED,
    CONFIGURATION,
    NO_REBASE,
    RestatementTable,
    committing,
    literal,
    query,
    retried,
)
from storage.errors import NotStored, StoreError, first_line
from storage.price_files import PARTITION, around, files_of, removals, touched, where, write_files
from storage.price_rows import (
    bucket_of,
    changed_values,
    compare,
    digest,
    joined_digest,
    keys_of,
    sorted_rows,
    ticker_digests,
    with_partition,
    without_duplicates,
)
from storage.schemas import BARS, PRICES, conform
from storage.store import Store

READ_COLUMNS = ["ticker", "session", "open", "high", "low", "close", "adj_close", "volume", "dividend", "split"]
TABLE = "prices"
MAX_FILES_A_PARTITION = 24  # about a month of one-session appends before they are joined
READ_AT_ONCE = 64  # tickers; each query costs more than it reads of a few, and beyond it is for memory
COVERAGE = ["ticker", "min(session) AS first", "max(session) AS last", "count(*) AS rows"]
LATER_SPLITS = "exp(sum(CASE WHEN split > 0 THEN ln(split) ELSE 0 END)) AS shares"  # for one share now

Found = TypeVar("Found")

_answers: dict[str, tuple[Any, dict[Hashable, Any]]] = {}  # URL of a table -> version, what was asked -> what was found


@dataclass(frozen=True)
class Commit:
    """What an upsert did; `version` is the present one where nothing was committed."""

    version: int
    inserted: int
    updated: int
    unchanged: int
    # what history said before: ticker, session, column, old, new (storage/price_rows.py); of later dividends, nothing
    changes: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False, repr=False)


@dataclass(frozen=True)
class Extent:
    """What some rows of a version are, without the rows; `tickers` are those that have one."""

    tickers: tuple[str, ...]
    rows: int
    first_session: date | None
    last_session: date | None
    digest: str


class PriceTable:
    """The table `prices` of a store."""

    digest = staticmethod(digest)

    def __init__(self, store: Store) -> None:
        self._store, self._url, self._options = store, store.table_url(TABLE), store.table_options

    def upsert(self, bars: pd.DataFrame, *, source: str = "") -> Commit:
        """Insert new rows and replace changed ones, in one commit, or in none where nothing is new or changed.

        `bars`: the columns of `storage.schemas.BARS`, one row or more, in any order. Raises ValueError (a value that
        the schema does not hold exactly, or two different rows of one ticker and session), VersionConflict.
        """
        if bars.empty:
            raise ValueError(
                "Expected one bar or more, got an empty frame. A source without rows says so by its outcome."
            )
        return self.upsert_parts([bars], source=source)

    def upsert_parts(self, parts: Iterable[pd.DataFrame], *, source: str = "") -> Commit:
        """`upsert` of more bars than fit into memory, in one commit; then the restatements, with the bars' `source`.

        `parts`: frames as `upsert` takes them, no two with tickers of one bucket (ValueError); gone through again
        when another writer was faster. The files of a commit that failed stay for `volcast gc`: a commit whose answer
        was lost looks like that, too.
        """
        restatements = RestatementTable(self._store)

        def attempt() -> Commit:
            upsert = _Upsert(self._store, self._open() if self._exists() else None)
            for bars in parts:
                upsert.add(bars)
            return upsert.commit(self._url, lambda changes, version: restatements.intend(changes, version, source))

        commit = retried(self._url, attempt)
        restatements.complete()
        return commit

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
        frame = _select(table, BARS.names, where(wanted, first, last)).to_pandas(date_as_object=False)
        frame = frame.sort_values(["ticker", "session"], ignore_index=True)
        frame["session"] = frame["session"].astype("datetime64[s]")
        if last is not None:
            later = f"session > {literal(last)} AND {where(wanted, last, None)} GROUP BY ticker"
            after = _select(table, ["ticker", LATER_SPLITS], later).to_pandas().set_index("ticker")["shares"]
            goes_on = frame["ticker"].isin(after.index)
            frame["later_adjustment"] = frame["later_adjustment"].mask(goes_on, 1.0)
            shares = frame["ticker"].map(after).astype("float64").fillna(1.0)  # of no rows, the tickers' dtype stays
            frame = without_splits(frame, shares)
        return frame.assign(adj_close=adjusted_close(frame)).loc[:, READ_COLUMNS]

    def describe(
        self, tickers: Iterable[str] | None = None, *, last: date | None = None, version: int | None = None
    ) -> Extent:
        """What `read` would give, of many tickers a bucket in memory at a time. Raises NotStored."""
        wanted = tuple(self.tickers(version) if tickers is None else sorted(set(tickers)))
        table = self._open(version)
        return _remembered(table, (wanted, last), lambda: self._describe(wanted, last, table.version()))

    def _describe(self, tickers: tuple[str, ...], last: date | None, version: int) -> Extent:
        buckets = pd.Series(tickers, dtype="str").groupby([bucket_of(ticker) for ticker in tickers])
        digests: dict[str, str] = {}
        count, sessions = 0, []
        for some in [tickers] if len(tickers) <= READ_AT_ONCE else [group for _, group in buckets]:
            frame = self.read(some, last=last, version=version)
            digests |= ticker_digests(frame)
            count += len(frame)
            sessions += [session.date() for session in frame["session"].agg(["min", "max"]) if len(frame)]
        ends = (min(sessions), max(sessions)) if sessions else (None, None)
        return Extent(tuple(sorted(digests)), count, *ends, joined_digest(digests))

    def tickers(self, version: int | None = None) -> list[str]:
        """Tickers that have a row, sorted. Raises NotStored."""
        return list(self.coverage(version).index)

    def last_sessions(self, version: int | None = None) -> dict[str, date]:
        """The last session of each ticker. Raises NotStored."""
        return {str(ticker): last.date() for ticker, last in self.coverage(version)["last"].items()}

    def coverage(self, version: int | None = None) -> pd.DataFrame:
        """A row a ticker, which is the index, sorted: first and last session (datetime64), rows. Raises NotStored."""
        table = self._open(version)
        found = _remembered(table, "coverage", lambda: _select(table, COVERAGE, "true GROUP BY ticker ORDER BY ticker"))
        return found.to_pandas(date_as_object=False).set_index("ticker")

    def sessions(self, tickers: Iterable[str]) -> dict[str, pd.DatetimeIndex]:
        """The sessions that are stored of each of the tickers, ascending. Raises NotStored."""
        found = _select(self._open(), ["ticker", "session"], where(sorted(set(tickers)), None, None))
        rows = found.to_pandas(date_as_object=False).sort_values(["ticker", "session"])
        return {str(name): pd.DatetimeIndex(group) for name, group in rows.groupby("ticker")["session"]}

    def raw(self, tickers: Iterable[str], *, first: date) -> pd.DataFrame:
        """The bars from `first` on as they are stored: the columns of BARS, in no order. Raises NotStored."""
        found = _select(self._open(), BARS.names, where(sorted(set(tickers)), first, None))
        return found.to_pandas(date_as_object=False)

    def _exists(self) -> bool:
        return DeltaTable.is_deltatable(self._url, storage_options=self._options)

    def _open(self, version: int | None = None) -> DeltaTable:
        if not self._exists():
            raise NotStored(f"{self._url}: no prices are stored yet. Ingest some first.")
        try:
            newest = DeltaTable(self._url, storage_options=self._options)
        except (DeltaError, OSError) as error:
            raise StoreError(f"{self._url} cannot be opened: {first_line(error)}. See: volcast verify") from error
        if version is None or version == newest.version():
            return newest
        if not 0 <= version < newest.version():
            raise NotStored(f"{self._url}: there is no version {version}; the newest is {newest.version()}.")
        try:
            return DeltaTable(self._url, version=version, storage_options=self._options)
        except DeltaError as error:
            raise NotStored(f"{self._url}: version {version} cannot be read any more: {first_line(error)}") from error


@dataclass
class _Upsert:
    """An upsert on top of one version of the table (None: it makes the table): its files so far, and their counts."""

    store: Store
    table: DeltaTable | None
    adds: list[AddAction] = field(default_factory=list)
    removes: list[RemoveAction] = field(default_factory=list)
    buckets: set[int] = field(default_factory=set)
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    changes: list[pd.DataFrame] = field(default_factory=list)

    def add(self, bars: pd.DataFrame) -> None:
        """Write the files that `bars` need. Raises ValueError."""
        source = without_duplicates(with_partition(conform(bars, BARS)))
        buckets = source["bucket"].unique().to_pylist()
        if not self.buckets.isdisjoint(buckets):
            raise ValueError(f"Expected parts without a common bucket; {self.buckets & set(buckets)} came twice.")
        self.buckets.update(buckets)
        for bucket in buckets:
            self._add_bucket(source.filter(pc.field("bucket") == bucket))

    def _add_bucket(self, source: pa.Table) -> None:
        is_new, is_changed = np.ones(source.num_rows, dtype=bool), np.zeros(source.num_rows, dtype=bool)
        if self.table is not None:
            stored = _select(self.table, PRICES.names, around(source)).cast(PRICES)
            is_new, is_changed, before = compare(source, stored)
            self.changes.append(changed_values(before, source.filter(pa.array(is_changed))))
        self.inserted += int(is_new.sum())
        self.updated += int(is_changed.sum())
        self.unchanged += int((~is_new & ~is_changed).sum())
        rows = source.filter(pa.array(is_new | is_changed))
        if not rows.num_rows:
            return
        if self.table is not None:
            present = files_of(self.table, rows)
            if is_changed.any() or (present.value_counts(PARTITION) >= MAX_FILES_A_PARTITION).any():
                rows = _with_the_others(self.table, rows)
                self.removes += removals(present)
        self.adds += write_files(self.store, TABLE, sorted_rows(rows))

    def commit(self, url: str, intend: Callable[[pd.DataFrame, int], str]) -> Commit:
        """Commit the files, if there are any. Raises CommitFailedError, StoreNotWritable."""
        counts = (self.inserted, self.updated, self.unchanged)
        if self.table is None:
            with committing(self.store, url, is_new=True):
                create_table_with_add_actions(  # table and first rows in one commit: of two creators one loses
                    url,
                    Schema.from_arrow(PRICES),
                    self.adds,
                    partition_by=PARTITION,
                    configuration=CONFIGURATION,
                    storage_options=self.store.table_options,
                    commit_properties=NO_REBASE,
                )
            return Commit(0, *counts)
        if not self.adds:
            return Commit(self.table.version(), *counts)
        changes = pd.concat(self.changes, ignore_index=True)
        version = self.table.version() + 1
        intent = {} if changes.empty else {COMMITTED: intend(changes, version)}
        properties = CommitProperties(max_commit_retries=0, custom_metadata=intent)  # as NO_REBASE
        actions, schema = [*self.adds, *self.removes], self.table.schema()
        with committing(self.store, url, is_new=False):
            self.table.create_write_transaction(actions, "append", schema, PARTITION, commit_properties=properties)
        return Commit(version, *counts, changes)


def _select(table: DeltaTable, columns: Sequence[str], condition: str) -> pa.Table:
    """The columns (SQL) of the rows that meet the condition, in no order. Raises StoreError."""
    return query(f"SELECT {', '.join(columns)} FROM prices WHERE {condition}", prices=table)


def _with_the_others(table: DeltaTable, rows: pa.Table) -> pa.Table:
    """All rows of the partitions that `rows` are in, with `rows` in place of the old ones."""
    whole = _select(table, PRICES.names, touched(rows)).cast(PRICES)
    stays = ~np.isin(*keys_of(whole, rows))
    return pa.concat_tables([whole.filter(pa.array(stays)), rows])


def _remembered(table: DeltaTable, question: Hashable, find: Callable[[], Found]) -> Found:
    """What was found in this version before: it never changes. Of each table one version's answers are kept."""
    version = (table.metadata().id, table.version())
    if _answers.get(table.table_uri, (None,))[0] != version:
        _answers[table.table_uri] = (version, {})
    answers = _answers[table.table_uri][1]
    if question not in answers:
        answers[question] = find()
    return answers[question]
