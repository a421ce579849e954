import numpy as np
import pytest
from panels import synthetic_prices
from rows import disturb_test_rows

from volcast.models.recipes import make_recipe
from volcast.models.tutorial import BASELINES, build_features, last_value, least_squares, mean_20

RECIPE = make_recipe("tutorial", train_sessions=25, window_sessions=30)


def test_last_value_is_the_session_before() -> None:
    frame = build_features(synthetic_prices(30), RECIPE).assign(volume=np.arange(1.0, 31.0))
    predictions = last_value(frame, RECIPE)
    assert np.isnan(predictions[0])
    assert predictions[1:].tolist() == list(range(1, 30))


def test_mean_20_is_the_mean_of_the_20_sessions_before() -> None:
    frame = build_features(synthetic_prices(30), RECIPE).assign(volume=np.arange(1.0, 31.0))
    predictions = mean_20(frame, RECIPE)
    assert np.isnan(predictions[:20]).all()
    assert predictions[20] == pytest.approx(10.5)  # (1 + ... + 20) / 20
    assert predictions[29] == pytest.approx(19.5)  # (10 + ... + 29) / 20


def test_least_squares_finds_a_line_in_the_train_rows_and_stays_on_it_in_the_test_rows() -> None:
    frame = build_features(synthetic_prices(30), RECIPE)
    line = 1000 + 3 * frame["open"] - 2 * frame["low"]
    frame["volume"] = np.where(frame["role"] == "train", line, 1e9)
    np.testing.assert_allclose(least_squares(frame, RECIPE), line, rtol=1e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_no_baseline_uses_a_row_after_the_one_it_answers_for(name: str) -> None:
    frame = build_features(synthetic_prices(30), RECIPE)
    before, after = (BASELINES[name](each, RECIPE) for each in (frame, disturb_test_rows(frame)))
    np.testing.assert_array_equal(before[:25], after[:25])


@pytest.mark.parametrize("name", ["last_value", "mean_20"])
def test_a_sessions_own_volume_is_not_part_of_its_forecast(name: str) -> None:
    frame = build_features(synthetic_prices(30), RECIPE)
    changed = frame.copy()
    changed.loc[29, "volume"] = 1.0
    np.testing.assert_array_equal(BASELINES[name](frame, RECIPE), BASELINES[name](changed, RECIPE))
