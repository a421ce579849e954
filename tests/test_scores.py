from typing import Any

import numpy as np
import pandas as pd
import pytest
from panels import panel_of
from scipy.stats import t as student_t

from volcast.models.comparisons import duels
from volcast.models.errors import NotEnoughSessions
from volcast.models.forecast_columns import models_of
from volcast.models.scores import calibration, live_skill, scaled, scales, scales_of, score

SESSIONS = pd.bdate_range("2020-01-01", periods=20).as_unit("s")


def scale_of(*tickers: str) -> pd.DataFrame:
    """Ten train sessions a ticker, 5 sessions apart 4 shares apart: the scale is 4 shares."""
    return scales_of(dict.fromkeys(tickers, np.array([10.0] * 5 + [14.0] * 5)), season=5)


def hand_frame(tickers: str = "A") -> pd.DataFrame:
    """Two cutoffs, horizons 1 and 2; model m with a mean, model n without."""
    rows = [
        (10, 11, 1, 20.0, 16.0, 24.0),
        (10, 12, 2, 10.0, 12.0, 12.0),
        (11, 12, 1, 10.0, 12.0, 6.0),
        (11, 13, 2, 40.0, 40.0, 30.0),
    ]
    frame = pd.DataFrame(rows, columns=["cutoff", "ds", "h", "y", "m", "n"])
    frame = frame.assign(cutoff=SESSIONS[frame["cutoff"]], ds=SESSIONS[frame["ds"]])
    for name in ("m", "n"):
        spread = {"lo-95": 0.5, "lo-80": 0.9, "hi-80": 1.1, "hi-95": 2.0}
        frame = frame.assign(**{f"{name}-{end}": frame[name] * factor for end, factor in spread.items()})
    frame["m-mean"] = frame["m"] + 4
    return pd.concat([frame.assign(unique_id=ticker) for ticker in tickers], ignore_index=True)


def losses_of(model: str, band: str = "1") -> dict[str, Any]:
    table = score(hand_frame(), scale_of("A"), bands={"1": (1, 1), "1-2": (1, 2)}).panel
    (found,) = table.loc[(table["band"] == band) & (table["model"] == model)].to_dict("records")
    return {str(name): value for name, value in found.items()}


def test_losses_by_hand() -> None:
    found = losses_of("m")  # y 20 and 10, m 16 and 12
    assert found["mase"] == pytest.approx((4 + 2) / 2 / 4)
    assert found["rmsse"] == pytest.approx(np.sqrt((16 + 4) / 2 / 16))
    assert found["rmsse_mean"] == pytest.approx(np.sqrt((0 + 36) / 2 / 16))  # the mean says 20 and 16
    assert found["smape"] == pytest.approx((4 / 36 + 2 / 22) / 2)
    assert found["qlike"] == pytest.approx((20 / 16 - np.log(20 / 16) - 1 + 10 / 12 - np.log(10 / 12) - 1) / 2)
    assert found["qlike_mean"] == pytest.approx((10 / 16 - np.log(10 / 16) - 1) / 2)
    assert found["log_rmse"] == pytest.approx(np.sqrt((np.log(20 / 16) ** 2 + np.log(10 / 12) ** 2) / 2))
    assert found["bias"] == pytest.approx((-4 + 2) / 2 / 15)
    assert found["over_share"] == 0.5
    assert found["coverage_95"] == 1  # 8..32 holds 20, 6..24 holds 10
    assert found["coverage_80"] == 0  # 14.4..17.6 and 10.8..13.2
    assert found["mean_of"] == "m-mean"


def test_pinball_is_the_mean_over_the_five_levels_in_units_of_the_scale() -> None:
    def loss(q: float, y: float, f: float) -> float:
        return max(q * (y - f), (q - 1) * (y - f))

    factors = {0.025: 0.5, 0.1: 0.9, 0.5: 1.0, 0.9: 1.1, 0.975: 2.0}
    expected = np.mean([loss(q, y, factor * f) for q, factor in factors.items() for y, f in ((20, 16), (10, 12))]) / 4
    assert losses_of("m")["pinball"] == pytest.approx(expected)


def test_a_band_takes_all_of_its_horizons() -> None:
    assert losses_of("m", "1-2")["mase"] == pytest.approx((4 + 2 + 2 + 0) / 4 / 4)


def test_a_model_without_a_mean_is_scored_by_its_point_and_the_table_says_so() -> None:
    found = losses_of("n")
    assert found["mean_of"] == "n"
    assert found["rmsse_mean"] == found["rmsse"] == pytest.approx(1.0)  # errors of 4 and 4, in units of 4


def test_the_panel_is_the_mean_over_tickers_and_sbux_leads_them() -> None:
    frame = hand_frame("AZ").replace({"Z": "SBUX"})
    frame.loc[frame["unique_id"] == "SBUX", "m"] = frame["y"]
    scores = score(frame, scale_of("A", "SBUX"), bands={"1": (1, 1)})
    assert scores.by_ticker["unique_id"].tolist() == ["SBUX", "SBUX", "A", "A"]
    of_m = scores.panel.to_dict("records")[0]
    assert of_m["mase"] == pytest.approx((0 + 0.75) / 2)
    assert (of_m["model"], of_m["tickers"]) == ("m", 2)


def test_a_ticker_without_a_scale_is_not_scored() -> None:
    assert score(hand_frame("AB"), scale_of("A")).panel["tickers"].unique().tolist() == [1]
    with pytest.raises(NotEnoughSessions, match="No ticker of the test has more than a week of train sessions"):
        score(hand_frame("B"), scale_of("A"))


def test_models_stand_in_the_order_of_their_columns() -> None:
    assert models_of(hand_frame()) == ["m", "n"]


def test_an_error_is_scaled_alike_in_a_backtest_in_a_duel_and_live() -> None:
    # one ahead, m is off by 4 and 2 shares, n by 4 and 4; in units of the scale, 4 shares, by 1 and 1/2, and 1 and 1
    rows, bands = hand_frame().query("h == 1"), {"1": (1, 1)}
    scale = scale_of("A")["absolute"].item()
    assert scaled((rows["y"] - rows["m"]).abs(), scale).tolist() == [1.0, 0.5]

    scores = score(rows, scale_of("A"), bands=bands)
    assert scores.panel.set_index("model")["mase"].to_dict() == {"m": 0.75, "n": 1.0}

    # differences 0 and -1/2: variance 1/16, correction 1/2, standard error sqrt(1/16 / 2 / (1/2)) = 1/4
    (duel,) = duels(rows, scale_of("A"), scores, model="m", bands=bands)
    assert (duel.mase_ratio, duel.spread) == pytest.approx((0.75, student_t.isf(0.05, 1) / 4))

    facts = {"ticker": "A", "scale": scale, "actual": rows["y"], "pinball": 1.0, "in_80": True, "in_95": True}
    published = [
        rows[["cutoff", "ds", "h"]].assign(
            **facts,
            model=model,
            published=model == "volcast",
            absolute_error=(rows["y"] - rows[name]).abs(),
            over=rows[name] > rows["y"],
        )
        for model, name in (("volcast", "m"), ("har", "n"))
    ]
    live = live_skill(pd.concat(published), windows=(5,)).set_index("ticker").loc["A"]
    assert (live["mase"], live["mase_har"]) == (0.75, 0.75)


def test_calibration_is_the_share_of_volumes_below_each_level() -> None:
    observed = calibration(hand_frame(), "m", bands={"1": (1, 1), "1-2": (1, 2)})
    assert observed["1"].tolist() == [0, 0.5, 0.5, 0.5, 1]
    assert observed["1-2"].tolist() == [0, 0.5, 0.75, 0.75, 1]


def test_the_scale_of_a_market_that_never_closes_is_that_of_a_week_of_seven_sessions() -> None:
    dates = pd.date_range("2024-01-01", periods=28)
    growing_T = np.where(dates.day_of_week < 5, 100.0, 60.0) + np.arange(28)
    panel = panel_of(growing_T[None], calendar="24/7")
    assert scales(panel, known=28).to_dict("list") == {"absolute": [7.0], "root": [7.0]}
    assert scales(panel, known=7).empty
