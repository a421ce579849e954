"""The processes that a command keeps: server, worker, and through the worker the flow runs.

What the command starts ends with it (flows/lifeline.py). A flow run's process outlives a worker that is killed, which
is wanted, so that whoever ends everything looks for them in /proc.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from flows.lifeline import STOP_SECONDS

PROC = Path("/proc")  # Linux has it; elsewhere nothing is found
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


def end_all(pids: Iterable[int]) -> None:
    """Terminate processes that are no children of this one, and kill those that do not go."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, ending)
        pids = wait_for_end(pids)


def wait_for_end(pids: Iterable[int], *, seconds: float = STOP_SECONDS) -> list[int]:
    """Wait until the processes are gone; gives those that are still there after so many seconds."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if is_running(pid)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return left


def is_running(pid: int) -> bool:
    """Whether a process is there, and not only as a zombie."""
    try:
        os.kill(pid, 0)
        return not PROC.is_dir() or (PROC / str(pid) / "stat").read_text().rpartition(") ")[2][0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
    except PermissionError:  # another user's
        return True


def environments() -> Iterator[tuple[int, dict[str, str]]]:
    """Of every process that this user may look into: its id, and the environment that it was started with."""
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked, or is another user's
            pairs = (folder / "environ").read_text(errors="replace").split("\0")
            yield int(folder.name), {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def kept_in(folder: Path) -> dict[int, str | None]:
    """The processes that a volcast command keeps in a folder, and which flow run each of them is, if one."""
    return {pid: env.get(FLOW_RUN) for pid, env in environments() if env.get(KEPT_IN) == str(folder)}
