"""Prices from files with Yahoo's columns: `files:PATH-or-URL`.

PATH is a CSV or Parquet file of one ticker (named by the file: `SBUX.csv`, `SBUX_tutorial.csv`), one with a ticker
column, or a folder of one file a ticker. A URL may be http(s) (a file), s3 or gs (a file or a folder).

    1. find the files                       SourceMissing when there are none
    2. read the one that holds the ticker   SourceUnusable when it cannot be read
    3. name its columns in our words        SourceUnusable when one lacks, or is there twice
    4. turn text into numbers and dates     SourceUnusable, with line, column and value, when one cannot be read
    5. recover dividends from Adj Close where the file has no Dividends

A folder's file is opened when its ticker is asked for, and one that cannot be used stops its own ticker only. Of a
Parquet file with a ticker column, only the row groups that hold the ticker are read.

Numbers may be quoted with thousands separators, as in Yahoo's own download ("1,234,500"); empty cells and MISSING_WORDS
are missing values. A date is the exchange's own: see `_sessions`.
"""

import re
from datetime import date
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NoReturn, cast
from urllib.parse import unquote, urlsplit

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from storage.adjustment import dividends_from_adj_close
from tasks.sources.protocol import BAR_COLUMNS, Fetch, Outcome, SourceError, SourceMissing, SourceUnusable

SUFFIXES = (".csv", ".parquet")
TIMEOUT_SECONDS = 30
MARKET_TIME_ZONE = "America/New_York"
REQUIRED = {  # our word -> Yahoo's
    "session": "Date",
    "open": "Open",
    "high": "High",
    "low": "Low",
    "close": "Close",
    "volume": "Volume",
}
WORDS = {  # the letters of a column's name -> our word
    "date": "session",
    "datetime": "session",
    "session": "session",
    "open": "open",
    "high": "high",
    "low": "low",
    "close": "close",
    "adjclose": "adj_close",
    "adjustedclose": "adj_close",
    "volume": "volume",
    "dividend": "dividend",
    "dividends": "dividend",
    "split": "split",
    "splits": "split",
    "stocksplits": "split",
    "ticker": "ticker",
    "symbol": "ticker",
}
MISSING_WORDS = ["", "-", "null", "none", "nan", "na", "n/a"]  # in any case
THOUSANDS = r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?"
STAMP = (
    r"^(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<time>\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?) ?(?P<zone>Z|UTC|[+-]\d{2}:?\d{2})?)?$"
)
UTC_ZONE = r"Z|UTC|[+-]00:?00"
# Of the 14,132 dividends recovered from 230 tickers the smallest real one is 1.8e-5 of the close, and the largest that
# is only rounding (a step up and down again) 7.3e-8.
SMALLEST_DIVIDEND = 1e-6


class _Unreachable(SourceMissing):
    """The URL's server did not answer, or asked to come back later."""


class FilesSource:
    """Bars out of files."""

    simulated = False

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
            bars = _bars(ticker, self._rows(ticker))
        except _Unreachable as error:
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
        held = self.tickers()
        return ", ".join(held[:8]) + (f" and {len(held) - 8} more" if len(held) > 8 else "")

    def _rows(self, ticker: str) -> pd.DataFrame:
        """The tidy rows of a ticker that is there."""
        if self._only_table is not None:
            return self._only_table.rows(ticker)
        names = [f"{self.location.rstrip('/')}/{PurePosixPath(path).name}" for path in self._paths_of[ticker]]
        if len(names) > 1:
            raise SourceUnusable(
                f"{' and '.join(names)} both stand for {ticker}. Expected one file a ticker; keep one."
            )
        table = _open_table(names[0], *self._listing[:1], self._paths_of[ticker][0])
        if table.tickers not in (None, [ticker]):
            raise SourceUnusable(
                f"{names[0]}: its ticker column holds {', '.join(map(str, table.tickers[:8])) or 'nothing'}. "
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
    def _only_table(self) -> "_Csv | _Parquet | None":
        """The table of a source that is one file; None for a folder."""
        system, paths, is_folder = self._listing
        return None if is_folder else _open_table(self.location, system, paths[0])

    @cached_property
    def _listing(self) -> tuple[pyarrow.fs.FileSystem | None, list[str], bool]:
        """Where the files lie (None: on the web), their paths, and whether they are a folder's."""
        if _is_web(self.location):
            return None, [self.location], False
        try:
            system, root = _filesystem(self.location)
            info = system.get_file_info(root)
            if info.type == pyarrow.fs.FileType.Directory:
                return system, _files_inside(self.location, system, root), True
        except (OSError, pa.ArrowException) as error:
            raise SourceMissing(f"{self.location}: cannot be looked at ({_first_line(error)}).") from error
        if info.type == pyarrow.fs.FileType.NotFound:
            raise SourceMissing(
                f"{self.location}: there is no such file or folder. "
                "Expected a CSV or Parquet file, or a folder of <TICKER>.csv."
            )
        return system, [root], False


class _Csv:
    """A CSV file, read as a whole."""

    def __init__(self, name: str, file: pa.NativeFile) -> None:
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
        self._table = tidy(raw.loc[~(raw == "").all(axis=1)], name)
        self.tickers: list[str] | None = None
        if "ticker" in self._table:
            self._positions = self._table.groupby("ticker").indices
            self.tickers = [str(ticker) for ticker in self._positions]
            if not self.tickers:
                raise SourceUnusable(f"{name}: a heading and no rows. Expected one row a ticker and session.")

    def rows(self, ticker: str) -> pd.DataFrame:
        return self._table if self.tickers is None else self._table.iloc[self._positions[ticker]]


class _Parquet:
    """A Parquet file, of which only what is asked for is read."""

    def __init__(self, name: str, file: pa.NativeFile) -> None:
        self._name = name
        self._file = pq.ParquetFile(file)
        names = self._file.schema_arrow.names
        self._columns = [column for column in names if _word(column) is not None]
        self._ticker_column = next((column for column in names if _word(column) == "ticker"), None)
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


def ticker_of(location: str) -> str:
    """The ticker that a file's name stands for: `x/SBUX_tutorial.csv` -> `SBUX`, `BRK-B.csv` -> `BRK-B`."""
    name = PurePosixPath(unquote(urlsplit(location).path) if _is_web(location) else location).name
    bare = re.sub(r"\.(csv|parquet)$", "", name, flags=re.IGNORECASE)
    return re.split(r"[_ ]", bare)[0].upper()


def tidy(raw: pd.DataFrame, name: str) -> pd.DataFrame:
    """Our words and types for a file's own columns; other columns are left out, rows stay as they are.

    Gives session (datetime64[s]), open, high, low, close, volume and, where the file has them, adj_close, dividend,
    split (float64), ticker (str). `raw`: cells as text or typed; its index, with its name, says where a row stands.
    Raises SourceUnusable, naming the file and, where there is one, the row, column and value.
    """
    columns: dict[str, pd.Series] = {}
    for position, heading in enumerate(raw.columns):
        word = _word(heading)
        if word in columns:
            raise SourceUnusable(
                f"{name}: the columns {columns[word].name} and {heading} mean the same. Expected one; take one out."
            )
        if word is not None:
            columns[word] = raw.iloc[:, position]
    lacking = [theirs for ours, theirs in REQUIRED.items() if ours not in columns]
    if lacking:
        found = ", ".join(str(heading) for heading in raw.columns[:12]) or "none"
        raise SourceUnusable(
            f"{name}: no column {', '.join(lacking)}. Expected Date, Open, High, Low, Close, Volume "
            f"(and, if there is, Adj Close); found {found[:200]}."
        )
    readers = {"session": _sessions, "ticker": _tickers}
    return pd.DataFrame({word: readers.get(word, _numbers)(column, name) for word, column in columns.items()})


def _word(heading: object) -> str | None:
    return WORDS.get(re.sub(r"[^a-z]", "", str(heading).lower()))


def _tickers(column: pd.Series, name: str) -> pd.Series:
    texts = column.astype(str).str.strip().str.upper()
    _refuse_first(texts == "", column, name, "is no ticker. Expected one in every row.")
    return texts


def _numbers(column: pd.Series, name: str) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return column.astype("float64")
    texts = column.astype(str).str.strip()
    is_missing = column.isna() | texts.str.lower().isin(MISSING_WORDS)
    bare = texts.where(~texts.str.fullmatch(THOUSANDS), texts.str.replace(",", ""))
    numbers = cast(pd.Series, pd.to_numeric(bare.mask(is_missing), errors="coerce")).astype("float64")
    is_wrong = ~np.isfinite(numbers) & ~is_missing
    _refuse_first(is_wrong, column, name, "is not a number. Expected one, or nothing where the value is missing.")
    return numbers


def _sessions(column: pd.Series, name: str) -> pd.Series:
    """The dates on the exchange's wall clock: with a time zone, the date as written, whatever the offset.

    Stamps in UTC are labels of dates when all are midnights, else instants, which are taken to New York.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        local, utc = column.dt.tz_localize(None), column.dt.tz_convert("UTC").dt.tz_localize(None)
        dates = _from_utc(utc) if local.equals(utc) else local
    elif pd.api.types.is_datetime64_dtype(column.dtype):
        dates = column
    else:
        dates = _dates_of_text(column.astype(str).str.strip())
    _refuse_first(dates.isna(), column, name, "is not a date. Expected YYYY-MM-DD, such as 2019-12-11.")
    return dates.dt.normalize().astype("datetime64[s]")


def _dates_of_text(texts: pd.Series) -> pd.Series:
    """Naive datetimes, NaT for a text that is not a date."""
    parts = texts.str.extract(STAMP)
    dates = cast(pd.Series, pd.to_datetime(parts["date"], format="%Y-%m-%d", errors="coerce"))
    is_utc = parts["zone"].str.fullmatch(UTC_ZONE).fillna(False).astype(bool) & dates.notna()
    stamps = parts.loc[is_utc, "date"] + " " + parts.loc[is_utc, "time"]
    utc = cast(pd.Series, pd.to_datetime(stamps, format="ISO8601", errors="coerce"))
    return pd.concat([dates.loc[~is_utc], _from_utc(utc)]).reindex(texts.index)


def _from_utc(utc: pd.Series) -> pd.Series:
    if (utc.dt.normalize() == utc).all():
        return utc
    return utc.dt.tz_localize("UTC").dt.tz_convert(MARKET_TIME_ZONE).dt.tz_localize(None)


def _refuse_first(is_wrong: pd.Series, column: pd.Series, name: str, fact: str) -> None:
    if is_wrong.any():
        row = int(is_wrong.to_numpy().argmax())
        place = f"{column.index.name} {column.index[row]}, column {column.name}"
        raise SourceUnusable(f"{name}: {place}: {str(column.iloc[row])[:60]!r} {fact} Correct it; nothing was taken.")


def _bars(ticker: str, rows: pd.DataFrame) -> pd.DataFrame:
    """BAR_COLUMNS by session; dividends are the file's own or, where it has only Adj Close, recovered from that."""
    # A row that is there twice must go first: the second copy would get neither dividend nor later_adjustment.
    bars = rows.drop_duplicates().sort_values("session", kind="stable").reset_index(drop=True)
    bars = bars.assign(ticker=ticker, later_adjustment=1.0)
    if "adj_close" in bars:
        close, adj_close = bars["close"].to_numpy(), bars["adj_close"].to_numpy()
        usable = (close > 0) & (adj_close > 0) & np.isfinite(close) & np.isfinite(adj_close)
        dividend, later = dividends_from_adj_close(close[usable], adj_close[usable])
        dividend[1:] = np.where(np.abs(dividend[1:]) < SMALLEST_DIVIDEND * close[usable][:-1], 0.0, dividend[1:])
        bars.loc[usable, "later_adjustment"] = later
        # No factor makes such a row; the rules will name it.
        bars.loc[~usable & ~np.isnan(adj_close) & (close > 0), "later_adjustment"] = -1.0
        if "dividend" not in bars:
            bars["dividend"] = 0.0
            bars.loc[usable, "dividend"] = dividend
    for name in ("dividend", "split"):
        bars[name] = bars[name].fillna(0.0) if name in bars else 0.0
    return bars.loc[:, BAR_COLUMNS]


def _why_empty(bars: pd.DataFrame, last: date) -> str:
    if bars.empty:
        return "a heading and no rows"
    held = f"{bars['session'].min():%Y-%m-%d} to {bars['session'].max():%Y-%m-%d}"
    return f"no row in the window up to {last}; it holds {held}"


def _is_web(location: str) -> bool:
    return location.startswith(("http://", "https://"))


def _filesystem(location: str) -> tuple[pyarrow.fs.FileSystem, str]:
    if "://" in location:
        return pyarrow.fs.FileSystem.from_uri(location)
    return pyarrow.fs.LocalFileSystem(), str(Path(location).expanduser())


def _files_inside(location: str, system: pyarrow.fs.FileSystem, root: str) -> list[str]:
    entries = system.get_file_info(pyarrow.fs.FileSelector(root))
    inside = [
        entry.path
        for entry in entries
        if entry.type == pyarrow.fs.FileType.File
        and entry.base_name.lower().endswith(SUFFIXES)
        and not entry.base_name.startswith(".")
    ]
    if not inside:
        raise SourceMissing(
            f"{location}: the folder holds no .csv and no .parquet file. Expected one <TICKER>.csv a ticker."
        )
    return sorted(inside)


def _open_table(name: str, system: pyarrow.fs.FileSystem | None, path: str) -> _Csv | _Parquet:
    """The table in a file, named `name` in messages; `system` None means the web."""
    try:
        file = pa.BufferReader(_download(path)) if system is None else system.open_input_file(path)
        is_parquet = file.read(4) == b"PAR1" or path.lower().endswith(".parquet")
        file.seek(0)
        return _Parquet(name, file) if is_parquet else _Csv(name, file)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pa.ArrowException) as error:
        _refuse_file(name, error)


def _refuse_file(name: str, error: Exception) -> NoReturn:
    reason = _first_line(error).removeprefix("Error tokenizing data. C error: ")
    raise SourceUnusable(f"{name}: not readable as CSV or Parquet ({reason}).") from error


def _download(url: str) -> bytes:
    try:
        response = httpx.get(url, timeout=TIMEOUT_SECONDS, follow_redirects=True)
    except httpx.InvalidURL as error:
        raise SourceMissing(f"{url}: not a URL ({error}).") from error
    except httpx.HTTPError as error:
        raise _Unreachable(
            f"{url}: no answer ({_first_line(error)}). Check the address, or try again later."
        ) from error
    answer = f"HTTP {response.status_code} {response.reason_phrase}".strip()
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.status_code >= 500:
        raise _Unreachable(f"{url}: the server answered {answer}. Try again later.")
    if response.status_code != httpx.codes.OK:
        raise SourceMissing(f"{url}: the server answered {answer}. Expected a CSV or Parquet file.")
    return response.content


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
