"""Find out whether a training has been done before."""

import hashlib
from typing import cast

from prefect import get_run_logger, task
from prefect.states import Completed

from models.devices import choose_device
from models.recipes import digest
from storage.artifacts import ArtifactStore
from storage.errors import NotStored
from storage.records import ArtifactRef, FeatureSet, ForecastBatch, Scorecard
from storage.store import open_store
from tasks.settings import TrainingSettings
from tasks.stored import champion_version, scorecard_of

RECENT = 8  # scorecards that are looked at: runs of several sets of tickers take turns under one name


def inputs_digest(features: FeatureSet, training: TrainingSettings) -> str:
    """One word for all that the weights follow from: features, recipe, seed, kind of device."""
    device = choose_device(training.device).type
    parts = (features.artifact.digest, digest(training.make()), str(training.seed), device)
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


@task(task_run_name="look for {training.recipe} trained on the same data")
def find_trained(features: FeatureSet, training: TrainingSettings) -> Scorecard | None:
    """A recent scorecard of the same data and settings, unless a new training is forced."""
    artifacts = ArtifactStore(open_store(features.snapshot.store))
    name, inputs = features.artifact.name, inputs_digest(features, training)
    if training.force or champion_version(artifacts, name) is None:
        return None
    for version in artifacts.versions("scorecard", name)[: -RECENT - 1 : -1]:
        manifest = artifacts.get("scorecard", name, version)
        if manifest.facts["inputs"] == inputs:
            return scorecard_of(artifacts, features.snapshot.store, manifest)
    return None


def find_scorecard(batch: ForecastBatch) -> Scorecard:
    """The newest scorecard of the model that made the forecast. Raises NotStored when it was never scored."""
    assert batch.model is not None, f"{batch.artifact} is a fallback's, which has no scorecard"
    return scorecard_of_model(batch.snapshot.store, batch.model.artifact)


def scorecard_of_model(url: str, model: ArtifactRef) -> Scorecard:
    """The newest scorecard of a version of a model. Raises NotStored when it was never scored."""
    artifacts = ArtifactStore(open_store(url))
    for version in reversed(artifacts.versions("scorecard", model.name)):
        manifest = artifacts.get("scorecard", model.name, version)
        if manifest.parents[0].version == model.version:
            return scorecard_of(artifacts, url, manifest)
    raise NotStored(f"{model} has no scorecard in {url}. Score it with: volcast retrain --force")


def skipped(scorecard: Scorecard) -> Scorecard:
    """The early return of a retraining with nothing to do: a state of its own in the UI, with the scorecard in it."""
    cutoff, model = scorecard.model.scaler.features.snapshot.cutoff, scorecard.model.artifact
    message = f"Skipped: no session after {cutoff}, and {model} was trained on the same data and settings."
    get_run_logger().info(message)
    return cast(Scorecard, Completed(name="Skipped", message=message, data=scorecard))  # Prefect unpacks a state
