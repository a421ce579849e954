"""The Prefect server that a command talks to: the one that is configured, or one of volcast's own.

    1. PREFECT_API_URL (environment or Prefect profile)    -> that server
    2. a server that `volcast up` keeps in this folder     -> that server
    3. else                                                -> start one, use it, drain it, stop it

volcast's own server keeps its database in VOLCAST_HOME (default ./.volcast), so that `volcast up` shows earlier runs.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from filelock import FileLock, Timeout
from prefect import tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

HOST = "127.0.0.1"
START_SECONDS = 120  # 15 s on two idle cores; a busy machine takes several times that
STOP_SECONDS = 20
STORED_SECONDS = 60
NO_HEARTBEAT = None  # a flow waits half a second for its heartbeat's thread to end, and nobody listens to a short run's
PAGE = 200  # the most task runs that the API gives at once


class ServerError(RuntimeError):
    """Prefect's server did not start, or is in use by another command; the message says where to look."""


@dataclass(frozen=True)
class Server:
    """A Prefect server that answers."""

    api_url: str
    own: bool  # started by this command, and ended with it
    tag: str = field(default_factory=lambda: f"command-{uuid4().hex[:8]}")  # on every run of this command

    @property
    def ui_url(self) -> str:
        return self.api_url.removesuffix("/api")


def home() -> Path:
    """Where volcast's own server keeps its database and its log."""
    return Path(os.environ.get("VOLCAST_HOME", ".volcast")).resolve()


def free_port(preferred: int = 0) -> int:
    """`preferred` when nobody listens there, else a port that the system chooses."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, preferred))
        except OSError:
            return free_port()
        return probe.getsockname()[1]


@contextmanager
def prefect_server() -> Iterator[Server]:
    """A server for the length of one command; on the way out, whatever that command did has been stored."""
    configured = PREFECT_API_URL.value() or _kept_up()
    if configured:
        _require_answer(configured)
        with _drained(Server(configured, own=False)) as server:
            yield server
    else:
        with own_server() as started, _drained(started) as server:
            yield server


@contextmanager
def own_server(*, port: int = 0) -> Iterator[Server]:
    """Start a server on a free port of the loopback interface; end it by its process id."""
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        chosen = free_port(port)
        server = Server(f"http://{HOST}:{chosen}/api", own=True)
        process = _start(folder, chosen)
        try:
            _wait_until_healthy(process, server, folder / "server.log")
            yield server
        finally:
            end(process)


def drain(server: Server, *, seconds: float) -> bool:
    """Wait until the server has stored every log line, event and task state of the command's flow runs.

    Prefect sends states as events from a thread of its own, and a server that stops first loses them. Returns whether
    all was stored within `seconds`.
    """
    EventsWorker.drain_all()
    deadline = time.monotonic() + seconds
    previous = -1
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            states = _task_run_states(client, server.tag)
            if all(states) and len(states) == previous:
                return True
            previous = len(states)
            time.sleep(0.5)
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process, wait, and kill it only if it does not go."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def announce(server: Server) -> None:
    """Leave the address of a server that stays up, for the other commands of this folder."""
    (home() / "server.json").write_text(json.dumps({"api_url": server.api_url, "pid": os.getpid()}))


def withdraw() -> None:
    """Take the address back."""
    (home() / "server.json").unlink(missing_ok=True)


def server_environment(folder: Path) -> dict[str, str]:
    """The environment of volcast's own server: no telemetry, all in its folder, no inherited Prefect settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return inherited | {
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def _kept_up() -> str | None:
    """The address of the server that `volcast up` keeps in this folder, if it answers."""
    try:
        url = json.loads((home() / "server.json").read_text())["api_url"]
        return url if _healthy(url) else None
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None


@contextmanager
def _drained(server: Server) -> Iterator[Server]:
    """Point Prefect's client at `server`; leave only when the server has stored what the client did."""
    settings: dict[Any, Any] = {PREFECT_API_URL: server.api_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: NO_HEARTBEAT}
    with temporary_settings(settings), tags(server.tag):
        try:
            yield server
        except BaseException:
            drain(server, seconds=STORED_SECONDS / 6)  # the error that is on its way matters more
            raise
        if not drain(server, seconds=STORED_SECONDS):
            raise ServerError(
                f"{server.api_url} had not stored every task state after {STORED_SECONDS} s. See the server's log."
            )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / "server.lock")
    try:
        with lock.acquire(timeout=5):
            yield
    except Timeout as error:
        raise ServerError(
            f"Another volcast command runs its own Prefect server in {folder}. Wait for it to end, "
            "or give this one a folder of its own: VOLCAST_HOME=/some/folder volcast …"
        ) from error


def _start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    environment = server_environment(folder) | {"PREFECT_API_URL": f"http://{HOST}:{port}/api"}
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )


def _wait_until_healthy(process: subprocess.Popen[bytes], server: Server, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _healthy(server.api_url):
        if process.poll() is not None or time.monotonic() > deadline:
            why = (
                f"ended with {process.returncode}"
                if process.returncode is not None
                else f"did not answer in {START_SECONDS} s"
            )
            raise ServerError(f"Prefect's server {why}. Its log: {log}")
        time.sleep(0.1)


def _healthy(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/health", timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _require_answer(api_url: str) -> None:
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error is not None:
        raise ServerError(
            f"Prefect's server at {api_url} does not answer ({error}). Start it, or unset PREFECT_API_URL "
            "(prefect config unset PREFECT_API_URL) to let volcast start one of its own."
        )


def _task_run_states(client: SyncPrefectClient, tag: str) -> list[bool]:
    """For each task run of the flow runs with the tag: whether its state is final."""
    runs = FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]))
    final: list[bool] = []
    while True:
        page = client.read_task_runs(flow_run_filter=runs, limit=PAGE, offset=len(final))
        final += [run.state is not None and run.state.is_final() for run in page]
        if len(page) < PAGE:
            return final
