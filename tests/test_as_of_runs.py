"""Runs as of a past session: nothing that came later changes a bit of them, and no model from the future slips in."""

import shutil
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from days import TICKERS, TRAINED, TRAINING, data_in, store_in
from deltalake import DeltaTable
from runs import forecasts_of

from benchmarks.programs import BEATS_HAR
from volcast.flows.backtest import backtest
from volcast.flows.forecast import forecast
from volcast.flows.ingest import ingest
from volcast.flows.monitor import monitor
from volcast.flows.prefect_processes import without_server
from volcast.flows.retrain import retrain
from volcast.models.errors import FutureModel
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.tasks.gate import promote
from volcast.tasks.settings import BacktestSettings, ForecasterSettings, TrainingSettings, WatchSettings

pytestmark = pytest.mark.usefixtures("no_server")

LATER = date(2004, 7, 30)
SECOND = TRAINING.model_copy(
    update={"settings": {**BEATS_HAR, "test_sessions": 20}}
)  # trained through July's first session


def restate(folder: Path, *, last: date) -> None:
    """Volumes and prices of every stored session up to `last` become others."""
    table = PriceTable(store_in(folder))
    old = table.raw(TICKERS, first=date(2003, 1, 2))
    old = old.loc[old["session"] <= pd.Timestamp(last)]
    prices = {name: old[name] * 1.25 for name in ("open", "high", "low", "close")}
    table.upsert(old.assign(volume=old["volume"] * 3, **prices))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A champion of 2004-06-28; then a month of sessions, all old rows restated, and a champion of the end of July."""
    folder = tmp_path_factory.mktemp("lived")
    with without_server():
        live_in(folder)
    return folder


def live_in(folder: Path) -> None:
    ingest(data_in(folder, TRAINED, tickers=TICKERS))
    retrain(data_in(folder, TRAINED), TRAINING)
    shutil.copytree(folder, folder.with_name("then"))
    ingest(data_in(folder, LATER, tickers=TICKERS))
    restate(folder, last=TRAINED)
    retrain(data_in(folder, LATER), SECOND)
    if len(ArtifactStore(store_in(folder)).history("model", "volume", "champion")) == 1:
        promote(store_in(folder).url, "volume", 2, "for the test")


@pytest.fixture(scope="module")
def then(lived: Path) -> Path:
    """The same store as it was on the evening of 2004-06-28."""
    return lived.with_name("then")


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_comes_later_changes_no_bit_of_forecast_retraining_or_backtest(
    lived: Path, then: Path, tmp_path: Path, is_kept: bool
) -> None:
    folder, before = (shutil.copytree(each, tmp_path / each.name) for each in (lived, then))
    if not is_kept:
        table = DeltaTable(store_in(folder).table_url("prices"))
        table.vacuum(0, dry_run=False, enforce_retention_duration=False)  # all but the newest version
    own = TrainingSettings.model_validate({**TRAINING.model_dump(), "name": "own", "seed": 5})
    tested = BacktestSettings.model_validate(
        {"test_start": date(2004, 6, 14), "settings": {**TRAINING.settings, "steps": 10}, "device": "cpu"}
    )
    found = []
    for each in (before, folder):
        data = data_in(each, TRAINED)
        scorecard = retrain(data, own)
        batch = forecast(data, own, chosen=ForecasterSettings(version=1))
        result = backtest(data, tested)
        weights = ArtifactStore(store_in(each)).get("model", "own").files
        bits = (scorecard.scores, weights, batch.snapshot.prices.digest, result.scores)
        found.append((bits, forecasts_of(batch)))
    assert found[0][0] == found[1][0]
    pd.testing.assert_frame_equal(found[0][1], found[1][1])
    assert batch.snapshot.cutoff == TRAINED
    if is_kept:
        assert (batch.snapshot.prices.version, batch.snapshot.caveat) == (0, "")
    else:
        assert "v0 is not kept any more" in batch.snapshot.caveat
        assert "of before a restatement put back" in batch.snapshot.caveat


def test_a_champion_from_the_future_is_refused_with_the_version_that_may_forecast(lived: Path, then: Path) -> None:
    data = data_in(lived, TRAINED)
    with pytest.raises(
        FutureModel, match=r"v2 was trained on sessions up to 2004-07-01, after the cutoff.*--version 1\. "
    ):
        forecast(data, TRAINING)
    batch = forecast(data, TRAINING, chosen=ForecasterSettings(version=1))
    assert (batch.model is not None and batch.model.artifact.version, batch.from_future) == (1, "")
    pd.testing.assert_frame_equal(forecasts_of(batch), forecasts_of(forecast(data_in(then, TRAINED), TRAINING)))


def test_who_insists_gets_a_forecast_that_is_marked(lived: Path, caplog: pytest.LogCaptureFixture) -> None:
    batch = forecast(data_in(lived, TRAINED), TRAINING, chosen=ForecasterSettings(allow_future_model=True))
    assert batch.from_future == "model volume v2 was trained on sessions up to 2004-07-01, after the cutoff 2004-06-28"
    assert f"not as of then: {batch.from_future}" in batch.words
    facts = ArtifactStore(store_in(lived)).get("forecast", "volume", batch.artifact.version).facts
    assert facts["from_future"] == batch.from_future
    assert batch.from_future in caplog.text


def test_where_a_run_is_watched_har_stands_in_for_a_champion_from_the_future(lived: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(lived, tmp_path / "watched")
    batch = forecast(data_in(folder, TRAINED), TRAINING, WatchSettings())
    assert (batch.by, batch.model) == ("har", None)
    assert batch.why == "model volume v2 was trained on sessions up to 2004-07-01, after the cutoff 2004-06-28"
    health = monitor(data_in(folder, TRAINED), TRAINING)
    assert health.model_age is None
    assert "FUTURE_MODEL" in [finding.code for finding in health.findings]


def test_a_model_that_was_only_tested_on_later_sessions_forecasts_and_says_so(lived: Path) -> None:
    """Its weights know none of them, but it was chosen by them."""
    batch = forecast(data_in(lived, date(2004, 6, 1)), TRAINING, chosen=ForecasterSettings(version=1))
    assert (
        batch.from_future
        == "model volume v1 was tested and chosen on sessions up to 2004-06-28, after the cutoff 2004-06-01"
    )


def test_without_a_version_of_then_the_line_says_how_to_train_one(lived: Path) -> None:
    with pytest.raises(
        FutureModel, match=r"No version of volume knows less\. Train one: volcast retrain --as-of 2004-"
    ):
        forecast(data_in(lived, date(2004, 2, 2)), TRAINING)


def test_a_live_forecast_by_a_model_of_other_tickers_future_is_marked_in_the_ledger(
    lived: Path, tmp_path: Path
) -> None:
    """One ticker ends in June, and the model was made of another one's July."""
    folder = shutil.copytree(lived, tmp_path / "ended")
    ingest(data_in(folder, TRAINED, tickers=("T9",)))
    insist = ForecasterSettings(allow_future_model=True)
    batch = forecast(data_in(folder, TRAINED, tickers=("T9",)), TRAINING, chosen=insist)
    rows = Ledger(store_in(folder)).forecasts("volume", first=TRAINED)
    assert set(rows["ticker"]) == {"T9"}
    assert set(rows.loc[rows["published"], "why"]) == {f"not as of then: {batch.from_future}"}
    assert set(rows.loc[~rows["published"], "why"]) == {""}


def test_a_day_of_the_service_is_as_it_was(then: Path, tmp_path: Path) -> None:
    """As of the last session that is stored the newest values are read: a correction of the same evening counts."""
    folder = shutil.copytree(then, tmp_path / "evening")
    restate(folder, last=date(2004, 6, 21))
    batch = forecast(data_in(folder, TRAINED), TRAINING)
    assert (batch.snapshot.prices.version, batch.snapshot.caveat) == (1, "")
