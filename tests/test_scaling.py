import numpy as np
import pytest
import torch
from panels import synthetic_prices
from rows import disturb_test_rows
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from volcast.models.recipes import TutorialRecipe, make_recipe
from volcast.models.tutorial import Scaler, build_features, fit_scaler, rows, tensors

RECIPE = TutorialRecipe()
ALL = make_recipe("tutorial", fit_scalers_on="all")


@pytest.mark.parametrize("recipe", [RECIPE, ALL], ids=["train", "all"])
def test_scaling_is_scikit_learns_bit_for_bit(recipe: TutorialRecipe) -> None:
    frame = build_features(synthetic_prices(), recipe)
    fitted_on = frame if recipe is ALL else rows(frame, "train")
    (fit_x, fit_y), (x_NF, y_N1) = tensors(fitted_on, recipe), tensors(frame, recipe)
    standard, min_max = StandardScaler().fit(fit_x.numpy()), MinMaxScaler().fit(fit_y.numpy())
    scaler = fit_scaler(frame, recipe)
    scaled_N1 = scaler.scale_target(y_N1)
    np.testing.assert_array_equal(scaler.scale_features(x_NF).numpy(), standard.transform(x_NF.numpy()))
    np.testing.assert_array_equal(scaled_N1.numpy(), min_max.transform(y_N1.numpy()))
    np.testing.assert_array_equal(
        scaler.unscale_target(scaled_N1).numpy(), min_max.inverse_transform(scaled_N1.numpy())
    )


def test_a_constant_column_is_centred_and_not_divided_by_zero() -> None:
    frame = build_features(synthetic_prices(), RECIPE).assign(open=80.0, volume=5e6)
    x_NF, y_N1 = tensors(frame, RECIPE)
    scaler = fit_scaler(frame, RECIPE)
    assert scaler.scale_features(x_NF)[:, 0].tolist() == [0.0] * 253
    assert scaler.scale_target(y_N1).tolist() == [[0.0]] * 253
    assert scaler.unscale_target(torch.zeros(1, 1, dtype=torch.float64)).item() == 5e6


def test_scalers_fitted_on_train_do_not_see_the_test_rows() -> None:
    frame = build_features(synthetic_prices(), RECIPE)
    before, after = (fit_scaler(each, RECIPE).state_dict() for each in (frame, disturb_test_rows(frame)))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_scalers_fitted_on_all_do_see_the_test_rows() -> None:
    frame = build_features(synthetic_prices(), ALL)
    before, after = (fit_scaler(each, ALL).state_dict() for each in (frame, disturb_test_rows(frame)))
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_the_target_of_the_fitted_rows_spans_0_to_1() -> None:
    frame = build_features(synthetic_prices(), RECIPE)
    _, y_N1 = tensors(rows(frame, "train"), RECIPE)
    scaled_N1 = fit_scaler(frame, RECIPE).scale_target(y_N1)
    assert scaled_N1.min().item() == pytest.approx(0.0, abs=1e-15)
    assert scaled_N1.max().item() == pytest.approx(1.0, abs=1e-15)


def test_a_scaler_that_was_never_fitted_answers_nothing() -> None:
    assert Scaler(5).scale_features(torch.ones(2, 5, dtype=torch.float64)).isnan().all()
