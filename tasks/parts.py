"""Divide a run into its models, and put the outcomes together again."""

from collections.abc import Mapping, Sequence

from prefect.client.schemas.objects import State
from prefect.exceptions import MissingResult

from models.errors import ModelError
from models.text import listed
from storage.artifacts import ArtifactStore
from storage.records import PipelineResult, Report, Scorecard, Snapshot
from storage.store import open_store
from tasks.run_tools import ended
from tasks.settings import DataSettings, TrainingSettings
from tasks.stored_models import champion_version


class SomeModelsFailed(ModelError):
    """A part of the models failed; `result` holds what the others gave."""

    def __init__(self, message: str, result: PipelineResult) -> None:
        super().__init__(message)
        self.result = result


def model_parts(data: DataSettings, training: TrainingSettings, snapshot: Snapshot) -> list[DataSettings]:
    """The prices of each model: its tickers, up to the snapshot's cutoff."""
    parts = training.method().parts(snapshot.tickers)
    return [data.model_copy(update={"tickers": tickers, "as_of": snapshot.cutoff}) for tickers in parts]


def with_forecaster(
    parts: Sequence[DataSettings], training: TrainingSettings, snapshot: Snapshot
) -> list[DataSettings]:
    """The parts that can be forecast: by a model, trained now or left from an earlier run, or ahead, by har."""
    artifacts, method = ArtifactStore(open_store(snapshot.store)), training.method()

    def can_forecast(name: str) -> bool:
        har_stands_in = bool(method.horizon and artifacts.versions("scorecard", name))
        return har_stands_in or champion_version(artifacts, name) is not None

    return [part for part in parts if can_forecast(method.model_name(part.tickers))]


def outcomes(
    parts: Sequence[DataSettings], states: Sequence[State[Scorecard]], training: TrainingSettings
) -> dict[str, str | Exception]:
    """For each model, by name: what its training came to, in words, or the error of one that failed.

    The words are the state's own: a busy server may give a final state back without the data in it.
    """
    method = training.method()
    ended: dict[str, str | Exception] = {}
    for part, state in zip(parts, states, strict=True):
        name = method.model_name(part.tickers)
        if not state.is_completed():
            ended[name] = _error_of(state)
        else:
            ended[name] = str(state.message)
    return ended


def finish(snapshot: Snapshot, reports: Sequence[Report], trained: Mapping[str, str | Exception]) -> PipelineResult:
    """The result of the run. Raises the error of the only model, or SomeModelsFailed with the errors of several."""
    failed = [outcome for outcome in trained.values() if isinstance(outcome, Exception)]
    if len(failed) == len(trained) == 1:
        raise failed[0]
    words = {name: str(outcome) for name, outcome in trained.items()}
    result = PipelineResult(snapshot=snapshot, reports=tuple(reports), trainings=words)
    if failed:
        why = listed([str(error) for error in failed], 3, " ")
        raise SomeModelsFailed(f"{len(failed)} of {len(trained)} models were not trained. {why}", result)
    forecasts = [f"{report.batch.artifact} by {report.batch.author}" for report in reports[:3]]
    prices = f"prices v{snapshot.prices.version} to {snapshot.cutoff}"
    message = "; ".join([prices, *(each.rstrip(".") for each in list(words.values())[:3]), *forecasts])
    return ended(result, message)


def _error_of(state: State[Scorecard]) -> Exception:
    try:
        error = state.result(raise_on_failure=False)
    except MissingResult:
        error = None
    return error if isinstance(error, Exception) else ModelError(str(state.message))
