"""What can go wrong in `storage/`, as one tree.

StoreError              the store cannot do what was asked; the message says where and what to do
├── StoreNotWritable    the root cannot be made, reached or written
├── StoreUnsafe         the root lets a second writer overwrite a key that must be written once
├── NotStored           no such table, version, artifact or alias
├── Corrupt             what was read is not what was written (sha256 differs, or the JSON is torn)
└── VersionConflict     other writers took the next version every time, or moved the alias meanwhile
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from deltalake.exceptions import DeltaError
from obstore.exceptions import BaseError
from pyarrow import ArrowException

UNREADABLE = (OSError, BaseError, DeltaError, ArrowException)  # what the libraries raise


class StoreError(Exception): ...


class StoreNotWritable(StoreError): ...


class StoreUnsafe(StoreError): ...


class NotStored(StoreError): ...


class Corrupt(StoreError): ...


class VersionConflict(StoreError): ...


def first_line(error: Exception) -> str:
    """What happened, without the pages of debug text and the colours that the libraries add, or a full stop."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return (lines or [type(error).__name__])[0].rstrip(".: ")


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Raises StoreError with one line for what a library raises inside."""
    try:
        yield
    except UNREADABLE as error:
        raise StoreError(f"{place} cannot be read: {first_line(error)}. See: volcast verify") from error
