"""What a service lives through in a year on the simulated exchange, and a diary of it; benchmarks/year.py tells it.

1. `daily` on each weekday, `retrain` on each Saturday, and after a daily the retrainings that its events would start
2. on about one day in five the exchange does not answer; rows are missing, come late, are empty, or are corrected later
3. from the shift on each ticker has a week of its own, which the models before it have never seen
4. on some Saturdays the settings make a poor model
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from volcast.flows.daily import daily
from volcast.flows.ingest import ingest
from volcast.flows.monitor import WATCH
from volcast.flows.retrain import retrain
from volcast.models.sessions import sessions_between
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.records import Daily, Health
from volcast.storage.store import Store, open_store
from volcast.tasks.announcements import record_events
from volcast.tasks.fetch_prices import fetch_prices
from volcast.tasks.settings import DataSettings, RetrainSettings, TrainingSettings, WatchSettings, root_of

SEED = 2
SHIFT = date(2003, 5, 1)
EVE = date(2003, 1, 10)  # the newest session of the first prices and of the first model
END = date(2004, 1, 8)
NAME = "volume"  # of the model
TICKERS = ("SBUX", *(f"T{number}" for number in range(1, 8)))
FAULTS = "gap,null,restated,outage"
# Small, so that a training takes seconds; few sessions held back, so that a new regime soon counts.
SETTINGS: dict[str, Any] = {
    "members": 4,
    "steps": 150,
    "hidden_size": 16,
    "head_size": 32,
    "batch_sequences": 32,
    "validate_every_steps": 15,
    "stop_sessions": 10,
    "test_sessions": 20,
}
GOOD = TrainingSettings(device="cpu", settings=SETTINGS)
BAD = TrainingSettings(device="cpu", settings={**SETTINGS, "steps": 1})  # hardly more than drawn at random
RECHECK = 35  # stored sessions that are asked for again: the exchange corrects a volume after 30
FRIDAY = 4
EVENT_CAUSES = {
    "ERROR_BREACH": "quality",
    "MISCALIBRATED": "intervals",
    "DRIFT": "drift",
}  # code of a finding -> cause of a retraining (prefect.yaml)


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a service lives through."""

    folder: Path
    eve: date = EVE
    end: date = END
    shift: date = SHIFT
    tickers: tuple[str, ...] = TICKERS
    poor: tuple[date, ...] = (date(2003, 3, 8), date(2003, 7, 12))  # Saturdays
    watch: WatchSettings = WATCH
    good: TrainingSettings = GOOD

    @property
    def days(self) -> list[date]:
        """The weekdays, holidays among them."""
        return [day.date() for day in pd.bdate_range(self.eve + timedelta(days=1), self.end)]

    @property
    def store(self) -> Store:
        """Where the prices of the exchange are."""
        return open_store(root_of(str(self.folder), self.data(self.eve).source), writable=True)

    def data(self, day: date) -> DataSettings:
        """The exchange with its clock at the close of a day."""
        source = f"simulated:{SEED}?faults={FAULTS}&shift={self.shift}"
        return DataSettings(source=source, store=str(self.folder), as_of=day, recheck_sessions=RECHECK)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a retraining ended."""

    day: date
    cause: str
    words: str  # the final message of the run
    version: int | None  # of the model; None where nothing was trained
    is_poor: bool
    seconds: float

    @property
    def outcome(self) -> str:
        """Promoted, Kept or Skipped."""
        return self.words.replace(":", "").split()[0]


@dataclass(kw_only=True)
class Diary:
    """What has happened."""

    dailies: dict[date, Daily] = field(default_factory=dict)
    trainings: list[Training] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def healths(self) -> dict[date, Health]:
        """How things stood at the end of each day on which anything was new."""
        return {day: daily.health for day, daily in self.dailies.items() if daily.health is not None}

    @property
    def sessions(self) -> pd.DatetimeIndex:
        """The sessions that were lived through."""
        return sessions_between(min(self.dailies), max(self.dailies)).as_unit("s")


def live(script: Script, diary: Diary, on_day: Callable[[date], None]) -> None:
    """Day after day; the diary grows."""
    with simulated_clock():
        ingest(script.data(script.eve).model_copy(update={"tickers": script.tickers}))
        diary.trainings.append(train(script, script.eve, "person"))
        for day in script.days:
            started = time.perf_counter()
            diary.dailies[day] = daily(script.data(day), script.good, script.watch)
            diary.trainings += [train(script, day, cause) for cause in causes(diary.dailies[day].health, script.watch)]
            if day.weekday() == FRIDAY:
                diary.trainings.append(train(script, day + timedelta(days=1), "schedule"))
            diary.seconds += time.perf_counter() - started
            on_day(day)


def causes(health: Health | None, watch: WatchSettings) -> Iterator[str]:
    """Why the events of a daily start the deployment `retrain` (prefect.yaml)."""
    if health is None:
        return
    codes = {finding.code for finding in health.findings}
    yield from (cause for code, cause in EVENT_CAUSES.items() if code in codes)
    if health.untrained is None or health.untrained >= watch.retrain_sessions:
        yield "sessions"


def train(script: Script, day: date, cause: Any) -> Training:
    """One run of `retrain`, and what the store says of it."""
    started, is_poor = time.perf_counter(), day in script.poor
    why = RetrainSettings(cause=cause)
    words = retrain(script.data(day), BAD if is_poor else script.good, why).outcome
    return Training(
        day=day,
        cause=cause,
        words=words,
        version=None if words.startswith("Skipped") else _newest_scored(script),
        is_poor=is_poor,
        seconds=time.perf_counter() - started,
    )


def _newest_scored(script: Script) -> int:
    return ArtifactStore(script.store).get("scorecard", "volume").parents[0].version


@contextmanager
def simulated_clock() -> Iterator[None]:
    """A source that is down is asked again at once; one thread, for the other core serves Prefect."""
    steps: list[Any] = [fetch_prices, record_events]
    waits, threads = [step.retry_delay_seconds for step in steps], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for step in steps:
            step.retry_delay_seconds = [0.0]
        yield
    finally:
        torch.set_num_threads(threads)
        for step, wait in zip(steps, waits, strict=True):
            step.retry_delay_seconds = wait
