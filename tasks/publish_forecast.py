"""Put a forecast into the ledger, beside har, naive and a champion that was stood in for, of the same cutoff.

A forecast of the past is not a live one, and stays out: once a later session is stored, its volumes may have been
looked at.
"""

from datetime import UTC, datetime

import pandas as pd
from prefect import get_run_logger, task

from models.backtest import INTERVALS
from models.evaluation import MODEL
from models.live_forecasts import FALLBACK, fallback_frame, naive_frame, scales_now
from storage.artifacts import ArtifactStore
from storage.ledger import Ledger
from storage.prices import PriceTable
from storage.records import Choice, ForecastBatch
from storage.schemas import FORECASTS
from storage.store import open_store
from tasks.forecast_volume import model_frame, panel_frame
from tasks.prepared import read_panel
from tasks.settings import TrainingSettings
from tasks.stored import FORECAST_FILE, read_frame
from tasks.take_snapshot import universes

VALUES = {MODEL: "median", f"{MODEL}-mean": "mean"} | {f"{MODEL}-{end}": end.replace("-", "_") for end in INTERVALS}


@task(task_run_name="publish {batch.artifact}")
def publish_forecast(batch: ForecastBatch, training: TrainingSettings, choice: Choice) -> ForecastBatch:
    """The batch as it was, in the ledger once, where it is live."""
    if why := why_not_live(batch, training):
        get_run_logger().info("%s %s: not in the ledger", batch.artifact, why)
    else:
        added = Ledger(open_store(batch.snapshot.store, writable=True)).record_forecasts(ledger_rows(batch, choice))
        get_run_logger().info("%s: %d rows new in the ledger", batch.artifact, added)
    return batch


def why_not_live(batch: ForecastBatch, training: TrainingSettings) -> str:
    """Why a forecast is none of what is to come; empty for one that is."""
    if not training.method().horizon:
        return "is a nowcast"
    last = PriceTable(open_store(batch.snapshot.store)).coverage()["last"]
    newest = last.reindex(list(batch.snapshot.tickers)).max().date()
    return f"is of the past, prices are stored up to {newest}" if newest > batch.snapshot.cutoff else ""


def ledger_rows(batch: ForecastBatch, choice: Choice) -> pd.DataFrame:
    """The columns of FORECASTS: what is published, and its rivals of the same tickers."""
    artifacts, snapshot, champion = ArtifactStore(open_store(batch.snapshot.store)), batch.snapshot, choice.champion
    frames = {
        batch.by: read_frame(artifacts, batch.artifact, FORECAST_FILE),
        "naive": panel_frame(snapshot, champion, naive_frame),
    }
    if batch.by != FALLBACK:
        frames[FALLBACK] = panel_frame(snapshot, champion, fallback_frame)
    elif champion is not None:
        frames[MODEL] = model_frame(snapshot, champion)[1]
    scales = pd.concat([scales_now(read_panel(rows)).reindex(own) for rows, own in universes(snapshot, champion)])
    rows = pd.concat([frame.assign(model=model) for model, frame in frames.items()], ignore_index=True)
    rows = rows.loc[rows["unique_id"].isin(frames[batch.by]["unique_id"])]
    is_published, is_model = rows["model"] == batch.by, rows["model"] == MODEL
    version = champion.artifact.version if champion else None
    facts = {
        "published": is_published,
        "name": batch.artifact.name,
        "version": batch.artifact.version,
        "model_version": pd.Series(version, index=rows.index, dtype="Int64").where(is_model),
        "prices_version": snapshot.prices.version,
        "why": pd.Series(batch.why, index=rows.index).where(is_published, ""),
        "scale": rows["unique_id"].map(scales).astype("float64"),
        "published_at": pd.Timestamp(datetime.now(UTC)),
    }
    named = rows.rename(columns={"unique_id": "ticker", **VALUES}).assign(**facts)
    return named.loc[:, FORECASTS.names]
