"""What must hold on a machine with a CUDA device; skipped elsewhere."""

import pytest
import torch
from test_features import synthetic_prices

from models.devices import choose_device, describe_device
from models.features import build_features, tensors
from models.recipes import make_recipe
from models.scaling import fit_scaler
from models.training import Fitted, fit
from models.weights import to_bytes

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
    assert on_gpu.losses[0] == pytest.approx(on_cpu.losses[0], rel=1e-5)
    assert on_gpu.final_loss == pytest.approx(on_cpu.final_loss, rel=0.02)
    x_NF, _ = tensors(build_features(synthetic_prices(), RECIPE), RECIPE)
    assert on_gpu.nowcaster.predict(x_NF) == pytest.approx(on_cpu.nowcaster.predict(x_NF), rel=0.1)
