"""Where a source's files lie, which of them make one table, and which tickers their names stand for.

A folder is one file a ticker, unless its files are parts of a data set: below folders such as Ticker=AAPL, or named as
Spark, DuckDB and exchanges name parts (part-0000…, 2024-06-28.csv.gz).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from volcast.storage.errors import first_line
from volcast.storage.store import files_at
from volcast.tasks.sources.cells import is_table
from volcast.tasks.sources.source import IN_ENVIRONMENT, SourceMissing

SUFFIX = r"(?i)(?:\.(?:csv|txt|tsv|parquet|pq|xlsx|xlsm|zip|tar|tgz|gz|bz2|xz|zst|snappy))+$"
COPY_OR_DATE = r"(?i)[ _]*\(\d+\)$|[ _-]+copy$|[ _-](?:19|20)\d{2}(?:-?\d{2}-?\d{2})?$"
OF_A_DATASET = r"(?i)part-.*|[0-9a-f]{16,}.*|[0-9a-f-]{32,}.*|(?:19|20)\d{2}(?:[-_]?\d{2}(?:[-_]?\d{2})?)?"
OF_MARKETWATCH = r"STOCK_[A-Z]{2}_[A-Z]{4}_(?P<ticker>[A-Z.]+)$"
# Words of a name that are no ticker: table_aapl.csv, daily_adjusted_IBM.csv, HistoricalData_1700000000000.csv
WORDS = (
    "table data prices price stock stocks stk history historical historicaldata hist daily adjusted adj quote quotes "
    "export download ohlcv ohlc bars eod csv us market time series file my"
)


class FilesThere(Protocol):
    """What files are opened of: a file system, or an archive."""

    def open_input_file(self, path: str) -> pa.NativeFile:
        """A file, to read."""
        ...


@dataclass(frozen=True)
class Archive:
    """The tables in a zip or tar file."""

    members: Mapping[str, bytes]

    def open_input_file(self, path: str) -> pa.NativeFile:
        """A member, to read."""
        return pa.BufferReader(self.members[path])


@dataclass(frozen=True)
class Place:
    """Some files: of a file system, of an archive, or (None) on the web."""

    system: FilesThere | None
    paths: list[str]
    is_folder: bool = False
    is_one_table: bool = True

    def of_folders(self, path: str) -> dict[str, str]:
        """The columns that a file's folders name: …/Ticker=AAPL/part-0.parquet."""
        folders = PurePosixPath(path).parent.parts if self.is_folder else ()
        return {key: unquote(value) for key, mark, value in (part.partition("=") for part in folders) if mark}


def find_files(location: str) -> Place:
    """The files at a path or URL. Raises SourceMissing."""
    place = place_of(location)
    if is_web(place):
        return Place(None, [place])
    try:
        system, paths, is_folder = files_at(place, is_table)
    except (OSError, pa.ArrowException) as error:
        raise SourceMissing(f"{location}: cannot be looked at ({first_line(error)}).") from error
    if paths:
        return Place(system, paths, is_folder, not is_folder or _are_parts(paths))
    fact = (
        "the folder holds no .csv and no .parquet file. Expected one <TICKER>.csv a ticker."
        if is_folder
        else "there is no such file or folder. Expected a CSV or Parquet file, or a folder of <TICKER>.csv."
    )
    raise SourceMissing(f"{location}: {fact}")


def place_of(location: str) -> str:
    """The path or URL itself, which is not to be shown. Raises SourceMissing for a variable that is not set."""
    if not location.startswith(IN_ENVIRONMENT):
        return location
    name = location.removeprefix(IN_ENVIRONMENT)
    if not os.environ.get(name):
        raise SourceMissing(f"{location}: expected the path or URL of the file in the environment variable {name}.")
    return os.environ[name]


def find_members(location: str, members: Mapping[str, bytes]) -> Place:
    """The tables in an archive."""
    if not members:
        raise SourceMissing(f"{location}: the archive holds no .csv and no .parquet file.")
    paths = sorted(members)
    return Place(Archive(members), paths, len(paths) > 1, len(paths) == 1 or _are_parts(paths))


def ticker_of(location: str) -> str:
    """The ticker of a file's name: `x/SBUX_tutorial.csv` -> `SBUX`, `BRK_B.csv` -> `BRK.B`; "" for none."""
    stem, before = stem_of(location), ""
    while stem != before:
        before, stem = stem, re.sub(COPY_OR_DATE, "", stem)
    if found := re.search(OF_MARKETWATCH, stem):
        return found["ticker"]
    words = re.split(r"[_ ]+", re.sub(r"(?i)\.us$", "", stem))
    if len(words) == 1 and words[0].isupper():
        return words[0]
    kept = [word for word in words if word and word.lower() not in WORDS.split() and not re.fullmatch(r"\d{9,}", word)]
    named = [word for word in kept if not word.isdigit()] or kept
    if len(named) == 2 and len(named[1]) == 1 and named[1].isalpha():  # a class of shares: BRK_B
        return ".".join(named).upper()
    return named[0].upper() if named else ""


def stem_of(location: str) -> str:
    """A file's name without what says how it is written."""
    name = PurePosixPath(unquote(urlsplit(location).path) if is_web(location) else location).name
    return re.sub(SUFFIX, "", name)


def is_web(location: str) -> bool:
    """Whether it is asked for by HTTP."""
    return location.startswith(("http://", "https://"))


def _are_parts(paths: list[str]) -> bool:
    names = [stem_of(path) for path in paths]
    return any("=" in PurePosixPath(path).parent.name for path in paths) or all(
        re.fullmatch(OF_A_DATASET, name) for name in names
    )
