"""What tests share: one real Prefect server for each worker, the command line on it, a service, prices in a file."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from prefect.settings import PREFECT_API_URL
from programs import Volcast
from rows import yahoo_frame

from benchmarks.fake_s3 import access
from benchmarks.programs import CODE
from volcast.flows.prefect_processes import without_server
from volcast.flows.server import Server, prefect_server

if TYPE_CHECKING:
    from days import Served

SHARED = Path(__file__).parents[2] / "shared" / "data"

SLOW = ("service", "flow", "browser", "crash")  # the markers that plain `pytest` leaves out


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs whole flows, and put the files that take longest first: the workers end together."""
    weights: dict[Path, int] = {}
    for item in items:
        weight = 2 * any(item.get_closest_marker(name) for name in SLOW)
        for fixture, marker in (("prefect_api", "service"), ("no_server", "flow")):
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
                weight = max(weight, 1)
        weights[item.path] = max(weights.get(item.path, 0), weight)
    items.sort(key=lambda item: -weights[item.path])


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of our own, as `volcast run` starts it; flows and commands of this process use it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOLCAST_HOME", str(tmp_path_factory.mktemp("home")))
        assert not PREFECT_API_URL.value(), "unset PREFECT_API_URL: the tests start a server of their own"
        with prefect_server() as server:
            yield server


@pytest.fixture
def no_server() -> Iterator[None]:
    """Flows run in this process and ask no server, whether or not the session has one."""
    with without_server():
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that ask for it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data: {SHARED} is absent")
    return SHARED


@pytest.fixture(scope="session")
def served(prefect_api: Server, tmp_path_factory: pytest.TempPathFactory) -> "Served":
    """Some sessions of the service, for tests that only look at them or work on a copy."""
    from days import serve_days  # loads torch

    assert prefect_api.own
    return serve_days(tmp_path_factory.mktemp("served"))


@pytest.fixture
def volcast(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Volcast:
    """The command line in an empty folder, of this process and on the server that is configured."""
    monkeypatch.chdir(tmp_path)
    return Volcast(monkeypatch, capsys)


@pytest.fixture
def sbux_csv(tmp_path: Path) -> Path:
    """A CSV of 253 sessions of SBUX, as long as the article's."""
    path = tmp_path / "SBUX.csv"
    yahoo_frame().to_csv(path, index=False)
    return path


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Callable[[], str]]]:
    """Start an S3 server and point the environment at it; gives a function that lists the bucket, as XML."""
    servers: list[subprocess.Popen[str]] = []

    def start(behaviour: str) -> Callable[[], str]:
        command = [sys.executable, "-m", "benchmarks.fake_s3", behaviour]
        server = subprocess.Popen(command, cwd=CODE, stdout=subprocess.PIPE, text=True)
        servers.append(server)
        assert server.stdout is not None
        for name, value in access(int(server.stdout.readline())).items():
            monkeypatch.setenv(name, value)
        return lambda: urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/bucket?list-type=2").read().decode()

    yield start
    for server in servers:
        with server:
            server.kill()
