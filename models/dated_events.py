"""How dated events of any kind move volume, beyond what the network says, as their past occurrences did.

1. an event's date is the session on or after it; it is about that session, the one before and the one after
2. of each past occurrence that was known and whose session had closed at a cutoff, no more than `look_back` sessions
   ago, the error is taken that the network's median made of it, at each horizon. So what the network knows by itself
   (witching, the announced earnings of the same session, a volume that has risen already) is not counted twice
3. a kind's common reaction is the mean over n dates, shrunk by n / (n + dates); on a date with many tickers their mean
   counts once
4. a ticker's own reaction lies n / (n + own) of the way from there to the mean of its own n occurrences. Both are
   shrunk more for an event of the whole market: of what moved all tickers on its dates, much is other news
5. where several events touch a session, the one with the largest reaction counts: they may be one event by two names

An event counts from the close of the session at which it was first seen. What is learned at a cutoff depends on
nothing that came, or was known, after it, and is the same bit for bit whichever other cutoffs are asked for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from volcast.models.forecasters import MEDIAN
from volcast.models.panel import HORIZONS, MARKET, Panel
from volcast.models.volume_inputs import Inputs

# N tickers, T sessions with prices, C cutoffs, P cutoffs of the past, H horizons, Q levels, E occurrences, O sessions
# around one, D dates

AROUND = np.array([-1, 0, 1])  # sessions from the date
STRETCH = 252  # sessions whose quantiles are in memory at once

Quantiles = Callable[[Inputs, np.ndarray], np.ndarray]  # of inputs and cutoffs: (N, C, H, Q), log volume less the level


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How a reaction is learned."""

    look_back: int  # sessions, to the oldest occurrence
    dates: float  # as many as these say that there is no reaction
    own: float  # as many occurrences as these say that a ticker's own reaction is the common one


OF_TICKER = Learning(look_back=1260, dates=4, own=4)
OF_MARKET = Learning(look_back=756, dates=16, own=160)  # longer costs: all tickers take part


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kind:
    """The occurrences of one kind, by place and ticker; one of the whole market is one of every ticker."""

    ticker_E: np.ndarray  # places in the panel's tickers
    place_E: np.ndarray  # of the session in the grid
    seen_E: np.ndarray  # of the session at whose close it was known
    learning: Learning

    def touched(self, cutoffs: np.ndarray) -> np.ndarray:
        """Those of the cutoffs at which one is known that touches a session to come."""
        is_touched_C = np.zeros(len(cutoffs), dtype=bool)
        for place, seen in np.unique(np.stack([self.place_E, self.seen_E]), axis=1).T:
            is_touched_C |= (cutoffs >= max(place - HORIZONS - 1, seen)) & (cutoffs <= place)
        return cutoffs[is_touched_C]

    def near(self, cutoffs: np.ndarray) -> "_Kind":
        """Those that one of the cutoffs may learn from or forecast."""
        is_near_E = (self.place_E > cutoffs[0] - self.learning.look_back) & (self.place_E <= cutoffs[-1] + HORIZONS + 1)
        names = ("ticker_E", "place_E", "seen_E")
        return replace(self, **{name: getattr(self, name)[is_near_E] for name in names})


def dated_moves(inputs: Inputs, cutoffs: np.ndarray, quantile_NCHQ: np.ndarray, quantiles: Quantiles) -> np.ndarray:
    """(N, C, H) float32: by how much the logs of all quantiles move at cutoffs (C,), ascending; 0 without an event.

    `quantile_NCHQ` is what `quantiles` says of these cutoffs; it is asked for those of past occurrences before them.
    """
    moves_NCH = np.zeros((len(inputs.panel.tickers), len(cutoffs), HORIZONS), dtype=np.float32)
    touched_of = [(kind, kind.touched(cutoffs)) for kind in _kinds_of(inputs.panel)]
    kinds = [(kind.near(touched), touched) for kind, touched in touched_of if len(touched)]
    before_P = _places_before(inputs, kinds)
    if not len(before_P):
        return moves_NCH
    is_told_P = np.isin(before_P, cutoffs)
    median_NPH = np.empty((len(inputs.panel.tickers), len(before_P), HORIZONS), dtype=np.float32)
    median_NPH[:, is_told_P] = quantile_NCHQ[..., MEDIAN][:, np.isin(cutoffs, before_P)]
    for some_P in _stretches(before_P, ~is_told_P):
        median_NPH[:, some_P] = quantiles(inputs, before_P[some_P])[..., MEDIAN]
    for kind, touched in kinds:
        error_EOH, before, reaction_NOH = _errors(inputs, kind, before_P, median_NPH), None, np.empty(0)
        for cutoff in touched:
            is_known_E = (kind.seen_E <= cutoff) & (kind.place_E > cutoff - kind.learning.look_back)
            is_past_E = is_known_E & (kind.place_E <= cutoff)
            is_closed_E = is_past_E & (kind.place_E + 1 <= cutoff)
            if before != (state := is_past_E.tobytes() + is_closed_E.tobytes()):  # most cutoffs know as much as others
                before, closed_EOH = state, error_EOH[is_past_E]
                closed_EOH[~is_closed_E[is_past_E], 2] = np.nan
                reaction_NOH = _reactions(kind, is_past_E, closed_EOH, len(inputs.panel.tickers))
            _move(moves_NCH[:, np.searchsorted(cutoffs, cutoff)], kind, is_known_E, reaction_NOH, cutoff)
    return moves_NCH


def _kinds_of(panel: Panel) -> Iterator[_Kind]:
    """The occurrences of each kind of event; those of the whole market are a kind of their own."""
    row_of = {ticker: row for row, ticker in enumerate(panel.tickers)}
    dated = panel.dated.assign(
        place=panel.sessions.searchsorted(pd.DatetimeIndex(panel.dated["announced_for"])),
        seen=panel.sessions.searchsorted(pd.DatetimeIndex(panel.dated["first_seen"])),
        is_market=panel.dated["ticker"] == MARKET,
    )
    dated = dated.loc[(dated["place"] < len(panel.sessions)) & (dated["announced_for"] >= panel.sessions[0])]
    for (_, is_market), rows in dated.groupby(["kind", "is_market"]):
        first = rows.groupby(["place", "ticker"], as_index=False)["seen"].min()
        place_R, seen_R = first["place"].to_numpy(), first["seen"].to_numpy()
        each = len(panel.tickers) if is_market else 1
        yield _Kind(
            ticker_E=np.tile(np.arange(each), len(first)) if is_market else first["ticker"].map(row_of).to_numpy(),
            place_E=np.repeat(place_R, each),
            seen_E=np.repeat(seen_R, each),
            learning=OF_MARKET if is_market else OF_TICKER,
        )


def _places_before(inputs: Inputs, kinds: list[tuple[_Kind, np.ndarray]]) -> np.ndarray:
    """(P,) the cutoffs from which the sessions around past occurrences were forecast, ascending."""
    is_before_T = np.zeros(inputs.panel.known, dtype=bool)
    for kind, touched in kinds:
        before = np.unique(kind.place_E[kind.place_E <= touched[-1]])[:, None] + np.arange(-HORIZONS - 1, 1)
        is_before_T[before[before >= 0]] = True
    return np.flatnonzero(is_before_T)


def _stretches(cutoff_P: np.ndarray, is_asked_P: np.ndarray) -> list[np.ndarray]:
    """(P,) bool of each stretch: which of the cutoffs that are asked for lie in it."""
    stretch_P = cutoff_P // STRETCH
    return [is_asked_P & (stretch_P == each) for each in np.unique(stretch_P[is_asked_P])]


def _errors(inputs: Inputs, kind: _Kind, cutoff_P: np.ndarray, median_NPH: np.ndarray) -> np.ndarray:
    """(E, O, H): the errors of the forecasts of each session around each occurrence; NaN where there is none."""
    known, ticker_E11 = inputs.panel.known, kind.ticker_E[:, None, None]
    target_EO1 = (kind.place_E[:, None] + AROUND)[..., None]
    from_EOH = target_EO1 - np.arange(1, HORIZONS + 1)
    is_there_EOH = (from_EOH >= 0) & (target_EO1 >= 0) & (target_EO1 < known)
    from_EOH, target_EO1 = from_EOH.clip(0, known - 1), target_EO1.clip(0, known - 1)
    at_EOH = cutoff_P.searchsorted(from_EOH).clip(max=len(cutoff_P) - 1)
    is_there_EOH &= inputs.usable_NT[ticker_E11, from_EOH] & (cutoff_P[at_EOH] == from_EOH)
    actual_EOH = inputs.panel.log_volume_NT[ticker_E11, target_EO1] - inputs.level_NT[ticker_E11, from_EOH]
    return np.where(is_there_EOH, actual_EOH - median_NPH[ticker_E11, at_EOH, np.arange(HORIZONS)], np.nan)


def _reactions(kind: _Kind, is_past_E: np.ndarray, error_EOH: np.ndarray, tickers: int) -> np.ndarray:
    """(N, O, H) float64: what errors of past occurrences say of each ticker."""
    date_E = np.unique(kind.place_E[is_past_E], return_inverse=True)[1]
    mean_DOH, has_DOH = _means(date_E, int(date_E.max(initial=-1)) + 1, error_EOH)
    dates_OH = (has_DOH > 0).sum(axis=0)
    common_OH = mean_DOH.sum(axis=0) / (dates_OH + kind.learning.dates)
    own_NOH, count_NOH = _means(kind.ticker_E[is_past_E], tickers, error_EOH)
    return common_OH + (own_NOH - common_OH) * count_NOH / (count_NOH + kind.learning.own)


def _means(group_E: np.ndarray, groups: int, error_EOH: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both (groups, O, H): the mean of the errors of each group, 0 where there is none, and how many there are."""
    sum_GOH, count_GOH = (np.zeros((groups, *error_EOH.shape[1:])) for _ in range(2))
    np.add.at(sum_GOH, group_E, np.nan_to_num(error_EOH))
    np.add.at(count_GOH, group_E, np.isfinite(error_EOH))
    return sum_GOH / np.maximum(count_GOH, 1), count_GOH


def _move(moves_NH: np.ndarray, kind: _Kind, is_known_E: np.ndarray, reaction_NOH: np.ndarray, cutoff: int) -> None:
    """Put the reactions to events ahead of a cutoff where they are larger than what stands there."""
    for place, offset in enumerate(AROUND):
        h_E = kind.place_E + offset - cutoff - 1
        is_ahead_E = is_known_E & (h_E >= 0) & (h_E < HORIZONS)
        ticker_E, h_E = kind.ticker_E[is_ahead_E], h_E[is_ahead_E]
        reaction_E = reaction_NOH[ticker_E, place, h_E]
        is_larger_E = np.abs(reaction_E) > np.abs(moves_NH[ticker_E, h_E])
        moves_NH[ticker_E[is_larger_E], h_E[is_larger_E]] = reaction_E[is_larger_E]
