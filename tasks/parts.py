"""Divide a run into its models, and put the outcomes together again."""

from collections.abc import Mapping, Sequence

from prefect.client.schemas.objects import State

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
    parts: Sequence[DataSettings], states: Sequence[State[Scorecard]]
) -> dict[str, Scorecard | Exception | str]:
    """For each part: the scorecard of its training, the words of a skipped one, or the error of a failed one."""
    return {
        part.label: str(state.message) if state.name == "Skipped" else state.result(raise_on_failure=False)
        for part, state in zip(parts, states, strict=True)
    }


def finish(
    snapshot: Snapshot, reports: Sequence[Report], ended: Mapping[str, Scorecard | Exception | str]
) -> PipelineResult:
    """The result of the run. Raises the error of the only model, or SomeModelsFailed with the errors of several."""
    failed = [outcome for outcome in ended.values() if isinstance(outcome, Exception)]
    if len(failed) == len(ended) == 1:
        raise failed[0]
    words = {
        ticker: outcome.verdict if isinstance(outcome, Scorecard) else str(outcome) for ticker, outcome in ended.items()
    }
    result = PipelineResult(snapshot=snapshot, reports=tuple(reports), trainings=words)
    if failed:
        why = " ".join(str(error) for error in failed)
        raise SomeModelsFailed(f"{len(failed)} of {len(ended)} models were not trained. {why}", result)
    return result
