"""Training the members of the volume forecaster.

1. the last `stop_sessions` of the train span are held back; the rest is sampled: `batch_sequences` stretches of a
   ticker's history a step, the first part of each burn-in, every `score_every`-th of the others forecast from
2. each member has weights, batches and dropout of its own, all drawn from (seed, member, epoch); an epoch is
   `validate_every_steps` steps, members in threads side by side where there is no GPU
3. AdamW under a one-cycle schedule (Smith and Topin, 2018, arXiv:1708.07120), gradients clipped by their norm
4. after each epoch: the pinball loss on the held-back sessions, the best weights kept, a checkpoint written; a member
   that has not improved for PATIENCE epochs stops
5. at the end the quantiles are calibrated on the held-back sessions

A run resumed from a checkpoint gives the same weights, bit for bit, as one that was never interrupted.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from models.errors import NotEnoughSessions, TrainingDiverged
from models.forecasters import Forecasts
from models.panel import HORIZONS, Panel
from models.recipes import VolumeRecipe
from models.training import EpochLoss, one_thread, silent
from models.volume_features import Inputs, build_inputs, targets
from models.volume_model import (
    EPOCH,
    VolumeModel,
    VolumeScaler,
    ahead_of,
    calibrate,
    fit_volume_scaler,
    scaled_sessions,
)
from models.volume_network import ForkingNetwork, pinball_loss

# N tickers, B sequences, T sessions of each, P of them scored, H horizons

PATIENCE = 4  # epochs
RISE = 0.3  # of the steps, in which the learning rate rises to its highest
START, END = 1 / 25, 1e-5  # the rate at both ends, as a share of the highest
MOMENTUM = (0.95, 0.85)  # beta 1 at the lowest and at the highest rate
STOP_TICKERS, STOP_STEP = 64, 3  # the held-back sessions are looked at through so many tickers, every third cutoff
STOP_WARM_UP = 126


class Checkpoint(Protocol):
    """Where a training leaves what it needs to go on."""

    def load(self) -> bytes | None:
        """What was saved last, or None."""
        ...

    def save(self, data: bytes) -> None:
        """Keep these bytes in place of the ones before."""
        ...

    def clear(self) -> None:
        """Forget them: the training is done."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingRun:
    """What one training starts from, beside features and recipe."""

    scaler: VolumeScaler
    through: int  # place of the last session that may be a target, held-back sessions included
    seed: int
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class FittedVolume:
    """A trained forecaster, on the CPU, and how the training went."""

    model: VolumeModel
    losses: tuple[EpochLoss, ...]  # (steps done, mean pinball loss of the members on the held-back sessions)
    final_loss: float  # the same of the weights that were kept
    seconds: float  # wall clock


@dataclass(kw_only=True)
class _Member:
    """One network in training."""

    network: ForkingNetwork
    optimizer: torch.optim.AdamW
    best: dict[str, Tensor] = field(default_factory=dict)
    best_loss: float = math.inf
    last_loss: float = math.inf
    worse: int = 0  # epochs since the best


@dataclass(frozen=True, kw_only=True, eq=False)
class _Data:
    """What the members are trained on."""

    inputs: Inputs
    recipe: VolumeRecipe
    x_NTX: Tensor  # float32, scaled
    calendar_TK: Tensor
    train_end: int  # place of the last session that may be a target of training; then the held-back ones
    first_N: np.ndarray  # the first place at which a sequence of each ticker may begin
    choices_N: np.ndarray  # how many places there are; 0 for a ticker that cannot be trained on
    run: TrainingRun


@dataclass(frozen=True, eq=False)
class _Sequences:
    """Stretches of tickers' histories to run along, and what to forecast from them."""

    ticker_B: np.ndarray
    place_BT: np.ndarray  # sessions
    scored_P: np.ndarray  # which of each sequence's sessions are cutoffs
    until: int  # place of the last session that may be a target


def fit_volume(
    inputs: Inputs,
    recipe: VolumeRecipe,
    run: TrainingRun,
    *,
    on_epoch: Callable[[int, float], None] = silent,
    checkpoint: Checkpoint | None = None,
) -> FittedVolume:
    """The recipe's members, trained and calibrated on targets up to `run.through`.

    `on_epoch` is called with the steps done and the loss. The same arguments give the same weights bit for bit on a
    CPU. Raises NotEnoughSessions, TrainingDiverged.
    """
    started, device = time.perf_counter(), run.device
    data = _prepare(inputs, recipe, run)
    members = [_new_member(data, number) for number in range(recipe.members)]
    saved = checkpoint.load() if checkpoint else None
    losses = _restore(members, saved) if saved else []
    epochs = math.ceil(recipe.steps / recipe.validate_every_steps)
    threads = _threads(device)  # before one_thread makes it 1
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        while len(losses) < epochs and any(member.worse < PATIENCE for member in members):
            epoch = len(losses)
            list(pool.map(lambda number: _run_epoch(members[number], data, number, epoch), range(len(members))))  # noqa: B023
            losses.append(float(np.mean([member.last_loss for member in members])))
            if checkpoint:
                checkpoint.save(_saved(members, losses))
            on_epoch(_steps_done(recipe, epoch), losses[-1])
        model = _finished(data, members)
    if checkpoint:
        checkpoint.clear()
    return FittedVolume(
        model=model,
        losses=tuple((_steps_done(recipe, epoch), loss) for epoch, loss in enumerate(losses)),
        final_loss=float(np.mean([member.best_loss for member in members])),
        seconds=time.perf_counter() - started,
    )


class VolumeForecaster:
    """The volume recipe as one forecaster among others: `volcast`."""

    name = "volcast"

    def __init__(
        self,
        recipe: VolumeRecipe,
        *,
        seed: int,
        device: torch.device,
        on_epoch: Callable[[int, float], None] = silent,
    ) -> None:
        self._recipe, self._seed, self._device, self._on_epoch = recipe, seed, device, on_epoch
        self._model: VolumeModel | None = None
        self._built: tuple[Panel, Inputs] | None = None

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Scaler, networks and calibration from the sessions up to place `through`."""
        inputs = self.inputs(panel)
        check_enough_sessions(inputs, self._recipe, through=through)
        scaler = fit_volume_scaler(inputs, through=through - self._recipe.stop_sessions)
        run = TrainingRun(scaler=scaler, through=through, seed=self._seed, device=self._device)
        self._model = fit_volume(inputs, self._recipe, run, on_epoch=self._on_epoch).model
        return self

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """As `VolumeModel.forecast`."""
        assert self._model is not None, "fit comes before forecast"
        return self._model.forecast(self.inputs(panel), cutoffs)

    def inputs(self, panel: Panel) -> Inputs:
        """The features of a panel; those of the last one are at hand."""
        if self._built is None or self._built[0] is not panel:
            self._built = (panel, build_inputs(panel, use_earnings=self._recipe.use_earnings))
        return self._built[1]


def one_cycle(share: float) -> tuple[float, float]:
    """(learning rate as a share of the highest, beta 1) after `share` (0..1) of the steps: half cosines up and down."""
    if share < RISE:
        height, low = (1 - math.cos(math.pi * share / RISE)) / 2, START
    else:
        height, low = (1 + math.cos(math.pi * (share - RISE) / (1 - RISE))) / 2, END
    return low + (1 - low) * height, MOMENTUM[0] + (MOMENTUM[1] - MOMENTUM[0]) * height


def check_enough_sessions(inputs: Inputs, recipe: VolumeRecipe, *, through: int) -> None:
    """Raises NotEnoughSessions where the sessions up to place `through` hold no sequence to train on."""
    train_end, length = through - recipe.stop_sessions, recipe.burn_in_sessions + recipe.scored_sessions
    if train_end < length or not inputs.usable_NT[:, :train_end].any():
        first, last = inputs.panel.sessions[0], inputs.panel.sessions[through]
        raise NotEnoughSessions(
            f"The sessions {first:%Y-%m-%d} to {last:%Y-%m-%d} are too few to train on: sequences take {length} of "
            f"them and {recipe.stop_sessions} are held back for early stopping. Bring in an earlier start."
        )


def _prepare(inputs: Inputs, recipe: VolumeRecipe, run: TrainingRun) -> _Data:
    through, train_end = run.through, run.through - recipe.stop_sessions
    check_enough_sessions(inputs, recipe, through=through)
    newest = train_end - recipe.burn_in_sessions - recipe.scored_sessions  # the last cutoff has a target
    usable_NT = inputs.usable_NT[:, :train_end]
    first_N = np.clip(usable_NT.argmax(axis=1) - recipe.burn_in_sessions, 0, newest)
    tickers, places = np.arange(len(inputs.panel.tickers))[:, None], np.arange(through + 1)[None, :]
    x_NTX, _ = scaled_sessions(inputs, run.scaler, tickers, places)
    calendar_TK = torch.from_numpy(inputs.calendar_SK[: through + 1])
    return _Data(
        inputs=inputs,
        recipe=recipe,
        x_NTX=x_NTX,
        calendar_TK=calendar_TK,
        train_end=train_end,
        first_N=first_N,
        choices_N=(newest + 1 - first_N) * usable_NT.any(axis=1),
        run=run,
    )


def _new_member(data: _Data, number: int) -> _Member:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(np.random.default_rng([data.run.seed, number]).integers(2**31)))
        network = ForkingNetwork(data.recipe).to(data.run.device)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=data.recipe.learning_rate, weight_decay=data.recipe.weight_decay
    )
    return _Member(network=network, optimizer=optimizer)


def _run_epoch(member: _Member, data: _Data, number: int, epoch: int) -> None:
    """`validate_every_steps` steps, and a look at the held-back sessions; nothing for a member that has stopped."""
    if member.worse >= PATIENCE:
        return
    recipe, begin = data.recipe, epoch * data.recipe.validate_every_steps
    rng = np.random.default_rng([data.run.seed, number, epoch])
    generator = torch.Generator(data.run.device).manual_seed(int(rng.integers(2**31)))
    for step in range(begin, min(begin + recipe.validate_every_steps, recipe.steps)):
        rate, beta = one_cycle(step / recipe.steps)
        for group in member.optimizer.param_groups:
            group["lr"], group["betas"] = recipe.learning_rate * rate, (beta, 0.999)
        loss = _loss(member.network, data, _sample(data, rng), generator)
        _check_finite(loss.item(), step, recipe)
        member.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(member.network.parameters(), recipe.gradient_clip)
        member.optimizer.step()
    with torch.no_grad():
        member.last_loss = float(_loss(member.network, data, _held_back(data)))
    _check_finite(member.last_loss, _steps_done(recipe, epoch), recipe)
    member.worse += 1
    if member.last_loss < member.best_loss:
        member.best_loss, member.worse = member.last_loss, 0
        member.best = {name: tensor.detach().clone() for name, tensor in member.network.state_dict().items()}


def _check_finite(loss: float, step: int, recipe: VolumeRecipe) -> None:
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"The loss is {loss} at step {step} of {recipe.steps}; it must be finite. Lower the learning "
            f"rate ({recipe.learning_rate}), and look for extreme values in the train rows."
        )


def _sample(data: _Data, rng: np.random.Generator) -> _Sequences:
    """Random stretches of the tickers' histories."""
    recipe = data.recipe
    length = recipe.burn_in_sessions + recipe.scored_sessions
    first_N, choices_N = data.first_N, data.choices_N
    ticker_B = rng.choice(len(choices_N), recipe.batch_sequences, p=choices_N / choices_N.sum())
    start_B = first_N[ticker_B] + (rng.random(recipe.batch_sequences) * choices_N[ticker_B]).astype(int)
    scored_P = np.arange(recipe.burn_in_sessions + rng.integers(recipe.score_every), length, recipe.score_every)
    return _Sequences(ticker_B, start_B[:, None] + np.arange(length), scored_P, until=data.train_end)


def _held_back(data: _Data) -> _Sequences:
    """Always the same: the held-back sessions after a warm-up."""
    count = len(data.inputs.panel.tickers)
    ticker_B = np.unique(np.linspace(0, count - 1, min(count, STOP_TICKERS)).astype(int))
    places_T = np.arange(max(data.train_end - STOP_WARM_UP, 0), data.run.through)
    scored_P = np.arange(data.train_end - places_T[0], len(places_T), STOP_STEP)
    return _Sequences(ticker_B, np.tile(places_T, (len(ticker_B), 1)), scored_P, until=data.run.through)


def _loss(
    network: ForkingNetwork, data: _Data, sequences: _Sequences, generator: torch.Generator | None = None
) -> Tensor:
    """The mean pinball loss of the scored sessions' targets."""
    ticker_B, place_BT, scored_P = sequences.ticker_B, sequences.place_BT, sequences.scored_P
    cutoff_BP = place_BT[:, scored_P]
    ticker_BP = np.broadcast_to(ticker_B[:, None], cutoff_BP.shape)
    target_RH, is_there_RH = targets(data.inputs, ticker_BP.ravel(), cutoff_BP.ravel(), through=sequences.until)
    shape = (*cutoff_BP.shape, HORIZONS)
    x_BTX = data.x_NTX[ticker_B[:, None], place_BT].to(data.run.device)
    calendar_BTK = data.calendar_TK[place_BT].to(data.run.device)
    ahead_BPHA = ahead_of(data.inputs, ticker_BP, cutoff_BP).to(data.run.device)
    target_BPH, is_there_BPH = (
        torch.from_numpy(each.reshape(shape)).to(data.run.device) for each in (target_RH, is_there_RH)
    )
    with torch.autocast(data.run.device.type, torch.bfloat16, enabled=data.run.device.type == "cuda"):
        h_BTU, _ = network.encode(x_BTX, calendar_BTK)
        quantile_BPHQ = network.decode(h_BTU[:, scored_P], x_BTX[:, scored_P], ahead_BPHA, generator)
    return pinball_loss(quantile_BPHQ.float(), target_BPH, is_there_BPH)


def _finished(data: _Data, members: list[_Member]) -> VolumeModel:
    model = VolumeModel(data.recipe, data.run.scaler)
    for network, member in zip(model.members, members, strict=True):
        network.load_state_dict(member.best)
    last = data.inputs.panel.sessions.to_numpy()[data.run.through] - EPOCH
    model.fitted_through = torch.tensor(last // np.timedelta64(1, "D"))
    calibrate(model.eval(), data.inputs, np.arange(data.train_end, data.run.through), through=data.run.through)
    return model


def _threads(device: torch.device) -> int:
    return torch.get_num_threads() if device.type == "cpu" else 1


def _steps_done(recipe: VolumeRecipe, epoch: int) -> int:
    return min((epoch + 1) * recipe.validate_every_steps, recipe.steps)


def _saved(members: list[_Member], losses: list[float]) -> bytes:
    """Everything that the next epoch depends on, as safetensors."""
    tensors = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for number, member in enumerate(members):
        numbers = [member.best_loss, member.last_loss, float(member.worse)]
        tensors[f"{number}.numbers"] = torch.tensor(numbers, dtype=torch.float64)
        tensors |= {f"{number}.network.{name}": tensor for name, tensor in member.network.state_dict().items()}
        tensors |= {f"{number}.best.{name}": tensor for name, tensor in member.best.items()}
        for place, moments in member.optimizer.state_dict()["state"].items():
            tensors |= {f"{number}.optimizer.{place}.{name}": tensor for name, tensor in moments.items()}
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})


def _restore(members: list[_Member], data: bytes) -> list[float]:
    """Bring the members to where `_saved` left them; returns the losses so far."""
    tensors = load(data)
    for number, member in enumerate(members):
        member.best_loss, member.last_loss, worse = tensors[f"{number}.numbers"].tolist()
        member.worse = int(worse)
        member.network.load_state_dict(_under(tensors, f"{number}.network."))
        member.best = _under(tensors, f"{number}.best.")
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under(tensors, f"{number}.optimizer.").items():
            place, moment = name.split(".")
            state.setdefault(int(place), {})[moment] = tensor
        member.optimizer.load_state_dict({**member.optimizer.state_dict(), "state": state})
    return tensors["losses"].tolist()


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
