"""Prices from files with Yahoo's columns: `files:PATH-or-URL`.

PATH is a CSV or Parquet file of one ticker (named by the file: `SBUX.csv`, `SBUX_tutorial.csv`), one with a ticker
column, or a folder of one file a ticker. A URL may be http(s) (a file), s3 or gs (a file or a folder).

    1. find the files                       SourceMissing when there are none
    2. read the one that holds the ticker   SourceUnusable when it cannot be read            (tables.py)
    3. name its columns in our words        SourceUnusable when one lacks, or is there twice (columns.py)
    4. turn text into numbers and dates     SourceUnusable, with line, column and value      (columns.py)
    5. recover dividends from Adj Close where the file has no Dividends                      (columns.py)

A folder's file is opened when its ticker is asked for, and one that cannot be used stops its own ticker only. Of a
Parquet file with a ticker column, only the row groups that hold the ticker are read.
"""

import re
from datetime import date
from functools import cached_property
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import pandas as pd
import pyarrow as pa

from models.words import listed
from storage.source_files import FileSystem, files_at
from tasks.sources.columns import bars_of
from tasks.sources.protocol import Fetch, Outcome, Pace, SourceError, SourceMissing, SourceUnusable
from tasks.sources.tables import CsvTable, ParquetTable, Unreachable, first_line, open_table

SUFFIXES = (".csv", ".parquet")


class FilesSource:
    """Bars out of files."""

    simulated = False
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
                return Fetch(ticker=ticker, outcome=Outcome.NOT_FOUND, known=f"{self.location} holds {self._held}")
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

    @property
    def _held(self) -> str:
        return listed(self.tickers())

    def _rows(self, ticker: str) -> pd.DataFrame:
        """The tidy rows of a ticker that is there."""
        if self._only_table is not None:
            return self._only_table.rows(ticker)
        names = [f"{self.location.rstrip('/')}/{PurePosixPath(path).name}" for path in self._paths_of[ticker]]
        if len(names) > 1:
            raise SourceUnusable(
                f"{' and '.join(names)} both stand for {ticker}. Expected one file a ticker; keep one."
            )
        table = open_table(names[0], *self._listing[:1], self._paths_of[ticker][0])
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
    def _only_table(self) -> CsvTable | ParquetTable | None:
        """The table of a source that is one file; None for a folder."""
        system, paths, is_folder = self._listing
        return None if is_folder else open_table(self.location, system, paths[0])

    @cached_property
    def _listing(self) -> tuple[FileSystem | None, list[str], bool]:
        return find_files(self.location)


def find_files(location: str) -> tuple[FileSystem | None, list[str], bool]:
    """Where the files lie (None: on the web), their paths, and whether they are a folder's. Raises SourceMissing."""
    if _is_web(location):
        return None, [location], False
    try:
        system, paths, is_folder = files_at(location)
    except (OSError, pa.ArrowException) as error:
        raise SourceMissing(f"{location}: cannot be looked at ({first_line(error)}).") from error
    if is_folder:
        return system, _usable(location, paths), True
    if not paths:
        raise SourceMissing(
            f"{location}: there is no such file or folder. Expected a CSV or Parquet file, or a folder of <TICKER>.csv."
        )
    return system, paths, False


def ticker_of(location: str) -> str:
    """The ticker that a file's name stands for: `x/SBUX_tutorial.csv` -> `SBUX`, `BRK-B.csv` -> `BRK-B`."""
    name = PurePosixPath(unquote(urlsplit(location).path) if _is_web(location) else location).name
    bare = re.sub(r"\.(csv|parquet)$", "", name, flags=re.IGNORECASE)
    return re.split(r"[_ ]", bare)[0].upper()


def _why_empty(bars: pd.DataFrame, last: date) -> str:
    if bars.empty:
        return "a heading and no rows"
    held = f"{bars['session'].min():%Y-%m-%d} to {bars['session'].max():%Y-%m-%d}"
    return f"no row in the window up to {last}; it holds {held}"


def _is_web(location: str) -> bool:
    return location.startswith(("http://", "https://"))


def _usable(location: str, paths: list[str]) -> list[str]:
    names = {path: PurePosixPath(path).name for path in paths}
    inside = [path for path, name in names.items() if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    if not inside:
        raise SourceMissing(
            f"{location}: the folder holds no .csv and no .parquet file. Expected one <TICKER>.csv a ticker."
        )
    return inside
