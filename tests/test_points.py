from datetime import date

import numpy as np
import pandas as pd
import pytest
from panels import drawn_volumes, panel_of

from volcast.models.backtest import TestSpan, backtest, train_scales
from volcast.models.errors import UnknownPoint
from volcast.models.forecast_columns import in_whole_shares, point_of, quantile_columns, scored_columns
from volcast.models.forecasters import LEVELS, MODEL, naive_forecasters
from volcast.models.har import Har
from volcast.models.point_names import level_of, point_named, point_words
from volcast.models.points import score_points, with_point
from volcast.models.scores import scales_of, score
from volcast.models.sums import sums_of
from volcast.models.volume_evaluation import fallback_frame

SCORES = {0.025: -1.959964, 0.1: -1.281552, 0.2: -0.841621, 0.35: -0.385320, 0.5: 0.0}  # normal, of levels up to 0.5


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return fallback_frame(panel_of(drawn_volumes(3, 600)))


@pytest.mark.parametrize(
    ("word", "name", "level", "words"),
    [
        ("median", "median", 0.5, "median"),
        ("Mean ", "mean", None, "mean"),
        ("quantile:0.4", "quantile:0.4", 0.4, "quantile 0.4"),
        ("quantile:.975", "quantile:.975", 0.975, "quantile .975"),
        ("ALE", "ale", 1 / 3, "quantile 1/3 (ale)"),
    ],
)
def test_a_point_has_a_name_and_a_level(word: str, name: str, level: float | None, words: str) -> None:
    assert (point_named(word), level_of(name), point_words(name)) == (name, level, words)


@pytest.mark.parametrize("word", ["", "mode", "quantile", "quantile:", "quantile:0.01", "quantile:1", "quantile:0.4x"])
def test_another_point_is_refused(word: str) -> None:
    with pytest.raises(UnknownPoint, match=r"--point must be median, mean, ale or quantile:Q .*; '.*' came"):
        point_named(word)


def test_the_median_is_what_is_published(published: pd.DataFrame) -> None:
    assert with_point(published, "median") is published
    assert point_of(published) == "median"


def test_a_stored_level_is_taken_as_it_is_and_the_frame_names_it(published: pd.DataFrame) -> None:
    shown = with_point(published, "quantile:0.35")
    assert shown[MODEL].tolist() == published["volcast-q-0.35"].tolist()
    assert shown["volcast-median"].tolist() == published[MODEL].tolist()
    assert list(shown)[4:7] == [MODEL, "point", "volcast-median"]
    assert set(shown["point"]) == {point_of(shown)} == {"quantile:0.35"}
    assert with_point(published, "mean")[MODEL].tolist() == published["volcast-mean"].tolist()
    assert {"point", "volcast-median"} < set(in_whole_shares(shown))


def test_a_level_between_two_is_on_the_straight_line_of_the_log_over_normal_scores(published: pd.DataFrame) -> None:
    spread, level = 0.4, np.log(2e6)
    own = pd.DataFrame(published.loc[published["unique_id"] == "C"])  # whose upper levels are above
    names = dict(zip(quantile_columns(MODEL), LEVELS, strict=True))
    lower = {name: np.exp(level + spread * SCORES[each]) for name, each in names.items() if each in SCORES}
    shown = with_point(own.assign(**lower), "ale")[MODEL]
    assert np.log(shown.to_numpy()) == pytest.approx(level - spread * 0.4307273, abs=1e-6)  # of 1/3
    assert with_point(published, "ale")[MODEL].between(published["volcast-q-0.2"], published["volcast-q-0.35"]).all()


def test_sums_of_a_forecast_with_another_point_are_those_of_its_quantiles(published: pd.DataFrame) -> None:
    shown = with_point(published, "quantile:0.2")
    pd.testing.assert_frame_equal(sums_of(shown), sums_of(published), check_exact=True)
    sums = with_point(sums_of(shown), point_of(shown))
    assert set(sums["point"]) == {"quantile:0.2"}
    assert sums[MODEL].between(sums["volcast-lo-80"], sums["volcast-median"]).all()


def test_a_nowcast_has_no_other_point(published: pd.DataFrame) -> None:
    with pytest.raises(UnknownPoint, match="one number a session has no mean"):
        with_point(pd.DataFrame(published, columns=["unique_id", "cutoff", "ds", "h", MODEL]), "mean")


@pytest.fixture(scope="module")
def tested() -> tuple[pd.DataFrame, pd.DataFrame]:
    panel = panel_of(drawn_volumes(4, 1000))
    span = TestSpan(train_through=date(2013, 12, 31), test_start=date(2014, 1, 2), test_end=date(2015, 12, 18))
    return backtest(panel, [Har(), *naive_forecasters()], span), train_scales(panel, span)


@pytest.mark.parametrize("point", ["mean", "quantile:0.4", "ale"])
def test_each_point_has_a_smaller_loss_of_its_own_than_the_median(
    point: str, tested: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    found = score_points(*tested, point).set_index(["band", "model"])
    har = found.loc[("1-10", "har")]
    assert har["of_median"] < 1
    level = level_of(point)
    if level is not None:
        assert har["over_share"] == pytest.approx(level, abs=0.04)
    assert set(found["mean_of"]) == {point}
    assert list(found.index[:2]) == [("1", "har"), ("1", "naive")]


def test_the_loss_of_the_median_is_half_the_mase_that_decides_at_the_gate(
    tested: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    """The pinball loss at 0.5."""
    mase = score(*tested).panel.set_index(["band", "model"])["mase"]
    found = score_points(*tested, "quantile:0.5").set_index(["band", "model"])
    assert found.loc[mase.index, "loss"].to_numpy() * 2 == pytest.approx(mase.to_numpy())
    assert found["of_median"].to_numpy() == pytest.approx(1)


def test_ale_counts_what_is_too_much_twice() -> None:
    keys = {"unique_id": "A", "cutoff": pd.Timestamp("2024-01-05"), "h": 1}
    scale = scales_of({"A": np.arange(20.0)}, 5)
    values = {name: [np.e * 100, 100 / np.e] for name in scored_columns("x")}  # one e-fold above, one below
    frame = pd.DataFrame({**keys, "ds": pd.bdate_range("2024-01-08", periods=2), "y": 100.0, **values})
    found = score_points(frame, scale, "ale").set_index("band").loc["1"]
    assert (found["loss"], found["over_share"], found["of_median"]) == pytest.approx((1.5, 0.5, 1))  # (2 + 1) / 2
