"""When the tickers of the simulated exchange report, and since when that is known.

A ticker reports about every 63 sessions. The date is announced 12 to 30 sessions ahead; about one in seven is moved
once: the superseded date was seen first, the final one later. The final date is always known at least ten sessions
ahead, so the oracle may count on it for horizons 1 to 10.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.sources.exchange_shocks import stream
from tasks.sources.protocol import EVENT_COLUMNS

SPACING = 63  # sessions between reports
MOVED_SHARE = 0.15
AFTERMATH = np.array([1.0, 0.45, 0.2])  # of the ticker's mean shift, on the reaction session and the two after


@dataclass(frozen=True, kw_only=True)
class Reports:
    """One ticker's reports, as positions among the sessions (int64 arrays of one length, ascending)."""

    after_close: bool  # then the next session reacts
    reported: np.ndarray
    first_seen: np.ndarray  # of the final date
    superseded: np.ndarray  # an earlier announced date, or -1 where the date never moved
    superseded_seen: np.ndarray

    def reactions(self) -> np.ndarray:
        """The positions of the sessions that react first."""
        return self.reported + int(self.after_close)

    def until(self, count: int) -> np.ndarray:
        """(count,) float64: the share of the mean shift at each session, 0 away from reports."""
        shares = np.zeros(count + len(AFTERMATH))
        reactions = self.reactions()
        for later, share in enumerate(AFTERMATH):
            shares[reactions[reactions < count] + later] = share
        return shares[:count]

    def announcements(self, ticker: str, sessions: pd.DatetimeIndex, seen_until: int) -> pd.DataFrame:
        """EVENT_COLUMNS by first_seen: the dates known after `seen_until` sessions, superseded ones included."""
        moved = self.superseded >= 0
        dated = np.r_[self.reported, self.superseded[moved]]
        seen = np.r_[self.first_seen, self.superseded_seen[moved]]
        order = np.argsort(seen, kind="stable")
        order = order[seen[order] < seen_until]
        when = "amc" if self.after_close else "bmo"
        columns = [_text(ticker, len(order)), sessions[dated[order]], _text(when, len(order)), sessions[seen[order]]]
        return pd.DataFrame(dict(zip(EVENT_COLUMNS, columns, strict=True)))


def report_schedule(seed: int, ticker: str, *, after_close: bool, count: int) -> Reports:
    """The reports whose sessions all lie among the first `count` sessions."""
    rng = stream(seed, ticker, "reports")
    offset = int(rng.integers(35, 76))  # at least 35, so that nothing is seen before the first session
    draws = rng.random((count // SPACING + 1, 4))
    reported = offset + SPACING * np.arange(len(draws)) + _between(draws[:, 0], -3, 3)
    moved = draws[:, 1] < MOVED_SHARE
    shift = _between(draws[:, 2], 1, 5) * np.where(draws[:, 3] < 0.5, -1, 1)
    lead = np.where(moved, _between(draws[:, 3], 12, 20), _between(draws[:, 3], 15, 30))
    kept = reported + 6 < count  # a superseded date and the reaction fit as well
    return Reports(
        after_close=after_close,
        reported=reported[kept],
        first_seen=(reported - lead)[kept],
        superseded=np.where(moved, reported + shift, -1)[kept],
        superseded_seen=(reported - _between(draws[:, 2], 25, 30))[kept],
    )


def _text(value: str, rows: int) -> pd.Series:
    return pd.Series([value] * rows, dtype="str")  # typed even without rows


def _between(uniform: np.ndarray, low: int, high: int) -> np.ndarray:
    """Uniform draws in [0, 1) as whole numbers from `low` to `high`, both included."""
    return low + (uniform * (high - low + 1)).astype(np.int64)
