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

import logging
from datetime import date
from functools import cached_property
from pathlib import PurePosixPath

import httpx
import pandas as pd
import pyarrow as pa

from volcast.models.calendar_names import NEW_YORK
from volcast.models.text import listed
from volcast.storage.bounds import joined, require_size
from volcast.storage.errors import first_line
from volcast.storage.locations import shown
from volcast.tasks.sources.cells import ARCHIVES, archive_members
from volcast.tasks.sources.columns import EVENT_NAMES, bars_of, tidy_events
from volcast.tasks.sources.places import FilesThere, Place, find_files, find_members, place_of, stem_of, ticker_of
from volcast.tasks.sources.reading import FileReader, split_location
from volcast.tasks.sources.source import Announced, Fetch, Outcome, Pace, SourceError, SourceMissing, SourceUnusable
from volcast.tasks.sources.tables import (
    UNREADABLE,
    CellsTable,
    ParquetTable,
    Part,
    all_cells,
    opened_table,
    refuse_file,
)

TIMEOUT_SECONDS = 30
NO_TICKER = (
    "{}: its name is no ticker, and no column holds one. Nothing was taken. Rename it, such as AAPL.csv, or say the "
    "ticker: --source '{}#ticker=AAPL'"
)


class Unreachable(SourceMissing):
    """The URL's server did not answer, or asked to come back later."""


class FilesSource:
    """Bars out of files."""

    incremental = False
    pace: Pace | None = None

    def __init__(self, location: str) -> None:
        self.location, self._reading = split_location(location)  # as it is shown
        self.spec = f"files:{location}"

    def tickers(self) -> list[str]:
        """Every ticker that the files hold, in alphabetical order."""
        return sorted(self._paths_of)

    @property
    def remarks(self) -> list[str]:
        """What a person should know before anything is stored: names taken for tickers, lines left out."""
        of_names = {} if self._only_table and self._only_table.tickers else self._paths_of
        guessed = [
            f"{ticker} from {PurePosixPath(self._name_of(paths[0])).name}"
            for ticker, paths in of_names.items()
            if stem_of(paths[0]).upper() != ticker
        ]
        told = [f"{self.location}: tickers were taken from names: {listed(guessed)}"] if guessed else []
        spelt: dict[str, list[str]] = {}
        for ticker in self._paths_of:
            spelt.setdefault(_alike(ticker), []).append(ticker)
        twice = [" and ".join(each) for each in spelt.values() if len(each) > 1]
        told += [f"{self.location}: {pair} are taken for two, but may be one" for pair in twice]
        return [*told, *self._reader.notes]

    def fetch(self, ticker: str, *, first: date | None, last: date) -> Fetch:
        """The rows of `ticker` from `first` (None: all) to `last`, sorted by session; rows that are there twice, once.

        A file that cannot be used raises SourceError when it is the whole source; what cannot be used of one ticker of
        several is BAD_SCHEMA.
        """
        try:
            if ticker not in self._paths_of:
                known = f"{self.location} holds {listed(self.tickers())}"
                return Fetch(ticker=ticker, outcome=Outcome.NOT_FOUND, known=known)
            rows, notes = self._rows(ticker)
            bars, changes = bars_of(ticker, rows)
        except Unreachable as error:
            return Fetch(ticker=ticker, outcome=Outcome.DOWN, known=str(error))
        except SourceError as error:
            if self._only_table is not None and len(self.tickers()) == 1:
                raise
            return Fetch(ticker=ticker, outcome=Outcome.BAD_SCHEMA, known=str(error))
        start = bars["session"].min() if first is None else pd.Timestamp(first)
        wanted = bars.loc[bars["session"].between(start, pd.Timestamp(last))].reset_index(drop=True)
        if wanted.empty:
            return Fetch(ticker=ticker, outcome=Outcome.EMPTY, known=f"{self.location}: {_why_empty(bars, last)}")
        return Fetch(ticker=ticker, outcome=Outcome.OK, bars=wanted, notes=(*notes, *changes))

    def _rows(self, ticker: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """The tidy rows of a ticker that is there, and what is to be said of them."""
        if self._only_table is not None:
            before = set(self._reader.notes)
            rows = self._only_table.rows(ticker)
            return rows, tuple(note for note in self._reader.notes if note not in before)
        names = [self._name_of(path) for path in self._paths_of[ticker]]
        if not self._reading.ticker and not ticker_of(self._paths_of[ticker][0]):
            raise SourceUnusable(NO_TICKER.format(names[0], self.spec))
        if len(names) > 1:
            raise SourceUnusable(
                f"{' and '.join(names)} both stand for {ticker}. Expected one file a ticker; keep one."
            )
        reader = FileReader(names[0], self._reading)
        table = opened_table([Part(self._opened(self._paths_of[ticker][0]), {})], reader)
        if table.tickers not in (None, [ticker]):
            raise SourceUnusable(
                f"{names[0]}: its ticker column holds {listed(table.tickers) or 'nothing'}. "
                f"Expected only {ticker}, the file's name; give a file of several tickers by itself, not in a folder."
            )
        return table.rows(ticker), tuple(reader.notes)

    @cached_property
    def _paths_of(self) -> dict[str, list[str]]:
        """ticker -> the paths of the files that hold it."""
        paths, told = self._place.paths, self._reading.ticker
        if self._only_table is None and not (told and len(paths) == 1):
            found: dict[str, list[str]] = {}
            for path in paths:
                found.setdefault(ticker_of(path) or stem_of(path).upper(), []).append(path)
            return found
        held = self._only_table.tickers if self._only_table else None
        tickers = held or [told or ticker_of(place_of(self.location))]
        if not tickers[0]:
            raise SourceUnusable(NO_TICKER.format(self.location, self.spec))
        return dict.fromkeys(tickers, paths)

    @cached_property
    def _only_table(self) -> CellsTable | ParquetTable | None:
        """The table of a source that is one, in one file or in the parts of a data set; None for a file a ticker."""
        if not self._place.is_one_table and not self._is_panel(self._place.paths[0]):
            return None
        parts = [Part(self._opened(path), self._place.of_folders(path)) for path in self._place.paths]
        return opened_table(parts, self._reader)

    def _is_panel(self, path: str) -> bool:
        """Whether a folder's file holds several tickers; then its files are parts of one table."""
        try:
            table = opened_table([Part(self._opened(path), {})], FileReader(path, self._reading))
        except SourceError:  # its own ticker will say so
            return False
        return len(table.tickers or ()) > 1

    @cached_property
    def _reader(self) -> FileReader:
        return FileReader(self.location, self._reading)

    @cached_property
    def _place(self) -> Place:
        place = find_files(self.location)
        if place.is_folder or not place_of(self.location).lower().endswith(ARCHIVES):
            return place
        try:
            members = archive_members(_open_file(self.location, place.system, place.paths[0]))
        except UNREADABLE as error:
            refuse_file(self._reader, error)
        return find_members(self.location, members)

    def _opened(self, path: str) -> pa.NativeFile:
        try:
            return _open_file(self._name_of(path), self._place.system, path)
        except UNREADABLE as error:
            refuse_file(FileReader(self._name_of(path)), error)

    def _name_of(self, path: str) -> str:
        """Of a file in messages."""
        return f"{self.location.rstrip('/')}/{PurePosixPath(path).name}" if self._place.is_folder else self.location


class FileEvents:
    """Earnings and other events out of one file, or out of `cells`, which has the columns of such a file.

    Read at once: SourceMissing, SourceUnusable where that cannot be.
    """

    knows_market = True
    pace: Pace | None = None

    def __init__(self, location: str, cells: pd.DataFrame | None = None) -> None:
        self.location = location
        self.spec = f"files:{location}"
        self._down = ""
        try:
            events = _read_events(location) if cells is None else tidy_events(cells, FileReader(location))
            self._rows_of = {str(name): rows for name, rows in events.groupby(events["ticker"].map(_alike))}
        except Unreachable as error:  # a server that is down is no mistake of the request
            self._rows_of, self._down = {}, str(error)

    def announced(self, ticker: str, *, as_of: date, calendar: str = NEW_YORK) -> Announced:  # noqa: ARG002
        """The rows of `ticker`, those that the file itself says were first seen after `as_of` left out."""
        if self._down:
            return Announced(ticker=ticker, outcome=Outcome.DOWN, known=self._down)
        rows = self._rows_of.get(_alike(ticker))
        if rows is not None:
            rows = rows.loc[~(rows["first_seen"] > pd.Timestamp(as_of))]
        if rows is None or rows.empty:
            known = f"{self.location} names no date of {ticker or 'the whole market'}"
            return Announced(ticker=ticker, outcome=Outcome.EMPTY, known=known)
        events = rows.assign(ticker=ticker).reset_index(drop=True)
        return Announced(ticker=ticker, outcome=Outcome.OK, events=events)


def _read_events(location: str) -> pd.DataFrame:
    path, reading = split_location(location)
    place, reader = find_files(path), FileReader(path, reading)
    if place.is_folder:
        reader.refuse("a folder. Expected one CSV or Parquet file with Ticker and Earnings_Date, or Date and Event.")
    try:
        file = _open_file(path, place.system, place.paths[0])
    except UNREADABLE as error:
        refuse_file(reader, error)
    return tidy_events(all_cells(file, reader, EVENT_NAMES), reader)


def _open_file(name: str, system: FilesThere | None, path: str) -> pa.NativeFile:
    """The file, `name` in messages. Raises SourceMissing, Foreign (more than the limit of a file), OSError."""
    file = pa.BufferReader(_download(name, path)) if system is None else system.open_input_file(path)
    require_size(file.size(), "it has")
    return file


def _alike(ticker: str) -> str:
    return ticker.replace(".", "-")


def _why_empty(bars: pd.DataFrame, last: date) -> str:
    if bars.empty:
        return "a heading and no rows"
    held = f"{bars['session'].min():%Y-%m-%d} to {bars['session'].max():%Y-%m-%d}"
    return f"no row in the window up to {last}; it holds {held}"


def _download(name: str, url: str) -> bytes:
    try:
        with httpx.stream("GET", url, timeout=TIMEOUT_SECONDS, follow_redirects=True) as response:
            _require_file(name, response)
            return joined(response.iter_bytes(), "it has")  # unpacked, however small it is on its way
    except httpx.InvalidURL as error:
        detail = f" ({error})" if name == url else ""  # which may hold a part of a password
        raise SourceMissing(f"{name}: not a URL{detail}.") from error
    except httpx.HTTPError as error:
        raise Unreachable(f"{name}: no answer ({first_line(error)}). Check the address, or try again later.") from error


def _require_file(name: str, response: httpx.Response) -> None:
    answer = f"HTTP {response.status_code} {response.reason_phrase}".strip()
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.status_code >= 500:
        raise Unreachable(f"{name}: the server answered {answer}. Try again later.")
    if response.status_code != httpx.codes.OK:
        raise SourceMissing(f"{name}: the server answered {answer}. Expected a CSV or Parquet file.")


def _without_credentials(record: logging.LogRecord) -> bool:
    """httpx logs the URL of each request."""
    record.msg, record.args = shown(record.getMessage()), ()
    return True


logging.getLogger("httpx").addFilter(_without_credentials)
