import numpy as np
import pandas as pd
import pytest
from panels import SPAN, drawn_volumes, panel_of
from scipy.stats import t, ttest_1samp

from volcast.models.backtest import backtest, train_scales
from volcast.models.comparisons import diebold_mariano, duels, errors_over_time, verdict
from volcast.models.forecasters import naive_forecasters
from volcast.models.scores import score


def test_one_session_ahead_the_test_is_students() -> None:
    # h = 1: no lags, and the correction turns the variance over P into that over P - 1.
    difference = np.random.default_rng(0).normal(0.2, 1, 60)
    assert diebold_mariano(difference, h=1) == pytest.approx(ttest_1samp(difference, 0)[1])


def test_two_sessions_ahead_by_hand() -> None:
    # mean 2; centred -1, 1, -1, 1; covariances 1 and -3/4; variance 1 + 2 * (1/2) * (-3/4) = 1/4
    # correction (4 + 1 - 4 + 2/4) / 4 = 3/8; statistic 2 / sqrt(1/4 / 4) * sqrt(3/8)
    expected = 2 * t.sf(8 * np.sqrt(3 / 8), 3)
    assert diebold_mariano(np.array([1.0, 3.0, 1.0, 3.0]), h=2) == pytest.approx(expected)


def test_differences_that_hang_together_count_for_less() -> None:
    draws = np.random.default_rng(1).normal(0, 1, 400)
    difference = np.convolve(draws, np.ones(10) / 10, mode="valid") + 0.05
    assert diebold_mariano(difference, h=10) > 5 * diebold_mariano(difference, h=1)


def test_without_enough_sessions_or_without_a_difference_there_is_no_answer() -> None:
    assert np.isnan(diebold_mariano(np.array([0.1, 0.2, 0.3]), h=2))
    assert np.isnan(diebold_mariano(np.zeros(50), h=1))


def test_forecasts_without_skill_are_told_from_chance_as_often_as_the_level_says() -> None:
    draws = np.random.default_rng(2)
    p_values = [diebold_mariano(draws.normal(size=100), h=1) for _ in range(500)]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.025)


def test_a_duel_says_by_how_much_where_and_how_surely() -> None:
    panel = panel_of(drawn_volumes(3, 800))
    frame, scale = backtest(panel, naive_forecasters(), SPAN), train_scales(panel, SPAN)
    found = duels(frame, scale, score(frame, scale), model="naive")
    assert [(duel.band, duel.rival) for duel in found] == [
        (band, rival) for band in ("1", "1-5", "1-10") for rival in ("seasonal_naive", "adv20")
    ]
    scores = score(frame, scale)
    mase = scores.by_ticker.loc[scores.by_ticker["band"] == "1"].pivot(
        index="unique_id", columns="model", values="mase"
    )
    assert found[1].mase_ratio == pytest.approx(mase["naive"].mean() / mase["adv20"].mean())
    assert found[1].ticker_share == (mase["naive"] < mase["adv20"]).mean()
    over_time = errors_over_time(frame, scale, scores)
    week = frame.loc[frame["h"] <= 5].assign(scale=lambda rows: rows["unique_id"].map(scale["absolute"]))
    naive = pd.DataFrame(
        week.assign(mase=(week["y"] - week["naive"]).abs() / week["scale"]).groupby("ds")[["mase"]].mean()
    )
    assert list(over_time.columns) == ["naive", "seasonal_naive", "adv20"]
    assert over_time["naive"].to_numpy()[-1] == pytest.approx(np.mean(naive["mase"].to_numpy()[-20:]))
    assert np.isnan(over_time["naive"].to_numpy()).sum() == 4
    words = verdict(found)
    assert words.startswith("naive, horizons 1-10: ")
    assert "seasonal_naive by" in words
    assert "of MASE, better on" in words
