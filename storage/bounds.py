"""How much is read of what somebody else wrote, and how deep: checked by what a file declares, before it is unpacked.

A Parquet file of 1 MB may unpack to many GB, by compression or by a value that is repeated; a JSON text of 400 kB may
be nested so deep that a parser dies of it. Both are refused, by one line.
"""

import json
import os
import re
from collections.abc import Iterable
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from volcast.storage.errors import Foreign

MAX_BYTES = 4 * 2**30  # 26 million rows, every share of the United States since 1990, are 2.4 GB in memory
VARIABLE = "VOLCAST_MAX_BYTES"
MAX_RECORD_BYTES = 64 * 2**20  # of a manifest or a commit; one that names 6,700 tickers has less than one hundredth
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}  # bytes of a value in memory
POINTER = 8  # bytes of a text that is held once
MAX_NESTING = 100  # of JSON; what volcast writes has 10

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


def max_bytes() -> int:
    """The most bytes that one file may have, as it is and unpacked. Raises ValueError for a setting that is none."""
    given = os.environ.get(VARIABLE) or str(MAX_BYTES)
    if not re.fullmatch("[1-9][0-9]{0,14}", given):
        raise ValueError(f"{VARIABLE} must be a number of bytes, such as {MAX_BYTES}.")
    return int(given)


def require_size(size: int, what: str, limit: int | None = None) -> None:
    """Raises Foreign for more bytes than the limit, by default that of a file; `what` begins its sentence: "x has"."""
    allowed = max_bytes() if limit is None else limit
    if size > allowed:
        remedy = f" If it is right, raise {VARIABLE}." if limit is None else ""
        fact = f"{size / 1e6:,.1f} MB, more than the limit of {allowed / 1e6:,.1f} MB, and is not read"
        raise Foreign(f"{what} {fact}.{remedy}")


def joined(chunks: Iterable[bytes], what: str) -> bytes:
    """The chunks of a stream that may not end, as far as they stay below the limit. Raises Foreign."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        require_size(len(content), what)
    return bytes(content)


def open_parquet(file: "pa.NativeFile | IO[bytes]", what: str, **options: Any) -> pq.ParquetFile:
    """The file, texts as dictionaries, so that one that is repeated is held once; what is read goes through `in_full`.

    Raises Foreign, OSError, ArrowException.
    """
    metadata = pq.read_metadata(file)
    file.seek(0)
    require_size(unpacked_bytes(metadata), f"{what} unpacks to")
    texts = [each.path for each in map(metadata.schema.column, range(metadata.num_columns)) if _is_text(each)]
    return pq.ParquetFile(file, read_dictionary=texts, **options)


def unpacked_bytes(metadata: pq.FileMetaData) -> int:
    """What the file declares: of each column the larger of its uncompressed pages and its values' room in memory."""
    columns = [metadata.schema.column(place) for place in range(metadata.num_columns)]
    widths = [WIDTHS.get(each.physical_type, max(each.length, POINTER)) for each in columns]
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    chunks = ((group.column(place), width) for group in groups for place, width in enumerate(widths))
    return sum(max(chunk.total_uncompressed_size, chunk.num_values * width) for chunk, width in chunks)


def in_full(table: pa.Table, what: str) -> pa.Table:
    """The rows with each text written out, as far as that stays below the limit. Raises Foreign."""
    places = [place for place, each in enumerate(table.schema) if pa.types.is_dictionary(each.type)]
    size = sum(_text_bytes(table.column(place)) for place in places)
    require_size(size, f"{what} unpacks to texts of")
    for place in places:
        field = table.schema.field(place)
        written = field.with_type(field.type.value_type)
        table = table.set_column(place, written, table.column(place).cast(written.type))
    return table


def read_json(content: bytes) -> Any:
    """The value of a JSON text. Raises ValueError, also for one that is nested too deep."""
    require_shallow(content)
    return json.loads(content)


def require_shallow(content: bytes) -> None:
    """Raises ValueError for brackets within brackets beyond the limit; those inside of strings do not count."""
    depth = 0
    for bracket in _STRING.sub(b"", content).translate(None, _NO_BRACKET):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_NESTING:
            raise ValueError(f"JSON that is nested more than {MAX_NESTING} deep")


def _is_text(column: pq.ColumnSchema) -> bool:
    return column.physical_type == "BYTE_ARRAY" and column.logical_type.type in ("STRING", "NONE")


def _text_bytes(column: pa.ChunkedArray) -> int:
    """The most that the texts of a dictionary column can take when each is written out."""
    longest = ((_longest(chunk.dictionary), len(chunk)) for chunk in column.chunks)
    return sum(length * rows for length, rows in longest)


def _longest(texts: pa.Array) -> int:
    """The bytes of the longest one."""
    return pc.call_function("max", [pc.call_function("binary_length", [texts])]).as_py() or 0
