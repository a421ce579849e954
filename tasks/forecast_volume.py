"""Forecast with the champion, and keep the forecast as a version."""

from prefect import get_run_logger, task

from models.errors import NotEnoughSessions
from storage.artifacts import ArtifactStore, Draft
from storage.records import ForecastBatch, Snapshot
from storage.store import open_store
from tasks.frames import to_parquet
from tasks.prepared import prepare
from tasks.provenance import provenance
from tasks.settings import TrainingSettings
from tasks.stored import FORECAST_FILE, champion, read_model


@task(task_run_name="forecast {snapshot.tickers[0]}")
def forecast_volume(snapshot: Snapshot, training: TrainingSettings) -> ForecastBatch:
    """A row a ticker and target session, from the recipe's champion, by the settings that it was trained with.

    Raises NotStored when there is none, NotEnoughSessions when no ticker can be forecast.
    """
    artifacts = ArtifactStore(open_store(snapshot.store))
    model = champion(artifacts, snapshot.store, training.method().model_name(snapshot.tickers))
    method, predictor = read_model(artifacts, model.artifact.name, model.artifact.version)
    forecasts = method.forecast(prepare(snapshot, method), predictor)
    left_out = sorted(set(snapshot.tickers) - set(forecasts["unique_id"]))
    if forecasts.empty:
        raise NotEnoughSessions(f"None of {', '.join(left_out[:8])} has enough sessions before {snapshot.cutoff}.")
    draft = Draft(
        kind="forecast",
        name=model.artifact.name,
        files={FORECAST_FILE: to_parquet(forecasts)},
        parents=(model.artifact, snapshot.prices),
        facts={"cutoff": str(snapshot.cutoff), "rows": len(forecasts), "horizon": method.horizon},
        provenance=provenance(source=snapshot.source),
    )
    ref = artifacts.put(draft).ref
    get_run_logger().info("%s: %d rows by %s, cutoff %s", ref, len(forecasts), model.artifact, snapshot.cutoff)
    return ForecastBatch(
        artifact=ref,
        model=model,
        snapshot=snapshot,
        rows=len(forecasts),
        first_session=forecasts["ds"].min().date(),
        last_session=forecasts["ds"].max().date(),
        left_out=tuple(left_out),
    )
