"""Kills of what `volcast up` keeps: its server, its worker, a flow run, itself. Part of benchmarks/torture.py."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.settings import temporary_settings

from benchmarks.faults import Run, Running
from flows.prefect_processes import Process, processes_in, wait_for_end
from flows.server import present_server

TARGETS = ("flow run", "worker", "server", "up")
Found = TypeVar("Found")
SILENCE_SECONDS = 600  # with nothing new in any log of the service: it hangs


class Service:
    """`volcast up` in a folder that holds a store; its home becomes that of this process, one service at a time."""

    def __init__(self, place: Path, environment: Mapping[str, str]) -> None:
        self._place, self._home = place, place / "home"
        own = {name: value for name, value in environment.items() if not name.startswith("PREFECT_")}
        os.environ["VOLCAST_HOME"] = str(self._home)
        self._environment = own
        self._up = self._start()

    @property
    def processes(self) -> dict[str, Process]:
        """What there is of server, worker and flow run."""
        found = {}
        for process, flow_run in processes_in(self._home).items():
            with suppress(OSError):
                words = (Path("/proc") / str(process.pid) / "cmdline").read_text().replace("\0", " ")
                kinds = {"flow run": flow_run is not None, "worker": "worker start" in words}
                kinds["server"] = "server start" in words
                found |= {kind: process for kind, is_so in kinds.items() if is_so}
        return found

    def wait_for(self, target: str) -> None:
        """Until a process of that kind is there."""
        self._wait(lambda: self.processes.get(target), target)

    def kill(self, target: str) -> bool:
        """kill -9 of one of TARGETS; False where it is not there any more.

        After the death of the server or of `up`, `up` is started again, once everything of it has ended.
        """
        found = self.processes.get(target)
        if target == "up":
            self._up.process.kill()
        elif found is not None:
            os.kill(found.pid, signal.SIGKILL)
        else:
            return False
        if target in ("server", "up"):
            self._up.end()
            assert not wait_for_end(processes_in(self._home), seconds=SILENCE_SECONDS), "processes are left"
            self._up = self._start()
        return True

    def begin(self, deployment: str, data: Mapping[str, str]) -> UUID:
        """Start a run of a deployment, with these settings laid over its own data."""
        with self._client() as client:
            (found,) = [each for each in client.read_deployments() if each.name.partition(".")[0] == deployment]
            parameters = found.parameters | {"data": found.parameters["data"] | dict(data)}
            return client.create_flow_run_from_deployment(found.id, parameters=parameters).id

    def end_of(self, run: UUID) -> State:
        """The final state of a run."""

        def final() -> State | None:
            with suppress(httpx.HTTPError), self._client() as client:
                state = client.read_flow_run(run).state
                return state if state is not None and state.is_final() else None

        return self._wait(final, f"the end of run {run}")

    def end(self) -> Run:
        """Ctrl-C."""
        self._up.process.send_signal(signal.SIGINT)
        return self._up.end()

    def _start(self) -> Running:
        up = Running(["up", "--port", "0"], self._place, self._environment)
        self._wait(lambda: "Ready after" in up.said or up.process.poll() is not None, "volcast up")
        assert up.process.poll() is None, up.said
        return up

    @contextmanager
    def _client(self) -> Iterator[SyncPrefectClient]:
        with present_server() as server:
            assert server is not None, "the service's server does not answer"
            with temporary_settings(server.client_settings()), get_client(sync_client=True) as client:
                yield client

    def _wait(self, find: Callable[[], Found | None], what: str) -> Found:
        """What is found at last; it may take as long as something is written to a log or to the store."""
        heard, last = time.monotonic(), 0.0
        while not (found := find()):
            if (newest := self._newest()) > last:
                heard, last = time.monotonic(), newest
            assert time.monotonic() - heard < SILENCE_SECONDS, f"{what}: nothing has moved for {SILENCE_SECONDS} s"
            time.sleep(0.3)
        return found

    def _newest(self) -> float:
        """When anything was written last; not to Prefect's database, in which a worker says that it is there."""
        times = [0.0]
        for path in self._place.rglob("*"):
            with suppress(FileNotFoundError):
                times.append(0.0 if ".db" in path.name else path.stat().st_mtime)
        return max(times)
