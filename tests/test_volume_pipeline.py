"""The volume recipe through the same flow, store and registry: one model of all tickers, 10 sessions ahead."""

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from days import TRAINING
from rows import yahoo_frame
from runs import forecasts_of, scored

from benchmarks.programs import BEATS_HAR
from volcast.flows.backtest import backtest
from volcast.flows.daily import daily
from volcast.flows.forecast import forecast
from volcast.flows.ingest import ingest
from volcast.flows.pipeline import pipeline
from volcast.flows.prefect_processes import without_server
from volcast.flows.retrain import retrain
from volcast.models.errors import NotEnoughSessions, UnknownRecipe
from volcast.models.sessions import sessions_between
from volcast.models.volume_training import fit_volume
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.errors import Corrupt, StoreError
from volcast.storage.prices import PriceTable
from volcast.storage.records import PipelineResult
from volcast.storage.staging import StoredCheckpoint
from volcast.storage.store import Store, open_store
from volcast.tasks.gate import AlreadyChampion, promote
from volcast.tasks.methods import volume
from volcast.tasks.reports.page import page
from volcast.tasks.reports.plots import SHOWN_SESSIONS
from volcast.tasks.reports.views import forecast_rows, history_of, score_rows
from volcast.tasks.settings import BacktestSettings, DataSettings, RetrainSettings, TrainingSettings, root_of
from volcast.tasks.stored_models import CHAMPION, universe

pytestmark = pytest.mark.usefixtures("no_server")

METHODS = {"volcast", "har", "naive", "seasonal_naive", "adv20"}
Finished = tuple[DataSettings, PipelineResult]


def data_in(folder: Path, as_of: date | None = date(2004, 6, 28), **settings: object) -> DataSettings:
    return DataSettings.model_validate(
        {"source": "simulated", "tickers": ("SBUX", "T2"), "store": str(folder), "as_of": as_of, **settings}
    )


def artifacts_of(result: PipelineResult) -> ArtifactStore:
    return ArtifactStore(open_store(result.snapshot.store))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One run of the pipeline over two tickers of the simulated exchange."""
    data = data_in(tmp_path_factory.mktemp("finished"))
    with without_server():
        return data, pipeline(data, TRAINING)


@pytest.fixture
def trained(finished: Finished, tmp_path: Path) -> Path:
    """A copy of what that run left, for the tests that go on from it."""
    return shutil.copytree(finished[0].store, tmp_path / "trained")


def test_one_model_forecasts_the_next_ten_sessions_of_every_ticker(finished: Finished) -> None:
    (report,) = finished[1].reports
    frame = forecasts_of(report.batch)
    assert report.batch.artifact.name == "volume"
    assert frame["unique_id"].value_counts().to_dict() == {"SBUX": 10, "T2": 10}
    coming = sessions_between(date(2004, 6, 29), date(2004, 7, 30))[:10]
    for _, own in frame.groupby("unique_id"):
        assert list(own["ds"]) == list(coming)
        assert list(own["h"]) == list(range(1, 11))
    assert set(frame["cutoff"].dt.date) == {date(2004, 6, 28)}
    quantiles = frame[[name for name in frame.columns if "-q-" in name]]
    assert quantiles.shape == (20, 9)
    assert (np.diff(quantiles.to_numpy(), axis=1) >= 0).all()
    assert list(frame["volcast"]) == list(frame["volcast-q-0.5"])
    assert list(frame["volcast-lo-80"]) == list(frame["volcast-q-0.1"])
    assert set(frame.drop(columns=["unique_id", "cutoff", "ds", "h", "why"]).dtypes.astype(str)) == {"float64"}
    product = frame[["normal", *(name for name in frame.columns if name.startswith("reason-"))]].prod(axis=1)
    assert list(product) == pytest.approx(list(frame["volcast"]))


def test_the_scorecard_has_the_baselines_of_the_same_sessions_and_says_what_took_part(finished: Finished) -> None:
    (report,) = finished[1].reports
    scorecard = scored(report)
    assert set(scorecard.scores) == METHODS
    assert scorecard.promote
    words = " ".join(scorecard.words)
    assert "of 2 tickers; the targets, 63 sessions" in words
    assert "horizons 1-5: " in scorecard.words[1]
    assert "har by" in scorecard.words[1]
    assert "dates of simulated:0" in words
    assert "63 test sessions are less than a year" in words
    assert "Sums of sessions inside of the 80 and the 95 % interval: of 2 " in words
    assert [row["method"] for row in score_rows(scorecard)] == list(scorecard.scores)
    sessions = [row["session"] for row in forecast_rows(report.batch)]
    assert (sessions[0], sessions[-3:]) == ("Tue 2004-06-29", ["the next 2", "the next 5", "the next 10"])
    (version,) = history_of(artifacts_of(finished[1]), "volume").versions
    assert version.is_champion
    assert version.score.startswith("MASE 1-5 ")
    assert version.verdict == scorecard.verdict


def test_the_report_has_a_fan_chart_a_ticker_and_the_calibration_and_is_called_simulated(finished: Finished) -> None:
    files = finished[1].reports[0].files
    assert {"forecast-SBUX.png", "forecast-T2.png", "calibration.png", "forecast.csv", "scorecard.md"} < set(files)
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for name, path in files.items() if name.endswith(".png"))
    assert "Simulated data" in Path(files["scorecard.md"]).read_text()
    exact, shown = pd.read_parquet(files["forecast.parquet"]), pd.read_csv(files["forecast.csv"])
    others = [name for name in shown if name.startswith("volcast-q-")]
    assert others == [f"volcast-q-{level}" for level in (0.2, 0.35, 0.65, 0.8)]  # the others have a name of their own
    factors = [name for name in shown if name.startswith("reason-")]
    values = shown.drop(columns=["unique_id", "cutoff", "ds", "h", "why", *factors])
    assert all(np.issubdtype(kind, np.integer) for kind in values.dtypes)
    assert not values.T.duplicated().any()
    assert (values - exact[values.columns]).abs().max().max() <= 0.5
    assert (shown[factors] - exact[factors]).abs().max().max() <= 0.00005


def test_a_forecast_walks_back_to_the_prices_and_the_features_are_known_by_their_profile(finished: Finished) -> None:
    artifacts = artifacts_of(finished[1])
    chain = artifacts.walk(artifacts.get("forecast", "volume", 1))
    assert {step.kind for step in chain} == {"forecast", "model", "scaler", "features", "prices"}
    features = artifacts.get("features", "volume", 1)
    profile = json.loads(artifacts.read(features, "profile.json"))
    assert set(profile["traded_sessions"]) == {"SBUX", "T2"}
    assert all(len(own["deciles"]) == 9 and own["std"] >= 0 for own in profile["features"].values())
    assert universe(artifacts, "volume", 1) == ("SBUX", "T2")
    assert features.facts["earnings_sources"] == ["simulated:0"]
    assert features.facts["rows"] - features.facts["train_rows"] == 2 * 63  # pyright: ignore[reportOperatorIssue]


def test_the_same_run_again_is_skipped_and_other_tickers_between_change_nothing(tmp_path: Path) -> None:
    data, other = data_in(tmp_path), data_in(tmp_path, tickers=("SBUX",))
    first = pipeline(data, TRAINING)
    again = pipeline(data, TRAINING)
    assert again.trainings["volume"].startswith("Skipped: no session after 2004-06-28")
    assert again.reports[0].batch == first.reports[0].batch
    alone = pipeline(other, TRAINING)
    assert not alone.trainings["volume"].startswith("Skipped")
    assert pipeline(data, TRAINING).trainings["volume"].startswith("Skipped")
    assert artifacts_of(first).versions("model", "volume") == [1, 2]


def test_an_old_champion_gives_way_and_what_is_scored_again_keeps_its_measure(trained: Path) -> None:
    later = data_in(trained, date(2004, 9, 17))
    ingest(later)
    other = TRAINING.model_copy(update={"seed": 8})  # which beats har on these sessions
    card = retrain(later, other)
    assert "the champion gives way: model volume v1 is 57 sessions old, more than 53" in card.verdict
    artifacts = ArtifactStore(open_store(card.model.snapshot.store))
    first, second = (artifacts.get("scorecard", "volume", version).facts for version in (1, 2))
    is_better = card.scores["volcast"]["mase_1_5"] <= card.scores["champion"]["mase_1_5"]
    assert (first["best"], second["best"]) == (1, 2 if is_better else 1)
    again = retrain(later, other.model_copy(update={"force": True}))
    assert again.model.artifact == card.model.artifact
    assert artifacts.get("scorecard", "volume").facts["best"] == second["best"]


def test_a_model_of_fewer_tickers_cannot_take_the_place_of_one_that_serves_more(trained: Path) -> None:
    alone = pipeline(data_in(trained, tickers=("SBUX",)), TRAINING)
    assert alone.trainings["volume"].startswith("Kept volume v2: MASE ")
    assert "it was not made of T2, which the champion v1 serves" in alone.trainings["volume"]
    model = forecast(data_in(trained), TRAINING).model
    assert model is not None
    assert model.artifact.version == 1


def test_a_model_of_its_own_and_an_experiment_leave_the_champion_alone(trained: Path) -> None:
    alone = data_in(trained, tickers=("SBUX",))
    artifacts = ArtifactStore(open_store(root_of(alone.store, alone.source)))
    champion = artifacts.alias("model", "volume", CHAMPION)
    own = TRAINING.model_copy(update={"name": "own.SBUX"})
    result = pipeline(alone, own, RetrainSettings(promote=False))
    assert result.trainings["own.SBUX"].startswith(
        "Kept own.SBUX v1: An experiment, by --no-promote; the gate says: MASE "
    )
    assert artifacts.alias("model", "own.SBUX", CHAMPION) is None
    (report,) = result.reports
    assert (report.batch.artifact.name, report.batch.by) == ("own.SBUX", "har")
    assert pipeline(alone, own).trainings["own.SBUX"].startswith("Promoted own.SBUX v1: MASE ")
    assert artifacts.versions("model", "own.SBUX") == [1]  # it was not trained again
    assert artifacts.versions("model", "volume") == [1]
    assert artifacts.alias("model", "volume", CHAMPION) == champion
    with pytest.raises(UnknownRecipe, match=r"own\.SBUX is the name of models of the recipe volume"):
        retrain(alone, TrainingSettings(recipe="tutorial", name="own"))


def test_new_sessions_retrain_and_the_champion_is_scored_on_the_same_rows(trained: Path) -> None:
    later = pipeline(data_in(trained, date(2004, 7, 30)), TRAINING)
    (report,) = later.reports
    scorecard = retrain(data_in(trained, date(2004, 7, 30)), TRAINING)
    assert set(scorecard.scores) == METHODS | {"champion"}
    assert scorecard.scores["volcast"]["mase_1_5"] < scorecard.scores["har"]["mase_1_5"]
    assert "against the champion, at most " in scorecard.verdict
    assert report.batch.model is not None
    assert report.batch.model.artifact.version == (2 if scorecard.promote else 1)
    assert report.batch.first_session == date(2004, 8, 2)
    assert "MASE" in scorecard.verdict


def test_sessions_after_the_cutoff_cannot_change_a_bit_of_model_or_forecast(tmp_path: Path) -> None:
    frame = yahoo_frame(500)
    cutoff = date.fromisoformat(frame["Date"].iloc[440])
    digests = []
    for name, factor in (("as_it_was", 1.0), ("another_future", 7.0)):
        changed = frame.copy()
        changed.loc[441:, "Volume"] = (changed.loc[441:, "Volume"] * factor).astype("int64")
        (tmp_path / name).mkdir()
        changed.to_csv(tmp_path / name / "SBUX.csv", index=False)
        source = {"source": f"files:{tmp_path / name}", "tickers": ("SBUX",)}
        ingest(data_in(tmp_path / name / "data", **source, as_of=None))
        data = data_in(tmp_path / name / "data", **source, as_of=cutoff)
        scorecard, batch = retrain(data, TRAINING), forecast(data, TRAINING)
        digests.append((scorecard.model.artifact.digest, batch.artifact.digest, scorecard.scores))
    assert digests[0] == digests[1]


def test_without_announcements_the_scorecard_says_so_and_a_short_history_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    yahoo_frame(500).to_csv(tmp_path / "csv" / "SBUX.csv", index=False)
    yahoo_frame(5, seed=2).to_csv(tmp_path / "csv" / "NEW.csv", index=False)
    source = {"source": f"files:{tmp_path / 'csv'}", "tickers": (), "as_of": None}
    (report,) = pipeline(data_in(tmp_path / "data", **source), TRAINING).reports
    assert "No announced earnings were known: their features are zeros." in scored(report).words
    assert "Not forecast, too short a history: NEW." in scored(report).words
    assert set(forecasts_of(report.batch)["unique_id"]) == {"SBUX"}
    assert report.batch.left_out == ("NEW",)


def test_events_none_uses_none_of_the_announcements_that_are_stored(finished: Finished, tmp_path: Path) -> None:
    stored, unannounced = (shutil.copytree(finished[0].store, tmp_path / name) for name in ("stored", "unannounced"))
    shutil.rmtree(unannounced / "simulated-0" / "events")
    asked = data_in(stored, events="none")
    without = forecasts_of(forecast(asked, TRAINING))
    pd.testing.assert_frame_equal(without, forecasts_of(forecast(data_in(unannounced), TRAINING)))
    assert not without.equals(forecasts_of(forecast(data_in(stored), TRAINING)))
    of_day = daily(asked, TRAINING).batch
    assert of_day is not None
    pd.testing.assert_frame_equal(forecasts_of(of_day), without)

    words = retrain(asked, TRAINING).words
    assert "Announced earnings were not used: use_earnings is false." in words
    days = {"test_start": date(2004, 6, 22), "test_end": date(2004, 6, 28), "settings": {**BEATS_HAR, "steps": 10}}
    tested = backtest(asked, BacktestSettings.model_validate(days))
    assert not tested.snapshot.uses_earnings
    facts = ArtifactStore(open_store(tested.snapshot.store)).get("backtest", "volume").facts
    assert facts["recipe"]["use_earnings"] is False  # pyright: ignore[reportIndexIssue, reportArgumentType, reportOptionalSubscript, reportCallIssue]


def test_a_run_reads_its_history_twice_and_for_charts_the_sessions_that_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, read = [], PriceTable.read

    def counted(table: PriceTable, *wanted: Any, **limits: Any) -> pd.DataFrame:
        frame = read(table, *wanted, **limits)
        rows.append(len(frame))
        return frame

    monkeypatch.setattr(PriceTable, "read", counted)
    result = pipeline(data_in(tmp_path), TRAINING)
    drawn = 2 * SHOWN_SESSIONS
    assert rows == [result.snapshot.rows] * 2 + [drawn] * 2  # its digest, its features; forecast, report
    rows.clear()
    assert "forecast volume v1" in page(data_in(tmp_path))
    assert rows == [drawn]


def test_too_few_sessions_are_one_clear_error(tmp_path: Path) -> None:
    yahoo_frame(190).to_csv(tmp_path / "SBUX.csv", index=False)
    data = data_in(tmp_path / "data", source=f"files:{tmp_path / 'SBUX.csv'}", as_of=None)
    with pytest.raises(NotEnoughSessions, match=r"SBUX: 190 sessions came, .* recipe volume needs 257"):
        pipeline(data.model_copy(update={"tickers": ("SBUX",)}), TRAINING)


class Killed(BaseException):
    """A process that ends in the middle of a training."""


def test_a_training_that_was_killed_goes_on_and_gives_the_same_weights(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = scored(finished[1].reports[0]).model
    data = data_in(tmp_path / "killed")

    def killed_after_a_checkpoint(*arguments: object, **settings: object) -> None:
        def kill(_step: int, _loss: float) -> None:
            raise Killed

        fit_volume(*arguments, **{**settings, "on_epoch": kill})  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(volume, "fit_volume", killed_after_a_checkpoint)
        with pytest.raises(Killed):
            pipeline(data, TRAINING)
    folder = tmp_path / "killed" / "simulated-0" / "checkpoints" / "volume"
    assert len(list(folder.iterdir())) == 1

    caplog.clear()
    resumed = scored(pipeline(data, TRAINING).reports[0]).model
    assert resumed.artifact.digest == whole.artifact.digest
    assert list(folder.iterdir()) == []
    steps = [line.split(",")[0] for line in caplog.messages if line.startswith("Step ")]
    assert steps == [f"Step {step} of 140" for step in range(20, 130, 10)]  # the first ten had been done
    assert "This training was stopped before, and resumes from its checkpoint: Step 10 of 140" in caplog.messages


@contextmanager
def full_disk(largest: int) -> Iterator[None]:
    """No file can become larger: what a full disk does, to this process alone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_in_a_training_costs_its_checkpoints_and_a_model_that_finds_no_room_is_not_trained_again(
    finished: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, data = scored(finished[1].reports[0]).model, data_in(tmp_path)
    ingest(data)
    folder = tmp_path / "simulated-0/checkpoints/volume"
    in_the_way = tmp_path / "simulated-0/artifacts/model/volume/00000001.json"
    in_the_way.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"artifacts/model/volume"):
        retrain(data, TRAINING)
    (kept_size,) = (each.stat().st_size for each in folder.iterdir())
    in_the_way.rmdir()
    caplog.clear()
    assert retrain(data, TRAINING).model.artifact.digest == whole.artifact.digest
    assert not [line for line in caplog.messages if line.startswith("Step ")]  # all of them had been done

    with full_disk(kept_size // 2):
        again = retrain(data, TRAINING.model_copy(update={"force": True})).model
    assert again.artifact.digest == whole.artifact.digest
    said = [line for line in caplog.messages if "no checkpoint can" in line]
    assert len(said) == 1
    assert "File too large" in said[0]


def test_a_checkpoint_is_replaced_checked_and_cleared(tmp_path: Path) -> None:
    store: Store = open_store(str(tmp_path))
    checkpoint = StoredCheckpoint(store=store, name="volume", inputs="ab", warn=print)
    assert checkpoint.load() is None
    checkpoint.save(b"one")
    checkpoint.save(b"two")
    assert checkpoint.load() == b"two"
    path = tmp_path / checkpoint.key
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(Corrupt, match="Delete it"):
        checkpoint.load()
    checkpoint.clear()
    checkpoint.clear()
    assert checkpoint.load() is None


def test_a_champion_without_earnings_is_scored_on_inputs_of_its_own(tmp_path: Path) -> None:
    data = data_in(tmp_path)
    without = TRAINING.model_copy(update={"settings": {**BEATS_HAR, "use_earnings": False}})
    first = scored(pipeline(data, without).reports[0])
    assert "Announced earnings were not used: use_earnings is false." in first.words
    with suppress(AlreadyChampion):  # as good as har: whether it passes hangs by a thread
        promote(root_of(data.store, data.source), "volume", 1, "for the test: it does not beat har")
    second = retrain(data, TRAINING)
    assert second.scores["champion"] == pytest.approx(first.scores["volcast"])
    assert isinstance(forecasts_of(forecast(data, TRAINING)), pd.DataFrame)
