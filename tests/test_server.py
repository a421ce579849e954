import json
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from benchmarks.programs import CODE, free_port
from volcast.flows import prefect_processes
from volcast.flows.prefect_processes import own_process, processes_in
from volcast.flows.server import Server, _wait_until_ready, announce, own_server, prefect_server, present_server
from volcast.flows.server_access import Access
from volcast.flows.server_options import ServerError

pytestmark = pytest.mark.service


def test_a_configured_server_is_used_and_no_other_started(
    prefect_api: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOLCAST_HOME", str(tmp_path))
    with prefect_server() as server:
        assert (server.api_url, server.own) == (prefect_api.api_url, False)
    assert not list(tmp_path.iterdir())


def test_a_configured_server_that_does_not_answer_is_named_with_what_to_do() -> None:
    nobody = f"http://127.0.0.1:{free_port()}/api"
    with (
        temporary_settings({PREFECT_API_URL: nobody}),
        pytest.raises(ServerError, match=rf"{nobody} does not answer .* unset PREFECT_API_URL"),
        prefect_server(),
    ):
        pass


@pytest.mark.parametrize(
    "answer", [None, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 404 No\r\n\r\n", "?"]
)
def test_a_configured_address_that_is_silent_or_not_prefects_is_named_within_15_seconds(answer: str | None) -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        answering = threading.Thread(target=answer_once, args=(listener, answer), daemon=True)
        answering.start()
        with (
            temporary_settings({PREFECT_API_URL: silent}),
            pytest.raises(ServerError, match=rf"{silent} does not answer \(.+\)\. .* unset PREFECT_API_URL"),
            prefect_server(),
        ):
            pass
    assert time.monotonic() - began < 15
    answering.join()


def answer_once(listener: socket.socket, answer: str | None) -> None:
    """Accept a connection; say nothing, or the answer."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(1000)
        if answer:
            connection.sendall(answer.encode())
        connection.recv(1000)  # until the other side hangs up


def test_a_server_that_fails_in_the_middle_of_the_work_is_named(prefect_api: Server) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ServerError, match=rf"{prefect_api.api_url} failed \(ReadTimeout"),
        prefect_server(),
    ):
        httpx.get(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.5, trust_env=False)


SLOW_SERVER = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from volcast.flows.server_access import Access

began, access = time.monotonic(), Access(**json.loads(sys.argv[1]))

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if time.monotonic() - began < 8:
            time.sleep(8)  # longer than one look waits
        self.send_response(200)
        self.end_headers()
        self.wfile.write(access.proof(self.path.partition("nonce=")[2]).encode())

    def log_message(self, *_):
        pass

time.sleep(3)
ThreadingHTTPServer(("127.0.0.1", int(access.url.rpartition(":")[2])), Handler).serve_forever()
"""


def test_a_server_of_ones_own_is_waited_for_as_long_as_its_process_lives_and_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prefect_processes, "SAY_SECONDS", 1)
    access = Access(f"http://127.0.0.1:{free_port()}")
    server = Server(f"{access.url}/api", access=access)
    with subprocess.Popen([sys.executable, "-c", SLOW_SERVER, json.dumps(asdict(access))], cwd=CODE) as process:
        _wait_until_ready(process, server, tmp_path / "server.log")
        process.kill()
    told = capsys.readouterr().err
    assert re.search(rf"Waiting for Prefect's server to answer; its log: {tmp_path}/server.log since 1 s …", told)
    with subprocess.Popen(["false"]) as ended, pytest.raises(ServerError, match="ended with 1"):
        _wait_until_ready(ended, server, tmp_path / "server.log")


def test_an_address_left_by_a_killed_command_is_not_used_when_its_process_id_is_taken_again(
    prefect_api: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOLCAST_HOME", str(tmp_path))
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        announce(prefect_api)
        with present_server() as server:
            assert server is not None
        left = tmp_path / "server.json"
        left.write_text(left.read_text().replace(own_process().start, "another"))
        with present_server() as server:
            assert server is None


def test_a_second_server_of_one_folder_is_refused_with_what_to_do(prefect_api: Server) -> None:
    assert prefect_api.own
    with pytest.raises(ServerError, match=r"Another volcast command .* VOLCAST_HOME="), own_server():
        pass


@task(task_run_name="step {number}")
def step(number: int) -> int:
    if number == 13:
        raise ArithmeticError("thirteen")
    return number


@flow
def many_steps(count: int) -> list[int]:
    return [step(number) for number in range(count)]


def fail_on_a_server_of_our_own() -> None:
    with prefect_server():
        assert stored_states() == ["Completed"] * 12
        many_steps(20)


def stored_states() -> list[str]:
    with get_client(sync_client=True) as client:
        return [str(run.state_name) for run in client.read_task_runs() if run.name.startswith("step ")]


def test_a_server_of_our_own_has_stored_every_state_before_it_stops_and_keeps_them(
    prefect_api: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOLCAST_HOME", str(tmp_path))
    starting = []
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        with prefect_server(meanwhile=lambda: starting.extend(processes_in(tmp_path))) as server:
            assert server.own
            assert server.process
            assert [process.pid for process in starting] == [server.process.pid]
            assert server.api_url != prefect_api.api_url
            many_steps(12)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.api_url}/health", trust_env=False)
        with pytest.raises(ArithmeticError, match="thirteen"):
            fail_on_a_server_of_our_own()
        with prefect_server():
            states = stored_states()
    assert sorted(states) == ["Completed"] * (12 + 13) + ["Failed"]
