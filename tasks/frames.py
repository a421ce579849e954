"""Frames as the bytes of a Parquet file."""

import io

import pandas as pd


def to_parquet(frame: pd.DataFrame) -> bytes:
    """A frame as Parquet bytes; the same frame gives the same bytes."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def from_parquet(data: bytes) -> pd.DataFrame:
    """The frame of `to_parquet`."""
    return pd.read_parquet(io.BytesIO(data))
