import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from rows import yahoo_frame

from volcast.flows import cli
from volcast.flows.champion import promote, rollback
from volcast.flows.forecast import forecast
from volcast.flows.ingest import ingest
from volcast.flows.retrain import retrain
from volcast.flows.verify import verify
from volcast.storage.artifacts import ArtifactStore, Draft
from volcast.storage.errors import Corrupt, NotStored, VersionConflict
from volcast.storage.records import Answer, ForecastBatch, Outcome, Provenance, Scorecard
from volcast.storage.store import open_store
from volcast.tasks.gate import AlreadyChampion, promote_model
from volcast.tasks.settings import DataSettings, RetrainSettings, TrainingSettings
from volcast.tasks.stored_models import CHAMPION, FORECAST_FILE, champion_version

pytestmark = pytest.mark.usefixtures("prefect_api")
NAME = "tutorial.SBUX"


def forecast_bytes(batch: ForecastBatch) -> bytes:
    artifacts = ArtifactStore(open_store(batch.snapshot.store))
    return artifacts.read(artifacts.get("forecast", batch.artifact.name, batch.artifact.version), FORECAST_FILE)


@pytest.fixture(scope="module")
def two_versions(prefect_api: object, tmp_path_factory: pytest.TempPathFactory) -> tuple[DataSettings, ForecastBatch]:
    """A store with v1 and v2 of one model, v2 the champion, and the forecast that v1 made before v2 came."""
    assert prefect_api
    folder = tmp_path_factory.mktemp("moves")
    yahoo_frame().to_csv(folder / "SBUX.csv", index=False)
    store = str(folder / "data")
    data = DataSettings(source=f"files:{folder / 'SBUX.csv'}", store=store, tickers=("SBUX",), as_of=date(2020, 12, 10))
    ingest(data)
    training = TrainingSettings(recipe="tutorial", device="cpu")
    retrain(data, training)
    before = forecast(data, training)
    retrain(data, training.model_copy(update={"seed": 1}))
    if len(ArtifactStore(open_store(store)).history("model", NAME, CHAMPION)) == 1:
        promote(NAME, 2, "for the test", store=store)
    return data, before


def test_forecasts_after_a_rollback_are_the_earlier_ones_bit_for_bit(
    two_versions: tuple[DataSettings, ForecastBatch],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli.console, "_width", 200)
    data, before = two_versions
    training = TrainingSettings(recipe="tutorial", device="cpu")
    by_second = forecast(data, training)
    assert by_second.model
    assert before.model
    assert by_second.model.artifact.version == 2
    assert forecast_bytes(by_second) != forecast_bytes(before)

    moved = rollback(NAME, " MASE rose [twice] ", store=data.store)
    again = forecast(data, training)
    assert (moved.version, moved.reason) == (1, "MASE rose [twice]")
    assert again.model
    assert again.model.artifact == before.model.artifact
    assert again.artifact.digest == before.artifact.digest
    assert forecast_bytes(again) == forecast_bytes(before)

    cli.promote(data, NAME, version=2, reason="forward again")
    assert forecast_bytes(forecast(data, training)) == forecast_bytes(by_second)
    history = ArtifactStore(open_store(data.store)).history("model", NAME, CHAMPION)
    assert [entry.version for entry in history] == [1, 2, 1, 2]
    capsys.readouterr()
    cli.list_models(data).show()
    shown = capsys.readouterr().out
    assert "v1. MASE rose [twice]" in shown
    assert "v2. forward again" in shown


@pytest.mark.parametrize("api_url", [None, "http://127.0.0.1:9/api"], ids=["no server", "one that is down"])
def test_a_champion_is_moved_without_prefect_and_a_person_told_how_to_forecast(
    two_versions: tuple[DataSettings, ForecastBatch],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    api_url: str | None,
) -> None:
    data, _ = two_versions
    monkeypatch.setenv("VOLCAST_HOME", str(tmp_path))
    settings: dict[Any, Any] = {PREFECT_API_URL: api_url}
    with temporary_settings(settings):
        champion = champion_version(ArtifactStore(open_store(data.store)), NAME)
        cli.promote(data, NAME, version=1 if champion == 2 else 2, reason="for the test")
    assert "before the next daily run: volcast forecast" in capsys.readouterr().out


def test_a_move_that_cannot_be_is_refused_and_changes_nothing(two_versions: tuple[DataSettings, ForecastBatch]) -> None:
    data, _ = two_versions
    artifacts = ArtifactStore(open_store(data.store))
    before = artifacts.history("model", NAME, CHAMPION)
    with pytest.raises(NotStored, match=r"has no version 9; stored versions: \[1, 2\]"):
        cli.promote(data, NAME, version=9, reason="a typing error")
    with pytest.raises(NotStored, match=r"No model tutorial\.AAPL .* It holds: tutorial\.SBUX"):
        cli.roll_back(data, "tutorial.AAPL", reason="a typing error")
    with pytest.raises(ValueError, match="needs a reason"):
        cli.roll_back(data, NAME, reason="  ")
    with pytest.raises(AlreadyChampion):
        cli.promote(data, NAME, version=before[-1].version, reason="again")
    assert artifacts.history("model", NAME, CHAMPION) == before


def test_verify_fails_where_something_is_damaged_and_says_what(
    two_versions: tuple[DataSettings, ForecastBatch],
) -> None:
    data, _ = two_versions
    assert verify(data.store) == 0
    blob = next(path for path in Path(data.store, "blobs").rglob("*") if path.is_file())
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Corrupt, match="1 fault found in"):
        verify(data.store)
    blob.write_bytes(whole)


@flow
def settle(scorecard: Scorecard, answer: Answer) -> Outcome:
    """The last step of a retraining, for a scorecard that has waited."""
    return promote_model(scorecard, answer, RetrainSettings())


def test_a_scorecard_that_knew_another_champion_promotes_nothing(
    two_versions: tuple[DataSettings, ForecastBatch], tmp_path: Path
) -> None:
    """An approval that comes days later neither replaces a newer champion nor undoes a rollback."""
    store = str(shutil.copytree(two_versions[0].store, tmp_path / "data"))
    data = two_versions[0].model_copy(update={"store": store})
    artifacts, experiment = ArtifactStore(open_store(store)), RetrainSettings(promote=False)
    if champion_version(artifacts, NAME) != 1:
        rollback(NAME, "where the test begins", store=store)
    third = TrainingSettings(recipe="tutorial", device="cpu", seed=2)
    card = retrain(data, third, experiment).model_copy(update={"promote": True})  # scored beside v1
    yes = Answer(approved=True, reason="the scorecard is good")

    promote(NAME, 2, "it is newer", store=store)
    outcome = settle(card, yes)
    assert outcome.name == "Kept"
    assert outcome.words.startswith(f"model {NAME} v3 was scored with the champion v1; since ")
    assert " UTC v2 forecasts (it is newer). Score it again with: volcast retrain --force;" in outcome.words

    rollback(NAME, "v2 errs", store=store)  # v1 again, and still v3 was scored before
    assert settle(card, yes).name == "Kept"
    refused = settle(card, Answer(approved=False, reason="no"))
    assert refused.name == "Refused"
    assert champion_version(artifacts, NAME) == 1

    again = retrain(data, third.model_copy(update={"force": True}), experiment)
    assert again.model.artifact == card.model.artifact
    assert settle(again.model_copy(update={"promote": True}), yes).name == "Promoted"
    assert champion_version(artifacts, NAME) == 3


def test_of_two_writers_that_move_a_champion_at_once_one_is_refused(tmp_path: Path) -> None:
    artifacts = ArtifactStore(open_store(str(tmp_path)))
    draft = Draft(
        kind="model", name="m", files={}, provenance=Provenance(code_version="", packages={}, flow_run_id=None, seed=0)
    )
    ref = artifacts.put(draft).ref
    assert artifacts.move_alias(ref, CHAMPION, "the first", after=0).number == 1
    with pytest.raises(VersionConflict, match="was moved by another writer meanwhile"):
        artifacts.move_alias(ref, CHAMPION, "the same moment", after=0)
    assert artifacts.move_alias(ref, CHAMPION, "after it", after=1).number == 2
