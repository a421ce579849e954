"""The volume forecaster: scaler, networks and calibration in one module, from features to shares.

1. features of a session are brought to mean 0 and variance 1, and clipped to CLIP of these units: a crash is far
   outside of what a network has seen
2. the members' quantiles of log volume, less its level, are averaged (Vincent averaging of their laws), and moved as
   the linear member says (models/volume_linear.py) and the dated events that are known ask for (models/dated_events.py)
3. what the errors of the last weeks say of each ticker's week is added (models/adaptation.py)
4. quantiles other than the median are moved, by horizon and level, in units of half the 80 % interval: by what the
   sessions held back from training asked for (conformalised quantile regression: Romano, Patterson and Candès, 2019),
   and then, session after session, by what the share of tickers below missed the level by (models/adaptation.py).
   Models of release 0.1.0, whose recipe has the adaptation `one rate`, have no linear member, no third step, and here
   ONE_RATE of that
5. the mean is that of the quantiles' law in shares

A cutoff's pass begins BEFORE sessions or more before it, at a place that depends on the cutoff alone, and passes and
blocks are always of one length: rounding depends on the shapes of matrices, and a forecast must be the same, bit for
bit, whichever other cutoffs are asked for and however many sessions follow.
"""

import numpy as np
import torch
from torch import Tensor, nn

from volcast.models import arrays
from volcast.models.adaptation import (
    IS_MOVED,
    WARM_UP,
    add_rhythm,
    following_moves,
    half_interval,
    moved,
    one_rate_moves,
)
from volcast.models.dated_events import dated_moves
from volcast.models.forecasters import LEVELS, MEDIAN, Forecasts, season_of
from volcast.models.panel import HORIZONS
from volcast.models.recipes import VolumeRecipe
from volcast.models.volume_inputs import AT_COLUMNS, CPU, Inputs, InputTensors
from volcast.models.volume_linear import Coefficients, History, LinearMember
from volcast.models.volume_network import ForkingNetwork
from volcast.models.weights import THREADS, load_exactly, one_thread, shapes_of, side_by_side

# N tickers, C cutoffs, B sessions of a stretch, H horizons, Q levels, M members, R rows, X columns of a session

CLIP = 3.0
STRETCH = 252  # sessions that are passed over in one go
BLOCK = 21  # cutoffs that are forecast in one go, all of them whichever are asked for; a part of STRETCH
BEFORE = 252  # sessions that a pass begins before its stretch
TICKERS = 32  # of a pass: 100 MB
PASSES = 4  # side by side, at most
EPOCH = np.datetime64("1970-01-01")
CALIBRATED = 500  # errors that a calibration of before counts as
TAIL = 0.5  # of the step from 0.9 to 0.975: about where the mean of a normal law's upper tail lies beyond it


class VolumeScaler(nn.Module):
    """Features of a session to mean 0 and variance 1 over the train rows, in float64; NaN until fitted or loaded."""

    mean: Tensor  # (X,), of AT_COLUMNS
    scale: Tensor  # (X,)

    def __init__(self) -> None:
        super().__init__()
        for name in ("mean", "scale"):
            self.register_buffer(name, torch.full((len(AT_COLUMNS),), torch.nan, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """(..., X) features to (..., X) float32 within CLIP."""
        return ((x.double() - self.mean) / self.scale).clamp(-CLIP, CLIP).float()


def fit_volume_scaler(inputs: Inputs, *, through: int) -> VolumeScaler:
    """The scaler of the sessions up to place `through` on which a forecast could be made."""
    tensors = inputs.on(CPU)
    x_RX = tensors.at_cutoff(*tensors.usable_NT[:, : through + 1].nonzero(as_tuple=True)).numpy()
    spread_X = x_RX.std(axis=0, dtype=np.float64)
    scaler = VolumeScaler()
    scaler.mean = torch.from_numpy(x_RX.mean(axis=0, dtype=np.float64))
    scaler.scale = torch.from_numpy(np.where(spread_X > 0, spread_X, 1.0))
    return scaler


class VolumeModel(nn.Module):
    """Inputs in, forecasts in shares out."""

    calibration_HQ: Tensor  # float64, in units of half the 80 % interval
    fitted_through: Tensor  # int64, days since 1970: the last session that weights or calibration have seen

    def __init__(self, recipe: VolumeRecipe, scaler: VolumeScaler, linear: LinearMember | None = None) -> None:
        super().__init__()
        self.follows_by_one_rate = recipe.adaptation == "one rate"
        self.scaler = scaler
        self.members = nn.ModuleList(ForkingNetwork(recipe) for _ in range(recipe.members))
        self.linear = (linear or LinearMember()) if recipe.linear_share else None
        self.register_buffer("calibration_HQ", torch.zeros(HORIZONS, len(LEVELS), dtype=torch.float64))
        self.register_buffer("fitted_through", torch.zeros((), dtype=torch.int64))

    @one_thread()
    def forecast(self, inputs: Inputs, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts at cutoffs (C,), places in the panel's sessions, ascending; NaN where `inputs.usable_NT` is not."""
        known = inputs.panel.known - 1
        first, raw_NCHQ = self.centred(inputs, int(cutoffs[0]), int(cutoffs[-1]), through=known)
        every_C, unseen = np.arange(first, first + raw_NCHQ.shape[1]), self.first_unseen(inputs) - first
        told = (raw_NCHQ, *targets_at(inputs, every_C, through=known), self.calibration_HQ.cpu().numpy())
        moves_CHQ = (one_rate_moves if self.follows_by_one_rate else following_moves)(*told, unseen=unseen)
        chosen_C = cutoffs - first
        return _in_shares(inputs, cutoffs, moved(raw_NCHQ[:, chosen_C], moves_CHQ[chosen_C]))

    def centred(self, inputs: Inputs, first: int, last: int, *, through: int) -> tuple[int, np.ndarray]:
        """Quantiles (N, C, H, Q) with events and the week's rhythm in them, not calibrated, of each cutoff to `last`.

        And the place of the first of them: `first`, or an earlier one from which errors are followed. They are followed
        from one place on for all cutoffs, so that a forecast does not depend on the others that are asked for.
        """
        begin = max(self.first_unseen(inputs) - (0 if self.follows_by_one_rate else WARM_UP), 0)
        every_C = np.arange(min(first, begin), last + 1)
        raw_NCHQ, followed = self.quantiles(inputs, every_C), begin - every_C[0]
        if not inputs.panel.dated.empty:
            raw_NCHQ += dated_moves(inputs, every_C, raw_NCHQ, self.quantiles)[..., None]
        if not self.follows_by_one_rate and begin <= last:
            target_NCH, is_there_NCH = targets_at(inputs, every_C[followed:], through=through)
            weekday_S, season = inputs.panel.sessions.day_of_week.to_numpy(), season_of(inputs.panel.sessions)
            add_rhythm(raw_NCHQ[:, followed:], target_NCH, is_there_NCH, weekday_S[begin:], season)
        return int(every_C[0]), raw_NCHQ

    def first_unseen(self, inputs: Inputs) -> int:
        """The place of the first cutoff none of whose targets the weights have seen."""
        last = EPOCH + np.timedelta64(int(self.fitted_through), "D")
        return int(inputs.panel.sessions.searchsorted(last.astype("datetime64[s]"), side="right")) - 1

    @one_thread()
    def quantiles(self, inputs: Inputs, cutoffs: np.ndarray) -> np.ndarray:
        """(N, C, H, Q) float32 at ascending cutoffs: log volume less the cutoff's level, not yet calibrated."""
        stretch_C, tensors = cutoffs // STRETCH, inputs.on(self.calibration_HQ.device)
        linear = self.linear.of(inputs.panel.tickers) if self.linear else None
        found_NCHQ = arrays.empty((len(tensors.past_NTF), len(cutoffs), HORIZONS, len(LEVELS)), np.float32)
        for each in np.unique(stretch_C):
            own = slice(*np.searchsorted(stretch_C, [each, each + 1]))
            self._stretch(tensors, linear, int(each), cutoffs[own], found_NCHQ[:, own])
        return found_NCHQ

    def _stretch(
        self,
        tensors: InputTensors,
        linear: Coefficients | None,
        stretch: int,
        cutoffs: np.ndarray,
        found_NCHQ: np.ndarray,
    ) -> None:
        """Fill in those of the cutoffs of one stretch; the pass is as long whichever they are."""
        sessions, device = tensors.past_NTF.shape[1], tensors.past_NTF.device
        begin = max(stretch * STRETCH - BEFORE, 0)
        places = torch.arange(begin, (stretch + 1) * STRETCH, device=device).clamp(max=sessions - 1)
        blocks = torch.arange(len(tensors.past_NTF), device=device).split(TICKERS)

        def fill(some: Tensor, own_NCHQ: np.ndarray) -> None:
            own_NCHQ[:] = self._pass(tensors, linear.of(some) if linear else None, some, places, cutoffs)

        parts_NCHQ = np.split(found_NCHQ, range(TICKERS, len(found_NCHQ), TICKERS))
        list(side_by_side(fill, blocks, parts_NCHQ, most=passes_on(device)))

    def _pass(
        self,
        tensors: InputTensors,
        linear: Coefficients | None,
        tickers: Tensor,
        places: Tensor,
        cutoffs: np.ndarray,
    ) -> np.ndarray:
        blocks, block_C = np.unique(cutoffs // BLOCK, return_inverse=True)
        with torch.inference_mode():
            x_NBX, calendar_NBK = scaled_sessions(tensors, self.scaler, tickers, places)
            members = [member for member in self.members if isinstance(member, ForkingNetwork)]
            hidden = [member.encode(x_NBX, calendar_NBK) for member in members]
            answers = []
            for block in blocks:
                at = torch.arange(block * BLOCK, (block + 1) * BLOCK, device=places.device) - places[0]
                ahead_NCHA = ahead_of(tensors, tickers[:, None], places[at])
                said = [
                    member.decode(h_NBU[:, at], x_NBX[:, at], ahead_NCHA)
                    for member, h_NBU in zip(members, hidden, strict=True)
                ]
                quantile_NCHQ = torch.stack(said).mean(0)
                if linear:
                    shift_NCH = linear.shift(quantile_NCHQ[..., MEDIAN], x_NBX[:, at], ahead_NCHA)
                    quantile_NCHQ = quantile_NCHQ + shift_NCH.unsqueeze(-1)
                answers.append(quantile_NCHQ.cpu().numpy())
        return np.stack(answers)[block_C, :, cutoffs % BLOCK].swapaxes(0, 1)


def passes_on(device: torch.device) -> int:
    """How many blocks of tickers are passed over side by side."""
    return min(THREADS, PASSES) if device.type == "cpu" else 1


def volume_from_bytes(data: bytes, recipe: VolumeRecipe) -> VolumeModel:
    """The model whose tensors `weights.to_bytes` saved, on the CPU and in evaluation mode. Raises WrongWeights."""
    shapes = shapes_of(data)
    tickers, letters = (shapes.get(f"linear.{name}", (0,))[0] for name in ("share_NH", "names"))
    with torch.device("meta"):  # shapes only: no random initial weights are drawn to be thrown away
        model = VolumeModel(recipe, VolumeScaler(), LinearMember(tickers=tickers, letters=letters))
    return load_exactly(model, data)


def fit_linear(model: VolumeModel, inputs: Inputs, recipe: VolumeRecipe, *, through: int) -> None:
    """Fit the model's linear member, where it has one, to targets up to place `through`, beginning with what it is."""
    if model.linear is None:
        return
    tensors = inputs.on(CPU)

    def history(row: int, newest: int) -> History:
        cutoff_R = np.flatnonzero(inputs.usable_NT[row, :through])[-newest:]
        ticker_1, place_R = torch.tensor([row]), torch.from_numpy(cutoff_R)
        target_RH, is_there_RH = tensors.targets(ticker_1, place_R, through=through)
        return History(
            cutoff_R=cutoff_R,
            x_RX=scaled_sessions(tensors, model.scaler, ticker_1, place_R)[0][0],
            ahead_RHA=ahead_of(tensors, ticker_1, place_R),
            target_RH=np.where(is_there_RH, target_RH, np.nan),
        )

    model.linear = model.linear.fitted(inputs.panel.tickers, history, through=through, share=recipe.linear_share)


def calibrate(
    model: VolumeModel, inputs: Inputs, cutoffs: np.ndarray, *, through: int, before_HQ: np.ndarray | None = None
) -> None:
    """Set the model's calibration by cutoffs that it was not trained on, of targets up to place `through`.

    Of each horizon and level the error of a quantile, in units of half the 80 % interval, has the level's own quantile
    added: then that share of these targets lies below. The median stays. Where there is a calibration of before, as
    that of pretrained weights, n errors move it n / (n + CALIBRATED) of the way.
    """
    first, every_NCHQ = model.centred(inputs, int(cutoffs[0]), int(cutoffs[-1]), through=through)
    raw_NCHQ = every_NCHQ[:, cutoffs - first]
    target_NCH, is_there_NCH = targets_at(inputs, cutoffs, through=through)
    error_NCHQ = (target_NCH[..., None] - raw_NCHQ) / half_interval(raw_NCHQ)
    moves_HQ = np.zeros((HORIZONS, len(LEVELS)))
    for h in range(HORIZONS):
        error_RQ = error_NCHQ[:, :, h][is_there_NCH[:, :, h]]
        if len(error_RQ):
            moves_HQ[h] = [np.quantile(error_RQ[:, place], level) for place, level in enumerate(LEVELS)] * IS_MOVED
        if before_HQ is not None:
            moves_HQ[h] += (before_HQ[h] - moves_HQ[h]) * CALIBRATED / (len(error_RQ) + CALIBRATED)
    model.calibration_HQ = torch.from_numpy(moves_HQ).to(model.calibration_HQ.device)


def scaled_sessions(
    tensors: InputTensors, scaler: VolumeScaler, ticker_B: Tensor, place_T: Tensor
) -> tuple[Tensor, Tensor]:
    """What the cell reads of the sessions of some tickers: (B, T, X) scaled, and (B, T, K).

    Where a ticker did not trade, the first is 0.
    """
    ticker_B1 = ticker_B.unsqueeze(1)
    x_BTX = scaler(tensors.at_cutoff(ticker_B1, place_T)) * tensors.usable_NT[ticker_B1, place_T].unsqueeze(2)
    return x_BTX, tensors.calendar_SK[place_T].expand(len(ticker_B), -1, -1)


def ahead_of(tensors: InputTensors, ticker: Tensor, cutoff: Tensor) -> Tensor:
    """What is known of the sessions ahead of some cutoffs (two tensors that broadcast to (B, P)): (B, P, H, A)."""
    cutoff = cutoff.unsqueeze(-1)
    return tensors.ahead(ticker.unsqueeze(-1), cutoff, cutoff + torch.arange(1, HORIZONS + 1, device=cutoff.device))


def targets_at(inputs: Inputs, cutoffs: np.ndarray, *, through: int) -> tuple[np.ndarray, np.ndarray]:
    """`InputTensors.targets` of every ticker at each cutoff, both (N, C, H)."""
    tickers = torch.arange(len(inputs.panel.tickers)).unsqueeze(1)
    target_NCH, is_there_NCH = inputs.on(CPU).targets(tickers, torch.from_numpy(cutoffs), through=through)
    return target_NCH.numpy(), is_there_NCH.numpy()


def _in_shares(inputs: Inputs, cutoffs: np.ndarray, quantile_NCHQ: np.ndarray) -> Forecasts:
    level_NC11 = np.where(inputs.usable_NT[:, cutoffs], inputs.level_NT[:, cutoffs], np.nan)[:, :, None, None]
    with np.errstate(over="ignore", invalid="ignore"):  # of a training that diverged; models/plausibility.py names it
        shares_NCHQ = np.exp(quantile_NCHQ + level_NC11)
        tail_NCH = quantile_NCHQ[..., -1] + TAIL * (quantile_NCHQ[..., -1] - quantile_NCHQ[..., -2])
        between_NCH = np.trapezoid(shares_NCHQ, np.array(LEVELS), axis=-1)
        ends_NCH = LEVELS[0] * (shares_NCHQ[..., 0] + np.exp(tail_NCH + level_NC11[..., 0]))
        quantiles_NCHQ, mean_NCH = shares_NCHQ.astype(np.float32), (between_NCH + ends_NCH).astype(np.float32)
    return Forecasts(cutoffs=cutoffs, quantiles_NCHQ=quantiles_NCHQ, mean_NCH=mean_NCH)
