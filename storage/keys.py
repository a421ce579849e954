"""Keys of a store that are only ever created, never changed, so that each step is atomic on disk and on S3 alike.

blobs/sha256/ab/<sha256>      content, under its own digest
<folder>/00000007.json        a sealed record: {"record": …, "sha256": of the record's canonical JSON}
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from storage.errors import Corrupt, NotStored, reading
from storage.records import FileRef, Record
from storage.store import Store, put

if TYPE_CHECKING:
    from obstore import ListResult, ObjectMeta

SomeRecord = TypeVar("SomeRecord", bound=Record)


class Keys:
    """What may be done with the keys of a store: create, read and check, list."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put_blob(self, data: bytes) -> FileRef:
        """Create the blob unless it is there; one that is there is checked. Raises Corrupt."""
        blob = FileRef(sha256=sha256(data), size_bytes=len(data))
        if not put(self._store, blob_key(blob), data):
            self.read_blob(blob)
        return blob

    def restore_blob(self, data: bytes) -> None:
        """Create the blob again if it is gone."""
        blob = FileRef(sha256=sha256(data), size_bytes=len(data))
        try:
            self._store.objects.head(blob_key(blob))
        except FileNotFoundError:
            self.put_blob(data)

    def read_blob(self, blob: FileRef) -> bytes:
        """The content, checked. Raises NotStored, Corrupt."""
        data = self._read(blob_key(blob))
        self.check(blob_key(blob), expected=blob.sha256, found=sha256(data))
        return data

    def create_record(self, folder: str, number: int, record: Record) -> bool:
        """Create the sealed record, or return False where the number is taken. ValueError for a NaN in it."""
        content = record.model_dump(mode="json")
        sealed = {"record": content, "sha256": sha256(canonical_json(content))}
        return put(self._store, numbered(folder, number), json.dumps(sealed, indent=1, allow_nan=False).encode())

    def read_record(self, folder: str, number: int, kind: type[SomeRecord]) -> SomeRecord:
        """The record, checked. Raises NotStored, Corrupt."""
        key = numbered(folder, number)
        raw = self._read(key)
        try:
            sealed = json.loads(raw)
            self.check(key, expected=sealed["sha256"], found=sha256(canonical_json(sealed["record"])))
            return kind.model_validate(sealed["record"])
        except (ValueError, KeyError, TypeError) as error:
            fact = f"{len(raw)} bytes that are not whole JSON"
            if isinstance(error, KeyError):
                fact = f"no {error}"
            if isinstance(error, ValidationError):  # which is a ValueError, and says it in several lines
                fact = "; ".join(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}" for wrong in error.errors())
            raise Corrupt(
                f"{self._store.url}/{key}: expected a sealed {kind.__name__}, found {fact}. {REMEDY}"
            ) from error

    def numbers(self, folder: str) -> list[int]:
        """The numbers of the folder's records, ascending."""
        paths = [entry["path"] for entry in self._inside(folder)["objects"]]
        return sorted(int(match[1]) for path in paths if (match := re.search(r"/(\d{8})\.json$", path)))

    def folders(self, folder: str) -> list[str]:
        """The names of the folders inside, sorted."""
        return sorted(path.rsplit("/", 1)[-1] for path in self._inside(folder)["common_prefixes"])

    def _inside(self, folder: str) -> "ListResult[Sequence[ObjectMeta]]":
        with reading(f"{self._store.url}/{folder}"):
            return self._store.objects.list_with_delimiter(folder)

    def check(self, key: str, *, expected: str, found: str) -> None:
        """Raise Corrupt, naming the key, unless both are equal."""
        if found != expected:
            raise Corrupt(f"{self._store.url}/{key}: expected {expected}, found {found}. {REMEDY}")

    def _read(self, key: str) -> bytes:
        with reading(f"{self._store.url}/{key}"):
            try:
                return bytes(self._store.objects.get(key).bytes())
            except FileNotFoundError as error:
                raise NotStored(f"{self._store.url}/{key} is not there. {REMEDY}") from error


REMEDY = "Restore it from a backup, or delete it and run the step that made it again."


def numbered(folder: str, number: int) -> str:
    """The key of a record."""
    return f"{folder}/{number:08d}.json"


def canonical_json(content: object) -> bytes:
    """One way to write a value: sorted keys, no spaces, ASCII. ValueError for NaN and infinity, which JSON lacks."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def blob_key(blob: FileRef) -> str:
    """Where the content lies."""
    return f"blobs/sha256/{blob.sha256[:2]}/{blob.sha256}"
