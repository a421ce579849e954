"""The Prefect server that a command talks to: the one that is configured, one of volcast's own, or none.

    1. PREFECT_API_URL (environment or Prefect profile)    -> that server
    2. a server that `volcast up` keeps in this folder     -> that server
    3. else, if the command needs one                      -> start one, use it, drain it, stop it
    4. else                                                -> none: its flow runs in the command's own process

volcast's own server keeps its database in VOLCAST_HOME (default ./.volcast), or in VOLCAST_DATABASE, so that
`volcast up` shows earlier runs. Each has a password of its own (flows/server_access.py).
"""

import json
import os
import secrets
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
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
    PREFECT_RESULTS_DEFAULT_SERIALIZER,
    PREFECT_UI_URL,
    temporary_settings,
)
from pydantic import SecretStr

from volcast.flows.prefect_processes import (
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
    without_server,
)
from volcast.flows.server_access import LISTENER, VARIABLE, Access
from volcast.flows.server_options import ServerError, ServerOptions, require_database
from volcast.models.text import silent

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
    access: Access | None = None  # of a server of volcast's own
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
            PREFECT_RESULTS_DEFAULT_SERIALIZER: "json",
        }
        return settings | ({PREFECT_API_AUTH_STRING: SecretStr(self.auth)} if self.auth else {})


def home() -> Path:
    """Where volcast's own server keeps its database and its log."""
    return Path(os.environ.get("VOLCAST_HOME", ".volcast")).resolve()


@contextmanager
def prefect_server(meanwhile: Callable[[], object] = silent) -> Iterator[Server]:
    """A server for the length of one command; on the way out, whatever that command did has been stored.

    `meanwhile` is done while a server of its own starts.
    """
    if server := server_that_is_up():
        with _drained(server):
            yield server
    else:
        with own_server(meanwhile=meanwhile) as started, _drained(started):
            with get_client(sync_client=True) as client:
                settle(client, find_orphans(client))
            yield started


@contextmanager
def server_if_up() -> Iterator[Server | None]:
    """The server that is up, which keeps what flows do; where there is none, flows run without one, and nothing does.

    Raises ServerError where one is configured that does not answer.
    """
    server = server_that_is_up()
    with _drained(server) if server else without_server():
        yield server


@contextmanager
def present_server() -> Iterator[Server | None]:
    """The server that is up, for something that can be done without one; None where there is none, or no answer."""
    try:
        server = server_that_is_up()
    except ServerError:
        server = None
    with _drained(server) if server else nullcontext():
        yield server


def server_that_is_up() -> Server | None:
    """The configured server, or the one that `volcast up` keeps in this folder; None without either.

    Raises ServerError where it does not answer, or is not what it ought to be.
    """
    if configured := configured_server():
        require_answer(configured)
    return configured or _announced_server()


def configured_server() -> Server | None:
    """The server of Prefect's settings, if there is one."""
    url = PREFECT_API_URL.value()
    return Server(url, auth=PREFECT_API_AUTH_STRING.value()) if url else None


@contextmanager
def own_server(options: ServerOptions | None = None, *, meanwhile: Callable[[], object] = silent) -> Iterator[Server]:
    """Start a server, with something to be done `meanwhile`; end it by its process id."""
    options = options or ServerOptions()
    require_database(options)
    with alone_in(home()) as folder:
        server = _start(folder, options)
        assert server.process is not None
        try:
            meanwhile()
            _wait_until_ready(server.process, server, folder / "server.log")
            yield server
        finally:
            end(server.process)


@contextmanager
def alone_in(folder: Path) -> Iterator[Path]:
    """Keep other commands from starting server or worker in the folder, and wait for what a killed one left there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_own(folder.stat(), folder, others_may=0o055)
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
    all was stored; not, when no further one was for so many `seconds`.
    """
    EventsWorker.drain_all()
    moved, previous = time.monotonic(), None
    with get_client(sync_client=True) as client:
        while time.monotonic() < moved + seconds:
            states = _task_run_states(client, server.tag)
            if all(states) and states == previous:
                return True
            if states != previous:
                moved, previous = time.monotonic(), states
            time.sleep(0.5)
    return False


def watched_server() -> Server | None:
    """The server that is configured, or that `volcast up` keeps or kept in this folder; None where nobody wants one.

    Raises ServerError where it does not answer in some seconds, or has died with its `volcast up`.
    """
    if configured := configured_server():
        require_answer(configured)
        return configured
    if (kept := announcement()) is None:
        return None
    process, access = kept
    deadline = time.monotonic() + REACH_SECONDS
    while process.is_running and time.monotonic() < deadline:
        if _proves_itself(access):
            return _server_of(access)
        time.sleep(0.1)
    what = "does not answer" if process.is_running else "has died, or its server has, and nothing runs"
    raise ServerError(f"volcast up, which keeps a server in {home()}, {what}.")


def announce(server: Server) -> None:
    """Leave how a server that stays up is reached, for the other commands of this folder, and for nobody else."""
    assert server.access is not None
    path, kept = home() / "server.json", {"access": asdict(server.access), "process": asdict(own_process())}
    new = path.with_name("server.json.new")
    new.unlink(missing_ok=True)  # one that a killed command left may be open to others
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
        json.dump(kept, file)
    new.replace(path)


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
        "OTEL_SDK_DISABLED": "true",  # runs are traced where a person asks for it, and not each request of the server
    }


def announcement() -> tuple[Process, Access] | None:
    """What `volcast up` left in this folder of itself and its server; it takes it away only where it is ended by will.

    Raises ServerError where another user could have written it.
    """
    try:
        kept = json.loads(_read_own(home() / "server.json"))
        return Process(**kept["process"]), Access(**kept["access"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):  # the last two for one of an earlier release
        return None


def _announced_server() -> Server | None:
    """The server that `volcast up` keeps in this folder, once it answers; None where there is none.

    Raises ServerError where another user could have named it, or what answers there is not that server.
    """
    if (kept := announcement()) is None:
        return None
    process, access = kept
    server = _server_of(access)
    answers = process.is_running and wait_while_alive(
        lambda: process.is_running,
        lambda: _proves_itself(access),
        what=f"Prefect's server at {server.api_url}, which volcast up keeps",
    )
    return server if answers else None


def _read_own(path: Path) -> str:
    """A file that nobody but this user can have written, or read. Raises ServerError, FileNotFoundError."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as file:
            _require_own(path.parent.stat(), path.parent, others_may=0o055)
            _require_own(os.fstat(file.fileno()), path, others_may=0)
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:  # a link, or another user's
        raise ServerError(
            f"{path} is not believed: {error.strerror}. Remove it, and start volcast up again."
        ) from error


def _require_own(found: os.stat_result, path: Path, *, others_may: int) -> None:
    """Raises ServerError where another user owns it, or may do more with it than the bits say."""
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.geteuid():
        what = f"it belongs to the user {found.st_uid}. Take a folder of your own: VOLCAST_HOME=/some/folder volcast …"
    elif mode & 0o077 & ~others_may:
        what = f"other users may change or read it (mode {mode:04o}). See what it holds, then: chmod go-rwx {path}"
    else:
        return
    raise ServerError(f"{path} is not trusted with a server's password: {what}")


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
                f"{server.api_url} has not stored every task state, and no further one for {STORED_SECONDS} s. See the "
                "server's log."
            )


def _start(folder: Path, options: ServerOptions) -> Server:
    """A server that is being started. What is secret goes to it by its environment, which only this user can read."""
    with options.listen() as listener:
        url = f"http://{options.client_host}:{listener.getsockname()[1]}"
        own = {"auth": options.auth} if options.auth else {}
        access = Access(url, names=options.names, is_local=options.is_local, **own)
        server = _server_of(access)
        environment = server_environment(folder) | options.environment()
        environment |= {
            "PREFECT_API_URL": server.api_url,
            "PREFECT_UI_URL": server.ui_url,  # the alerts' links
            "PREFECT_SERVER_API_AUTH_STRING": access.auth,
            "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url,
            VARIABLE: json.dumps(asdict(access)),
            LISTENER: str(listener.fileno()),
        }
        process = start(["server", "start"], environment, folder / "server.log", listener.fileno())
    return replace(server, process=process)


def _server_of(access: Access) -> Server:
    return Server(f"{access.url}/api", auth=access.auth, access=access)


def _wait_until_ready(process: subprocess.Popen[bytes], server: Server, log: Path) -> None:
    assert server.access is not None
    access = server.access
    is_up = wait_while_alive(
        lambda: process.poll() is None,
        lambda: _proves_itself(access),
        what=f"Prefect's server to answer; its log: {log}",
    )
    if not is_up:
        raise ServerError(f"Prefect's server ended with {process.returncode}. Its log: {log}")


def _proves_itself(access: Access) -> bool:
    """Whether the server answers; no secret is sent. Raises ServerError where something else has taken its place."""
    nonce = secrets.token_urlsafe(16)
    try:
        answer = httpx.get(f"{access.url}/proof", params={"nonce": nonce}, timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    if not secrets.compare_digest(answer.content, access.proof(nonce).encode()):
        raise ServerError(
            f"What answers at {access.url} is not the server that volcast started: it cannot prove it, and is sent no "
            f"password. See which process listens there, and remove {home() / 'server.json'}."
        )
    return True


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
