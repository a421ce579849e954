"""Whether to train, and whether what was trained may forecast.

A training is not due, or has been done before, where
1. this very run holds a version for a person's answer: the run goes on with it (it was suspended meanwhile);
2. the same data and settings were trained on before: there is nothing to do, unless the version passed and was never
   decided on; where another champion has come since, it is trained and scored again, as its scorecard says nothing of
   that one;
3. an event asks for a training too soon after the newest one: there is nothing to do.

A version that passed the gate forecasts, if nobody says no. Where a person's yes is required, a run of a deployment is
suspended: its process ends, the UI shows the scorecard and a form, and the answer starts the run again, which then
finds the version that it held. A run without a deployment, or inside another one (`pipeline`), cannot be started again:
the version is held, and `volcast models promote` is the answer.

By hand another version takes the champion's place: a chosen one, or the one before. The alias is only ever appended to,
so that every move stays on record with its reason.
"""

import hashlib
from functools import partial
from typing import Annotated, Literal

from prefect import get_run_logger, task
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from pydantic import Field, StringConstraints

from volcast.models.recipes import digest
from volcast.models.sessions import sessions_after
from volcast.models.text import counted, listed
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.errors import NotStored
from volcast.storage.records import (
    AliasEntry,
    Answer,
    ArtifactRef,
    FeatureSet,
    ForecastBatch,
    ModelVersion,
    Outcome,
    Record,
    Scorecard,
)
from volcast.storage.store import open_store
from volcast.tasks.preflight import artifacts_of
from volcast.tasks.reports.render import scorecard_markdown
from volcast.tasks.run_tools import complete, emit
from volcast.tasks.settings import RetrainSettings, TrainingSettings, calendar_of
from volcast.tasks.stored_models import (
    CHAMPION,
    HELD,
    REFUSED,
    champion_moved,
    champion_version,
    decided_versions,
    newest_scorecard,
    read_or_fault,
    scorecard_of,
    scorecards,
)

RECENT = 8  # scorecards that are looked at: runs of several sets of tickers take turns under one name
BY_EVENT = ("sessions", "drift", "quality", "intervals")  # causes that a cool-down holds back
CAUSES = {
    "person": "a person asked for it",
    "schedule": "its schedule",
    "sessions": "enough new sessions",
    "drift": "its inputs have drifted",
    "quality": "the champion errs too much",
    "intervals": "its intervals do not hold",
}  # why a version was trained, in words


class Found(Record):
    """What is known of a training before it begins."""

    scorecard: Scorecard | None = None
    settled: str = ""  # why there is nothing to do; empty where there is


def inputs_digest(features: FeatureSet, training: TrainingSettings) -> str:
    """The digest of all that the weights follow from: features, recipe, seed, kind of device."""
    from volcast.models.weights import choose_device

    device = choose_device(training.device).type
    inputs = (features.artifact.digest, digest(training.make()), str(training.seed), device)
    return hashlib.sha256(" ".join(inputs).encode()).hexdigest()


@task(task_run_name="look for {training.recipe} trained on the same data")
def find_trained(features: FeatureSet, training: TrainingSettings, why: RetrainSettings) -> Found:
    """A scorecard to go on with, or one that leaves nothing to do; neither where a training is due.

    Raises Corrupt where it cannot be read which version forecasts: nothing could be promoted then.
    """
    url, name = features.snapshot.store, features.artifact.name
    artifacts = ArtifactStore(open_store(url))
    champion_version(artifacts, name)
    if held := _held_by_this_run(artifacts, url, name):
        return Found(scorecard=held)
    if training.force:
        return Found()
    if same := _same_inputs(artifacts, name, inputs_digest(features, training)):
        model = same.model.artifact
        if same.promote and model.version not in decided_versions(artifacts, name):
            return Found() if champion_moved(artifacts, same) else Found(scorecard=same)
        cutoff = features.snapshot.cutoff
        why_not = f"no session after {cutoff}, and {model} was trained on the same data and settings."
        return Found(scorecard=same, settled=why_not)
    last = next(scorecards(artifacts, name), None)
    if last is None or why.cause not in BY_EVENT:
        return Found()
    settled = _cooling(last, features, why)
    return Found(scorecard=last, settled=settled) if settled else Found()


def find_scorecard(batch: ForecastBatch) -> Scorecard | None:
    """The newest scorecard of the model that made the forecast, or None where it was never scored.

    Beside a fallback's forecast: the newest one of that name, which says why its model did not pass; None without any.
    """
    artifacts = ArtifactStore(open_store(batch.snapshot.store))
    if batch.model is not None:
        return _newest_scorecard_of(artifacts, batch.model.artifact)
    return next(scorecards(artifacts, batch.artifact.name), None)


def scorecard_of_model(url: str, model: ArtifactRef) -> Scorecard:
    """The newest scorecard of a version of a model. Raises NotStored when it was never scored."""
    found = _newest_scorecard_of(ArtifactStore(open_store(url)), model)
    if found is None:
        raise NotStored(f"{model} has no scorecard in {url}. Score it with: volcast retrain --force")
    return found


def _newest_scorecard_of(artifacts: ArtifactStore, model: ArtifactRef) -> Scorecard | None:
    manifest = newest_scorecard(artifacts, model.name, model.version)
    return scorecard_of(artifacts, model.name, manifest.version) if manifest else None


def skip_training(found: Found) -> Scorecard:
    """The early return of a retraining with nothing to do, with the scorecard that there is."""
    message = f"Skipped: {found.settled}"
    get_run_logger().info(message)
    assert found.scorecard is not None
    return complete(found.scorecard.model_copy(update={"outcome": message}), message, "skipped")


def _same_inputs(artifacts: ArtifactStore, name: str, inputs: str) -> Scorecard | None:
    """The scorecard of a model that was trained on them, and can be read: a damaged one is to be trained again."""
    for version in artifacts.versions("scorecard", name)[: -RECENT - 1 : -1]:
        manifest, _ = read_or_fault(partial(artifacts.get, "scorecard", name, version))
        if manifest and manifest.fact("inputs") == inputs:
            return read_or_fault(partial(scorecard_of, artifacts, name, version))[0]
    return None


def _held_by_this_run(artifacts: ArtifactStore, url: str, name: str) -> Scorecard | None:
    """The version that waits for an answer to this flow run, whatever prices have come since."""
    mine = [entry for entry in artifacts.history("model", name, HELD) if str(flow_run.id) in entry.reason]
    return scorecard_of_model(url, artifacts.get("model", name, mine[-1].version).ref) if mine else None


def _cooling(last: Scorecard, features: FeatureSet, why: RetrainSettings) -> str:
    """Why an event has to wait; empty when it need not."""
    trained, now = last.model.snapshot.cutoff, features.snapshot.cutoff
    passed = sessions_after(trained, now, calendar_of(features.snapshot.store))
    if passed >= why.cool_down_sessions:
        return ""
    return (
        f"{last.model.artifact} was trained on the prices up to {trained}, {counted(passed, 'session')} ago; an event "
        f"({why.cause}) starts another training after {why.cool_down_sessions}."
    )


DAYS = 7  # that an answer is waited for; then the run fails, and the version stays as it was kept


class Approval(RunInput):
    """The form."""

    answer: Literal["yes", "no"] = Field(description="Whether the version may forecast from now on")
    reason: str = Field(pattern=r"\S", max_length=500, description="Why; it stays on record beside the decision")


def ask_approval(scorecard: Scorecard, why: RetrainSettings) -> Answer:
    """The answer; at once where none is needed. Suspends the flow run until there is one."""
    model = scorecard.model.artifact
    artifacts = ArtifactStore(open_store(scorecard.model.snapshot.store, writable=True))
    if (
        not (why.require_approval and why.promote and scorecard.promote)
        or champion_version(artifacts, model.name) == model.version
    ):
        return Answer()
    asked = approval_words(scorecard, why)
    if deployment.id is None or flow_run.parent_flow_run_id is not None:
        yes = f"volcast models promote {model.name} --version {model.version} --reason …"
        _hold(artifacts, scorecard, f"{asked} Its run cannot wait; to say yes: {yes}")
        return Answer(waits=f"{model} waits: {yes}")
    _hold(artifacts, scorecard, asked)
    where = "in the UI: this run's menu (⋮), Resume"
    get_run_logger().info("%s Answer %s, in %d days at the most", asked, where, DAYS)
    form = Approval.with_initial_data(description=f"**{asked}**\n\n{scorecard_markdown(scorecard)}")
    given = suspend_flow_run(wait_for_input=form, timeout=DAYS * 86_400, key=f"approve-{model.version}")
    return Answer(approved=given.answer == "yes", reason=given.reason)


def approval_words(scorecard: Scorecard, why: RetrainSettings) -> str:
    """What a person is asked: version, champion, score, and why it was trained."""
    model, champion = scorecard.model.artifact, scorecard.champion
    asked = f"{model} waits for a yes to forecast {_instead_of(champion)}."
    return f"{asked} {scorecard.judgement} Trained because: {CAUSES[why.cause]}."


def _instead_of(champion: int | None) -> str:
    return f"in place of v{champion}" if champion else "as the first champion"


def _hold(artifacts: ArtifactStore, scorecard: Scorecard, asked: str) -> None:
    """Record, and tell, once, which version the run waits for."""
    model, run = scorecard.model.artifact, str(flow_run.id)
    known = artifacts.alias("model", model.name, HELD)
    if known is None or known.version != model.version or run not in known.reason:
        root = scorecard.model.snapshot.store
        emit("volcast.approval.wanted", root, words=asked, model=model.name, version=model.version)
        artifacts.set_alias("model", model.name, HELD, model.version, f"Held for approval by flow run {run}.")


@task(task_run_name="decide on {scorecard.model.artifact}")
def promote_model(scorecard: Scorecard, answer: Answer, why: RetrainSettings) -> Outcome:
    """Moves the champion's alias when scorecard and answer say so, and nobody has moved it since the scorecard.

    A present champion stays without a new entry. Raises VersionConflict for a move at this very moment.
    """
    model, root = scorecard.model.artifact, scorecard.model.snapshot.store
    artifacts = ArtifactStore(open_store(root, writable=True))
    entry = artifacts.alias("model", model.name, CHAMPION)
    outcome = _outcome(scorecard, answer, why)
    if outcome.name == "Promoted" and (moved := champion_moved(artifacts, scorecard)):
        outcome = Outcome(name="Kept", words=moved)
    if outcome.name == "Promoted" and (entry is None or entry.version != model.version):
        _move(artifacts, model, entry, outcome.words)
    if outcome.name == "Refused":
        artifacts.set_alias("model", model.name, REFUSED, model.version, outcome.words)
        words = f"Refused: {model} does not forecast. {outcome.words}"
        emit("volcast.approval.refused", root, words=words, model=model.name, version=model.version)
    get_run_logger().info("%s: %s", model, outcome.words)
    return outcome


@task(task_run_name="let {model.artifact} forecast untested")
def promote_untested(model: ModelVersion) -> None:
    """Let pretrained weights be the first champion where there are too few sessions to score them."""
    ref, snapshot = model.artifact, model.snapshot
    rows = f"{counted(snapshot.rows, 'row')} of {listed(snapshot.tickers)}"
    reason = f"Pretrained weights, untested here: {rows} are too few to hold some back."
    _move(ArtifactStore(open_store(snapshot.store, writable=True)), ref, None, reason)
    get_run_logger().info("%s: %s", ref, reason)


def _move(artifacts: ArtifactStore, model: ArtifactRef, before: AliasEntry | None, reason: str) -> None:
    """Let a version forecast in place of the one that did before, and tell of it. Raises VersionConflict."""
    artifacts.move_alias(model, CHAMPION, reason, after=before.number if before else 0)
    words = f"Promoted: {model} forecasts {_instead_of(before.version if before else None)}. {reason}"
    emit("volcast.champion.moved", artifacts.url, words=words, model=model.name, version=model.version)


def complete_training(scorecard: Scorecard, outcome: Outcome) -> Scorecard:
    """The final state of a retraining: Promoted, Kept, Refused or Held, with the numbers; and the scorecard."""
    model = scorecard.model.artifact
    message = f"{outcome.name} {model.name} v{model.version}: {outcome.words}"
    ended = scorecard.model_copy(update={"outcome": message})
    return complete(ended, message, f"{outcome.name.lower()} v{model.version}")


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
    return Outcome(name="Refused", words=f"{answer.reason.rstrip('. ')}. The gate had said: {scorecard.verdict}")


Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"\S")]
VersionNumber = Annotated[int, Field(ge=1)]


class AlreadyChampion(ValueError):
    """The version that was to be promoted forecasts already; nothing was changed."""


def promote(root: str, model: str, version: int, reason: str) -> AliasEntry:
    """Let a stored version forecast. Raises NotStored, AlreadyChampion, ValueError (no reason)."""
    artifacts = artifacts_of(root, model, writable=True)
    if read_or_fault(partial(champion_version, artifacts, model))[0] == version:
        raise AlreadyChampion(f"{model} v{version} is the {CHAMPION} already; nothing was changed.")
    return artifacts.set_alias("model", model, CHAMPION, version, require_reason(reason))


def roll_back(root: str, model: str, reason: str) -> AliasEntry:
    """Let the version forecast that did so before the present one came. Raises NotStored, ValueError (no reason)."""
    return artifacts_of(root, model, writable=True).roll_back("model", model, CHAMPION, require_reason(reason))


@task(task_run_name="promote {model} v{version}")
def promote_version(root: str, model: str, version: int, reason: str) -> AliasEntry:
    """`promote`, with a line in the run's log and an event."""
    return _announced(root, promote(root, model, version, reason), "Promoted by hand")


@task(task_run_name="roll {model} back")
def roll_back_version(root: str, model: str, reason: str) -> AliasEntry:
    """`roll_back`, with a line in the run's log and an event."""
    return _announced(root, roll_back(root, model, reason), "Rolled back")


def tell_move(root: str, entry: AliasEntry, how: str) -> None:
    """Send the event that starts the deployment `forecast`, so that the version forecasts at once, and that alerts."""
    words, url = f"{how}: {move_words(entry)}", open_store(root).url
    emit("volcast.champion.moved", url, words=words, model=entry.name, version=entry.version)


def move_words(entry: AliasEntry) -> str:
    """One line for logs and people."""
    return f"{entry.name} v{entry.version} forecasts since {entry.set_at:%Y-%m-%d %H:%M} UTC. {entry.reason}"


def require_reason(reason: str) -> str:
    """The reason of a move or of a retirement, without space around it. Raises ValueError for none."""
    if not reason.strip():
        raise ValueError("This needs a reason; it stays on record. Give one with: --reason")
    return reason.strip()


def _announced(root: str, entry: AliasEntry, how: str) -> AliasEntry:
    get_run_logger().info(move_words(entry))
    tell_move(root, entry, how)
    return entry
