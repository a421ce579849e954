"""From prices to what a recipe looks at: its window, its columns, and the split into train and test rows.

The scalers as part of the module, so that they are saved, loaded and moved with the weights.

The networks, and the nowcaster that carries its scaler with it.

The LSTM of Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000), as torch.nn.LSTM computes it,
at each step from input x and previous state (h, c), both zero before the first step:

    i = sigmoid(W_ii x + b_ii + W_hi h + b_hi)     input gate
    f = sigmoid(W_if x + b_if + W_hf h + b_hf)     forget gate
    g = tanh   (W_ig x + b_ig + W_hg h + b_hg)     candidate
    o = sigmoid(W_io x + b_io + W_ho h + b_ho)     output gate
    c' = f * c + i * g,   h' = o * tanh(c')

The training loop, and the fit of a recipe on its train rows.

One epoch:
1. for each batch: gradients to zero, forward pass, loss, backward pass, one Adam step;
2. the epoch's loss is the mean over the rows of the losses of those forward passes, so each is taken before its step;
3. every `log_every_epochs` epochs, and at the last, the loss is kept and reported.

A run is a function of (rows, recipe, seed, device): initial weights are drawn on the CPU from a fork of torch's
generator, so that neither the caller's random numbers nor earlier runs matter.

Predictions as rows to store: one a ticker and target session.

What a model must beat: forecasts of volume that need no network, each from no row after the one it answers for.

How good a model is on the test sessions, beside the baselines on the same sessions, in numbers and in words.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import Tensor, nn

from models.errors import IncompletePrices, NotEnoughSessions, TrainingDiverged
from models.forecasters import MODEL
from models.recipes import NOWCAST_NOTE, TutorialRecipe
from models.scores import error_table, format_shares
from models.text import listed
from models.weights import load_exactly

# N sessions, F features, C columns of numbers


def build_features(prices: pd.DataFrame, recipe: TutorialRecipe) -> pd.DataFrame:
    """The newest `window_sessions` rows of one ticker, split by order into train and test.

    `prices`: one ticker; columns ticker, session (datetime64, ascending, each once), the recipe's features (USD a
    share) and its target (shares); more columns are ignored. Sessions are taken as they come: gaps are the caller's to
    find.

    Returns ticker, session, *features (float64), volume (float64), role ("train" for the first `train_sessions` rows,
    then "test"), in session order with a fresh index. Raises NotEnoughSessions when not one test row would be left,
    and IncompletePrices when a value of the window is null or infinite, or the sessions do not ascend.
    """
    tickers = sorted(set(prices["ticker"]))
    if len(tickers) > 1:
        raise ValueError(f"Recipe {recipe.name} takes the rows of one ticker; these came: {listed(tickers)}.")
    _check_count(prices, recipe)
    numbers = [*recipe.features, recipe.target]
    window = prices if recipe.window_sessions is None else prices.tail(recipe.window_sessions)
    frame = window.loc[:, ["ticker", "session", *numbers]].reset_index(drop=True)
    frame = frame.astype(dict.fromkeys(numbers, "float64"))
    _check_values(frame, numbers)
    frame["role"] = np.where(frame.index < recipe.train_sessions, "train", "test")
    return frame


def rows(frame: pd.DataFrame, role: str) -> pd.DataFrame:
    """The rows of `build_features` whose role is "train" or "test"."""
    return frame.loc[frame["role"] == role]


def tensors(frame: pd.DataFrame, recipe: TutorialRecipe) -> tuple[Tensor, Tensor]:
    """(x_NF, y_N1): the features and the target of every row, unscaled, float64, on the CPU."""
    x_NF = torch.from_numpy(frame[list(recipe.features)].to_numpy(np.float64, copy=True))
    y_N1 = torch.from_numpy(frame[[recipe.target]].to_numpy(np.float64, copy=True))
    return x_NF, y_N1


def _check_count(prices: pd.DataFrame, recipe: TutorialRecipe) -> None:
    came, needed = len(prices), recipe.train_sessions + 1
    if came == 0:
        raise NotEnoughSessions(
            f"Recipe {recipe.name} needs {needed} sessions; none came. Ingest the ticker's prices first."
        )
    if came < needed:
        first, last = (f"{session:%Y-%m-%d}" for session in (prices["session"].iloc[0], prices["session"].iloc[-1]))
        raise NotEnoughSessions(
            f"{prices['ticker'].iloc[0]}: {came} sessions came, {first} to {last}; recipe {recipe.name} needs "
            f"{needed}: {recipe.train_sessions} to train on and at least one to test. "
            "Bring in an earlier start."
        )


def _check_values(frame: pd.DataFrame, numbers: list[str]) -> None:
    names = [f"{ticker} {session:%Y-%m-%d}" for ticker, session in zip(frame["ticker"], frame["session"], strict=True)]
    late_N = np.diff(frame["session"].to_numpy()) <= np.timedelta64(0, "s")
    if late_N.any():
        at = int(late_N.argmax()) + 1
        raise IncompletePrices(
            f"{names[at]} stands after {names[at - 1]}. Rows must ascend by session, each session once: sort them."
        )
    bad_NC = ~np.isfinite(frame[numbers].to_numpy())
    bad_N = bad_NC.any(axis=1)
    if bad_N.any():
        at = int(bad_N.argmax())
        came = ", ".join(f"{name} {frame[name].iloc[at]}" for name, bad in zip(numbers, bad_NC[at], strict=True) if bad)
        raise IncompletePrices(
            f"{names[at]}: {came}; every value must be a finite number. {int(bad_N.sum())} of {len(frame)} sessions "
            "are not so. Quarantine or repair them, then run again."
        )


# N sessions, F features


class Scaler(nn.Module):
    """Features to mean 0 and variance 1, target to 0..1, in float64, as scikit-learn's two scalers do it.

    x' = (x - mean) / scale and y' = y * scale + min, with scikit-learn's own fitted numbers: population variance, and a
    scale of 1 for a column that is constant. Every buffer is NaN until `fit_scaler` or `load_state_dict` fills it.
    """

    feature_mean: Tensor  # (F,), USD a share
    feature_scale: Tensor  # (F,), USD a share
    target_min: Tensor  # (1,), of the scaled target: what 0 shares become
    target_scale: Tensor  # (1,), per share

    def __init__(self, feature_count: int) -> None:
        super().__init__()
        sizes = {"feature_mean": feature_count, "feature_scale": feature_count}
        for name, size in {**sizes, "target_min": 1, "target_scale": 1}.items():
            self.register_buffer(name, torch.full((size,), torch.nan, dtype=torch.float64))

    def scale_features(self, x_NF: Tensor) -> Tensor:
        """Prices in USD a share to units of the fitted rows' standard deviation; (N, F) float64."""
        return (x_NF - self.feature_mean) / self.feature_scale

    def scale_target(self, y_N1: Tensor) -> Tensor:
        """Shares to 0..1 over the fitted rows (outside of it for others); (N, 1) float64."""
        return y_N1 * self.target_scale + self.target_min

    def unscale_target(self, y_N1: Tensor) -> Tensor:
        """The inverse of `scale_target`: shares, not clipped."""
        return (y_N1 - self.target_min) / self.target_scale


def fit_scaler(frame: pd.DataFrame, recipe: TutorialRecipe) -> Scaler:
    """The scaler of a frame of `build_features`, fitted on its train rows, or on every row for fit_scalers_on="all"."""
    fitted_on = frame if recipe.fit_scalers_on == "all" else rows(frame, "train")
    x_NF, y_N1 = (tensor.numpy() for tensor in tensors(fitted_on, recipe))
    standard, min_max = StandardScaler().fit(x_NF), MinMaxScaler().fit(y_N1)
    scaler = Scaler(len(recipe.features))
    scaler.load_state_dict(
        {
            "feature_mean": torch.as_tensor(standard.mean_),
            "feature_scale": torch.as_tensor(standard.scale_),
            "target_min": torch.as_tensor(min_max.min_),
            "target_scale": torch.as_tensor(min_max.scale_),
        }
    )
    return scaler


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


# N sessions


def nowcast_frame(frame: pd.DataFrame, predictions: np.ndarray, recipe: TutorialRecipe) -> pd.DataFrame:
    """The nowcasts of every row of a `build_features` frame, from `predictions` (shares, (N,)), in the same order.

    Returns unique_id (str, the ticker), cutoff (datetime64, the last session known), ds (datetime64, the target
    session, here the cutoff itself), h (int64, sessions ahead, here 0), volcast (float64, shares, as the model gave it:
    not clipped at 0). Raises ValueError when the number of predictions differs from the rows.
    """
    if predictions.shape != (len(frame),):
        raise ValueError(f"One prediction a row is needed, ({len(frame)},); {predictions.shape} came.")
    return pd.DataFrame(
        {
            "unique_id": frame["ticker"],
            "cutoff": frame["session"],
            "ds": frame["session"],
            "h": np.full(len(frame), recipe.horizon, dtype=np.int64),
            "volcast": predictions,
        }
    ).reset_index(drop=True)


# N sessions

TRAILING_SESSIONS = 20  # about a month


def last_value(frame: pd.DataFrame, recipe: TutorialRecipe) -> np.ndarray:
    """The volume of the session before, in shares (N,); NaN for the first row."""
    return frame[recipe.target].shift(1).to_numpy(np.float64)


def mean_20(frame: pd.DataFrame, recipe: TutorialRecipe) -> np.ndarray:
    """The mean volume of the 20 sessions before, in shares (N,); NaN for the first 20 rows."""
    return np.asarray(frame[recipe.target].shift(1).rolling(TRAILING_SESSIONS).mean(), dtype=np.float64)


def least_squares(frame: pd.DataFrame, recipe: TutorialRecipe) -> np.ndarray:
    """Ordinary least squares of volume on the recipe's features and an intercept, fitted on the train rows.

    It sees what the network sees: the prices of the same session. Shares (N,); train rows are answered in sample.
    """
    features, train = list(recipe.features), rows(frame, "train")
    regression = LinearRegression().fit(train[features], train[recipe.target])
    return regression.predict(frame[features])


BASELINES: dict[str, Callable[[pd.DataFrame, TutorialRecipe], np.ndarray]] = {
    "last_value": last_value,
    "mean_20": mean_20,
    "least_squares": least_squares,
}


# N sessions

SMALL_TEST_SESSIONS = 252  # a year: a shorter test does not hold each season, quarter end and earnings date once

LEAK_NOTE = (
    "fit_scalers_on is all: the scalers were fitted on the test sessions too, so the test leaks into the model and "
    "its score may be better than it would be in use. The article does so; fit_scalers_on=train does not."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Errors on the test sessions."""

    table: pd.DataFrame  # index method (volcast, rivals, baselines); rmse_shares, mae_shares, mape, smape
    first_session: date  # of the test
    last_session: date
    test_sessions: int
    words: tuple[str, ...]  # sentences that belong beside the numbers

    @property
    def rmse_shares(self) -> float:
        """The model's own root mean squared error."""
        return self.table["rmse_shares"].to_dict()[MODEL]


def evaluate_nowcast(
    frame: pd.DataFrame,
    predictions: np.ndarray,
    recipe: TutorialRecipe,
    *,
    rivals: Mapping[str, np.ndarray] | None = None,
) -> Evaluation:
    """The evaluation of `predictions` (shares, one a row of the `build_features` frame, (N,)) on its test rows.

    `rivals` are predictions of other models, by name, scored on the same rows beside the baselines.
    Raises ValueError when the number of predictions differs from the rows, or a test row has no finite one of a method.
    """
    if predictions.shape != (len(frame),):
        raise ValueError(f"One prediction a row is needed, ({len(frame)},); {predictions.shape} came.")
    is_test_N = (frame["role"] == "test").to_numpy()
    sessions = pd.DatetimeIndex(frame["session"])[is_test_N]
    baselines = {name: baseline(frame, recipe) for name, baseline in BASELINES.items()}
    methods = {MODEL: predictions, **(rivals or {}), **baselines}
    actual = pd.Series(frame[recipe.target].to_numpy()[is_test_N], index=sessions)
    table = error_table(actual, {name: values_N[is_test_N] for name, values_N in methods.items()})
    return Evaluation(
        table=table,
        first_session=sessions.date[0],
        last_session=sessions.date[-1],
        test_sessions=len(sessions),
        words=_words(table, sessions, recipe),
    )


def _words(table: pd.DataFrame, sessions: pd.DatetimeIndex, recipe: TutorialRecipe) -> tuple[str, ...]:
    rmses: dict[str, float] = table["rmse_shares"].to_dict()
    own = rmses.pop(MODEL)
    count = len(sessions)
    words = [
        NOWCAST_NOTE,
        f"RMSE {format_shares(own)} shares on the {count} test sessions {sessions[0]:%Y-%m-%d} to "
        f"{sessions[-1]:%Y-%m-%d}: {MODEL} {_verdicts(own, rmses)}.",
    ]
    if recipe.fit_scalers_on == "all":
        words.append(LEAK_NOTE)
    if count < SMALL_TEST_SESSIONS:
        words.append(f"{count} test sessions of one ticker are few: a small difference may be chance.")
    return tuple(words)


def _verdicts(own: float, baselines: dict[str, float]) -> str:
    """For example "beats last_value (2.80 M, ratio 0.90), does not beat mean_20 (...)"; ratio is own RMSE / other."""
    return ", ".join(
        f"{'beats' if own < rmse else 'does not beat'} {name} ({format_shares(rmse)}, ratio {own / rmse:.2f})"
        for name, rmse in baselines.items()
    )
