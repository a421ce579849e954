import os
import subprocess
from datetime import timedelta

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelling, Completed, Crashed, Pending, Running

from flows import lost_runs
from flows.lost_runs import HOST, WORKER, command_tag, find_lost, settle

pytestmark = pytest.mark.usefixtures("prefect_api")


@flow
def some_flow() -> None:
    pass


@task
def some_task() -> None:
    pass


@pytest.fixture(scope="module")
def dead() -> int:
    """The id of a process that is gone."""
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def made(client: SyncPrefectClient, state: State, *, tag: str = "", worker: str = "") -> FlowRun:
    run = client.create_flow_run(some_flow, state=state, tags=[tag] if tag else None)
    if worker:
        client.update_flow_run_labels(run.id, {"prefect.worker.name": worker})
    return client.read_flow_run(run.id)


def test_only_a_run_of_this_machine_whose_process_is_gone_is_lost(dead: int) -> None:
    with get_client(sync_client=True) as client:
        lost = [
            made(client, Running(), tag=f"command-{HOST}-{dead}-0123abcd"),
            made(client, Running(), worker=WORKER),
            made(client, Cancelling(), worker=WORKER),
        ]
        left = [
            made(client, Running(), tag=command_tag()),
            made(client, Running(), tag=f"command-elsewhere-{dead}-0123abcd"),
            made(client, Running(), worker="volcast-elsewhere"),
            made(client, Running(), tag="nightly"),
            made(client, Pending(), worker=WORKER),  # its worker may just be starting it
            made(client, Completed(), tag=f"command-{HOST}-{dead}-0123abcd"),
        ]
        found = find_lost(client)
        assert {run.id for run in found} >= {run.id for run in lost}
        assert not {run.id for run in found} & {run.id for run in left}

        settle(client, lost)
        states = [client.read_flow_run(run.id).state_name for run in lost]
        assert states == ["Crashed", "Crashed", "Cancelled"]
        assert not {run.id for run in find_lost(client)} & {run.id for run in lost}


def test_a_run_whose_process_is_there_is_not_lost() -> None:
    with get_client(sync_client=True) as client:
        run = made(client, Running(), worker=WORKER)
        with subprocess.Popen(["sleep", "60"], env=os.environ | {"PREFECT__FLOW_RUN_ID": str(run.id)}) as process:
            assert run.id not in {each.id for each in find_lost(client)}
            process.kill()
        assert run.id in {each.id for each in find_lost(client)}


def test_the_tasks_of_crashed_runs_of_this_machine_end_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_runs, "ON_THEIR_WAY", timedelta())
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


def test_a_run_that_has_ended_meanwhile_keeps_its_state(dead: int) -> None:
    with get_client(sync_client=True) as client:
        run = made(client, Running(), tag=f"command-{HOST}-{dead}-0123abcd")
        client.set_flow_run_state(run.id, Completed())
        settle(client, [run])
        assert client.read_flow_run(run.id).state_name == "Completed"
