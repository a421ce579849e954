"""Which tickers the files of one table hold, and the rows of one of them.

A table is long (a row a ticker and session), wide (columns a ticker) or of one ticker, which its file's name tells.
What is CSV or a workbook is read as a whole; of Parquet, the row groups that hold a ticker, when it is asked for.
"""

import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from volcast.storage.bounds import in_full, open_parquet
from volcast.storage.errors import Foreign, first_line
from volcast.tasks.sources.cells import cells_of, is_parquet, unpacked
from volcast.tasks.sources.columns import FEWEST_ROWS, PRICE_NAMES, plausible, tidy
from volcast.tasks.sources.headings import Names, by_ticker, chosen_columns, plain_heading
from volcast.tasks.sources.numerals import is_missing
from volcast.tasks.sources.reading import FileReader
from volcast.tasks.sources.source import SourceError, SourceUnusable

UNREADABLE = (
    OSError, EOFError, ValueError, pd.errors.ParserError, pa.ArrowException, lzma.LZMAError, zipfile.BadZipFile,
    tarfile.TarError, zlib.error, Foreign,
)  # fmt: skip
ALONE = r"[A-Z0-9^][A-Z0-9.^=:-]{0,9}"  # what a column of one value must look like to be a ticker's
MANY_TWICE = 0.2  # of the sessions


@dataclass(frozen=True)
class Part:
    """One opened file of a table, and the columns that its folder names: Ticker=AAPL."""

    file: pa.NativeFile
    of_folder: Mapping[str, str]


def opened_table(parts: Sequence[Part], reader: FileReader) -> "CellsTable | ParquetTable":
    """The table in some files, which are of one kind. Raises SourceUnusable."""
    try:
        parts = [Part(unpacked(part.file, reader), part.of_folder) for part in parts]
        kinds = {is_parquet(part.file) for part in parts}
        if len(kinds) > 1:
            reader.refuse("some files are Parquet and some are not. Expected one kind; take one out.")
        return ParquetTable(parts, reader) if kinds == {True} else CellsTable(parts, reader)
    except UNREADABLE as error:
        refuse_file(reader, error)


def all_cells(file: pa.NativeFile, reader: FileReader, names: Names) -> pd.DataFrame:
    """All cells of a small file, as text or typed, under the file's own headings; the index says where a row stands."""
    try:
        file = unpacked(file, reader)
        return (
            _frame(in_full(open_parquet(file, "it").read(), "it"), "row")
            if is_parquet(file)
            else cells_of(file, reader, names)
        )
    except UNREADABLE as error:
        refuse_file(reader, error)


def refuse_file(reader: FileReader, error: Exception) -> NoReturn:
    """Raise SourceUnusable for a file that cannot be read."""
    if isinstance(error, SourceError):
        raise error
    if isinstance(error, Foreign):
        reader.refuse(str(error))
    reason = first_line(error).removeprefix("Error tokenizing data. C error: ")
    raise SourceUnusable(f"{reader.file}: not readable as CSV or Parquet ({reason}).") from error


class CellsTable:
    """Files that are read as a whole."""

    def __init__(self, parts: Sequence[Part], reader: FileReader) -> None:
        self._reader = reader
        raws = [cells_of(part.file, reader, PRICE_NAMES).assign(**part.of_folder) for part in parts]
        self._raw = raws[0] if len(raws) == 1 else pd.concat(raws, ignore_index=True).rename_axis("row")
        self._wide = _wide(list(self._raw.columns), reader)
        self.tickers: list[str] | None = sorted(self._wide) or None
        if self._wide:
            return
        tidied = tidy(self._raw, reader)
        self._table, self._faults = tidied.frame, tidied.faults
        if "ticker" in self._table and not _names_tickers(self._raw, pd.Series(self._table["ticker"]), reader):
            self._table = self._table.drop(columns="ticker")
        if "ticker" in self._table:
            self._positions = self._table.groupby("ticker").indices
            self.tickers = [str(ticker) for ticker in self._positions]
            if not self.tickers:
                reader.refuse("a heading and no rows. Expected one row a ticker and session.")
        elif len(self._faults):
            reader.refuse(self._faults.iloc[0])

    def rows(self, ticker: str) -> pd.DataFrame:
        """The tidy rows of a ticker that is there. Raises SourceUnusable, for this ticker only."""
        if self._wide:
            return _rows_of_wide(self._raw, self._wide[ticker], ticker, self._reader)
        rows = self._table if self.tickers is None else self._table.iloc[self._positions[ticker]]
        if len(self._faults) and len(faults := self._faults.loc[self._faults.index.isin(rows.index)]):
            self._reader.refuse(faults.iloc[0])
        if self.tickers is None:
            _require_one_ticker(rows, self._raw, self._reader)
        return plausible(rows, ticker, self._reader)


class ParquetTable:
    """Parquet files, of which only what is asked for is read."""

    def __init__(self, parts: Sequence[Part], reader: FileReader) -> None:
        self._reader = reader
        self._parts = parts
        self._files = [open_parquet(part.file, "it") for part in parts]
        names = [*self._files[0].schema_arrow.names, *parts[0].of_folder]
        self._wide = _wide(names, reader)
        self._last_read: tuple[list[tuple[int, int]], pa.Table] | None = None
        self._columns: list[str] | None = None
        self._ticker_column: str | None = None
        if self._wide:
            self.tickers: list[str] | None = sorted(self._wide)
            return
        chosen = chosen_columns([plain_heading(name) for name in names], PRICE_NAMES, reader)
        self._columns = [names[position] for position, _ in chosen.values()]
        if "ticker" in chosen:
            self._ticker_column = names[chosen["ticker"][0]]
        if self._ticker_column and not self._is_of_tickers():
            self._columns.remove(self._ticker_column)
            self._ticker_column = None
        self.tickers = None if self._ticker_column is None else list(self._places)

    def rows(self, ticker: str) -> pd.DataFrame:
        """The tidy rows of a ticker that is there. Raises SourceUnusable, for this ticker only."""
        try:
            return self._rows(ticker)
        except UNREADABLE as error:
            refuse_file(self._reader, error)

    def _rows(self, ticker: str) -> pd.DataFrame:
        if self._wide:
            raw = _frame(self._read(self._all_groups()), "row")
            return _rows_of_wide(raw, self._wide[ticker], ticker, self._reader)
        if self._ticker_column is None:
            table, label = self._read(self._all_groups()), "row"
        else:
            spellings, groups = self._places[ticker]
            wanted = self._read(sorted(set(groups))).filter(pc.field(self._ticker_column).isin(spellings))
            table, label = wanted.drop_columns([self._ticker_column]), f"{ticker} row"
        tidied = tidy(_frame(table, label), self._reader)
        if len(tidied.faults):
            self._reader.refuse(tidied.faults.iloc[0])
        if self._ticker_column is None and _is_often_twice(tidied.frame):
            tables = [in_full(file.read(), "it") for file in self._files]
            everything = pa.concat_tables(tables, promote_options="permissive")
            _require_one_ticker(tidied.frame, _frame(everything, "row"), self._reader)
        return plausible(tidied.frame, ticker, self._reader)

    def _all_groups(self) -> list[tuple[int, int]]:
        return [(part, group) for part, file in enumerate(self._files) for group in range(file.num_row_groups)]

    def _is_of_tickers(self) -> bool:
        """Whether a column that may hold the tickers does."""
        found = pd.Series(list(self._places), dtype="object")
        return _names_tickers([self._ticker_column], found, self._reader)

    @cached_property
    def _places(self) -> dict[str, tuple[list[str], list[tuple[int, int]]]]:
        """ticker -> how the files spell it, and the row groups (file, group) that hold it."""
        found: dict[str, tuple[list[str], list[tuple[int, int]]]] = {}
        for place in self._all_groups():
            for spelling in self._spellings(place):
                if not (spelling or "").strip():
                    self._reader.refuse(f"a row has no ticker (row group {place[1]}). Expected one a row.")
                known, groups = found.setdefault(spelling.strip().upper(), ([], []))
                known.append(spelling)
                groups.append(place)
        if not found:
            self._reader.refuse("no rows. Expected one row a ticker and session.")
        return found

    def _spellings(self, place: tuple[int, int]) -> list[str]:
        part, group = place
        assert self._ticker_column is not None
        if told := self._parts[part].of_folder.get(self._ticker_column):
            return [told]
        spellings = self._files[part].read_row_group(group, columns=[self._ticker_column]).column(0).unique()
        if isinstance(spellings, pa.DictionaryArray):
            spellings = spellings.dictionary_decode()
        return _as_text(spellings).to_pylist()

    def _read(self, groups: list[tuple[int, int]]) -> pa.Table:
        """The row groups; those read last are kept, since neighbours in the alphabet mostly lie in the same ones."""
        if self._last_read is None or self._last_read[0] != groups:
            by_part = {part: [group for each, group in groups if each == part] for part, _ in groups}
            tables = [self._read_part(part, of_part) for part, of_part in by_part.items()]
            table = tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="permissive")
            if self._ticker_column is not None:
                position = table.column_names.index(self._ticker_column)
                table = table.set_column(position, self._ticker_column, _as_text(table.column(position)))
            self._last_read = groups, table
        return self._last_read[1]

    def _read_part(self, part: int, groups: list[int]) -> pa.Table:
        named = self._parts[part].of_folder
        columns = None if self._columns is None else [name for name in self._columns if name not in named]
        table = in_full(self._files[part].read_row_groups(groups, columns=columns), "it")
        for name, value in named.items():
            if self._columns is None or name in self._columns:
                table = table.append_column(name, pa.repeat(value, len(table)))
        return table


def _frame(table: pa.Table, label: str) -> pd.DataFrame:
    """A table as pandas has it, bytes as text, without rows of nothing."""
    for position, field in enumerate(table.schema):
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            table = table.set_column(position, field.name, _as_text(table.column(position)))
    raw = table.to_pandas(date_as_object=False, ignore_metadata=True)
    raw.index = pd.RangeIndex(1, len(raw) + 1, name=label)
    return raw.dropna(how="all")


def _as_text(column: Any) -> Any:
    """A column of names or codes as strings; a code that has become 7203.0 on its way is 7203."""
    if pa.types.is_floating(column.type):
        column = column.cast(pa.int64())
    return column.cast(pa.string())


def _wide(headings: Sequence[object], reader: FileReader) -> dict[str, dict[int, str]]:
    """ticker -> its columns (position -> heading), and those of all tickers; empty for a table that is not wide."""
    plain = [plain_heading(heading) for heading in headings]
    known = {meaning.name for heading in plain if (meaning := PRICE_NAMES.find(heading, reader))}
    if {"open", "high", "low", "close"} <= known:
        return {}
    found = by_ticker(headings, PRICE_NAMES)
    dates = [n for n, each in enumerate(plain) if n not in {n for columns in found.values() for n in columns}]
    shared = {
        n: plain[n] for n in dates if (found_as := PRICE_NAMES.find(plain[n], reader)) and found_as.name == "session"
    }
    return {ticker: shared | columns for ticker, columns in found.items()}


def _rows_of_wide(raw: pd.DataFrame, columns: Mapping[int, str], ticker: str, reader: FileReader) -> pd.DataFrame:
    """The tidy rows of one ticker of a wide table, from its first to its last."""
    own = raw.iloc[:, list(columns)].set_axis(list(columns.values()), axis=1)
    chosen = chosen_columns(list(own.columns), PRICE_NAMES, reader)
    values = own.iloc[:, [position for name, (position, _) in chosen.items() if name != "session"]]
    tidied = tidy(own.loc[~values.apply(is_missing).all(axis=1)], reader)
    if len(tidied.faults):
        reader.refuse(f"{ticker}: {tidied.faults.iloc[0]}")
    return plausible(tidied.frame, ticker, reader)


def _names_tickers(headings: Iterable[object], tickers: pd.Series, reader: FileReader) -> bool:
    """Whether the ticker column is one: its heading means nothing else, or its values differ or look like tickers."""
    _, meaning = chosen_columns([plain_heading(heading) for heading in headings], PRICE_NAMES, reader)["ticker"]
    found = tickers.unique()
    return meaning.rank < 2 or len(found) > 1 or (len(found) == 1 and bool(re.fullmatch(ALONE, found[0])))


def _is_often_twice(rows: pd.DataFrame) -> bool:
    values = rows.drop_duplicates()
    return len(rows) >= FEWEST_ROWS and float(values.duplicated("session").mean()) > MANY_TWICE


def _require_one_ticker(rows: pd.DataFrame, raw: pd.DataFrame, reader: FileReader) -> None:
    """Refuse a table whose sessions come several times, with the column that tells its rows apart, if one does."""
    if not _is_often_twice(rows):
        return
    sessions = rows["session"]
    shown = f"{sessions.duplicated(keep=False).sum():,} of {len(rows):,} rows share their date with another"
    for position, heading in enumerate(raw.columns):
        pairs = pd.DataFrame({"session": sessions, "value": raw.iloc[:, position].loc[rows.index].astype(str)})
        values = sorted(set(pairs["value"]))
        if 1 < len(values) <= len(rows) // 4 and len(pairs.drop_duplicates()) >= len(rows.drop_duplicates()):
            reader.refuse(
                f"{shown}; column {heading} tells them apart ({', '.join(values[:3])}, …). Expected one bar a session. "
                f"Nothing was taken. If that is the ticker: --columns {heading}=ticker"
            )
    reader.refuse(f"{shown}. Expected one bar a session, or a column that tells the tickers apart; nothing was taken.")
