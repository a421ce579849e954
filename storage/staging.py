"""Frames that one step of a run hands to the next through the store, so that only a reference travels."""

import io
import uuid

import obstore
import pandas as pd
from pydantic import BaseModel, ConfigDict

from storage.store import Store


class StagedFrame(BaseModel):
    """Where a frame lies, and how many rows it has."""

    model_config = ConfigDict(frozen=True)

    key: str
    rows: int


def stage(store: Store, frame: pd.DataFrame) -> StagedFrame:
    """Lay `frame` down as Parquet under a key of its own; `discard` it once it has been used."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    key = f"staging/{uuid.uuid4().hex}.parquet"
    obstore.put(store.objects, key, buffer.getvalue(), mode="create")
    return StagedFrame(key=key, rows=len(frame))


def unstage(store: Store, staged: StagedFrame) -> pd.DataFrame:
    """The frame that `stage` laid down."""
    return pd.read_parquet(io.BytesIO(bytes(obstore.get(store.objects, staged.key).bytes())))


def discard(store: Store, staged: StagedFrame) -> None:
    """Take a frame away."""
    obstore.delete(store.objects, staged.key)
