"""The networks, and the nowcaster that carries its scaler with it.

The LSTM of Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000), as torch.nn.LSTM computes it,
at each step from input x and previous state (h, c), both zero before the first step:

    i = sigmoid(W_ii x + b_ii + W_hi h + b_hi)     input gate
    f = sigmoid(W_if x + b_if + W_hf h + b_hf)     forget gate
    g = tanh   (W_ig x + b_ig + W_hg h + b_hg)     candidate
    o = sigmoid(W_io x + b_io + W_ho h + b_ho)     output gate
    c' = f * c + i * g,   h' = o * tanh(c')
"""

import numpy as np
import torch
from torch import Tensor, nn

from models.recipes import TutorialRecipe
from models.scaling import Scaler
from models.weights import load_exactly

# N sessions, T steps of one sequence (1 for the tutorial), F features, L layers, U units of the hidden state


class TutorialLSTM(nn.Module):
    """The article's layers: LSTM -> ReLU -> Linear -> ReLU -> Linear, in float32; 585 parameters by default."""

    def __init__(self, recipe: TutorialRecipe) -> None:
        super().__init__()
        self.lstm = nn.LSTM(len(recipe.features), recipe.hidden_size, recipe.layers, batch_first=True)
        self.relu = nn.ReLU()
        self.widen = nn.Linear(recipe.hidden_size, recipe.head_size)
        self.narrow = nn.Linear(recipe.head_size, 1)

    def forward(self, x_NTF: Tensor) -> Tensor:
        """Scaled features (N, T, F) to the scaled target of the last step (N, 1)."""
        _, (h_LNU, _) = self.lstm(x_NTF)  # without an initial state torch takes zeros for h and c
        return self.narrow(self.relu(self.widen(self.relu(h_LNU[-1]))))


class Nowcaster(nn.Module):
    """Raw prices of a session in, its volume in shares out: scaler, network and inverse scaler in one module."""

    def __init__(self, scaler: Scaler, network: TutorialLSTM) -> None:
        super().__init__()
        self.scaler = scaler
        self.network = network

    def forward(self, x_NF: Tensor) -> Tensor:
        """(N, F) float64, USD a share, to (N, 1) float64, shares."""
        x_N1F = as_sequences(self.scaler.scale_features(x_NF))
        return self.scaler.unscale_target(self.network(x_N1F).double())

    def predict(self, x_NF: Tensor) -> np.ndarray:
        """The volume in shares, (N,) float64, in evaluation mode on the module's device; not clipped at 0."""
        self.eval()
        with torch.inference_mode():
            return self(x_NF.to(self.scaler.feature_mean.device)).squeeze(1).cpu().numpy()


def as_sequences(x_NF: Tensor) -> Tensor:
    """Scaled features as the network takes them: (N, 1, F) float32, each session a sequence of one step."""
    return x_NF.float().unsqueeze(1)


def from_bytes(data: bytes, recipe: TutorialRecipe) -> Nowcaster:
    """The nowcaster whose tensors `weights.to_bytes` saved, on the CPU and in evaluation mode. Raises WrongWeights."""
    with torch.device("meta"):  # shapes only: no random initial weights are drawn to be thrown away
        nowcaster = Nowcaster(Scaler(len(recipe.features)), TutorialLSTM(recipe))
    return load_exactly(nowcaster, data)


def summary(module: Nowcaster | TutorialLSTM) -> str:
    """A table of the network's layers in the order of the forward pass: output shape and number of parameters."""
    network = module.network if isinstance(module, Nowcaster) else module
    lines = [f"{'layer':<10}{'output shape':<16}{'parameters':>10}"]

    def note(layer: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        shape = (output[0] if isinstance(output, tuple) else output).shape
        sizes = ", ".join(["rows", *map(str, shape[1:])])
        lines.append(f"{type(layer).__name__:<10}{f'({sizes})':<16}{_parameter_count(layer):>10}")

    handles = [layer.register_forward_hook(note) for layer in network.children()]
    weight = next(network.parameters())
    with torch.inference_mode():
        network(torch.zeros(1, 1, network.lstm.input_size, device=weight.device, dtype=weight.dtype))
    for handle in handles:
        handle.remove()
    return "\n".join([*lines, f"{'total':<26}{_parameter_count(network):>10}"])


def _parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
