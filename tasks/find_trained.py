"""Find out whether a training has been done before, or has to wait.

1. a version that this very run holds for a person's answer: the run goes on with it (it was suspended meanwhile)
2. the same data and settings were trained on before: nothing to do, unless the version passed and was never decided on;
   where another champion has come since, it is trained and scored again: its scorecard says nothing of that one
3. an event asks for a training too soon after the newest one: nothing to do
"""

import hashlib

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from models.devices import choose_device
from models.recipes import digest
from models.sessions import sessions_after
from storage.artifacts import ArtifactStore
from storage.errors import NotStored
from storage.records import ArtifactRef, FeatureSet, ForecastBatch, Record, Scorecard
from storage.store import open_store
from tasks.ended import ended
from tasks.settings import RetrainSettings, TrainingSettings
from tasks.stored import HELD, champion_moved, decided_versions, newest_scorecard, scorecard_of

RECENT = 8  # scorecards that are looked at: runs of several sets of tickers take turns under one name
BY_EVENT = ("sessions", "drift", "quality")  # causes that a cool-down holds back


class Found(Record):
    """What is known of a training before it begins."""

    scorecard: Scorecard | None = None
    settled: str = ""  # why there is nothing to do; empty where there is


def inputs_digest(features: FeatureSet, training: TrainingSettings) -> str:
    """One word for all that the weights follow from: features, recipe, seed, kind of device."""
    device = choose_device(training.device).type
    parts = (features.artifact.digest, digest(training.make()), str(training.seed), device)
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


@task(task_run_name="look for {training.recipe} trained on the same data")
def find_trained(features: FeatureSet, training: TrainingSettings, why: RetrainSettings) -> Found:
    """A scorecard to go on with, or one that leaves nothing to do; neither where a training is due."""
    url, name = features.snapshot.store, features.artifact.name
    artifacts = ArtifactStore(open_store(url))
    if held := _held_by_this_run(artifacts, url, name):
        return Found(scorecard=held)
    if training.force:
        return Found()
    if same := _same_inputs(artifacts, url, name, inputs_digest(features, training)):
        model = same.model.artifact
        if same.promote and model.version not in decided_versions(artifacts, name):
            return Found() if champion_moved(artifacts, same) else Found(scorecard=same)
        cutoff = features.snapshot.cutoff
        why_not = f"no session after {cutoff}, and {model} was trained on the same data and settings."
        return Found(scorecard=same, settled=why_not)
    newest = artifacts.newest("scorecard", name)
    if newest is None or why.cause not in BY_EVENT:
        return Found()
    last = scorecard_of(artifacts, url, newest)
    settled = _cooling(last, features, why)
    return Found(scorecard=last, settled=settled) if settled else Found()


def find_scorecard(batch: ForecastBatch) -> Scorecard | None:
    """The newest scorecard of the model that made the forecast. Raises NotStored when it was never scored.

    Beside a fallback's forecast: the newest one of that name, which says why its model did not pass; None without any.
    """
    if batch.model is not None:
        return scorecard_of_model(batch.snapshot.store, batch.model.artifact)
    artifacts = ArtifactStore(open_store(batch.snapshot.store))
    newest = artifacts.newest("scorecard", batch.artifact.name)
    return None if newest is None else scorecard_of(artifacts, batch.snapshot.store, newest)


def scorecard_of_model(url: str, model: ArtifactRef) -> Scorecard:
    """The newest scorecard of a version of a model. Raises NotStored when it was never scored."""
    artifacts = ArtifactStore(open_store(url))
    manifest = newest_scorecard(artifacts, model.name, model.version)
    if manifest is None:
        raise NotStored(f"{model} has no scorecard in {url}. Score it with: volcast retrain --force")
    return scorecard_of(artifacts, url, manifest)


def skipped(found: Found) -> Scorecard:
    """The early return of a retraining with nothing to do, with the scorecard that there is."""
    words = f"Skipped: {found.settled}"
    get_run_logger().info(words)
    assert found.scorecard is not None
    return ended(found.scorecard, words, "skipped")


def _same_inputs(artifacts: ArtifactStore, url: str, name: str, inputs: str) -> Scorecard | None:
    for version in artifacts.versions("scorecard", name)[: -RECENT - 1 : -1]:
        manifest = artifacts.get("scorecard", name, version)
        if manifest.fact("inputs") == inputs:
            return scorecard_of(artifacts, url, manifest)
    return None


def _held_by_this_run(artifacts: ArtifactStore, url: str, name: str) -> Scorecard | None:
    """The version that waits for an answer to this flow run, whatever prices have come since."""
    mine = [entry for entry in artifacts.history("model", name, HELD) if str(flow_run.id) in entry.reason]
    return scorecard_of_model(url, artifacts.get("model", name, mine[-1].version).ref) if mine else None


def _cooling(last: Scorecard, features: FeatureSet, why: RetrainSettings) -> str:
    """Why an event has to wait; empty when it need not."""
    trained, now = last.model.scaler.features.snapshot.cutoff, features.snapshot.cutoff
    passed = sessions_after(trained, now)
    if passed >= why.cool_down_sessions:
        return ""
    return (
        f"{last.model.artifact} was trained on the prices up to {trained}, {passed} sessions ago; an event "
        f"({why.cause}) starts another training after {why.cool_down_sessions}."
    )
