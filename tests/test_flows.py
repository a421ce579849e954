import re
import shutil
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from rows import yahoo_frame
from runs import artifacts_of, forecasts_of, log_lines, message_of, run_named, scored, task_run_names

from volcast.flows.forecast import forecast
from volcast.flows.ingest import ingest
from volcast.flows.pipeline import pipeline
from volcast.flows.retrain import retrain
from volcast.flows.server import Server
from volcast.models.errors import NotEnoughSessions
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.prices import PriceTable
from volcast.storage.records import Manifest, PipelineResult
from volcast.storage.store import open_store
from volcast.tasks.fetch_prices import FetchFailed
from volcast.tasks.forecast import write_forecasts
from volcast.tasks.runs import SomeModelsFailed
from volcast.tasks.settings import DataSettings, TrainingSettings, last_session
from volcast.tasks.stored_models import CHAMPION

pytestmark = pytest.mark.usefixtures("prefect_api")

Finished = tuple[DataSettings, PipelineResult]
TRAINING = TrainingSettings(recipe="tutorial", device="cpu")


def data_of(path: Path, store: Path, **settings: object) -> DataSettings:
    return DataSettings.model_validate({"source": f"files:{path}", "store": str(store), **settings})


@pytest.fixture(scope="module")
def finished(prefect_api: Server, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One run of the pipeline over a year of SBUX, for the tests that only look at what it left."""
    assert prefect_api.own
    folder = tmp_path_factory.mktemp("finished")
    yahoo_frame().to_csv(folder / "SBUX.csv", index=False)
    data = data_of(folder / "SBUX.csv", folder / "data")
    return data, pipeline(data, TRAINING)


@pytest.fixture
def trained(finished: Finished, tmp_path: Path) -> DataSettings:
    """Of a copy of what that run left, for the tests that go on from it."""
    store = shutil.copytree(finished[0].store, tmp_path / "trained")
    return finished[0].model_copy(update={"store": str(store), "tickers": ("SBUX",)})


def test_the_pipeline_ends_in_a_promoted_model_and_a_forecast_of_each_session(finished: Finished) -> None:
    result = finished[1]
    (report,) = result.reports
    assert (result.snapshot.prices.version, result.snapshot.rows) == (0, 253)
    assert result.snapshot.cutoff == date(2020, 12, 10)
    assert scored(report).promote
    assert report.batch.model is not None
    assert report.batch.model.artifact == scored(report).model.artifact
    forecasts = forecasts_of(report.batch)
    assert list(forecasts.columns) == ["unique_id", "cutoff", "ds", "h", "volcast"]
    assert len(forecasts) == 253
    assert list(forecasts["cutoff"]) == list(forecasts["ds"])
    assert set(forecasts["h"]) == {0}
    assert set(scored(report).scores) == {"volcast", "last_value", "mean_20", "least_squares"}
    assert "Same-session nowcast" in scored(report).words[0]
    assert all(Path(path).is_file() for path in report.files.values())


def test_each_step_is_a_task_run_named_for_what_it_does(finished: Finished) -> None:
    source = finished[0].source
    assert task_run_names(run_named("retrain tutorial SBUX 2020-12-10")) == [
        "bring the status up to date",
        "build tutorial features",
        "decide on model tutorial.SBUX v1",
        "evaluate model tutorial.SBUX v1",
        "fit scalers on train rows",
        "look for tutorial trained on the same data",
        "publish the report on model tutorial.SBUX v1",
        "publish the versions of the models",
        "take a snapshot of the prices",
        "train tutorial on 200 rows",
    ]
    assert task_run_names(run_named(f"ingest all of {source} {finished[0].day}")) == sorted(
        [
            "bring the status up to date",
            f"plan ingest from {source}",
            "fetch and validate SBUX",
            f"store prices of {source}",
            f"count prices of {source}",
            f"check what {source} gave",
            "record announcements of SBUX",
            "take a snapshot of the prices",
        ]
    )


def test_the_log_of_a_training_has_the_shapes_the_layers_and_each_hundredth_loss(finished: Finished) -> None:
    lines = log_lines(run_named("retrain tutorial SBUX 2020-12-10"))
    assert "Training shape: (200, 1, 5) (200, 1)" in lines
    assert "Testing shape: (53, 1, 5) (53, 1)" in lines
    epochs = [int(line.split()[1].rstrip(",")) for line in lines if line.startswith("Epoch: ")]
    assert epochs == [*range(0, 1000, 100), 999]
    assert any("585" in line for line in lines)
    final_loss = scored(finished[1].reports[0]).model.final_loss
    assert f"Epoch: 999, loss: {final_loss:.5f}" in lines


def test_a_retraining_carries_one_scorecard_with_its_table_and_plots_and_a_nowcast_nothing(finished: Finished) -> None:
    root = finished[1].snapshot.store
    assert finished[1].reports
    assert artifacts_of(run_named("forecast tutorial SBUX 2020-12-10"), root) == {}
    artifacts = artifacts_of(run_named("retrain tutorial SBUX 2020-12-10"), root)
    assert set(artifacts) == {"scorecard-tutorial-sbux", "models"}
    markdown = str(artifacts["scorecard-tutorial-sbux"].data)
    assert markdown.count("](data:image/png;base64,") == 2
    assert len(markdown) < 300_000
    assert "Same-session nowcast" in markdown
    assert "| least_squares |" in markdown
    assert str(artifacts["scorecard-tutorial-sbux"].description).startswith("Passed the gate: ")


def test_a_forecast_walks_back_to_the_prices_that_it_came_from(finished: Finished) -> None:
    batch = finished[1].reports[0].batch
    store = open_store(batch.snapshot.store)
    artifacts = ArtifactStore(store)
    chain = artifacts.walk(artifacts.get("forecast", "tutorial.SBUX", 1))
    assert {step.kind for step in chain} == {"forecast", "model", "scaler", "features", "prices"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", step.digest) for step in chain)
    (prices,) = (step for step in chain if step.kind == "prices")
    assert prices.digest == PriceTable.digest(PriceTable(store).read(["SBUX"], version=prices.version))
    made_by = [step.provenance for step in chain if isinstance(step, Manifest)]
    assert all(provenance.flow_run_id and provenance.packages["torch"] for provenance in made_by)


def test_the_same_run_again_is_skipped_by_name_and_makes_no_version(sbux_csv: Path, tmp_path: Path) -> None:
    data = data_of(sbux_csv, tmp_path / "data")
    first = pipeline(data, TRAINING)
    second = pipeline(data, TRAINING)

    assert second.trainings["tutorial.SBUX"].startswith("Skipped: no session after 2020-12-10")
    assert second.snapshot == first.snapshot
    assert second.reports[0].batch == first.reports[0].batch
    assert message_of(run_named("retrain tutorial SBUX 2020-12-10: skipped")) == second.trainings["tutorial.SBUX"]
    artifacts = ArtifactStore(open_store(first.snapshot.store))
    for kind in ("features", "scaler", "model", "scorecard", "forecast"):
        assert artifacts.versions(kind, "tutorial.SBUX") == [1]


def test_a_forced_retraining_gives_the_same_weights_bit_for_bit(finished: Finished, trained: DataSettings) -> None:
    first = scored(finished[1].reports[0]).model
    again = retrain(trained, TRAINING.model_copy(update={"force": True})).model
    assert again.artifact == first.artifact
    assert again.reused
    assert not first.reused


def test_another_seed_is_scored_beside_the_champion_on_the_same_rows(finished: Finished, trained: DataSettings) -> None:
    first = scored(finished[1].reports[0])
    second = retrain(trained, TRAINING.model_copy(update={"seed": 1}))

    assert second.scores["champion"] == first.scores["volcast"]
    better = second.scores["volcast"]["rmse_shares"] <= second.scores["champion"]["rmse_shares"]
    assert second.promote is better
    artifacts = ArtifactStore(open_store(trained.store))
    entry = artifacts.alias("model", "tutorial.SBUX", CHAMPION)
    assert entry is not None
    assert entry.version == (2 if better else 1)
    model = forecast(trained, TRAINING).model
    assert model is not None
    assert model.artifact.version == entry.version


def test_rows_after_the_cutoff_cannot_change_a_bit_of_model_or_forecast(tmp_path: Path) -> None:
    frame = yahoo_frame(300)
    cutoff = date.fromisoformat(frame["Date"].iloc[260])
    results = []
    for name, factor in (("as_it_was", 1.0), ("another_future", 7.0)):
        changed = frame.copy()
        prices = ["Open", "High", "Low", "Close", "Adj Close"]
        changed.loc[261:, prices] = changed.loc[261:, prices] * factor
        changed.loc[261:, "Volume"] = (changed.loc[261:, "Volume"] * factor).astype("int64")
        (tmp_path / name).mkdir()
        changed.to_csv(tmp_path / name / "SBUX.csv", index=False)
        store = tmp_path / name / "data"
        ingest(data_of(tmp_path / name, store))  # the future is in the store, and must not be looked at
        data = data_of(tmp_path / name, store, tickers=("SBUX",), as_of=cutoff)
        scorecard, batch = retrain(data, TRAINING), forecast(data, TRAINING)
        results.append((scorecard.model.artifact.digest, batch.artifact.digest, scorecard.scores))
    assert results[0] == results[1]


def test_a_model_that_fails_is_named_and_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    yahoo_frame().to_csv(tmp_path / "csv" / "SBUX.csv", index=False)
    yahoo_frame(150, seed=2).to_csv(tmp_path / "csv" / "NEW.csv", index=False)
    with pytest.raises(SomeModelsFailed, match=r"1 of 2 models\. NEW: 150 sessions came") as caught:
        pipeline(data_of(tmp_path / "csv", tmp_path / "data"), TRAINING)
    (report,) = caught.value.result.reports
    assert report.batch.snapshot.tickers == ("SBUX",)
    assert run_named(f"pipeline tutorial all of files:{tmp_path / 'csv'} {last_session(None)}").state_name == "Failed"


def test_too_few_sessions_are_one_clear_error_and_the_prices_stay(tmp_path: Path) -> None:
    yahoo_frame(150).to_csv(tmp_path / "SBUX.csv", index=False)
    with pytest.raises(NotEnoughSessions, match="SBUX: 150 sessions came"):
        pipeline(data_of(tmp_path / "SBUX.csv", tmp_path / "data"), TRAINING)
    assert len(PriceTable(open_store(str(tmp_path / "data"))).read(["SBUX"])) == 150


def test_an_unknown_ticker_is_named_and_changes_nothing(sbux_csv: Path, tmp_path: Path) -> None:
    data = data_of(sbux_csv, tmp_path / "data")
    before = ingest(data)
    with pytest.raises(FetchFailed, match=r"ZZZZ: not found: .* holds SBUX"):
        ingest(data.model_copy(update={"tickers": ("ZZZZ",)}))
    assert ingest(data) == before


def test_a_ticker_that_a_file_lacks_is_left_out_while_the_others_go_on(sbux_csv: Path, tmp_path: Path) -> None:
    snapshot = ingest(data_of(sbux_csv, tmp_path / "data").model_copy(update={"tickers": ("SBUX", "ZZZZ")}))
    assert snapshot.tickers == ("SBUX",)
    assert snapshot.counts is not None
    assert "not found" in {row.ticker: row.outcome for row in snapshot.counts.worst}["ZZZZ"]


def test_a_new_session_is_added_and_retrained_on(tmp_path: Path) -> None:
    frame, path = yahoo_frame(254), tmp_path / "SBUX.csv"
    frame.iloc[:253].to_csv(path, index=False)
    data = data_of(path, tmp_path / "data")
    first = pipeline(data, TRAINING)
    frame.to_csv(path, index=False)
    second = pipeline(data, TRAINING)
    assert (first.snapshot.prices.version, second.snapshot.prices.version) == (0, 1)
    assert second.snapshot.rows == 254
    assert not second.trainings["tutorial.SBUX"].startswith("Skipped")
    assert second.reports[0].batch.rows == 253  # the newest sessions that the recipe looks at


def test_rows_that_break_a_rule_are_left_out_and_kept_in_quarantine(tmp_path: Path) -> None:
    frame = yahoo_frame(260)
    frame.loc[100, "Low"] = frame.loc[100, "High"] * 2
    frame.loc[101, "Volume"] = 0
    frame.to_csv(tmp_path / "SBUX.csv", index=False)
    snapshot = ingest(data_of(tmp_path / "SBUX.csv", tmp_path / "data"))
    assert snapshot.rows == 258


def test_simulated_prices_have_a_root_of_their_own_and_are_called_simulated(tmp_path: Path) -> None:
    data = DataSettings(source="simulated:3", store=str(tmp_path / "data"), as_of=date(2020, 12, 31))
    result = pipeline(data, TRAINING)
    assert result.snapshot.simulated
    assert result.snapshot.store.endswith("/data/simulated-3")
    assert "Simulated data" in Path(result.reports[0].files["scorecard.md"]).read_text()
    assert PriceTable(open_store(str(tmp_path / "data"))).version() is None


def test_the_same_pipeline_runs_on_an_object_store(
    sbux_csv: Path, tmp_path: Path, serve: Callable[[str], Callable[[], str]]
) -> None:
    listing = serve("conditional")
    in_bucket = pipeline(DataSettings(source=f"files:{sbux_csv}", store="s3://bucket/volcast"), TRAINING)
    in_folder = pipeline(data_of(sbux_csv, tmp_path / "data"), TRAINING)
    digests = [result.reports[0].batch.artifact.digest for result in (in_bucket, in_folder)]
    assert digests[0] == digests[1]
    keys = re.findall("<Key>(.*?)</Key>", listing())
    assert "volcast/aliases/model/tutorial.SBUX/champion/00000001.json" in keys
    assert "volcast/reports/tutorial.SBUX/v1/predicted.png" in keys
    assert not [key for key in keys if "/staging/" in key]


READERS: dict[str, Callable[..., pd.DataFrame]] = {
    ".parquet": pd.read_parquet,
    ".csv": partial(pd.read_csv, parse_dates=["cutoff", "ds"]),
    ".xlsx": pd.read_excel,
}


def test_the_exported_file_holds_a_row_for_each_ticker_and_session(tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    for seed, ticker in enumerate(("AAA", "BBB")):
        yahoo_frame(seed=seed).to_csv(tmp_path / "csv" / f"{ticker}.csv", index=False)
    result = pipeline(data_of(tmp_path / "csv", tmp_path / "data"), TRAINING)
    exact = pd.DataFrame()
    for suffix, read in READERS.items():
        out = tmp_path / f"forecasts{suffix}"
        assert write_forecasts([report.batch for report in result.reports], out, "median") == 506
        rows = read(out)
        assert rows.groupby("unique_id").size().to_dict() == {"AAA": 253, "BBB": 253}
        assert list(rows.columns) == ["unique_id", "cutoff", "ds", "h", "volcast"]
        if suffix == ".parquet":
            exact = rows
        else:  # for people: whole shares
            assert rows["volcast"].tolist() == exact["volcast"].round().tolist()
            assert rows["ds"].tolist() == exact["ds"].tolist()
