"""Why a forecast is what it is: parts that multiply to its median against the ticker's normal.

Normal is the level of the cutoff, the geometric mean of the ticker's last 20 sessions. With v(S) what the networks and
the linear member say of log volume less the level where only the groups of inputs in S are switched on:

1. GROUPS names the inputs of each group. One that is switched off is as on no session in particular: past features are
   at their train mean, on all of HISTORY, and so is the calendar that they are read by; the weekday is the mean of the
   week; there is no special day, no time of the year, and no echo of an earlier quarter; nobody announces.
   Announcements of the ticker itself are in reach from ten sessions ahead until AFTER sessions later; the earlier ones
   stay, as they are part of what the past is read by
2. a part is the group's Shapley value: what switching it on adds to v, the mean over all orders in which the groups may
   be switched on. It is exact, over all subsets of the groups. Where an input is not there, the part is exactly 1
3. dated events (models/dated_events.py) move the median by themselves; the rhythm of the week that a model adds by what
   its errors tell (models/adaptation.py) belongs to the weekday
4. the rest is what is left of the median: what the network says where all groups are off, by the number of other
   tickers, and what it remembers of before HISTORY

Shapley (1953), "A value for n-person games"; Lundberg and Lee (2017), arXiv:1705.07874, for models.
"""

from dataclasses import dataclass, replace
from itertools import product
from math import comb

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from volcast.models.ahead_features import ECHO_COLUMNS, HABIT_COLUMNS, SEASON_COLUMNS
from volcast.models.dated_events import dated_moves
from volcast.models.earnings_features import AFTER, AFTER_COLUMNS, BEFORE_COLUMNS, NEVER, EarningsCalendar
from volcast.models.forecast_columns import NORMAL, PARTS, WHY, has_reasons, reason_column, sentence
from volcast.models.forecasters import MEDIAN, Forecasts, season_of
from volcast.models.market_calendar import CALENDAR_COLUMNS, SPECIAL_DAYS, special_days
from volcast.models.panel import HORIZONS
from volcast.models.past_features import PAST_COLUMNS
from volcast.models.volume_inputs import AHEAD_COLUMNS, AT_COLUMNS, Inputs, InputTensors
from volcast.models.volume_linear import Coefficients
from volcast.models.volume_model import TICKERS, VolumeModel, ahead_of, passes_on, scaled_sessions
from volcast.models.volume_network import ForkingNetwork
from volcast.models.weights import one_thread, side_by_side

# N tickers, T sessions of HISTORY, H horizons, G groups, X columns of a session, A of a session ahead, P choices

HISTORY = 84  # sessions, as many as a sequence of a training has
MIDDLE = 0.45  # of month_phase, its mean
WEEKDAY = (*CALENDAR_COLUMNS[:4], "usual_weekday")
PHASES = ("year_sin", "year_cos", "year_sin_2", "year_cos_2", "month_phase", "quarter_sin", "quarter_cos")
GROUPS: dict[str, tuple[str, ...]] = {
    "recent": (
        *("volume_to_20", "volume_5_to_20", "volume_20_to_60", "volume_60_to_252", "range_to_20", "range_20_to_252"),
        *("absolute_return", "signed_return", "absolute_gap", "volatility_to_252", "since_spike", "return_20"),
        *("below_high_252", "above_low_252", "close_in_range", "noise_60_to_252", "noise_252", "volume_beta"),
    ),
    "market": ("market_volume", "market_return", "market_range", "neighbours_surprise", "neighbours_surprise_5"),
    "earnings": (*(f"at_{name}" for name in (*BEFORE_COLUMNS, *AFTER_COLUMNS)), *BEFORE_COLUMNS, *AFTER_COLUMNS),
    "weekday": WEEKDAY,
    "calendar": (*SPECIAL_DAYS, *(name for name in HABIT_COLUMNS if name not in WEEKDAY)),
    "year": (*PHASES, *ECHO_COLUMNS),
    "others-earnings": SEASON_COLUMNS,
}
OF_PAST, OF_TARGET = ("recent", "market", "earnings"), ("weekday", "calendar", "year", "others-earnings")
ALWAYS_ON = ("others", "earnings_covered", "at_earnings_covered")  # what is known of a ticker, and not of a session


@one_thread()
def reasons_of(model: VolumeModel, inputs: Inputs, forecasts: Forecasts) -> dict[str, np.ndarray]:
    """Column -> (N, 1, H) float64: NORMAL in shares and the factor of each of PARTS, of what the model forecast.

    Of the newest cutoff, the only one in `forecasts`.
    """
    (cutoff,) = forecasts.cutoffs
    tensors = inputs.on(model.calibration_HQ.device)
    tickers = torch.arange(len(inputs.panel.tickers), device=model.calibration_HQ.device)
    linear = model.linear.of(inputs.panel.tickers) if model.linear else None

    def parts_of(some: Tensor) -> np.ndarray:
        return _parts(model, linear.of(some) if linear else None, inputs, tensors, some, int(cutoff))

    parts_GNH = list(side_by_side(parts_of, tickers.split(TICKERS), most=passes_on(tickers.device)))
    own_GNH = np.concatenate(parts_GNH, axis=1)
    level_N1 = inputs.level_NT[:, cutoff, None]
    logs = dict(zip((*OF_PAST, *OF_TARGET), own_GNH, strict=True))
    with np.errstate(all="ignore"):  # of a training that diverged; models/plausibility.py names it
        total_NH = np.log(forecasts.point_NCH[:, 0].astype(np.float64)) - level_N1
        logs["events"], raw_NH = _raw(model, inputs, forecasts.cutoffs)
        logs["weekday"] = logs["weekday"] + total_NH - raw_NH - logs["events"]
        logs["rest"] = total_NH - np.sum(list(logs.values()), axis=0)
        factors = {reason_column(part): np.exp(logs[part])[:, None] for part in PARTS}
    return {NORMAL: np.exp(np.broadcast_to(level_N1, total_NH.shape))[:, None], **factors}


def _raw(model: VolumeModel, inputs: Inputs, cutoffs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, H) each: how dated events move the newest cutoff, and what the median was before."""
    raw_NCHQ = model.quantiles(inputs, cutoffs)
    moves_NCH = dated_moves(inputs, cutoffs, raw_NCHQ, model.quantiles)
    return moves_NCH[:, 0], raw_NCHQ[:, 0, :, MEDIAN]


def with_reasons(frame: pd.DataFrame, calendar: str) -> pd.DataFrame:
    """A published forecast that has the columns of `reasons_of`, with WHY, a sentence; empty where the point is NaN."""
    special = special_days(pd.DatetimeIndex(frame["ds"]), calendar)
    words = [sentence(row, special[row["ds"]]) if has_reasons(row) else "" for row in frame.to_dict("records")]
    return frame.assign(**{WHY: pd.Series(words, index=frame.index, dtype="str")})


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What the networks read for one cutoff of some tickers."""

    x_NTX: Tensor
    calendar_NTK: Tensor
    ahead_NHA: Tensor


def _parts(
    model: VolumeModel,
    linear: Coefficients | None,
    inputs: Inputs,
    tensors: InputTensors,
    tickers: Tensor,
    cutoff: int,
) -> np.ndarray:
    """(G, N, H) float64 logs of the parts of OF_PAST and OF_TARGET for some tickers; 0 where an input is not there."""
    places = torch.arange(max(cutoff + 1 - HISTORY, 0), cutoff + 1, device=tickers.device)
    has_market_NT1 = tensors.past_NTF[tickers[:, None], places, PAST_COLUMNS.index("others"), None] > 0
    neutral_A = _neutral(season_of(inputs.panel.sessions)).to(tickers.device)
    with torch.inference_mode():
        told = _read(model, tensors, tickers, places)
        untold = _read(model, replace(tensors, earnings=_without_reach(tensors.earnings, cutoff)), tickers, places)
        medians = []
        for off in _choices(OF_PAST):
            read = _switched_off(untold if "earnings" in off else told, off, has_market_NT1, neutral_A)
            medians.append(_medians(model, linear, read, neutral_A).double().cpu().numpy())
        is_absent_GNH = _absent(told, untold, has_market_NT1, neutral_A)
    values = np.stack(medians).reshape(*[2] * len(GROUPS), len(tickers), HORIZONS)  # an axis a group: off, on
    return np.where(is_absent_GNH, 0.0, shapley(values, len(GROUPS)))


def shapley(values: np.ndarray, players: int) -> np.ndarray:
    """(players, …): each one's Shapley value.

    `values`: of every coalition, (2, 2, …, …) with an axis a player, on which 0 is without and 1 with it.
    """
    others = players - 1
    joined = np.indices((2,) * others).sum(axis=0)  # how many others are in the coalition
    weight = 1 / (players * np.vectorize(comb)(others, joined))
    weight = weight.reshape(weight.shape + (1,) * (values.ndim - players))
    added = [values.take(1, axis=player) - values.take(0, axis=player) for player in range(players)]
    return np.stack([(weight * each).sum(axis=tuple(range(others))) for each in added])


def _read(model: VolumeModel, tensors: InputTensors, tickers: Tensor, places: Tensor) -> _Read:
    x_NTX, calendar_NTK = scaled_sessions(tensors, model.scaler, tickers, places)
    return _Read(x_NTX=x_NTX, calendar_NTK=calendar_NTK, ahead_NHA=ahead_of(tensors, tickers, places[-1]))


def _medians(model: VolumeModel, linear: Coefficients | None, read: _Read, neutral_A: Tensor) -> Tensor:
    """(P, N, H): the model's medians for each of the `_choices` of OF_TARGET."""
    off_PA = torch.stack([_columns(AHEAD_COLUMNS, off) for off in _choices(OF_TARGET)]).to(neutral_A.device)
    ahead_NPHA = torch.where(off_PA[:, None], neutral_A, read.ahead_NHA[:, None])
    said = []
    for member in model.members:
        assert isinstance(member, ForkingNetwork)
        h_NTU = member.encode(read.x_NTX, read.calendar_NTK)
        said.append(member.decode(h_NTU[:, -1:], read.x_NTX[:, -1:], ahead_NPHA)[..., MEDIAN])
    median_NPH = torch.stack(said).mean(0)
    if linear:
        median_NPH = median_NPH + linear.shift(median_NPH, read.x_NTX[:, -1:], ahead_NPHA)
    return median_NPH.transpose(0, 1)


def _choices(groups: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Every subset of some groups that may be switched off; as the axes of an array count, all off comes first."""
    kept = product((False, True), repeat=len(groups))
    return [tuple(group for group, is_on in zip(groups, each, strict=True) if not is_on) for each in kept]


def _columns(names: tuple[str, ...], groups: tuple[str, ...]) -> Tensor:
    """(len(names),) bool: the columns of some groups."""
    return torch.tensor([any(name in GROUPS[group] for group in groups) for name in names])


def _switched_off(read: _Read, off: tuple[str, ...], has_market_NT1: Tensor, neutral_A: Tensor) -> _Read:
    """Scaled features at 0, their mean, in some groups of OF_PAST; a ticker that is alone has no market to lose.

    Without recent activity there is no calendar that it is read by.
    """
    x_NTX, calendar_NTK = read.x_NTX, read.calendar_NTK
    if "recent" in off:
        x_NTX = x_NTX.masked_fill(_columns(AT_COLUMNS, ("recent",)).to(x_NTX.device), 0)
        calendar_NTK = neutral_A[: len(CALENDAR_COLUMNS)].expand_as(calendar_NTK)
    if "market" in off:
        x_NTX = x_NTX.masked_fill(_columns(AT_COLUMNS, ("market",)).to(x_NTX.device) & has_market_NT1, 0)
    return replace(read, x_NTX=x_NTX, calendar_NTK=calendar_NTK)


def _absent(told: _Read, untold: _Read, has_market_NT1: Tensor, neutral_A: Tensor) -> np.ndarray:
    """(G, N, H) bool: switching a group of OF_PAST or OF_TARGET off changes nothing that is read."""
    is_neutral_NHA, no_NH = told.ahead_NHA == neutral_A, torch.zeros_like(told.ahead_NHA[..., 0], dtype=torch.bool)
    is_untold_NH = (told.ahead_NHA == untold.ahead_NHA).all(2) & (told.x_NTX == untold.x_NTX).all(2).all(1)[:, None]
    of_past = (no_NH, no_NH | ~has_market_NT1.any(1), is_untold_NH)
    of_target = (is_neutral_NHA[..., _columns(AHEAD_COLUMNS, (group,))].all(2) for group in OF_TARGET)
    return torch.stack([*of_past, *of_target]).cpu().numpy()


def _neutral(season: int) -> Tensor:
    """(A,): what is known ahead of no session in particular, of a week of so many sessions."""
    values = dict.fromkeys(CALENDAR_COLUMNS[:4], 1 / season) | {"month_phase": MIDDLE}
    return torch.tensor([values.get(name, 0.0) for name in AHEAD_COLUMNS])


def _without_reach(earnings: EarningsCalendar, cutoff: int) -> EarningsCalendar:
    """The calendar without the announcements that may show in a session after the cutoff."""
    is_near_A = earnings.place_A >= cutoff + 1 - AFTER
    return replace(earnings, seen_A=earnings.seen_A.masked_fill(is_near_A, NEVER))
