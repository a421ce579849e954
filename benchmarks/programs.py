"""The program as a person starts it: in a folder of its own, nothing configured, with real servers and workers."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Self

import httpx
from prefect.client.base import PrefectHttpxSyncClient

from volcast.flows.server_access import Access
from volcast.storage.store import open_store
from volcast.tasks.run_tools import artifact_key

VOLCAST = [sys.executable, "-m", "volcast"]
CODE = Path(__file__).parents[1]
QUICK = {"steps": 20, "members": 1, "hidden_size": 8}  # a training of seconds
BEATS_HAR = {  # a training of two seconds, whose model passes the gate; with fewer steps or members it does not
    "steps": 140,
    "members": 4,
    "hidden_size": 4,
    "batch_sequences": 16,
    "learning_rate": 0.004,
    "validate_every_steps": 10,
    "stop_sessions": 100,
}
ENDLESS = {"steps": 1_000_000, "validate_every_steps": 1_000_000, "members": 1, "hidden_size": 8}
QUIET_SECONDS = 300  # without anything that moves, on an idle machine, until one stops waiting
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PARTS = {  # of `volcast up`, and the words by which a command line is that part's
    "flow run": "volcast.flows.flow_process",
    "worker": "worker start",
    "server": "server start",
}


def options(settings: Mapping[str, Any]) -> list[str]:
    """Settings of a recipe as options of a command."""
    return [option for name, value in settings.items() for option in ("--set", f"{name}={value}")]


def environment(folder: Path) -> dict[str, str]:
    """Of a person who has configured nothing, with the server's home in the folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "VOLCAST_"))}
    own = {"VOLCAST_HOME": str(folder / "home"), "PREFECT_HOME": str(folder / "client"), "PYTHONPATH": str(CODE)}
    return inherited | own | {"PYTHONFAULTHANDLER": "1"}  # the stack of one that aborts


def run_volcast(
    folder: Path, *arguments: str, program: Sequence[str] = VOLCAST, **variables: str
) -> subprocess.CompletedProcess[str]:
    """A command, to its end."""
    command, env = [*program, *arguments], environment(folder) | variables
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        with subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=error) as process:
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


class Up:
    """`volcast up` in a folder, on a port of its own."""

    program: Sequence[str] = VOLCAST

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
                [*self.program, "up", "--port", "0", *self.options],
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

    def artifact_key(self, name: str) -> str:
        """The key of an artifact of its store, of the usual simulated exchange."""
        return artifact_key(name, open_store(str(self.folder / "data" / "simulated-0")).url)

    @property
    def ui(self) -> str:
        """The address of Prefect's UI."""
        return str(self.api.base_url).removesuffix("/api/") + "/v2"

    @property
    def deployments(self) -> dict[str, dict[str, Any]]:
        """By their names in prefect.yaml."""
        return {item["name"].partition(".")[0]: item for item in self.api.post("/deployments/filter", json={}).json()}

    def run(self, name: str, **parameters: Any) -> str:
        """Start a run of a deployment; its id. Groups of `parameters` are laid over those of the deployment."""
        deployment = self.deployments[name]
        given = deployment["parameters"] | {
            key: deployment["parameters"].get(key, {}) | dict(value) if isinstance(value, Mapping) else value
            for key, value in parameters.items()
        }
        body = {"state": {"type": "SCHEDULED"}, "parameters": given}
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

    def runs(self, name: str) -> list[dict[str, Any]]:
        """The runs of a deployment that are not only scheduled for later, oldest first."""
        wanted = {"deployments": {"id": {"any_": [self.deployments[name]["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return [run for run in self.api.post("/flow_runs/filter", json=wanted).json() if not run["auto_scheduled"]]

    def ended_runs(self, name: str, count: int) -> list[dict[str, Any]]:
        """All runs of a deployment, once there are so many and all have ended."""
        self.wait(lambda: len(self.runs(name)) >= count, f"{count} runs of {name}")
        return [run | {"state": self.ended(run["id"])} for run in self.runs(name)]

    def answer(self, run: str, answer: str, reason: str) -> None:
        """Answer the form with which a run waits for an approval, as soon as it is there."""
        path, given = f"/flow_runs/{run}/resume", {"run_input": {"answer": answer, "reason": reason}}
        self.wait(lambda: self.api.post(path, json=given).json()["status"] == "ACCEPT", "the form to be there")

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

        def training() -> bool:  # and not the step before it, which fits scalers on train rows
            return any(
                step["name"].startswith("train ") for step in self.api.post("/task_runs/filter", json=trains).json()
            )

        self.wait(training, f"{run} trains")
        return int(self.flow_run(run)["infrastructure_pid"])

    def part(self, name: str) -> int:
        """The process id of one of PARTS, once it is there."""
        return next(iter(self.wait(lambda: processes_of(self.folder, PARTS[name]), f"there is a {name}")))

    def kill(self, name: str) -> bool:
        """kill -9 of one of PARTS, or of `volcast up` itself ("up"); False where there is none of it now.

        After the death of the server or of `up` all of it is started again, once nothing of it is left.
        """
        found = [self.process.pid] if name == "up" else list(processes_of(self.folder, PARTS[name]))
        if not found:
            return False
        os.kill(found[0], signal.SIGKILL)
        if name in ("server", "up"):
            wait_for_exit(self.process, self.folder)
            wait_until(lambda: not processes_of(self.folder), what="all of it has ended")
            self.start()
        return True

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
