"""What can be wrong with the simulated exchange's answers, each deterministic in (seed, ticker, session).

gap        a few sessions are missing; half of them for good, half come ten sessions late
duplicate  a few rows come twice
null       a few rows have no prices and no volume
partial    the bar of the clock's own session is only partly traded; a later clock has it whole
restated   a few volumes are too low until their correction comes thirty sessions later
ratelimit  the first one or two calls for a ticker are refused
outage     nothing answers at about one clock date in five

A regime shift (`?shift=DATE`) is none of them: the answers are right, and the exchange is no longer what it was. From
that date on each ticker has a weekly rhythm of its own (exchange_calendar.py); before it all is as without it.
"""

from datetime import date
from typing import Literal, get_args

import numpy as np
import pandas as pd

from tasks.sources.exchange_shocks import stream

Fault = Literal["gap", "duplicate", "null", "partial", "restated", "ratelimit", "outage"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
SHARE = 0.01  # of the sessions, for each of gap, duplicate, null and restated
LATE_BY = 10  # sessions
CORRECTED_AFTER = 30  # sessions
RESTATED_RATIO = 0.9
MEASURES = ["open", "high", "low", "close", "volume"]


def spoil(bars: pd.DataFrame, *, seed: int, clock: date, faults: frozenset[Fault]) -> pd.DataFrame:
    """`bars` of one ticker from the first session on (BAR_COLUMNS, ascending), with those faults that live in rows."""
    ticker = str(bars["ticker"].iloc[0])
    age = np.arange(len(bars))[::-1]  # sessions from each row to the clock
    draws = {fault: stream(seed, ticker, fault).random(len(bars)) for fault in faults}
    times = np.ones(len(bars), int)
    if "restated" in faults:
        uncorrected = (draws["restated"] < SHARE) & (age < CORRECTED_AFTER)
        bars.loc[uncorrected, "volume"] = np.ceil(bars["volume"] * RESTATED_RATIO)
    if "partial" in faults and bars["session"].iloc[-1] == pd.Timestamp(clock):
        _trade_partly(bars, stream(seed, ticker, f"partial {clock}").uniform(0.2, 0.8))
    if "null" in faults:
        bars.loc[draws["null"] < SHARE, MEASURES] = np.nan
    if "duplicate" in faults:
        times[draws["duplicate"] < SHARE] = 2
    if "gap" in faults:
        times[(draws["gap"] < SHARE / 2) | ((draws["gap"] < SHARE) & (age < LATE_BY))] = 0
    return bars.iloc[np.repeat(np.arange(len(bars)), times)].reset_index(drop=True)


def refusals(seed: int, ticker: str) -> int:
    """How many calls for `ticker` are refused before the first answer: 1 or 2."""
    return int(stream(seed, ticker, "ratelimit").integers(1, 3))


def is_down(seed: int, clock: date) -> bool:
    """Whether nothing answers at this clock date."""
    return bool(stream(seed, "market", f"outage {clock}").random() < 0.2)


def _trade_partly(bars: pd.DataFrame, traded: float) -> None:
    """Make the last row what it was after a share `traded` of its volume, with that share of its moves."""
    opened, high, low, close = (float(bars[name].iloc[-1]) for name in ("open", "high", "low", "close"))
    so_far = opened + traded * (close - opened)
    highest = max(opened, so_far) + traded * (high - max(opened, close))
    lowest = min(opened, so_far) - traded * (min(opened, close) - low)
    volume = np.ceil(bars["volume"].iloc[-1] * traded)
    bars.loc[bars.index[-1], MEASURES] = [opened, round(highest, 6), round(lowest, 6), round(so_far, 6), volume]
