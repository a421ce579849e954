"""One root at any URL: a folder, or a bucket of S3, Google Cloud or Azure. No other code knows which.

    open_store("./data")                                # to read: nothing is written, not even a probe
    open_store("s3://bucket/volcast", writable=True)    # credentials from AWS_*, GOOGLE_* or AZURE_*

A root holds keys with their bytes, and tables, which deltalake reads and writes at `Store.table_url`. Files that
somebody else keeps elsewhere are found with `files_at`, and never written.

* A root may itself be a link, but nothing below it leads out of it: links, pipes and devices there are neither
  followed, read, written nor removed (`Foreign`).
* What is written to a folder is its owner's alone; see `_keep_private`.
* A put whose answer is lost is sent again, and meets its own key: a key that holds the same bytes has been put.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from volcast.storage.bounds import require_size
from volcast.storage.errors import (
    SEE,
    Foreign,
    NotStored,
    StoreError,
    StoreNotWritable,
    StoreUnsafe,
    first_line,
    reading,
    require_reachable,
    unreachable,
)
from volcast.storage.locations import require_no_credentials

ENVIRONMENT_OF = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
# The library's default keeps trying for three minutes: too long to learn that an endpoint is misspelt.
MAX_RETRIES, RETRY_TIMEOUT = 5, timedelta(seconds=30)

CONTROL = r"[\x00-\x1f\x7f]"
ODD_IN_A_FOLDER = CONTROL + r"|[\\|^\[\]]|%[0-9A-Fa-f]{2}"  # Delta Lake takes the path for another one, or for none
ODD_IN_A_BUCKET = CONTROL + r"|[\\|^\[\]]|//|/\.{1,2}(?=/|$)"  # it panics, or obstore does
NO_FOLDER = r"(s3a?|gs|gcs|az|abfss?|adl|azure|file|memory|https?):"  # a URL that lacks a slash, or all behind them
STAGED = re.compile(r"#\d+$")  # a put that is under way

_checked: dict[str, bool] = {}  # URL of a root that this process has opened -> whether it was found writable


@dataclass(frozen=True, kw_only=True)
class Store:
    """An opened root. One that was opened to be written was probed: it refuses to put a key a second time."""

    url: str  # canonical: absolute, no trailing slash
    objects: ObjectStore
    folder: Path | None  # of a local store
    table_options: dict[str, str] = field(repr=False)  # deltalake's storage_options; may hold credentials

    def table_url(self, name: str) -> str:
        """Where deltalake finds the table `name`. ValueError for a memory store, which holds objects only."""
        if self.folder is not None:
            return str(self.folder / name)
        if isinstance(self.objects, MemoryStore):
            raise ValueError(
                f"{self.url} holds objects, not tables; open a folder or a bucket to use the table {name}."
            )
        return f"{self.url}/{name}"


def open_store(url_or_path: str, *, writable: bool = False) -> Store:
    """Open a root to read it, or, with `writable`, to write to it as well; then a local folder is made if need be.

    It takes a path, file:///…, s3://…, gs://…, az://… or memory:// (empty, and gone with the object; for tests).
    Raises ValueError (no such kind of URL), NotStored (nothing to read there), StoreNotWritable, StoreUnsafe.
    """
    require_no_credentials(url_or_path)
    _require_plain(url_or_path, CONTROL)  # a tab would vanish from a URL
    scheme = urlsplit(url_or_path).scheme if "://" in url_or_path else "path"
    if scheme in ("path", "file"):
        store = _open_folder(_folder_of(url_or_path), writable)
    elif scheme == "memory":
        return Store(url="memory://", objects=MemoryStore(), folder=None, table_options={})
    elif scheme in ENVIRONMENT_OF:
        store = _open_bucket(url_or_path.rstrip("/"), ENVIRONMENT_OF[scheme])
    else:
        raise ValueError(f"{url_or_path}: expected a path, file://, s3://, gs:// or az://, got {scheme}://.")
    if writable and not _checked.get(store.url):
        _probe(store)
    elif store.folder is None and store.url not in _checked:
        _require_keys(store)
    _checked[store.url] = writable or _checked.get(store.url, False)
    return store


def put(store: Store, key: str, content: bytes, *, replace: bool = False) -> bool:
    """Create the key, whole or not at all; False for one that holds other bytes, unless these are to be replaced.

    Raises StoreNotWritable (a full disk, no right to write), StoreUnreachable, Foreign.
    """
    require_own(store, key)
    try:
        if _put(store, key, content, mode="overwrite" if replace else "create"):
            return True
        with suppress(FileNotFoundError):  # a gc took it away meanwhile
            return get(store, key) == content
        return _put(store, key, content)
    except (OSError, BaseError) as error:
        require_reachable(f"{store.url}/{key}", error)
        raise StoreNotWritable(
            f"{store.url}/{key}: {len(content):,} bytes could not be written: {first_line(error)}. "
            "Nothing was committed. Make room, or give another root; then run the same command again."
        ) from error


class Entry(NamedTuple):
    """A key below a folder."""

    path: str
    size: int
    last_modified: datetime


def get(store: Store, key: str, limit: int | None = None) -> bytes:
    """The content of a key, of no more bytes than the limit. Raises FileNotFoundError, Foreign."""
    require_own(store, key)
    found = store.objects.get(key)
    require_size(found.meta["size"], f"{store.url}/{key} has", limit)
    return bytes(found.bytes())


def delete(store: Store, *keys: str) -> None:
    """Take keys away; one that is gone already is no error, as when a step runs a second time. Raises Foreign."""
    for key in keys:
        require_own(store, key)
    if store.folder is None and keys:
        obstore.delete(store.objects, keys)
        return
    for key in keys:
        with suppress(FileNotFoundError):
            store.objects.delete(key)


def move(store: Store, key: str, to: str) -> None:
    """Give a key another name. Raises FileNotFoundError, Foreign."""
    require_own(store, key)
    require_own(store, to)
    obstore.rename(store.objects, key, to)


def exists(store: Store, key: str) -> bool:
    """Whether the key is taken. Raises Foreign."""
    require_own(store, key)
    try:
        store.objects.head(key)
    except FileNotFoundError:
        return False
    return True


def entries(store: Store, folder: str) -> list[Entry]:
    """Each key below a folder, but for what is foreign; none where there is no such folder. Raises StoreError."""
    require_own(store, folder)
    if store.folder is None:
        chunks = store.objects.list(folder)
        return [Entry(each["path"], each["size"], each["last_modified"]) for chunk in chunks for each in chunk]
    return [found for found in _walk(store.folder, folder) if isinstance(found, Entry)]


def children(store: Store, folder: str = "") -> tuple[list[str], list[str]]:
    """The names of the keys right in a folder, and of the folders in it, sorted; links and pipes are neither."""
    require_own(store, folder)
    if store.folder is None:
        with reading(f"{store.url}/{folder}"):
            found = store.objects.list_with_delimiter(folder)
        paths = [each["path"] for each in found["objects"]], list(found["common_prefixes"])
    else:
        try:
            inside = list(os.scandir(store.folder / folder))
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise StoreError(f"{store.url}/{folder} cannot be read: {first_line(error)}.{SEE}") from error
        paths = (
            [each.name for each in inside if each.is_file(follow_symlinks=False) and not STAGED.search(each.name)],
            [each.name for each in inside if each.is_dir(follow_symlinks=False)],
        )
    keys, folders = (sorted(path.rsplit("/", 1)[-1] for path in some) for some in paths)
    return keys, folders


def find_foreign(store: Store, folder: str = "") -> Iterator[str]:
    """What lies below a folder, by default the root, and is neither a file nor a folder, in a sentence each."""
    if store.folder is not None:
        yield from (found for found in _walk(store.folder, folder) if isinstance(found, str))


def require_own(store: Store, key: str) -> None:
    """Raises Foreign for a key that leads out of the root, by its name or by a link, and for what is no plain file."""
    parts = key.split("/") if key else []
    if "" in parts or "." in parts or ".." in parts:
        raise Foreign(f"{store.url}: {key!r} is no path below the root, and is not touched.")
    if store.folder is None:
        return
    path = store.folder
    for part in parts:
        path = path / part
        try:
            if fault := _what_is_wrong(path, path.lstat().st_mode):
                raise Foreign(fault)
        except (FileNotFoundError, NotADirectoryError):
            return


def _what_is_wrong(path: Path, mode: int) -> str:
    """Empty for a file or a folder."""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    what = f"a link to {path.readlink()}" if stat.S_ISLNK(mode) else "a pipe, a socket or a device"
    return f"{path}: {what} is no part of a store, and is left alone. Remove it, or move here what it leads to."


def _walk(root: Path, folder: str = "") -> "Iterator[Entry | str]":
    """Each file below a folder of the root, and a sentence for each thing that is foreign; no link is followed."""
    waiting = [root / folder]
    while waiting:
        try:
            inside = sorted(os.scandir(waiting.pop()), key=lambda each: each.name)
        except FileNotFoundError:
            continue
        for each in inside:
            path = Path(each.path)
            with suppress(FileNotFoundError):  # removed meanwhile
                info = path.lstat()
                if fault := _what_is_wrong(path, info.st_mode):
                    yield fault
                elif stat.S_ISDIR(info.st_mode):
                    waiting.append(path)
                elif not STAGED.search(each.name):
                    changed = datetime.fromtimestamp(info.st_mtime, UTC)
                    yield Entry(path.relative_to(root).as_posix(), info.st_size, changed)


def files_at(location: str, is_wanted: Callable[[str], bool]) -> tuple[FileSystem, list[str], bool]:
    """Where a path or URL lies, the files there in order (none where nothing is), and whether it is a folder.

    Of a folder, the files whose names are wanted; folders in it are looked into where they are of a partitioned data
    set (Ticker=AAPL), or where there is one and no such file.

    Raises OSError, ArrowException for a place that cannot be looked at.
    """
    if "://" in location:
        system, root = FileSystem.from_uri(location)
    else:
        system, root = LocalFileSystem(), str(Path(location).expanduser())
    kind = system.get_file_info(root).type
    if kind != FileType.Directory:
        return system, [root] if kind == FileType.File else [], False  # a pipe or a device may never end
    return system, sorted(_files_below(system, root, is_wanted)), True


def _files_below(system: FileSystem, root: str, is_wanted: Callable[[str], bool]) -> list[str]:
    found = system.get_file_info(FileSelector(root))
    files = [entry.path for entry in found if entry.type == FileType.File and is_wanted(entry.base_name)]
    folders = [entry for entry in found if entry.type == FileType.Directory]
    if any(entry.base_name == "_delta_log" for entry in folders):
        raise OSError("a Delta table, some of whose files are no longer part of it; write it as one Parquet file first")
    inner = [entry for entry in folders if "=" in entry.base_name]
    if not files and len(folders) == 1:
        inner = folders
    return files + [path for entry in inner for path in _files_below(system, entry.path, is_wanted)]


def _folder_of(url_or_path: str) -> Path:
    if not url_or_path.strip():
        raise ValueError("The store's root is empty; expected a path or a URL, such as ./data or s3://bucket/prefix.")
    if "://" not in url_or_path:
        if found := re.match(NO_FOLDER, url_or_path, re.IGNORECASE):
            raise ValueError(
                f"{url_or_path}: expected {found[0]}//… as a URL; a folder of that name is ./{url_or_path}"
            )
        try:
            return Path(url_or_path).expanduser().resolve()
        except RuntimeError as error:
            raise ValueError(f"{url_or_path}: {error} Give the whole path, such as /srv/volcast.") from error
    parts = urlsplit(url_or_path)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"{url_or_path}: a file URL needs three slashes and a full path, such as file:///srv/volcast.")
    return Path(unquote(parts.path)).resolve()


def _require_plain(text: str, odd: str) -> None:
    if found := re.search(odd, text):
        raise ValueError(
            f"{text!r}: expected a store without {found[0]!r} in its name: the tables would lie elsewhere, or nowhere. "
            "Nothing was written. Give another one with: --store"
        )


def _open_folder(folder: Path, writable: bool) -> Store:
    _require_plain(str(folder), ODD_IN_A_FOLDER)
    if not writable and not folder.is_dir():
        raise _no_store(folder.as_uri())
    try:
        if writable:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _keep_private(folder)
        objects = LocalStore(folder)
    except (OSError, BaseError) as error:
        raise _not_writable(folder.as_uri(), error) from error
    return Store(url=folder.as_uri(), objects=objects, folder=folder, table_options={})


def _keep_private(folder: Path) -> None:
    """What this process writes from now on is its user's alone, whatever umask it was started with.

    A root that is open to its group and closed to all others was made so on purpose (chmod 750, or 2770): then what is
    written there is open to the group in the same way. It has to be the process's umask, for Delta Lake writes, too.
    """
    mode = stat.S_IMODE(folder.stat().st_mode)
    os.umask(0o007 | ~mode & 0o070 if mode & 0o070 and not mode & 0o007 else 0o077)


def _open_bucket(url: str, prefix: str) -> Store:
    parts = urlsplit(url)
    if parts.query or parts.fragment or not parts.netloc:
        raise ValueError(f"{parts.scheme}:// needs a bucket and perhaps a prefix, nothing else; put keys in {prefix}*.")
    _require_plain(url.partition("://")[2], ODD_IN_A_BUCKET)
    options = {key: value for key, value in os.environ.items() if key.startswith(prefix)}
    options |= {"max_retries": str(MAX_RETRIES), "retry_timeout": f"{RETRY_TIMEOUT.seconds}s"}
    try:
        objects = from_url(url, retry_config={"max_retries": MAX_RETRIES, "retry_timeout": RETRY_TIMEOUT})
    except BaseError as error:
        raise _not_writable(url, error) from error
    return Store(url=url, objects=objects, folder=None, table_options=options)


def _require_keys(store: Store) -> None:
    """A bucket has no folders: where no key lies below the root, there is no store."""
    try:
        is_empty = not any(len(chunk) for chunk in store.objects.list())
    except (OSError, BaseError) as error:
        raise unreachable(store.url, error) from error
    if is_empty:
        raise _no_store(store.url)


def _no_store(url: str) -> StoreError:
    return NotStored(f"{url}: there is no store; volcast ingest begins one. Give the right one with: --store")


def _probe(store: Store) -> None:
    """Put one key twice; the second time must be refused, or two writers could both take one version."""
    key = f".volcast-probe-{uuid4().hex}"
    try:
        if store.folder is not None:
            TemporaryFile(dir=store.folder).close()  # obstore tries for ever where files cannot be made, as in /proc
        _put(store, key, b"first")
        is_refused = not _put(store, key, b"second")
        store.objects.delete(key)
    except (OSError, BaseError) as error:
        raise _not_writable(store.url, error) from error
    if not is_refused:
        raise StoreUnsafe(
            f"{store.url}: a second put of the same key was accepted, so that two runs could overwrite each other. "
            "Expected a store with conditional writes (If-None-Match): S3, Google Cloud, Azure, recent MinIO, a folder."
        )


def _put(store: Store, key: str, content: bytes, *, mode: Literal["create", "overwrite"] = "create") -> bool:
    try:
        store.objects.put(key, content, mode=mode, use_multipart=False)
    except AlreadyExistsError:
        return False
    return True


def _not_writable(url: str, error: Exception) -> StoreError:
    return StoreNotWritable(
        f"{url}: expected a root that can be written, but: {first_line(error)}. "
        "Give another root, or the right to write there (for a bucket: credentials, region and endpoint)."
    )
