"""The volume forecaster: scaler, networks and calibration in one module, from features to shares.

1. features of a session are brought to mean 0 and variance 1, and clipped to CLIP of these units: a crash is far
   outside of what a network has seen
2. the members' quantiles of log volume, less its level, are averaged (Vincent averaging of their laws)
3. quantiles other than the median are moved, by horizon and level, in units of half the 80 % interval: by what the
   sessions held back from training asked for (conformalised quantile regression: Romano, Patterson and Candès, 2019),
   and then, session after session, by RATE of what the share of tickers below missed the level by (adaptive conformal
   inference: Gibbs and Candès, 2021)
4. the mean is that of the quantiles' law in shares

A cutoff's pass begins WARM_UP sessions or more before it, at a place that depends on the cutoff alone, and passes and
blocks are always of one length: rounding depends on the shapes of matrices, and a forecast must be the same, bit for
bit, whichever other cutoffs are asked for and however many sessions follow.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.forecasters import LEVELS, MEDIAN, Forecasts
from models.panel import HORIZONS
from models.recipes import VolumeRecipe
from models.volume_features import AT_COLUMNS, Inputs, ahead, at_cutoff, targets
from models.volume_network import ForkingNetwork, State
from models.weights import load_exactly

# N tickers, C cutoffs, B sessions of a stretch, H horizons, Q levels, M members, R rows, X columns of a session

CLIP = 3.0
RATE = 0.1  # 80 % covered 79.4 to 80.1 % of 2017-18 and of 2019-20, pinball loss as without; 0.2 costs 1 %
STRETCH = 252  # sessions that are passed over in one go
BLOCK = 21  # cutoffs that are forecast in one go, all of them whichever are asked for; a part of STRETCH
WARM_UP = 252
TICKERS = 32  # at a time: 100 MB
EPOCH = np.datetime64("1970-01-01")
IS_MOVED = np.arange(len(LEVELS)) != MEDIAN
TAIL = 0.5  # of the step from 0.9 to 0.975: about where the mean of a normal law's upper tail lies beyond it


class VolumeScaler(nn.Module):
    """Features of a session to mean 0 and variance 1 over the train rows, in float64; NaN until fitted or loaded."""

    mean: Tensor  # (X,), of AT_COLUMNS
    scale: Tensor  # (X,)

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean", "scale"):
            self.register_buffer(name, torch.full((len(AT_COLUMNS),), torch.nan, dtype=torch.float64))

    def forward(self, x_RX: np.ndarray) -> Tensor:
        """(R, X) features to (R, X) float32 within CLIP."""
        scaled_RX = (torch.from_numpy(x_RX).double() - self.mean) / self.scale
        return scaled_RX.clamp(-CLIP, CLIP).float()


def fit_volume_scaler(inputs: Inputs, *, through: int) -> VolumeScaler:
    """The scaler of the sessions up to place `through` on which a forecast could be made."""
    ticker_R, cutoff_R = np.nonzero(inputs.usable_NT[:, : through + 1])
    x_RX = at_cutoff(inputs, ticker_R, cutoff_R)
    spread_X = x_RX.std(axis=0, dtype=np.float64)
    scaler = VolumeScaler()
    scaler.mean = torch.from_numpy(x_RX.mean(axis=0, dtype=np.float64))
    scaler.scale = torch.from_numpy(np.where(spread_X > 0, spread_X, 1.0))
    return scaler


@dataclass(frozen=True, kw_only=True, eq=False)
class Memory:
    """What a day's forecast needs of the past: the members' states at the close of a session."""

    place: int  # of the session
    states: tuple[State, ...]  # a member's, each (1, N, U)


class VolumeModel(nn.Module):
    """Inputs in, forecasts in shares out."""

    calibration_HQ: Tensor  # float64, in units of half the 80 % interval
    fitted_through: Tensor  # int64, days since 1970: the last session that weights or calibration have seen

    def __init__(self, recipe: VolumeRecipe, scaler: VolumeScaler) -> None:
        super().__init__()
        self.scaler = scaler
        self.members = nn.ModuleList(ForkingNetwork(recipe) for _ in range(recipe.members))
        self.register_buffer("calibration_HQ", torch.zeros(HORIZONS, len(LEVELS), dtype=torch.float64))
        self.register_buffer("fitted_through", torch.zeros((), dtype=torch.int64))

    def forecast(self, inputs: Inputs, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts at cutoffs (C,), places in the panel's sessions, ascending; NaN where `inputs.usable_NT` is not."""
        first = min(int(cutoffs[0]), max(self.first_unseen(inputs), 0))
        every_C = np.arange(first, int(cutoffs[-1]) + 1)
        raw_NCHQ = self.quantiles(inputs, every_C)
        moved_NCHQ = self._calibrated(inputs, every_C, raw_NCHQ)[:, cutoffs - first]
        return _in_shares(inputs, cutoffs, moved_NCHQ)

    def first_unseen(self, inputs: Inputs) -> int:
        """The place of the first cutoff none of whose targets the weights have seen."""
        last = EPOCH + np.timedelta64(int(self.fitted_through), "D")
        return int(inputs.panel.sessions.searchsorted(last.astype("datetime64[s]"), side="right")) - 1

    def quantiles(self, inputs: Inputs, cutoffs: np.ndarray) -> np.ndarray:
        """(N, C, H, Q) float32, log volume less the cutoff's level, not yet calibrated."""
        stretch_C = cutoffs // STRETCH
        parts = [self._stretch(inputs, int(each), cutoffs[stretch_C == each]) for each in np.unique(stretch_C)]
        return np.concatenate(parts, axis=1)

    def remember(self, inputs: Inputs, cutoff: int) -> Memory:
        """The members' states at the close of a session, from a pass over the sessions before it."""
        begin = max((cutoff // STRETCH) * STRETCH - WARM_UP, 0)
        tickers = np.arange(len(inputs.panel.tickers))
        with torch.inference_mode():
            x_NBX, calendar_NBK = self._sessions(inputs, tickers, np.arange(begin, cutoff + 1))
            return Memory(place=cutoff, states=tuple(each.encode(x_NBX, calendar_NBK)[1] for each in self._each()))

    def step(self, inputs: Inputs, memory: Memory) -> tuple[np.ndarray, Memory]:
        """One session on: quantiles (N, 1, H, Q) as `quantiles` has them for the session after the memory's."""
        cutoff, tickers = memory.place + 1, np.arange(len(inputs.panel.tickers))
        with torch.inference_mode():
            x_N1X, calendar_N1K = self._sessions(inputs, tickers, np.array([cutoff]))
            ahead_N1HA = ahead_of(inputs, tickers[:, None], np.array([cutoff]))
            states, answers = [], []
            for member, state in zip(self._each(), memory.states, strict=True):
                h_N1U, after = member.encode(x_N1X, calendar_N1K, state)
                answers.append(member.decode(h_N1U, x_N1X, ahead_N1HA))
                states.append(after)
        return torch.stack(answers).mean(0).numpy(), Memory(place=cutoff, states=tuple(states))

    def _each(self) -> list[ForkingNetwork]:
        return [member for member in self.members if isinstance(member, ForkingNetwork)]

    def _stretch(self, inputs: Inputs, stretch: int, cutoffs: np.ndarray) -> np.ndarray:
        """(N, C, H, Q) of the cutoffs of one stretch; the pass is as long whichever they are."""
        begin = max(stretch * STRETCH - WARM_UP, 0)
        places = np.minimum(np.arange(begin, (stretch + 1) * STRETCH), inputs.panel.known - 1)
        tickers = np.arange(len(inputs.panel.tickers))
        parts = [self._pass(inputs, some, places, cutoffs) for some in np.split(tickers, tickers[TICKERS::TICKERS])]
        return np.concatenate(parts)

    def _pass(self, inputs: Inputs, tickers: np.ndarray, places: np.ndarray, cutoffs: np.ndarray) -> np.ndarray:
        blocks, block_C = np.unique(cutoffs // BLOCK, return_inverse=True)
        with torch.inference_mode():
            x_NBX, calendar_NBK = self._sessions(inputs, tickers, places)
            hidden = [member.encode(x_NBX, calendar_NBK)[0] for member in self._each()]
            answers = []
            for block in blocks:
                at = block * BLOCK + np.arange(BLOCK) - places[0]
                ahead_NCHA = ahead_of(inputs, tickers[:, None], places[at])
                said = [
                    member.decode(h_NBU[:, at], x_NBX[:, at], ahead_NCHA)
                    for member, h_NBU in zip(self._each(), hidden, strict=True)
                ]
                answers.append(torch.stack(said).mean(0).numpy())
        return np.stack(answers)[block_C, :, cutoffs % BLOCK].swapaxes(0, 1)

    def _sessions(self, inputs: Inputs, tickers: np.ndarray, places: np.ndarray) -> tuple[Tensor, Tensor]:
        return scaled_sessions(inputs, self.scaler, tickers[:, None], places[None, :])

    def _calibrated(self, inputs: Inputs, every_C: np.ndarray, raw_NCHQ: np.ndarray) -> np.ndarray:
        """The quantiles after the moves that were known at each cutoff; `every_C` has no gap."""
        target_NCH, is_there_NCH = targets_at(inputs, every_C, through=inputs.panel.known - 1)
        moves_HQ, unseen = self.calibration_HQ.numpy().copy(), self.first_unseen(inputs)
        moved_NCHQ = np.empty_like(raw_NCHQ)
        for place in range(len(every_C)):
            for h in range(HORIZONS):
                told = place - h - 1  # the cutoff whose target this session is
                if told >= 0 and every_C[told] >= unseen and is_there_NCH[:, told, h].any():
                    there_N = is_there_NCH[:, told, h]
                    below_Q = (target_NCH[there_N, told, h, None] <= moved_NCHQ[there_N, told, h]).mean(axis=0)
                    moves_HQ[h] += RATE * (np.array(LEVELS) - below_Q) * IS_MOVED
            moved_NCHQ[:, place] = moved(raw_NCHQ[:, place], moves_HQ)
        return moved_NCHQ


def volume_from_bytes(data: bytes, recipe: VolumeRecipe) -> VolumeModel:
    """The model whose tensors `weights.to_bytes` saved, on the CPU and in evaluation mode. Raises WrongWeights."""
    with torch.device("meta"):  # shapes only: no random initial weights are drawn to be thrown away
        model = VolumeModel(recipe, VolumeScaler())
    return load_exactly(model, data)


def calibrate(model: VolumeModel, inputs: Inputs, cutoffs: np.ndarray, *, through: int) -> None:
    """Set the model's calibration by cutoffs that it was not trained on, of targets up to place `through`.

    Of each horizon and level the error of a quantile, in units of half the 80 % interval, has the level's own quantile
    added: then that share of these targets lies below. The median stays.
    """
    raw_NCHQ = model.quantiles(inputs, cutoffs)
    target_NCH, is_there_NCH = targets_at(inputs, cutoffs, through=through)
    error_NCHQ = (target_NCH[..., None] - raw_NCHQ) / half_interval(raw_NCHQ)
    moves_HQ = np.zeros((HORIZONS, len(LEVELS)))
    for h in range(HORIZONS):
        error_RQ = error_NCHQ[:, :, h][is_there_NCH[:, :, h]]
        if len(error_RQ):
            moves_HQ[h] = [np.quantile(error_RQ[:, place], level) for place, level in enumerate(LEVELS)] * IS_MOVED
    model.calibration_HQ = torch.from_numpy(moves_HQ)


def half_interval(quantile_Q: np.ndarray) -> np.ndarray:
    """(..., 1): half the width of the 80 % interval of quantiles (..., Q)."""
    return (quantile_Q[..., [LEVELS.index(0.9)]] - quantile_Q[..., [LEVELS.index(0.1)]]) / 2


def moved(quantile_NHQ: np.ndarray, moves_HQ: np.ndarray) -> np.ndarray:
    """(N, H, Q): quantiles moved by so many halves of their 80 % interval, in ascending order still."""
    return np.sort(quantile_NHQ + (moves_HQ * half_interval(quantile_NHQ)).astype(np.float32), axis=-1)


def scaled_sessions(
    inputs: Inputs, scaler: VolumeScaler, ticker: np.ndarray, place: np.ndarray
) -> tuple[Tensor, Tensor]:
    """What the cell reads of some sessions (two arrays that broadcast to (B, T)): (B, T, X) scaled, and (B, T, K).

    Where a ticker did not trade, the first is 0.
    """
    ticker_BT, place_BT = np.broadcast_arrays(ticker, place)
    x_RX = scaler(at_cutoff(inputs, ticker_BT.ravel(), place_BT.ravel()))
    is_usable_BT = torch.from_numpy(inputs.usable_NT[ticker_BT, place_BT])
    x_BTX = x_RX.unflatten(0, ticker_BT.shape) * is_usable_BT.unsqueeze(2)
    return x_BTX, torch.from_numpy(inputs.calendar_SK[place_BT])


def ahead_of(inputs: Inputs, ticker: np.ndarray, cutoff: np.ndarray) -> Tensor:
    """What is known of the sessions ahead of some cutoffs (two arrays that broadcast to (B, P)): (B, P, H, A)."""
    ticker_BPH, cutoff_BPH, h_BPH = np.broadcast_arrays(
        ticker[..., None], cutoff[..., None], np.arange(1, HORIZONS + 1)
    )
    ahead_RA = ahead(inputs, ticker_BPH.ravel(), cutoff_BPH.ravel(), (cutoff_BPH + h_BPH).ravel())
    return torch.from_numpy(ahead_RA).unflatten(0, ticker_BPH.shape)


def targets_at(inputs: Inputs, cutoffs: np.ndarray, *, through: int) -> tuple[np.ndarray, np.ndarray]:
    """`targets` of every ticker at each cutoff, both (N, C, H)."""
    shape = (len(inputs.panel.tickers), len(cutoffs))
    ticker_NC, cutoff_NC = np.broadcast_arrays(np.arange(shape[0])[:, None], cutoffs)
    target_RH, is_there_RH = targets(inputs, ticker_NC.ravel(), cutoff_NC.ravel(), through=through)
    return target_RH.reshape(*shape, HORIZONS), is_there_RH.reshape(*shape, HORIZONS)


def _in_shares(inputs: Inputs, cutoffs: np.ndarray, quantile_NCHQ: np.ndarray) -> Forecasts:
    level_NC11 = np.where(inputs.usable_NT[:, cutoffs], inputs.level_NT[:, cutoffs], np.nan)[:, :, None, None]
    shares_NCHQ = np.exp(quantile_NCHQ + level_NC11)
    tail_NCH = quantile_NCHQ[..., -1] + TAIL * (quantile_NCHQ[..., -1] - quantile_NCHQ[..., -2])
    between_NCH = np.trapezoid(shares_NCHQ, np.array(LEVELS), axis=-1)
    ends_NCH = LEVELS[0] * (shares_NCHQ[..., 0] + np.exp(tail_NCH + level_NC11[..., 0]))
    return Forecasts(
        cutoffs=cutoffs,
        quantiles_NCHQ=shares_NCHQ.astype(np.float32),
        mean_NCH=(between_NCH + ends_NCH).astype(np.float32),
    )
