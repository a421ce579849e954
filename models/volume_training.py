"""Training the members of the volume forecaster.

1. the last `stop_sessions` of the train span are held back; the rest is sampled: `batch_sequences` stretches of a
   ticker's history a step, the first part of each burn-in, every `score_every`-th of the others forecast from
2. each member has weights, batches and dropout of its own, all drawn from (seed, member, epoch); an epoch is
   `validate_every_steps` steps, members in threads side by side where there is no GPU
3. AdamW under a one-cycle schedule (Smith and Topin, 2018, arXiv:1708.07120), gradients clipped by their norm
4. after each epoch: the pinball loss on the held-back sessions, the best weights kept, a checkpoint written; a member
   that has not improved for PATIENCE epochs stops; one that was never better than EXPLODED is a TrainingDiverged
5. the linear member is fitted to the sessions that the networks are trained on (models/volume_linear.py); at the end
   the quantiles are calibrated on the held-back sessions

A run resumed from a checkpoint gives the same weights, bit for bit, as one that was never interrupted.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from volcast.models import arrays
from volcast.models.errors import NotEnoughSessions, TrainingDiverged
from volcast.models.forecasters import LEVELS, MODEL, Forecasts
from volcast.models.panel import Panel
from volcast.models.pretrained import Vintage, vintage_for
from volcast.models.recipes import VolumeRecipe
from volcast.models.text import silent
from volcast.models.volume_inputs import AT_COLUMNS, CPU, Inputs, InputTensors, inputs_for
from volcast.models.volume_model import (
    EPOCH,
    TICKERS,
    VolumeModel,
    VolumeScaler,
    ahead_of,
    calibrate,
    fit_linear,
    fit_volume_scaler,
    scaled_sessions,
)
from volcast.models.volume_network import ForkingNetwork, pinball_loss
from volcast.models.weights import EpochLoss, one_thread, side_by_side

# N tickers, B sequences, T sessions of each, P of them scored, H horizons

PATIENCE = 4  # epochs
EXPLODED = 10.0  # times the loss of a forecast that never moves: far beyond what a network begins with
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


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingRun:
    """What one training starts from, beside features and recipe."""

    scaler: VolumeScaler
    through: int  # place of the last session that may be a target, held-back sessions included
    seed: int
    device: torch.device
    vintage: Vintage | None = None  # whose weights are tuned; None: from scratch


@dataclass(frozen=True, kw_only=True)
class FittedVolume:
    """A trained forecaster, on the CPU, and how the training went."""

    model: VolumeModel
    losses: tuple[EpochLoss, ...]  # (steps done, mean pinball loss of the members on the held-back sessions)
    final_loss: float  # the same of the weights that were kept
    exploded: int  # members whose loss had grown beyond all bounds in the end; the best weights of before are kept
    seconds: float  # wall clock


@dataclass(kw_only=True)
class _Member:
    """One network in training."""

    network: ForkingNetwork
    optimizer: torch.optim.AdamW
    gradients: "_Gradients"
    best: dict[str, Tensor] = field(default_factory=dict)
    best_loss: float = math.inf
    last_loss: float = math.inf
    worse: int = 0  # epochs since the best


@dataclass(frozen=True, kw_only=True, eq=False)
class _Data:
    """What the members are trained on."""

    inputs: Inputs
    recipe: VolumeRecipe
    tensors: InputTensors  # where the networks are
    x_NTX: Tensor  # float32, scaled
    train_end: int  # place of the last session that may be a target of training; then the held-back ones
    first_N: np.ndarray  # the first place at which a sequence of each ticker may begin
    choices_N: np.ndarray  # how many places there are; 0 for a ticker that cannot be trained on
    run: TrainingRun
    start: VolumeModel | None  # pretrained

    @property
    def steps(self) -> int:
        """Of the optimiser, for each member."""
        return steps_of(self.recipe, self.run.vintage)

    @property
    def learning_rate(self) -> float:
        """The highest of the schedule."""
        return self.recipe.tuning_rate if self.start else self.recipe.learning_rate

    @cached_property
    def level_loss(self) -> float:
        """The loss on the held-back sessions of saying the level, with no spread: infinite where no volume moves."""
        held_back = _held_back(self)
        cutoff_BP = held_back.begin_B.unsqueeze(1) + held_back.scored_P
        targets = self.tensors.targets(held_back.ticker_B.unsqueeze(1), cutoff_BP, through=held_back.until)
        target_BPH, is_there_BPH = targets
        nothing_BPHQ = torch.zeros((*target_BPH.shape, len(LEVELS)), device=target_BPH.device)
        return float(pinball_loss(nothing_BPHQ, target_BPH, is_there_BPH)) or math.inf


@dataclass(frozen=True, eq=False)
class _Sequences:
    """Stretches of tickers' histories to run along, and what to forecast from them."""

    ticker_B: Tensor
    begin_B: Tensor  # place of each one's first session
    sessions: int  # T, in each
    scored_P: Tensor  # which of each sequence's sessions are cutoffs
    until: int  # place of the last session that may be a target

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """All that differs from one step to the next."""
        return self.ticker_B, self.begin_B, self.scored_P


def fit_volume(
    inputs: Inputs,
    recipe: VolumeRecipe,
    run: TrainingRun,
    *,
    on_epoch: Callable[[int, float], None] = silent,
    on_resume: Callable[[int], None] = silent,
    checkpoint: Checkpoint | None = None,
) -> FittedVolume:
    """The recipe's members, trained and calibrated on targets up to `run.through`.

    `on_epoch` is called with the steps done and the loss, `on_resume` with those of a checkpoint. The last checkpoint
    stays, until whoever gave its place has stored the model. The same arguments give the same weights bit for bit on
    a CPU. Raises NotEnoughSessions, TrainingDiverged.
    """
    if run.vintage and not recipe.trains:
        model = run.vintage.model(recipe)
        fit_linear(model, inputs, recipe, through=run.through)
        return FittedVolume(model=model, losses=(), final_loss=run.vintage.loss, exploded=0, seconds=0.0)
    started, device = time.perf_counter(), run.device
    data = _prepare(inputs, recipe, run)
    with one_thread():
        members = [_new_member(data, number) for number in range(recipe.members)]
    saved = checkpoint.load() if checkpoint else None
    losses = _restore(members, saved) if saved else []
    if losses:
        on_resume(_steps_done(data, len(losses) - 1))
    epochs = math.ceil(data.steps / recipe.validate_every_steps)
    threads = _threads(device)  # before one_thread makes it 1
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        while len(losses) < epochs and any(member.worse < PATIENCE for member in members):
            epoch = len(losses)
            list(pool.map(lambda number: _run_epoch(members[number], data, number, epoch), range(len(members))))  # noqa: B023
            losses.append(float(np.mean([member.last_loss for member in members])))
            if checkpoint:
                checkpoint.save(_saved(members, losses))
            on_epoch(_steps_done(data, epoch), losses[-1])
        _check_converged(members, data)
        model = _finished(data, members)
    return FittedVolume(
        model=model,
        losses=tuple((_steps_done(data, epoch), loss) for epoch, loss in enumerate(losses)),
        final_loss=float(np.mean([member.best_loss for member in members])),
        exploded=sum(member.last_loss > EXPLODED * data.level_loss for member in members),
        seconds=time.perf_counter() - started,
    )


def training_run(inputs: Inputs, recipe: VolumeRecipe, *, through: int, seed: int, device: torch.device) -> TrainingRun:
    """From the newest pretrained weights that know nothing after `through`, or from scratch.

    Raises NotEnoughSessions.
    """
    vintage = vintage_for(recipe, through=inputs.panel.sessions.date[through])
    if vintage is None:
        check_enough_sessions(inputs, recipe, through=through)
    scaler = scaler_for(inputs, recipe, vintage, through=through)
    return TrainingRun(scaler=scaler, through=through, seed=seed, device=device, vintage=vintage)


def steps_of(recipe: VolumeRecipe, vintage: Vintage | None) -> int:
    """The steps of the optimiser, for each member, of a training that starts from a vintage, or from scratch."""
    return recipe.tuning_steps if vintage else recipe.steps


def scaler_for(inputs: Inputs, recipe: VolumeRecipe, vintage: Vintage | None, *, through: int) -> VolumeScaler:
    """The vintage's, or one of the sessions up to place `through` without those that the training stops by."""
    if vintage:
        return vintage.model(recipe).scaler
    return fit_volume_scaler(inputs, through=through - recipe.stop_sessions)


class NetworkForecaster:
    """The volume recipe as one forecaster among others: `volcast`, or another name, by another recipe than its own."""

    def __init__(
        self,
        recipe: VolumeRecipe,
        *,
        seed: int,
        device: torch.device,
        on_epoch: Callable[[int, float], None] = silent,
        name: str = MODEL,
    ) -> None:
        self.name = name
        self._recipe, self._seed, self._device, self._on_epoch = recipe, seed, device, on_epoch
        self._model: VolumeModel | None = None

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Scaler, networks and calibration from the sessions up to place `through`."""
        inputs = self.inputs(panel)
        run = training_run(inputs, self._recipe, through=through, seed=self._seed, device=self._device)
        self._model = fit_volume(inputs, self._recipe, run, on_epoch=self._on_epoch).model
        return self

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """As `VolumeModel.forecast`."""
        assert self._model is not None, "fit comes before forecast"
        return self._model.forecast(self.inputs(panel), cutoffs)

    def inputs(self, panel: Panel) -> Inputs:
        """The features of a panel."""
        return inputs_for(panel, self._recipe)


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
    tensors, places = inputs.on(CPU), torch.arange(through + 1)
    blocks = torch.arange(len(inputs.panel.tickers)).split(TICKERS)
    x_NTX = torch.from_numpy(arrays.empty((len(tensors.past_NTF), len(places), len(AT_COLUMNS)), np.float32))

    def fill(some: Tensor) -> None:
        x_NTX[some] = scaled_sessions(tensors, run.scaler, some, places)[0]

    list(side_by_side(fill, blocks))
    return _Data(
        inputs=inputs,
        recipe=recipe,
        tensors=inputs.on(run.device),
        x_NTX=x_NTX.to(run.device),
        train_end=train_end,
        first_N=first_N,
        choices_N=(newest + 1 - first_N) * usable_NT.any(axis=1),
        run=run,
        start=run.vintage.model(recipe) if run.vintage else None,
    )


def _new_member(data: _Data, number: int) -> _Member:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(np.random.default_rng([data.run.seed, number]).integers(2**31)))
        network = ForkingNetwork(data.recipe)
    if data.start:
        network.load_state_dict(data.start.members[number].state_dict())
    network.to(data.run.device)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=data.learning_rate,
        weight_decay=data.recipe.weight_decay,
        fused=data.run.device.type == "cuda",
    )
    member = _Member(network=network, optimizer=optimizer, gradients=_Gradients(network, data))
    if data.start:
        _look(member, data)  # what it starts from is the best so far
    return member


class _Gradients:
    """The loss of a step's sequences, and its gradients, clipped, in the network's parameters.

    On a GPU they are one CUDA graph, made at the first step: a step is some 300 kernels of a few microseconds, which
    Python launches more slowly than the card runs them. All steps have sequences of one shape, but where
    `score_every` does not divide `scored_sessions`; those are launched kernel by kernel.
    """

    def __init__(self, network: ForkingNetwork, data: _Data) -> None:
        self._network, self._data = network, data
        self.generator = torch.Generator(data.run.device)  # of the dropout
        self._one_shape = data.recipe.scored_sessions % data.recipe.score_every == 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, sequences: _Sequences) -> Tensor:
        if self._data.run.device.type != "cuda" or not self._one_shape:
            self._network.zero_grad()
            return self._compute(sequences)
        if self._graph is None:
            self._capture(sequences)
        for mine, given in zip(self._sequences.tensors, sequences.tensors, strict=True):
            mine.copy_(given)
        assert self._graph is not None
        self._graph.replay()
        return self._loss.clone()

    def _compute(self, sequences: _Sequences) -> Tensor:
        loss = _loss(self._network, self._data, sequences, self.generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._data.recipe.gradient_clip)
        return loss.detach()

    def _capture(self, sequences: _Sequences) -> None:
        """Run the step on a stream of its own, as libraries prepare themselves at first, then record it."""
        self._sequences, state = sequences, self.generator.get_state()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._compute(sequences)
        torch.cuda.current_stream().wait_stream(stream)
        self._network.zero_grad()  # so that the graph writes gradients of its own, and adds to none
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(self.generator)
        with torch.cuda.graph(self._graph):
            self._loss = self._compute(sequences)
        self.generator.set_state(state)


def _run_epoch(member: _Member, data: _Data, number: int, epoch: int) -> None:
    """`validate_every_steps` steps, and a look at the held-back sessions; nothing for a member that has stopped."""
    if member.worse >= PATIENCE:
        return
    recipe, begin = data.recipe, epoch * data.recipe.validate_every_steps
    rng = np.random.default_rng([data.run.seed, number, epoch])
    member.gradients.generator.manual_seed(int(rng.integers(2**31)))
    losses = []
    for step in range(begin, min(begin + recipe.validate_every_steps, data.steps)):
        rate, beta = one_cycle(step / data.steps)
        for group in member.optimizer.param_groups:
            group["lr"], group["betas"] = data.learning_rate * rate, (beta, 0.999)
        losses.append(member.gradients(_sample(data, rng)))  # looked at later: reading each would stall a GPU
        member.optimizer.step()
    for step, loss in enumerate(torch.stack(losses).tolist(), begin):
        _check_finite(loss, step, data)
    _look(member, data)
    arrays.let_go()
    _check_finite(member.last_loss, _steps_done(data, epoch), data)


def _look(member: _Member, data: _Data) -> None:
    """At the held-back sessions; the best weights are kept."""
    with torch.no_grad():
        member.last_loss = float(_loss(member.network, data, _held_back(data)))
    member.worse += 1
    if member.last_loss < member.best_loss:
        member.best_loss, member.worse = member.last_loss, 0
        member.best = {name: tensor.detach().clone() for name, tensor in member.network.state_dict().items()}


def _check_finite(loss: float, step: int, data: _Data) -> None:
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"The loss is {loss} at step {step} of {data.steps}; it must be finite. Lower the learning "
            f"rate ({data.learning_rate}), and look for extreme values in the train rows."
        )


def _check_converged(members: list[_Member], data: _Data) -> None:
    worst, idle = max(member.best_loss for member in members), data.level_loss
    if worst > EXPLODED * idle:
        raise TrainingDiverged(
            f"The loss on the held-back sessions is {worst:.3g} at its best, more than {EXPLODED:g} times that of "
            f"saying the mean of 20 sessions ({idle:.3g}): the training diverged. Lower the learning rate "
            f"({data.learning_rate}), and look for extreme values in the train rows."
        )


def _sample(data: _Data, rng: np.random.Generator) -> _Sequences:
    """Random stretches of the tickers' histories."""
    recipe = data.recipe
    length = recipe.burn_in_sessions + recipe.scored_sessions
    first_N, choices_N = data.first_N, data.choices_N
    ticker_B = rng.choice(len(choices_N), recipe.batch_sequences, p=choices_N / choices_N.sum())
    begin_B = first_N[ticker_B] + (rng.random(recipe.batch_sequences) * choices_N[ticker_B]).astype(int)
    scored_P = np.arange(recipe.burn_in_sessions + rng.integers(recipe.score_every), length, recipe.score_every)
    return _sequences(data, ticker_B, begin_B, length, scored_P, until=data.train_end)


def _held_back(data: _Data) -> _Sequences:
    """Always the same: the held-back sessions after a warm-up."""
    count = len(data.inputs.panel.tickers)
    ticker_B = np.unique(np.linspace(0, count - 1, min(count, STOP_TICKERS)).astype(int))
    begin, end = max(data.train_end - STOP_WARM_UP, 0), data.run.through
    scored_P = np.arange(data.train_end - begin, end - begin, STOP_STEP)
    return _sequences(data, ticker_B, np.full(len(ticker_B), begin), end - begin, scored_P, until=end)


def _sequences(
    data: _Data, ticker_B: np.ndarray, begin_B: np.ndarray, sessions: int, scored_P: np.ndarray, *, until: int
) -> _Sequences:
    ticker, begin, scored = (torch.from_numpy(each).to(data.run.device) for each in (ticker_B, begin_B, scored_P))
    return _Sequences(ticker, begin, sessions, scored, until=until)


def _loss(
    network: ForkingNetwork, data: _Data, sequences: _Sequences, generator: torch.Generator | None = None
) -> Tensor:
    """The mean pinball loss of the scored sessions' targets."""
    ticker_B1, scored_P, device = sequences.ticker_B.unsqueeze(1), sequences.scored_P, data.run.device
    place_BT = sequences.begin_B.unsqueeze(1) + torch.arange(sequences.sessions, device=device)
    cutoff_BP = place_BT[:, scored_P]
    x_BTX, calendar_BTK = data.x_NTX[ticker_B1, place_BT], data.tensors.calendar_SK[place_BT]
    ahead_BPHA = ahead_of(data.tensors, ticker_B1, cutoff_BP)
    target_BPH, is_there_BPH = data.tensors.targets(ticker_B1, cutoff_BP, through=sequences.until)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        h_BTU = network.encode(x_BTX, calendar_BTK)
        quantile_BPHQ = network.decode(h_BTU[:, scored_P], x_BTX[:, scored_P], ahead_BPHA, generator)
    return pinball_loss(quantile_BPHQ.float(), target_BPH, is_there_BPH)


def _finished(data: _Data, members: list[_Member]) -> VolumeModel:
    model = VolumeModel(data.recipe, data.run.scaler, data.start.linear if data.start else None)
    for network, member in zip(model.members, members, strict=True):
        network.load_state_dict(member.best)
    last = data.inputs.panel.sessions.to_numpy()[data.run.through] - EPOCH
    model.fitted_through = torch.tensor(last // np.timedelta64(1, "D"))
    before_HQ = data.start.calibration_HQ.numpy() if data.start else None
    fit_linear(model, data.inputs, data.recipe, through=data.train_end)
    held_back = np.arange(data.train_end, data.run.through)
    calibrate(model.eval(), data.inputs, held_back, through=data.run.through, before_HQ=before_HQ)
    return model


def _threads(device: torch.device) -> int:
    return torch.get_num_threads() if device.type == "cpu" else 1


def _steps_done(data: _Data, epoch: int) -> int:
    return min((epoch + 1) * data.recipe.validate_every_steps, data.steps)


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
