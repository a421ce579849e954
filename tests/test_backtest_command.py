"""`volcast backtest`, from the command line to the file and the tables."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from programs import Volcast
from rows import yahoo_frame
from runs import artifacts_of, run_named
from utilsforecast.evaluation import evaluate
from utilsforecast.losses import mae

DATES = ["--train-through", "2020-03-31", "--test-start", "2020-04-01", "--test-end", "2020-06-30"]


@pytest.mark.usefixtures("prefect_api")
def test_a_backtest_of_the_simulated_exchange_ends_in_a_file_and_in_words(volcast: Volcast) -> None:
    volcast.columns(80)
    command = ["backtest", "--source", "simulated", "--tickers", "SBUX,T1", "--store", "data", *DATES]
    quick = [option for each in ("steps=20", "members=1", "hidden_size=8") for option in ("--set", each)]
    said = volcast(*command, *quick, "--refit", "quarterly", "--point", "ale", "--out", "f.parquet")
    assert said.code == 0, said.errors
    assert "Simulated data" in said.out
    assert "Mean over 2 tickers" in said.out
    assert "RMSSE and QLIKE: of the mean forecast (volcast-mean, har-mean)" in said.out
    assert "volcast, horizons 1-10: " in said.out
    assert "Point: quantile 1/3 (ale)" in said.out
    assert "Loss: ALE, |log forecast - log volume|, twice where the forecast is above" in said.out
    tables = said.out[said.out.index("Mean over") : said.out.index("volcast, horizons 1-10")]
    assert "…" not in tables
    assert max(map(len, tables.splitlines())) <= 80

    artifact = artifacts_of(run_named("backtest SBUX, T1 2020-06-30"), "data/simulated-0")["backtest"]
    shown = str(artifact.data)
    for words in (
        "Simulated data",
        "# Backtest, sessions 2020-04-01 to 2020-06-30",
        "SBUX, T1: prices v0 of simulated",
        "## Sums of sessions",
        "## Point: quantile 1/3 (ale)",
    ):
        assert words in shown
    assert "to 2020-03-31, fitted again quarterly" in shown.replace("by fits on those ", "")
    assert shown.count("](data:image/png;base64,") == 1
    assert {line.split(" | ")[1] for line in shown.splitlines() if line.startswith("| 1-10 | ")} >= {"volcast", "har"}
    of_five = [line.split(" | ")[1] for line in shown.splitlines() if line.startswith("| 5 | ")]
    assert of_five == ["volcast", "har"], "whose point is their median"
    assert len(shown) < 300_000

    frame = pd.read_parquet("f.parquet")
    assert frame["unique_id"].unique().tolist() == ["SBUX", "T1"]
    assert str(frame["ds"].min()) == "2020-04-01 00:00:00"
    assert str(frame["ds"].max()) == "2020-06-30 00:00:00"
    assert sorted(frame["h"].unique()) == list(range(1, 11))
    assert "point" not in frame, "what is kept of a test is the median"
    last = frame.loc[(frame["h"] == 1)].set_index(["unique_id", "ds"])["y"]
    later = frame.loc[frame["cutoff"] >= "2020-04-01"]
    expected = last.reindex(pd.MultiIndex.from_frame(later[["unique_id", "cutoff"]])).to_numpy()
    np.testing.assert_array_equal(later["naive"], expected)
    assert np.isfinite(evaluate(frame, [mae])[["volcast", "har"]].to_numpy()).all()


BAD_REQUESTS = [
    (["--train-through", "2020-04-01"], 2, "a test on what was trained on says nothing"),
    (["--test-end", "2020-03-15"], 2, "after it ends on 2020-03-15"),
    (["--test-end", "2100-01-04"], 2, "--test-end 2100-01-04 is still to come"),
    (["--train-through", "2010-01-04"], 2, "those with prices are 2020-01-"),
    (["--out", "f.pdf"], 1, "expected a name that ends in .parquet or .csv"),
    ([], 1, "too few to train on"),
]


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize(("options", "code", "expected"), BAD_REQUESTS)
def test_a_bad_request_is_one_clear_line(
    options: list[str], code: int, expected: str, volcast: Volcast, tmp_path: Path
) -> None:
    yahoo_frame(60, last=date(2020, 4, 10)).to_csv(tmp_path / "SBUX.csv", index=False)
    dates = [*DATES[:4], "--test-end", "2020-04-07"]
    said = volcast("backtest", "--source", "files:SBUX.csv", "--store", "data", *dates, "--out", "f.parquet", *options)
    assert said.code == code
    assert len(said.errors) == 1
    assert expected in said.errors[0]
    assert not said.has_traceback
