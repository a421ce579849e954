"""Rows of the prices table in memory: their keys, order, comparison and digest. Pure; `PRICES` tables in and out."""

import hashlib
import zlib

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike

from volcast.storage.schemas import BARS, PRICES

BUCKETS = 16
VALUES = [name for name in BARS.names if name not in ("ticker", "session")]
RESTATED = [name for name in VALUES if name != "later_adjustment"]  # later dividends rewrite no history
# Absolute and relative: two downloads of one unchanged row differ by less. Yahoo's prices are 32-bit floats in six
# decimals; a dividend recovered from Adj Close is off by up to 1.3e-5 USD on SBUX. Volumes and splits are exact.
TOLERANCE = dict.fromkeys(["open", "high", "low", "close", "later_adjustment"], (1e-6, 2e-6)) | {
    "dividend": (1e-4, 1e-3)
}
SESSION_BITS = 24  # days since 1970 as an offset: 45,000 years


def bucket_of(ticker: str) -> int:
    """The bucket that a ticker is in, 0 to 15."""
    return zlib.crc32(ticker.encode()) % BUCKETS


def with_partition(bars: pa.Table) -> pa.Table:
    """`BARS` -> `PRICES`: the bucket of each ticker, and the year of each session."""
    tickers = bars["ticker"].combine_chunks().dictionary_encode()
    buckets = np.array([bucket_of(ticker) for ticker in tickers.dictionary.to_pylist()], dtype=np.int32)
    years = bars["session"].to_numpy().astype("datetime64[Y]").astype(np.int32) + np.int32(1970)
    return pa.Table.from_arrays(
        [pa.array(buckets[tickers.indices.to_numpy()]), pa.array(years), *(bars[name] for name in BARS.names)],
        schema=PRICES,
    )


def sorted_rows(rows: pa.Table) -> pa.Table:
    """The rows by bucket, year, ticker and session."""
    keys, _ = keys_of(rows, rows.slice(0, 0))
    return rows.take(pa.array(np.lexsort([keys, rows["year"].to_numpy(), rows["bucket"].to_numpy()])))


def without_duplicates(rows: pa.Table) -> pa.Table:
    """The rows, equal ones once. Raises ValueError for two different rows of one ticker and session."""
    keys, _ = keys_of(rows, rows.slice(0, 0))
    order = np.argsort(keys, kind="stable")
    is_repeat = np.diff(keys[order]) == 0
    first, second = rows.take(pa.array(order[:-1][is_repeat])), rows.take(pa.array(order[1:][is_repeat]))
    is_other = np.any([first[name].to_numpy() != second[name].to_numpy() for name in VALUES], axis=0)
    if is_other.any():
        row = int(is_other.argmax())
        one, other = ({name: table[name][row].as_py() for name in VALUES} for table in (first, second))
        raise ValueError(
            f"{first['ticker'][row]} {first['session'][row]}: expected one row, got two: {one} and {other}. "
            "Nothing was stored; decide which one is right."
        )
    return rows.take(pa.array(np.sort(order[np.concatenate([[True], ~is_repeat])])))


def compare(source: pa.Table, stored: pa.Table) -> tuple[np.ndarray, np.ndarray, pa.Table]:
    """Which rows of `source` have no row in `stored`, and which have one with other values: two (rows,) bool arrays.

    The third result is the changed rows as they are in `stored`, in the order of `source`.
    """
    keys, stored_keys = keys_of(source, stored)
    order = np.argsort(stored_keys, kind="stable")
    place = np.searchsorted(stored_keys, keys, sorter=order)
    place = order[np.minimum(place, len(order) - 1)] if len(order) else place
    is_known = stored_keys[place] == keys if len(order) else np.zeros(len(keys), dtype=bool)
    is_changed = np.zeros(len(keys), dtype=bool)
    known = stored.take(pa.array(place[is_known], type=pa.int64()))
    differ = [differs(name, known[name], source[name].filter(pa.array(is_known))) for name in VALUES]
    is_changed[is_known] = np.any(differ, axis=0)
    return ~is_known, is_changed, known.filter(pa.array(is_changed[is_known]))


def differs(name: str, old: ArrayLike, new: ArrayLike) -> np.ndarray:
    """Where the values of one column differ beyond TOLERANCE; a missing value differs from nothing."""
    before, after = np.asarray(old), np.asarray(new)
    absolute, relative = TOLERANCE.get(name, (0.0, 0.0))
    return np.abs(after - before) > absolute + relative * np.abs(before)


def changed_values(old: pa.Table, new: pa.Table) -> pd.DataFrame:
    """A row for each value of RESTATED that differs between equal keys: ticker, session, column, old, new; by these."""
    changes = []
    for name in RESTATED:
        is_other = differs(name, old[name], new[name])
        keys = new.select(["ticker", "session"]).filter(pa.array(is_other)).to_pandas(date_as_object=False)
        before, after = (np.asarray(table[name], dtype=float)[is_other] for table in (old, new))
        changes.append(keys.assign(column=name, old=before, new=after))
    return pd.concat(changes, ignore_index=True).sort_values(["ticker", "session"], kind="stable", ignore_index=True)


def put_back(bars: pd.DataFrame, restated: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """The bars with the old values of the restatements (ticker, session, column, old; each value once), as they come.

    The second result says which rows (bool) have one.
    """
    key = ["ticker", "session"]
    dated = restated.astype({"session": "datetime64[s]"})
    keys = pd.MultiIndex.from_frame(pd.DataFrame(bars[key]))
    old = dated.pivot(index=key, columns="column", values="old").reindex(keys)
    values = {
        name: pd.Series(np.where(old[name].isna(), bars[name], old[name]), index=bars.index).astype(bars[name].dtype)
        for name in old.columns
    }
    return bars.assign(**values), old.notna().any(axis=1).to_numpy()


def keys_of(one: pa.Table, other: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """An int64 for each row of both tables, ordered as (ticker, session), equal where these are equal."""
    tickers = pa.chunked_array([*one["ticker"].chunks, *other["ticker"].chunks], type=pa.string())
    coded = tickers.combine_chunks().dictionary_encode()
    rank = np.argsort(np.argsort(np.array(coded.dictionary.to_pylist(), dtype=object), kind="stable"))
    sessions = pa.chunked_array([*one["session"].chunks, *other["session"].chunks], type=pa.date32())
    since_1970 = sessions.cast(pa.int32()).to_numpy().astype(np.int64)
    keys = (rank[coded.indices.to_numpy()] << SESSION_BITS) + since_1970 + (1 << (SESSION_BITS - 1))
    return keys[: one.num_rows], keys[one.num_rows :]


def digest(frame: pd.DataFrame) -> str:
    """sha256 of a frame that `PriceTable.read` gave: of its values in their order, not of how they lay in files.

    Independent of the versions of pandas and Arrow, so that it can be compared years later.
    """
    return joined_digest(ticker_digests(frame))


def ticker_digests(frame: pd.DataFrame) -> dict[str, str]:
    """The digest of each ticker's rows; `frame` as `PriceTable.read` gives it."""
    columns = [(b"session", frame["session"].to_numpy().astype("datetime64[D]").astype("<i8"))]
    for name in frame.columns.drop(["ticker", "session"]):
        kind = "<i8" if frame[name].dtype.kind == "i" else "<f8"
        columns.append((str(name).encode(), np.ascontiguousarray(frame[name].to_numpy(), dtype=kind)))
    codes, tickers = pd.factorize(frame["ticker"])
    starts = [*np.flatnonzero(np.diff(codes, prepend=-1)).tolist(), len(frame)]
    digests = {}
    for ticker, start, end in zip(tickers, starts[:-1], starts[1:], strict=True):
        total = hashlib.sha256()
        for item in (item for name, values in columns for item in (name, values[start:end].tobytes())):
            total.update(len(item).to_bytes(8, "little") + item)
        digests[str(ticker)] = total.hexdigest()
    return digests


def joined_digest(digests: dict[str, str]) -> str:
    """The digest of the tickers' rows together."""
    return hashlib.sha256("\n".join(f"{ticker} {digests[ticker]}" for ticker in sorted(digests)).encode()).hexdigest()
