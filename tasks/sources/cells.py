"""The cells of a file, as text or typed, under one heading a column; what they mean is another module's (columns.py).

1. take it out of gzip, bzip2, xz, zstd, or an archive of one file
2. text: encoding by its byte order mark, else UTF-8, else the one in which most headings are words that are known
3. the delimiter and the line of the heading: those with the most known headings; lines before it are left out
4. more lines of a heading (yfinance's tickers and `Date`, a line of units) become part of each column's heading

Excel's workbooks and CSV are read by pandas, Parquet by pyarrow.
"""

import bz2
import csv
import gzip
import io
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa

from volcast.models.text import listed
from volcast.storage.bounds import joined, require_size
from volcast.tasks.sources.headings import Names, is_unit, letters
from volcast.tasks.sources.numerals import is_missing
from volcast.tasks.sources.reading import FileReader

TABLES = (".csv", ".parquet", ".pq", ".txt", ".tsv", ".xlsx", ".xlsm")
PACKED = (".gz", ".bz2", ".xz", ".zst")
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2")
SUFFIXES = (*TABLES, *(table + packed for table in TABLES for packed in PACKED), *ARCHIVES)
NO_PRICES = ("readme", "license", "licence", "changelog", "notes", "requirements")  # of text files beside them
PACKED_BY = {  # first bytes -> by what
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
}
ENCODED_BY = {
    b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}  # fmt: skip
OTHER_ENCODINGS = ("cp1252", "cp932", "gb18030")  # of Excel in Western Europe, Japan and China
CHUNK = 1 << 24  # bytes that are unpacked at a time
MAX_LEVEL = 2  # archives within each other
OBJECT_FACTOR = 16  # a cell of a workbook takes some 16 times the bytes of its XML
HEAD_BYTES, HEAD_LINES = 1 << 16, 40
KNOWN_ENOUGH = 5  # columns of which one delimiter makes headings
DELIMITERS = (",", ";", "\t", "|")
CHANGES_MEANING = r"(?i)\b(thousands?|millions?|in lots|weekly|monthly|hourly|intraday|percent)\b|'000|\(000\)"
NOT_IN_A_HEADING = r"^[+-]?[\d.,]*\d%?$|^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b"  # a number or a date


@dataclass(frozen=True)
class Heading:
    """Where a table's heading stands, and what it says."""

    line: int  # of the row that names the columns; rows count from 0
    rows_below: int  # more rows of the heading, below it
    columns: list[str]
    known: int  # of the columns


def unpacked(file: pa.NativeFile, reader: FileReader, *, level: int = 0) -> pa.NativeFile:
    """The file without compression, at its beginning; of an archive its only table.

    Raises SourceUnusable, OSError, Foreign (it unpacks to more than the limit of a file).
    """
    if level > MAX_LEVEL:  # an archive may hold itself
        reader.refuse("it is an archive in an archive in an archive. Expected one table; give it by itself.")
    file = _decompressed(file)
    if not _is_archive(file) or _is_workbook(file):
        return file
    members = archive_members(file)
    if len(members) != 1:
        found = ", ".join(sorted(members)[:5]) or "no table"
        reader.refuse(f"the archive holds {found}. Expected one table in it; give it by itself, not in a folder.")
    return unpacked(pa.BufferReader(next(iter(members.values()))), reader, level=level + 1)


def archive_members(file: pa.NativeFile) -> dict[str, bytes]:
    """Name -> content of the tables in a zip or tar file; empty for one that is no archive."""
    file = _decompressed(file)
    if not _is_archive(file) or _is_workbook(file):
        return {}
    members, size = dict[str, bytes](), 0
    for name, declared, read in _archive(file):
        if is_table(PurePosixPath(name).name):
            size += declared
            require_size(size, "it unpacks to")
            members[name] = read()
    return members


def is_table(name: str) -> bool:
    """Whether a file among others holds a table, by its name."""
    return name.lower().endswith(SUFFIXES) and not name.lower().startswith((".", "_", *NO_PRICES))


def is_parquet(file: pa.NativeFile) -> bool:
    """By its first bytes."""
    start = file.read(4)
    file.seek(0)
    return start == b"PAR1"


def cells_of(file: pa.NativeFile, reader: FileReader, names: Names) -> pd.DataFrame:
    """The cells of a CSV file or workbook under its headings, without empty rows; the index says where a row stands."""
    if _is_workbook(file):
        return _workbook_cells(file, reader, names)
    start = file.read(HEAD_BYTES)
    file.seek(0)
    if not start.strip():
        reader.refuse("the file is empty. Expected a heading and one row a session.")
    encoding, delimiter, heading = _dialect(start, reader, names)
    raw = _read(file, delimiter, heading.line, encoding)
    if raw is None:
        reader.refuse("the file is empty. Expected a heading and one row a session.")
    columns = heading.columns + [""] * (raw.shape[1] - len(heading.columns))
    raw.index = pd.RangeIndex(1 + heading.line, 1 + heading.line + len(raw), name="line")
    body = raw.iloc[1 + heading.rows_below :].set_axis(columns[: raw.shape[1]], axis=1)
    return body.loc[~(body == "").all(axis=1)]


def require_no_meaning(texts: Sequence[str], reader: FileReader) -> None:
    """Note the lines that are left out; refuse one that may change what the numbers mean, where nothing is told."""
    said = [text.strip(" ,;\t\"'") for text in texts]
    said = [text for text in said if text and not re.match("(?i)sep=", text)]
    for text in said:
        if re.search(CHANGES_MEANING, text) and not reader.reading.columns:
            reader.refuse(
                f"it says {text[:80]!r}, which may change what its numbers mean. Nothing was taken. "
                "Say the volume's unit by: --columns Volume=volume, or =volume*1000 for thousands"
            )
    if said:
        reader.note(f"left out, since they are no prices: {listed([repr(text[:60]) for text in said], 3)}")


def _dialect(start: bytes, reader: FileReader, names: Names) -> tuple[str, str, Heading]:
    """Encoding, delimiter and heading."""
    encodings = [next((name for mark, name in ENCODED_BY.items() if start.startswith(mark)), "")]
    if not encodings[0]:
        zeros = start[:1000].count(b"\x00")
        wide = "utf-16-le" if start[1:2] == b"\x00" else "utf-16-be"
        encodings = [wide] if zeros > 100 else ["utf-8"] if _is_utf8(start) else list(OTHER_ENCODINGS)
    found = [(encoding, *_delimited(start, encoding, reader, names)) for encoding in encodings]
    encoding, text, delimiter, heading = max(found, key=lambda each: each[3].known)
    require_no_meaning(text.splitlines()[: heading.line - _rows_above(text, delimiter, heading)], reader)
    return encoding, delimiter, heading


def _is_utf8(start: bytes) -> bool:
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4  # cut within a character
    return True


def _delimited(start: bytes, encoding: str, reader: FileReader, names: Names) -> tuple[str, str, Heading]:
    text = start.decode(encoding, errors="replace")
    lines = text.splitlines()[:HEAD_LINES]
    best, found = ",", Heading(0, 0, [], -1)
    for delimiter in DELIMITERS:
        heading = find_heading(_rows(lines, delimiter), reader, names)
        if heading.known > found.known:  # the first of equals
            best, found = delimiter, heading
        if heading.known >= KNOWN_ENOUGH:
            break
    return text, best, found


def _rows(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    try:
        return list(islice(csv.reader(lines, delimiter=delimiter, skipinitialspace=True), HEAD_LINES))
    except csv.Error:
        return [line.split(delimiter) for line in lines]


def find_heading(rows: Sequence[Sequence[str]], reader: FileReader, names: Names) -> Heading:
    """The row with the most known headings, and the rows around it that belong to it."""
    known: list[int] = []
    for row in rows:  # a row of numbers is none of headings
        is_worded = sum(any(map(str.isalpha, cell)) for cell in row) > len(row) / 2
        known.append(len(names.known(row, reader)) if is_worded else 0)
        if known[-1] >= KNOWN_ENOUGH:
            break
    line = known.index(max(known)) if known and max(known) > 1 else 0
    if not rows:
        return Heading(0, 0, [], 0)
    row = [cell.strip() for cell in rows[line]]
    if not {"open", "high", "low", "close"} <= names.known(row, reader):
        return Heading(line, 0, row, known[line] if known[line] > 1 else 0)
    below = 0
    while below < 3 and line + below + 1 < len(rows) and _is_of_heading(rows[line + below + 1], row):
        below += 1
    above = 1 if line and _is_above(rows[line - 1], row) else 0
    levels = [rows[each] for each in (*range(line - above, line), *range(line + 1, line + 1 + below))]
    return Heading(line, below, _joined(row, levels, reader, names), known[line])


def _rows_above(text: str, delimiter: str, heading: Heading) -> int:
    rows = _rows(text.splitlines()[: heading.line + 1], delimiter)
    return int(heading.line > 0 and len(rows) > heading.line and _is_above(rows[heading.line - 1], rows[heading.line]))


def _is_of_heading(row: Sequence[str], heading: Sequence[str]) -> bool:
    """No number and no date in it; a row of tickers may have numbers."""
    cells = [cell.strip() for cell in row]
    if not any(cells) or len(cells) > len(heading):
        return False
    is_named = letters(cells[0]) in ("ticker", "tickers", "symbol", "symbols")
    return is_named or (not any(re.search(NOT_IN_A_HEADING, cell) for cell in cells) and len(cells) == len(heading))


def _is_above(row: Sequence[str], heading: Sequence[str]) -> bool:
    """A row of tickers over the columns' names."""
    cells = [cell.strip() for cell in row]
    return (
        len(cells) == len(heading) and all(cells[1:]) and len(set(cells)) < len(cells) and _is_of_heading(row, heading)
    )


def _joined(row: list[str], levels: Sequence[Sequence[str]], reader: FileReader, names: Names) -> list[str]:
    """A heading for each column: ('Close', 'AAPL') of a ticker's, Volume (shares) of one with a unit."""
    joined = list(row)
    for level in levels:
        cells = [*(cell.strip() for cell in level), *[""] * (len(row) - len(level))]
        if (first := names.find(cells[0], reader)) and first.name == "session":
            joined[0] = cells[0]
        told = {n: found for n, heading in enumerate(row) if n and cells[n] and (found := names.find(heading, reader))}
        told = {n: found for n, found in told.items() if found.name != "session"}
        are_units = all(is_unit(found, cells[n]) for n, found in told.items())
        for n in told:
            joined[n] = f"{row[n]} ({cells[n]})" if are_units else f"('{row[n]}', '{cells[n]}')"
    return joined


def _read(file: pa.NativeFile, delimiter: str, skipped: int, encoding: str) -> pd.DataFrame | None:
    """All cells as text, the heading in the first row; None for a file of nothing."""
    how: dict[str, Any] = {
        "header": None,  # so that a heading twice is seen, and line numbers are those of an editor
        "dtype": str,
        "na_filter": False,
        "skip_blank_lines": False,
        "skipinitialspace": True,
        "sep": delimiter,
        "skiprows": skipped,
    }
    try:
        return pd.read_csv(file, encoding=encoding, **how)  # pyright: ignore[reportArgumentType, reportCallIssue]
    except pd.errors.EmptyDataError:
        return None
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise
        file.seek(0)
        return _read(file, delimiter, skipped, OTHER_ENCODINGS[0])
    except pd.errors.ParserError as error:
        widest = re.search(r"Expected (\d+) fields in line \d+, saw (\d+)", str(error))
        if not widest:
            raise
        file.seek(0)
        given, width = int(widest[1]), int(widest[2])
        try:
            cells = pd.read_csv(file, encoding=encoding, names=list(range(width)), **how)  # pyright: ignore
        except pd.errors.ParserError:
            raise error from None
        if not is_missing(cells.iloc[:, given:].stack()).all():
            raise
        return cells.iloc[:, :given]


def _workbook_cells(file: pa.NativeFile, reader: FileReader, names: Names) -> pd.DataFrame:
    """Of the one sheet with prices."""
    sheets: dict[str, pd.DataFrame] = pd.read_excel(
        io.BytesIO(file.read()), sheet_name=None, header=None, dtype=object, keep_default_na=False
    )
    found = {}
    for name, cells in sheets.items():
        rows = [["" if cell is None else str(cell) for cell in row] for row in cells.head(HEAD_LINES).to_numpy()]
        heading = find_heading(rows, reader, names)
        if heading.known > 1 or len(sheets) == 1:
            found[name] = cells, heading, rows
    if len(found) != 1:
        held = f"its sheets {', '.join(found)} hold prices" if found else "no sheet holds prices"
        reader.refuse(f"{held}. Expected one sheet that does; save that by itself.")
    cells, heading, rows = next(iter(found.values()))
    require_no_meaning([" ".join(filter(None, row)) for row in rows[: heading.line]], reader)
    cells.index = pd.RangeIndex(1, 1 + len(cells), name="row")
    body = cells.iloc[heading.line + 1 + heading.rows_below :].set_axis(heading.columns, axis=1)
    return body.loc[~(body == "").all(axis=1)].infer_objects()


def _decompressed(file: pa.NativeFile) -> pa.NativeFile:
    start = file.read(8)
    file.seek(0)
    by = next((by for magic, by in PACKED_BY.items() if start.startswith(magic)), None)
    if by is None:
        return file
    opened: dict[str, Callable[[Any], Any]] = {
        "gzip": lambda stream: gzip.GzipFile(fileobj=stream),
        "bz2": bz2.BZ2File,
        "xz": lzma.LZMAFile,
        "zstd": lambda stream: pa.CompressedInputStream(stream, "zstd"),
    }
    stream = opened[by](file)
    return pa.BufferReader(joined(iter(lambda: stream.read(CHUNK), b""), "it unpacks to"))


def _is_archive(file: pa.NativeFile) -> bool:
    start = file.read(512)
    file.seek(0)
    return start.startswith(b"PK\x03\x04") or start[257:262] == b"ustar"


def _is_workbook(file: pa.NativeFile) -> bool:
    start = file.read(4)
    file.seek(0)
    if start != b"PK\x03\x04":
        return False
    file.seek(0)
    members = zipfile.ZipFile(file).infolist()  # pyright: ignore[reportArgumentType]
    file.seek(0)
    is_workbook = any(member.filename == "xl/workbook.xml" for member in members)
    if is_workbook:
        size = sum(member.file_size for member in members)
        require_size(size * OBJECT_FACTOR, "it is a workbook that unpacks to about")
    return is_workbook


def _archive(file: pa.NativeFile) -> Iterator[tuple[str, int, Any]]:
    """Name, size, and what reads the content, of each member."""
    content = io.BytesIO(file.read())
    file.seek(0)
    if content.getbuffer()[:2] == b"PK":
        with zipfile.ZipFile(content) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    yield member.filename, member.file_size, lambda member=member: archive.read(member)
    else:
        with tarfile.open(fileobj=content) as archive:
            for member in archive:
                if (read := archive.extractfile(member)) is not None:
                    yield member.name, member.size, read.read
