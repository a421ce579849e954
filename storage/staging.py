"""What the steps of a run leave in the store for a while: frames for the next step, and how far a training is.

staging/<uuid>-<sha256>.arrow   a frame that one step hands to the next, so that only a reference travels
checkpoints/<model>/<inputs>    the sha256 (hex) of a checkpoint and then its bytes; a put replaces the whole key
                                at once, on disk and in a bucket
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from volcast.storage.artifacts import get_unchanged, sha256
from volcast.storage.errors import Corrupt, NotStored, StoreNotWritable, StoreUnreachable, first_line
from volcast.storage.store import Store, delete, get, put

DIGEST_BYTES = 64


class StagedFrame(BaseModel):
    """Where a frame lies, and how many rows it has."""

    model_config = ConfigDict(frozen=True)

    key: str
    rows: int


def stage(store: Store, frame: pd.DataFrame) -> StagedFrame:
    """Put `frame` under a key of its own, without its index; `discard` it once it has been used."""
    content = to_arrow(frame)
    key = f"staging/{uuid.uuid4().hex}-{sha256(content)}.arrow"
    put(store, key, content)
    return StagedFrame(key=key, rows=len(frame))


def unstage(store: Store, staged: StagedFrame) -> pd.DataFrame:
    """The frame of `stage`, with the same dtypes. Raises NotStored once it has been discarded, Corrupt."""
    try:
        return from_arrow(get_unchanged(store, staged.key))
    except FileNotFoundError as error:
        raise NotStored(
            f"{store.url}/{staged.key} is not there. Workers on several machines need one store, a bucket or a folder "
            "that all of them have under this path."
        ) from error


def discard(store: Store, staged: StagedFrame) -> None:
    """Take a frame away; one that is gone already is no error, as when a step runs a second time."""
    delete(store, staged.key)


def to_arrow(frame: pd.DataFrame) -> bytes:
    """Arrow's own format: Parquet has no seconds, and would give datetime64[s] back as datetime64[ms]."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_arrow(content: bytes) -> pd.DataFrame:
    """The frame of `to_arrow`, with the same dtypes."""
    return pa.ipc.open_file(pa.py_buffer(content)).read_all().to_pandas()


@dataclass(kw_only=True)
class StoredCheckpoint:
    """The checkpoint of one model and one digest of inputs, until the model is stored."""

    store: Store
    name: str
    inputs: str  # digest of all that the weights follow from
    warn: Callable[[str], object]  # is told when no checkpoint can be saved any more
    _is_saved: bool = field(default=True, init=False)

    @property
    def key(self) -> str:
        """Where it lies."""
        return f"checkpoints/{self.name}/{self.inputs}"

    def load(self) -> bytes | None:
        """What was saved last, or None. Raises Corrupt."""
        try:
            content = get(self.store, self.key)
        except FileNotFoundError:
            return None
        digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if sha256(data).encode() != digest:
            raise Corrupt(
                f"{self.store.url}/{self.key}: {len(data):,} bytes that are not those that were saved. Delete it; the "
                "training then begins again."
            )
        return data

    def save(self, data: bytes) -> None:
        """Replace what was saved before; a full disk, or a bucket that is away, is told once and stops no training."""
        try:
            put(self.store, self.key, sha256(data).encode() + data, replace=True)
            self._is_saved = True
        except (StoreNotWritable, StoreUnreachable) as error:
            cause = error.__cause__
            if self._is_saved:
                known = first_line(cause if isinstance(cause, Exception) else error)
                self.warn(
                    f"{self.store.url}/{self.key}: no checkpoint can be saved: {known}. "
                    "The training goes on without; if it is stopped, it begins again, or where one was saved before."
                )
            self._is_saved = False

    def clear(self) -> None:
        """Take the checkpoint away; clearing twice is no error."""
        delete(self.store, self.key)
