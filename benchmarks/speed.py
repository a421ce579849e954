"""Where the time and the memory of a day go: `python -m benchmarks.speed --tickers 500`.

An ingest of a simulated history, a retrain, and a `daily` with one new session, each the command itself in a process of
its own, with a server of its own. Of each stage the table has the wall clock, the CPU-seconds of the process (all
threads) and the most memory that it had while the stage ran. A stage is without the stages that it calls: `panel` is
the panel alone, whoever asks for it. `others` is what no stage is of (imports, orchestration, waiting), and `server` is
Prefect's own process. The last line has the sha256 of the forecast, by which two versions of the code are compared.
"""

import argparse
import functools
import json
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from benchmarks.programs import environment
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.store import open_store
from volcast.tasks.settings import root_of

BEFORE, NEWEST = date(2023, 12, 28), date(2023, 12, 29)  # the exchange's clock, without the new session and with it
SOURCE = "simulated:7?universe={tickers}"
STEPS = {"ingest": BEFORE, "retrain": BEFORE, "daily": NEWEST}
STAGES = {  # function, or method, or Prefect task -> the stage that it is
    "volcast.tasks.fetch_prices:fetch_prices": "fetch and validate",
    "volcast.tasks.store_prices:store_prices": "store",
    "volcast.tasks.count_prices:count_prices": "count",
    "volcast.tasks.announcements:record_events": "announcements",
    "volcast.tasks.snapshot:take_snapshot": "snapshot",
    "volcast.storage.prices:PriceTable.describe": "snapshot",
    "volcast.storage.prices:PriceTable.read": "read",
    "volcast.models.panel:make_panel": "panel",
    "volcast.models.panel:join_panels": "panel",
    "volcast.models.volume_inputs:build_inputs": "features",
    "volcast.tasks.train:build_features": "features stored",
    "volcast.models.volume_training:fit_volume": "train",
    "volcast.tasks.train:evaluate_model": "evaluate",
    "volcast.models.volume_model:VolumeModel.forecast": "forecast",
    "volcast.tasks.forecast:forecast_volume": "forecast, published",
    "volcast.models.har:Har.fit": "har",
    "volcast.models.har:Har.forecast": "har",
    "volcast.models.volume_evaluation:scales_now": "scales",
    "volcast.tasks.forecast:publish_forecast": "ledger",
    "volcast.tasks.monitor:score_forecasts": "scores",
    "volcast.tasks.monitor:measure_drift": "drift",
    "volcast.tasks.monitor:check_health": "health",
    "volcast.tasks.forecast:publish_charts": "report",
    "volcast.tasks.reports.page:publish_latest": "report",
    "volcast.tasks.reports.page:publish_page": "report",
    "volcast.tasks.reports.publish:publish_models": "report",
    "volcast.tasks.reports.publish:publish_scorecard": "report",
    "volcast.tasks.reports.publish:publish_status": "report",
    "volcast.tasks.reports.publish:refresh_status": "report",
}
OTHERS, SERVER = "others", "server"


def main() -> None:
    """Print a table for each step."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tickers", type=int, default=230)
    options.add_argument("--years", type=int, default=24, help="of history, at most 24")
    options.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="by default all")
    options.add_argument("--folder", type=Path, help="a folder that is kept, and gone on with; by default none")
    options.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # in the process of a step: where to write
    asked = options.parse_args()
    if asked.measure:
        asked.measure.write_text(json.dumps(_measured(asked.steps[0], asked.tickers, asked.years)))
        return
    folder = asked.folder or Path(mkdtemp())
    folder.mkdir(exist_ok=True)
    try:
        for step in asked.steps:
            _print(step, _run(step, folder, asked.tickers, asked.years))
        print(f"forecast {_forecast_digest(folder, asked.tickers)}")
    finally:
        if not asked.folder:
            shutil.rmtree(folder)


def _run(step: str, folder: Path, tickers: int, years: int) -> dict[str, list[float]]:
    found = folder / f"{step}.json"
    words = ["--tickers", str(tickers), "--years", str(years), "--steps", step, "--measure", str(found)]
    command = [sys.executable, "-m", "benchmarks.speed", *words]
    with (folder / f"{step}.log").open("w") as log:
        subprocess.run(command, cwd=folder, env=environment(folder), stdout=log, stderr=log, check=True)
    return json.loads(found.read_text())


def _print(step: str, found: dict[str, list[float]]) -> None:
    wall, cpu = (sum(each[place] for each in found.values()) for place in (0, 1))
    found[f"**{step}**"] = [wall, cpu, max(each[2] for each in found.values())]
    print("\n| stage | wall s | CPU s | peak GB |\n|---|---|---|---|")
    for name, (seconds, work, peak) in found.items():
        print(f"| {name} | {seconds:.1f} | {work:.1f} | {peak:.2f} |")
    sys.stdout.flush()


def _forecast_digest(folder: Path, tickers: int) -> str:
    """Of the newest one that is stored."""
    artifacts = ArtifactStore(open_store(root_of(str(folder / "data"), SOURCE.format(tickers=tickers))))
    newest = artifacts.newest("forecast", "volume")
    return "none" if newest is None else json.dumps({name: file.sha256 for name, file in newest.files.items()})


# --- in the process of a step ----------------------------------------------------------------------------------------


@dataclass
class Meter:
    """What each stage took: wall clock (s), CPU (s), most memory (GB). Threads inside of one stage count as one."""

    found: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0, 0.0]))
    _stages: list[str] = field(default_factory=lambda: [OTHERS])
    _inside: dict[int, int] = field(default_factory=dict)  # threads that are in the stage at each depth
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _since: tuple[float, float] = field(default_factory=lambda: (time.perf_counter(), time.process_time()))

    def look(self) -> None:
        """Give what was used since the last look to the innermost stage."""
        now, own = (time.perf_counter(), time.process_time()), self.found[self._stages[-1]]
        for place in range(2):
            own[place] += now[place] - self._since[place]
        own[2] = max(own[2], _peak())
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._since = (time.perf_counter(), time.process_time())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage's work; that of a thread which works at the same stage already is the same work."""
        with self._lock:
            is_first = self._stages[-1] != name
            if is_first:
                self.look()
                self._stages.append(name)
            depth = len(self._stages)
            self._inside[depth] = self._inside.get(depth, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._inside[depth] -= 1
                if not self._inside[depth]:
                    self.look()
                    del self._stages[depth - 1 :]

    def watch(self, place: str, name: str) -> None:
        """Let a function, a method or a Prefect task be a stage, wherever it was imported to."""
        module, _, path = place.partition(":")
        owner: Any = import_module(module)
        *owners, last = path.split(".")
        for each in owners:
            owner = getattr(owner, each)
        original = getattr(owner, last)
        if hasattr(original, "fn"):
            original.fn = self._watched(original.fn, name)
        elif owners:
            setattr(owner, last, self._watched(original, name))
        else:
            watched = self._watched(original, name)
            for each in list(sys.modules.values()):
                for known_as, value in list(vars(each).items()):
                    if value is original:
                        setattr(each, known_as, watched)

    def _watched(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def watched(*given: Any, **more: Any) -> Any:
            with self.stage(name):
                return function(*given, **more)

        return watched


def _peak() -> float:
    """The most memory since the last look, GB."""
    (found,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found) / 2**20


def _measured(step: str, tickers: int, years: int) -> dict[str, list[float]]:
    """The command, with a meter in it."""
    from volcast.flows import cli
    from volcast.tasks.sources import simulated

    for flow in ("ingest", "retrain", "daily"):
        import_module(f"volcast.flows.{flow}")
    meter = Meter()
    for place, name in STAGES.items():
        meter.watch(place, name)
    simulated.FIRST_SESSION = date(NEWEST.year + 1 - years, 1, 1)
    words = [step, "--source", SOURCE.format(tickers=tickers), "--as-of", str(STEPS[step])]
    cli.app.meta(words, exit_on_error=False, print_error=False)
    meter.look()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {**meter.found, SERVER: [0.0, children.ru_utime + children.ru_stime, children.ru_maxrss / 2**20]}


if __name__ == "__main__":
    main()
