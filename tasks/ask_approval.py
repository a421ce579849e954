"""Ask a person whether a version that passed the gate may forecast.

A run of a deployment is suspended: its process ends, the UI shows the scorecard and a form, and the answer starts the
run again, which then finds the version that it held (tasks/find_trained.py). A run without a deployment cannot be
started again; the version is held, and `volcast models promote` is the answer.
"""

from typing import Literal

from prefect import get_run_logger
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from pydantic import Field

from storage.artifacts import ArtifactStore
from storage.records import Answer, Scorecard
from storage.store import open_store
from tasks.report import markdown
from tasks.settings import RetrainSettings
from tasks.stored import HELD, champion_version

DAYS = 7  # that an answer is waited for; then the run fails, and the version stays as it was kept


class Approval(RunInput):
    """The form."""

    answer: Literal["yes", "no"] = Field(description="Whether the version may forecast from now on")
    reason: str = Field(pattern=r"\S", max_length=500, description="Why; it stays on record beside the decision")


def ask_approval(scorecard: Scorecard, why: RetrainSettings) -> Answer:
    """The answer; at once where none is needed. Suspends the flow run until there is one."""
    model = scorecard.model.artifact
    artifacts = ArtifactStore(open_store(scorecard.model.scaler.features.snapshot.store, writable=True))
    if (
        not (why.require_approval and why.promote and scorecard.promote)
        or champion_version(artifacts, model.name) == model.version
    ):
        return Answer()
    _hold(artifacts, scorecard)
    if deployment.id is None:
        return Answer(waits=f"{model} waits: volcast models promote {model.name} --version {model.version} --reason …")
    where = "in the UI: this run's menu (⋮), Resume"
    get_run_logger().info("%s passed the gate and waits for a person's answer, %s; %d days at most", model, where, DAYS)
    form = Approval.with_initial_data(description=markdown(scorecard))
    given = suspend_flow_run(wait_for_input=form, timeout=DAYS * 86_400, key=f"approve-{model.version}")
    return Answer(approved=given.answer == "yes", reason=given.reason)


def _hold(artifacts: ArtifactStore, scorecard: Scorecard) -> None:
    """Record, once, which version the run waits for."""
    model, run = scorecard.model.artifact, str(flow_run.id)
    known = artifacts.alias("model", model.name, HELD)
    if known is None or known.version != model.version or run not in known.reason:
        artifacts.set_alias("model", model.name, HELD, model.version, f"Held for approval by flow run {run}.")
