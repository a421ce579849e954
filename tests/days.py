"""Six sessions of the simulated exchange that the service lives through, with a holiday between them."""

from datetime import date
from pathlib import Path

from benchmarks.programs import BEATS_HAR
from volcast.flows.daily import daily
from volcast.flows.ingest import ingest
from volcast.flows.retrain import retrain
from volcast.models.sessions import sessions_between
from volcast.storage.records import Daily
from volcast.storage.store import Store, open_store
from volcast.tasks.settings import DataSettings, TrainingSettings

TRAINING = TrainingSettings.model_validate({"device": "cpu", "settings": BEATS_HAR})
TICKERS = ("SBUX", "T1", "T2")
TRAINED = date(2004, 6, 28)
DAYS = [session.date() for session in sessions_between(date(2004, 6, 29), date(2004, 7, 7))]  # six, and a holiday
HOLIDAY = date(2004, 7, 5)
Served = tuple[Path, dict[date, Daily]]


def data_in(folder: Path, as_of: date, **settings: object) -> DataSettings:
    """Prices of the simulated exchange up to a date."""
    return DataSettings.model_validate({"source": "simulated", "store": str(folder), "as_of": as_of, **settings})


def store_in(folder: Path) -> Store:
    """The store of those prices."""
    return open_store(str(folder / "simulated-0"))


def serve_days(folder: Path) -> Served:
    """Those sessions of `daily` in the folder, by a champion trained the week before."""
    ingest(data_in(folder, TRAINED, tickers=TICKERS))
    retrain(data_in(folder, TRAINED), TRAINING)
    return folder, {day: daily(data_in(folder, day), TRAINING) for day in sorted([*DAYS, HOLIDAY])}
