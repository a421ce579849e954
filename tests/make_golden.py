"""Make the golden files of a release, once, by its own code:  python tests/make_golden.py 0.1.0

What it makes under tests/data/golden/<release>/ stays for ever, and a release that is there already is refused: later
releases must read the store and say the same (tests/test_golden.py). Run it in a clean checkout of the release, so that
the store's provenance names the commit. What the command line prints may change on purpose, and so may the forecasts of
har, which is part of no store: it is fitted for each of them. Both are made again by

    python tests/make_golden.py --update
"""

import json
import os
import shutil
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch
from golden import (
    GOLDEN,
    SOURCE,
    Opened,
    as_csv,
    as_sections,
    help_texts,
    machine,
    mistakes,
    simulated_digests,
    with_stores,
)

from volcast.flows.daily import daily
from volcast.flows.forecast import forecast
from volcast.flows.ingest import ingest
from volcast.flows.retrain import retrain
from volcast.flows.server import prefect_server
from volcast.models.sessions import sessions_between
from volcast.tasks import gate
from volcast.tasks.settings import DataSettings, TrainingSettings, root_of

TICKERS = ("SBUX", "MSFT", "BRK-B", "T1")
EVE, END = date(2001, 12, 31), date(2002, 2, 1)  # the first training; the newest session
SECOND_TRAINING = date(2002, 1, 25)
SMALL: dict[str, Any] = {
    "members": 2,
    "steps": 90,
    "hidden_size": 8,
    "head_size": 16,
    "batch_sequences": 16,
    "log_every_steps": 15,
    "stop_sessions": 20,
    "test_sessions": 20,
}
GOOD = TrainingSettings(device="cpu", settings=SMALL)
BAD = TrainingSettings(device="cpu", settings=SMALL | {"steps": 1})  # hardly more than drawn at random
TUTORIAL = TrainingSettings(
    recipe="tutorial", device="cpu", window_sessions=120, settings={"train_sessions": 80, "epochs": 100}
)


def make(release: str) -> None:
    """Store, answers, forecasts, digests, and the machine that they were made on."""
    folder = GOLDEN / release
    if folder.exists():
        raise SystemExit(f"{folder} is there already. What a release has said stays; make another release's.")
    with tempfile.TemporaryDirectory() as home:
        os.environ["VOLCAST_HOME"] = home
        store = Path(home, "store")
        with prefect_server():
            live(store)
        opened = Opened(folder=store)
        (folder / "frames").mkdir(parents=True)
        for name, frame in opened.frames().items():
            (folder / "frames" / f"{name}.csv").write_text(as_csv(frame))
        contents = {"facts": opened.facts(), "simulated": simulated_digests(), "machine": machine()}
        for name, content in contents.items():
            (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
        shutil.copytree(store, folder / "store")


def live(store: Path) -> None:
    """Some weeks of the service: a poor model that is kept, one that is promoted, a third one, a move by hand."""

    def data(day: date, **settings: Any) -> DataSettings:
        return DataSettings(source=SOURCE, store=str(store), as_of=day, recheck_sessions=35, **settings)

    first, *days = [session.date() for session in sessions_between(EVE, END)]
    ingest(data(first, tickers=TICKERS))
    retrain(data(first), BAD)
    daily(data(first), GOOD)  # by har
    retrain(data(first), GOOD)
    for day in days:
        daily(data(day), GOOD)
        if day == SECOND_TRAINING:
            retrain(data(day), GOOD.model_copy(update={"seed": 1}))
    root = root_of(str(store), SOURCE)
    gate.promote(root, "volume", 1, "A move by hand.")
    gate.roll_back(root, "volume", "And back.")
    retrain(data(END, tickers=("SBUX",)), TUTORIAL)
    forecast(data(END, tickers=("SBUX",)), TUTORIAL)


def update() -> None:
    """What the command line prints, and what har forecasts from the stores of all releases."""
    folder = GOLDEN / "cli"
    folder.mkdir(exist_ok=True)
    for har in GOLDEN.glob("*/frames/har.csv"):
        with tempfile.TemporaryDirectory() as temporary:
            store = Path(shutil.copytree(har.parents[1] / "store", Path(temporary, "store")))
            har.write_text(as_csv(Opened(folder=store).by_har()))
    with tempfile.TemporaryDirectory() as temporary:
        here = with_stores(Path(temporary).resolve())
        (folder / "help.txt").write_text(as_sections(help_texts(here)))
        (folder / "mistakes.txt").write_text(as_sections(mistakes(here)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["--update"]:
            update()
        case [release] if not release.startswith("-"):
            make(release)
        case _:
            raise SystemExit(__doc__)
