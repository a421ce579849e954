import numpy as np
import pytest
import torch
from panels import synthetic_prices
from safetensors.torch import load, save
from torch import Tensor, nn

from volcast.models.errors import DeviceUnavailable, WrongWeights
from volcast.models.recipes import TutorialRecipe, make_recipe
from volcast.models.tutorial import (
    Nowcaster,
    TutorialLSTM,
    as_sequences,
    build_features,
    fit,
    fit_scaler,
    from_bytes,
    rows,
    summary,
    tensors,
)
from volcast.models.weights import choose_device, describe_device, to_bytes

# N rows, T steps, F features, U hidden units, G = 4 U gate rows

RECIPE = TutorialRecipe()
QUICK = make_recipe("tutorial", epochs=40)


def nowcaster_of(recipe: TutorialRecipe = QUICK, seed: int = 3) -> tuple[Nowcaster, Tensor]:
    """A nowcaster trained for a few epochs on synthetic prices, and those prices (N, F)."""
    frame = build_features(synthetic_prices(), recipe)
    fitted = fit(frame, recipe, scaler=fit_scaler(frame, recipe), seed=seed, device=torch.device("cpu"))
    return fitted.nowcaster, tensors(frame, recipe)[0]


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def lstm_by_hand(layer: nn.LSTM, x_NTF: np.ndarray) -> np.ndarray:
    """The last hidden state (N, U) from the gate equations in float64; torch stacks the gates as i, f, g, o."""
    weights = {name: value.detach().double().numpy() for name, value in layer.named_parameters()}
    w_input_GF, w_hidden_GU = weights["weight_ih_l0"], weights["weight_hh_l0"]
    bias_G = weights["bias_ih_l0"] + weights["bias_hh_l0"]
    hidden_NU = np.zeros((len(x_NTF), layer.hidden_size))
    cell_NU = np.zeros_like(hidden_NU)
    for step in range(x_NTF.shape[1]):
        z_NG = x_NTF[:, step] @ w_input_GF.T + hidden_NU @ w_hidden_GU.T + bias_G
        z_input, z_forget, z_candidate, z_output = np.split(z_NG, 4, axis=1)
        cell_NU = sigmoid(z_forget) * cell_NU + sigmoid(z_input) * np.tanh(z_candidate)
        hidden_NU = sigmoid(z_output) * np.tanh(cell_NU)
    return hidden_NU


@pytest.mark.parametrize(("steps", "hidden"), [(1, 2), (7, 2), (12, 16)])
def test_the_torch_layer_agrees_with_the_gate_equations(steps: int, hidden: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    layer = TutorialLSTM(make_recipe("tutorial", hidden_size=hidden)).lstm
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=generator)
    x_NTF = torch.randn(9, steps, 5, generator=generator)
    with torch.inference_mode():
        _, (h_LNU, c_LNU) = layer(x_NTF)
    assert h_LNU.shape == c_LNU.shape == (1, 9, hidden)
    np.testing.assert_allclose(h_LNU[-1].numpy(), lstm_by_hand(layer, x_NTF.double().numpy()), atol=1e-6, rtol=0)


def test_the_trained_recipe_agrees_with_the_whole_network_written_out() -> None:
    nowcaster, x_NF = nowcaster_of()
    scaler, network = nowcaster.scaler, nowcaster.network
    x_N1F = as_sequences(scaler.scale_features(x_NF))
    weights = {name: value.detach().double().numpy() for name, value in network.named_parameters()}
    hidden_NU = np.maximum(lstm_by_hand(network.lstm, x_N1F.double().numpy()), 0)
    wide = np.maximum(hidden_NU @ weights["widen.weight"].T + weights["widen.bias"], 0)
    scaled_N1 = wide @ weights["narrow.weight"].T + weights["narrow.bias"]
    with torch.inference_mode():
        np.testing.assert_allclose(network(x_N1F).numpy(), scaled_N1, atol=1e-6, rtol=0)
    shares_N1 = (scaled_N1 - scaler.target_min.numpy()) / scaler.target_scale.numpy()
    np.testing.assert_allclose(nowcaster.predict(x_NF), shares_N1[:, 0], rtol=1e-5)


def test_the_network_has_585_parameters_as_the_summary_says() -> None:
    network = TutorialLSTM(RECIPE)
    assert sum(parameter.numel() for parameter in network.parameters()) == 72 + 384 + 129 == 585
    assert summary(network).splitlines() == [
        "layer     output shape    parameters",
        "LSTM      (rows, 1, 2)            72",
        "ReLU      (rows, 2)                0",
        "Linear    (rows, 128)            384",
        "ReLU      (rows, 128)              0",
        "Linear    (rows, 1)              129",
        "total                            585",
    ]
    assert summary(network) == summary(nowcaster_of()[0].network)


def test_the_shapes_are_those_of_the_article() -> None:
    frame = build_features(synthetic_prices(), RECIPE)
    scaler = fit_scaler(frame, RECIPE)
    shapes = []
    for role in ("train", "test"):
        x_NF, y_N1 = tensors(rows(frame, role), RECIPE)
        shapes += [as_sequences(scaler.scale_features(x_NF)).shape, scaler.scale_target(y_N1).shape]
    assert shapes == [(200, 1, 5), (200, 1), (53, 1, 5), (53, 1)]


def test_a_saved_and_loaded_nowcaster_predicts_bit_for_bit() -> None:
    nowcaster, x_NF = nowcaster_of()
    data = to_bytes(nowcaster)
    random_state = torch.get_rng_state()
    loaded = from_bytes(data, QUICK)
    assert torch.equal(torch.get_rng_state(), random_state)
    np.testing.assert_array_equal(loaded.predict(x_NF), nowcaster.predict(x_NF))
    assert to_bytes(loaded) == data
    assert loaded.scaler.feature_mean.dtype == torch.float64
    assert not loaded.training


def test_a_prediction_of_one_row_is_that_row_of_all() -> None:
    nowcaster, x_NF = nowcaster_of()
    assert nowcaster.predict(x_NF).shape == (253,)
    assert nowcaster.predict(x_NF[17:18])[0] == pytest.approx(nowcaster.predict(x_NF)[17], rel=1e-6)


def test_bytes_that_are_not_safetensors_are_refused() -> None:
    with pytest.raises(WrongWeights, match="3 bytes are not safetensors"):
        from_bytes(b"abc", QUICK)


def test_the_weights_of_another_recipe_are_refused_by_name_and_shape() -> None:
    data = to_bytes(nowcaster_of()[0])
    with pytest.raises(WrongWeights, match=r"there: .*widen\.weight \(128, 3\).* expected: .*widen\.weight \(128, 2\)"):
        from_bytes(data, make_recipe("tutorial", hidden_size=3))


@pytest.mark.parametrize("change", ["missing", "added", "rounded"])
def test_a_tensor_missing_added_or_of_less_precision_is_refused(change: str) -> None:
    held = load(to_bytes(nowcaster_of()[0]))
    if change == "missing":
        del held["scaler.target_min"]
    elif change == "added":
        held["scaler.offset"] = torch.zeros(1)
    else:
        held["scaler.target_min"] = held["scaler.target_min"].float()
    with pytest.raises(WrongWeights, match=r"scaler\.(target_min|offset) \(1,\) torch\.float(32|64)"):
        from_bytes(save(held), QUICK)


def test_the_cpu_can_always_be_chosen_and_an_unknown_device_is_refused() -> None:
    assert describe_device(choose_device("cpu")) == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda")
    with pytest.raises(DeviceUnavailable, match="must be auto, cpu or cuda; 'tpu' came"):
        choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_on_a_machine_without_it_is_refused_with_what_to_do() -> None:
    with pytest.raises(DeviceUnavailable, match=r"sees no CUDA device .*Use --device auto or cpu\."):
        choose_device("cuda")
