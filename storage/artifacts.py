"""Versions of artifacts, and the aliases that point at them, in keys that are only ever created, never changed.

    blobs/sha256/ab/<sha256>                        content, under its own digest
    artifacts/<kind>/<name>/00000007.json           the manifest is the version
    aliases/<kind>/<name>/<alias>/00000003.json     the highest number is current

Manifests and alias entries are sealed records: {"record": …, "sha256": of the record's canonical JSON}. As a key is
created whole or not at all, each step is atomic on disk and on S3 alike. To put a version:
1. create its blobs (one that is there already is checked instead, and a damaged one replaced);
2. if the newest version has the same digest, that is the answer;
3. create the manifest under the next number; if another writer was faster, go on at 2;
4. create its blobs again where `volcast gc` took one before the manifest named it (storage/integrity.py).
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

import pandas as pd
from pydantic import JsonValue, ValidationError

from volcast.storage.bounds import MAX_RECORD_BYTES, in_full, max_bytes, open_parquet, read_json
from volcast.storage.errors import Corrupt, NotStored, VersionConflict, reading
from volcast.storage.records import NAME_PATTERN, AliasEntry, ArtifactRef, FileRef, Manifest, Provenance, Record
from volcast.storage.store import Store, children, exists, get, put

MAX_LOST_RACES = 100  # each loss means that another writer got on, so that this many point at a fault
REMEDY = "Restore it from a backup, or run the step that made it again."

SomeRecord = TypeVar("SomeRecord", bound=Record)


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An artifact before it has a version."""

    kind: str
    name: str
    files: Mapping[str, bytes]  # file name -> content
    parents: tuple[ArtifactRef, ...] = ()
    facts: Mapping[str, JsonValue] = field(default_factory=dict)  # no NaN: JSON has none
    provenance: Provenance

    def __post_init__(self) -> None:
        _check_names(self.kind, self.name)


class ArtifactStore:
    """Artifacts of a store, by kind and name. Every read is checked against its digest."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def url(self) -> str:
        """The root of the store."""
        return self._store.url

    def put(self, draft: Draft) -> Manifest:
        """Store the draft as the next version; return the newest one instead where its content is the same.

        Whatever is damaged of earlier versions stops no new one. Raises ValueError (facts that JSON cannot hold),
        VersionConflict.
        """
        manifest = self._unversioned(draft)
        folder = _artifact_folder(draft.kind, draft.name)
        for _ in range(MAX_LOST_RACES):
            version = max(self.versions(draft.kind, draft.name), default=0) + 1
            with suppress(NotStored, Corrupt):
                newest = self.get(draft.kind, draft.name, version - 1)
                if newest.digest == manifest.digest:
                    return newest
            manifest = manifest.model_copy(update={"version": version})
            if create_record(self._store, folder, version, manifest):
                for data in draft.files.values():
                    self._restore_blob(data)
                return manifest
        raise _lost(folder)

    def get(self, kind: str, name: str, version: int | None = None) -> Manifest:
        """The manifest of a version, by default the newest. Raises NotStored, Corrupt."""
        folder = _artifact_folder(kind, name)
        wanted = version or max(self.versions(kind, name), default=0)
        try:
            manifest = read_record(self._store, folder, wanted, Manifest)
        except NotStored as error:
            known = self.versions(kind, name) or "none"
            raise NotStored(f"{kind} {name} has no version {wanted or 'yet'}; stored versions: {known}.") from error
        key = _key(folder, wanted)
        _check(self._store, key, expected=f"{kind} {name} v{wanted}", found=str(manifest.ref))
        _check(self._store, key, expected=manifest.digest, found=_digest(manifest))
        return manifest

    def newest(self, kind: str, name: str) -> Manifest | None:
        """The newest version, or None where there is none. Raises Corrupt."""
        known = self.versions(kind, name)
        return self.get(kind, name, known[-1]) if known else None

    def read(self, manifest: Manifest, file_name: str) -> bytes:
        """The content of one file. Raises NotStored, Corrupt."""
        if file_name not in manifest.files:
            raise NotStored(f"{manifest.ref} has no file {file_name}; it has {sorted(manifest.files)}.")
        return read_blob(self._store, manifest.files[file_name])

    def versions(self, kind: str, name: str) -> list[int]:
        """Version numbers, ascending; empty where there is none."""
        return self._numbers(_artifact_folder(kind, name))

    def names(self, kind: str) -> list[str]:
        """Names that have a version of this kind, sorted."""
        _check_names(kind)
        return self._folders(f"artifacts/{kind}")

    def all_versions(self) -> list[tuple[str, str, int]]:
        """Kind, name and version of everything that is stored."""
        places = [(kind, name) for kind in self._folders("artifacts") for name in self.names(kind)]
        return [(*place, version) for place in places for version in self.versions(*place)]

    def walk(self, manifest: Manifest) -> list[Manifest | ArtifactRef]:
        """The artifact, then all that it was made from, each once, nearest first; prices stay references.

        Raises NotStored, Corrupt (a parent's digest is not the one that was recorded).
        """
        chain: list[Manifest | ArtifactRef] = [manifest]
        seen, waiting = [manifest.ref], list(manifest.parents)
        while waiting:
            ref = waiting.pop(0)
            if ref in seen:
                continue
            seen.append(ref)
            link = ref if ref.kind == "prices" else self._parent(ref)
            chain.append(link)
            waiting.extend(link.parents if isinstance(link, Manifest) else ())
        return chain

    def alias(self, kind: str, name: str, alias: str) -> AliasEntry | None:
        """Where the alias points now, or None where it was never set. Raises Corrupt."""
        folder = _alias_folder(kind, name, alias)
        numbers = self._numbers(folder)
        return read_record(self._store, folder, numbers[-1], AliasEntry) if numbers else None

    def aliases(self) -> list[tuple[str, str, str]]:
        """Kind, name and alias of every alias that was ever set."""
        places = [(kind, name) for kind in self._folders("aliases") for name in self._folders(f"aliases/{kind}")]
        return [(*place, alias) for place in places for alias in self._folders("/".join(("aliases", *place)))]

    def history(self, kind: str, name: str, alias: str) -> list[AliasEntry]:
        """Every move of the alias, oldest first. Raises Corrupt."""
        folder = _alias_folder(kind, name, alias)
        return [read_record(self._store, folder, number, AliasEntry) for number in self._numbers(folder)]

    def set_alias(self, kind: str, name: str, alias: str, version: int, reason: str) -> AliasEntry:
        """Point the alias at a version, which must exist. Raises NotStored, Corrupt, VersionConflict."""
        ref = self.get(kind, name, version).ref
        folder = _alias_folder(kind, name, alias)
        for _ in range(MAX_LOST_RACES):
            with suppress(VersionConflict):
                return self.move_alias(ref, alias, reason, after=max(self._numbers(folder), default=0))
        raise _lost(folder)

    def move_alias(self, ref: ArtifactRef, alias: str, reason: str, *, after: int) -> AliasEntry:
        """Point the alias at a version as its next entry after the one of that number; 0 where it was never set.

        Raises VersionConflict where another entry has come meanwhile.
        """
        entry = AliasEntry(
            kind=ref.kind,
            name=ref.name,
            alias=alias,
            number=after + 1,
            version=ref.version,
            reason=reason,
            set_at=datetime.now(UTC),
        )
        if not create_record(self._store, _alias_folder(ref.kind, ref.name, alias), entry.number, entry):
            raise VersionConflict(
                f"{ref.kind} {ref.name}: {alias} was moved by another writer meanwhile; look where it is now."
            )
        return entry

    def roll_back(self, kind: str, name: str, alias: str, reason: str) -> AliasEntry:
        """Append an entry for the version that was current before the current one came; twice goes back two.

        Raises NotStored (no version before it), VersionConflict (the alias moved meanwhile: look before going back).
        """
        entries = self.history(kind, name, alias)
        path: list[int] = []  # by which the alias came to where it is; one that comes back ends what came after it
        for version in (entry.version for entry in entries):
            path = [*(path[: path.index(version)] if version in path else path), version]
        if len(path) < 2:
            raise NotStored(f"{kind} {name}: no version before the current {alias} to go back to; it came by {path}.")
        return self.move_alias(self.get(kind, name, path[-2]).ref, alias, reason, after=entries[-1].number)

    def _unversioned(self, draft: Draft) -> Manifest:
        manifest = Manifest(
            kind=draft.kind,
            name=draft.name,
            version=0,
            digest="",
            created_at=datetime.now(UTC),
            files={name: put_blob(self._store, data) for name, data in draft.files.items()},
            parents=draft.parents,
            facts=dict(draft.facts),
            provenance=draft.provenance,
        )
        return manifest.model_copy(update={"digest": _digest(manifest)})

    def _restore_blob(self, data: bytes) -> None:
        """Create the blob again if it is gone; one that is there was checked before."""
        if not exists(self._store, blob_key(_file_ref(data))):
            put_blob(self._store, data)

    def _parent(self, ref: ArtifactRef) -> Manifest:
        parent = self.get(ref.kind, ref.name, ref.version)
        key = _key(_artifact_folder(ref.kind, ref.name), ref.version)
        _check(self._store, key, expected=ref.digest, found=parent.digest)
        return parent

    def _numbers(self, folder: str) -> list[int]:
        """The numbers of the folder's records, ascending."""
        names, _ = children(self._store, folder)
        return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"(\d{8})\.json", name)))

    def _folders(self, folder: str) -> list[str]:
        """The names of the folders inside, sorted; one that is no name of volcast's is none of its folders."""
        return [name for name in children(self._store, folder)[1] if _is_name(name)]


# --- blobs and sealed records ---------------------------------------------------------------------------------------


def put_blob(store: Store, data: bytes) -> FileRef:
    """Create the blob unless it is there; one that holds other bytes than its name says is damaged, and replaced."""
    blob = _file_ref(data)
    if not put(store, blob_key(blob), data):
        put(store, blob_key(blob), data, replace=True)
    return blob


def read_blob(store: Store, blob: FileRef) -> bytes:
    """The content, checked. Raises NotStored, Corrupt."""
    data = _read(store, blob_key(blob), max(blob.size_bytes, MAX_RECORD_BYTES))
    _check(store, blob_key(blob), expected=blob.sha256, found=sha256(data))
    return data


def blob_key(blob: FileRef) -> str:
    """Where the content lies."""
    return f"blobs/sha256/{blob.sha256[:2]}/{blob.sha256}"


def recorded_sha256(key: str) -> str | None:
    """The sha256 in the name of a data file or a staged frame, or None where there is none (Delta's own writer)."""
    found = re.search(r"-([0-9a-f]{64})\.\w+$", key)
    return found[1] if found else None


def get_unchanged(store: Store, key: str) -> bytes:
    """The content of a key, checked where its name carries the sha256. Raises FileNotFoundError, Corrupt."""
    content = get(store, key)
    if recorded_sha256(key) not in (None, sha256(content)):
        raise Corrupt(f"{store.url}/{key}: its sha256 is not the one in its name; its content was changed")
    return content


def create_record(store: Store, folder: str, number: int, record: Record) -> bool:
    """Create the sealed record, or return False where the number is taken. ValueError for a NaN in it."""
    content = record.model_dump(mode="json")
    sealed = {"record": content, "sha256": sha256(canonical_json(content))}
    return put(store, _key(folder, number), json.dumps(sealed, indent=1, allow_nan=False).encode())


def read_record(store: Store, folder: str, number: int, kind: type[SomeRecord]) -> SomeRecord:
    """The record, checked. Raises NotStored, Corrupt."""
    key = _key(folder, number)
    raw = _read(store, key, MAX_RECORD_BYTES)
    try:
        sealed = read_json(raw)
        _check(store, key, expected=sealed["sha256"], found=sha256(canonical_json(sealed["record"])))
        return kind.model_validate(sealed["record"])
    except (ValueError, KeyError, TypeError) as error:
        fact = f"{len(raw)} bytes that are not whole JSON, or too deep"
        if isinstance(error, KeyError):
            fact = f"no {error}"
        if isinstance(error, ValidationError):  # which is a ValueError, and says it in several lines
            fact = "; ".join(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}" for wrong in error.errors())
        raise Corrupt(f"{store.url}/{key}: expected a sealed {kind.__name__}, found {fact}. {REMEDY}") from error


def canonical_json(content: object) -> bytes:
    """One way to write a value: sorted keys, no spaces, ASCII. ValueError for NaN and infinity, which JSON lacks."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def _file_ref(data: bytes) -> FileRef:
    return FileRef(sha256=sha256(data), size_bytes=len(data))


def _read(store: Store, key: str, limit: int) -> bytes:
    with reading(f"{store.url}/{key}"):
        try:
            return get(store, key, min(limit, max_bytes()))
        except FileNotFoundError as error:
            raise NotStored(f"{store.url}/{key} is not there. {REMEDY}") from error


def _check(store: Store, key: str, *, expected: str, found: str) -> None:
    if found != expected:
        raise Corrupt(f"{store.url}/{key}: expected {expected}, found {found}. {REMEDY}")


def _digest(manifest: Manifest) -> str:
    content = {
        "kind": manifest.kind,
        "name": manifest.name,
        "files": {name: blob.sha256 for name, blob in manifest.files.items()},
        "parents": [parent.digest for parent in manifest.parents],
        "facts": manifest.facts,
    }
    return sha256(canonical_json(content))


def _key(folder: str, number: int) -> str:
    return f"{folder}/{number:08d}.json"


def _artifact_folder(kind: str, name: str) -> str:
    _check_names(kind, name)
    return f"artifacts/{kind}/{name}"


def _alias_folder(kind: str, name: str, alias: str) -> str:
    _check_names(kind, name, alias)
    return f"aliases/{kind}/{name}/{alias}"


def _check_names(*names: str) -> None:
    for name in names:
        if not _is_name(name):
            raise ValueError(f"{name!r}: expected a name of letters, digits and . _ = ^ - that is not only dots.")


def _is_name(name: str) -> bool:
    return re.fullmatch(NAME_PATTERN.strip("^$"), name) is not None


def _lost(folder: str) -> VersionConflict:
    return VersionConflict(
        f"{folder}: lost the next number to another writer {MAX_LOST_RACES} times. See what else writes there."
    )


# --- frames as files of an artifact ---------------------------------------------------------------------------------


def to_parquet(frame: pd.DataFrame) -> bytes:
    """A frame as Parquet bytes; the same frame gives the same bytes."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def from_parquet(data: bytes) -> pd.DataFrame:
    """The frame of `to_parquet`."""
    return in_full(open_parquet(io.BytesIO(data), "a stored frame").read(), "a stored frame").to_pandas()
