"""The training loop, and the fit of a recipe on its train rows.

One epoch:
1. for each batch: gradients to zero, forward pass, loss, backward pass, one Adam step;
2. the epoch's loss is the mean over the rows of the losses of those forward passes, so each is taken before its step;
3. every `log_every_epochs` epochs, and at the last, the loss is kept and reported.

A run is a function of (rows, recipe, seed, device): initial weights are drawn on the CPU from a fork of torch's
generator, so that neither the caller's random numbers nor earlier runs matter.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from models.errors import TrainingDiverged
from models.features import rows, tensors
from models.lstm import Nowcaster, TutorialLSTM, as_sequences
from models.recipes import TutorialRecipe
from models.scaling import Scaler

# N sessions, F features

EpochLoss = tuple[int, float]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What the loop needs to know of a recipe."""

    loss: Callable[[Tensor, Tensor], Tensor]  # (predicted, target) to a scalar: the mean over the batch's rows
    epochs: int
    learning_rate: float  # Adam's
    log_every_epochs: int


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained nowcaster, on the CPU, and how the training went."""

    nowcaster: Nowcaster
    losses: tuple[EpochLoss, ...]  # (epoch, loss) at epochs 0, log_every_epochs, ..., and the last
    final_loss: float  # mean squared error on the scaled target, in the last epoch's forward pass
    seconds: float  # wall clock of the training


def silent(_epoch: int, _loss: float) -> None:
    """An `on_epoch` that says nothing."""


def train(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    config: TrainingConfig,
    on_epoch: Callable[[int, float], None] = silent,
) -> tuple[EpochLoss, ...]:
    """Trains `network` in place; returns (epoch, loss) of every logged epoch and of the last.

    `batches` holds pairs (input, target) on the network's device and is gone through once an epoch. `on_epoch` is
    called with just the pairs that are returned. Raises TrainingDiverged as soon as a loss is not finite; an interrupt
    goes through to the caller.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    network.train()
    losses = []
    for epoch in range(config.epochs):
        loss = _one_epoch(network, batches, loss_of=config.loss, optimizer=optimizer)
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"The loss is {loss} at epoch {epoch} of {config.epochs} (learning rate {config.learning_rate}); it "
                "must be finite. Lower the learning rate, and look for extreme values in the train rows."
            )
        if epoch % config.log_every_epochs == 0 or epoch == config.epochs - 1:
            losses.append((epoch, loss))
            on_epoch(epoch, loss)
    return tuple(losses)


def fit(
    frame: pd.DataFrame,
    recipe: TutorialRecipe,
    *,
    scaler: Scaler,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[int, float], None] = silent,
) -> Fitted:
    """The recipe's network, trained on the train rows of a `build_features` frame, with the scaler that goes with it.

    The same arguments give the same weights bit for bit (on a CPU, one machine type). Raises TrainingDiverged.
    """
    started = time.perf_counter()
    x_NF, y_N1 = tensors(rows(frame, "train"), recipe)
    x_N1F = as_sequences(scaler.scale_features(x_NF)).to(device)
    target_N1 = scaler.scale_target(y_N1).float().to(device)
    config = TrainingConfig(
        loss=nn.functional.mse_loss,
        epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        log_every_epochs=recipe.log_every_epochs,
    )
    with seeded(seed, device), one_thread():
        network = TutorialLSTM(recipe).to(device)
        losses = train(network, [(x_N1F, target_N1)], config=config, on_epoch=on_epoch)
    nowcaster = Nowcaster(scaler, network.cpu()).eval()
    seconds = time.perf_counter() - started
    return Fitted(nowcaster=nowcaster, losses=losses, final_loss=losses[-1][1], seconds=seconds)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's random numbers on the CPU and on `device` follow from `seed`; outside, they go on undisturbed."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes on one CPU thread, in the whole process: 585 weights are too few to share out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _one_epoch(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
) -> float:
    total, count = 0.0, 0
    for inputs, target in batches:
        optimizer.zero_grad()
        loss = loss_of(network(inputs), target)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(target)
        count += len(target)
    return total / count
