"""Divide a run into its models, and put the outcomes together again."""

from collections.abc import Mapping, Sequence

from prefect.client.schemas.objects import State
from prefect.exceptions import MissingResult

from models.errors import ModelError
from storage.artifacts import ArtifactStore
from storage.records import PipelineResult, Report, Scorecard, Snapshot
from storage.store import open_store
from tasks.build_features import model_name
from tasks.settings import DataSettings, TrainingSettings
from tasks.stored import champion_version


class SomeModelsFailed(ModelError):
    """A part of the models failed; `result` holds what the others gave."""

    def __init__(self, message: str, result: PipelineResult) -> None:
        super().__init__(message)
        self.result = result


def model_parts(data: DataSettings, snapshot: Snapshot) -> list[DataSettings]:
    """The prices of each model: one ticker each, up to the snapshot's cutoff."""
    return [data.model_copy(update={"tickers": (ticker,), "as_of": snapshot.cutoff}) for ticker in snapshot.tickers]


def with_champion(parts: Sequence[DataSettings], training: TrainingSettings, snapshot: Snapshot) -> list[DataSettings]:
    """The parts that have a model to forecast with: trained now, or left from an earlier run."""
    artifacts, recipe = ArtifactStore(open_store(snapshot.store)), training.make()
    return [part for part in parts if champion_version(artifacts, model_name(recipe, part.tickers)) is not None]


def outcomes(
    parts: Sequence[DataSettings], states: Sequence[State[Scorecard]], training: TrainingSettings, snapshot: Snapshot
) -> dict[str, str | Exception]:
    """For each part: what its training came to, in words, or the error of one that failed.

    The verdict is read from the store: a busy server may give a final state back without the data in it.
    """
    artifacts, recipe = ArtifactStore(open_store(snapshot.store)), training.make()
    ended: dict[str, str | Exception] = {}
    for part, state in zip(parts, states, strict=True):
        if not state.is_completed():
            ended[part.label] = _error_of(state)
        elif state.name == "Skipped":
            ended[part.label] = str(state.message)
        else:
            ended[part.label] = str(artifacts.get("scorecard", model_name(recipe, part.tickers)).facts["verdict"])
    return ended


def finish(snapshot: Snapshot, reports: Sequence[Report], ended: Mapping[str, str | Exception]) -> PipelineResult:
    """The result of the run. Raises the error of the only model, or SomeModelsFailed with the errors of several."""
    failed = [outcome for outcome in ended.values() if isinstance(outcome, Exception)]
    if len(failed) == len(ended) == 1:
        raise failed[0]
    words = {ticker: str(outcome) for ticker, outcome in ended.items()}
    result = PipelineResult(snapshot=snapshot, reports=tuple(reports), trainings=words)
    if failed:
        why = " ".join(str(error) for error in failed)
        raise SomeModelsFailed(f"{len(failed)} of {len(ended)} models were not trained. {why}", result)
    return result


def _error_of(state: State[Scorecard]) -> Exception:
    try:
        error = state.result(raise_on_failure=False)
    except MissingResult:
        error = None
    return error if isinstance(error, Exception) else ModelError(str(state.message))
