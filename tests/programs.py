"""The program as a person starts it: in a folder of its own, nothing configured, with real servers and workers."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import yaml
from prefect.client.base import PrefectHttpxSyncClient

from flows.cli import console, main
from flows.server_access import Access

VOLCAST = [sys.executable, "-m", "flows"]
CODE = Path(__file__).parents[1]
QUICK = {"steps": 20, "members": 1, "hidden_size": 8}  # a training of seconds
ENDLESS = {"steps": 1_000_000, "validate_every_steps": 1_000_000, "members": 1, "hidden_size": 8}
QUIET_SECONDS = 300  # without anything that moves, on an idle machine, until one stops waiting
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def project() -> dict[str, Any]:
    """What prefect.yaml says."""
    return yaml.safe_load((CODE / "prefect.yaml").read_text())


class Said:
    """What a command printed, and how it ended."""

    def __init__(self, code: int, out: str, error: str) -> None:
        self.code, self.out = code, out
        self.errors = [line for line in error.splitlines() if line.startswith("Error:")]
        self.has_traceback = "Traceback" in error + out


class Volcast:
    """The command line, in this process and on the session's server."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capture = patch, capture
        self.columns(200)

    def columns(self, width: int) -> None:
        """How wide the terminal is; the console looks only once, when it is made."""
        self._patch.setattr(console, "_width", width)

    def __call__(self, *arguments: object) -> Said:
        self._patch.setattr(sys, "argv", ["volcast", *map(str, arguments)])
        self._capture.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = self._capture.readouterr()
        return Said(int(end.value.code or 0), said.out, said.err)


def environment(folder: Path) -> dict[str, str]:
    """Of a person who has configured nothing, with the server's home in the folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "VOLCAST_"))}
    own = {"VOLCAST_HOME": str(folder / "home"), "PREFECT_HOME": str(folder / "client"), "PYTHONPATH": str(CODE)}
    return inherited | own | {"PYTHONFAULTHANDLER": "1"}  # the stack of one that aborts


def run_volcast(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command, to its end."""
    command = [*VOLCAST, *arguments]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        with subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=out, stderr=error) as process:
            wait_for_exit(process, folder)
        for file in (out, error):
            file.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, out.read(), error.read())


def processes_of(folder: Path, words: str = "") -> dict[int, str]:
    """Ids and command lines (with these words) of the processes whose environment names the folder's home."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().replace("\0", " ")
            if f"VOLCAST_HOME={folder / 'home'}".encode() in (process / "environ").read_bytes() and words in command:
                found[int(process.name)] = command
        except OSError:
            continue  # it ended while we looked, or is not ours
    return found


def wait_until(
    is_so: Callable[[], Any],
    *,
    what: str,
    moves: Callable[[], Any] = lambda: None,
    lives: Callable[[], bool] = lambda: True,
) -> Any:
    """The first result that is not empty; one waits as long as something lives, and something of it moves.

    What stays the same for QUIET_SECONDS, times the processes that share a core, moves no more.
    """
    seen, since = moves(), time.monotonic()
    looks = count()
    while not (found := is_so()):
        assert lives(), f"ended before it was so: {what}"
        if next(looks) % 20 == 0 and (now := moves()) != seen:  # every few seconds is enough
            seen, since = now, time.monotonic()
        patience = QUIET_SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        assert time.monotonic() - since < patience, f"nothing has moved for {patience:.0f} s: {what}"
        time.sleep(0.3)
    return found


def wait_for_exit(process: subprocess.Popen[Any], folder: Path) -> int:
    """The exit status of a process that works in the folder; it is killed where nothing moves any more."""
    try:
        wait_until(lambda: process.poll() is not None, what=f"{process.args} has ended", moves=lambda: files_of(folder))
    except BaseException:
        process.kill()
        raise
    return process.returncode


def files_of(folder: Path) -> dict[str, int]:
    """What a folder holds, and how large it is; not Prefect's database, in which workers say that they are there."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(OSError):  # it went while we looked
            found[str(path)] = path.stat().st_size
    return {name: size for name, size in found.items() if ".db" not in name}


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Webhook:
    """A Slack-compatible receiver on a free port, also of pings; `texts` and `pings` (paths) are what came."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.pings: list[str] = []
        texts, pings = self.texts, self.pings

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
                self.send_response(200)
                self.end_headers()

            def do_GET(self) -> None:
                pings.append(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.host}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def codes(self) -> list[str]:
        """The codes of the alerts, in order."""
        return [text.removeprefix("volcast alert ").split(":")[0] for text in self.texts]

    def end(self) -> None:
        """Nothing is received any more."""
        self.server.shutdown()
        self.server.server_close()


class Up:
    """`volcast up` in a folder, on a port of its own."""

    def __init__(self, folder: Path, *options: str, **variables: str) -> None:
        self.folder, self.options = folder, options
        self.environment = environment(folder) | variables
        self.api = httpx.Client()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end()
        self.api.close()

    def start(self) -> None:
        """Start it, and return when it is ready."""
        self.api.close()
        with (self.folder / "up.log").open("w") as log:
            self.process = subprocess.Popen(
                [*VOLCAST, "up", "--port", "0", *self.options],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.wait(lambda: "Ready after" in self.said or not self.lives, "volcast up is ready")
        assert self.lives, self.said
        self.access = Access(**json.loads((self.folder / "home" / "server.json").read_text())["access"])
        user, _, password = self.access.auth.partition(":")
        self.api = PrefectHttpxSyncClient(  # which asks again where SQLite was locked
            base_url=f"{self.access.url}/api",
            auth=(user, password),
            enable_csrf_support=True,
            trust_env=False,
            timeout=QUIET_SECONDS,
        )

    @property
    def lives(self) -> bool:
        """Whether the process is there."""
        return self.process.poll() is None

    def moves(self) -> Any:
        """What its files, and the server of its runs, show of its work."""
        runs: Any = None
        with suppress(httpx.HTTPError, RuntimeError):  # not yet, or no longer there
            states = self.api.post("/flow_runs/filter", json={}).json()
            runs = [run["state_id"] for run in states], self.api.post("/task_runs/count", json={}).json()
        return files_of(self.folder), runs

    def wait(self, is_so: Callable[[], Any], what: str) -> Any:
        """The first result that is not empty, as long as it lives and moves."""
        return wait_until(is_so, what=what, moves=self.moves, lives=lambda: self.lives)

    def ended(self, run: str) -> dict[str, Any]:
        """The final state of a flow run."""
        return self.wait(
            lambda: state if (state := self.flow_run(run)["state"])["type"] in FINAL else None, f"{run} has ended"
        )

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return (self.folder / "up.log").read_text()

    @property
    def deployments(self) -> dict[str, dict[str, Any]]:
        """By their names in prefect.yaml."""
        return {item["name"].partition(".")[0]: item for item in self.api.post("/deployments/filter", json={}).json()}

    def run(self, name: str, **parameters: Mapping[str, Any]) -> str:
        """Start a run of a deployment; its id. `parameters` are laid over those of the deployment."""
        deployment = self.deployments[name]
        given = {key: deployment["parameters"].get(key, {}) | dict(value) for key, value in parameters.items()}
        body = {"state": {"type": "SCHEDULED"}, "parameters": deployment["parameters"] | given}
        return self.api.post(f"/deployments/{deployment['id']}/create_flow_run", json=body).json()["id"]

    def train(self, settings: Mapping[str, Any]) -> str:
        """Start a run of the pipeline on few prices."""
        data = {"tickers": ["SBUX"], "as_of": "2004-06-28"}
        return self.run("pipeline", data=data, training={"recipe": "volume", "settings": settings})

    def flow_run(self, run: str) -> dict[str, Any]:
        """All that the server knows of it."""
        return self.api.get(f"/flow_runs/{run}").json()

    def state(self, run: str) -> str:
        """The name of its state, such as Running."""
        return self.flow_run(run)["state"]["name"]

    def wait_for_start(self, run: str) -> str:
        """The name of the first state after those in which it waits."""
        waits = ("Scheduled", "Late", "Pending", "Submitting")
        return self.wait(lambda: state if (state := self.state(run)) not in waits else None, f"{run} has started")

    def wait_for_training(self, run: str) -> int:
        """The process id of a run of the pipeline, once it trains."""
        trains = {
            "flow_runs": {"parent_flow_run_id": {"any_": [run]}},
            "task_runs": {"name": {"like_": "train "}, "state": {"type": {"any_": ["RUNNING"]}}},
        }
        self.wait(lambda: self.api.post("/task_runs/filter", json=trains).json(), f"{run} trains")
        return int(self.flow_run(run)["infrastructure_pid"])

    def scheduled(self, name: str) -> list[str]:
        """When the runs of a deployment are to start that the server's scheduler has made; it looks once a minute."""
        filters = {
            "deployments": {"id": {"any_": [self.deployments[name]["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        runs = self.wait(lambda: self.api.post("/flow_runs/filter", json=filters).json(), f"{name} is scheduled")
        return [run["expected_start_time"] for run in runs]

    def end(self) -> int:
        """Ctrl-C; the exit status."""
        self.process.send_signal(signal.SIGINT)
        return wait_for_exit(self.process, self.folder)
