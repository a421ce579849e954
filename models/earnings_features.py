"""Announced earnings of a session, as they stood at a cutoff.

An announcement enters at the close of the session at which it was first seen, and never more than HORIZONS sessions
before its date: a history without `first_seen` is taken so, and a better informed present must look the same to a
network that learnt from it. Its date is the session on or after the announced one; a company that reports after the
close moves the session after it, which its own usual reactions tell.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from models.panel import HORIZONS, Panel

# N tickers, S sessions of the grid, R rows

AFTER = 6  # sessions over which the wake of an announcement fades
REACTIONS = 8  # earlier announcements that a usual reaction is the mean of: two years
COVERED = 100  # sessions: a ticker without an announcement for so long has no calendar

BEFORE_COLUMNS = ("earnings_next", "earnings_ramp_before")  # the session before it; 1 to 0 over HORIZONS before
AFTER_COLUMNS = (
    *("earnings_today", "earnings_after_1", "earnings_after_2"),
    *("earnings_usual_0", "earnings_usual_1"),  # the ticker's mean surprise on the date and the session after
    "earnings_ramp_after",
)
EARNINGS_COLUMNS = (*BEFORE_COLUMNS, *AFTER_COLUMNS, "earnings_covered")


@dataclass(frozen=True, kw_only=True, eq=False)
class EarningsCalendar:
    """For every ticker and session, the nearest announcement on each side, and since when it was known."""

    before_NSC: np.ndarray  # float32, BEFORE_COLUMNS, of the next announcement
    before_seen_NS: np.ndarray  # int32, the place of the session at whose close it was known
    after_NSC: np.ndarray  # float32, AFTER_COLUMNS, of the announcement on the session or before it
    after_seen_NS: np.ndarray  # int32
    covered_NS: np.ndarray  # float32: 1 where, at that close, the ticker has a calendar

    def columns(self, ticker_R: np.ndarray, cutoff_R: np.ndarray, target_R: np.ndarray) -> np.ndarray:
        """(R, 9) float32, of EARNINGS_COLUMNS: of the target session, as known at the close of the cutoff."""
        before_R1 = (self.before_seen_NS[ticker_R, target_R] <= cutoff_R)[:, None]
        after_R1 = (self.after_seen_NS[ticker_R, target_R] <= cutoff_R)[:, None]
        return np.concatenate(
            [
                self.before_NSC[ticker_R, target_R] * before_R1,
                self.after_NSC[ticker_R, target_R] * after_R1,
                self.covered_NS[ticker_R, cutoff_R][:, None],
            ],
            axis=1,
        )


def earnings_calendar(panel: Panel, surprise_NS: np.ndarray, *, use: bool) -> EarningsCalendar:
    """The calendar of a panel's announcements, or an empty one.

    `surprise_NS`: own less market log volume, 0 where not known.
    """
    shape = surprise_NS.shape
    calendar = EarningsCalendar(
        before_NSC=np.zeros((*shape, len(BEFORE_COLUMNS)), dtype=np.float32),
        before_seen_NS=np.zeros(shape, dtype=np.int32),
        after_NSC=np.zeros((*shape, len(AFTER_COLUMNS)), dtype=np.float32),
        after_seen_NS=np.zeros(shape, dtype=np.int32),
        covered_NS=np.zeros(shape, dtype=np.float32),
    )
    rows = {ticker: place for place, ticker in enumerate(panel.tickers)}
    for ticker, announced in panel.announcements.groupby("ticker") if use else ():
        place_A, seen_A = _places(panel.sessions, announced)
        _fill(calendar, rows[str(ticker)], place_A, seen_A, surprise_NS=surprise_NS)
    return calendar


def _places(sessions: pd.DatetimeIndex, announced: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Where in the grid each announcement (A) falls, ascending and once each, and at whose close it was known."""
    place_A = sessions.searchsorted(announced["announced_for"].to_numpy().astype("datetime64[s]"))
    seen_A = sessions.searchsorted(announced["first_seen"].to_numpy().astype("datetime64[s]"))
    seen_A = np.maximum(seen_A, place_A - HORIZONS)
    inside_A = (place_A < len(sessions)) & (announced["announced_for"] >= sessions[0]).to_numpy()
    place_A, first_A = np.unique(place_A[inside_A], return_index=True)
    return place_A, seen_A[inside_A][first_A]


def _fill(
    calendar: EarningsCalendar, row: int, place_A: np.ndarray, seen_A: np.ndarray, *, surprise_NS: np.ndarray
) -> None:
    """Write a ticker's announcements, the later over the earlier after it, the earlier over the later before it."""
    last = surprise_NS.shape[1]
    usual_A2 = _usual_reactions(surprise_NS[row], place_A)
    for place, seen, usual in zip(place_A, seen_A, usual_A2, strict=True):
        after = np.arange(place, min(place + AFTER + 1, last))
        fade = 1 - (after - place) / (AFTER + 1)
        calendar.after_NSC[row, after] = 0
        calendar.after_NSC[row, after, 5] = np.where(after > place, fade, 0)
        calendar.after_seen_NS[row, after] = seen
        for offset in range(min(3, len(after))):
            calendar.after_NSC[row, place + offset, offset] = 1
        for offset in range(min(2, len(after))):
            calendar.after_NSC[row, place + offset, 3 + offset] = usual[offset]
        calendar.covered_NS[row, seen : place + COVERED] = 1
    for place, seen in zip(place_A[::-1], seen_A[::-1], strict=True):
        before = np.arange(max(place - HORIZONS, 0), place)
        calendar.before_NSC[row, before, 0] = before == place - 1
        calendar.before_NSC[row, before, 1] = 1 - (place - before) / (HORIZONS + 1)
        calendar.before_seen_NS[row, before] = seen


def _usual_reactions(surprise_S: np.ndarray, place_A: np.ndarray) -> np.ndarray:
    """(A, 2): the mean surprise on the date and the session after, of the REACTIONS announcements before each.

    Only those whose sessions had closed when this one could first be forecast count; with n of them the mean is
    shrunk by n / (n + 1), so that the first is not taken for a habit.
    """
    at_A2 = np.stack([surprise_S[np.minimum(place_A + offset, len(surprise_S) - 1)] for offset in (0, 1)], axis=1)
    usual_A2 = np.zeros((len(place_A), 2))
    for number, place in enumerate(place_A):
        closed = np.flatnonzero(place_A[:number] + 1 <= place - HORIZONS)[-REACTIONS:]
        usual_A2[number] = at_A2[closed].sum(axis=0) / (len(closed) + 1)
    return usual_A2
