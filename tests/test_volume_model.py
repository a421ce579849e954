from functools import lru_cache

import numpy as np
import pytest
import torch
from panels import gappy_volumes, priced_panel, tiny_recipe

from volcast.models.adaptation import half_interval, moved
from volcast.models.errors import WrongWeights
from volcast.models.forecasters import LEVELS, MEDIAN
from volcast.models.panel import HORIZONS
from volcast.models.recipes import VolumeRecipe
from volcast.models.volume_inputs import CPU, Inputs, build_inputs
from volcast.models.volume_model import (
    VolumeModel,
    calibrate,
    fit_volume_scaler,
    scaled_sessions,
    targets_at,
    volume_from_bytes,
)
from volcast.models.weights import to_bytes

SESSIONS = 560  # more than two stretches


@lru_cache(maxsize=1)
def some_inputs() -> Inputs:
    return build_inputs(priced_panel(gappy_volumes(6, SESSIONS)), use_earnings=True)


def untrained(recipe: VolumeRecipe) -> VolumeModel:
    """Random weights: what is tested here holds for any."""
    torch.manual_seed(0)
    return VolumeModel(recipe, fit_volume_scaler(some_inputs(), through=400)).eval()


def test_a_calibrated_quantile_has_its_share_of_held_back_targets_below() -> None:
    model, inputs = untrained(tiny_recipe()), some_inputs()
    cutoffs = np.arange(400, 480)
    calibrate(model, inputs, cutoffs, through=480)
    first, every_NCHQ = model.centred(inputs, 400, 479, through=480)
    raw_NCHQ = every_NCHQ[:, cutoffs - first]
    moved_NCHQ = raw_NCHQ + model.calibration_HQ.numpy() * half_interval(raw_NCHQ)
    target_NCH, is_there_NCH = targets_at(inputs, cutoffs, through=480)
    for h in range(HORIZONS):
        there_NC = is_there_NCH[:, :, h]
        below_Q = (target_NCH[there_NC, h][:, None] <= moved_NCHQ[there_NC, h]).mean(axis=0)
        off_Q = np.abs(below_Q - LEVELS)
        off_Q[MEDIAN] = 0  # stays where it was
        assert off_Q.max() <= 1.01 / there_NC.sum()
    assert (model.calibration_HQ[:, MEDIAN] == 0).all()


def test_quantiles_are_moved_by_halves_of_the_interval_and_stay_in_order() -> None:
    quantile_NHQ = np.arange(9, dtype=np.float32)[None, None].repeat(HORIZONS, axis=1)  # 0.1 at 1, 0.9 at 7: half is 3
    moves_HQ = np.zeros((HORIZONS, 9))
    moves_HQ[0, 8], moves_HQ[1, 8] = 0.5, -1.0
    after = moved(quantile_NHQ, moves_HQ)
    assert after[0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 9.5]
    assert after[0, 1].tolist() == [0, 1, 2, 3, 4, 5, 5, 6, 7]
    assert after[0, 2].tolist() == list(range(9))


def test_by_one_rate_calibration_goes_on_after_the_fit_with_each_session_that_closes() -> None:
    """As in release 0.1.0: what its models say must stay."""
    model, inputs, cutoffs = untrained(tiny_recipe(adaptation="one rate")), some_inputs(), np.array([450, 451])
    last = inputs.panel.sessions.to_numpy()[450] - np.datetime64("1970-01-01")
    model.fitted_through = torch.tensor(last // np.timedelta64(1, "D"))
    assert model.first_unseen(inputs) == 450
    raw_NCHQ, said = model.quantiles(inputs, cutoffs), model.forecast(inputs, cutoffs)
    target_NCH, is_there_NCH = targets_at(inputs, cutoffs, through=SESSIONS - 1)
    assert is_there_NCH[:, 0, 0].all()
    below_Q = (target_NCH[:, 0, 0, None] <= raw_NCHQ[:, 0, 0]).mean(axis=0)
    move_Q = 0.1 * (np.array(LEVELS) - below_Q)
    move_Q[MEDIAN] = 0
    half_N1 = half_interval(raw_NCHQ[:, 1, 0])
    expected_NQ = np.sort(raw_NCHQ[:, 1, 0] + move_Q * half_N1, axis=1) + inputs.level_NT[:, [451]]
    np.testing.assert_allclose(np.log(said.quantiles_NCHQ[:, 1, 0]), expected_NQ, atol=1e-5)
    raw_too = raw_NCHQ[:, 1, 1] + inputs.level_NT[:, [451]]  # two sessions ahead: no target has come yet
    np.testing.assert_allclose(np.log(said.quantiles_NCHQ[:, 1, 1]), raw_too, atol=1e-5)


def test_saved_and_loaded_it_forecasts_the_same_bits() -> None:
    recipe, inputs, cutoffs = tiny_recipe(), some_inputs(), np.array([410, 505])
    model = untrained(recipe)
    calibrate(model, inputs, np.arange(400, 440), through=440)
    data = to_bytes(model)
    loaded = volume_from_bytes(data, recipe)
    before, after = (each.forecast(inputs, cutoffs) for each in (model, loaded))
    assert before.quantiles_NCHQ.tobytes() == after.quantiles_NCHQ.tobytes()
    assert before.mean_NCH.tobytes() == after.mean_NCH.tobytes()
    assert to_bytes(loaded) == data
    with pytest.raises(WrongWeights, match="Load them with the recipe"):
        volume_from_bytes(data, tiny_recipe(hidden_size=9))


def test_no_forecast_without_a_row_at_the_cutoff_or_too_short_a_history() -> None:
    # The first ticker has no row at every 50th session; the last begins at 186, so 195 is its tenth.
    said = untrained(tiny_recipe()).forecast(some_inputs(), np.array([49, 194, 195, 449]))
    is_there_NC = np.asarray(np.isfinite(said.quantiles_NCHQ).all(axis=(2, 3)))
    assert is_there_NC[0].tolist() == [False, True, True, False]
    assert is_there_NC[1].tolist() == [True] * 4
    assert is_there_NC[-1].tolist() == [False, False, True, True]
    assert (np.isfinite(said.mean_NCH).all(axis=2) == is_there_NC).all()
    assert np.isnan(said.quantiles_NCHQ[~is_there_NC]).all()


def test_the_mean_of_a_skewed_law_is_above_its_median() -> None:
    # Without weights the median is the level, and each step from it log(1 + exp(-1.5)) = 0.2014 up or down.
    model, inputs = untrained(tiny_recipe()), some_inputs()
    for parameter in model.members.parameters():
        parameter.data.zero_()
    model.fitted_through = torch.tensor(20_000)  # days: later than the panel, so that nothing moves the quantiles
    said = model.forecast(inputs, np.array([300]))
    level_N = np.exp(inputs.level_NT[1:, 300])
    np.testing.assert_allclose(said.point_NCH[1:, 0, 3], level_N, rtol=1e-5)
    np.testing.assert_allclose(said.quantiles_NCHQ[1:, 0, 3, -1], level_N * np.exp(4 * 0.20141), rtol=1e-4)
    assert (np.diff(said.quantiles_NCHQ[1:], axis=-1) > 0).all()
    assert (said.mean_NCH[1:] > 1.05 * said.point_NCH[1:]).all()


def test_the_scaler_brings_train_rows_to_mean_0_and_variance_1_and_clips() -> None:
    inputs = some_inputs()
    scaler = fit_volume_scaler(inputs, through=400)
    ticker_R, place_R = np.nonzero(inputs.usable_NT[:, :401])
    x_RX = np.concatenate([inputs.past_NTF[ticker_R, place_R], np.zeros((len(ticker_R), 9))], axis=1)
    np.testing.assert_allclose(scaler.mean.numpy(), x_RX.mean(axis=0), atol=1e-9)
    scaled_RX = scaler(torch.full((1, x_RX.shape[1]), 1e6))
    assert scaled_RX.abs().max() == 3


def test_the_cell_reads_nothing_of_a_session_without_a_row() -> None:
    inputs = some_inputs()
    scaler = fit_volume_scaler(inputs, through=400)
    x_BTX, _ = scaled_sessions(inputs.on(CPU), scaler, torch.tensor([0]), torch.tensor([48, 49, 50]))
    assert x_BTX.abs().sum(dim=2)[0].gt(0).tolist() == [True, False, True]
