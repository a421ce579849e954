"""The Prefect server that a command talks to: the one that is configured, or one of volcast's own.

    1. PREFECT_API_URL (environment or Prefect profile)    -> that server
    2. a server that `volcast up` keeps in this folder     -> that server
    3. else                                                -> start one, use it, drain it, stop it

volcast's own server keeps its database in VOLCAST_HOME (default ./.volcast), or in VOLCAST_DATABASE, so that
`volcast up` shows earlier runs.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from filelock import FileLock, Timeout
from prefect import tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.events.worker import EventsWorker
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_UI_URL,
    temporary_settings,
)
from pydantic import SecretStr

from flows.prefect_processes import (
    STOP_SECONDS,
    Process,
    command_tag,
    end,
    find_orphans,
    own_process,
    processes_in,
    settle,
    start,
    wait_for_end,
    wait_while_alive,
)
from flows.server_options import LOOPBACK, ServerError, ServerOptions, require_database

STORED_SECONDS = 60
REACH_SECONDS = 7.0  # to connect to a configured server, and again for its answer
# SQLite may be locked for a minute on a busy machine. A client that asks again before that is told that its state was
# set already, and what a flow returns is lost (MissingResult).
ANSWER_SECONDS = 240.0
LEFT_SECONDS = STOP_SECONDS + 5  # in which server and worker of a killed command end themselves
NO_HEARTBEAT = None  # a flow waits half a second for its heartbeat's thread to end, and nobody listens to a short run's
PAGE = 200  # the most task runs that the API gives at once


@dataclass(frozen=True)
class Server:
    """A Prefect server that answers."""

    api_url: str
    auth: str | None = field(default=None, repr=False)  # user:password
    process: subprocess.Popen[bytes] | None = None  # of a server that this command started, and ends
    tag: str = field(default_factory=command_tag)  # on every run of this command

    @property
    def own(self) -> bool:
        return self.process is not None

    @property
    def ui_url(self) -> str:
        """Prefect's newer UI; `/` alone leads there, but any other page without v2 is of the older one."""
        return self.api_url.removesuffix("/api") + "/v2"

    def client_settings(self) -> dict[Any, Any]:
        """What Prefect's clients must know to use it."""
        settings: dict[Any, Any] = {
            PREFECT_API_URL: self.api_url,
            PREFECT_UI_URL: self.ui_url,
            PREFECT_API_REQUEST_TIMEOUT: ANSWER_SECONDS,
        }
        return settings | ({PREFECT_API_AUTH_STRING: SecretStr(self.auth)} if self.auth else {})


def home() -> Path:
    """Where volcast's own server keeps its database and its log."""
    return Path(os.environ.get("VOLCAST_HOME", ".volcast")).resolve()


def free_port(preferred: int = 0, *, host: str = LOOPBACK) -> int:
    """`preferred` when nobody listens there, else a port that the system chooses."""
    family, kind, protocol, _, address = _address(host, preferred)
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if preferred == 0:
                raise ServerError(f"--host must be an address of this machine; {host} came ({error}).") from error
            return free_port(host=host)
        return probe.getsockname()[1]


@contextmanager
def prefect_server() -> Iterator[Server]:
    """A server for the length of one command; on the way out, whatever that command did has been stored."""
    configured = configured_server()
    if configured:
        require_answer(configured)
    if server := configured or _announced_server():
        with _drained(server):
            yield server
    else:
        with own_server() as started, _drained(started):
            with get_client(sync_client=True) as client:
                settle(client, find_orphans(client))
            yield started


@contextmanager
def present_server() -> Iterator[Server | None]:
    """The server that is up, for something that can be done without one; None where there is none, or no answer."""
    server = configured_server()
    try:
        if server:
            require_answer(server)
        else:
            server = _announced_server()
    except ServerError:
        server = None
    with _drained(server) if server else nullcontext():
        yield server


def configured_server() -> Server | None:
    """The server of Prefect's settings, if there is one."""
    url = PREFECT_API_URL.value()
    return Server(url, auth=PREFECT_API_AUTH_STRING.value()) if url else None


@contextmanager
def own_server(options: ServerOptions | None = None) -> Iterator[Server]:
    """Start a server; end it by its process id."""
    options = options or ServerOptions()
    require_database(options)
    with alone_in(home()) as folder:
        port = free_port(options.port, host=options.host)
        process = _start(folder, port, options)
        server = Server(f"http://{options.client_host}:{port}/api", auth=options.auth, process=process)
        try:
            _wait_until_healthy(process, server, folder / "server.log")
            yield server
        finally:
            end(process)


@contextmanager
def alone_in(folder: Path) -> Iterator[Path]:
    """Keep other commands from starting server or worker in the folder, and wait for what a killed one left there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(folder / "server.lock")
    try:
        with lock.acquire(timeout=5):
            kept = [process for process, run in processes_in(folder).items() if run is None]
            if left := wait_for_end(kept, seconds=LEFT_SECONDS):
                ids = " ".join(str(process.pid) for process in left)
                raise ServerError(
                    f"Processes that a killed volcast left in {folder} do not end. End them: kill -9 {ids}"
                )
            yield folder
    except Timeout as error:
        raise ServerError(
            f"Another volcast command runs its own Prefect server in {folder}. Wait for it to end, "
            "or give this one a folder of its own: VOLCAST_HOME=/some/folder volcast …"
        ) from error


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


def announce(server: Server) -> None:
    """Leave the address of a server that stays up, for the other commands of this folder; with it the password."""
    path = home() / "server.json"
    path.unlink(missing_ok=True)  # one that a killed command left may be open to others
    path.touch(mode=0o600)
    path.write_text(json.dumps({"api_url": server.api_url, "auth": server.auth, "process": asdict(own_process())}))


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
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
    }


def _announced_server() -> Server | None:
    """The server that `volcast up` keeps in this folder, once it answers; None where there is none."""
    try:
        kept = json.loads((home() / "server.json").read_text())
        process = Process(**kept["process"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError):  # the last for one of release 0.1.0
        return None
    server = Server(kept["api_url"], auth=kept["auth"])
    answers = process.is_running and wait_while_alive(
        lambda: process.is_running,
        lambda: _healthy(server.api_url),
        what=f"Prefect's server at {server.api_url}, which volcast up keeps",
    )
    return server if answers else None


@contextmanager
def _drained(server: Server) -> Iterator[None]:
    """Point Prefect's client at `server`; leave only when the server has stored what the client did."""
    settings = server.client_settings() | {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: NO_HEARTBEAT}
    with named_errors(server), temporary_settings(settings), tags(server.tag):
        try:
            yield
        except BaseException:
            with suppress(httpx.HTTPError):
                drain(server, seconds=STORED_SECONDS / 6)  # the error that is on its way matters more
            raise
        if not drain(server, seconds=STORED_SECONDS):
            raise ServerError(
                f"{server.api_url} had not stored every task state after {STORED_SECONDS} s. See the server's log."
            )


def _start(folder: Path, port: int, options: ServerOptions) -> subprocess.Popen[bytes]:
    environment = server_environment(folder) | options.environment()
    server = Server(f"http://{options.client_host}:{port}/api")
    environment |= {"PREFECT_API_URL": server.api_url, "PREFECT_UI_URL": server.ui_url}  # the alerts' links
    arguments = ["server", "start", "--host", options.host, "--port", str(port)]
    return start(arguments, environment, folder / "server.log")


def _address(host: str, port: int) -> tuple[Any, ...]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ServerError(f"--host must be an address of this machine; {host} came ({error}).") from error


def _wait_until_healthy(process: subprocess.Popen[bytes], server: Server, log: Path) -> None:
    is_up = wait_while_alive(
        lambda: process.poll() is None,
        lambda: _healthy(server.api_url) and _is_of(log.parent, server),
        what=f"Prefect's server to answer; its log: {log}",
    )
    if not is_up:
        raise ServerError(f"Prefect's server ended with {process.returncode}. Its log: {log}")


def _healthy(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/health", timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _is_of(folder: Path, server: Server) -> bool:
    """Whether it is the folder's server, and not another one that took the port a moment before."""
    user, _, password = (server.auth or "").partition(":")
    auth = httpx.BasicAuth(user, password) if server.auth else None
    try:
        settings = httpx.get(f"{server.api_url}/admin/settings", auth=auth, timeout=5, trust_env=False)
        return settings.is_success and settings.json()["home"] == str(folder)
    except (httpx.HTTPError, json.JSONDecodeError, KeyError):
        return False


def require_answer(server: Server) -> None:
    """Raises ServerError where a configured server does not answer as Prefect's in 15 s, or asks for a password."""
    quick: dict[Any, Any] = {PREFECT_API_REQUEST_TIMEOUT: REACH_SECONDS, PREFECT_CLIENT_MAX_RETRIES: 0}
    try:
        with temporary_settings(server.client_settings() | quick), get_client(sync_client=True) as client:
            client.api_version()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.UNAUTHORIZED:
            raise ServerError(
                f"Prefect's server at {server.api_url} asks for a password. Set PREFECT_API_AUTH_STRING=user:password."
            ) from error
        raise ServerError(
            f"Prefect's server at {server.api_url} does not answer ({_why(error)}). Start it, or unset PREFECT_API_URL "
            "(prefect config unset PREFECT_API_URL) to let volcast start one of its own."
        ) from error


@contextmanager
def named_errors(server: Server) -> Iterator[None]:
    """Raises ServerError, which names the server, for what its client raises in the middle of the work."""
    try:
        yield
    except httpx.HTTPError as error:
        raise ServerError(
            f"Prefect's server at {server.api_url} failed ({_why(error)}). What was committed before is kept; see the "
            "server's log, and run the same command again to go on."
        ) from error


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _task_run_states(client: SyncPrefectClient, tag: str) -> list[bool]:
    """For each task run of the flow runs with the tag: whether its state is final."""
    runs = FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]))
    final: list[bool] = []
    while True:
        page = client.read_task_runs(flow_run_filter=runs, limit=PAGE, offset=len(final))
        final += [run.state is not None and run.state.is_final() for run in page]
        if len(page) < PAGE:
            return final
