"""A champion whose files are gone or damaged: har publishes, marked, everybody can see it, and it can be mended."""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from days import DAYS, TRAINED, TRAINING, Served, data_in, store_in
from programs import Volcast
from runs import run_named

from benchmarks.faults import flip_a_bit
from volcast.flows.daily import daily
from volcast.flows.forecast import forecast
from volcast.flows.monitor import monitor
from volcast.flows.retrain import retrain
from volcast.storage.artifacts import ArtifactStore, blob_key
from volcast.storage.errors import Corrupt, NotStored
from volcast.storage.integrity import verify
from volcast.storage.ledger import Ledger
from volcast.tasks.gate import promote
from volcast.tasks.monitor import present_health
from volcast.tasks.reports.page import page
from volcast.tasks.settings import ForecasterSettings, RetrainSettings
from volcast.tasks.stored_models import CHAMPION, MODEL_FILE
from volcast.tasks.train import contest_of

pytestmark = pytest.mark.usefixtures("prefect_api")

NEXT = date(2004, 7, 8)


def blob_of(folder: Path, kind: str, file_name: str) -> Path:
    """The file that holds a file of the first version."""
    manifest = ArtifactStore(store_in(folder)).get(kind, "volume", 1)
    return folder / "simulated-0" / blob_key(manifest.files[file_name])


def manifest_of(folder: Path, kind: str) -> Path:
    return folder / f"simulated-0/artifacts/{kind}/volume/00000001.json"


DAMAGES: dict[str, Callable[[Path], object]] = {
    "weights gone": lambda folder: blob_of(folder, "model", MODEL_FILE).unlink(),
    "weights and calibration damaged": lambda folder: flip_a_bit(blob_of(folder, "model", MODEL_FILE), -9),
    "manifest torn": lambda folder: manifest_of(folder, "model").write_bytes(b""),
    "manifest of the scaler gone": lambda folder: manifest_of(folder, "scaler").unlink(),
    "manifest of the features torn": lambda folder: manifest_of(folder, "features").write_bytes(b"{"),
    "alias torn": lambda folder: (folder / "simulated-0/aliases/model/volume/champion/00000001.json").write_bytes(b"{"),
}


def damaged(served: Served, to: Path, damage: str) -> Path:
    """A copy of the service's store with that damage."""
    folder = shutil.copytree(served[0], to / "damaged")
    DAMAGES[damage](folder)
    return folder


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize("damage", DAMAGES)
def test_har_publishes_and_the_status_says_what_to_do(served: Served, tmp_path: Path, damage: str) -> None:
    folder = damaged(served, tmp_path, damage)
    data = data_in(folder, DAYS[-1])
    batch = forecast(data, TRAINING)
    assert (batch.by, batch.model, batch.rows) == ("har", None, 30)
    health = present_health(data)
    found = {finding.code: finding for finding in health.findings if finding.needs_person}
    assert list(found) == ["FALLBACK_IN_USE", "UNUSABLE_CHAMPION"]
    assert batch.why in found["FALLBACK_IN_USE"].words
    assert "volcast retrain" in found["UNUSABLE_CHAMPION"].remedy
    assert "delete" not in found["UNUSABLE_CHAMPION"].words + batch.why
    if damage != "alias torn":  # whose version 1 is whole
        with pytest.raises((Corrupt, NotStored)):
            forecast(data, TRAINING, chosen=ForecasterSettings(version=1))


def test_a_day_is_lived_through_and_a_retraining_on_the_same_data_gives_the_weights_back(
    served: Served, tmp_path: Path, volcast: Volcast
) -> None:
    folder = damaged(served, tmp_path, "weights and calibration damaged")
    day = daily(data_in(folder, NEXT), TRAINING)
    assert day.batch is not None
    assert day.batch.author.startswith("har, a fallback: model volume v1 cannot be used: ")
    rows = Ledger(store_in(folder)).forecasts("volume", first=NEXT)
    assert set(rows.loc[rows["published"], "model"]) == {"har"}
    assert rows.loc[rows["published"], "why"].str.contains("v1 cannot be used").all()
    assert run_named(f"daily volume {NEXT}").name.endswith(": needs a person")
    assert daily(data_in(folder, NEXT), TRAINING).skipped

    assert "UNUSABLE_CHAMPION" in page(data_in(folder, NEXT))
    assert "UNUSABLE_CHAMPION Model volume v1 cannot be used" in volcast("status", "--store", folder).out
    assert volcast("models", "list", "--store", folder).code == 0

    scorecard = retrain(data_in(folder, TRAINED), TRAINING)  # which was not to be trained on twice
    assert (scorecard.model.artifact.version, scorecard.model.reused) == (1, True)
    assert list(verify(store_in(folder))) == []
    back = daily(data_in(folder, NEXT), TRAINING)
    assert back.batch is not None
    assert back.batch.by == "volcast"
    assert not monitor(data_in(folder, NEXT), TRAINING).needs_person


@pytest.mark.usefixtures("no_server")
def test_a_challenger_takes_the_place_of_a_champion_that_cannot_be_read_and_a_person_that_of_a_torn_alias(
    served: Served, tmp_path: Path, volcast: Volcast
) -> None:
    folder = damaged(served, tmp_path, "manifest torn")
    store, fewer = store_in(folder), retrain(data_in(folder, TRAINED, tickers=("SBUX", "T1")), TRAINING)
    contest = contest_of(store, fewer.model, {"volcast": 2, CHAMPION: 1}, RetrainSettings())
    assert contest.bar.startswith("it was not made of T2, which the champion v1 serves")  # as far as one knows
    scorecard = retrain(data_in(folder, TRAINED), TRAINING)
    assert scorecard.outcome.startswith("Promoted volume v3: MASE ")
    assert "with no champion beside it; the champion gives way: model volume v1 cannot be used: " in scorecard.outcome
    assert "00000001.json: expected a sealed Manifest" in volcast("models", "list", "--store", folder).out

    artifacts = ArtifactStore(store)
    (folder / "simulated-0/aliases/model/volume/champion/00000002.json").write_bytes(b"")
    with pytest.raises(Corrupt, match="say it anew: volcast models promote volume"):
        retrain(data_in(folder, TRAINED), TRAINING)
    assert "00000002.json" in volcast("models", "list", "--store", folder).out
    promote(artifacts.url, "volume", 3, "the alias was torn")
    entry = artifacts.alias("model", "volume", CHAMPION)
    assert entry is not None
    assert (entry.number, entry.version) == (3, 3)
