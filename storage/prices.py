"""The prices table: raw bars of every ticker, each version readable for ever.

Partitioned by bucket = crc32(ticker) % 16 and year, sorted by ticker and session. An upsert is one commit. For one
bucket after the other, so that no more than a bucket is ever in memory:
1. conform the bars, collapse equal rows, refuse two different rows of one key;
2. compare with the rows that the newest version has for these keys, within the rounding of a download
   (`volcast.storage.price_rows.TOLERANCE`: there the stored value stays); rows that the bars do not replace, and whose
   prices are in the shares of before a split that the bars bring, are changed to the new shares (storage/rescaling.py);
3. only new rows: write them as small files; a changed row, or a partition of too many small files: write the touched
   partitions anew (Delta's MERGE writes them unsorted: reading one ticker then scans them all).
Then all files in one commit, or none where nothing is new or changed. If another writer was faster, start again.
A writer that dies before its commit leaves files that no version names; `volcast gc` takes them away.

What was known at the close of a past session (`PriceTable.as_of`):
1. the version of then is the newest one without a later session, if it reaches that session; else, as in a store that
   was filled at once, the first one that does: nothing older is known of its rows
2. where its files are kept, it is what is read; a ticker that was first stored later has the values of the first kept
   version that has them all, which is then the one that is read
3. where they are not kept, the oldest version that is stands for it, and every value that was restated in between is
   put back (storage/price_rows.py)
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from volcast.storage.adjustment import adjusted_close, without_splits
from volcast.storage.append_tables import (
    COMMITTED,
    CONFIGURATION,
    RestatementTable,
    among,
    committing,
    data_files,
    literal,
    open_table,
    query,
    removals,
    require_unchanged,
    retried,
)
from volcast.storage.errors import NotStored, StoreError
from volcast.storage.price_files import PARTITION, around, files_of, touched, where, write_files
from volcast.storage.price_rows import (
    bucket_of,
    changed_values,
    compare,
    digest,
    joined_digest,
    keys_of,
    put_back,
    sorted_rows,
    ticker_digests,
    with_partition,
    without_duplicates,
)
from volcast.storage.rescaling import SAME, in_new_shares
from volcast.storage.schemas import BARS, PRICES, conform
from volcast.storage.store import Store, entries

READ_COLUMNS = ["ticker", "session", "open", "high", "low", "close", "adj_close", "volume", "dividend", "split"]
TABLE = "prices"
MAX_FILES_A_PARTITION = 24  # about a month of one-session appends before they are joined
READ_AT_ONCE = 64  # tickers; each query costs more than it reads of a few, and beyond it is for memory
COVERAGE = ["ticker", "min(session) AS first", "max(session) AS last", "count(*) AS rows"]
BY_TICKER = "GROUP BY ticker ORDER BY ticker"
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


@dataclass(frozen=True)
class AsOf:
    """Where the prices are read that were known at the close of a past session."""

    version: int  # of the table, to be read
    values_of: int  # the version whose values count; another one where not all of them can be read there
    goes_on_to: date  # its last session; later than asked for where no version of that session was ever stored
    newcomers: tuple[str, ...] = ()  # tickers that were first stored later
    put_back: int | None = None  # values that were restated since; None where the version itself is read
    late: int = 0  # of its rows, those that came later and cannot be told from the others

    @property
    def known(self) -> int | None:
        """`values_of` for `PriceTable.read`; None where `version` says it all."""
        return None if self.values_of == self.version else self.values_of


class PriceTable:
    """The table `prices` of a store."""

    digest = staticmethod(digest)

    def __init__(self, store: Store) -> None:
        self._store, self._url = store, store.table_url(TABLE)

    def upsert(self, bars: pd.DataFrame, *, source: str = "") -> Commit:
        """Insert new rows and replace changed ones, in one commit, or in none where nothing is new or changed.

        `bars`: the columns of `volcast.storage.schemas.BARS`, one row or more, in any order. Raises ValueError (a value
        that the schema does not hold exactly, or two different rows of one ticker and session), VersionConflict.
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
            upsert = _Upsert(self._store, open_table(self._store, TABLE))
            for bars in parts:
                upsert.add(bars)
            return upsert.commit(self._url, lambda changes, version: restatements.intend(changes, version, source))

        commit = retried(self._url, attempt)
        restatements.complete()
        return commit

    def version(self) -> int | None:
        """The newest version, or None where there is no table."""
        table = open_table(self._store, TABLE)
        return table.version() if table else None

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
        frame = _in_order(self._select(table, BARS.names, where(wanted, first, last)))
        if last is not None:
            later = f"session > {literal(last)} AND {where(wanted, last, None)}"
            found = self._select(table, ["ticker", LATER_SPLITS], later, BY_TICKER)
            after = found.to_pandas().set_index("ticker")["shares"]
            if len(after):  # else nothing goes on
                shares = frame["ticker"].map(after).astype("float64").fillna(1.0)  # of no rows, their dtype stays
                frame = _of_then(frame, after.index, pd.Series(shares))
        return frame.assign(adj_close=adjusted_close(frame)).loc[:, READ_COLUMNS]

    def read_known(self, tickers: Iterable[str], *, last: date, version: int, known: int | None) -> pd.DataFrame:
        """`read` of a version, with the values of the version `known`, as `as_of` names the two; None: of itself."""
        if known is None:
            return self.read(tickers, last=last, version=version)
        wanted = sorted(set(tickers))
        if not self._kept([known]):
            return self._read_put_back(wanted, last, version, known)
        own = self._answered(known, last, self._reach(version, last))
        frames = [
            self.read([each for each in wanted if (each in own) is is_own], last=last, version=source)
            for source, is_own in ((known, True), (version, False))
        ]
        return pd.concat(frames).sort_values(["ticker", "session"], ignore_index=True)

    def read_parts(
        self, tickers: Iterable[str], *, last: date | None, version: int, known: int | None
    ) -> Iterator[pd.DataFrame]:
        """`read_known` (without `last`: `read`), of many tickers a bucket of them at a time."""
        wanted = sorted(set(tickers))
        buckets = pd.Series(wanted, dtype="str").groupby([bucket_of(ticker) for ticker in wanted])
        for some in [wanted] if len(wanted) <= READ_AT_ONCE else [group for _, group in buckets]:
            if last is None:
                yield self.read(some, version=version)
            else:
                yield self.read_known(some, last=last, version=version, known=known)

    def describe(
        self,
        tickers: Iterable[str] | None = None,
        *,
        last: date | None = None,
        version: int | None = None,
        known: int | None = None,
    ) -> Extent:
        """What `read_parts` would give. Raises NotStored."""
        wanted = tuple(self.tickers(version) if tickers is None else sorted(set(tickers)))
        table = self._open(version)
        return _remembered(table, (wanted, last, known), lambda: self._describe(wanted, last, table.version(), known))

    def as_of(self, last: date) -> AsOf | None:
        """Where to read what was known at the close of `last`; None where no later session is stored, or none up to it.

        Raises NotStored where there is no table.
        """
        newest = self._open().version()
        if self._last_session(newest) <= last or not (expected := self._reach(newest, last)):
            return None
        known = bisect_right(range(newest), last, key=self._last_session) - 1  # rows are never taken away
        if known < 0 or self._last_session(known) < max(expected.values()):
            known += 1
        own = self._answered(known, last, expected) if self._kept([known]) else set()
        others = {ticker: end for ticker, end in expected.items() if ticker not in own}
        version = self._first_with(others, range(known, newest + 1), last) if others else known
        found = AsOf(version, known, self._last_session(known), tuple(others) if own else ())
        if own or version == known:
            return found
        restated = self._restated(list(expected), version, known)
        put_back = np.count_nonzero(restated["session"] <= pd.Timestamp(last))
        late = sum(self.coverage(version, last=last)["rows"]) - sum(self._files(known)["num_records"])
        return replace(found, put_back=int(put_back), late=late if found.goes_on_to <= last else 0)

    def _describe(self, tickers: tuple[str, ...], last: date | None, version: int, known: int | None) -> Extent:
        digests: dict[str, str] = {}
        count, sessions = 0, []
        for frame in self.read_parts(tickers, last=last, version=version, known=known):
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

    def coverage(self, version: int | None = None, *, last: date | None = None) -> pd.DataFrame:
        """A row a ticker, which is the index, sorted: first and last session (datetime64), rows; of those up to `last`.

        It is of every ticker, so that data files are compared with their sha256 for it only where they cannot be read.
        Raises NotStored, StoreError.
        """
        table, sql = self._open(version), _sql(COVERAGE, where(None, None, last), BY_TICKER)

        def find() -> pa.Table:
            try:
                return query(sql, prices=table)
            except StoreError:
                require_unchanged(self._store, table)  # which names file and tickers, and what to do
                raise

        found = _remembered(table, ("coverage", last), find)
        return found.to_pandas(date_as_object=False).set_index("ticker")

    def sessions(self, tickers: Iterable[str]) -> dict[str, pd.DatetimeIndex]:
        """The sessions that are stored of each of the tickers, ascending. Raises NotStored."""
        found = self._select(self._open(), ["ticker", "session"], where(sorted(set(tickers)), None, None))
        rows = found.to_pandas(date_as_object=False).sort_values(["ticker", "session"])
        return {str(name): pd.DatetimeIndex(group) for name, group in rows.groupby("ticker")["session"]}

    def raw(self, tickers: Iterable[str], *, first: date) -> pd.DataFrame:
        """The bars from `first` on as they are stored: the columns of BARS, in no order. Raises NotStored."""
        found = self._select(self._open(), BARS.names, where(sorted(set(tickers)), first, None))
        return found.to_pandas(date_as_object=False)

    def _read_put_back(self, wanted: list[str], last: date, version: int, known: int) -> pd.DataFrame:
        """What a version says, with every value that was restated after the version `known` as that one had it.

        A value that was put back is in the shares of then: only splits that `known` had already are taken out of it.
        """
        table, restated = self._open(version), self._restated(wanted, version, known)
        frame, is_back = put_back(_in_order(self._select(table, BARS.names, where(wanted, None, None))), restated)
        later = frame.loc[frame["session"] > pd.Timestamp(last)]
        splits = later.loc[later["split"] > 0]
        of_then = splits.loc[splits["session"] <= pd.Timestamp(self._last_session(known))]
        shares, shares_then = (
            frame["ticker"].map(each.groupby("ticker")["split"].prod()).astype("float64").fillna(1.0)
            for each in (splits, of_then)
        )
        frame = _of_then(frame, later["ticker"].unique(), pd.Series(np.where(is_back, shares_then, shares)))
        frame = frame.loc[frame["session"] <= pd.Timestamp(last)].reset_index(drop=True)
        return frame.assign(adj_close=adjusted_close(frame)).loc[:, READ_COLUMNS]

    def _restated(self, tickers: list[str], version: int, known: int) -> pd.DataFrame:
        """The restatements between two versions, the first one of each value."""
        between = f"version_after > {known} AND version_after <= {version}"
        rows = RestatementTable(self._store).read(f"{between} AND {among('ticker', tickers)}")
        return rows.drop_duplicates(["ticker", "session", "column"])

    def _answered(self, known: int, last: date, expected: Mapping[str, date]) -> set[str]:
        """The tickers of which a version says what was known at the close of `last`.

        All that it has, where it is of then: a row that came later was not known. Else those whose rows are all there.
        """
        reach, is_of_then = self._reach(known, last), self._last_session(known) <= last
        return {ticker for ticker, end in expected.items() if ticker in reach and (is_of_then or reach[ticker] == end)}

    def _reach(self, version: int, last: date) -> dict[str, date]:
        """Ticker -> its last session up to `last` in a version."""
        return {str(ticker): end.date() for ticker, end in self.coverage(version, last=last)["last"].items()}

    def _first_with(self, expected: Mapping[str, date], versions: range, last: date) -> int:
        """The first of the versions whose files are kept and that has the tickers up to these sessions."""
        kept = self._kept(versions)

        def has_them(version: int) -> bool:
            reach = self._reach(version, last)
            return all(reach.get(ticker) == end for ticker, end in expected.items())

        return kept[bisect_left(kept, True, key=has_them)]

    def _last_session(self, version: int) -> date:
        """Of any ticker, from Delta's log alone: that of every version stays."""
        return max(self._files(version)["max.session"])

    def _kept(self, versions: Iterable[int]) -> list[int]:
        """Those of which all data files are there; `volcast gc` takes old ones away."""
        there = {entry.path.removeprefix(f"{TABLE}/") for entry in entries(self._store, TABLE)}
        return [version for version in versions if set(self._files(version)["path"]) <= there]

    def _files(self, version: int) -> pd.DataFrame:
        """The data files of a version, with what Delta's log says of each."""
        return data_files(self._open(version))

    def _select(self, table: DeltaTable, columns: Sequence[str], condition: str, group: str = "") -> pa.Table:
        return _select(self._store, table, columns, condition, group)

    def _open(self, version: int | None = None) -> DeltaTable:
        newest = open_table(self._store, TABLE)
        if newest is None:
            raise NotStored(f"{self._url}: no prices are stored yet. Ingest some first.")
        if version is None or version == newest.version():
            return newest
        if not 0 <= version < newest.version():
            raise NotStored(f"{self._url}: there is no version {version}; the newest is {newest.version()}.")
        table = open_table(self._store, TABLE, version)
        assert table is not None
        return table


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
            stored = _select(self.store, self.table, PRICES.names, around(source)).cast(PRICES)
            is_new, is_changed, before = compare(source, stored)
            fresh, changed = (source.filter(pa.array(mask)) for mask in (is_new | is_changed, is_changed))
            others = _in_new_shares(self.store, self.table, source, fresh, changed, before)
            if others.num_rows:
                source = pa.concat_tables([source, others])
                stored = _select(self.store, self.table, PRICES.names, around(source)).cast(PRICES)
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
                rows = _with_the_others(self.store, self.table, rows)
                self.removes += removals(present, PARTITION)
        self.adds += write_files(self.store, TABLE, sorted_rows(rows))

    def commit(self, url: str, intend: Callable[[pd.DataFrame, int], str]) -> Commit:
        """Commit the files, if there are any. Raises CommitFailedError, StoreNotWritable."""
        counts = (self.inserted, self.updated, self.unchanged)
        if self.table is None:
            with committing(self.store, TABLE, 0) as properties:
                create_table_with_add_actions(  # table and first rows in one commit: of two creators one loses
                    url,
                    Schema.from_arrow(PRICES),
                    self.adds,
                    partition_by=PARTITION,
                    configuration=CONFIGURATION,
                    storage_options=self.store.table_options,
                    commit_properties=properties,
                )
            return Commit(0, *counts)
        if not self.adds:
            return Commit(self.table.version(), *counts)
        changes = pd.concat(self.changes, ignore_index=True)
        version = self.table.version() + 1
        intent = {} if changes.empty else {COMMITTED: intend(changes, version)}
        actions, schema = [*self.adds, *self.removes], self.table.schema()
        with committing(self.store, TABLE, version, intent) as properties:
            self.table.create_write_transaction(actions, "append", schema, PARTITION, commit_properties=properties)
        return Commit(version, *counts, changes)


def _select(store: Store, table: DeltaTable, columns: Sequence[str], condition: str, group: str = "") -> pa.Table:
    """The columns (SQL) of the rows that meet the condition, in no order.

    Raises StoreError: Corrupt for a data file that is not as it was written.
    """
    require_unchanged(store, table, condition)
    return query(_sql(columns, condition, group), prices=table)


def _sql(columns: Sequence[str], condition: str, group: str = "") -> str:
    return f"SELECT {', '.join(columns)} FROM prices WHERE {condition} {group}"


def _in_order(rows: pa.Table) -> pd.DataFrame:
    """Rows that were selected, by ticker and session."""
    rows = rows.select(BARS.names).cast(BARS)
    keys, _ = keys_of(rows, rows.slice(0, 0))
    frame = rows.take(pa.array(np.argsort(keys, kind="stable"))).to_pandas(date_as_object=False)
    return frame.assign(session=frame["session"].astype("datetime64[s]"))


def _of_then(frame: pd.DataFrame, goes_on: Iterable[str], shares: pd.Series) -> pd.DataFrame:
    """The rows before later splits; the dividends after the last one of a ticker that goes on are not known yet."""
    is_cut = frame["ticker"].isin(list(goes_on))
    return without_splits(frame.assign(later_adjustment=frame["later_adjustment"].mask(is_cut, 1.0)), shares)


def _in_new_shares(
    store: Store, table: DeltaTable, source: pa.Table, fresh: pa.Table, changed: pa.Table, before: pa.Table
) -> pa.Table:
    """The stored rows that `source` does not replace and that are in the shares of before a split that it brings.

    `fresh`: its rows that are new or changed; `changed`: those that are stored with other values, and those `before`.
    """
    is_other = np.abs(np.log(np.asarray(changed["close"]) / np.asarray(before["close"]))) > SAME
    tickers = changed["ticker"].filter(pa.array(is_other)).to_pylist()
    tickers += fresh["ticker"].filter(pa.array(np.asarray(fresh["split"]) > 0)).to_pylist()
    if not tickers:
        return source.slice(0, 0)
    new = source.filter(pc.field("ticker").isin(tickers)).select(BARS.names).to_pandas(date_as_object=False)
    stored = _select(store, table, BARS.names, where(sorted(set(tickers)), None, None)).to_pandas(date_as_object=False)
    new_of = dict(iter(new.sort_values("session").groupby("ticker")))
    found = [in_new_shares(rows, new_of[name]) for name, rows in stored.sort_values("session").groupby("ticker")]
    rows = pd.concat(found) if found else stored
    return with_partition(conform(rows, BARS)) if len(rows) else source.slice(0, 0)


def _with_the_others(store: Store, table: DeltaTable, rows: pa.Table) -> pa.Table:
    """All rows of the partitions that `rows` are in, with `rows` in place of the old ones. Raises Corrupt."""
    require_unchanged(store, table, touched(rows), again=True)
    whole = _select(store, table, PRICES.names, touched(rows)).cast(PRICES)
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
