"""Compare the newest features with those that the champion was trained on."""

from prefect import get_run_logger, task

from storage.artifacts import ArtifactStore
from storage.health import FeatureIndex, InputDrift
from storage.records import Snapshot
from storage.store import open_store
from tasks.prepared import prepare
from tasks.settings import TrainingSettings, WatchSettings
from tasks.stored import champion, champion_version, reader, stored_method
from tasks.take_snapshot import of_tickers


@task(task_run_name="measure drift up to {snapshot.cutoff}")
def measure_drift(snapshot: Snapshot, training: TrainingSettings, watch: WatchSettings) -> InputDrift | None:
    """The drift of each feature of the tickers that the champion was trained on; None without a champion."""
    artifacts, name = ArtifactStore(open_store(snapshot.store)), training.method().model_name(snapshot.tickers)
    if champion_version(artifacts, name) is None:
        return None
    model = champion(artifacts, snapshot.store, name)
    method = stored_method(artifacts, name, model.artifact.version)
    read = reader(artifacts, model.scaler.features.artifact)
    rows = of_tickers(snapshot, model.scaler.features.snapshot.tickers)
    found = method.drift(prepare(rows, method), read, watch.drift_sessions)
    drift = InputDrift(
        model=str(model.artifact),
        cutoff=snapshot.cutoff,
        sessions=watch.drift_sessions,
        features=tuple(FeatureIndex(name=name, index=own.index, limit=own.limit) for name, own in found.items()),
    )
    worst = ", ".join(f"{own.name} {own.index:.2f} of {own.limit:.2f}" for own in drift.features[:3])
    get_run_logger().info("drift from %s, %d sessions: %s", drift.model, drift.sessions, worst or "not measured")
    return drift
