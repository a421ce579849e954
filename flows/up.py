"""Keep a server, a worker and the deployments of prefect.yaml up.

1. a server: the configured one, or volcast's own
2. the work pool, and the deployments on it
3. a worker, which runs what is scheduled or started by hand
4. until Ctrl-C; then worker and server are ended, in that order
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from flows.deploy import PROJECT_FILE, deploy
from flows.server import Server, ServerError, announce, end, home, own_server, prefect_server, withdraw
from tasks.settings import DataSettings

POOL = "volcast"


def stay_up(console: Console, data: DataSettings, *, port: int) -> None:
    """Everything up until the process is interrupted. Raises ServerError."""
    with _server(port) as server, temporary_settings({PREFECT_API_URL: server.api_url}):
        environment = _environment(server, data)
        _make_pool()
        console.print(f"Deployments: {deploy(environment).words}", markup=False)
        worker = _start_worker(environment)
        try:
            console.print(f"Prefect's UI: {server.ui_url}   (deployments: {server.ui_url}/deployments)")
            console.print(f"Prices of {data.source}, kept in {data.store}; logs in {home()}. Ctrl-C ends it all.")
            _watch(worker)
        except KeyboardInterrupt:
            console.print("Ending worker and server …")
        finally:
            end(worker)


@contextmanager
def _server(port: int) -> Iterator[Server]:
    configured = PREFECT_API_URL.value()
    if configured:
        yield Server(configured, own=False)
        return
    with own_server(port=port) as server:
        announce(server)
        try:
            yield server
        finally:
            withdraw()


def _environment(server: Server, data: DataSettings) -> dict[str, str]:
    """What deployments and flow runs need to know."""
    settings = {
        "PREFECT_API_URL": server.api_url,
        "PREFECT_HOME": str(home()),
        "DO_NOT_TRACK": "1",
        "VOLCAST_POOL": POOL,
        "VOLCAST_STORE": _from_anywhere(data.store),
        "VOLCAST_SOURCE": re.sub("^files:(.*)$", lambda found: f"files:{_from_anywhere(found[1])}", data.source),
    }
    return dict(os.environ) | settings


def _from_anywhere(path_or_url: str) -> str:
    """A path that means the same in whatever folder a worker runs."""
    return path_or_url if "://" in path_or_url else str(Path(path_or_url).expanduser().resolve())


def _make_pool() -> None:
    """The process pool, if it is not there; one that was changed by hand is left."""
    with suppress(ObjectAlreadyExists), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))


def deploy_to(console: Console, data: DataSettings, *, pool: str, image: str | None) -> None:
    """Apply prefect.yaml to the configured server, or the one that `volcast up` keeps. Raises ServerError."""
    with prefect_server() as server:
        if server.own:
            raise ServerError("No Prefect server is up. Start one with: volcast up, or set PREFECT_API_URL.")
        if pool == POOL:
            _make_pool()
        chosen = {"VOLCAST_POOL": pool} | ({"VOLCAST_IMAGE": image} if image else {})
        console.print(deploy(_environment(server, data) | chosen).words, markup=False)


def _start_worker(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    with (home() / "worker.log").open("ab") as log:
        return subprocess.Popen(
            command, env=environment, cwd=PROJECT_FILE.parent, stdout=log, stderr=log, start_new_session=True
        )


def _watch(worker: subprocess.Popen[bytes]) -> None:
    while worker.poll() is None:
        time.sleep(1)
    raise ServerError(f"The worker ended with {worker.returncode}. Its log: {home() / 'worker.log'}")
