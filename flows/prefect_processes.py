"""Prefect's processes: how they are started, found and ended, and what Prefect does not do by itself.

A command starts a server and a worker by this module, and the worker starts the flow runs. What a command starts ends
with it, however that ended. Each part below says what it works around, and when it is to be dropped.
"""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import prefect
from opentelemetry.trace import get_tracer
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.context import TaskRunContext
from prefect.flows import Flow
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_LOGGING_TO_API_ENABLED,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    temporary_settings,
)
from prefect.states import Cancelled, Crashed, Failed
from prefect.tasks import Task
from prefect.utilities.callables import expand_mapping_parameters, get_call_parameters
from rich.console import Console

STOP_SECONDS = 20

# Works around a server and a worker that outlive a command which is killed: their standard input is a pipe that only
# the command holds open, and that closes even after kill -9. The process is then interrupted as by Ctrl-C, and killed
# if that does not help. Drop when Prefect's processes can be told to end with their parent.


def main() -> None:
    """Run volcast's server, or Prefect's command of the arguments."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    if sys.argv[1] == "server":
        from volcast.flows.server_access import serve  # takes a second, in which the parent may go, too

        write_from_the_beginning()
        serve()
    else:
        from prefect.cli import app

        app()


def _end_with_the_parent() -> None:
    os.read(0, 1)  # nothing is ever written: it returns when the pipe closes
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(STOP_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


# Works around flow runs that outlive a worker which is killed: whoever ends everything looks for them in /proc. The
# system gives the id of a process that has ended to another one, so that a process is known by its id and its start.
# Drop when Prefect ends the flow runs of a worker itself.

PROC = Path("/proc")  # Linux has it; elsewhere nothing is found
BOOT_ID = PROC / "sys/kernel/random/boot_id"
STATE, START_TIME = 0, 19  # places in /proc/<id>/stat after the command's name (proc(5): fields 3 and 22)
SAY_SECONDS = 15  # of waiting before it is said, and again; a server takes so long on two idle cores
FOLDER = "VOLCAST_KEPT_IN"  # names the folder in the environment of server, worker and flow runs
FLOW_RUN = "PREFECT__FLOW_RUN_ID"  # names the run in the environment of a flow run's process


def start(
    arguments: list[str], environment: Mapping[str, str], log: Path, *descriptors: int
) -> subprocess.Popen[bytes]:
    """Start the server, or a command of Prefect's, in its log's folder, with these open files.

    It ends when this process does.
    """
    command = [sys.executable, "-P", "-m", "volcast.flows.prefect_processes", *arguments]
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=log.parent,  # not the user's folder: Prefect follows an .env, a prefect.toml, a pyproject.toml there
            env=dict(environment) | {FOLDER: str(log.parent)},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=descriptors,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process, wait, and kill it only if it does not go."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()


@dataclass(frozen=True)
class Process:
    """A process, which is not taken for a later one of its id."""

    pid: int
    start: str  # the machine's boot and the clock ticks since then; empty where there is no /proc

    @property
    def is_running(self) -> bool:
        """Whether it is there, and not only as a zombie."""
        return process_of(self.pid) == self


def process_of(pid: int) -> Process | None:
    """The process that has the id now; None where there is none, or only a zombie."""
    try:
        os.kill(pid, 0)
        if not PROC.is_dir():
            return Process(pid, "")
        fields = (PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
    except (ProcessLookupError, FileNotFoundError, PermissionError):  # the last for one of another user
        return None
    boot = BOOT_ID.read_text()[:8] if BOOT_ID.is_file() else ""
    return None if fields[STATE] == "Z" else Process(pid, f"{boot}.{fields[START_TIME]}")


def own_process() -> Process:
    """The process that asks."""
    process = process_of(os.getpid())
    assert process is not None
    return process


def end_all(processes: Iterable[Process]) -> None:
    """Terminate processes that are no children of this one, and kill those that do not go."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with suppress(ProcessLookupError):
                if process.is_running:
                    os.kill(process.pid, ending)
        processes = wait_for_end(processes)


def wait_for_end(processes: Iterable[Process], *, seconds: float = STOP_SECONDS) -> list[Process]:
    """Wait until the processes are gone; gives those that are still there after so many seconds."""
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if process.is_running]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return left


def wait_while_alive(is_alive: Callable[[], bool], is_ready: Callable[[], bool], *, what: str) -> bool:
    """Wait, as long as it is alive, until it is ready, and say that one waits; gives whether it became ready."""
    began = said = time.monotonic()
    while not is_ready():
        if not is_alive():
            return False
        if (now := time.monotonic()) - said >= SAY_SECONDS:
            said = now
            Console(stderr=True, highlight=False, soft_wrap=True).print(
                f"Waiting for {what} since {now - began:.0f} s …"
            )
        time.sleep(0.1)
    return True


def environments() -> Iterator[tuple[Process, dict[str, str]]]:
    """Every process that this user may look into, and the environment that it was started with."""
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked, or is another user's
            process = process_of(int(folder.name))
            pairs = (folder / "environ").read_text(errors="replace").split("\0")
            if process:
                yield process, {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def processes_in(folder: Path) -> dict[Process, str | None]:
    """The processes that a volcast command keeps in a folder, and which flow run each of them is, if one."""
    return {process: env.get(FLOW_RUN) for process, env in environments() if env.get(FOLDER) == str(folder)}


# Works around runs that Prefect shows as running for ever, with their places taken, when nobody saw their process die.
# A run ends as Crashed when it can be seen in /proc that its process is gone. Heartbeats are not believed: a busy
# machine is late with them. Drop when Prefect's server does it without heartbeats. Which process a run has is known of
#
# 1. a run of this user's worker on this machine: the process that was started with the run's id in its environment
# 2. a run of this user's command on this machine: the process whose id and start are in the run's tag
# 3. a run that another run called: that one's
#
# and of no other run: what runs on other machines, or by other users, whose processes are hidden, is left alone.
#
# Likewise works around a Cancel that nobody follows: a worker ends the processes that it has started itself, and none
# of the worker before it, of a command, or of a run that another run called. Drop with the above.

HERE = f"{socket.gethostname()}-{os.getuid()}"  # machine and user
WORKER = f"volcast-{HERE}"  # the worker's name, which Prefect puts among the labels of its runs
UNFINISHED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
SUBMISSION = timedelta(minutes=1)  # what a worker may take from a run's Pending to its process
ON_THEIR_WAY = timedelta(seconds=10)  # what the states of a run's tasks may take to be stored
KEPT = "What it had committed is kept; run it again to go on."
LOST = (
    f"The run's process is gone, and nobody saw it end: killed (kill -9, out of memory), or the machine stopped. {KEPT}"
)
CANCELLED = f"The run was cancelled, and volcast up saw to it that its process ended. {KEPT}"


def command_tag() -> str:
    """The tag of all runs of this command."""
    process = own_process()
    return f"command-{HERE}-{process.pid}-{process.start}-{uuid4().hex[:8]}"


def find_orphans(client: SyncPrefectClient) -> list[FlowRun]:
    """The unfinished runs whose process is gone."""
    if not PROC.is_dir():
        return []
    present = _present()
    return [run for run in _runs_in(client, UNFINISHED) if _is_gone(client, run, present)]


def find_cancelled(client: SyncPrefectClient) -> dict[UUID, list[Process]]:
    """The runs that are to end, or have ended, as Cancelled, with those of their processes that are there all the same.

    Of a run that another one called it is that one's.
    """
    present, found = _present(), dict[UUID, list[Process]]()
    ended = _runs_in(client, [StateType.CANCELLED], ids=[UUID(each) for each in present]) if present else []
    for run in [*_runs_in(client, [StateType.CANCELLING]), *ended]:
        while caller := _caller(client, run):
            run = caller
        if processes := present.get(str(run.id)) or [each for each in _commands(run) if each.is_running]:
            found[run.id] = processes
    return found


def cancel(client: SyncPrefectClient, found: Mapping[UUID, Sequence[Process]]) -> None:
    """End the processes of cancelled runs, which are Cancelled before: later, their worker would call them crashed."""
    for run, processes in found.items():
        client.set_flow_run_state(run, Cancelled(message=CANCELLED))
        end_all(processes)


def settle(client: SyncPrefectClient, runs: Iterable[FlowRun]) -> None:
    """Let runs end as Crashed, or as Cancelled where that was asked for; what has ended meanwhile stays as it is.

    With them the unfinished task runs of such crashed runs, or they would hold their tags' places for ever.
    """
    for run in runs:
        cancelling = run.state is not None and run.state.is_cancelling()
        client.set_flow_run_state(run.id, Cancelled(message=CANCELLED) if cancelling else Crashed(message=LOST))
    for step in _left_steps(client):
        client.set_task_run_state(step.id, Crashed(message=LOST), force=True)


def _present() -> dict[str, list[Process]]:
    """The processes of workers' flow runs and those that these have started, by the runs' ids."""
    found = dict[str, list[Process]]()
    for process, env in environments():
        if FLOW_RUN in env:
            found.setdefault(env[FLOW_RUN], []).append(process)
    return found


def _runs_in(
    client: SyncPrefectClient, states: Sequence[StateType], *, ids: Sequence[UUID] | None = None
) -> list[FlowRun]:
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states)))
    chosen = FlowRunFilterId(any_=list(ids)) if ids else None
    return client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state, id=chosen))


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


def _is_gone(client: SyncPrefectClient, run: FlowRun, present: Container[str]) -> bool:
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


# Works around transactions of Prefect's server that ask for SQLite's one place for a writer in their middle: one that
# has read fails at once, whatever its time-out, when it wants to write and another one has written meanwhile. A busy
# server then loses events, and with them alerts and the runs that events start. Drop when tests/test_sqlite_writes.py
# says that Prefect asks when a transaction begins; tests/test_workarounds.py says when what is replaced has changed.


def write_from_the_beginning() -> None:
    """For every transaction on SQLite that this process begins from now on."""
    from prefect.server.database.configurations import AioSqliteConfiguration  # half a second, for a server alone

    patched: Any = AioSqliteConfiguration
    begin = patched.begin_transaction
    patched.begin_transaction = lambda self, session, **_: begin(self, session, with_for_update=True)


# Works around flows and tasks that Prefect runs only where a server keeps their states, so that a command would start
# one which nobody looks at. Here their functions are called in this process: they log under the names of their runs,
# and are tried again as their tasks say, but mapped ones take turns, and no tag limits them. Drop when Prefect runs a
# flow without an API; tests/test_workarounds.py says when what is replaced has changed.


@contextmanager
def without_server() -> Iterator[None]:
    """Flows and tasks of this process ask no API; whatever asks for one all the same fails, and starts none."""
    silent: dict[Any, Any] = {PREFECT_SERVER_EPHEMERAL_ENABLED: False, PREFECT_LOGGING_TO_API_ENABLED: False}
    flows, tasks = cast(Any, Flow), cast(Any, Task)
    replaced = flows.__call__, tasks.__call__, tasks.map
    flows.__call__, tasks.__call__, tasks.map = _call_flow, _call_task, _call_each
    try:
        with temporary_settings(silent, restore_defaults={PREFECT_API_URL}):
            yield
    finally:
        flows.__call__, tasks.__call__, tasks.map = replaced


def _call_flow(flow: Flow[..., Any], *given: Any, **more: Any) -> Any:
    return _call_task(Task(flow.fn, name=flow.name, task_run_name=flow.flow_run_name), *given, **more)


def _call_task(task: Task[..., Any], *given: Any, **more: Any) -> Any:
    return _run(task, get_call_parameters(task.fn, given, more))


def _call_each(task: Task[..., Any], *given: Any, **more: Any) -> SimpleNamespace:
    parameters = get_call_parameters(task.fn, given, more, apply_defaults=False)
    results = [_run(task, each) for each in expand_mapping_parameters(task.fn, parameters)]
    return SimpleNamespace(result=lambda: results)


def _run(task: Task[..., Any], parameters: dict[str, Any]) -> Any:
    name = str(task.task_run_name).format(**parameters)
    run, delays = TaskRun(name=name, task_key=task.task_key, dynamic_key=""), cast(Any, task.retry_delay_seconds)
    span = get_tracer("volcast").start_as_current_span(name)  # as Prefect's engine opens one, for OpenTelemetry
    with span, TaskRunContext.model_construct(task=task, task_run=run, parameters=parameters):
        while True:
            run.run_count += 1
            try:
                return task.fn(**parameters)
            except Exception as error:
                may_pass = cast(Any, task.retry_condition_fn)
                if run.run_count > task.retries or not may_pass(task, run, Failed(data=error)):
                    raise
                time.sleep(delays[run.run_count - 1])


# Works around the engine's lines in Prefect's log of a command, among which a person misses the steps' own. Drop when
# Prefect can print these alone.

ENGINE = Path(prefect.__file__).parent


class OwnLinesOnly(logging.Filter):
    """Lets lines through that volcast's code logged, and errors of Prefect that are no run's traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        from_engine = Path(record.pathname).is_relative_to(ENGINE)
        return not from_engine or (
            record.levelno >= logging.ERROR and not record.name.startswith(("prefect.flow_runs", "prefect.task_runs"))
        )


def filter_console() -> None:
    """Put the filter on every console handler of this process; Prefect's API still gets every line."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in logging.root.manager.loggerDict)]
    for handler in {
        handler for logger in loggers for handler in logger.handlers if isinstance(handler, PrefectConsoleHandler)
    }:
        handler.addFilter(OwnLinesOnly())


if __name__ == "__main__":
    main()
