"""Forecast with the champion, and keep the forecast as a version."""

from prefect import get_run_logger, task

from models.features import build_features, tensors
from models.forecasting import nowcast_frame
from storage.artifacts import ArtifactStore, Draft
from storage.records import ForecastBatch, Snapshot
from storage.store import open_store
from tasks.build_features import model_name
from tasks.provenance import provenance
from tasks.settings import TrainingSettings
from tasks.stored import FORECAST_FILE, champion, read_nowcaster, to_parquet
from tasks.take_snapshot import read_prices


@task(task_run_name="forecast {snapshot.tickers[0]}")
def forecast_volume(snapshot: Snapshot, training: TrainingSettings) -> ForecastBatch:
    """One row a target session, from the champion of the recipe and the ticker. Raises NotStored when there is none."""
    store = open_store(snapshot.store)
    artifacts = ArtifactStore(store)
    model = champion(artifacts, snapshot.store, model_name(training.make(), snapshot.tickers))
    nowcaster, recipe = read_nowcaster(artifacts, model.artifact.name, model.artifact.version)
    frame = build_features(read_prices(store, snapshot), recipe)
    forecasts = nowcast_frame(frame, nowcaster.predict(tensors(frame, recipe)[0]), recipe)
    draft = Draft(
        kind="forecast",
        name=model.artifact.name,
        files={FORECAST_FILE: to_parquet(forecasts)},
        parents=(model.artifact, snapshot.prices),
        facts={"cutoff": str(snapshot.cutoff), "rows": len(forecasts), "horizon": recipe.horizon},
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
    )
