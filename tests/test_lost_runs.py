import os
import subprocess
from contextlib import ExitStack
from datetime import timedelta

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Pending, Running

from volcast.flows import prefect_processes
from volcast.flows.prefect_processes import (
    HERE,
    WORKER,
    Process,
    cancel,
    command_tag,
    end_all,
    find_cancelled,
    find_orphans,
    own_process,
    process_of,
    settle,
)

pytestmark = pytest.mark.usefixtures("prefect_api")


@flow
def some_flow() -> None:
    pass


@task
def some_task() -> None:
    pass


@pytest.fixture(scope="module")
def dead() -> str:
    """The tag of a command that is gone."""
    with subprocess.Popen(["true"]) as process:
        pass
    return f"command-{HERE}-{process.pid}-{own_process().start}-0123abcd"


def made(client: SyncPrefectClient, state: State, *, tag: str = "", worker: str = "") -> FlowRun:
    run = client.create_flow_run(some_flow, state=state, tags=[tag] if tag else None)
    if worker:
        client.update_flow_run_labels(run.id, {"prefect.worker.name": worker})
    return client.read_flow_run(run.id)


def test_only_a_run_of_this_machine_whose_process_is_gone_is_lost(dead: str) -> None:
    with get_client(sync_client=True) as client:
        lost = [
            made(client, Running(), tag=dead),
            made(client, Running(), worker=WORKER),
            made(client, Cancelling(), worker=WORKER),
        ]
        left = [
            made(client, Running(), tag=command_tag()),
            made(client, Running(), tag=dead.replace(HERE, "elsewhere-0")),
            made(client, Running(), worker="volcast-elsewhere"),
            made(client, Running(), tag="nightly"),
            made(client, Pending(), worker=WORKER),  # its worker may just be starting it
            made(client, Completed(), tag=dead),
        ]
        found = find_orphans(client)
        assert {run.id for run in found} >= {run.id for run in lost}
        assert not {run.id for run in found} & {run.id for run in left}

        settle(client, lost)
        states = [client.read_flow_run(run.id).state_name for run in lost]
        assert states == ["Crashed", "Crashed", "Cancelled"]
        assert not {run.id for run in find_orphans(client)} & {run.id for run in lost}


def test_a_run_is_lost_when_another_process_has_got_the_id_of_its_own() -> None:
    own = own_process()
    earlier = Process(own.pid, own.start + "0")
    with get_client(sync_client=True) as client:
        runs = [made(client, Running(), tag=f"command-{HERE}-{it.pid}-{it.start}-0123abcd") for it in (own, earlier)]
        assert {run.id for run in find_orphans(client)} & {run.id for run in runs} == {runs[1].id}


def test_the_runs_of_another_user_of_the_machine_are_left_alone(dead: str) -> None:
    theirs = HERE.replace(f"-{os.getuid()}", f"-{os.getuid() + 1}")
    with get_client(sync_client=True) as client:
        runs = [
            made(client, Running(), worker=WORKER.replace(HERE, theirs)),
            made(client, Running(), tag=dead.replace(HERE, theirs)),
        ]
        assert not {run.id for run in find_orphans(client)} & {run.id for run in runs}


def test_a_process_that_has_the_id_of_an_ended_one_is_not_ended_for_it() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        now = process_of(process.pid)
        assert now is not None
        end_all([Process(now.pid, now.start + "0")])
        assert now.is_running
        end_all([now])
        assert not now.is_running


def test_a_run_whose_process_is_there_is_not_lost() -> None:
    with get_client(sync_client=True) as client:
        run = made(client, Running(), worker=WORKER)
        with subprocess.Popen(["sleep", "60"], env=os.environ | {"PREFECT__FLOW_RUN_ID": str(run.id)}) as process:
            assert run.id not in {each.id for each in find_orphans(client)}
            process.kill()
        assert run.id in {each.id for each in find_orphans(client)}


def test_a_cancelled_run_ends_with_its_processes_whoever_started_it() -> None:
    def sleep(**variables: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "600"], env=os.environ | variables)

    with get_client(sync_client=True) as client, sleep() as command, ExitStack() as started:
        own = process_of(command.pid)
        assert own is not None
        of_worker, timed_out, going_on = (made(client, Running(), worker=WORKER) for _ in range(3))
        of_command = made(client, Running(), tag=f"command-{HERE}-{own.pid}-{own.start}-0123abcd")
        step = client.create_task_run(some_task, of_command.id, dynamic_key="0", state=Running())
        called = client.create_flow_run(some_flow, state=Running(), parent_task_run_id=step.id)
        ids = [of_worker.id, of_worker.id, timed_out.id, going_on.id]  # a process of the first has started another one
        processes = [started.enter_context(sleep(PREFECT__FLOW_RUN_ID=str(run))) for run in ids]
        for run in (of_worker, called):
            client.set_flow_run_state(run.id, Cancelling())
        client.set_flow_run_state(timed_out.id, Cancelled(), force=True)  # as the server does after five minutes

        found = find_cancelled(client)
        assert {run: len(each) for run, each in found.items()} == {of_worker.id: 2, timed_out.id: 1, of_command.id: 1}
        cancel(client, found)
        assert [process.poll() is None for process in [*processes, command]] == [False, False, False, True, False]
        for run in (of_worker, timed_out, of_command):
            assert client.read_flow_run(run.id).state_name == "Cancelled"
            client.set_flow_run_state(run.id, Crashed())  # as the worker would say of a process that it sees end so
            assert client.read_flow_run(run.id).state_name == "Cancelled"
        assert find_cancelled(client) == {}
        assert client.read_flow_run(going_on.id).state_name == "Running"
        processes[3].kill()


def test_the_tasks_of_crashed_runs_of_this_machine_end_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_processes, "ON_THEIR_WAY", timedelta())
    with get_client(sync_client=True) as client:
        runs = [
            made(client, Running(), worker=WORKER),
            made(client, Running(), tag=command_tag()),
            made(client, Running(), worker="volcast-elsewhere"),
        ]
        steps = [client.create_task_run(some_task, run.id, dynamic_key="0", state=Running()) for run in runs]
        for run in runs:
            client.set_flow_run_state(run.id, Crashed())
        settle(client, [])
        assert [client.read_task_run(step.id).state_name for step in steps] == ["Crashed", "Crashed", "Running"]


def test_a_run_that_has_ended_meanwhile_keeps_its_state(dead: str) -> None:
    with get_client(sync_client=True) as client:
        run = made(client, Running(), tag=dead)
        client.set_flow_run_state(run.id, Completed())
        settle(client, [run])
        assert client.read_flow_run(run.id).state_name == "Completed"
