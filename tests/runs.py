"""What the session's server knows of the flow runs of the tests, and what those left in the store."""

import pandas as pd
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterName,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import TagsContext
from prefect.settings import PREFECT_API_URL

from volcast.flows.server import Server, drain
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.records import ForecastBatch, Report, Scorecard
from volcast.storage.store import open_store
from volcast.tasks.run_tools import artifact_key
from volcast.tasks.stored_models import FORECAST_FILE, read_frame


def forecasts_of(batch: ForecastBatch) -> pd.DataFrame:
    return read_frame(ArtifactStore(open_store(batch.snapshot.store)), batch.artifact, FORECAST_FILE)


def scored(report: Report) -> Scorecard:
    """The scorecard of a report that has one."""
    assert report.scorecard is not None
    return report.scorecard


def run_named(name: str) -> FlowRun:
    """The newest flow run of that name, whatever its outcome behind it, once all that this process did is stored."""
    (tag,) = TagsContext.get().current_tags  # the session's server put it there
    assert drain(Server(str(PREFECT_API_URL.value()), tag=tag), seconds=30)
    with get_client(sync_client=True) as client:
        # of all runs the server gives 200, and it has had more by the end of a session
        named, newest = FlowRunFilter(name=FlowRunFilterName(like_=name)), FlowRunSort.EXPECTED_START_TIME_DESC
        found = client.read_flow_runs(flow_run_filter=named, sort=newest)
        runs = [run for run in found if f"{run.name}: ".startswith(f"{name}: ")]
    return max(runs, key=lambda run: str(run.created))


def message_of(run: FlowRun) -> str:
    """Of a run that has completed."""
    assert run.state is not None
    assert (run.state.name, run.state.is_completed()) == ("Completed", True)
    return str(run.state.message)


def log_lines(run: FlowRun) -> list[str]:
    with get_client(sync_client=True) as client:
        mine = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
        return [log.message for log in client.read_logs(mine, limit=200)]


def artifacts_of(run: FlowRun, root: str) -> dict[str, Artifact]:
    """Name -> what the run published under it of the store at `root`; that of another store has its whole key."""
    start, end = artifact_key("|", open_store(root).url).split("|")
    with get_client(sync_client=True) as client:
        mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        found = {str(artifact.key): artifact for artifact in client.read_artifacts(artifact_filter=mine)}
    return {key.removeprefix(start).removesuffix(end): artifact for key, artifact in found.items()}


def task_run_names(run: FlowRun) -> list[str]:
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    assert all(task_run.state and task_run.state.is_completed() for task_run in runs)
    return sorted(task_run.name for task_run in runs)
