"""The processes that a command keeps: server, worker, and through the worker the flow runs.

What the command starts ends with it (flows/lifeline.py). A flow run's process outlives a worker that is killed, which
is wanted, so that whoever ends everything looks for them in /proc. The system gives the id of a process that has ended
to another one, so that a process is known by its id and its start.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from flows.lifeline import STOP_SECONDS

PROC = Path("/proc")  # Linux has it; elsewhere nothing is found
BOOT_ID = PROC / "sys/kernel/random/boot_id"
STATE, START_TIME = 0, 19  # places in /proc/<id>/stat after the command's name (proc(5): fields 3 and 22)
SAY_SECONDS = 15  # of waiting before it is said, and again; a server takes so long on two idle cores
KEPT_IN = "VOLCAST_KEPT_IN"  # names the folder in the environment of server, worker and flow runs
FLOW_RUN = "PREFECT__FLOW_RUN_ID"  # names the run in the environment of a flow run's process


def start(arguments: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command of Prefect's, which ends when this process does."""
    command = [sys.executable, "-m", "flows.lifeline", *arguments]
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=Path(__file__).parents[1],
            env=dict(environment) | {KEPT_IN: str(log.parent)},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process, wait, and kill it only if it does not go."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()


@dataclass(frozen=True)
class Process:
    """A process, which is not taken for a later one of its id."""

    pid: int
    start: str  # the machine's boot and the clock ticks since then; empty where there is no /proc

    @property
    def is_running(self) -> bool:
        """Whether it is there, and not only as a zombie."""
        return process_of(self.pid) == self


def process_of(pid: int) -> Process | None:
    """The process that has the id now; None where there is none, or only a zombie."""
    try:
        os.kill(pid, 0)
        if not PROC.is_dir():
            return Process(pid, "")
        fields = (PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
    except (ProcessLookupError, FileNotFoundError, PermissionError):  # the last for one of another user
        return None
    boot = BOOT_ID.read_text()[:8] if BOOT_ID.is_file() else ""
    return None if fields[STATE] == "Z" else Process(pid, f"{boot}.{fields[START_TIME]}")


def own_process() -> Process:
    """The process that asks."""
    process = process_of(os.getpid())
    assert process is not None
    return process


def end_all(processes: Iterable[Process]) -> None:
    """Terminate processes that are no children of this one, and kill those that do not go."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with suppress(ProcessLookupError):
                if process.is_running:
                    os.kill(process.pid, ending)
        processes = wait_for_end(processes)


def wait_for_end(processes: Iterable[Process], *, seconds: float = STOP_SECONDS) -> list[Process]:
    """Wait until the processes are gone; gives those that are still there after so many seconds."""
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if process.is_running]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return left


def wait_while_alive(is_alive: Callable[[], bool], is_ready: Callable[[], bool], *, what: str) -> bool:
    """Wait, as long as it is alive, until it is ready, and say that one waits; gives whether it became ready."""
    began = said = time.monotonic()
    while not is_ready():
        if not is_alive():
            return False
        if (now := time.monotonic()) - said >= SAY_SECONDS:
            said = now
            Console(stderr=True, highlight=False, soft_wrap=True).print(
                f"Waiting for {what} since {now - began:.0f} s …"
            )
        time.sleep(0.1)
    return True


def environments() -> Iterator[tuple[Process, dict[str, str]]]:
    """Every process that this user may look into, and the environment that it was started with."""
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked, or is another user's
            process = process_of(int(folder.name))
            pairs = (folder / "environ").read_text(errors="replace").split("\0")
            if process:
                yield process, {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def kept_in(folder: Path) -> dict[Process, str | None]:
    """The processes that a volcast command keeps in a folder, and which flow run each of them is, if one."""
    return {process: env.get(FLOW_RUN) for process, env in environments() if env.get(KEPT_IN) == str(folder)}
