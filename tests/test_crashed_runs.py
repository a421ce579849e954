"""kill -9 of a flow run, of its worker, of `volcast up`, of the server: one start for all tests, in their order."""

import os
import signal
from collections.abc import Iterator

import pytest

from benchmarks.programs import ENDLESS, QUICK, Up, processes_of, run_volcast, wait_for_exit, wait_until
from benchmarks.webhooks import Webhook
from volcast.flows.prefect_processes import CANCELLED

pytestmark = pytest.mark.crash

GONE = "The run's process is gone, and nobody saw it end"


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with Webhook() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def up(webhook: Webhook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(tmp_path_factory.mktemp("up"), VOLCAST_ALERT_WEBHOOK=webhook.url) as started:
        yield started


def called_by(up: Up, run: str) -> dict[str, str]:
    called = {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}}
    found = up.api.post("/flow_runs/filter", json=called).json()
    return {each["name"].split()[0]: each["state"]["name"] for each in found}


def steps_in(up: Up, state: str) -> list[str]:
    """The names of all task runs in the state."""
    found = up.api.post("/task_runs/filter", json={"task_runs": {"state": {"type": {"any_": [state]}}}}).json()
    return [each["name"] for each in found]


def test_a_run_whose_process_is_killed_ends_as_crashed_with_what_it_called(up: Up) -> None:
    run = up.train(ENDLESS)
    os.kill(up.wait_for_training(run), signal.SIGKILL)
    assert "status code: -9" in up.ended(run)["message"]
    up.wait(lambda: called_by(up, run)["retrain"] == "Crashed", "the subflow ends, too")
    assert called_by(up, run) == {"ingest": "Completed", "retrain": "Crashed"}
    up.wait(lambda: not steps_in(up, "RUNNING"), "their tasks end")
    assert "train volume" in " ".join(steps_in(up, "CRASHED"))


def test_the_next_run_heals_and_a_worker_that_is_killed_comes_back_while_it_goes_on(up: Up) -> None:
    run = up.train(QUICK)
    assert up.wait_for_start(run) == "Running"
    os.kill(up.part("worker"), signal.SIGKILL)
    ended = up.ended(run)
    assert ended["type"] == "COMPLETED", ended
    up.wait(lambda: "The worker is started again" in up.said, "the worker comes back")
    assert "The worker ended with -9" in up.said
    verified = run_volcast(up.folder, "verify")
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout == "Everything that is stored is as it was written.\n"


def test_a_run_of_a_worker_that_was_killed_is_cancelled_and_its_process_ends(up: Up) -> None:
    run = up.train(ENDLESS)
    pid, killed = up.wait_for_training(run), up.part("worker")
    os.kill(killed, signal.SIGKILL)
    up.wait(lambda: processes_of(up.folder, "worker start").keys() - {killed}, "another worker is there")
    up.api.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}})  # as the UI's Cancel does
    ended = up.ended(run)
    assert (ended["type"], ended["message"]) == ("CANCELLED", CANCELLED)
    up.wait(lambda: pid not in processes_of(up.folder), "its process ends")
    up.wait(lambda: called_by(up, run)["retrain"] == "Cancelled", "the subflow ends, too")
    assert up.state(run) == "Cancelled"
    assert "Cancelled: pipeline volume" in up.said


def test_a_run_that_is_killed_with_its_worker_ends_as_crashed_and_frees_its_place(up: Up) -> None:
    run = up.train(ENDLESS)
    pid = up.wait_for_training(run)
    os.kill(up.part("worker"), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    assert GONE in up.ended(run)["message"]
    up.wait(lambda: "Crashed: pipeline volume" in up.said, "it is said")
    assert up.wait_for_start(up.train(ENDLESS)) == "Running"
    assert up.state(run) == "Crashed"


def test_after_up_is_killed_nothing_is_left_and_the_next_up_settles_its_runs_and_tells_of_it(
    up: Up, webhook: Webhook
) -> None:
    running = {"state": {"name": {"any_": ["Running"]}}, "parent_task_run_id": {"is_null_": True}}
    (run,) = up.api.post("/flow_runs/filter", json={"flow_runs": running}).json()
    up.process.kill()
    up.process.wait()
    wait_until(lambda: not processes_of(up.folder), what="server, worker and run have ended")
    status = run_volcast(up.folder, "status")
    assert (status.returncode, "SERVER_DOWN" in status.stdout) == (1, True), status.stdout
    up.start()
    assert up.state(run["id"]) == "Crashed"
    up.wait(lambda: "up-again" in webhook.codes(), "it is told")
    (text,) = (text for text in webhook.texts if "volcast alert up-again: " in text)
    assert run["name"] in text.partition("are Crashed: ")[2]


def test_when_the_server_dies_up_ends_everything_and_says_so_and_the_webhook_is_told(up: Up, webhook: Webhook) -> None:
    assert up.wait_for_start(up.train(ENDLESS)) == "Running"
    (server,) = processes_of(up.folder, "server start")
    os.kill(server, signal.SIGKILL)
    assert wait_for_exit(up.process, up.folder) == 1
    assert "Prefect's server ended with -9, and everything else is ended with it." in up.said
    assert processes_of(up.folder) == {}
    assert webhook.codes()[-1] == "up-died"
    assert "Prefect's server ended with -9" in webhook.texts[-1]
