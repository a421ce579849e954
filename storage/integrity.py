"""Everything that a store holds: what is not as it was written, and what nothing names any more.

`volcast verify` looks at
1. links, pipes and devices: there are none;
2. manifests and aliases: sealed, with the parents that they name; their blobs: sha256;
3. Delta tables: no empty or torn log entry, the newest version opens, each of its data files is there with the size in
   the log, its sha256 is the one in its name, and every page of it decodes, to no more than storage/bounds.py allows;
4. frames left under staging/, and restatements under intents/, by a run that was stopped.
It names what it finds and goes on. A bucket that does not answer is no finding: then nothing is known.

`volcast gc` removes
1. data files of the prices that no kept version names. The newest versions are kept, and each that a kept manifest
   walks back to; kept manifests are those that an alias points at, and the newest versions of each artifact;
2. data files of the other tables that their newest version does not name, blobs that no manifest names, staged frames,
   and checkpoints of trainings that were stopped;
3. only what is older than a day, and a data file only a day after the commit that replaced it: a run that is under
   way may still need it;
4. nothing at all where there is a link: what is behind it cannot be told from the store's own.
A blob goes by way of `trash/`, for a run may put it into a new version meanwhile: after it was moved there, the
manifests are read once more, and it is put back if one names it. A run that comes later finds the blob gone, and
creates it again (storage/artifacts.py).
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

import pyarrow as pa
from deltalake.exceptions import DeltaError
from obstore.exceptions import BaseError

from volcast.storage.append_tables import intents, open_table, require_sound_log
from volcast.storage.artifacts import ArtifactStore, blob_key, get_unchanged, read_blob
from volcast.storage.bounds import open_parquet, read_json
from volcast.storage.errors import (
    RESTORE,
    SEE,
    UNREADABLE,
    Corrupt,
    Foreign,
    NotStored,
    StoreError,
    StoreNotWritable,
    StoreUnreachable,
    first_line,
    require_reachable,
)
from volcast.storage.prices import TABLE as PRICE_TABLE
from volcast.storage.prices import PriceTable
from volcast.storage.records import PRICES_KNOWN, ArtifactRef, Manifest
from volcast.storage.store import Store, delete, entries, find_foreign, get, move

TABLES = ("prices", "quarantine", "restatements", "events", "forecasts", "scores")
KEPT_VERSIONS = 10  # of each artifact, besides those that an alias points at
SAFE_AGE = timedelta(days=1)
TRASH = "trash"


@dataclass(frozen=True)
class Finding:
    """One line for a person; `damage` is False for what is only left over."""

    words: str
    damage: bool = True


# --- verify ---------------------------------------------------------------------------------------------------------


def verify(store: Store) -> Iterator[Finding]:
    """Each thing that is wrong, as it is found. Raises StoreUnreachable."""
    looks = {"": _find_foreign(store), "artifacts": _verify_artifacts(store), "aliases": _verify_aliases(store)}
    looks |= {table: _verify_table(store, table) for table in TABLES}
    looks |= {"staging": _find_left_over(store)}
    named = set[str]()  # what is foreign is met again by whoever wants to read it
    for folder, findings in looks.items():
        try:
            for finding in findings:
                named.add(finding.words)
                yield finding
        except (StoreError, *UNREADABLE) as error:  # a file in the place of a folder, or no right to read
            if (finding := _not_looked_at(store, folder, error)).words not in named:
                yield finding


def _not_looked_at(store: Store, place: str, error: Exception) -> Finding:
    """What could not be looked at, and why. Raises StoreUnreachable."""
    require_reachable(f"{store.url}/{place}", error)
    if isinstance(error, Foreign):
        return Finding(str(error))
    if not isinstance(error, StoreError):
        return Finding(f"{store.url}/{place} cannot be read: {first_line(error)}. {RESTORE}")
    return Finding(f"{_known(error).removesuffix(SEE)} {RESTORE}")


def _known(error: StoreError) -> str:
    """What an error says of what is stored. Raises StoreUnreachable again: an outage says nothing."""
    if isinstance(error, StoreUnreachable):
        raise error
    return str(error)


def _find_foreign(store: Store) -> Iterator[Finding]:
    yield from map(Finding, find_foreign(store))


def _verify_artifacts(store: Store) -> Iterator[Finding]:
    artifacts = ArtifactStore(store)
    seen: set[str] = set()
    for kind, name, version in artifacts.all_versions():
        try:
            manifest = artifacts.get(kind, name, version)
            artifacts.walk(manifest)
        except StoreError as error:
            yield Finding(f"{kind} {name} v{version}: {_known(error)}")
            continue
        for file, blob in manifest.files.items():
            if blob.sha256 in seen:
                continue
            seen.add(blob.sha256)
            try:
                read_blob(store, blob)
            except StoreError as error:
                yield Finding(f"{manifest.ref}, file {file}: {_known(error)}")


def _verify_aliases(store: Store) -> Iterator[Finding]:
    artifacts = ArtifactStore(store)
    for kind, name, alias in artifacts.aliases():
        try:
            for entry in artifacts.history(kind, name, alias):
                artifacts.get(kind, name, entry.version)
        except StoreError as error:
            remedy = " Restore the version from a backup, or retrain." if isinstance(error, NotStored) else ""
            yield Finding(f"{alias} of {kind} {name}: {_known(error)}{remedy}")


def _verify_table(store: Store, table: str) -> Iterator[Finding]:
    require_sound_log(store, table)
    log = [entry.path for entry in entries(store, f"{table}/_delta_log")]
    for key in log:
        if key.endswith(".json") and not _is_commit(content := get(store, key)):
            yield Finding(
                f"{store.url}/{key}: a commit of {len(content)} bytes that is empty or torn. Restore it from a backup, "
                "or, if it is the newest, delete it; then ingest again to have its rows back."
            )
    delta = open_table(store, table) if log else None
    if delta is None:
        return
    for file in pa.table(delta.get_add_actions()).select(["path", "size_bytes"]).to_pylist():
        key = f"{table}/{file['path']}"
        if fault := _fault_of_file(store, key, file["size_bytes"]):
            yield Finding(f"{store.url}/{key} of {table} v{delta.version()}: {fault}. {RESTORE}")


def _is_commit(content: bytes) -> bool:
    try:
        actions = [read_json(line) for line in content.splitlines() if line.strip()]
        return any("commitInfo" in action or "add" in action for action in actions)
    except (ValueError, TypeError):
        return False


def _fault_of_file(store: Store, key: str, size: int) -> str:
    """What is wrong with a data file; empty for nothing. Raises StoreUnreachable."""
    try:
        content = get_unchanged(store, key)
        if len(content) != size:
            return f"expected {size} bytes, found {len(content)}"
        open_parquet(pa.BufferReader(content), "it", page_checksum_verification=True).read()
    except (OSError, BaseError, pa.ArrowException, Foreign) as error:
        require_reachable(f"{store.url}/{key}", error)
        return f"cannot be read: {first_line(error)}"
    except Corrupt as error:
        return str(error).removeprefix(f"{store.url}/{key}: ")
    return ""


def _find_left_over(store: Store) -> Iterator[Finding]:
    if frames := len(entries(store, "staging")):
        words = f"{store.url}/staging: frames that a stopped run left: {frames}. volcast gc removes them after a day."
        yield Finding(words, damage=False)
    if waiting := len(intents(store)):
        words = f"{store.url}/intents: restatements of ingests that died: {waiting}. The next ingest settles them."
        yield Finding(words, damage=False)


# --- gc -------------------------------------------------------------------------------------------------------------


def find_garbage(store: Store, *, keep_versions: int, now: datetime | None = None) -> dict[str, int]:
    """Keys that may go, with their sizes in bytes; `keep_versions` of the prices, one or more, are kept in any case.

    Raises Corrupt, NotStored or Foreign where something cannot be read, for then it is not known what is still needed.
    """
    if keep_versions < 1:
        raise ValueError(f"Expected to keep one version of the prices or more, not {keep_versions}.")
    before = (now or datetime.now(UTC)) - SAFE_AGE
    for fault in find_foreign(store):
        raise Foreign(f"{fault} Nothing was removed.")
    artifacts = ArtifactStore(store)
    manifests = _manifests(artifacts)
    named = _blobs_of(manifests)
    found = [entry for folder in ("staging", "checkpoints", "blobs") for entry in entries(store, folder)]
    old = [entry for entry in found if entry.last_modified < before]
    garbage = {entry.path: entry.size for entry in old if entry.path not in named}
    newest = PriceTable(store).version() or 0
    versions = _versions_behind(artifacts, manifests) | set(range(max(0, newest - keep_versions + 1), newest + 1))
    for table in TABLES:
        garbage |= _unnamed_files(store, table, before, versions if table == PRICE_TABLE else ())
    return garbage


def remove(store: Store, garbage: dict[str, int]) -> None:
    """Take it away. Raises StoreNotWritable, and what `find_garbage` does."""
    blobs = [key for key in garbage if key.startswith("blobs/")]
    others = [key for key in garbage if not key.startswith("blobs/")]
    try:
        delete(store, *others)
        for key in blobs:
            with suppress(FileNotFoundError):  # another gc was faster
                move(store, key, f"{TRASH}/{key}")
        _empty_trash(store)
    except (OSError, BaseError) as error:
        require_reachable(store.url, error)
        raise StoreNotWritable(f"{store.url}: not all could be removed: {first_line(error)}. Try again.") from error


def _empty_trash(store: Store) -> None:
    """Remove what lies in the trash, also of a gc that was stopped; a blob that a manifest names is put back."""
    trash = [entry.path for entry in entries(store, TRASH)]
    named = _blobs_of(_manifests(ArtifactStore(store))) if trash else set()
    for key in trash:
        blob = key.removeprefix(f"{TRASH}/")
        if blob not in named:
            delete(store, key)
            continue
        with suppress(FileNotFoundError):
            move(store, key, blob)


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
    read = {step.version for step in steps if isinstance(step, ArtifactRef) and step.kind == PRICE_TABLE}
    known = [step.facts.get(PRICES_KNOWN) for step in steps if isinstance(step, Manifest)]
    return read | {version for version in known if isinstance(version, int)}


def _unnamed_files(store: Store, table: str, before: datetime, versions: Collection[int]) -> dict[str, int]:
    """Data files of a table that neither its newest version names, nor one of `versions`, nor any before that time."""
    url, hours = store.table_url(table), max(0, round((datetime.now(UTC) - before) / timedelta(hours=1)))
    delta = open_table(store, table)
    if delta is None:
        return {}
    try:
        paths = delta.vacuum(
            hours, dry_run=True, enforce_retention_duration=False, full=True, keep_versions=sorted(versions) or None
        )
    except (DeltaError, OSError) as error:
        require_reachable(url, error)
        raise Corrupt(f"{url}: {first_line(error)}. Look with: volcast verify. Nothing was removed.") from error
    if not delta.file_uris():
        raise Corrupt(f"{url}: its newest version names no file. Look with: volcast verify. Nothing was removed.")
    sizes = {entry.path: entry.size for entry in entries(store, table)}
    return {key: sizes[key] for path in paths if (key := f"{table}/{path}") in sizes}
