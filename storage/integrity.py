"""Look at everything that a store holds, and name what is not as it was written: `volcast verify`.

1. manifests and aliases: sealed, with the parents that they name; their blobs: sha256
2. Delta tables: no empty or torn log entry, the newest version opens, each of its data files is there with the size in
   the log, its sha256 is the one in its name, and every page of it decodes
3. frames left under staging/, and restatements under intents/, by a run that was stopped

What nothing names any more, and may go: `volcast gc`.

1. kept prices versions: the newest ones, and each that a kept manifest walks back to; kept manifests: those that an
   alias points at, and the newest versions of each artifact
2. what may go: data files of the prices that no kept version names, those of the other tables that their newest
   version does not name, blobs that no manifest names, staged frames, checkpoints of trainings that were stopped
3. only what is older than a day, and a data file only a day after the commit that replaced it: a run that is under
   way may still need it
4. a blob goes by way of `trash/`, for a run may put it into a new version meanwhile: after it was moved there, the
   manifests are read once more, and it is put back if one names it. One that comes later finds the blob gone, and
   creates it again (storage/artifacts.py)
"""

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from obstore.exceptions import BaseError

from storage.append_tables import intents
from storage.artifacts import ArtifactStore, Keys, blob_key, sha256
from storage.errors import UNREADABLE, Corrupt, NotStored, StoreError, StoreNotWritable, first_line
from storage.price_files import recorded_sha256
from storage.prices import TABLE as PRICE_TABLE
from storage.prices import PriceTable
from storage.records import ArtifactRef, Manifest
from storage.store import Store

TABLES = ("prices", "quarantine", "restatements", "events", "forecasts", "scores")
RESTORE = "Restore it from a backup, or ingest into a new store."


@dataclass(frozen=True)
class Finding:
    """One line for a person; `damage` is False for what is only left over."""

    words: str
    damage: bool = True


def verify(store: Store) -> Iterator[Finding]:
    """Each thing that is wrong, as it is found."""
    parts = {"artifacts": _artifacts(store), "aliases": _aliases(store)}
    parts |= {table: _table(store, table) for table in TABLES}
    parts |= {"staging": _staging(store), "intents": _intents(store)}
    for folder, findings in parts.items():
        try:
            yield from findings
        except (StoreError, *UNREADABLE) as error:  # a file in the place of a folder, or no right to read
            yield Finding(f"{store.url}/{folder}: cannot be looked at: {first_line(error)}. {RESTORE}")


def _artifacts(store: Store) -> Iterator[Finding]:
    artifacts, keys = ArtifactStore(store), Keys(store)
    seen: set[str] = set()
    for kind, name, version in artifacts.all_versions():
        try:
            manifest = artifacts.get(kind, name, version)
            artifacts.walk(manifest)
        except StoreError as error:
            yield Finding(f"{kind} {name} v{version}: {error}")
            continue
        for file, blob in manifest.files.items():
            if blob.sha256 in seen:
                continue
            seen.add(blob.sha256)
            try:
                keys.read_blob(blob)
            except StoreError as error:
                yield Finding(f"{manifest.ref}, file {file}: {error}")


def _aliases(store: Store) -> Iterator[Finding]:
    artifacts = ArtifactStore(store)
    for kind, name, alias in artifacts.aliases():
        try:
            for entry in artifacts.history(kind, name, alias):
                artifacts.get(kind, name, entry.version)
        except NotStored as error:
            yield Finding(f"{alias} of {kind} {name}: {error} Restore the version from a backup, or retrain.")
        except StoreError as error:
            yield Finding(f"{alias} of {kind} {name}: {error}")


def _table(store: Store, table: str) -> Iterator[Finding]:
    url = store.table_url(table)
    log = [entry for chunk in obstore.list(store.objects, f"{table}/_delta_log") for entry in chunk]
    for entry in (entry for entry in log if entry["path"].endswith(".json")):
        yield from _log_entry(store, entry["path"])
    if not log:
        return
    try:
        delta = DeltaTable(url, storage_options=store.table_options)
    except (DeltaError, OSError) as error:
        yield Finding(f"{url}: the newest version cannot be opened: {first_line(error)}. {RESTORE}")
        return
    files = pa.table(delta.get_add_actions()).select(["path", "size_bytes"]).to_pylist()
    for file in files:
        yield from _data_file(store, f"{table}/{file['path']}", file["size_bytes"], f"{table} v{delta.version()}")


def _staging(store: Store) -> Iterator[Finding]:
    left = [entry["path"] for chunk in obstore.list(store.objects, "staging") for entry in chunk]
    if left:
        words = f"{store.url}/staging: {len(left)} frames that a stopped run left. volcast gc removes them after a day."
        yield Finding(words, damage=False)


def _intents(store: Store) -> Iterator[Finding]:
    if waiting := intents(store):
        words = f"{store.url}/intents: restatements of {len(waiting)} ingests that died. The next ingest settles them."
        yield Finding(words, damage=False)


def _log_entry(store: Store, key: str) -> Iterator[Finding]:
    content = bytes(obstore.get(store.objects, key).bytes())
    try:
        actions = [json.loads(line) for line in content.splitlines() if line.strip()]
        whole = any("commitInfo" in action or "add" in action for action in actions)
    except (ValueError, TypeError):
        whole = False
    if not whole:
        yield Finding(
            f"{store.url}/{key}: a commit of {len(content)} bytes that is empty or torn. "
            "Restore it from a backup, or, if it is the newest, delete it; then ingest again to have its rows back."
        )


def _data_file(store: Store, key: str, size: int, version: str) -> Iterator[Finding]:
    where = f"{store.url}/{key} of {version}"
    try:
        content = bytes(obstore.get(store.objects, key).bytes())
    except (OSError, obstore.exceptions.BaseError) as error:
        yield Finding(f"{where}: cannot be read: {first_line(error)}. {RESTORE}")
        return
    recorded = recorded_sha256(key)
    if len(content) != size:
        yield Finding(f"{where}: expected {size} bytes, found {len(content)}. {RESTORE}")
    elif recorded is not None and sha256(content) != recorded:
        yield Finding(f"{where}: its sha256 is not the one in its name; its content was changed. {RESTORE}")
    else:
        try:
            pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read()
        except (OSError, pa.ArrowException) as error:
            yield Finding(f"{where}: does not decode: {first_line(error)}. {RESTORE}")


KEPT_VERSIONS = 10  # of each artifact, besides those that an alias points at
SAFE_AGE = timedelta(days=1)
TRASH = "trash"


def find_garbage(store: Store, *, keep_versions: int, now: datetime | None = None) -> dict[str, int]:
    """Keys that may go, with their sizes in bytes; `keep_versions` of the prices, one or more, are kept in any case.

    Raises Corrupt or NotStored where something cannot be read, for then it is not known what is still needed.
    """
    if keep_versions < 1:
        raise ValueError(f"Expected to keep one version of the prices or more, not {keep_versions}.")
    before = (now or datetime.now(UTC)) - SAFE_AGE
    artifacts = ArtifactStore(store)
    manifests = _manifests(artifacts)
    old = _old(store, "staging", before, kept=()) | _old(store, "checkpoints", before, kept=())
    old |= _old(store, "blobs", before, kept=_blobs_of(manifests))
    newest = PriceTable(store).version() or 0
    named = _versions_behind(artifacts, manifests) | set(range(max(0, newest - keep_versions + 1), newest + 1))
    for table in TABLES:
        old |= _old_files(store, table, before, named if table == PRICE_TABLE else ())
    return old


def remove(store: Store, garbage: dict[str, int]) -> None:
    """Take it away. Raises StoreNotWritable, and what `find_garbage` does."""
    blobs = [key for key in garbage if key.startswith("blobs/")]
    others = [key for key in garbage if not key.startswith("blobs/")]
    try:
        if others:
            obstore.delete(store.objects, others)
        for key in blobs:
            with suppress(FileNotFoundError):  # another gc was faster
                obstore.rename(store.objects, key, f"{TRASH}/{key}")
        _empty_trash(store)
    except (OSError, BaseError) as error:
        raise StoreNotWritable(f"{store.url}: not all could be removed: {first_line(error)}. Try again.") from error


def _empty_trash(store: Store) -> None:
    """Also of a gc that was stopped."""
    trash = [entry["path"] for chunk in obstore.list(store.objects, TRASH) for entry in chunk]
    named = _blobs_of(_manifests(ArtifactStore(store))) if trash else set()
    for key in trash:
        blob = key.removeprefix(f"{TRASH}/")
        with suppress(FileNotFoundError):
            if blob in named:
                obstore.rename(store.objects, key, blob)
            else:
                obstore.delete(store.objects, key)


def _manifests(artifacts: ArtifactStore) -> list[Manifest]:
    """Of all versions, by kind, name and number."""
    return [artifacts.get(*place) for place in artifacts.all_versions()]


def _blobs_of(manifests: list[Manifest]) -> set[str]:
    return {blob_key(blob) for manifest in manifests for blob in manifest.files.values()}


def _versions_behind(artifacts: ArtifactStore, manifests: list[Manifest]) -> set[int]:
    """The prices versions behind the manifests that are kept."""
    targets = {(e.kind, e.name, e.version) for place in artifacts.aliases() if (e := artifacts.alias(*place))}
    kept = [m for m in manifests if (m.kind, m.name, m.version) in targets]
    for _, versions in groupby(manifests, key=lambda m: (m.kind, m.name)):  # they come in this order
        kept += list(versions)[-KEPT_VERSIONS:]
    steps = [step for manifest in kept for step in artifacts.walk(manifest)]
    return {step.version for step in steps if isinstance(step, ArtifactRef) and step.kind == PRICE_TABLE}


def _old_files(store: Store, table: str, before: datetime, kept: Collection[int]) -> dict[str, int]:
    """Data files of a table that neither its newest version names, nor a kept one, nor any before that time did."""
    url, hours = store.table_url(table), max(0, round((datetime.now(UTC) - before) / timedelta(hours=1)))
    if not DeltaTable.is_deltatable(url, storage_options=store.table_options):
        return {}
    try:
        delta = DeltaTable(url, storage_options=store.table_options)
        paths = delta.vacuum(
            hours, dry_run=True, enforce_retention_duration=False, full=True, keep_versions=sorted(kept) or None
        )
    except (DeltaError, OSError) as error:
        raise Corrupt(f"{url}: {first_line(error)}. Look with: volcast verify. Nothing was removed.") from error
    if not delta.file_uris():
        raise Corrupt(f"{url}: its newest version names no file. Look with: volcast verify. Nothing was removed.")
    files = {entry["path"]: entry["size"] for chunk in obstore.list(store.objects, table) for entry in chunk}
    return {key: files[key] for path in paths if (key := f"{table}/{path}") in files}


def _old(store: Store, folder: str, before: datetime, *, kept: Collection[str]) -> dict[str, int]:
    entries = (entry for chunk in obstore.list(store.objects, folder) for entry in chunk)
    return {e["path"]: e["size"] for e in entries if e["last_modified"] < before and e["path"] not in kept}
