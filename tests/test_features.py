import numpy as np
import pandas as pd
import pytest
import torch
from panels import synthetic_prices

from volcast.models.errors import IncompletePrices, NotEnoughSessions
from volcast.models.recipes import TutorialRecipe, make_recipe
from volcast.models.tutorial import build_features, rows, tensors

RECIPE = TutorialRecipe()


def test_the_first_200_of_the_newest_253_sessions_train_and_the_rest_test() -> None:
    prices = synthetic_prices(300)
    frame = build_features(prices, RECIPE)
    assert list(frame.columns) == ["ticker", "session", *RECIPE.features, "volume", "role"]
    assert frame["session"].tolist() == prices["session"].tail(253).tolist()
    assert frame["role"].tolist() == ["train"] * 200 + ["test"] * 53
    assert frame.index.tolist() == list(range(253))


def test_without_a_window_every_session_is_looked_at() -> None:
    frame = build_features(synthetic_prices(300), make_recipe("tutorial", window_sessions=None))
    assert len(frame) == 300
    assert len(rows(frame, "test")) == 100


def test_201_sessions_are_enough_and_200_are_not() -> None:
    assert len(rows(build_features(synthetic_prices(201), RECIPE), "test")) == 1
    with pytest.raises(NotEnoughSessions) as caught:
        build_features(synthetic_prices(200), RECIPE)
    assert str(caught.value) == (
        "AAA: 200 sessions came, 2019-12-11 to 2020-09-15; recipe tutorial needs 201: 200 to train on and at least one "
        "to test. Bring in an earlier start."
    )


def test_no_session_at_all_is_said_so() -> None:
    with pytest.raises(NotEnoughSessions, match="needs 201 sessions; none came"):
        build_features(synthetic_prices(0), RECIPE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_missing_value_is_refused_by_session_and_column(value: float) -> None:
    prices = synthetic_prices()
    prices.loc[3, "low"] = value
    with pytest.raises(IncompletePrices, match=rf"AAA 2019-12-16: low {value}; .* 1 of 253 sessions"):
        build_features(prices, RECIPE)


def test_a_null_of_an_integer_column_is_refused_too() -> None:
    prices = synthetic_prices().astype({"volume": "Int64"})
    prices.loc[252, "volume"] = pd.NA
    with pytest.raises(IncompletePrices, match="volume nan"):
        build_features(prices, RECIPE)


def test_a_missing_value_before_the_window_does_no_harm() -> None:
    prices = synthetic_prices(300)
    prices.loc[0, "low"] = np.nan
    assert len(build_features(prices, RECIPE)) == 253


def test_sessions_out_of_order_or_twice_are_refused() -> None:
    prices = synthetic_prices()
    with pytest.raises(IncompletePrices, match="must ascend by session"):
        build_features(prices.iloc[::-1], RECIPE)
    with pytest.raises(IncompletePrices, match="AAA 2019-12-11 stands after AAA 2019-12-11"):
        build_features(pd.concat([prices.head(1), prices.head(252)]), RECIPE)


def test_two_tickers_are_refused() -> None:
    both = pd.concat([synthetic_prices(), synthetic_prices(ticker="BBB")])
    with pytest.raises(ValueError, match="one ticker; these came: AAA, BBB"):
        build_features(both, RECIPE)


def test_tensors_hold_the_frames_numbers_unscaled() -> None:
    frame = build_features(synthetic_prices(), RECIPE)
    x_NF, y_N1 = tensors(frame, RECIPE)
    assert (x_NF.shape, y_N1.shape) == ((253, 5), (253, 1))
    assert x_NF.dtype == y_N1.dtype == torch.float64
    assert x_NF[7].tolist() == frame.loc[7, list(RECIPE.features)].tolist()
    assert y_N1[7].item() == frame.loc[7, "volume"]
