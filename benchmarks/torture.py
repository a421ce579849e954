"""Faults at random moments of real commands: what is lost, what is torn, and what running the same command again heals.

python -m benchmarks.torture [--trials 200] [--seed 0] [--faults NAME…] [--stages NAME…]      `make torture`

A trial takes a store as it stood before a stage (an ingest, a training, a forecast, …), runs the stage's command on it
with one fault (benchmarks/faults.py), and then asks:

    struck     did the fault have an effect on the command?
    torn       does `verify` find damage?
    lost       is something gone or changed that stood before, or is something else there than without the fault?
    unclear    did the command end with a traceback, or without a word?
    healed     does the same command, run again without a fault, end well, and is everything then as it would have been?

Everything is drawn from the seed but the moments' exact effect, which the machine's speed decides. Ends with a table, a
row a fault, and 1 where anything was torn, lost, unclear or not healed; Ctrl-C ends it with the table so far.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.faults import COMMAND_FAULTS, Attempt, Fault, Run, Running, in_a_mount_namespace
from benchmarks.programs import BEATS_HAR, CODE, PARTS, Up, options
from volcast.flows.server import Server, own_server
from volcast.storage.announced_dates import EventTable
from volcast.storage.append_tables import AppendTable, QuarantineTable, RestatementTable
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.errors import Corrupt
from volcast.storage.integrity import verify
from volcast.storage.ledger import ForecastTable, ScoreTable
from volcast.storage.price_rows import digest
from volcast.storage.prices import PriceTable
from volcast.storage.store import Store, open_store
from volcast.tasks.reports.render import NARROW

SMALL = ["--device", "cpu", *options(BEATS_HAR)]
NEXT_DAYS = ["--as-of", "2004-06-30"]  # two more sessions, too few for a training by event
STAGES: dict[str, tuple[str, list[str]]] = {  # name -> the stage whose store it begins with, and its command
    "ingest": ("", ["ingest", "--tickers", "SBUX,T1,T2", "--as-of", "2004-06-28"]),
    "train": ("ingest", ["retrain", *SMALL]),
    "forecast": ("train", ["forecast"]),
    "experiment": ("forecast", ["retrain", "--no-promote", "--seed", "1", *SMALL]),
    "promote": ("experiment", ["models", "promote", "volume", "--version", "2", "--reason", "tried by hand"]),
    "next ingest": ("forecast", ["ingest", *NEXT_DAYS]),
    "daily": ("forecast", ["daily", *NEXT_DAYS]),
    "gc": ("daily", ["gc", "--keep-versions", "1"]),
}
TABLES: list[type[AppendTable]] = [QuarantineTable, RestatementTable, EventTable, ForecastTable, ScoreTable]
TARGETS = (*PARTS, "up")  # of a kill -9 while the service runs
COUNTED = ("struck", "torn", "lost", "unclear", "healed")  # of a trial
LONG_AGO = 40 * 86_400  # seconds: what gc may remove


@dataclass(frozen=True)
class Trial:
    """What one fault did to one command."""

    fault: str
    stage: str
    ended: str  # how the command with the fault ended
    struck: bool  # whether the fault had an effect on it at all
    torn: list[str]
    lost: list[str]
    unclear: list[str]
    healed: bool
    seconds: float  # of the run that healed

    @property
    def failed(self) -> bool:
        return bool(self.torn or self.lost or self.unclear) or not self.healed


class Campaign:
    """The stores before and after each stage, undisturbed, and trials on copies of them."""

    def __init__(self, folder: Path, environment: Mapping[str, str], stages: Sequence[str] = tuple(STAGES)) -> None:
        self._folder, self._environment = folder, dict(environment)
        self.stages = list(stages)
        self._facts: dict[str, dict[str, str]] = {"": {}}
        self._seconds: dict[str, float] = {}

    def prepare(self) -> Iterator[str]:
        """Run each stage that is needed without a fault; gives its name before it begins. Raises RuntimeError."""
        needed = set(self.stages)
        for stage in reversed(STAGES):
            if stage in needed:
                needed.add(STAGES[stage][0])
        for stage in [stage for stage in STAGES if stage in needed]:
            yield stage
            place = self._copy(STAGES[stage][0], self._place(stage))
            made = Running(STAGES[stage][1], place, self._environment).end()
            if made.code:
                raise RuntimeError(f"{stage} without a fault ended with {made.code}: {made.said}")
            self._facts[stage], self._seconds[stage] = facts(place), made.seconds

    def trial(self, fault: Fault | str, chance: random.Random) -> Trial:
        """One fault, or a kill of that part of the service, at a random moment; then the run that heals."""
        if isinstance(fault, str):
            return self._service_trial(fault, chance)
        return self._command_trial(fault, chance.choice(self.stages), chance)

    def _command_trial(self, fault: Fault, stage: str, chance: random.Random) -> Trial:
        before, command = STAGES[stage]
        place = self._copy(before, self._folder / "trial")
        hurt = fault.hurt(Attempt(command, place, self._environment, self._seconds[stage], chance))
        torn, found = damage(place), facts(place)
        allowed = (self._facts[before], self._facts[stage])
        lost = [name for name in allowed[0] | found if found.get(name) not in [each.get(name) for each in allowed]]
        healer = Running(command, place, self._environment).end()
        after = facts(place)
        wrong = [f"{name} after healing" for name in allowed[1] | after if after.get(name) != allowed[1].get(name)]
        is_well = healer.code == 0 or "is the champion already" in healer.said  # of a promotion that was done before
        healed = is_well and not damage(place) and not wrong
        shutil.rmtree(place)
        ended = ", ".join(run.ended for run in hurt)
        silent = fault.is_left_to_libraries
        unclear = [run.unclear for run in hurt if run.unclear and not (silent and run.is_silent)]
        unclear += [f"the healing run: {healer.ended}: {healer.said[-300:]}"] if not is_well else []
        struck = fault.always_strikes or any(run.code for run in hurt)
        return Trial(fault.name, stage, ended, struck, torn, [*lost, *wrong], unclear, healed, healer.seconds)

    def _service_trial(self, target: str, chance: random.Random) -> Trial:
        """kill -9 of a part of the service while its deployment `daily` runs, and the `daily` that heals."""
        before, command = STAGES["daily"]
        place = self._copy(before, self._folder / "trial")
        data = {"as_of": command[-1]}
        with Up(place, "--source", "simulated") as up:
            run = up.run("daily", data=data)
            up.part("flow run")
            time.sleep(chance.uniform(0, self._seconds["daily"]))
            killed = up.kill(target)
            began = time.monotonic()
            first = up.ended(run)
            torn = damage(place)
            second = up.ended(up.run("daily", data=data))
            seconds = time.monotonic() - began
            ended = Run(up.end(), up.said, seconds)
        after, expected = facts(place), self._facts["daily"]
        lost = [f"{name} after healing" for name in expected | after if after.get(name) != expected.get(name)]
        healed = second["type"] == "COMPLETED" and not damage(place) and not lost
        shutil.rmtree(place)
        how = f"{'killed' if killed else 'it was gone'}, run {first['name']}, up {ended.ended}"
        unclear = [ended.unclear] if ended.unclear else []
        return Trial(_name(target), "daily", how, killed, torn, lost, unclear, healed, seconds)

    def _place(self, stage: str) -> Path:
        return self._folder / (stage.replace(" ", "-") or "empty")

    def _copy(self, stage: str, to: Path) -> Path:
        to.mkdir()
        if stage:
            shutil.copytree(self._place(stage), to, dirs_exist_ok=True)
        long_ago = time.time() - LONG_AGO
        for path in to.rglob("*"):  # gc removes nothing that is younger than a day
            os.utime(path, (long_ago, long_ago))
        return to


def store_of(place: Path) -> Store | None:
    """The store of a trial, where there is one already."""
    root = place / "data" / "simulated-0"
    return open_store(str(root)) if root.is_dir() else None


def damage(place: Path) -> list[str]:
    """What `verify` calls damage."""
    store = store_of(place)
    return [finding.words for finding in verify(store) if finding.damage] if store else []


def facts(place: Path) -> dict[str, str]:
    """Everything that is stored but its times, as digests by table, artifact and alias."""
    store = store_of(place)
    if store is None:
        return {}
    found = {}
    if PriceTable(store).version() is not None:
        found["prices"] = _or_damaged(lambda: digest(PriceTable(store).read()))
    for table in TABLES:
        if rows := _or_damaged(partial(_digest_of, table(store))):
            found[table.name] = rows
    artifacts = ArtifactStore(store)
    for kind, name, version in artifacts.all_versions():
        found[f"{kind} {name} v{version}"] = artifacts.get(kind, name, version).digest
    for kind, name, alias in artifacts.aliases():
        entry = artifacts.alias(kind, name, alias)
        found[f"{alias} of {kind} {name}"] = str(entry.version if entry else None)
    return found


def _or_damaged(read: Callable[[], str]) -> str:
    try:
        return read()
    except Corrupt:
        return "damaged"


def _digest_of(table: AppendTable) -> str:
    rows = table.read()
    timeless = rows.select_dtypes(exclude="datetimetz")
    return hashlib.sha256(timeless.to_csv(index=False).encode()).hexdigest() if len(rows) else ""


@contextmanager
def _shared_server(folder: Path) -> Iterator[dict[str, str]]:
    """One Prefect server for all commands; gives what their environment needs."""
    os.environ["VOLCAST_HOME"] = str(folder / "home")
    with own_server() as server:
        yield environment_of(server)


def environment_of(server: Server) -> dict[str, str]:
    """Of commands that use this server."""
    own = {
        "PREFECT_API_URL": server.api_url,
        "VOLCAST_SOURCE": "simulated",
        "PYTHONPATH": str(CODE),
    }
    return own | ({"PREFECT_API_AUTH_STRING": server.auth} if server.auth else {})


def table_of(trials: Sequence[Trial]) -> Table:
    """A row a fault: how often, what it did, and how long healing took."""
    table = Table("fault", "times", "struck", "torn", "lost", "unclear", "healed", "median s to heal", "most", **NARROW)
    for name in dict.fromkeys(trial.fault for trial in trials):
        own = [trial for trial in trials if trial.fault == name]
        counts = [sum(bool(getattr(trial, what)) for trial in own) for what in COUNTED]
        seconds = [trial.seconds for trial in own]
        table.add_row(name, *map(str, [len(own), *counts]), f"{median(seconds):.1f}", f"{max(seconds):.1f}")
    return table


def main() -> int:
    """The campaign that the arguments ask for."""
    in_a_mount_namespace()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    console, trials, asked = Console(), [], _arguments()
    chance = random.Random(asked.seed)
    with TemporaryDirectory() as temporary, _shared_server(Path(temporary)) as environment:
        campaign = Campaign(Path(temporary), environment, asked.stages)
        try:
            for stage in campaign.prepare():
                console.print(f"without a fault: {stage}", style="dim")
            for number, fault in zip(range(asked.trials), cycle(_possible(console, asked)), strict=False):
                trial = campaign.trial(fault, chance)
                trials.append(trial)
                bad = [*trial.torn, *trial.lost, *trial.unclear] or ([] if trial.healed else ["not healed"])
                words = f"{number + 1:4}  {trial.fault:18} {trial.stage:12} {trial.ended:28}"
                style = "red" if bad else "dim"
                console.print(f"{words} {'; '.join(bad) or 'whole'}", style=style, markup=False, highlight=False)
        except KeyboardInterrupt:
            console.print("Interrupted.")
    if trials:
        console.print(table_of(trials))
    return int(any(trial.failed for trial in trials))


def _possible(console: Console, asked: argparse.Namespace) -> list[Fault | str]:
    """The faults that were asked for, by default all, and can be tried here; those that cannot are said."""
    possible: list[Fault | str] = []
    for fault in [*COMMAND_FAULTS, *(TARGETS if "daily" in asked.stages else ())]:
        if isinstance(fault, Fault) and fault.impossible:
            console.print(f"{fault.name} is left out: {fault.impossible}")
        elif not asked.faults or _name(fault) in asked.faults:
            possible.append(fault)
    return possible


def _name(fault: Fault | str) -> str:
    return fault.name if isinstance(fault, Fault) else f"kill -9 of {fault}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    names = [_name(fault) for fault in (*COMMAND_FAULTS, *TARGETS)]
    parser.add_argument("--faults", nargs="+", choices=names, default=[], help="by default all")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="by default all")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
