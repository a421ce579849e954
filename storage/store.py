"""One root at any URL: a folder, or a bucket of S3, Google Cloud or Azure. No other code knows which.

data = open_store("./data")
data = open_store("s3://bucket/volcast")     # credentials from AWS_*, GOOGLE_* or AZURE_*
"""

import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from storage.errors import StoreError, StoreNotWritable, StoreUnsafe, first_line

ENVIRONMENT_OF = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
# The library's default keeps trying for three minutes: too long to learn that an endpoint is misspelt.
MAX_RETRIES, RETRY_TIMEOUT = 5, timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class Store:
    """An opened root, probed: it can be written, and a key that was put once cannot be put again."""

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


def open_store(url_or_path: str) -> Store:
    """Open the root, making a local folder where there is none.

    Takes a path, file:///…, s3://…, gs://…, az://… or memory:// (empty, and gone with the object; for tests).
    Raises ValueError (no such kind of URL), StoreNotWritable, StoreUnsafe.
    """
    scheme = urlsplit(url_or_path).scheme if "://" in url_or_path else "path"
    if scheme in ("path", "file"):
        store = _open_folder(_folder_of(url_or_path))
    elif scheme == "memory":
        store = Store(url="memory://", objects=MemoryStore(), folder=None, table_options={})
    elif scheme in ENVIRONMENT_OF:
        store = _open_bucket(url_or_path.rstrip("/"), ENVIRONMENT_OF[scheme])
    else:
        raise ValueError(f"{url_or_path}: expected a path, file://, s3://, gs:// or az://, got {scheme}://.")
    _probe(store)
    return store


def put(store: Store, key: str, content: bytes) -> None:
    """Create the key, whole or not at all. Raises StoreNotWritable (a full disk, no right to write)."""
    try:
        store.objects.put(key, content, mode="create", use_multipart=False)
    except (OSError, BaseError) as error:
        raise StoreNotWritable(
            f"{store.url}/{key}: {len(content):,} bytes could not be written: {first_line(error)}. "
            "Nothing was committed. Make room, or give another root; then run the same command again."
        ) from error


def _folder_of(url_or_path: str) -> Path:
    if not url_or_path.strip():
        raise ValueError("The store's root is empty; expected a path or a URL, such as ./data or s3://bucket/prefix.")
    if "://" not in url_or_path:
        try:
            return Path(url_or_path).expanduser().resolve()
        except RuntimeError as error:
            raise ValueError(f"{url_or_path}: {error} Give the whole path, such as /srv/volcast.") from error
    parts = urlsplit(url_or_path)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"{url_or_path}: a file URL needs three slashes and a full path, such as file:///srv/volcast.")
    return Path(unquote(parts.path)).resolve()


def _open_folder(folder: Path) -> Store:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()  # obstore tries for ever where files cannot be made, as in /proc
        objects = LocalStore(folder)
    except (OSError, BaseError) as error:
        raise _not_writable(folder.as_uri(), error) from error
    return Store(url=folder.as_uri(), objects=objects, folder=folder, table_options={})


def _open_bucket(url: str, prefix: str) -> Store:
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment or not parts.netloc:
        raise ValueError(f"{parts.scheme}:// needs a bucket and perhaps a prefix, nothing else; put keys in {prefix}*.")
    options = {key: value for key, value in os.environ.items() if key.startswith(prefix)}
    try:
        objects = from_url(url, retry_config={"max_retries": MAX_RETRIES, "retry_timeout": RETRY_TIMEOUT})
    except BaseError as error:
        raise _not_writable(url, error) from error
    return Store(url=url, objects=objects, folder=None, table_options=options)


def _probe(store: Store) -> None:
    """Put one key twice; the second time must be refused, or two writers could both take one version."""
    key = f".volcast-probe-{uuid4().hex}"
    try:
        store.objects.put(key, b"first", mode="create", use_multipart=False)
        refused = _refuses_second_put(store, key)
        store.objects.delete(key)
    except (OSError, BaseError) as error:
        raise _not_writable(store.url, error) from error
    if not refused:
        raise StoreUnsafe(
            f"{store.url}: a second put of the same key was accepted, so that two runs could overwrite each other. "
            "Expected a store with conditional writes (If-None-Match): S3, Google Cloud, Azure, recent MinIO, a folder."
        )


def _refuses_second_put(store: Store, key: str) -> bool:
    try:
        store.objects.put(key, b"second", mode="create", use_multipart=False)
    except AlreadyExistsError:
        return True
    return False


def _not_writable(url: str, error: Exception) -> StoreError:
    return StoreNotWritable(
        f"{url}: expected a root that can be written, but: {first_line(error)}. "
        "Give another root, or the right to write there (for a bucket: credentials, region and endpoint)."
    )
