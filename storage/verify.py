"""Look at everything that a store holds, and name what is not as it was written: `volcast verify`.

1. manifests and aliases: sealed, with the parents that they name; their blobs: sha256
2. Delta tables: no empty or torn log entry, the newest version opens, each of its data files is there with the size in
   the log, its sha256 is the one in its name, and every page of it decodes
3. frames left under staging/, and restatements under intents/, by a run that was stopped
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from storage.artifacts import ArtifactStore
from storage.data_files import recorded_sha256
from storage.errors import UNREADABLE, NotStored, StoreError, first_line
from storage.keys import Keys, sha256
from storage.restatements import intents
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
