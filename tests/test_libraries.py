"""docs/libraries.md: each program runs against the library that it names, and does what the page says of it."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from panels import drawn_volumes
from rows import yahoo_frame
from sklearn.base import clone

import volcast
from volcast.models.errors import UnknownRecipe

PAGE = (Path(__file__).parents[1] / "docs" / "libraries.md").read_text()
QUICK = {
    "tuning_steps=50": "tuning_steps=1",
    "trials=30": "trials=2, members=1, batch_sequences=4",
    "**study.best_params": "**study.best_params, members=1, batch_sequences=4",
}  # what a person has more time for
SECTION = re.compile(r"^## (.+?)\n.*?^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS = dict(SECTION.findall(PAGE))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a program of the page finds its file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    yahoo_frame(320).assign(Volume=drawn_volumes(1, 320)[0]).to_csv("SBUX.csv", index=False)
    return tmp_path


def needed(name: str) -> Any:
    """The library, or the test is skipped; what it warns of by itself does not count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"an extra installs {name}")


def run(section: str) -> dict[str, Any]:
    """The names that a program leaves; volcast's own warnings count, those of the library do not."""
    names, program = dict[str, Any](__name__=section), PROGRAMS[section]
    for slow, quick in QUICK.items():
        program = program.replace(slow, quick)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", module="volcast")
        exec(compile(program, section, "exec"), names)
    return names


@pytest.fixture
def prices() -> pd.DataFrame:
    """Of two tickers."""
    own = volcast.load_prices("SBUX.csv")
    return pd.concat([own.assign(unique_id="KO", y=drawn_volumes(1, 320, seed=3)[0]), own], ignore_index=True)


def test_scikit_learn_fits_copies_and_searches() -> None:
    done = run("scikit-learn")
    assert set(done["search"].best_params_) == {"linear_share"}
    assert np.isfinite(done["search"].cv_results_["mean_test_score"]).all()
    assert len(done["forecaster"].forecast_) == 10
    copy: Any = clone(volcast.VolumeForecaster(seed=3, members=2))
    copy.set_params(members=1, calendar="XLON")
    assert (copy.seed, copy.calendar, copy.get_params()["members"]) == (3, "XLON", 1)
    assert "members=1" in repr(copy)
    with pytest.raises(UnknownRecipe, match="has no setting colour"):
        copy.set_params(colour="red").fit(done["X"], done["y"])


def test_a_regressor_says_what_a_backtest_says_and_sees_no_later_row(prices: pd.DataFrame) -> None:
    tested = volcast.backtest(prices, test_sessions=20, step=3, tuning_steps=0)
    cutoff = tested["cutoff"].min()
    known, coming = prices.loc[prices["ds"] <= cutoff], prices.loc[prices["ds"] > cutoff].sort_values("ds").head(20)
    fitted = volcast.VolumeForecaster(tuning_steps=0, id_col="ticker", time_col="session")
    named = {"unique_id": "ticker", "ds": "session"}
    fitted.fit(known.rename(columns=named), known["y"])
    said = fitted.predict(coming.rename(columns=named).assign(close=-1.0))
    rows = coming.assign(said=said).merge(tested.loc[tested["cutoff"] == cutoff], on=["unique_id", "ds"])
    assert len(rows) == 20
    np.testing.assert_array_equal(rows["said"], rows["volcast"])
    assert fitted.score(coming.rename(columns=named), coming["y"]) < 1
    with pytest.raises(
        ValueError, match=r"20 rows without a forecast, the first .* of KO, SBUX, .* ten sessions after"
    ):
        fitted.predict(known.rename(columns=named).sort_values("session").tail(20))


def test_mlforecast_drives_the_regressor(prices: pd.DataFrame) -> None:
    needed("mlforecast")
    done = run("mlforecast")
    assert np.isfinite(done["tested"][["volcast", "linear"]]).all(axis=None)
    assert done["tested"].groupby("cutoff").size().tolist() == [10, 10]
    long = prices[["unique_id", "ds", "y"]]
    said = done["forecast"].fit(long, static_features=["unique_id"]).predict(h=10)
    with_lags = long.loc[long["ds"] >= np.unique(long["ds"])[5]]
    own = volcast.VolumeForecaster(tuning_steps=0).fit(with_lags, with_lags["y"]).forecast_
    np.testing.assert_array_equal(said["volcast"], own["volcast"])
    assert said["ds"].tolist() == own["ds"].tolist()


@pytest.mark.filterwarnings("ignore:A future version of pandas will return a BaseOffset")  # fev 0.10 asks it so
def test_fev_evaluates_the_predictions(prices: pd.DataFrame) -> None:
    fev = needed("fev")
    done = run("fev")
    summary = done["task"].evaluation_summary(volcast.predict_fev(done["task"]), model_name="volcast")
    assert 0 < summary["SQL"] < 2
    weekdays = pd.bdate_range(prices["ds"].min(), prices["ds"].max())
    wide = prices.pivot(index="ds", columns="unique_id", values="y").reindex(weekdays)
    rows = [{"id": name, "timestamp": list(weekdays), "target": list(wide[name])} for name in wide]
    pd.DataFrame(rows).to_parquet("two.parquet")
    task = fev.Task(dataset_path="two.parquet", horizon=8, initial_cutoff="2020-11-20", quantile_levels=[0.1, 0.3])
    ((ko, sbux),) = volcast.predict_fev(task)
    own = volcast.forecast(prices.loc[prices["ds"] <= "2020-11-20", ["unique_id", "ds", "y"]])
    days = pd.bdate_range("2020-11-23", periods=8)
    expected = own.pivot(index="ds", columns="unique_id", values="volcast").reindex(days).fillna(0.0)
    assert [day for day in days if not expected.loc[day, "KO"]] == [pd.Timestamp("2020-11-26")]  # Thanksgiving
    assert (ko["predictions"], sbux["predictions"]) == (expected["KO"].tolist(), expected["SBUX"].tolist())
    assert all(np.diff([ko[each] for each in ("0.1", "0.3", "predictions")], axis=0).ravel() >= 0)
    with pytest.raises(ValueError, match="without a forecast, the first KO 2020-12-08"):
        volcast.predict_fev(fev.Task(dataset_path="two.parquet", horizon=12, initial_cutoff="2020-11-20"))


def test_mlflow_keeps_the_safetensors_and_gives_the_same_forecast(folder: Path) -> None:
    needed("mlflow.pyfunc")
    done = run("MLflow")
    (file,) = folder.rglob("*.safetensors")
    assert volcast.load_model(file).tickers == ("SBUX",)
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle")]
    asked = done["mlflow"].pyfunc.load_model(done["logged"].model_uri)
    expected = volcast.forecast(done["prices"], model=done["model"])
    pd.testing.assert_frame_equal(asked.predict(done["prices"], params={"calendar": "XNYS"}), expected)


def test_a_search_does_not_see_the_last_test(prices: pd.DataFrame) -> None:
    needed("optuna")
    done = run("Optuna")
    assert done["model"].scores is not None
    tried = done["study"].trials_dataframe()
    assert tried["params_tuning_steps"].iloc[0] == 100  # the recipe as it is

    def study(frame: pd.DataFrame) -> pd.DataFrame:
        found = volcast.search(frame, trials=2, members=1, suggest=some_settings, test_sessions=20)
        return found.trials_dataframe(("number", "value", "params", "state"))

    session_R, y = prices["ds"].to_numpy(), prices["y"]
    is_last_R = session_R >= np.unique(session_R)[-20]
    own = study(prices)
    pd.testing.assert_frame_equal(study(prices.assign(y=y.where(~is_last_R, 7 * y))), own, check_exact=True)
    shaken = prices.assign(y=y.where(is_last_R | (session_R < np.datetime64("2020-11-02")), 7 * y))
    assert list(study(shaken)["value"]) != list(own["value"])


def some_settings(trial: Any) -> dict[str, Any]:
    return {"tuning_steps": 0, "linear_share": trial.suggest_float("linear_share", 0.0, 0.9)}


def test_a_library_that_is_not_there_is_named_with_its_extra() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'nothing'.*volcast\[some\]"):
        volcast.frames.library("nothing", "some")
