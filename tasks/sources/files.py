"""Prices and earnings dates from files, CSV or Parquet: `files:PATH-or-URL`.

Of prices, PATH is a file of one ticker (named by the file: `SBUX.csv`, `SBUX_tutorial.csv`), one with a ticker column,
or a folder of one file a ticker. A URL may be http(s) (a file), s3 or gs (a file or a folder).

    1. find the files                       SourceMissing when there are none
    2. read the one that holds the ticker   SourceUnusable when it cannot be read
    3. give its columns our names            SourceUnusable when one lacks, or is there twice (columns.py)
    4. turn text into numbers and dates     SourceUnusable, with line, column and value      (columns.py)
    5. recover dividends from Adj Close where the file has no Dividends                      (columns.py)

A folder's file is opened when its ticker is asked for, and one that cannot be used stops its own ticker only. Of a
Parquet file with a ticker column, only the row groups that hold the ticker are read.

Earnings dates are one file with Ticker, Earnings_Date[, When, First_Seen], whose tickers are looked up whether they are
written with a dot or a dash: BRK.B here is BRK-B of Yahoo's prices.
"""

import re
from datetime import date
from functools import cached_property
from pathlib import PurePosixPath
from typing import NoReturn
from urllib.parse import unquote, urlsplit

import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.text import listed
from storage.errors import first_line
from storage.store import FileSystem, files_at
from tasks.sources.columns import bars_of, name_of, tidy, tidy_events
from tasks.sources.source import Announced, Fetch, Outcome, Pace, SourceError, SourceMissing, SourceUnusable

TIMEOUT_SECONDS = 30
SUFFIXES = (".csv", ".parquet")
UNREADABLE = (OSError, UnicodeDecodeError, pd.errors.ParserError, pa.ArrowException)


class Unreachable(SourceMissing):
    """The URL's server did not answer, or asked to come back later."""


class FilesSource:
    """Bars out of files."""

    incremental = False
    pace: Pace | None = None

    def __init__(self, location: str) -> None:
        self.location = location
        self.spec = f"files:{location}"

    def tickers(self) -> list[str]:
        """Every ticker that the files hold, in alphabetical order."""
        return sorted(self._paths_of)

    def fetch(self, ticker: str, *, first: date | None, last: date) -> Fetch:
        """The rows of `ticker` from `first` (None: all) to `last`, sorted by session; rows that are there twice, once.

        A file that cannot be used raises SourceError when it is the whole source; in a folder it is BAD_SCHEMA.
        """
        try:
            if ticker not in self._paths_of:
                known = f"{self.location} holds {listed(self.tickers())}"
                return Fetch(ticker=ticker, outcome=Outcome.NOT_FOUND, known=known)
            bars = bars_of(ticker, self._rows(ticker))
        except Unreachable as error:
            return Fetch(ticker=ticker, outcome=Outcome.DOWN, known=str(error))
        except SourceError as error:
            if self._only_table is not None:
                raise
            return Fetch(ticker=ticker, outcome=Outcome.BAD_SCHEMA, known=str(error))
        start = bars["session"].min() if first is None else pd.Timestamp(first)
        wanted = bars.loc[bars["session"].between(start, pd.Timestamp(last))].reset_index(drop=True)
        if wanted.empty:
            return Fetch(ticker=ticker, outcome=Outcome.EMPTY, known=f"{self.location}: {_why_empty(bars, last)}")
        return Fetch(ticker=ticker, outcome=Outcome.OK, bars=wanted)

    def _rows(self, ticker: str) -> pd.DataFrame:
        """The tidy rows of a ticker that is there."""
        if self._only_table is not None:
            return self._only_table.rows(ticker)
        names = [f"{self.location.rstrip('/')}/{PurePosixPath(path).name}" for path in self._paths_of[ticker]]
        if len(names) > 1:
            raise SourceUnusable(
                f"{' and '.join(names)} both stand for {ticker}. Expected one file a ticker; keep one."
            )
        table = _open_table(names[0], self._listing[0], self._paths_of[ticker][0])
        if table.tickers not in (None, [ticker]):
            raise SourceUnusable(
                f"{names[0]}: its ticker column holds {listed(table.tickers) or 'nothing'}. "
                f"Expected only {ticker}, the file's name; give a file of several tickers by itself, not in a folder."
            )
        return table.rows(ticker)

    @cached_property
    def _paths_of(self) -> dict[str, list[str]]:
        """ticker -> the paths of the files that hold it."""
        _, paths, _ = self._listing
        if self._only_table is not None:
            tickers = [ticker_of(self.location)] if self._only_table.tickers is None else self._only_table.tickers
            return dict.fromkeys(tickers, paths)
        found: dict[str, list[str]] = {}
        for path in paths:
            found.setdefault(ticker_of(path), []).append(path)
        return found

    @cached_property
    def _only_table(self) -> "_CsvTable | _ParquetTable | None":
        """The table of a source that is one file; None for a folder."""
        system, paths, is_folder = self._listing
        return None if is_folder else _open_table(self.location, system, paths[0])

    @cached_property
    def _listing(self) -> tuple[FileSystem | None, list[str], bool]:
        return _find_files(self.location)


class FileEvents:
    """Announcements out of one file, which is read at once: SourceMissing, SourceUnusable where that cannot be."""

    pace: Pace | None = None

    def __init__(self, location: str) -> None:
        self.location = location
        self.spec = f"files:{location}"
        self._down = ""
        try:
            events = _read_events(location)
            self._rows_of = {str(name): rows for name, rows in events.groupby(events["ticker"].map(_alike))}
        except Unreachable as error:  # a server that is down is no mistake of the request
            self._rows_of, self._down = {}, str(error)

    def announced(self, ticker: str, *, as_of: date) -> Announced:
        """The rows of `ticker`, those that the file itself says were first seen after `as_of` left out."""
        if self._down:
            return Announced(ticker=ticker, outcome=Outcome.DOWN, known=self._down)
        rows = self._rows_of.get(_alike(ticker))
        if rows is not None:
            rows = rows.loc[~(rows["first_seen"] > pd.Timestamp(as_of))]
        if rows is None or rows.empty:
            known = f"{self.location} names no date of {ticker}"
            return Announced(ticker=ticker, outcome=Outcome.EMPTY, known=known)
        events = rows.assign(ticker=ticker).reset_index(drop=True)
        return Announced(ticker=ticker, outcome=Outcome.OK, events=events)


def ticker_of(location: str) -> str:
    """The ticker that a file's name stands for: `x/SBUX_tutorial.csv` -> `SBUX`, `BRK-B.csv` -> `BRK-B`."""
    name = PurePosixPath(unquote(urlsplit(location).path) if _is_web(location) else location).name
    bare = re.sub(r"\.(csv|parquet)$", "", name, flags=re.IGNORECASE)
    return re.split(r"[_ ]", bare)[0].upper()


def _read_events(location: str) -> pd.DataFrame:
    system, paths, is_folder = _find_files(location)
    if is_folder:
        raise SourceUnusable(f"{location}: a folder. Expected one CSV or Parquet file with Ticker and Earnings_Date.")
    return tidy_events(_read_cells(location, system, paths[0]), location)


def _alike(ticker: str) -> str:
    return ticker.replace(".", "-")


def _why_empty(bars: pd.DataFrame, last: date) -> str:
    if bars.empty:
        return "a heading and no rows"
    held = f"{bars['session'].min():%Y-%m-%d} to {bars['session'].max():%Y-%m-%d}"
    return f"no row in the window up to {last}; it holds {held}"


def _find_files(location: str) -> tuple[FileSystem | None, list[str], bool]:
    """Where the files lie (None: on the web), their paths, and whether they are a folder's. Raises SourceMissing."""
    if _is_web(location):
        return None, [location], False
    try:
        system, paths, is_folder = files_at(location)
    except (OSError, pa.ArrowException) as error:
        raise SourceMissing(f"{location}: cannot be looked at ({first_line(error)}).") from error
    if is_folder:
        names = {path: PurePosixPath(path).name for path in paths}
        paths = [path for path, name in names.items() if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    if paths:
        return system, paths, is_folder
    fact = (
        "the folder holds no .csv and no .parquet file. Expected one <TICKER>.csv a ticker."
        if is_folder
        else "there is no such file or folder. Expected a CSV or Parquet file, or a folder of <TICKER>.csv."
    )
    raise SourceMissing(f"{location}: {fact}")


def _is_web(location: str) -> bool:
    return location.startswith(("http://", "https://"))


def _open_table(name: str, system: FileSystem | None, path: str) -> "_CsvTable | _ParquetTable":
    """The table in a file, named `name` in messages; `system` None means the web."""
    try:
        file, is_parquet = _open_file(system, path)
        return _ParquetTable(name, file) if is_parquet else _CsvTable(name, file)
    except UNREADABLE as error:
        _refuse_file(name, error)


def _read_cells(name: str, system: FileSystem | None, path: str) -> pd.DataFrame:
    """All cells of a small file, as text or typed, under the file's own headings; the index says where a row stands."""
    try:
        file, is_parquet = _open_file(system, path)
        if not is_parquet:
            return _csv_cells(name, file)
        raw = pq.read_table(file).to_pandas(date_as_object=False, ignore_metadata=True)
    except UNREADABLE as error:
        _refuse_file(name, error)
    raw.index = pd.RangeIndex(1, len(raw) + 1, name="row")
    return raw.dropna(how="all")


class _CsvTable:
    """A CSV file, read as a whole."""

    def __init__(self, name: str, file: pa.NativeFile) -> None:
        self._table = tidy(_csv_cells(name, file), name)
        self.tickers: list[str] | None = None
        if "ticker" in self._table:
            self._positions = self._table.groupby("ticker").indices
            self.tickers = [str(ticker) for ticker in self._positions]
            if not self.tickers:
                raise SourceUnusable(f"{name}: a heading and no rows. Expected one row a ticker and session.")

    def rows(self, ticker: str) -> pd.DataFrame:
        return self._table if self.tickers is None else self._table.iloc[self._positions[ticker]]


class _ParquetTable:
    """A Parquet file, of which only what is asked for is read."""

    def __init__(self, name: str, file: pa.NativeFile) -> None:
        self._name = name
        self._file = pq.ParquetFile(file)
        names = self._file.schema_arrow.names
        self._columns = [column for column in names if name_of(column) is not None]
        self._ticker_column = next((column for column in names if name_of(column) == "ticker"), None)
        self._last_read: tuple[list[int], pa.Table] | None = None
        self.tickers = None if self._ticker_column is None else list(self._places)

    @cached_property
    def _places(self) -> dict[str, tuple[list[str], list[int]]]:
        """ticker -> how the file spells it, and the row groups that hold it."""
        found: dict[str, tuple[list[str], list[int]]] = {}
        for group in range(self._file.num_row_groups):
            spellings = self._file.read_row_group(group, columns=[self._ticker_column]).column(0).unique()
            for spelling in spellings.cast(pa.string()).to_pylist():
                if not (spelling or "").strip():
                    raise SourceUnusable(f"{self._name}: a row has no ticker (row group {group}). Expected one a row.")
                known, groups = found.setdefault(spelling.strip().upper(), ([], []))
                known.append(spelling)
                groups.append(group)
        if not found:
            raise SourceUnusable(f"{self._name}: no rows. Expected one row a ticker and session.")
        return found

    def rows(self, ticker: str) -> pd.DataFrame:
        if self._ticker_column is None:
            table, label = self._file.read(columns=self._columns), "row"
        else:
            spellings, groups = self._places[ticker]
            table = self._read(sorted(set(groups)))
            wanted = table.filter(pc.field(self._ticker_column).isin(spellings))
            table, label = wanted.drop_columns([self._ticker_column]), f"{ticker} row"
        raw = table.to_pandas(date_as_object=False, ignore_metadata=True)
        raw.index = pd.RangeIndex(1, len(raw) + 1, name=label)
        return tidy(raw.dropna(how="all"), self._name)

    def _read(self, groups: list[int]) -> pa.Table:
        """The row groups; those read last are kept, since neighbours in the alphabet mostly lie in the same ones."""
        if self._last_read is None or self._last_read[0] != groups:
            table = self._file.read_row_groups(groups, columns=self._columns)
            position = table.column_names.index(self._ticker_column)
            text = table.column(position).cast(pa.string())
            self._last_read = groups, table.set_column(position, self._ticker_column, text)
        return self._last_read[1]


def _open_file(system: FileSystem | None, path: str) -> tuple[pa.NativeFile, bool]:
    """The file, and whether it is Parquet."""
    file = pa.BufferReader(_download(path)) if system is None else system.open_input_file(path)
    is_parquet = file.read(4) == b"PAR1" or path.lower().endswith(".parquet")
    file.seek(0)
    return file, is_parquet


def _csv_cells(name: str, file: pa.NativeFile) -> pd.DataFrame:
    """A CSV's cells as text, without its empty lines."""
    try:
        cells = pd.read_csv(
            file,  # pyright: ignore[reportArgumentType]
            header=None,  # so that a heading twice is seen, and line numbers are those of an editor
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,
            skipinitialspace=True,
            encoding="utf-8-sig",
        )
    except pd.errors.EmptyDataError as error:
        raise SourceUnusable(f"{name}: the file is empty. Expected a heading and one row a session.") from error
    raw = cells.iloc[1:].set_axis(list(cells.iloc[0]), axis=1)
    raw.index = pd.RangeIndex(2, len(raw) + 2, name="line")
    return raw.loc[~(raw == "").all(axis=1)]


def _refuse_file(name: str, error: Exception) -> NoReturn:
    reason = first_line(error).removeprefix("Error tokenizing data. C error: ")
    raise SourceUnusable(f"{name}: not readable as CSV or Parquet ({reason}).") from error


def _download(url: str) -> bytes:
    try:
        response = httpx.get(url, timeout=TIMEOUT_SECONDS, follow_redirects=True)
    except httpx.InvalidURL as error:
        raise SourceMissing(f"{url}: not a URL ({error}).") from error
    except httpx.HTTPError as error:
        raise Unreachable(f"{url}: no answer ({first_line(error)}). Check the address, or try again later.") from error
    answer = f"HTTP {response.status_code} {response.reason_phrase}".strip()
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.status_code >= 500:
        raise Unreachable(f"{url}: the server answered {answer}. Try again later.")
    if response.status_code != httpx.codes.OK:
        raise SourceMissing(f"{url}: the server answered {answer}. Expected a CSV or Parquet file.")
    return response.content
