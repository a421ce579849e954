"""Frames that one step of a run hands to the next through the store, so that only a reference travels.

How far a training is, laid down in the store: `checkpoints/<model>/<inputs>`, gone when the training has ended.

The content is its sha256 (hex) and then the bytes; a put replaces the whole key at once, on disk and in a bucket.
"""

import uuid
from contextlib import suppress
from dataclasses import dataclass

import obstore
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from storage.artifacts import sha256
from storage.errors import Corrupt
from storage.store import Store, put


class StagedFrame(BaseModel):
    """Where a frame lies, and how many rows it has."""

    model_config = ConfigDict(frozen=True)

    key: str
    rows: int


def stage(store: Store, frame: pd.DataFrame) -> StagedFrame:
    """Lay `frame` down under a key of its own, without its index; `discard` it once it has been used."""
    key = f"staging/{uuid.uuid4().hex}.arrow"
    put(store, key, to_arrow(frame))
    return StagedFrame(key=key, rows=len(frame))


def unstage(store: Store, staged: StagedFrame) -> pd.DataFrame:
    """The frame that `stage` laid down, with the same dtypes. Raises FileNotFoundError once it has been discarded."""
    return from_arrow(bytes(obstore.get(store.objects, staged.key).bytes()))


def discard(store: Store, staged: StagedFrame) -> None:
    """Take a frame away; one that is gone already is no error, as when a step runs a second time."""
    with suppress(FileNotFoundError):
        obstore.delete(store.objects, staged.key)


def to_arrow(frame: pd.DataFrame) -> bytes:
    """Arrow's own format: Parquet has no seconds, and would give datetime64[s] back as datetime64[ms]."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def from_arrow(content: bytes) -> pd.DataFrame:
    """The frame that `to_arrow` was given, with the same dtypes."""
    return pa.ipc.open_file(pa.py_buffer(content)).read_all().to_pandas()


DIGEST_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class StoredCheckpoint:
    """The checkpoint of one model and one digest of inputs."""

    store: Store
    name: str
    inputs: str  # digest of all that the weights follow from

    @property
    def key(self) -> str:
        """Where it lies."""
        return f"checkpoints/{self.name}/{self.inputs}"

    def load(self) -> bytes | None:
        """What was saved last, or None. Raises Corrupt."""
        try:
            content = bytes(obstore.get(self.store.objects, self.key).bytes())
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
        """Keep this instead of what was saved before. Raises StoreNotWritable."""
        put(self.store, self.key, sha256(data).encode() + data, replace=True)

    def clear(self) -> None:
        """The training has ended; clearing twice is no error."""
        with suppress(FileNotFoundError):
            obstore.delete(self.store.objects, self.key)
