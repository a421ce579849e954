"""The article's recipe, whole: an LSTM that says a session's volume from the prices of that same session.

1. features: the newest sessions of one ticker, the first of them to train on, the rest to test
2. scalers: prices to mean 0 and variance 1, volume to 0..1, as buffers of a module, so that they are saved with it
3. network: LSTM -> ReLU -> Linear -> ReLU -> Linear, over sequences of one session
4. training: full-batch Adam on the mean squared error of the scaled volume
5. nowcasts, as rows to store
6. evaluation: errors in shares on the test sessions, beside three baselines on the same sessions

N sessions, F features, C columns of numbers, L layers, U units of the hidden state, T steps of a sequence (here 1).
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import Tensor, nn
from utilsforecast.evaluation import evaluate
from utilsforecast.losses import mae, mape, rmse, smape

from volcast.models.errors import IncompletePrices, NotEnoughSessions, TrainingDiverged
from volcast.models.forecasters import MODEL
from volcast.models.recipes import NOWCAST_NOTE, SMALL_TEST_SESSIONS, TutorialRecipe
from volcast.models.text import format_shares, listed, silent
from volcast.models.weights import EpochLoss, load_exactly, one_thread

TRAILING_SESSIONS = 20  # about a month
ERRORS = {"rmse": "rmse_shares", "mae": "mae_shares", "mape": "mape", "smape": "smape"}
LEAK_NOTE = (
    "fit_scalers_on is all: the scalers were fitted on the test sessions too, so the test leaks into the model and "
    "its score may be better than it would be in use. The article does so; fit_scalers_on=train does not."
)


# --- features --------------------------------------------------------------------------------------------------------


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


# --- scalers ---------------------------------------------------------------------------------------------------------


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
        sizes = {"feature_mean": feature_count, "feature_scale": feature_count, "target_min": 1, "target_scale": 1}
        for name, size in sizes.items():
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
    fitted = {
        "feature_mean": standard.mean_,
        "feature_scale": standard.scale_,
        "target_min": min_max.min_,
        "target_scale": min_max.scale_,
    }
    scaler = Scaler(len(recipe.features))
    scaler.load_state_dict({name: torch.as_tensor(values) for name, values in fitted.items()})
    return scaler


# --- network ---------------------------------------------------------------------------------------------------------


class TutorialLSTM(nn.Module):
    """The article's layers: LSTM -> ReLU -> Linear -> ReLU -> Linear, in float32; 585 parameters by default.

    The LSTM is that of Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000), as torch.nn.LSTM
    computes it: at each step, from input x and previous state (h, c), both zero before the first step,

        i = sigmoid(W_ii x + b_ii + W_hi h + b_hi)     input gate
        f = sigmoid(W_if x + b_if + W_hf h + b_hf)     forget gate
        g = tanh   (W_ig x + b_ig + W_hg h + b_hg)     candidate
        o = sigmoid(W_io x + b_io + W_ho h + b_ho)     output gate
        c' = f * c + i * g,   h' = o * tanh(c')
    """

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


def summary(network: TutorialLSTM) -> str:
    """A table of the network's layers in the order of the forward pass: output shape and number of parameters."""
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


# --- training --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained nowcaster, on the CPU, and how the training went."""

    nowcaster: Nowcaster
    losses: tuple[EpochLoss, ...]  # (epoch, loss) at epochs 0, log_every_epochs, ..., and the last
    final_loss: float  # mean squared error on the scaled target, in the last epoch's forward pass
    seconds: float  # wall clock of the training


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

    The same arguments give the same weights bit for bit (on a CPU, one machine type): initial weights are drawn on the
    CPU from a fork of torch's generator. Raises TrainingDiverged.
    """
    started = time.perf_counter()
    x_NF, y_N1 = tensors(rows(frame, "train"), recipe)
    x_N1F = as_sequences(scaler.scale_features(x_NF)).to(device)
    target_N1 = scaler.scale_target(y_N1).float().to(device)
    with seeded(seed, device), one_thread():
        network = TutorialLSTM(recipe).to(device)
        losses = train(network, x_N1F, target_N1, recipe, on_epoch=on_epoch)
    nowcaster = Nowcaster(scaler, network.cpu()).eval()
    seconds = time.perf_counter() - started
    return Fitted(nowcaster=nowcaster, losses=losses, final_loss=losses[-1][1], seconds=seconds)


def train(
    network: TutorialLSTM,
    x_N1F: Tensor,
    target_N1: Tensor,
    recipe: TutorialRecipe,
    *,
    on_epoch: Callable[[int, float], None] = silent,
) -> tuple[EpochLoss, ...]:
    """Trains `network` in place, all rows in each step; returns (epoch, loss) of every logged epoch and of the last.

    A loss is that of the epoch's forward pass, before its step. `on_epoch` is called with just the pairs that are
    returned. Raises TrainingDiverged as soon as a loss is not finite; an interrupt goes through to the caller.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    network.train()
    losses = []
    for epoch in range(recipe.epochs):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(network(x_N1F), target_N1)
        loss.backward()
        optimizer.step()
        if not math.isfinite(loss.item()):
            raise TrainingDiverged(
                f"The loss is {loss.item()} at epoch {epoch} of {recipe.epochs} (learning rate "
                f"{recipe.learning_rate}); it must be finite. Lower the learning rate, and look for extreme values in "
                "the train rows."
            )
        if epoch % recipe.log_every_epochs == 0 or epoch == recipe.epochs - 1:
            losses.append((epoch, loss.item()))
            on_epoch(*losses[-1])
    return tuple(losses)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's random numbers on the CPU and on `device` follow from `seed`; outside, they go on undisturbed."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.manual_seed(seed)
        yield


# --- nowcasts --------------------------------------------------------------------------------------------------------


def nowcast_frame(frame: pd.DataFrame, predictions: np.ndarray, recipe: TutorialRecipe) -> pd.DataFrame:
    """The nowcasts of every row of a `build_features` frame, from `predictions` (shares, (N,)), in the same order.

    Returns unique_id (str, the ticker), cutoff (datetime64, the last session known), ds (datetime64, the target
    session, here the cutoff itself), h (int64, sessions ahead, here 0), volcast (float64, shares, as the model gave it:
    not clipped at 0). Raises ValueError when the number of predictions differs from the rows.
    """
    _check_predictions(frame, predictions)
    columns = {
        "unique_id": frame["ticker"],
        "cutoff": frame["session"],
        "ds": frame["session"],
        "h": np.full(len(frame), recipe.horizon, dtype=np.int64),
        MODEL: predictions,
    }
    return pd.DataFrame(columns).reset_index(drop=True)


def _check_predictions(frame: pd.DataFrame, predictions: np.ndarray) -> None:
    if predictions.shape != (len(frame),):
        raise ValueError(f"One prediction a row is needed, ({len(frame)},); {predictions.shape} came.")


# --- baselines: what the network must beat ---------------------------------------------------------------------------


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


# --- evaluation ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Errors on the test sessions."""

    table: pd.DataFrame  # of `error_table`: volcast, rivals, baselines
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
    _check_predictions(frame, predictions)
    is_test_N = (frame["role"] == "test").to_numpy()
    sessions = pd.DatetimeIndex(frame["session"])[is_test_N]
    baselines = {name: baseline(frame, recipe) for name, baseline in BASELINES.items()}
    methods = {MODEL: predictions, **(rivals or {}), **baselines}
    actual = pd.Series(frame[recipe.target].to_numpy()[is_test_N], index=sessions)
    table = error_table(actual, {name: values_N[is_test_N] for name, values_N in methods.items()})
    return Evaluation(table=table, words=_summary_of(table, sessions, recipe))


def error_table(actual: pd.Series, predictions: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row a method: rmse_shares, mae_shares, mape, smape (float64), in the order of `predictions`.

    `actual`: shares, indexed by session (datetime64); each prediction: shares (N,), row by row the same sessions. mape
    is a fraction, without sessions of no volume; smape the mean of |y - p| / (|y| + |p|), half of the definition that
    runs to 2. Raises ValueError when a value is not finite: a mean over fewer sessions would not compare.
    """
    frame = pd.DataFrame({"unique_id": "series", "ds": actual.index, "y": actual.to_numpy(), **predictions})
    missing = {name: int((~np.isfinite(frame[name].to_numpy())).sum()) for name in ["y", *predictions]}
    if any(missing.values()):
        counts = ", ".join(f"{name} {count}" for name, count in missing.items() if count)
        raise ValueError(f"Errors need a finite number for each of the {len(frame)} sessions; not finite: {counts}.")
    table = evaluate(frame, metrics=[rmse, mae, mape, smape], models=list(predictions))
    errors = table.set_index("metric")[list(predictions)].T.rename(columns=ERRORS)
    return errors.rename_axis(index="method", columns=None)


def _summary_of(table: pd.DataFrame, sessions: pd.DatetimeIndex, recipe: TutorialRecipe) -> tuple[str, ...]:
    """The ratio of a verdict, "beats last_value (2.80 M, ratio 0.90)", is the model's RMSE over the other's."""
    rmses: dict[str, float] = table["rmse_shares"].to_dict()
    own, count = rmses.pop(MODEL), len(sessions)
    verdicts = ", ".join(
        f"{'beats' if own < other else 'does not beat'} {name} ({format_shares(other)}, ratio {own / other:.2f})"
        for name, other in rmses.items()
    )
    sentences = [
        NOWCAST_NOTE,
        f"RMSE {format_shares(own)} shares on the {count} test sessions {sessions[0]:%Y-%m-%d} to "
        f"{sessions[-1]:%Y-%m-%d}: {MODEL} {verdicts}.",
    ]
    if recipe.fit_scalers_on == "all":
        sentences.append(LEAK_NOTE)
    if count < SMALL_TEST_SESSIONS:
        sentences.append(f"{count} test sessions of one ticker are few: a small difference may be chance.")
    return tuple(sentences)
