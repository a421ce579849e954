"""What must hold on a machine with a CUDA device; skipped elsewhere."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from panels import InMemory, gappy_volumes, priced_panel, synthetic_prices, tiny_recipe

from volcast.models.recipes import make_recipe
from volcast.models.text import silent
from volcast.models.tutorial import Fitted, build_features, fit, fit_scaler, tensors
from volcast.models.volume_inputs import Inputs, build_inputs
from volcast.models.volume_model import fit_volume_scaler
from volcast.models.volume_training import FittedVolume, TrainingRun, fit_volume
from volcast.models.weights import choose_device, describe_device, to_bytes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine")

RECIPE = make_recipe("tutorial")


def fit_on(device: str, seed: int = 0) -> Fitted:
    frame = build_features(synthetic_prices(), RECIPE)
    return fit(frame, RECIPE, scaler=fit_scaler(frame, RECIPE), seed=seed, device=choose_device(device))


def test_auto_takes_the_gpu_and_names_it() -> None:
    assert choose_device("auto").type == "cuda"
    assert describe_device(choose_device("auto")) == f"cuda ({torch.cuda.get_device_name()})"


def test_the_same_seed_gives_the_same_weights_bit_for_bit_on_a_gpu() -> None:
    assert to_bytes(fit_on("cuda").nowcaster) == to_bytes(fit_on("cuda").nowcaster)


def test_a_gpu_and_a_cpu_learn_the_same_from_the_same_seed() -> None:
    on_gpu, on_cpu = fit_on("cuda"), fit_on("cpu")
    assert on_gpu.losses[0] == pytest.approx(on_cpu.losses[0], rel=1e-4)
    assert on_gpu.final_loss == pytest.approx(on_cpu.final_loss, rel=0.02)
    x_NF, _ = tensors(build_features(synthetic_prices(), RECIPE), RECIPE)
    assert on_gpu.nowcaster.predict(x_NF) == pytest.approx(on_cpu.nowcaster.predict(x_NF), rel=0.1)


def some_inputs() -> Inputs:
    return build_inputs(priced_panel(gappy_volumes(6, 560)), use_earnings=True)


def fit_volume_on(
    device: str,
    inputs: Inputs,
    *,
    checkpoint: InMemory | None = None,
    on_epoch: Callable[[int, float], None] = silent,
    **changes: Any,
) -> FittedVolume:
    recipe, through = tiny_recipe(steps=80, **changes), 500
    scaler = fit_volume_scaler(inputs, through=through - recipe.stop_sessions)
    run = TrainingRun(scaler=scaler, through=through, seed=3, device=choose_device(device))
    return fit_volume(inputs, recipe, run, checkpoint=checkpoint, on_epoch=on_epoch)


def test_the_same_seed_gives_the_same_volume_model_bit_for_bit_on_a_gpu() -> None:
    first, again = (fit_volume_on("cuda", some_inputs()) for _ in range(2))
    assert first.losses == again.losses
    assert to_bytes(first.model) == to_bytes(again.model)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "mlp"])
def test_a_gpu_learns_the_volume_recipe_as_well_as_a_cpu(cell: str) -> None:
    inputs = some_inputs()
    on_gpu, on_cpu = fit_volume_on("cuda", inputs, cell=cell), fit_volume_on("cpu", inputs, cell=cell)
    assert on_gpu.losses[0][1] == pytest.approx(on_cpu.losses[0][1], rel=0.05)  # another dropout, and bf16
    assert on_gpu.final_loss == pytest.approx(on_cpu.final_loss, rel=0.05)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "mlp"])
def test_a_model_forecasts_on_a_gpu_what_it_forecasts_on_a_cpu(cell: str) -> None:
    inputs, cutoffs = some_inputs(), np.arange(505, 540)
    model = fit_volume_on("cpu", inputs, cell=cell).model
    on_cpu = model.forecast(inputs, cutoffs)
    on_gpu = model.to("cuda").forecast(inputs, cutoffs)
    np.testing.assert_allclose(on_gpu.quantiles_NCHQ, on_cpu.quantiles_NCHQ, rtol=1e-3)
    np.testing.assert_allclose(on_gpu.mean_NCH, on_cpu.mean_NCH, rtol=1e-3)


def test_steps_of_changing_shape_are_learnt_from_without_a_graph() -> None:
    fitted = fit_volume_on("cuda", some_inputs(), score_every=7)
    assert fitted.final_loss == pytest.approx(fit_volume_on("cuda", some_inputs(), score_every=8).final_loss, rel=0.05)


def test_a_training_that_was_killed_goes_on_to_the_same_weights_on_a_gpu() -> None:
    whole, checkpoint = fit_volume_on("cuda", some_inputs()), InMemory()

    def killed(steps: int, _loss: float) -> None:
        if steps == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_volume_on("cuda", some_inputs(), checkpoint=checkpoint, on_epoch=killed)
    resumed = fit_volume_on("cuda", some_inputs(), checkpoint=checkpoint)
    assert to_bytes(resumed.model) == to_bytes(whole.model)
