"""What the volume recipe knows of each session at its close, from the rows up to it.

1. the unit of volume is its log less the mean of the last 20 sessions: a ratio to normal
2. `surprise`: log volume less the mean of the 20 sessions before, less the same of the market: what the ticker did
   that the market did not. The market is the other tickers of the panel, shrunk to 0 where they are few: a ticker alone
   has none, and its surprise is its own. Models of release 0.1.0 took the mean of all, the ticker among them
3. moves are in units of the ticker's own 60-session volatility
4. values are clipped, so that one bad row cannot be arbitrarily large; where nothing traded they are 0

The tickers whose volume moves with a ticker's own: its industry, as far as volume shows it.

Neighbours of a stretch of REFRESH sessions are the COUNT tickers with the highest correlation of surprises over the
MEMORY sessions that end HORIZONS before the stretch, so that they are known at every cutoff that may ask for one of its
sessions. Their mean is weighted by that correlation.

Trailing statistics of values by ticker and session, over the rows that there are: NaN where there is none.

Each is a sum of prefixes, so that a value is the same bit for bit whatever comes after it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from volcast.models import arrays
from volcast.models.panel import HORIZONS, Panel
from volcast.models.recipes import Market
from volcast.models.weights import side_by_side

# N tickers, T sessions, F features

CLIP = 5.0
SPIKE = 0.7  # a surprise that doubles the volume
SPIKE_MEMORY = 60  # sessions after which a spike is forgotten
MIN_VARIANCE = 1e-8  # of returns and of volumes: a price that never moves has no volatility to divide by
MIN_NOISE = 0.02
FEW_OTHERS = 3  # the mean of n other tickers is shrunk by n / (n + FEW_OTHERS)
BLOCK = 8  # tickers whose columns are made at a time, so that what a step writes is in the cache when it is read next
MARKET_COLUMNS = {  # the market's part of another column
    "market_volume": "volume_to_20",
    "market_return": "absolute_return",
    "market_range": "range_to_20",
}

Sums = tuple[np.ndarray, np.ndarray]  # (T,) the sum of the tickers' values at each session, and how many there are

PAST_COLUMNS = (
    "volume_to_20",  # log volume less its 20-session mean
    "volume_5_to_20",  # gaps between trailing means of log volume
    "volume_20_to_60",
    "volume_60_to_252",
    "range_to_20",  # log of log(high / low), less its 20-session mean
    "range_20_to_252",
    "absolute_return",  # log return in units of its volatility
    "signed_return",
    "absolute_gap",  # open against the close before
    "volatility_to_252",  # log of 60-session volatility against the 252-session one
    "market_volume",  # the market's volume_to_20, absolute_return and range_to_20
    "market_return",
    "market_range",
    "since_spike",  # sessions since the last surprise above SPIKE, log scaled to 0..1
    "return_20",  # log return of 20 sessions
    "below_high_252",  # how far the close is from its extremes of 252 sessions
    "above_low_252",
    "close_in_range",  # where the close lies between low and high, -0.5 to 0.5
    "noise_60_to_252",  # log of the surprises' root mean square over 60 sessions against that over 252
    "noise_252",
    "volume_beta",  # of volume_to_20 on market_volume, over 252 sessions
    "neighbours_surprise",  # of the ten tickers whose surprises go with the ticker's own (models/past_features.py)
    "neighbours_surprise_5",  # its 5-session mean
    "others",  # n / (n + FEW_OTHERS) of the n other tickers that traded; in models of release 0.1.0 always 1
)


def surprise(panel: Panel, level_NT: np.ndarray, market: Market) -> np.ndarray:
    """(N, T) float64: log volume less the level before it, less the market's; NaN where there is none."""
    own_NT, blocks, sums = arrays.empty(level_NT.shape), blocks_of(len(level_NT)), None
    for block in blocks:
        own_NT[block, 0] = np.nan
        np.clip(panel.log_volume_NT[block, 1:] - level_NT[block, :-1], -CLIP, CLIP, out=own_NT[block, 1:])
        sums = sums_of_tickers(own_NT[block], sums)
    for block in blocks:
        own_NT[block] -= market_part(own_NT[block], market, sums)
        arrays.let_go()
    return own_NT


def market_part(values_NT: np.ndarray, market: Market, sums: Sums | None = None) -> np.ndarray:
    """(N, T): what the market's value was for each ticker; 0 where no ticker has one.

    `sums`: of all the market's tickers; by default there are no others than these.
    """
    total_T, count_T = sums or sums_of_tickers(values_NT)
    if market == "mean of all":
        return np.broadcast_to(total_T / np.maximum(count_T, 1), values_NT.shape)
    there_NT = np.isfinite(values_NT)
    return (total_T - np.where(there_NT, values_NT, 0.0)) / (count_T - there_NT + FEW_OTHERS)


def past_features(panel: Panel, surprise_NT: np.ndarray, neighbours_NT: np.ndarray, market: Market) -> np.ndarray:
    """(N, T, F) float32, of PAST_COLUMNS. `neighbours_NT`: the mean surprise of each ticker's neighbours.

    Blocks of tickers are gone through twice: for the sums of MARKET_COLUMNS, and for the columns.
    """
    blocks = blocks_of(len(surprise_NT))
    panels = panel.parts(BLOCK)
    past_NTF = arrays.empty((*surprise_NT.shape, len(PAST_COLUMNS)), np.float32)
    traded_T = panel.traded_NT.sum(axis=0)

    def fill(own: Panel, block: slice) -> None:
        columns = {**_volume_and_range(own), **_prices(own)}
        for name, source in MARKET_COLUMNS.items():
            columns[name] = market_part(columns[source], market, sums[name])
        columns |= {
            **_noise(surprise_NT[block], columns["volume_to_20"], columns["market_volume"]),
            "since_spike": _since_spike(surprise_NT[block]),
            "neighbours_surprise": neighbours_NT[block],
            "neighbours_surprise_5": trailing_mean(neighbours_NT[block], 5)[0],
            "others": _share_of_others(own.traded_NT, traded_T) if market == "others" else own.traded_NT,
        }
        for place, name in enumerate(PAST_COLUMNS):
            there_NT = np.nan_to_num(np.where(own.traded_NT, columns.pop(name), 0.0))
            past_NTF[block, :, place] = np.clip(there_NT, -CLIP, CLIP)
        assert not columns, f"columns that PAST_COLUMNS does not name: {list(columns)}"

    sums: dict[str, Sums] = {}
    for values in side_by_side(_market_values, panels):
        sums = {name: sums_of_tickers(values_NT, sums.get(name)) for name, values_NT in values.items()}
    list(side_by_side(fill, panels, blocks))
    return past_NTF


def blocks_of(tickers: int) -> list[slice]:
    """So many tickers in blocks of BLOCK."""
    return [slice(begin, begin + BLOCK) for begin in range(0, tickers, BLOCK)]


def _market_values(panel: Panel) -> dict[str, np.ndarray]:
    """What the market's part is of, of each of MARKET_COLUMNS."""
    log_range_NT = _log_range(panel.fields)
    return {
        "market_volume": panel.log_volume_NT - trailing_mean(panel.log_volume_NT, 20)[0],
        "market_return": np.abs(_moves(panel)[0]),
        "market_range": log_range_NT - trailing_mean(log_range_NT, 20)[0],
    }


def _moves(panel: Panel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, T) each: log returns in units of their volatility; themselves; and the volatility, of 60 sessions."""
    log_close_NT = np.log(panel.fields["adj_close"])
    return_NT = log_close_NT - value_before(log_close_NT)
    volatility_NT = _volatility(return_NT, 60)
    return return_NT / volatility_NT, return_NT, volatility_NT


def _volatility(return_NT: np.ndarray, window: int) -> np.ndarray:
    return np.sqrt(trailing_mean(return_NT**2, window)[0] + MIN_VARIANCE)


def _volume_and_range(panel: Panel) -> dict[str, np.ndarray]:
    log_volume_NT, log_range_NT = panel.log_volume_NT, _log_range(panel.fields)
    volume = {window: trailing_mean(log_volume_NT, window)[0] for window in (5, 20, 60, 252)}
    spread = {window: trailing_mean(log_range_NT, window)[0] for window in (20, 252)}
    return {
        "volume_to_20": log_volume_NT - volume[20],
        "volume_5_to_20": volume[5] - volume[20],
        "volume_20_to_60": volume[20] - volume[60],
        "volume_60_to_252": volume[60] - volume[252],
        "range_to_20": log_range_NT - spread[20],
        "range_20_to_252": spread[20] - spread[252],
    }


def _prices(panel: Panel) -> dict[str, np.ndarray]:
    fields = panel.fields
    move_NT, return_NT, volatility_NT = _moves(panel)
    volatility = {60: volatility_NT, 252: _volatility(return_NT, 252)}
    path_NT = np.cumsum(np.nan_to_num(return_NT), axis=1)
    month_NT = path_NT - np.concatenate([np.zeros_like(path_NT[:, :20]), path_NT[:, :-20]], axis=1)
    range_NT = fields["high"] - fields["low"]
    middle_NT = np.full_like(range_NT, 0.5)
    np.divide(fields["close"] - fields["low"], range_NT, out=middle_NT, where=range_NT > 0)
    return {
        "absolute_return": np.abs(move_NT),
        "signed_return": move_NT,
        "absolute_gap": np.abs(np.log(fields["open"]) - value_before(np.log(fields["close"]))) / volatility[60],
        "volatility_to_252": np.log(volatility[60] / volatility[252]),
        "return_20": month_NT / volatility[60] / np.sqrt(20),
        "below_high_252": (trailing_max(path_NT, 252) - path_NT) / volatility[60] / np.sqrt(252),
        "above_low_252": (path_NT + trailing_max(-path_NT, 252)) / volatility[60] / np.sqrt(252),
        "close_in_range": middle_NT - 0.5,
    }


def _noise(surprise_NT: np.ndarray, volume_NT: np.ndarray, market_NT: np.ndarray) -> dict[str, np.ndarray]:
    noise = {}
    for window in (60, 252):
        noise[window] = np.log(np.sqrt(trailing_mean(surprise_NT**2, window)[0]) + MIN_NOISE)
    market_NT = np.where(np.isfinite(volume_NT), market_NT, np.nan)
    together_NT, apart_NT = (trailing_mean(values, 252)[0] for values in (volume_NT * market_NT, market_NT**2))
    return {
        "noise_60_to_252": noise[60] - noise[252],
        "noise_252": noise[252],
        "volume_beta": together_NT / (apart_NT + MIN_NOISE**2),
    }


def _share_of_others(there_NT: np.ndarray, count_T: np.ndarray) -> np.ndarray:
    """Of how many other tickers are there at each session, of `count_T` in all."""
    others_NT = count_T - there_NT
    return others_NT / (others_NT + FEW_OTHERS)


def _log_range(fields: dict[str, np.ndarray]) -> np.ndarray:
    """(N, T): log of log(high / low); a session at one price counts as one of a range of a basis point."""
    return np.log(np.log(fields["high"] / fields["low"]) + 1e-4)


def _since_spike(surprise_NT: np.ndarray) -> np.ndarray:
    places_T = np.arange(surprise_NT.shape[1])
    newest_NT = np.maximum.accumulate(np.where(surprise_NT > SPIKE, places_T, -SPIKE_MEMORY), axis=1)
    return np.log1p(np.minimum(places_T - newest_NT, SPIKE_MEMORY)) / np.log1p(SPIKE_MEMORY)


# N tickers, T sessions with prices, S = T + HORIZONS, J neighbours

COUNT = 10
MEMORY = 756  # three years
REFRESH = 126
MIN_SESSIONS = 126  # of the memory, that a ticker must have traded


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Of the sessions of one stretch."""

    stretch: slice
    neighbour_NJ: np.ndarray
    weight_NJ: np.ndarray  # they sum to 1 or are all 0


def mean_of_neighbours(values_NS: np.ndarray, neighbours: Iterable[Neighbours]) -> np.ndarray:
    """(N, S) float32: the weighted mean of the neighbours' values, without NaN; 0 before the first are known."""
    mean_NS = np.zeros(values_NS.shape, dtype=np.float32)
    for own in neighbours:
        values_NJT = values_NS[:, own.stretch][own.neighbour_NJ]
        mean_NS[:, own.stretch] = np.einsum("nj,njt->nt", own.weight_NJ, values_NJT)
    return mean_NS


def find_neighbours(surprise_NT: np.ndarray, end: int) -> list[Neighbours]:
    """Of each stretch before place `end`. `surprise_NT`: own less market log volume, NaN where nothing traded."""
    count, found = min(COUNT, len(surprise_NT) - 1), []
    for begin in range(2 * REFRESH, end if count else 0, REFRESH):
        memory_NT = surprise_NT[:, max(0, begin - HORIZONS - MEMORY) : begin - HORIZONS]
        alike_NN = _correlations(memory_NT)
        neighbour_NJ = highest(alike_NN, count)
        weight_NJ = np.clip(np.take_along_axis(alike_NN, neighbour_NJ, axis=1), 0, 1)
        weight_NJ = weight_NJ / (weight_NJ.sum(1, keepdims=True) + 1e-6)
        found.append(Neighbours(slice(begin, min(begin + REFRESH, end)), neighbour_NJ, weight_NJ))
    return found


def highest(values_NN: np.ndarray, count: int) -> np.ndarray:
    """(N, count): where the highest values of each row stand, the highest first; of equal ones the first."""
    return np.concatenate([_lowest(-values_NN[block], count) for block in blocks_of(len(values_NN))])


def _lowest(values_RN: np.ndarray, count: int) -> np.ndarray:
    place_RJ = np.sort(np.argpartition(values_RN, count - 1, axis=1)[:, :count], axis=1)
    least_RJ = np.take_along_axis(values_RN, place_RJ, axis=1)
    place_RJ = np.take_along_axis(place_RJ, np.argsort(least_RJ, axis=1, kind="stable"), axis=1)
    is_tied_R = (values_RN <= least_RJ.max(axis=1, keepdims=True)).sum(axis=1) > count  # any of them may be among these
    place_RJ[is_tied_R] = np.argsort(values_RN[is_tied_R], axis=1, kind="stable")[:, :count]
    return place_RJ


def _correlations(surprise_NT: np.ndarray) -> np.ndarray:
    """(N, N): correlation, a session without trade being no surprise; -1 with itself and with the little traded."""
    there_NT = np.isfinite(surprise_NT)
    values_NT = np.where(there_NT, surprise_NT, 0.0)
    values_NT -= values_NT.mean(axis=1, keepdims=True)
    values_NT /= np.sqrt((values_NT**2).sum(axis=1, keepdims=True)) + 1e-6
    alike_NN = values_NT @ values_NT.T
    alike_NN[:, there_NT.sum(axis=1) < MIN_SESSIONS] = -1
    np.fill_diagonal(alike_NN, -1)
    return alike_NN


# N tickers, T sessions


def trailing_mean(values_NT: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the rows that there are among t-window+1..t (NaN where none), and their number; both (N, T)."""
    there_NT = np.isfinite(values_NT)
    sums_NT = _trailing_sum(np.where(there_NT, values_NT, 0.0), window)
    rows_NT = _trailing_sum(there_NT.astype(np.float64), window)
    return np.divide(sums_NT, rows_NT, out=np.full_like(sums_NT, np.nan), where=rows_NT > 0), rows_NT


def sums_of_tickers(values_NT: np.ndarray, before: Sums | None = None) -> Sums:
    """The sums of these tickers and of those `before` them: the same, bit for bit, as of all at once."""
    there_NT = np.isfinite(values_NT)
    own_NT, count_T = np.where(there_NT, values_NT, 0.0), there_NT.sum(axis=0)
    if before is None:
        return own_NT.sum(axis=0), count_T
    return np.concatenate([before[0][None], own_NT]).sum(axis=0), before[1] + count_T


def value_before(values_NT: np.ndarray) -> np.ndarray:
    """(N, T): the newest value before each session, over gaps; NaN before the first."""
    places_NT = np.where(np.isfinite(values_NT), np.arange(values_NT.shape[1]), 0)
    newest_NT = np.take_along_axis(values_NT, np.maximum.accumulate(places_NT, axis=1), axis=1)
    return np.concatenate([np.full((len(values_NT), 1), np.nan), newest_NT[:, :-1]], axis=1)


def trailing_max(values_NT: np.ndarray, window: int) -> np.ndarray:
    """(N, T): the greatest of t-window+1..t, or of as many as there are; `values_NT` has no NaN."""
    padded = np.concatenate([np.full((len(values_NT), window - 1), -np.inf), values_NT], axis=1)
    reach = 1
    while 2 * reach <= window:  # the maximum over twice as many, until it spans most of the window
        padded[:, reach:] = np.maximum(padded[:, reach:], padded[:, :-reach])
        reach *= 2
    rest = window - reach
    widest = np.maximum(padded[:, rest:], padded[:, : padded.shape[1] - rest]) if rest else padded
    return widest[:, -values_NT.shape[1] :]


def _trailing_sum(values_NT: np.ndarray, window: int) -> np.ndarray:
    total_NT = np.cumsum(values_NT, axis=1)
    total_NT[:, window:] = total_NT[:, window:] - total_NT[:, :-window]
    return total_NT
