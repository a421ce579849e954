"""What the volume recipe looks at, from a panel: all of it known at the close of the cutoff.

Past (NTF): of each session, from rows up to it. Means run over the rows of a window of sessions, however few.
Ahead (of a session to come): its place in the calendar, the echoes of earlier quarters, announced earnings.

1. `log volume` less its own trailing mean over 20 sessions is the unit of volume everywhere: a ratio to normal;
2. `surprise`: log volume less the mean of the 20 sessions before, of the ticker's own less the market's (the panel's
   mean): what the ticker did that the market did not;
3. values are clipped where a bad row could make them arbitrarily large; where nothing traded they are 0, and the
   column `traded` says so.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from models.earnings_features import EARNINGS_COLUMNS, EarningsCalendar, earnings_calendar
from models.market_calendar import CALENDAR_COLUMNS, calendar_columns
from models.panel import HORIZONS, Panel

# N tickers, T sessions with prices, S = T + HORIZONS, F past features, K calendar columns, E echo columns, R rows

CLIP = 5.0  # of log ratios and of moves in units of their own volatility
SPIKE = 0.7  # a surprise that doubles the volume
SPIKE_MEMORY = 60  # sessions after which a spike is forgotten
ECHO_DAYS = (364, 273, 182, 91)  # calendar days back: the same weekday, a year to a quarter ago
ECHO_OFFSETS = range(-3, 4)  # sessions around that day
MIN_LEVEL_ROWS = 10  # of the last 20 sessions, for a forecast

PAST_COLUMNS = (
    "volume_to_20",  # log volume less its 20-session mean
    "volume_5_to_20",  # gaps between trailing means of log volume
    "volume_20_to_60",
    "volume_60_to_252",
    "range_to_20",  # log of log(high / low), less its 20-session mean
    "range_20_to_252",
    "absolute_return",  # log return in units of its 60-session volatility
    "signed_return",
    "absolute_gap",  # open against the close before, in the same units
    "volatility_to_252",  # log of 60-session volatility against the 252-session one
    "market_volume",  # the panel's mean of volume_to_20, absolute_return and range_to_20
    "market_return",
    "market_range",
    "since_spike",  # sessions since the last surprise above SPIKE, log scaled to 0..1
    "traded",
)
ECHO_COLUMNS = (
    *(f"echo_{days}_{offset:+d}" for days in ECHO_DAYS for offset in ECHO_OFFSETS),
    *(f"echo_{days}_max" for days in ECHO_DAYS),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """The features of a panel."""

    panel: Panel
    past_NTF: np.ndarray  # float32, of PAST_COLUMNS
    level_NT: np.ndarray  # float64, mean log volume of t-19..t; NaN where fewer than MIN_LEVEL_ROWS traded
    surprise_NS: np.ndarray  # float32; 0 where nothing traded, or not yet
    calendar_SK: np.ndarray  # float32, of CALENDAR_COLUMNS
    echo_places_SE: np.ndarray  # int64 (S, len(ECHO_DAYS) * len(ECHO_OFFSETS)), places in the sessions; 0 before them
    earnings: EarningsCalendar | None  # None where no calendar is used

    @cached_property
    def target_NS(self) -> np.ndarray:
        """(N, S) float32: log volume; NaN where nothing traded, or not yet. Less the level of a cutoff, the target."""
        ahead_NH = np.full((len(self.panel.tickers), HORIZONS), np.nan)
        return np.concatenate([self.panel.log_volume_NT, ahead_NH], axis=1)

    @cached_property
    def usable_NT(self) -> np.ndarray:
        """(N, T) bool: a forecast can be made at the session: it traded, and its level is known."""
        return self.panel.traded_NT & np.isfinite(self.level_NT)


def build_inputs(panel: Panel, *, use_earnings: bool) -> Inputs:
    """The features of every ticker and session of a panel; about 1 kB of memory a ticker and session while it runs."""
    log_volume_NT = panel.log_volume_NT
    level_NT, rows_NT = _trailing_mean(log_volume_NT, 20)
    level_NT = np.where(rows_NT >= MIN_LEVEL_ROWS, level_NT, np.nan)
    surprise_NT = _surprise(log_volume_NT, level_NT)
    past_NTF = _past_features(panel, surprise_NT)
    ahead_NH = np.zeros((len(panel.tickers), HORIZONS))
    surprise_NS = np.concatenate([np.nan_to_num(surprise_NT), ahead_NH], axis=1).astype(np.float32)
    return Inputs(
        panel=panel,
        past_NTF=past_NTF,
        level_NT=level_NT,
        surprise_NS=surprise_NS,
        calendar_SK=calendar_columns(panel.sessions),
        echo_places_SE=_echo_places(panel.sessions),
        earnings=earnings_calendar(panel, surprise_NS) if use_earnings else None,
    )


def echoes(inputs: Inputs, ticker_R: np.ndarray, target_R: np.ndarray) -> np.ndarray:
    """(R, E) float32, of ECHO_COLUMNS: what the ticker did around the target's day of earlier quarters."""
    around_RE = inputs.surprise_NS[ticker_R[:, None], inputs.echo_places_SE[target_R]]
    grouped = around_RE.reshape(len(ticker_R), len(ECHO_DAYS), len(ECHO_OFFSETS))
    return np.concatenate([around_RE, grouped.max(axis=2)], axis=1)


def ahead(inputs: Inputs, ticker_R: np.ndarray, cutoff_R: np.ndarray, target_R: np.ndarray) -> np.ndarray:
    """(R, K + E + earnings) float32: what is known at the cutoff of a session at or after it (places in the grid)."""
    parts = [inputs.calendar_SK[target_R], echoes(inputs, ticker_R, target_R)]
    if inputs.earnings is not None:
        parts.append(inputs.earnings.columns(ticker_R, cutoff_R, target_R))
    return np.concatenate(parts, axis=1)


def ahead_names(inputs: Inputs) -> tuple[str, ...]:
    """The names of the columns of `ahead`."""
    return (*CALENDAR_COLUMNS, *ECHO_COLUMNS, *(EARNINGS_COLUMNS if inputs.earnings is not None else ()))


def at_cutoff(inputs: Inputs, ticker_R: np.ndarray, cutoff_R: np.ndarray) -> np.ndarray:
    """(R, F + earnings) float32: the past features of the cutoff, and where its ticker stands in the earnings cycle."""
    parts = [inputs.past_NTF[ticker_R, cutoff_R]]
    if inputs.earnings is not None:
        parts.append(inputs.earnings.columns(ticker_R, cutoff_R, cutoff_R))
    return np.concatenate(parts, axis=1)


def table(inputs: Inputs, ticker_R: np.ndarray, cutoff_R: np.ndarray, horizon: int) -> np.ndarray:
    """(R, columns) float32: everything that the network is given for a target `horizon` sessions after each cutoff."""
    target_R = cutoff_R + horizon
    return np.concatenate([at_cutoff(inputs, ticker_R, cutoff_R), ahead(inputs, ticker_R, cutoff_R, target_R)], axis=1)


def table_names(inputs: Inputs) -> tuple[str, ...]:
    """The names of the columns of `table`."""
    at_names = () if inputs.earnings is None else tuple(f"at_{name}" for name in EARNINGS_COLUMNS)
    return (*PAST_COLUMNS, *at_names, *ahead_names(inputs))


def _past_features(panel: Panel, surprise_NT: np.ndarray) -> np.ndarray:
    fields, log_volume_NT = panel.fields, panel.log_volume_NT
    volume_5, volume_20, volume_60, volume_252 = (_trailing_mean(log_volume_NT, w)[0] for w in (5, 20, 60, 252))
    log_range_NT = _log_range(fields)
    range_20, range_252 = (_trailing_mean(log_range_NT, w)[0] for w in (20, 252))
    before_NT = _last_known(np.log(fields["adj_close"]))
    return_NT = np.log(fields["adj_close"]) - before_NT
    gap_NT = np.log(fields["open"]) - _last_known(np.log(fields["close"]))
    volatility_60, volatility_252 = (np.sqrt(_trailing_mean(return_NT**2, w)[0] + 1e-8) for w in (60, 252))
    move_NT = return_NT / volatility_60
    volume_NT, own_range_NT = log_volume_NT - volume_20, log_range_NT - range_20
    market = [_mean_of_tickers(values_NT) for values_NT in (volume_NT, np.abs(move_NT), own_range_NT)]
    columns = (
        volume_NT,
        volume_5 - volume_20,
        volume_20 - volume_60,
        volume_60 - volume_252,
        own_range_NT,
        range_20 - range_252,
        np.abs(move_NT),
        move_NT,
        np.abs(gap_NT / volatility_60),
        np.log(volatility_60 / volatility_252),
        *(np.broadcast_to(values_T, volume_NT.shape) for values_T in market),
        _since_spike(surprise_NT),
        panel.traded_NT,
    )
    past_NTF = np.empty((*volume_NT.shape, len(columns)), dtype=np.float32)
    for place, values_NT in enumerate(columns):
        past_NTF[:, :, place] = np.clip(np.nan_to_num(np.where(panel.traded_NT, values_NT, 0.0)), -CLIP, CLIP)
    return past_NTF


def _trailing_mean(values_NT: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the rows that there are among t-window+1..t (NaN where none), and their number; both (N, T)."""
    there_NT = np.isfinite(values_NT)
    sums_NT = _trailing_sum(np.where(there_NT, values_NT, 0.0), window)
    rows_NT = _trailing_sum(there_NT.astype(np.float64), window)
    return np.divide(sums_NT, rows_NT, out=np.full_like(sums_NT, np.nan), where=rows_NT > 0.5), rows_NT


def _trailing_sum(values_NT: np.ndarray, window: int) -> np.ndarray:
    total_NT = np.cumsum(values_NT, axis=1)
    total_NT[:, window:] = total_NT[:, window:] - total_NT[:, :-window]
    return total_NT


def _last_known(values_NT: np.ndarray) -> np.ndarray:
    """(N, T): the newest value before each session, over gaps; NaN before the first."""
    places_NT = np.where(np.isfinite(values_NT), np.arange(values_NT.shape[1]), 0)
    newest_NT = np.take_along_axis(values_NT, np.maximum.accumulate(places_NT, axis=1), axis=1)
    return np.concatenate([np.full((len(values_NT), 1), np.nan), newest_NT[:, :-1]], axis=1)


def _log_range(fields: dict[str, np.ndarray]) -> np.ndarray:
    """(N, T): log of log(high / low); a session at one price counts as one of a range of a basis point."""
    return np.log(np.log(fields["high"] / fields["low"]) + 1e-4)


def _surprise(log_volume_NT: np.ndarray, level_NT: np.ndarray) -> np.ndarray:
    before_NT = np.concatenate([np.full((len(level_NT), 1), np.nan), level_NT[:, :-1]], axis=1)
    own_NT = np.clip(log_volume_NT - before_NT, -CLIP, CLIP)
    return own_NT - _mean_of_tickers(own_NT)


def _mean_of_tickers(values_NT: np.ndarray) -> np.ndarray:
    """(T,): the mean of the tickers that have a value; 0 where none has."""
    there_NT = np.isfinite(values_NT)
    return np.where(there_NT, values_NT, 0.0).sum(axis=0) / np.maximum(there_NT.sum(axis=0), 1)


def _since_spike(surprise_NT: np.ndarray) -> np.ndarray:
    places_T = np.arange(surprise_NT.shape[1])
    newest_NT = np.maximum.accumulate(np.where(surprise_NT > SPIKE, places_T, -SPIKE_MEMORY), axis=1)
    return np.log1p(np.minimum(places_T - newest_NT, SPIKE_MEMORY)) / np.log1p(SPIKE_MEMORY)


def _echo_places(sessions: pd.DatetimeIndex) -> np.ndarray:
    columns = []
    for days in ECHO_DAYS:
        place_S = sessions.searchsorted(sessions - pd.Timedelta(days=days))
        columns += [np.where(place_S > 3, place_S + offset, 0) for offset in ECHO_OFFSETS]
    return np.stack(columns, axis=1)
