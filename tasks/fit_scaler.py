"""Fit the scalers, as a version of their own."""

from prefect import get_run_logger, task

from models.weights import to_bytes
from storage.artifacts import ArtifactStore, Draft
from storage.records import FeatureSet, FittedScaler
from storage.store import open_store
from tasks.prepared import read_prepared
from tasks.provenance import provenance
from tasks.settings import TrainingSettings
from tasks.stored import SCALER_FILE


@task(task_run_name="fit scalers on {training.fit_scalers_on} rows")
def fit_scaler(features: FeatureSet, training: TrainingSettings) -> FittedScaler:
    """The recipe's scaler, as float64 buffers."""
    artifacts, method = ArtifactStore(open_store(features.snapshot.store, writable=True)), training.method()
    scaler = method.scaler(read_prepared(features, method))
    draft = Draft(
        kind="scaler",
        name=features.artifact.name,
        files={SCALER_FILE: to_bytes(scaler)},
        parents=(features.artifact,),
        facts={"fitted_on": training.fit_scalers_on},
        provenance=provenance(source=features.snapshot.source),
    )
    ref = artifacts.put(draft).ref
    get_run_logger().info("%s: fitted on %s rows", ref, training.fit_scalers_on)
    return FittedScaler(artifact=ref, features=features, fitted_on=training.fit_scalers_on)
