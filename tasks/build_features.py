"""Turn the prices of a snapshot into what the recipe looks at."""

from typing import Any

from prefect import get_run_logger, task

from storage.artifacts import ArtifactStore, Draft
from storage.records import FeatureSet, Snapshot
from storage.store import open_store
from tasks.prepared import keep, prepare
from tasks.provenance import provenance
from tasks.settings import TrainingSettings
from tasks.stored import require_own_name


@task(task_run_name="build {training.recipe} features")
def build_features(snapshot: Snapshot, training: TrainingSettings) -> FeatureSet:
    """Features of the snapshot as a version. Raises NotEnoughSessions, IncompletePrices, UnknownRecipe."""
    method, artifacts = training.method(), ArtifactStore(open_store(snapshot.store, writable=True))
    name = method.model_name(snapshot.tickers)
    require_own_name(artifacts, name, method)
    prepared = prepare(snapshot, method)
    described = method.describe(prepared)
    facts: dict[str, Any] = {
        "tickers": list(snapshot.tickers),
        "first_session": str(snapshot.first_session),
        "cutoff": str(snapshot.cutoff),
        "snapshot_rows": snapshot.rows,
        **described.facts,
    }
    draft = Draft(
        kind="features",
        name=name,
        files=described.files,
        parents=(snapshot.prices,),
        facts=facts,
        provenance=provenance(source=snapshot.source),
    )
    ref = artifacts.put(draft).ref
    features = FeatureSet(artifact=ref, snapshot=snapshot, rows=facts["rows"], train_rows=facts["train_rows"])
    keep(features, prepared)
    counts = (features.rows, features.train_rows, features.rows - features.train_rows)
    get_run_logger().info("%s: %d rows, %d train and %d test, up to %s", ref, *counts, snapshot.cutoff)
    return features
