"""Announced earnings of a session, as they stood at a cutoff.

An announcement enters at the close of the session at which it was first seen, and never more than HORIZONS sessions
before its date: a history without `first_seen` is taken so, and a better informed present must look the same to a
network that learnt from it. Its date is the session on or after the announced one; a company that reports after the
close moves the session after it, which its own usual reactions tell. A date less than HORIZONS sessions from one that
is seen later was moved: it is gone once the later one has entered.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from volcast.models.panel import HORIZONS, Panel

# N tickers, S sessions of the grid, R rows, A announcements of all tickers and one that is none

AFTER = 6  # sessions over which the wake of an announcement fades
REACTIONS = 8  # earlier announcements that a usual reaction is the mean of: two years
COVERED = 100  # sessions: a ticker without an announcement for so long has no calendar
NEVER = 2**30  # a place beyond every grid

BEFORE_COLUMNS = ("earnings_next", "earnings_ramp_before")  # the session before it; 1 to 0 over HORIZONS before
AFTER_COLUMNS = (
    *("earnings_today", "earnings_after_1", "earnings_after_2"),
    *("earnings_usual_0", "earnings_usual_1"),  # the ticker's mean surprise on the date and the session after
    "earnings_ramp_after",
)
EARNINGS_COLUMNS = (*BEFORE_COLUMNS, *AFTER_COLUMNS, "earnings_covered")


@dataclass(frozen=True, kw_only=True, eq=False)
class EarningsCalendar:
    """Announcements by ticker and place, and where among them every ticker and session stands; on any device."""

    place_A: Tensor  # int64, of the session; the last announcement is none, at NEVER
    seen_A: Tensor  # int64, the place of the session at whose close it was known
    gone_A: Tensor  # int64, of that at whose close it was known to have moved; NEVER for most
    usual_A2: Tensor  # float32, the ticker's usual reactions before it
    begins: Tensor  # (N + 1,) int64: where the announcements of each ticker begin, and where the last ones end
    newest_NS: Tensor  # int32, the ticker's last announcement on the session or before it; before its first: one less
    covered_NS: Tensor  # float32: 1 where, at that close, the ticker has a calendar
    crowd: int  # the most announcements of one ticker that HORIZONS sessions and one hold

    def to(self, device: torch.device) -> "EarningsCalendar":
        """The same on another device."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)

    def columns(self, ticker: Tensor, cutoff: Tensor, target: Tensor) -> Tensor:
        """(..., 9) float32, of EARNINGS_COLUMNS: of target sessions, as known at the close of cutoffs (int64 places).

        The three broadcast to (...).
        """
        ticker, cutoff, target = torch.broadcast_tensors(ticker, cutoff, target)
        to = self.place_A[self._nearest(ticker, cutoff, target, step=1)] - target
        last = self._nearest(ticker, cutoff, target, step=-1)
        since = target - self.place_A[last]
        usual = self.usual_A2[last]
        columns = (
            to == 1,
            torch.where(to <= HORIZONS, 1 - to.double() / (HORIZONS + 1), 0),
            *(since == offset for offset in range(3)),
            *(torch.where(since == offset, usual[..., offset], 0) for offset in range(2)),
            torch.where((since > 0) & (since <= AFTER), 1 - since.double() / (AFTER + 1), 0),
            self.covered_NS[ticker, cutoff],
        )
        return torch.stack([column.float() for column in columns], dim=-1)

    def sessions_since(self, ticker: Tensor, cutoff: Tensor, target: Tensor) -> Tensor:
        """From the last announcement known at the cutoff to the target; below 0 for none. The three broadcast."""
        return target - self.place_A[self._nearest(*torch.broadcast_tensors(ticker, cutoff, target), step=-1)]

    def _nearest(self, ticker: Tensor, cutoff: Tensor, target: Tensor, *, step: int) -> Tensor:
        """Which announcement (after the target: step 1; on it or before: -1) is the nearest that the cutoff knows."""
        at = self.newest_NS[ticker, target].long() + (step > 0)
        begin, end = self.begins[ticker], self.begins[ticker + 1]
        is_known = torch.zeros_like(at, dtype=torch.bool)
        for _ in range(self.crowd + 1):  # no loop that asks the device whether all have arrived
            is_own = (begin <= at) & (at < end)
            at = torch.where(is_own, at, -1)
            is_known = (self.seen_A[at] <= cutoff) & (cutoff < self.gone_A[at])
            goes_on = is_own & ~is_known & ((self.place_A[at] - target).abs() <= HORIZONS)
            at = at + step * goes_on
        return torch.where(is_known, at, -1)


def earnings_calendar(panel: Panel, surprise_NS: np.ndarray, *, use: bool) -> EarningsCalendar:
    """The calendar of a panel's announcements, or an empty one.

    `surprise_NS`: own less market log volume, 0 where not known.
    """
    announced = dict(list(panel.announcements.groupby("ticker"))) if use else {}
    newest_NS = np.empty(surprise_NS.shape, dtype=np.int32)
    covered_NS = np.zeros(surprise_NS.shape, dtype=np.float32)
    parts, begins = [], [0]
    for row, ticker in enumerate(panel.tickers):
        newest_NS[row] = begins[-1] - 1
        if ticker in announced:
            place_A, seen_A, gone_A = _places(panel.sessions, announced[ticker])
            newest_NS[row] += np.searchsorted(place_A, np.arange(surprise_NS.shape[1]), side="right")
            for place, seen in zip(place_A, seen_A, strict=True):
                covered_NS[row, seen : place + COVERED] = 1
            parts.append((place_A, seen_A, gone_A, _usual_reactions(surprise_NS[row], place_A, seen_A, gone_A)))
        begins.append(begins[-1] + (len(parts[-1][0]) if ticker in announced else 0))
    none = (np.array([NEVER]), np.array([NEVER]), np.array([NEVER]), np.zeros((1, 2)))
    place_A, seen_A, gone_A, usual_A2 = (np.concatenate(each) for each in zip(*parts, none, strict=True))
    crowds = [_most_within_horizons(place_A) for place_A, *_ in parts]
    arrays = {
        "place_A": place_A,
        "seen_A": seen_A,
        "gone_A": gone_A,
        "usual_A2": usual_A2.astype(np.float32),
        "begins": np.array(begins),
        "newest_NS": newest_NS,
        "covered_NS": covered_NS,
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return EarningsCalendar(**tensors, crowd=max(crowds, default=0))


def _places(sessions: pd.DatetimeIndex, announced: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where in the grid each announcement (A) falls, ascending and once each; when it was known, and known to be gone.

    Only those that fall into the grid count, as if no other had been seen yet: a shorter panel must say the same.
    """
    place_R = sessions.searchsorted(announced["announced_for"].to_numpy().astype("datetime64[s]"))
    first_seen_R = sessions.searchsorted(announced["first_seen"].to_numpy().astype("datetime64[s]"))
    is_inside_R = (place_R < len(sessions)) & (announced["announced_for"] >= sessions[0]).to_numpy()
    place_A, which_R = np.unique(place_R[is_inside_R], return_inverse=True)
    first_seen_A = np.full(len(place_A), NEVER)
    np.minimum.at(first_seen_A, which_R, first_seen_R[is_inside_R])
    seen_A = np.maximum(first_seen_A, place_A - HORIZONS)
    is_moved_AA = (np.abs(place_A[:, None] - place_A) < HORIZONS) & (first_seen_A[:, None] < first_seen_A)
    gone_A = np.where(is_moved_AA, seen_A, NEVER).min(axis=1, initial=NEVER)
    return place_A, seen_A, gone_A


def _most_within_horizons(place_A: np.ndarray) -> int:
    """How many of some announcements (places, ascending) lie between one of them and HORIZONS sessions after it."""
    after_A = np.searchsorted(place_A, place_A + HORIZONS, side="right")
    return int((after_A - np.arange(len(place_A))).max(initial=0))


def _usual_reactions(surprise_S: np.ndarray, place_A: np.ndarray, seen_A: np.ndarray, gone_A: np.ndarray) -> np.ndarray:
    """(A, 2): the mean surprise on the date and the session after, of the REACTIONS announcements before each.

    Only those that were known, and whose sessions had closed, when this one could first be forecast count; with n of
    them the mean is shrunk by n / (n + 1), so that the first is not taken for a habit.
    """
    at_A2 = np.stack([surprise_S[np.minimum(place_A + offset, len(surprise_S) - 1)] for offset in (0, 1)], axis=1)
    usual_A2 = np.zeros((len(place_A), 2))
    for number, (place, seen) in enumerate(zip(place_A, seen_A, strict=True)):
        is_known_A = (seen_A <= seen) & (seen < gone_A)
        closed = np.flatnonzero(is_known_A & (place_A + 1 <= place - HORIZONS))[-REACTIONS:]
        usual_A2[number] = at_A2[closed].sum(axis=0) / (len(closed) + 1)
    return usual_A2
