import socket
from pathlib import Path

import httpx
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.processes import own_process
from flows.server import Server, ServerError, announce, free_port, own_server, prefect_server, present_server


def test_a_taken_port_is_left_alone() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert free_port(taken.getsockname()[1]) != taken.getsockname()[1]


def test_a_free_port_that_is_preferred_is_taken() -> None:
    port = free_port()
    assert free_port(port) == port


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
    with prefect_server() as server:
        assert stored_states(server.api_url) == ["Completed"] * 12
        many_steps(20)


def stored_states(api_url: str) -> list[str]:
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        return [str(run.state_name) for run in client.read_task_runs() if run.name.startswith("step ")]


def test_a_server_of_our_own_has_stored_every_state_before_it_stops_and_keeps_them(
    prefect_api: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOLCAST_HOME", str(tmp_path))
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        with prefect_server() as server:
            assert server.own
            assert server.api_url != prefect_api.api_url
            many_steps(12)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.api_url}/health", trust_env=False)
        with pytest.raises(ArithmeticError, match="thirteen"):
            fail_on_a_server_of_our_own()
        with prefect_server() as third:
            states = stored_states(third.api_url)
    assert sorted(states) == ["Completed"] * (12 + 13) + ["Failed"]
