"""Find out whether a training has been done before."""

import hashlib
from typing import cast

from prefect import get_run_logger, task
from prefect.states import Completed

from models.devices import choose_device
from models.recipes import digest
from storage.artifacts import ArtifactStore
from storage.errors import NotStored
from storage.records import FeatureSet, ForecastBatch, Scorecard
from storage.store import open_store
from tasks.settings import TrainingSettings
from tasks.stored import champion_version, scorecard_of


def inputs_digest(features: FeatureSet, training: TrainingSettings) -> str:
    """One word for all that the weights follow from: features, recipe, seed, kind of device."""
    device = choose_device(training.device).type
    parts = (features.artifact.digest, digest(training.make()), str(training.seed), device)
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


@task(task_run_name="look for {training.recipe} trained on the same data")
def find_trained(features: FeatureSet, training: TrainingSettings) -> Scorecard | None:
    """The newest scorecard, when it is of the same data and settings and nothing forces a new training."""
    artifacts = ArtifactStore(open_store(features.snapshot.store))
    name = features.artifact.name
    newest = artifacts.newest("scorecard", name)
    if training.force or newest is None or champion_version(artifacts, name) is None:
        return None
    alike = newest.facts["inputs"] == inputs_digest(features, training)
    return scorecard_of(artifacts, features.snapshot.store, newest) if alike else None


def find_scorecard(batch: ForecastBatch) -> Scorecard:
    """The newest scorecard of the model that made the forecast. Raises NotStored when it was never scored."""
    url, model = batch.snapshot.store, batch.model.artifact
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
