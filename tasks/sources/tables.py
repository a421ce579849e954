"""The tables in files: a CSV, or a Parquet file of which only what is asked for is read."""

from functools import cached_property
from typing import NoReturn

import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.source_files import FileSystem
from tasks.sources.columns import tidy, word_for
from tasks.sources.protocol import SourceMissing, SourceUnusable

TIMEOUT_SECONDS = 30
UNREADABLE = (OSError, UnicodeDecodeError, pd.errors.ParserError, pa.ArrowException)


class Unreachable(SourceMissing):
    """The URL's server did not answer, or asked to come back later."""


class CsvTable:
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


class ParquetTable:
    """A Parquet file, of which only what is asked for is read."""

    def __init__(self, name: str, file: pa.NativeFile) -> None:
        self._name = name
        self._file = pq.ParquetFile(file)
        names = self._file.schema_arrow.names
        self._columns = [column for column in names if word_for(column) is not None]
        self._ticker_column = next((column for column in names if word_for(column) == "ticker"), None)
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


def open_table(name: str, system: FileSystem | None, path: str) -> CsvTable | ParquetTable:
    """The table in a file, named `name` in messages; `system` None means the web."""
    try:
        file, is_parquet = _open_file(system, path)
        return ParquetTable(name, file) if is_parquet else CsvTable(name, file)
    except UNREADABLE as error:
        _refuse_file(name, error)


def read_cells(name: str, system: FileSystem | None, path: str) -> pd.DataFrame:
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


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that some libraries add."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
