"""A worker that is started again when it dies, after a wait that grows while it keeps dying."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from rich.console import Console

from flows.lost_runs import WORKER
from flows.processes import end, start, wait_while_alive
from flows.server_options import ServerError

POOL = "volcast"
LONGEST_WAIT = 60  # seconds before it is started again: 1, 2, 4 … up to this
LONG_LIFE = 120  # seconds; the death of a worker that lived so long counts as the first


class KeptWorker:
    """A process worker of this machine; it runs from when this is made until `end`."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment, self._log, self._deaths = environment, log, 0
        self._start()

    def wait_until_online(self, client: SyncPrefectClient) -> None:
        """Wait until the server has heard from it. Raises ServerError."""
        is_online = wait_while_alive(
            lambda: self._process.poll() is None,
            lambda: any(
                worker.name == WORKER and worker.last_heartbeat_time and worker.last_heartbeat_time > self._began
                for worker in client.read_workers_for_work_pool(POOL)
            ),
            what=f"the worker to come online; its log: {self._log}",
        )
        if not is_online:
            raise ServerError(f"The worker ended with {self._process.returncode}. Its log: {self._log}")

    def tend(self, console: Console) -> None:
        """Start it again if it has died and its wait is over; loudly."""
        code = self._process.poll()
        if code is None:
            return
        if self._restart_at is None:
            self._deaths = self._deaths + 1 if self._lived < LONG_LIFE else 1
            wait = min(2 ** (self._deaths - 1), LONGEST_WAIT)
            self._restart_at = time.monotonic() + wait
            console.print(f"[bold red]The worker ended with {code}.[/] It is started again in {wait} s; runs that it")
            console.print(f"had started go on. Its log: {self._log}")
        elif time.monotonic() >= self._restart_at:
            end(self._process)
            self._start()
            console.print(f"[bold]The worker is started again[/], for the {self._deaths}. time.")

    def end(self) -> None:
        """End it, and with it the flow runs that it knows of."""
        end(self._process)

    def _start(self) -> None:
        arguments = ["worker", "start", "--pool", POOL, "--type", "process", "--name", WORKER]
        self._process = start(arguments, self._environment, self._log)
        self._began, self._restart_at = datetime.now(UTC), None

    @property
    def _lived(self) -> float:
        return (datetime.now(UTC) - self._began).total_seconds()
