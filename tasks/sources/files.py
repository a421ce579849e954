"""Prices from files with Yahoo's columns: `files:PATH-or-URL`.

PATH is a CSV or Parquet file of one ticker (named by the file, `SBUX.csv` or `SBUX_tutorial.csv`), one with a ticker column,
or a folder of such files. URL may be http(s), s3, or gs.

    1. read the bytes                       SourceMissing when there are none
    2. name the columns in our words        SourceUnusable when one lacks
    3. turn text into numbers and dates     SourceUnusable, with row and value, when one cannot be read
    4. per ticker: recover dividends from Adj Close where the file has no Dividends
"""

import io
import re
import urllib.error
import urllib.request
from datetime import date
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.fs

from storage.adjustment import dividends_from_adj_close
from tasks.sources.protocol import BAR_COLUMNS, Fetch, Outcome, SourceMissing, SourceUnusable

SUFFIXES = (".csv", ".parquet")
MARKET_TIME_ZONE = "America/New_York"
NUMBERS = ["open", "high", "low", "close", "volume"]
OPTIONAL_NUMBERS = ["adj_close", "dividend", "split"]
NAMES = {  # a column's name, lower-case and without spaces or underscores -> our word
    "date": "session",
    "datetime": "session",
    "session": "session",
    "ticker": "ticker",
    "symbol": "ticker",
    "adjclose": "adj_close",
    "dividend": "dividend",
    "dividends": "dividend",
    "split": "split",
    "stocksplits": "split",
    **{name: name for name in NUMBERS},
}
MISSING_WORDS = ["null", "None", "none", "-"]


class FilesSource:
    """Bars out of files; everything is read at the first question and kept for the others."""

    simulated = False

    def __init__(self, location: str) -> None:
        self.location = location
        self.spec = f"files:{location}"

    def tickers(self) -> list[str]:
        """Every ticker that the files hold, in alphabetical order."""
        return sorted(self._files)

    def fetch(self, ticker: str, *, first: date | None, last: date) -> Fetch:
        """The rows of `ticker` from `first` (None: all) to `last`, as they stand in the file."""
        bars = self._bars(ticker)
        if bars is None:
            held = self.tickers()
            shown = ", ".join(held[:8]) + (f" and {len(held) - 8} more" if len(held) > 8 else "")
            return Fetch(
                ticker=ticker, outcome=Outcome.NOT_FOUND, known=f"{self.location} holds {shown or 'no ticker'}"
            )
        wanted = bars["session"] <= pd.Timestamp(last)
        if first is not None:
            wanted &= bars["session"] >= pd.Timestamp(first)
        if not wanted.any():
            known = f"no row up to {last}" if len(bars) else "the file has a heading and no rows"
            return Fetch(ticker=ticker, outcome=Outcome.EMPTY, known=f"{self.location}: {known}")
        return Fetch(ticker=ticker, outcome=Outcome.OK, bars=bars[wanted].reset_index(drop=True))

    def _bars(self, ticker: str) -> pd.DataFrame | None:
        path = self._files.get(ticker)
        if path is None:
            return None
        table = self._table(path)
        rows = table[table["ticker"] == ticker] if "ticker" in table else table.assign(ticker=ticker)
        return _with_dividends(rows.sort_values("session", kind="stable").reset_index(drop=True))

    @cached_property
    def _files(self) -> dict[str, str]:
        """ticker -> the path of the file that holds it."""
        found: dict[str, str] = {}
        for path in self._paths:
            table = self._table(path) if len(self._paths) == 1 else None
            several = table is not None and "ticker" in table
            for ticker in table["ticker"].unique() if several else [ticker_of(path)]:  # pyright: ignore[reportOptionalSubscript]
                found[str(ticker)] = path
        return found

    @cached_property
    def _paths(self) -> list[str]:
        if self.location.startswith(("http://", "https://")):
            return [self.location]
        system, root = _filesystem(self.location)
        info = system.get_file_info(root)
        if info.type == pyarrow.fs.FileType.NotFound:
            raise SourceMissing(
                f"{self.location}: there is no such file or folder. Expected a CSV or Parquet file, or a folder of <TICKER>.csv."
            )
        if info.type == pyarrow.fs.FileType.File:
            return [root]
        inside = [
            entry.path for entry in system.get_file_info(pyarrow.fs.FileSelector(root)) if entry.path.endswith(SUFFIXES)
        ]
        if not inside:
            raise SourceMissing(
                f"{self.location}: the folder holds no .csv and no .parquet file. Expected one <TICKER>.csv a ticker."
            )
        return sorted(inside)

    @cached_property
    def _tables(self) -> dict[str, pd.DataFrame]:
        return {}

    def _table(self, path: str) -> pd.DataFrame:
        if path not in self._tables:
            self._tables[path] = tidy(_read(self.location, path), path)
        return self._tables[path]


def ticker_of(path: str) -> str:
    """The ticker that a file's name stands for: `x/SBUX_tutorial.csv` -> `SBUX`, `BRK-B.csv` -> `BRK-B`."""
    return re.split(r"[_ ]", PurePosixPath(path.split("?")[0]).stem)[0].upper()


def tidy(raw: pd.DataFrame, path: str) -> pd.DataFrame:
    """Our column names and types from a file's own: [ticker], session, open, high, low, close, volume, [adj_close, dividend, split].

    Raises SourceUnusable, naming the file, and the row and value where there is one.
    """
    renamed = raw.rename(columns=lambda name: NAMES.get(re.sub(r"[\s_]", "", str(name)).lower(), str(name)))
    lacking = [name for name in ["session", *NUMBERS] if name not in renamed]
    if lacking:
        words = ", ".join("Date" if name == "session" else name.title() for name in lacking)
        raise SourceUnusable(
            f"{path}: no column {words}. Expected Date, Open, High, Low, Close, Volume (and, if there is, Adj Close); "
            f"found {', '.join(map(str, raw.columns)) or 'no columns'}."
        )
    table = pd.DataFrame({"session": _sessions(renamed["session"], path)})
    for name in [*NUMBERS, *OPTIONAL_NUMBERS]:
        if name in renamed:
            table[name] = _numbers(renamed[name], path)
    if "ticker" in renamed:
        table["ticker"] = renamed["ticker"].astype(str).str.strip().str.upper()
    return table


def _filesystem(location: str) -> tuple[pyarrow.fs.FileSystem, str]:
    if "://" in location:
        return pyarrow.fs.FileSystem.from_uri(location)
    return pyarrow.fs.LocalFileSystem(), str(Path(location).expanduser())


def _read(location: str, path: str) -> pd.DataFrame:
    try:
        data = _read_bytes(location, path)
        if path.endswith(".parquet"):
            return pd.read_parquet(io.BytesIO(data))
        return pd.read_csv(io.BytesIO(data), dtype=str, na_values=MISSING_WORDS, skipinitialspace=True)
    except urllib.error.URLError as error:
        raise SourceMissing(f"{path}: could not be read ({error.reason}).") from error
    except pd.errors.EmptyDataError as error:
        raise SourceUnusable(f"{path}: the file is empty. Expected a heading and one row a session.") from error
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pa.ArrowInvalid) as error:
        raise SourceUnusable(
            f"{path}: not readable as {path.rsplit('.', 1)[-1]} ({str(error).splitlines()[0]})."
        ) from error


def _read_bytes(location: str, path: str) -> bytes:
    if path.startswith(("http://", "https://")):
        with urllib.request.urlopen(path, timeout=30) as response:
            return response.read()
    return _filesystem(location)[0].open_input_stream(path).read()


def _numbers(column: pd.Series, path: str) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    wrong = numbers.isna() & column.notna()
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise SourceUnusable(
            f"{path}: row {row + 2}, column {column.name}: {column.iloc[row]!r} is not a number. "
            "Expected a number, or nothing where the value is missing. Nothing of this file was stored."
        )
    return numbers


def _sessions(column: pd.Series, path: str) -> pd.Series:
    """Dates of the sessions, read as the exchange's own wall clock: a midnight stays on its date whatever its offset."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        local = column.dt.tz_convert(MARKET_TIME_ZONE) if _is_instant_in_utc(column) else column
        return local.dt.tz_localize(None).dt.normalize().astype("datetime64[s]")
    texts = column.astype(str).str.strip()
    utc = texts.str.contains(r"(?:Z|\+00:?00)$") & ~texts.str.contains(r"[T ]00:00(?::00)?(?:\.0+)?(?:Z|\+00:?00)$")
    sessions = pd.to_datetime(texts.str.slice(0, 10), errors="coerce", format="%Y-%m-%d")
    if utc.any():
        instants = pd.to_datetime(texts[utc], errors="coerce", utc=True, format="ISO8601")
        sessions[utc] = instants.dt.tz_convert(MARKET_TIME_ZONE).dt.tz_localize(None).dt.normalize()
    if sessions.isna().any():
        row = int(np.flatnonzero(sessions.isna())[0])
        raise SourceUnusable(
            f"{path}: row {row + 2}: {column.iloc[row]!r} is not a date. Expected YYYY-MM-DD. Nothing of this file was stored."
        )
    return sessions.astype("datetime64[s]")


def _is_instant_in_utc(column: pd.Series) -> bool:
    """Whether stamps in UTC mean an instant (the exchange's midnight is 04:00 or 05:00) rather than a date's label."""
    offset_free = str(column.dt.tz) in ("UTC", "UTC+00:00")
    return offset_free and bool((column != column.dt.normalize()).any())


def _with_dividends(rows: pd.DataFrame) -> pd.DataFrame:
    """BAR_COLUMNS; dividends are the file's own or, where it has only Adj Close, recovered from that."""
    bars = rows.assign(later_adjustment=1.0, split=rows.get("split", 0.0))
    if "adj_close" in rows:
        usable = (rows["close"] > 0) & (rows["adj_close"] > 0)
        bars.loc[
            rows["adj_close"] <= 0, "later_adjustment"
        ] = -1.0  # no factor makes such a row; the rules will name it
        dividend, later = dividends_from_adj_close(
            rows.loc[usable, "close"].to_numpy(), rows.loc[usable, "adj_close"].to_numpy()
        )
        bars.loc[usable, "later_adjustment"] = later
        if "dividend" not in rows:
            bars["dividend"] = 0.0
            bars.loc[usable, "dividend"] = dividend
    elif "dividend" not in rows:
        bars["dividend"] = 0.0
    return bars.fillna({"dividend": 0.0, "split": 0.0})[BAR_COLUMNS]
