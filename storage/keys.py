"""Keys of a store that are only ever created, never changed, so that each step is atomic on disk and on S3 alike.

blobs/sha256/ab/<sha256>      content, under its own digest
<folder>/00000007.json        a sealed record: {"record": …, "sha256": of the record's canonical JSON}
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from obstore.exceptions import AlreadyExistsError
from pydantic import ValidationError

from storage.errors import Corrupt, NotStored, reading
from storage.records import FileRef, Record
from storage.store import Store

if TYPE_CHECKING:
    from obstore import ListResult, ObjectMeta

SomeRecord = TypeVar("SomeRecord", bound=Record)


class Keys:
    """What may be done with the keys of a store: create, read and check, list."""

    def __init__(self, store: Store) -> None:
        self._objects, self._url = store.objects, store.url

    def put_blob(self, data: bytes) -> FileRef:
        """Create the blob unless it is there; one that is there is checked. Raises Corrupt."""
        blob = FileRef(sha256=sha256(data), size_bytes=len(data))
        if not self._create(blob_key(blob), data):
            self.read_blob(blob)
        return blob

    def read_blob(self, blob: FileRef) -> bytes:
        """The content, checked. Raises NotStored, Corrupt."""
        data = self._read(blob_key(blob))
        self.check(blob_key(blob), expected=blob.sha256, found=sha256(data))
        return data

    def create_record(self, folder: str, number: int, record: Record) -> bool:
        """Create the sealed record, or return False where the number is taken. ValueError for a NaN in it."""
        content = record.model_dump(mode="json")
        sealed = {"record": content, "sha256": sha256(canonical_json(content))}
        return self._create(numbered(folder, number), json.dumps(sealed, indent=1, allow_nan=False).encode())

    def read_record(self, folder: str, number: int, kind: type[SomeRecord]) -> SomeRecord:
        """The record, checked. Raises NotStored, Corrupt."""
        key = numbered(folder, number)
        raw = self._read(key)
        try:
            sealed = json.loads(raw)
            self.check(key, expected=sealed["sha256"], found=sha256(canonical_json(sealed["record"])))
            return kind.model_validate(sealed["record"])
        except (ValueError, KeyError, TypeError) as error:  # pydantic's ValidationError is a ValueError
            torn = not isinstance(error, ValidationError)
            fact = f"{len(raw)} bytes that are not whole JSON" if torn else str(error)
            raise Corrupt(f"{self._url}/{key}: expected a sealed {kind.__name__}, found {fact}. {REMEDY}") from error

    def numbers(self, folder: str) -> list[int]:
        """The numbers of the folder's records, ascending."""
        paths = [entry["path"] for entry in self._inside(folder)["objects"]]
        return sorted(int(match[1]) for path in paths if (match := re.search(r"/(\d{8})\.json$", path)))

    def folders(self, folder: str) -> list[str]:
        """The names of the folders inside, sorted."""
        return sorted(path.rsplit("/", 1)[-1] for path in self._inside(folder)["common_prefixes"])

    def _inside(self, folder: str) -> "ListResult[Sequence[ObjectMeta]]":
        with reading(f"{self._url}/{folder}"):
            return self._objects.list_with_delimiter(folder)

    def check(self, key: str, *, expected: str, found: str) -> None:
        """Raise Corrupt, naming the key, unless both are equal."""
        if found != expected:
            raise Corrupt(f"{self._url}/{key}: expected {expected}, found {found}. {REMEDY}")

    def _create(self, key: str, data: bytes) -> bool:
        try:
            self._objects.put(key, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def _read(self, key: str) -> bytes:
        with reading(f"{self._url}/{key}"):
            try:
                return bytes(self._objects.get(key).bytes())
            except FileNotFoundError as error:
                raise NotStored(f"{self._url}/{key} is not there. {REMEDY}") from error


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
