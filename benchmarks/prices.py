"""How fast the prices table is beside plain pandas and one Parquet file: `python -m benchmarks.prices`.

Rows are made up, tickers listed at staggered times, so that 6,700 tickers and 24 years are about 26 M rows. Each figure
is the median of the runs but for the bulk load, which runs once. The pandas side rewrites or reads the one file.
"""

import argparse
import resource
import shutil
import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import date
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from volcast.models.sessions import sessions_between
from volcast.storage.price_rows import bucket_of
from volcast.storage.prices import PriceTable
from volcast.storage.store import open_store
from volcast.tasks.sources.simulated import SimulatedSource

RUNS = 3
LAST = date(2023, 12, 15)  # so that the sessions to come fall into a year that is full
MEAN_LISTED = 0.65  # of the years: a market's tickers were not all there from the start


def main() -> None:
    """Print one line an operation: volcast's seconds, pandas' seconds, and how many times faster volcast is."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tickers", type=int, default=6700)
    options.add_argument("--years", type=int, default=24)
    options.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    asked = options.parse_args()
    folder = Path(mkdtemp(dir=asked.folder))
    try:
        _compare(folder, SimulatedSource(universe=asked.tickers).tickers(), asked.years)
    finally:
        shutil.rmtree(folder)


def _compare(folder: Path, tickers: list[str], years: int) -> None:
    table, file = PriceTable(open_store(str(folder / "store"), writable=True)), folder / "prices.parquet"
    sessions = sessions_between(date(LAST.year - years + 1, 1, 1), LAST)
    rows = Market(tickers, sessions)
    load = _once(lambda: table.upsert_parts(rows))
    plain_load = _once(lambda: _write_plain(file, rows))
    print(f"{len(tickers):,} tickers, {pq.read_metadata(file).num_rows:,} rows; medians of {RUNS} runs, in seconds\n")
    print("| | volcast | pandas + one Parquet file | ratio |\n|---|---|---|---|")
    _line("bulk load (one run)", load, plain_load)

    some, fifty, since = (
        tickers[len(tickers) // 2],
        tickers[:: max(1, len(tickers) // 50)][:50],
        sessions.date[-60],
    )
    _line(
        "one ticker's history",
        _median(lambda _: table.read([some])),
        _median(lambda _: pd.read_parquet(file, filters=[("ticker", "==", some)])),
    )
    _line(
        "last 60 sessions of all",
        _median(lambda _: table.read(first=since)),
        _median(lambda _: pd.read_parquet(file, filters=[("session", ">=", pd.Timestamp(since))])),
    )
    coming = [rows.session(session) for session in sessions_between(LAST, date(2023, 12, 29))[1 : RUNS + 1]]
    one, many = rows.of([some]), rows.of(fifty)
    ours = {
        "one session of all upserted": _median(lambda run: table.upsert(coming[run])),
        "one ticker restated": _median(lambda run: table.upsert(_restated(one, run))),
        "fifty tickers restated": _median(lambda run: table.upsert(_restated(many, run))),
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    whole_file_again = _once(lambda: _rewrite(file, coming[0]))  # whatever it is that changed
    for name, seconds in ours.items():
        _line(name, seconds, whole_file_again)
    print(f"\nPeak memory up to pandas' rewriting of the file: {peak:.1f} GB")


class Market:
    """Made-up bars; iterated, a bucket of tickers at a time."""

    def __init__(self, tickers: list[str], sessions: pd.DatetimeIndex) -> None:
        self._tickers, self._sessions = tickers, sessions

    def __iter__(self) -> Iterator[pd.DataFrame]:
        buckets = pd.Series(self._tickers).groupby([bucket_of(ticker) for ticker in self._tickers])
        return (self.of(bucket.tolist()) for _, bucket in buckets)

    def of(self, tickers: list[str]) -> pd.DataFrame:
        """Every bar of some tickers."""
        return pd.concat([self._bars(ticker) for ticker in tickers], ignore_index=True)

    def session(self, session: pd.Timestamp) -> pd.DataFrame:
        """One session more, of all tickers."""
        last = pd.concat([self._bars(ticker).tail(1) for ticker in self._tickers], ignore_index=True)
        return last.assign(session=session.to_datetime64().astype("datetime64[s]"))

    def _bars(self, ticker: str) -> pd.DataFrame:
        draws = np.random.default_rng(zlib.crc32(ticker.encode()))
        sessions = self._sessions[int(draws.random() * 2 * (1 - MEAN_LISTED) * len(self._sessions)) :]
        close = (50 * np.exp(np.cumsum(draws.normal(0, 0.02, len(sessions))))).round(6)
        columns = {
            "ticker": ticker,
            "session": sessions.as_unit("s"),
            "open": close,
            "high": (close * 1.01).round(6),
            "low": (close * 0.99).round(6),
            "close": close,
            "volume": draws.integers(100_000, 10_000_000, len(sessions)),
        }
        return pd.DataFrame(columns | {"dividend": 0.0, "split": 0.0, "later_adjustment": 1.0})


def _restated(bars: pd.DataFrame, run: int) -> pd.DataFrame:
    """As after a split: every price of the whole history is another."""
    return bars.assign(close=bars["close"] / (run + 2))


def _write_plain(file: Path, parts: Market) -> None:
    """A file of pandas' columns, sorted within a bucket; piece by piece, or it would not fit into memory."""
    schema = pa.Schema.from_pandas(next(iter(islice(parts, 1))), preserve_index=False)
    with pq.ParquetWriter(file, schema) as writer:
        for part in parts:
            writer.write_table(pa.Table.from_pandas(part, schema, preserve_index=False))


def _rewrite(file: Path, more: pd.DataFrame) -> None:
    pd.concat([pd.read_parquet(file), more]).to_parquet(file)


def _line(name: str, ours: float, plain: float) -> None:
    print(f"| {name} | {ours:.2f} | {plain:.2f} | {plain / ours:.1f} x |", flush=True)


def _median(work: Callable[[int], object]) -> float:
    return statistics.median(_once(lambda run=run: work(run)) for run in range(RUNS))


def _once(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
