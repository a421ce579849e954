"""Write forecasts to a file of the user's choice."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from storage.artifacts import ArtifactStore
from storage.records import ForecastBatch
from storage.store import open_store
from tasks.stored import FORECAST_FILE, read_frame


def write_forecasts(batches: Sequence[ForecastBatch], out: Path) -> int:
    """All rows of the batches in one file, by ticker and target session; returns how many.

    Columns: unique_id, cutoff, ds, h, volcast (shares), and the recipe's intervals where it has them.
    """
    frames = [
        read_frame(ArtifactStore(open_store(batch.snapshot.store)), batch.artifact, FORECAST_FILE) for batch in batches
    ]
    forecasts = pd.concat(frames, ignore_index=True).sort_values(["unique_id", "ds", "h"], ignore_index=True)
    write_frame(forecasts, out)
    return len(forecasts)


def write_frame(frame: pd.DataFrame, out: Path) -> None:
    """CSV or Parquet, by the file's name (preflight.FORECAST_FORMATS)."""
    if out.suffix.lower() == ".csv":
        frame.to_csv(out, index=False, date_format="%Y-%m-%d")
    else:
        frame.to_parquet(out, index=False)
