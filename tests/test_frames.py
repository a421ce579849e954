"""`import volcast`: forecasts of frames, without a store or a server."""

import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from panels import drawn_volumes
from rows import yahoo_frame
from utilsforecast.evaluation import evaluate
from utilsforecast.losses import mae

import volcast
from volcast.flows.forecast import forecast
from volcast.flows.ingest import ingest
from volcast.models.errors import FutureModel, ImpossibleTest, NotEnoughSessions, UnknownRecipe, WrongWeights
from volcast.models.forecast_columns import PARTS, quantile_columns, reason_column
from volcast.models.forecasters import Forecasts
from volcast.models.sessions import market_calendar
from volcast.models.volume_inputs import Inputs
from volcast.storage.errors import NotStored
from volcast.tasks.settings import DataSettings, ForecasterSettings, TrainingSettings
from volcast.tasks.sources.source import SourceMissing

LAST = date(2018, 6, 29)
ROWS = 400
GOLDEN = Path(__file__).parent / "data" / "golden" / "0.1.0" / "store"
QUANTILES = quantile_columns("volcast")
FAST: dict[str, Any] = {"members": 1, "tuning_steps": 5, "validate_every_steps": 5}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of Yahoo's columns of each of two tickers."""
    folder = tmp_path_factory.mktemp("files")
    for number, ticker in enumerate(("KO", "SBUX")):
        own = yahoo_frame(ROWS, last=LAST).assign(Volume=drawn_volumes(1, ROWS, seed=number)[0])
        own.to_csv(folder / f"{ticker}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def prices(files: Path) -> pd.DataFrame:
    return volcast.load_prices(files)


@pytest.fixture(scope="module")
def model(prices: pd.DataFrame) -> volcast.Model:
    return volcast.fit(prices, **FAST)


def test_import_costs_nothing_and_the_names_are_there() -> None:
    code = (
        "import sys, volcast; assert 'load_prices' in dir(volcast);"
        "print(sorted({'torch', 'pandas', 'prefect'} & set(sys.modules)));"
        "[getattr(volcast, name) for name in volcast.__all__];"
        "print('prefect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        volcast.nothing  # noqa: B018


def test_prices_are_long_whatever_they_come_from(files: Path, prices: pd.DataFrame) -> None:
    expected = ["unique_id", "ds", "y", "open", "high", "low", "close", "adj_close", "dividend", "split"]
    assert list(prices.columns) == expected
    assert prices.groupby("unique_id").size().to_dict() == {"KO": ROWS, "SBUX": ROWS}
    assert prices["y"].dtype == np.float64
    one = volcast.load_prices(str(files / "SBUX.csv"))
    pd.testing.assert_frame_equal(one, prices.loc[prices["unique_id"] == "SBUX"].reset_index(drop=True))
    pd.testing.assert_frame_equal(volcast.load_prices(prices), prices)
    assert set(volcast.load_prices(files, ["KO"], through=date(2018, 6, 27))["ds"].dt.date) >= {date(2018, 6, 27)}
    with pytest.raises(SourceMissing, match=r"nowhere\.csv"):
        volcast.load_prices("nowhere.csv")


@pytest.mark.usefixtures("prefect_api")
def test_the_forecast_is_bit_for_bit_that_of_the_pipeline(files: Path, prices: pd.DataFrame, tmp_path: Path) -> None:
    data = DataSettings(source=f"files:{files}", store=str(tmp_path), events="none", as_of=LAST)
    ingest(data)
    forecast(data, TrainingSettings())  # by har, which is better on drawn volumes; but the model is there
    forecast(data, TrainingSettings(), chosen=ForecasterSettings(version=1))
    found = volcast.forecast(prices)
    pd.testing.assert_frame_equal(volcast.open_store(tmp_path).forecast(), found)
    of_store = volcast.forecast(volcast.open_store(tmp_path).prices(), model=volcast.open_store(tmp_path).model())
    pd.testing.assert_frame_equal(of_store, found)


def test_a_forecast_says_how_much_why_and_in_all(prices: pd.DataFrame) -> None:
    found = volcast.forecast(prices)
    assert found.groupby("unique_id")["h"].apply(list).to_dict() == {
        name: list(range(1, 11)) for name in ("KO", "SBUX")
    }
    assert (np.diff(found[QUANTILES].to_numpy(), axis=1) >= 0).all()
    factors = found[[reason_column(part) for part in PARTS]].prod(axis=1)
    np.testing.assert_allclose(found["normal"] * factors, found["volcast"], rtol=1e-2)

    why = volcast.explain(found, "SBUX", LAST + timedelta(days=3))
    assert list(why.columns) == ["part", "factor"]
    (row,) = found.loc[(found["unique_id"] == "SBUX") & (found["h"] == 1)].to_dict("records")
    assert np.prod(why["factor"]) == pytest.approx(row["volcast"] / row["normal"], rel=0.02)
    with pytest.raises(ValueError, match="The forecast has no T9"):
        volcast.explain(found, "T9")
    with pytest.raises(ValueError, match="gives no reasons"):
        volcast.explain(volcast.forecast(prices, model="har"), "SBUX")

    assert set(volcast.sums(found)["sessions"]) == {2, 5, 10}
    order = volcast.participation(found, {"SBUX": float(row["volcast"])}, rate=0.25)
    assert order["chance"].is_monotonic_increasing
    assert order["chance"].iloc[1] < 0.5 < order["chance"].iloc[-1]
    for shares, rate in (({"SBUX": 1e6}, 0.0), ({"SBUX": -1.0}, 0.1), ({"T9": 1.0}, 0.1)):
        with pytest.raises(ValueError, match=r"rate must be|above 0|has no T9"):
            volcast.participation(found, shares, rate)


@dataclass
class Wild:
    """A model that says far too much of one session."""

    model: Any

    def forecast(self, inputs: Inputs, cutoffs: np.ndarray) -> Forecasts:
        found = self.model.forecast(inputs, cutoffs)
        found.quantiles_NCHQ[1, :, 3] *= 1e6
        return found


def test_a_row_that_cannot_be_believed_is_named_and_another_method_stands_in(
    prices: pd.DataFrame, model: volcast.Model
) -> None:
    wild = replace(model, predictor=replace(model.predictor, model=Wild(model.predictor.model)))
    with pytest.warns(UserWarning, match=r"^held back: SBUX 2018-07-06, horizon 4: .* above .*; har is published$"):
        found = volcast.forecast(prices, model=wild)
    assert found.loc[found["by"] == "har", ["unique_id", "h"]].to_numpy().tolist() == [["SBUX", 4]]


def test_order_of_rows_and_kind_of_frame_do_not_matter(prices: pd.DataFrame) -> None:
    expected = volcast.forecast(prices)
    shuffled = prices.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(volcast.forecast(shuffled), expected)
    pd.testing.assert_frame_equal(volcast.forecast(pa.Table.from_pandas(shuffled)), expected)
    as_text = prices.assign(ds=prices["ds"].dt.strftime("%Y-%m-%d"))
    pd.testing.assert_frame_equal(volcast.forecast(as_text), expected)


def test_volumes_alone_are_enough(prices: pd.DataFrame) -> None:
    found = volcast.forecast(prices[["unique_id", "ds", "y"]])
    assert np.isfinite(found[QUANTILES].to_numpy()).all()
    assert (found["volcast"] / volcast.forecast(prices)["volcast"]).between(0.5, 2).all()


def test_announced_earnings_come_as_a_file_or_a_frame(prices: pd.DataFrame, tmp_path: Path) -> None:
    rows = pd.DataFrame({"Ticker": ["SBUX"] * 2, "Earnings_Date": ["2018-04-03", "2018-07-03"], "When": ["amc", "amc"]})
    rows.to_csv(tmp_path / "earnings.csv", index=False)
    of_frame, plain = volcast.forecast(prices, events=rows), volcast.forecast(prices)
    pd.testing.assert_frame_equal(volcast.forecast(prices, events=tmp_path / "earnings.csv"), of_frame)
    moved = of_frame.loc[of_frame["volcast"] != plain["volcast"], "unique_id"]
    assert "SBUX" in set(moved)
    later = pd.concat([rows, pd.DataFrame({"Ticker": ["SBUX"], "Earnings_Date": ["2018-08-14"], "When": [""]})])
    pd.testing.assert_frame_equal(volcast.forecast(prices, events=later), of_frame)  # not known ten sessions ahead


def test_a_model_is_fitted_saved_and_asked_again(prices: pd.DataFrame, model: volcast.Model, tmp_path: Path) -> None:
    assert model.scores is not None
    assert {"volcast", "har", "naive"} <= set(model.scores.index)
    assert model.tickers == ("KO", "SBUX")
    found = volcast.forecast(prices, model=model)
    model.save(tmp_path / "model.safetensors")
    loaded = volcast.load_model(tmp_path / "model.safetensors")
    assert (loaded.tickers, loaded.trained_through) == (model.tickers, model.trained_through)
    pd.testing.assert_frame_equal(volcast.forecast(prices, model=loaded), found)
    early = prices.loc[prices["ds"] < "2018-03-01"]
    with pytest.raises(FutureModel, match="after the cutoff 2018-02-28"):
        volcast.forecast(early, model=model)
    (tmp_path / "other.safetensors").write_bytes((8).to_bytes(8, "little") + b"{}      ")
    with pytest.raises(WrongWeights, match="no model of volcast"):
        volcast.load_model(tmp_path / "other.safetensors")
    with pytest.raises(UnknownRecipe, match="has no setting colour"):
        volcast.fit(prices, colour="red")


def test_a_backtest_is_what_utilsforecast_evaluates(prices: pd.DataFrame) -> None:
    found = volcast.backtest(prices, test_sessions=40, step=3, tuning_steps=0)
    assert {"volcast", "har", "naive", "volcast-lo-80"} <= set(found.columns)
    losses = evaluate(found.drop(columns=["cutoff", "h"]), metrics=[mae], models=["volcast", "har"])
    assert set(losses["unique_id"]) == {"KO", "SBUX"}
    assert (losses[["volcast", "har"]] > 0).all(axis=None)
    with pytest.raises(ImpossibleTest, match="test_sessions must be 20 or more"):
        volcast.backtest(prices, test_sessions=5)


def test_what_comes_after_the_newest_session_cannot_change_a_forecast(prices: pd.DataFrame) -> None:
    """Of a later file, cut at the session: the same bits."""
    cut = prices.loc[prices["ds"] <= "2018-05-31"]
    other = prices.assign(y=prices["y"].mask(prices["ds"] > "2018-05-31", 7 * prices["y"]))
    pd.testing.assert_frame_equal(volcast.forecast(cut), volcast.forecast(other.loc[other["ds"] <= "2018-05-31"]))
    pd.testing.assert_frame_equal(
        volcast.backtest(prices, test_sessions=40, step=3, tuning_steps=0).query("ds <= '2018-05-31'"),
        volcast.backtest(other, test_sessions=40, step=3, tuning_steps=0).query("ds <= '2018-05-31'"),
    )


def broken(prices: pd.DataFrame, **changes: object) -> pd.DataFrame:
    """The prices with these values in the second row."""
    own = prices.copy()
    for name, value in changes.items():
        own.loc[1, name] = value  # pyright: ignore[reportArgumentType]
    return own


def test_rows_that_break_a_rule_are_refused_or_left_out_by_name(prices: pd.DataFrame) -> None:
    bad = broken(prices, high=1.0)
    session = f"{prices['ds'].iloc[1]:%Y-%m-%d}"
    with pytest.raises(volcast.PricesRefused, match=f"KO: 1 row .high is below .* {session}.*load_prices"):
        volcast.forecast(bad)
    with pytest.warns(UserWarning, match=f"KO: 1 row left out .high is below .* {session}"):
        kept = volcast.load_prices(bad)
    pd.testing.assert_frame_equal(kept, prices.drop(index=1).reset_index(drop=True))
    half = prices.assign(y=prices["y"].mask((prices["unique_id"] == "KO") & (prices.index % 2 == 0), -1.0))
    with pytest.warns(UserWarning, match="KO: broken: 200 of 400 rows"):
        assert set(volcast.load_prices(half)["unique_id"]) == {"SBUX"}
    with pytest.raises(volcast.PricesRefused, match=r"No prices. KO: broken"):
        volcast.load_prices(half.loc[half["unique_id"] == "KO"])


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (pd.DataFrame({"ds": [], "y": []}), "lacks unique_id. It has ds, y"),
        (pd.DataFrame({"unique_id": [], "ds": [], "y": []}), "no rows"),
        (pd.DataFrame({"unique_id": ["A"], "ds": ["soon"], "y": [1]}), "Column ds: expected dates"),
        (pd.DataFrame({"unique_id": ["A"], "ds": ["2024-01-02 16:00"], "y": [1]}), "without a time of day"),
        (pd.DataFrame({"unique_id": ["A"], "ds": ["2024-01-02"], "y": ["many"]}), "Column y: expected numbers"),
        (pd.DataFrame({"unique_id": ["A"], "ds": ["2024-01-02"], "y": [1], "close": [1]}), "or none of them"),
        ({"unique_id": ["A"]}, "Expected a frame of pandas, polars or Arrow; dict came"),
    ],
)
def test_what_is_no_prices_is_refused_in_a_line(frame: object, words: str) -> None:
    with pytest.raises(volcast.PricesRefused, match=words):
        volcast.forecast(frame)


def test_too_little_and_too_early_are_said(prices: pd.DataFrame) -> None:
    with pytest.raises(NotEnoughSessions):
        volcast.forecast(prices.groupby("unique_id").head(5))
    early = prices.assign(ds=prices["ds"] - pd.Timedelta(weeks=520))
    early = early.loc[early["ds"].isin(pd.Series(market_calendar("XNYS").sessions))]
    with pytest.raises(FutureModel, match=r'start="scratch".*model="har"'):
        volcast.forecast(early)
    with pytest.raises(ValueError, match="model must be"):
        volcast.forecast(prices, model="lstm")  # pyright: ignore[reportArgumentType]


def test_a_store_is_read_as_frames() -> None:
    store = volcast.open_store(GOLDEN, source="simulated:3")
    models = store.models()
    assert list(models.loc[models["name"] == "volume", "version"]) == [1, 2, 3]
    assert models.loc[models["is_champion"], "version"].tolist()
    assert set(store.prices(["SBUX"])["unique_id"]) == {"SBUX"}
    assert len(store.prices(version=0)) < len(store.prices())
    assert set(store.scores()["unique_id"]) <= set(store.forecasts()["unique_id"])
    assert np.isfinite(volcast.forecast(store.prices(), model=store.model(version=1))["volcast"]).all()
    with pytest.raises(UnknownRecipe, match="is of the recipe tutorial"):
        store.model(next(name for name in models["name"] if name.startswith("tutorial")))
    with pytest.raises(NotStored):
        volcast.open_store(GOLDEN / "nowhere")
