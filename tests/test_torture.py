"""A short campaign of faults, and whether one that does harm would be seen."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.faults import Attempt, Fault, Run, Running, flip_a_bit
from benchmarks.programs import CODE
from benchmarks.torture import Campaign, environment_of, store_of
from volcast.flows.server import Server
from volcast.storage.prices import PriceTable

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def campaign(prefect_api: Server, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    made = Campaign(tmp_path_factory.mktemp("torture"), environment_of(prefect_api), stages=["ingest"])
    assert list(made.prepare()) == ["ingest"]
    return made


def store(place: Path) -> Path:
    return place / "data" / "simulated-0"


def flip_a_byte(place: Path) -> None:
    flip_a_bit(next((store(place) / "prices").rglob("*.parquet")))


def change_a_price(place: Path) -> None:
    opened = store_of(place)
    assert opened is not None
    table = PriceTable(opened)
    row = table.read().head(1).drop(columns="adj_close")
    table.upsert(row.assign(volume=7, later_adjustment=1.0))


def fault(harm: Callable[[Path], None]) -> Fault:
    """A command that ends well, and harm to what it stored."""

    def hurt(attempt: Attempt) -> list[Run]:
        ended = Running(attempt.command, attempt.place, attempt.environment).end()
        harm(attempt.place)
        return [ended]

    return Fault("harm", hurt)


def test_a_flipped_byte_is_torn_and_not_healed(campaign: Campaign) -> None:
    trial = campaign.trial(fault(flip_a_byte), random.Random(0))
    assert "prices" in " ".join(trial.torn)
    assert not trial.healed


def test_a_price_that_is_another_is_lost(campaign: Campaign) -> None:
    assert "prices" in campaign.trial(fault(change_a_price), random.Random(0)).lost


def test_a_traceback_silence_or_a_hang_is_unclear() -> None:
    assert Run(1, "Error: the disk is full", 1.0).unclear == ""
    assert Run(0, "", 1.0).unclear == ""
    assert Run(1, "Traceback (most recent call last):\nKeyError: 'x'", 1.0).unclear == "a traceback: KeyError: 'x'"
    assert "no word" in Run(1, "", 1.0).unclear
    assert Run(-9, "", 1.0).unclear == ""
    assert Run(-2, "", 1.0).unclear == ""  # interrupted while it imported
    assert Run(1, f'  File "{CODE}/flows/cli.py", line 1\nKeyboardInterrupt\n', 1.0).unclear != ""
    assert Run(-9, "Waiting", 600.0, hangs=True).unclear == "it hangs: 'Waiting'"


def test_a_short_campaign_loses_nothing(tmp_path: Path) -> None:
    names = ["memory", "full disk", "two at once", "S3: outage"]  # others: `make torture`
    asked = ["--trials", str(len(names)), "--stages", "ingest", "--faults", *names]
    command = [sys.executable, "-m", "benchmarks.torture", *asked]
    done = subprocess.run(command, cwd=CODE, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    tried = [name for name in names if f"{name} is left out" not in done.stdout]
    assert [name for name in tried if f"\n {name} " not in done.stdout] == []
