import numpy as np
import pandas as pd
import pytest
from panels import synthetic_prices

from volcast.models.recipes import NOWCAST_NOTE, TutorialRecipe, make_recipe
from volcast.models.text import format_shares
from volcast.models.tutorial import build_features, error_table, evaluate_nowcast

RECIPE = TutorialRecipe()
SESSIONS = pd.DatetimeIndex(["2020-01-02", "2020-01-03"])


def test_the_errors_of_two_sessions_worked_by_hand() -> None:
    actual = pd.Series([100.0, 200.0], index=SESSIONS)
    table = error_table(actual, {"volcast": np.array([110.0, 150.0]), "exact": np.array([100.0, 200.0])})
    assert list(table.index) == ["volcast", "exact"]
    assert table.loc["volcast"].to_dict() == pytest.approx(
        {
            "rmse_shares": 1300**0.5,  # (10^2 + 50^2) / 2
            "mae_shares": 30.0,
            "mape": 0.175,  # (10 / 100 + 50 / 200) / 2
            "smape": (10 / 210 + 50 / 350) / 2,
        }
    )
    assert table.loc["exact"].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_a_prediction_that_is_missing_is_refused_and_not_left_out_of_the_mean() -> None:
    actual = pd.Series([100.0, 200.0], index=SESSIONS)
    with pytest.raises(ValueError, match="each of the 2 sessions; not finite: volcast 1"):
        error_table(actual, {"volcast": np.array([np.nan, 150.0])})


def test_an_evaluation_scores_the_test_rows_beside_every_baseline() -> None:
    frame = build_features(synthetic_prices(), RECIPE)
    actual = frame["volume"].to_numpy()
    predictions = np.where(frame["role"] == "test", actual + 1000, 0.0)  # what it says of train rows does not count
    evaluation = evaluate_nowcast(frame, predictions, RECIPE)
    assert list(evaluation.table.index) == ["volcast", "last_value", "mean_20", "least_squares"]
    assert list(evaluation.table.columns) == ["rmse_shares", "mae_shares", "mape", "smape"]
    assert evaluation.rmse_shares == pytest.approx(1000)
    by_hand = np.sqrt(np.mean((actual[200:] - actual[199:-1]) ** 2))
    assert evaluation.table.loc["last_value", "rmse_shares"] == pytest.approx(by_hand)


def test_the_words_say_nowcast_what_is_beaten_and_that_the_sample_is_small() -> None:
    frame = build_features(synthetic_prices(), RECIPE)
    note, verdict, sample = evaluate_nowcast(frame, frame["volume"].shift(1, fill_value=0.0).to_numpy(), RECIPE).words
    assert note == NOWCAST_NOTE
    assert "53 test sessions 2020-09-16 to 2020-11-27: volcast does not beat last_value" in verdict
    assert "ratio 1.00), beats " in verdict or "ratio 1.00), does not beat " in verdict
    assert sample.startswith("53 test sessions of one ticker are few")


def test_a_year_of_test_sessions_is_not_called_few() -> None:
    recipe = make_recipe("tutorial", window_sessions=None)
    frame = build_features(synthetic_prices(452), recipe)
    assert len(evaluate_nowcast(frame, frame["volume"].to_numpy(), recipe).words) == 2


def test_scalers_fitted_on_all_rows_are_called_a_leak() -> None:
    recipe = make_recipe("tutorial", fit_scalers_on="all")
    frame = build_features(synthetic_prices(), recipe)
    words = evaluate_nowcast(frame, frame["volume"].to_numpy(), recipe).words
    assert any("leaks into the model" in sentence for sentence in words)


def test_a_wrong_number_of_predictions_is_refused() -> None:
    frame = build_features(synthetic_prices(), RECIPE)
    with pytest.raises(ValueError, match=r"\(253,\); \(53,\) came"):
        evaluate_nowcast(frame, np.zeros(53), RECIPE)


def test_shares_read_in_millions_thousands_or_one_by_one() -> None:
    assert [format_shares(shares) for shares in (2_532_048, 12_345, 950)] == ["2.53 M", "12.3 k", "950"]
