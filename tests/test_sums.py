from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
from panels import SPAN, drawn_volumes, gappy_volumes, panel_of, shaken_after

from benchmarks.markets import simulated_panel
from volcast.models.backtest import TestSpan, backtest, train_scales
from volcast.models.forecast_columns import SCORED_LEVELS, mean_column, scored_columns
from volcast.models.forecasters import MODEL, naive_forecasters
from volcast.models.har import Har
from volcast.models.panel import HORIZONS, Panel
from volcast.models.sums import DECAY, KEYS, NEAREST, score_sums, sum_words, sums_of
from volcast.models.volume_evaluation import forecast_frame
from volcast.tasks.sources.exchange import Exchange


def har_at(panel: Panel, cutoff: int) -> pd.DataFrame:
    """What is published of har from a cutoff, by a fit that knows nothing later."""
    known = panel.until(cutoff + 1)
    return forecast_frame(known, Har().fit(known, through=cutoff).forecast(known, np.array([cutoff])))


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return har_at(panel_of(gappy_volumes(4, 600)), 580)


def test_sums_without_doubt_are_plain_sums(published: pd.DataFrame) -> None:
    sure = published.assign(**dict.fromkeys([*scored_columns(MODEL), mean_column(MODEL)], 100.0 + published["h"]))
    sums = sums_of(sure)
    assert sums["sessions"].tolist() == [2, 5, 10] * 4
    assert sums.loc[0, [*scored_columns(MODEL), mean_column(MODEL)]].tolist() == pytest.approx([203] * 6)  # 101 + 102
    assert sums.loc[2, [*scored_columns(MODEL), mean_column(MODEL)]].tolist() == pytest.approx([1055] * 6)
    assert sums.loc[:2, "ds"].tolist() == published.loc[[1, 4, 9], "ds"].tolist()


def test_quantiles_are_those_of_many_paths_of_sessions_that_go_together_as_far_as_was_measured() -> None:
    spread, level = 0.35, np.log(1e6)
    normal = {0.025: -1.959964, 0.1: -1.281552, 0.5: 0.0, 0.9: 1.281552, 0.975: 1.959964}
    steps = np.arange(1, HORIZONS + 1)
    columns = {
        name: np.exp(level + spread * normal[each]) for name, each in zip(scored_columns(MODEL), normal, strict=True)
    }
    keys = {
        "unique_id": "A",
        "cutoff": pd.Timestamp("2024-01-05"),
        "ds": pd.bdate_range("2024-01-08", periods=HORIZONS),
    }
    frame = pd.DataFrame({**keys, "h": steps, **columns, mean_column(MODEL): 1e6})
    apart = np.abs(np.subtract.outer(steps, steps))
    correlation = np.where(apart == 0, 1, NEAREST * DECAY**apart)
    paths = np.random.default_rng(0).multivariate_normal(np.zeros(HORIZONS), correlation, 200_000, method="cholesky")
    totals = np.exp(level + spread * paths).cumsum(axis=1)
    for row in sums_of(frame).to_dict("records"):
        shares = [np.mean(totals[:, row["sessions"] - 1] <= row[name]) for name in scored_columns(MODEL)]
        assert shares == pytest.approx(SCORED_LEVELS, abs=0.006)


def test_a_sum_is_the_same_bit_for_bit_alone_and_among_others_and_whatever_comes_later() -> None:
    panel, cutoff = panel_of(gappy_volumes(4, 600)), 580
    whole = sums_of(har_at(panel, cutoff))
    pd.testing.assert_frame_equal(sums_of(har_at(shaken_after(panel, cutoff), cutoff)), whole, check_exact=True)
    frame = har_at(panel, cutoff)
    for ticker, own in frame.groupby("unique_id"):
        expected = whole.loc[whole["unique_id"] == ticker].reset_index(drop=True)
        pd.testing.assert_frame_equal(sums_of(own.sample(frac=1, random_state=0)), expected, check_exact=True)
    many = pd.concat([frame.assign(unique_id=frame["unique_id"] + f"{copy:03}") for copy in range(40)])
    again = sums_of(many).query("unique_id.str.endswith('039')").assign(unique_id=whole["unique_id"].to_numpy())
    pd.testing.assert_frame_equal(again.reset_index(drop=True), whole, check_exact=True)


def test_a_sum_of_which_a_session_lacks_is_not_said(published: pd.DataFrame) -> None:
    lacking = published.loc[~((published["unique_id"] == "B") & (published["h"] == 4))]
    sums = sums_of(lacking).groupby("unique_id")["sessions"].agg(list).to_dict()
    assert sums == {"A": [2, 5, 10], "B": [2], "C": [2, 5, 10], "D": [2, 5, 10]}


@pytest.fixture(scope="module")
def simulated() -> Panel:
    tickers = ["SBUX", *(f"T{place}" for place in range(1, 12))]
    return simulated_panel(Exchange(seed=0, last=date(2010, 12, 31)), tickers, first=date(2005, 1, 3))


def test_the_intervals_of_sums_hold_and_say_more_than_added_quantiles(simulated: Panel) -> None:
    span = TestSpan(train_through=date(2008, 12, 31), test_start=date(2009, 1, 2), test_end=date(2010, 12, 31), step=3)
    frame, scale = backtest(simulated, [Har(), *naive_forecasters()], span), train_scales(simulated, span)
    found = score_sums(frame, scale).set_index("band")
    assert list(found.index) == ["2", "5", "10"]
    assert set(found["model"]) == {"har"}, "the others say a number that is no median"
    assert found["coverage_80"].between(0.77, 0.83).all()
    assert found["coverage_95"].between(0.93, 0.97).all()
    assert found.loc["5", "of_added"] < 0.97
    added = frame.sort_values([*KEYS, "h"]).groupby(KEYS)[["y", "har-lo-80", "har-hi-80"]].cumsum()
    five = added.loc[frame["h"] == 5]
    within = five["y"].between(five["har-lo-80"], five["har-hi-80"])
    assert within.mean() > 0.87, "or there would be nothing to calibrate"
    assert sum_words(frame, scale, "har").startswith("Sums of sessions inside of the 80 and the 95 % interval: of 2 ")


def test_a_test_of_one_session_has_no_sum() -> None:
    panel = panel_of(drawn_volumes(3, 800))
    span = replace(SPAN, test_start=date(2015, 1, 2), test_end=date(2015, 1, 2))
    frame, scale = backtest(panel, [Har()], span), train_scales(panel, span)
    assert score_sums(frame, scale).empty
    assert sum_words(frame, scale, "har") == ""
