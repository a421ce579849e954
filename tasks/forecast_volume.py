"""Forecast with whoever was chosen, and keep the forecast as a version."""

import pandas as pd
from prefect import get_run_logger, task

from models.errors import NotEnoughSessions
from models.live_forecasts import FALLBACK, fallback_frame
from models.words import listed
from storage.artifacts import ArtifactStore, Draft
from storage.records import Choice, ForecastBatch, ModelVersion, Snapshot
from storage.store import open_store
from tasks.frames import to_parquet
from tasks.methods.protocol import Method
from tasks.prepared import prepare, read_panel
from tasks.provenance import provenance
from tasks.settings import TrainingSettings
from tasks.stored import FORECAST_FILE, read_model


@task(task_run_name="forecast by {training.recipe}")
def forecast_volume(snapshot: Snapshot, training: TrainingSettings, choice: Choice) -> ForecastBatch:
    """A row a ticker and target session: the champion's, by the settings that it was trained with, or the fallback's.

    Raises NotEnoughSessions when no ticker can be forecast.
    """
    artifacts, model = ArtifactStore(open_store(snapshot.store)), None if choice.why else choice.champion
    if model is None:
        method, forecasts = training.method(), fallback_frame(read_panel(snapshot))
    else:
        method, forecasts = model_frame(snapshot, model)
    left_out = sorted(set(snapshot.tickers) - set(forecasts["unique_id"]))
    if forecasts.empty:
        raise NotEnoughSessions(f"None of {listed(left_out)} has enough sessions before {snapshot.cutoff}.")
    by = {"by": FALLBACK, "why": choice.why} if model is None else {}
    draft = Draft(
        kind="forecast",
        name=choice.name,
        files={FORECAST_FILE: to_parquet(forecasts)},
        parents=(snapshot.prices,) if model is None else (model.artifact, snapshot.prices),
        facts={"cutoff": str(snapshot.cutoff), "rows": len(forecasts), "horizon": method.horizon, **by},
        provenance=provenance(source=snapshot.source),
    )
    batch = ForecastBatch(
        artifact=artifacts.put(draft).ref,
        model=model,
        snapshot=snapshot,
        rows=len(forecasts),
        first_session=forecasts["ds"].min().date(),
        last_session=forecasts["ds"].max().date(),
        left_out=tuple(left_out),
        **by,
    )
    get_run_logger().info(batch.words)
    return batch


def model_frame(snapshot: Snapshot, model: ModelVersion) -> tuple[Method, pd.DataFrame]:
    """What a stored model says of a snapshot, and the method that asked it. Raises NotStored, Corrupt, ModelError."""
    artifacts = ArtifactStore(open_store(snapshot.store))
    method, predictor = read_model(artifacts, model.artifact.name, model.artifact.version)
    return method, method.forecast(prepare(snapshot, method), predictor)
