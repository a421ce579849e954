"""Let the new model forecast, if it earned the place and nobody says no."""

from prefect import get_run_logger, task

from storage.artifacts import ArtifactStore
from storage.records import Answer, Outcome, Scorecard
from storage.store import open_store
from tasks.ended import ended
from tasks.events import emit
from tasks.settings import RetrainSettings
from tasks.stored import CHAMPION, REFUSED, champion_moved


@task(task_run_name="decide on {scorecard.model.artifact}")
def promote_model(scorecard: Scorecard, answer: Answer, why: RetrainSettings) -> Outcome:
    """Moves the champion's alias when scorecard and answer say so, and nobody has moved it since the scorecard.

    A present champion stays without a new entry. Raises VersionConflict for a move at this very moment.
    """
    model, root = scorecard.model.artifact, scorecard.model.scaler.features.snapshot.store
    artifacts = ArtifactStore(open_store(root, writable=True))
    entry = artifacts.alias("model", model.name, CHAMPION)
    outcome = _outcome(scorecard, answer, why)
    if outcome.name == "Promoted" and (moved := champion_moved(artifacts, scorecard)):
        outcome = Outcome(name="Kept", words=moved)
    if outcome.name == "Promoted" and (entry is None or entry.version != model.version):
        artifacts.move_alias(model, CHAMPION, outcome.words, after=entry.number if entry else 0)
        emit("volcast.champion.moved", root, words=f"{model}: {outcome.words}", model=model.name, version=model.version)
    if outcome.name == "Refused":
        artifacts.set_alias("model", model.name, REFUSED, model.version, outcome.words)
    get_run_logger().info("%s: %s", model, outcome.words)
    return outcome


def ended_training(scorecard: Scorecard, outcome: Outcome) -> Scorecard:
    """How a retraining ends: Promoted, Kept, Refused or Held, with the numbers; and the scorecard."""
    model = scorecard.model.artifact
    words = f"{outcome.name} {model.name} v{model.version}: {outcome.words}"
    return ended(scorecard, words, f"{outcome.name.lower()} v{model.version}")


def _outcome(scorecard: Scorecard, answer: Answer, why: RetrainSettings) -> Outcome:
    if not scorecard.promote:
        return Outcome(name="Kept", words=scorecard.verdict)
    if not why.promote:
        return Outcome(name="Kept", words=f"An experiment, by --no-promote; the gate says: {scorecard.verdict}")
    if answer.waits:
        return Outcome(name="Held", words=f"{answer.waits} {scorecard.verdict}")
    if answer.approved is None:
        return Outcome(name="Promoted", words=scorecard.verdict)
    if answer.approved:
        return Outcome(name="Promoted", words=f"{scorecard.verdict} Approved: {answer.reason}")
    return Outcome(name="Refused", words=f"{answer.reason} The gate had said: {scorecard.verdict}")
