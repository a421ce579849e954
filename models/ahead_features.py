"""What is known of a session before it comes: the calendar, the ticker's habits on such sessions, announced earnings.

Each column of a session is known HORIZONS sessions before it, so that it is the same for every cutoff that may ask for
it; announced earnings, which may be seen later, are in models/earnings_features.py.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from volcast.models.earnings_features import EarningsCalendar
from volcast.models.market_calendar import CALENDAR_COLUMNS
from volcast.models.panel import HORIZONS
from volcast.models.past_features import Neighbours, blocks_of, market_part, mean_of_neighbours, sums_of_tickers
from volcast.models.recipes import Market

# N tickers, T sessions with prices, S = T + HORIZONS, E echo columns

ECHO_DAYS = (364, 273, 182, 91)  # calendar days back: the same weekday, a year to a quarter ago
ECHO_OFFSETS = range(-3, 4)  # sessions around that day
ECHO_COLUMNS = (
    *(f"echo_{days}_{offset:+d}" for days in ECHO_DAYS for offset in ECHO_OFFSETS),
    *(f"echo_{days}_max" for days in ECHO_DAYS),
)

HABITS = {  # calendar column -> how many of the last such sessions make a habit
    "triple_witching": 6,
    "expiry": 6,
    "month_end": 6,
    "msci": 4,
    "russell": 3,
    "half_day": 4,
    "before_holiday": 8,
    "black_friday": 3,
}
WEEKS = 26  # that make a habit of a weekday
HABIT_COLUMNS = (*(f"usual_{name}" for name in HABITS), "usual_weekday")
HABIT_LIMIT = 2.0  # a surprise beyond it counts as this much
FEW, FEW_WEEKS = 2, 6  # a mean of n is shrunk by n / (n + FEW)

SEASON_COLUMNS = ("neighbours_earnings", "season_today", "season_after")


def echo_places(sessions: pd.DatetimeIndex) -> np.ndarray:
    """(S, len(ECHO_DAYS) * len(ECHO_OFFSETS)): where in `sessions` the echoes of each stand; 0 before the first."""
    columns = []
    for days in ECHO_DAYS:
        place_S = sessions.searchsorted(sessions - pd.Timedelta(days=days))
        columns += [np.where(place_S > max(ECHO_OFFSETS), place_S + offset, 0) for offset in ECHO_OFFSETS]
    return np.stack(columns, axis=1)


def habits(surprise_NT: np.ndarray, calendar_SK: np.ndarray, weekday_S: np.ndarray) -> np.ndarray:
    """(N, S, len(HABIT_COLUMNS)) float32: the ticker's mean surprise on the last sessions of the same kind; else 0."""
    own_NT = np.clip(surprise_NT, -HABIT_LIMIT, HABIT_LIMIT)
    usual_NSC = np.zeros((len(own_NT), len(calendar_SK), len(HABIT_COLUMNS)), dtype=np.float32)
    for column, (name, count) in enumerate(HABITS.items()):
        place_P = np.flatnonzero(calendar_SK[:, CALENDAR_COLUMNS.index(name)])
        usual_NSC[:, place_P, column] = _usual(own_NT, place_P, count, few=FEW)
    for day in np.unique(weekday_S):
        place_P = np.flatnonzero(weekday_S == day)
        usual_NSC[:, place_P, -1] = _usual(own_NT, place_P, WEEKS, few=FEW_WEEKS)
    return usual_NSC


def earnings_season(earnings: EarningsCalendar, neighbours: Sequence[Neighbours], market: Market) -> np.ndarray:
    """(N, S, 3) float32, of SEASON_COLUMNS: who else announces on a session, as was known HORIZONS before it.

    The neighbours' weighted share, and of all tickers with a calendar five times the share that announces on the
    session and the one before it.
    """
    place_S, shape = torch.arange(earnings.newest_NS.shape[1]), tuple(earnings.newest_NS.shape)
    today_NS, after_NS = np.empty(shape, dtype=bool), np.empty(shape, dtype=bool)
    blocks = blocks_of(shape[0])
    for block in blocks:
        ticker_N1 = torch.arange(shape[0])[block, None]
        since_NS = earnings.sessions_since(ticker_N1, place_S - HORIZONS, place_S).numpy()
        today_NS[block], after_NS[block] = since_NS == 0, since_NS == 1
    season_NSC = np.empty((*shape, len(SEASON_COLUMNS)), dtype=np.float32)
    season_NSC[:, :, 0] = mean_of_neighbours(today_NS + np.float32(0.5) * after_NS, neighbours)
    covered_NS = earnings.covered_NS[:, (place_S - HORIZONS).clamp(min=0)].numpy()
    for column, flags_NS in enumerate((today_NS, after_NS), 1):
        sums = None
        for block in blocks:
            sums = sums_of_tickers(np.where(covered_NS[block], 5.0 * flags_NS[block], np.nan), sums)
        for block in blocks:
            own_NS = np.where(covered_NS[block], 5.0 * flags_NS[block], np.nan)
            season_NSC[block, :, column] = market_part(own_NS, market, sums)
    return season_NSC


def _usual(own_NT: np.ndarray, place_P: np.ndarray, count: int, *, few: int) -> np.ndarray:
    """(N, P) float64: on each of the places (ascending), the mean of up to `count` places more than HORIZONS before."""
    closed_C = place_P[place_P < own_NT.shape[1]]
    there_NC = np.isfinite(own_NT[:, closed_C])
    values_NC = np.where(there_NC, own_NT[:, closed_C], 0.0)
    none_N1 = np.zeros((len(own_NT), 1))
    sums_NC, rows_NC = (
        np.concatenate([none_N1, np.cumsum(values, axis=1)], axis=1) for values in (values_NC, there_NC.astype(float))
    )
    last_P = np.searchsorted(closed_C, place_P - HORIZONS)
    first_P = np.maximum(last_P - count, 0)
    return (sums_NC[:, last_P] - sums_NC[:, first_P]) / (rows_NC[:, last_P] - rows_NC[:, first_P] + few)
