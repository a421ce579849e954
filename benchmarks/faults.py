"""The faults of benchmarks/torture.py: each runs a command of the product, and hurts it at a random moment.

Disk faults need the right to mount, which root has in a mount namespace of its own; where it lacks, `Fault.impossible`
says so. For a fault of the clock this module is the command's first, and turns the clock of its process:

python -m benchmarks.faults BEGIN SECONDS SHIFT COMMAND…     from the time BEGIN on; SHIFT days later after SECONDS
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import IO, Literal

import time_machine

from benchmarks import fake_s3
from benchmarks.programs import CODE

LIMIT_SECONDS = 600  # after which a command counts as one that hangs
INTERRUPTED = 130
IN_NAMESPACE = "VOLCAST_TORTURE_NAMESPACE"


@dataclass(frozen=True)
class Run:
    """How a command ended."""

    code: int
    said: str
    seconds: float
    hangs: bool = False  # it was killed for that, and not by the fault

    @property
    def ended(self) -> str:
        if self.hangs:
            return "hangs"
        if self.code < 0:
            return signal.Signals(-self.code).name
        return "finished" if self.code == 0 else f"exit {self.code}"

    @property
    def unclear(self) -> str:
        """Why a person would not know what happened; empty where one would."""
        if self.hangs:
            return f"it hangs: {self.said[-200:]!r}"
        if self.code in (0, -signal.SIGKILL) or self._was_starting:
            return ""
        if "Traceback" in self.said:
            return f"a traceback: {self.said.splitlines()[-1][:200]}"
        return f"no word of an error, {self.ended}: {self.said[-200:]!r}" if self.is_silent else ""

    @property
    def is_silent(self) -> bool:
        """Whether it ended by something else than volcast or Python, or never: without an error of theirs."""
        has_words = "Error:" in self.said or "Traceback" in self.said
        return not (has_words or self.code in (0, INTERRUPTED))

    @property
    def _was_starting(self) -> bool:
        """Whether it was interrupted before volcast had a word: in Python's own start, or while it imported."""
        in_python = self.said.endswith("KeyboardInterrupt\n") and f"{CODE}/" not in self.said
        return in_python or (self.code == -signal.SIGINT and not self.said)


@dataclass(frozen=True)
class Attempt:
    """A command that is to be hurt."""

    command: list[str]
    place: Path  # the folder that it runs in; its store is in data/
    environment: Mapping[str, str]
    seconds: float  # that it takes undisturbed
    chance: random.Random

    @property
    def moment(self) -> float:
        """Seconds after the start, somewhere in the command's life or just after it."""
        return self.chance.uniform(0, 1.05 * self.seconds)


class Running:
    """A command under way, and what it says.

    limit: a limit of the system (one of the module resource's RLIMIT_…) and its bytes; clock: see this module.
    """

    def __init__(
        self,
        command: list[str],
        place: Path,
        environment: Mapping[str, str],
        *,
        limit: tuple[int, int] | None = None,
        clock: Sequence[str] = (),
    ) -> None:
        self._log = place / f"command-{time.monotonic_ns()}.log"
        self._began = time.monotonic()
        self._writer: subprocess.Popen[bytes] | None = None  # of the log, where the command itself may not write much
        with ExitStack() as files:
            output: IO[bytes] = files.enter_context(self._log.open("wb"))
            if limit:
                self._writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=output)
                assert self._writer.stdin is not None
                output = files.enter_context(self._writer.stdin)
            self.process = subprocess.Popen(
                [sys.executable, "-m", *(["benchmarks.faults", *clock] if clock else ["volcast"]), *command],
                cwd=place,
                env=os.environ | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=(lambda: resource.setrlimit(limit[0], (limit[1], limit[1]))) if limit else None,
            )

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=seconds)
        return self.process.returncode is not None

    def end(self, patience: float = LIMIT_SECONDS) -> Run:
        """Wait for its end; one that takes longer is killed, and counts as hanging."""
        hangs = not self.wait(patience)
        if hangs:
            self.process.kill()
            self.process.wait()
        if self._writer is not None:
            self._writer.wait()
        return Run(self.process.returncode, self.said, time.monotonic() - self._began, hangs)


def _signal(number: signal.Signals) -> Callable[[Attempt], list[Run]]:
    def hurt(attempt: Attempt) -> list[Run]:
        running = Running(attempt.command, attempt.place, attempt.environment)
        if not running.wait(attempt.moment):
            running.process.send_signal(number)
        return [running.end()]

    return hurt


def _limit(kind: int, least: int, most: int) -> Callable[[Attempt], list[Run]]:
    """A limit of the system, drawn evenly from the powers of two between 2**least and 2**most bytes."""

    def hurt(attempt: Attempt) -> list[Run]:
        size = int(2 ** attempt.chance.uniform(least, most))
        running = Running(attempt.command, attempt.place, attempt.environment, limit=(kind, size))
        return [running.end(max(60.0, 20 * attempt.seconds))]

    return hurt


def _full_disk(attempt: Attempt) -> list[Run]:
    """The store on a file system of its own that has little room left, and that gets room again afterwards."""
    data, aside = attempt.place / "data", attempt.place / "aside"
    data.mkdir(exist_ok=True)
    data.rename(aside)
    data.mkdir()
    _mount("-t", "tmpfs", "tmpfs", str(data))
    shutil.copytree(aside, data, dirs_exist_ok=True)
    shutil.rmtree(aside)
    found = os.statvfs(data)
    used, room = (found.f_blocks - found.f_bfree) * found.f_frsize, int(2 ** attempt.chance.uniform(12, 17))
    _mount("-o", f"remount,size={used + room}", str(data))
    ended = Running(attempt.command, attempt.place, attempt.environment).end()
    shutil.copytree(data, aside)
    subprocess.run(["umount", str(data)], check=True)
    data.rmdir()
    aside.rename(data)
    return [ended]


def _read_only(attempt: Attempt) -> list[Run]:
    """The store's file system turns read-only while the command runs, as after an error of the disk."""
    data = attempt.place / "data"
    data.mkdir(exist_ok=True)
    _mount("--bind", str(data), str(data))
    running = Running(attempt.command, attempt.place, attempt.environment)
    running.wait(attempt.moment)
    remount = ["mount", "-o", "remount,ro,bind", str(data)]
    while subprocess.run(remount, capture_output=True, check=False).returncode and not running.wait(0.01):
        pass  # a file is open for writing
    ended = running.end()
    subprocess.run(["umount", str(data)], check=True)
    return [ended]


def _clock_jumps(attempt: Attempt) -> list[Run]:
    """The clock jumps by up to 400 days, back or forward, while the command runs."""
    begin, shift = datetime.now(UTC).isoformat(), attempt.chance.uniform(-400, 400)
    clock = [begin, str(attempt.moment), str(shift)]
    return [Running(attempt.command, attempt.place, attempt.environment, clock=clock).end()]


def _clock_change(attempt: Attempt) -> list[Run]:
    """The command runs through the change to or from daylight saving time."""
    begin = attempt.chance.choice(["2027-03-14T06:59:55+00:00", "2026-11-01T05:59:55+00:00"])  # 5 s before, New York
    zone = {"TZ": "America/New_York"}
    return [Running(attempt.command, attempt.place, dict(attempt.environment) | zone, clock=[begin, "0", "0"]).end()]


def _under_another_clock(begin: str, seconds: str, shift: str, *command: str) -> None:
    """The product's command line in this process, under a clock of its own."""
    from volcast.__main__ import process

    traveller = time_machine.travel(datetime.fromisoformat(begin), tick=True).start()
    jump = threading.Timer(float(seconds), lambda: traveller.shift(timedelta(days=float(shift))))
    jump.daemon = True
    jump.start()
    sys.argv = ["volcast", *command]
    process()


def _two_at_once(attempt: Attempt) -> list[Run]:
    """Two people do the same; two who promote, different versions."""
    words = pairwise(["", *attempt.command])
    other = ["1" if before == "--version" else word for before, word in words]
    first = Running(other, attempt.place, attempt.environment)
    first.wait(attempt.moment)
    second = Running(attempt.command, attempt.place, attempt.environment)
    return [first.end(), second.end()]


def _bucket(kind: Literal["refused", "reset", "lost", "slow"]) -> Callable[[Attempt], list[Run]]:
    """The store in a bucket that fails every fourth to twentieth request, by chance."""

    def hurt(attempt: Attempt) -> list[Run]:
        share, seed = attempt.chance.uniform(0.05, 0.25), attempt.chance.randrange(1000)
        return [_in_a_bucket(attempt, fake_s3.Fault(kind=kind, share=share, seed=seed, seconds=0.5, times=None))]

    return hurt


def _outage(attempt: Attempt) -> list[Run]:
    """The store in a bucket that from some request on answers none."""
    before = int(10 ** attempt.chance.uniform(0, 2.5))
    return [_in_a_bucket(attempt, fake_s3.Fault(kind="refused", after=before, times=None))]


def _in_a_bucket(attempt: Attempt, fault: fake_s3.Fault) -> Run:
    data = attempt.place / "data"
    data.mkdir(exist_ok=True)
    with fake_s3.bucket_of(data, [fault]) as access:
        environment = dict(attempt.environment) | access | {"VOLCAST_STORE": "s3://bucket/data"}
        return Running(attempt.command, attempt.place, environment).end()


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def flip_a_bit(path: Path, place: int | None = None) -> None:
    """Of the byte of a file at that place, counted from its end where it is below 0; by default in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def in_a_mount_namespace() -> None:
    """Begin this process anew where its mounts are its own and vanish with it; without the right to, go on as it is."""
    unshared = ["unshare", "--mount", "--propagation", "private"]
    if IN_NAMESPACE not in os.environ and not subprocess.run([*unshared, "true"], capture_output=True).returncode:
        os.environ[IN_NAMESPACE] = "1"
        os.execvp("unshare", [*unshared, sys.executable, *sys.orig_argv[1:]])


def needs_mounts() -> str:
    """Why nothing can be mounted here; empty where it can."""
    return "" if IN_NAMESPACE in os.environ else "it needs the right to mount"


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong while a command runs."""

    name: str
    hurt: Callable[[Attempt], list[Run]]
    always_strikes: bool = False  # else a command that finished was not hurt: the moment or the room was too large
    # Where there is no memory, libraries in C, C++ and Rust end the process, or try for ever (OpenBLAS, when it is
    # loaded): without a word of ours.
    is_left_to_libraries: bool = False
    needs: Callable[[], str] = field(default=lambda: "")

    @property
    def impossible(self) -> str:
        """Why it cannot be tried here; empty where it can."""
        return self.needs()


COMMAND_FAULTS = [
    Fault("kill -9", _signal(signal.SIGKILL)),
    Fault("Ctrl-C", _signal(signal.SIGINT)),
    Fault("file size", _limit(resource.RLIMIT_FSIZE, 8, 15)),
    Fault("memory", _limit(resource.RLIMIT_DATA, 26, 31), is_left_to_libraries=True),
    Fault("full disk", _full_disk, needs=needs_mounts),
    Fault("read-only", _read_only, needs=needs_mounts),
    Fault("clock jumps", _clock_jumps, always_strikes=True),
    Fault("clock change", _clock_change, always_strikes=True),
    Fault("two at once", _two_at_once, always_strikes=True),
    Fault("S3: 503", _bucket("refused"), always_strikes=True),
    Fault("S3: resets", _bucket("reset"), always_strikes=True),
    Fault("S3: lost", _bucket("lost"), always_strikes=True),
    Fault("S3: slow", _bucket("slow"), always_strikes=True),
    Fault("S3: outage", _outage),
]


if __name__ == "__main__":
    _under_another_clock(*sys.argv[1:])
