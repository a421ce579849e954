"""Flow runs that died without a word: Prefect would show them as running for ever, and keep their place taken.

A run ends as Crashed when it can be seen in /proc that its process is gone. Heartbeats are not believed: a busy machine
is late with them. Which process a run has is known of

1. a run of this user's worker on this machine: the process that was started with the run's id in its environment
2. a run of this user's command on this machine: the process whose id and start are in the run's tag
3. a run that another run called: that one's

and of no other run: what runs on other machines, or by other users, whose processes are hidden, is left alone.
"""

import os
import re
import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.states import Cancelled, Crashed

from flows.processes import FLOW_RUN, PROC, Process, environments, own_process

HERE = f"{socket.gethostname()}-{os.getuid()}"  # machine and user
WORKER = f"volcast-{HERE}"  # the worker's name, which Prefect puts among the labels of its runs
UNFINISHED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
SUBMISSION = timedelta(minutes=1)  # what a worker may take from a run's Pending to its process
ON_THEIR_WAY = timedelta(seconds=10)  # what the states of a run's tasks may take to be stored
WORDS = (
    "The run's process is gone, and nobody saw it end: killed (kill -9, out of memory), or the machine stopped. "
    "What it had committed is kept; run it again to go on."
)


def command_tag() -> str:
    """The tag of all runs of this command."""
    process = own_process()
    return f"command-{HERE}-{process.pid}-{process.start}-{uuid4().hex[:8]}"


def find_lost(client: SyncPrefectClient) -> list[FlowRun]:
    """The unfinished runs whose process is gone."""
    if not PROC.is_dir():
        return []
    states = FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED))
    unfinished = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=states))
    present = {env[FLOW_RUN] for _, env in environments() if FLOW_RUN in env}
    return [run for run in unfinished if _is_gone(client, run, present)]


def settle(client: SyncPrefectClient, runs: Iterable[FlowRun]) -> None:
    """Let runs end as Crashed, or as Cancelled where that was asked for; what has ended meanwhile stays as it is.

    With them the unfinished task runs of such crashed runs, or they would hold their tags' places for ever.
    """
    for run in runs:
        cancelling = run.state is not None and run.state.is_cancelling()
        client.set_flow_run_state(run.id, Cancelled(message=WORDS) if cancelling else Crashed(message=WORDS))
    for step in _left_steps(client):
        client.set_task_run_state(step.id, Crashed(message=WORDS), force=True)


def _left_steps(client: SyncPrefectClient) -> list[TaskRun]:
    ended = FlowRunFilterEndTime.model_validate({"before_": datetime.now(UTC) - ON_THEIR_WAY})
    crashed = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CRASHED]))
    unfinished = TaskRunFilterState(type=TaskRunFilterStateType(any_=UNFINISHED))
    steps = client.read_task_runs(
        flow_run_filter=FlowRunFilter(state=crashed, end_time=ended), task_run_filter=TaskRunFilter(state=unfinished)
    )
    return [step for step in steps if step.flow_run_id and _is_of_here(client, client.read_flow_run(step.flow_run_id))]


def _is_of_here(client: SyncPrefectClient, run: FlowRun) -> bool:
    if caller := _caller(client, run):
        return _is_of_here(client, caller)
    return run.labels.get("prefect.worker.name") == WORKER or bool(_commands(run))


def _is_gone(client: SyncPrefectClient, run: FlowRun, present: set[str]) -> bool:
    if run.state is None or run.state.is_final():
        return True
    if caller := _caller(client, run):
        return _is_gone(client, caller, present)
    if run.labels.get("prefect.worker.name") == WORKER:
        being_started = run.state.is_pending() and datetime.now(UTC) - run.state.timestamp < SUBMISSION
        return str(run.id) not in present and not being_started
    return any(not command.is_running for command in _commands(run))


def _caller(client: SyncPrefectClient, run: FlowRun) -> FlowRun | None:
    """The run that called it, in whose process it is."""
    if run.parent_task_run_id is None or run.deployment_id:
        return None
    caller = client.read_task_run(run.parent_task_run_id).flow_run_id
    return client.read_flow_run(caller) if caller else None


def _commands(run: FlowRun) -> list[Process]:
    """Processes of this user on this machine in its tags."""
    found = (re.fullmatch(rf"command-{re.escape(HERE)}-(\d+)-([\w.]*)-\w{{8}}", tag) for tag in run.tags)
    return [Process(int(each[1]), each[2]) for each in found if each]
