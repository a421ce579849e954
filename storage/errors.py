"""What can go wrong in `storage/`, as one tree.

StoreError              the store cannot do what was asked; the message says where and what to do
├── StoreNotWritable    the root cannot be made, reached or written
├── StoreUnsafe         the root lets a second writer overwrite a key that must be written once
├── StoreUnreachable    the bucket does not answer, or lets nobody in; nothing is known of what it holds
├── NotStored           no such table, version, artifact or alias
├── Corrupt             what was read is not what was written (sha256 differs, or the JSON is torn)
├── Foreign             volcast did not make it and does not touch it: a link, a pipe, a path that leads out of the
│                       root, more than the limits of storage/bounds.py
└── VersionConflict     other writers took the next version every time, or moved the alias meanwhile
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from deltalake.exceptions import DeltaError
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from pyarrow import ArrowException

from volcast.storage.locations import shown

UNREADABLE = (OSError, BaseError, DeltaError, ArrowException)  # what the libraries raise
SEE = " See: volcast verify"
RESTORE = "Restore it from a backup, or ingest into a new store."
BUCKET = re.compile(r"(s3|gs|az)://")
OUTAGE = re.compile(r"Generic (S3|GCS|MicrosoftAzure) error|necessary privileges|valid authentication")


class StoreError(Exception): ...


class StoreNotWritable(StoreError): ...


class StoreUnsafe(StoreError): ...


class StoreUnreachable(StoreError): ...


class NotStored(StoreError): ...


class Corrupt(StoreError): ...


class Foreign(StoreError): ...


class VersionConflict(StoreError): ...


def first_line(error: Exception) -> str:
    """What happened, without the libraries' pages of debug text and colours, without credentials or a full stop."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return shown((lines or [type(error).__name__])[0]).rstrip(".: ")


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Raises StoreError with one line for what a library raises inside."""
    try:
        yield
    except UNREADABLE as error:
        require_reachable(place, error)
        raise StoreError(f"{place} cannot be read: {first_line(error)}.{SEE}") from error


def require_reachable(place: str, error: Exception) -> None:
    """Raises StoreUnreachable where the error is that a bucket did not answer, or let nobody in.

    obstore and Delta Lake both say so in the words of object_store.
    """
    is_refused = isinstance(error, (PermissionDeniedError, UnauthenticatedError))
    if BUCKET.match(place) and (is_refused or OUTAGE.search(str(error))):
        raise unreachable(place, error) from error


def unreachable(place: str, error: Exception) -> StoreUnreachable:
    """What is known of a place during an outage, and what to do."""
    return StoreUnreachable(
        f"{place} cannot be reached: {first_line(error)}. That says nothing of what is stored; check credentials, "
        "region and endpoint, or try again later."
    )
