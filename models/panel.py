"""Prices of many tickers on one grid of sessions, the form in which the volume recipe works on them.

The grid holds every session of the market from the first row to the last, and HORIZONS more, whose calendar is known
ahead. A ticker that was not listed yet, halted, or has a gap has NaN there, and `traded_NT` says so: nothing is filled.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from volcast.models import arrays
from volcast.models.calendar_names import NEW_YORK
from volcast.models.errors import IncompletePrices, NotASession
from volcast.models.sessions import sessions_ahead

# N tickers, T sessions with prices, S sessions of the grid: T and HORIZONS more

HORIZONS = 10  # sessions ahead, 1 to 10
FIELDS = ("open", "high", "low", "close", "adj_close", "volume")
EVENT_TYPES = {"ticker": str, "announced_for": "datetime64[s]", "first_seen": "datetime64[s]", "kind": str}
EARNINGS, MARKET = "earnings", ""  # a kind of event, and the ticker of one of the whole market


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """Prices, announced earnings and other dated events by ticker and session."""

    tickers: tuple[str, ...]  # sorted
    sessions: pd.DatetimeIndex  # (S,) datetime64[s], every session of the market, ascending
    known: int  # T: the sessions that have prices are the first of `sessions`; the last of them is the newest cutoff
    fields: dict[str, np.ndarray]  # FIELDS -> (N, T) float64: USD a share, volume in shares; NaN where nothing traded
    announcements: pd.DataFrame  # ticker, announced_for, first_seen (datetime64); no row where no calendar is used
    dated: pd.DataFrame = field(default_factory=lambda: _events_of(None, [MARKET]))  # as announcements, and kind
    calendar: str = NEW_YORK  # whose sessions they are
    made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)  # of the panel, to be had again

    @cached_property
    def traded_NT(self) -> np.ndarray:
        """(N, T) bool: the ticker has a row with a volume."""
        return np.isfinite(self.fields["volume"])

    @cached_property
    def log_volume_NT(self) -> np.ndarray:
        """(N, T) float64, natural logarithm of shares; NaN where nothing traded."""
        return np.log(self.fields["volume"])

    @property
    def cutoff(self) -> date:
        """The newest session with prices."""
        return self.sessions.date[self.known - 1]

    def position(self, session: date) -> int:
        """Where a session stands in the grid. Raises NotASession for a date that does not."""
        place = self.sessions.get_indexer(pd.DatetimeIndex([session]))[0]
        if place < 0:
            first, last = self.sessions[0], self.sessions[-1]
            raise NotASession(f"{session} is not one of the sessions {first:%Y-%m-%d} to {last:%Y-%m-%d} of the panel.")
        return int(place)

    def until(self, known: int) -> "Panel":
        """The panel as it was known at the close of session `known - 1`: no price and no announcement of later.

        Adjusted prices stay scaled by what came later; ratios of them do not.
        """
        close = self.sessions[known - 1]
        return replace(
            self,
            sessions=self.sessions[: known + HORIZONS],
            known=known,
            fields={name: values[:, :known] for name, values in self.fields.items()},
            announcements=_seen_by(close, self.announcements),
            dated=_seen_by(close, self.dated),
        )

    def since(self, first: int) -> "Panel":
        """The panel from the session at place `first` on, as if nothing was known of before."""
        return replace(
            self,
            sessions=self.sessions[first:],
            known=self.known - first,
            fields={name: values[:, first:] for name, values in self.fields.items()},
        )

    def parts(self, size: int) -> list["Panel"]:
        """The panel in parts of `size` tickers; they share its memory, and each has the events of all."""
        return [
            replace(
                self,
                tickers=self.tickers[begin : begin + size],
                fields={name: values_NT[begin : begin + size] for name, values_NT in self.fields.items()},
            )
            for begin in range(0, len(self.tickers), size)
        ]

    def of(self, tickers: Sequence[str]) -> "Panel":
        """The panel of some of its tickers, on the same grid."""
        kept = [place for place, ticker in enumerate(self.tickers) if ticker in tickers]
        return replace(
            self,
            tickers=tuple(self.tickers[place] for place in kept),
            fields={name: values[kept] for name, values in self.fields.items()},
            announcements=self.announcements.loc[self.announcements["ticker"].isin(tickers)].reset_index(drop=True),
            dated=self.dated.loc[self.dated["ticker"].isin([*tickers, MARKET])].reset_index(drop=True),
        )


def make_panel(prices: pd.DataFrame, announcements: pd.DataFrame | None = None, *, calendar: str = NEW_YORK) -> Panel:
    """The panel of some prices and of the announcements that were known by their last session.

    `prices`: ticker, session (datetime64), and FIELDS; each ticker and session once, in any order. `announcements`:
    ticker, announced_for, first_seen (datetime64) and, where not all are of EARNINGS, kind; the ticker is MARKET for an
    event of the whole market; None where no calendar is used. A volume that is not above 0 counts as no row: Yahoo's 0
    is a missing one. Raises IncompletePrices (no row; a row twice) and NotASession (a row on a
    date on which the market is closed).
    """
    if prices.empty:
        raise IncompletePrices("A panel needs prices; no row came. Ingest some first.")
    first, last = (session.date() for session in prices["session"].agg(["min", "max"]))
    sessions = sessions_ahead(first, last, HORIZONS, calendar).as_unit("s")
    known = len(sessions) - HORIZONS
    row_R, tickers = pd.factorize(prices["ticker"], sort=True)
    column_R = sessions.get_indexer(pd.DatetimeIndex(prices["session"]))
    _check_sessions(prices, column_R, calendar)
    cell_R = row_R * known + column_R
    _check_once(prices, cell_R, len(tickers) * known)
    fields = {}
    for name in FIELDS:
        fields[name] = _nothing(len(tickers), known)
        fields[name].ravel()[cell_R] = prices[name].to_numpy(np.float64)
    nothing_NT = ~(fields["volume"] > 0)
    for values_NT in fields.values():
        values_NT[nothing_NT] = np.nan
    announcements, dated = _known_of(announcements, tickers, last)
    return Panel(
        tickers=tuple(str(ticker) for ticker in tickers),
        sessions=sessions,
        known=known,
        fields=fields,
        announcements=announcements,
        dated=dated,
        calendar=calendar,
    )


def join_panels(panels: Sequence[Panel], announcements: pd.DataFrame | None = None) -> Panel:
    """What `make_panel` makes of the prices of all these panels, no two of which share a ticker; it uses them up.

    So that not all prices need to be in memory at once.
    """
    first, last = min(panel.sessions.date[0] for panel in panels), max(panel.cutoff for panel in panels)
    sessions = sessions_ahead(first, last, HORIZONS, panels[0].calendar).as_unit("s")
    tickers = sorted(ticker for panel in panels for ticker in panel.tickers)
    row_of = {ticker: row for row, ticker in enumerate(tickers)}
    announcements, dated = _known_of(announcements, tickers, last)
    fields = {}
    for name in FIELDS:
        fields[name] = _nothing(len(tickers), len(sessions) - HORIZONS)
        for panel in panels:
            begin = sessions.get_indexer(panel.sessions[:1])[0]
            rows = [row_of[ticker] for ticker in panel.tickers]
            fields[name][rows, begin : begin + panel.known] = panel.fields.pop(name)
    return Panel(
        tickers=tuple(tickers),
        sessions=sessions,
        known=len(sessions) - HORIZONS,
        fields=fields,
        announcements=announcements,
        dated=dated,
        calendar=panels[0].calendar,
    )


def _nothing(tickers: int, known: int) -> np.ndarray:
    values_NT = arrays.empty((tickers, known))
    values_NT[:] = np.nan
    return values_NT


def _known_of(
    events: pd.DataFrame | None, tickers: Collection[str], last: date | pd.Timestamp
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The announcements of these tickers, and other events, of theirs and of the market, that were seen by `last`."""
    known = _seen_by(pd.Timestamp(last), _events_of(events, [*tickers, MARKET]))
    is_dated = known["kind"] != EARNINGS
    announcements = known.loc[~is_dated & (known["ticker"] != MARKET)].drop(columns="kind").reset_index(drop=True)
    return announcements, known.loc[is_dated].reset_index(drop=True)


def _events_of(events: pd.DataFrame | None, tickers: Sequence[str] | np.ndarray) -> pd.DataFrame:
    """Those of some tickers, in order: EVENT_TYPES; of EARNINGS where no kind is told."""
    told = {} if events is None else dict(events)
    rows = pd.DataFrame({"kind": EARNINGS} | told, index=None if told else [], columns=list(EVENT_TYPES))
    rows = rows.loc[np.isin(rows["ticker"].to_numpy(str), tickers)]
    return rows.astype(EVENT_TYPES).sort_values(["ticker", "announced_for"], ignore_index=True)


def is_earnings(events: pd.DataFrame) -> pd.Series:
    """Whether each of some events, of `make_panel`, is announced earnings: all are where no kind is told."""
    return pd.Series(events["kind"] == EARNINGS if "kind" in events else True, index=events.index)


def _seen_by(close: Any, events: pd.DataFrame) -> pd.DataFrame:
    return events.loc[events["first_seen"] <= close].reset_index(drop=True)


def _check_sessions(prices: pd.DataFrame, column_R: np.ndarray, calendar: str) -> None:
    if (column_R < 0).any():
        at = int((column_R < 0).argmax())
        ticker, session = prices["ticker"].iloc[at], prices["session"].iloc[at]
        raise NotASession(f"{ticker} {session:%Y-%m-%d}: the market is closed on that date ({calendar}).")


def _check_once(prices: pd.DataFrame, cell_R: np.ndarray, cells: int) -> None:
    """Each cell of the panel, of which there are so many, has one row at the most."""
    is_there = np.zeros(cells, dtype=bool)
    is_there[cell_R] = True
    if np.count_nonzero(is_there) < len(cell_R):
        at = int(pd.Series(cell_R).duplicated().to_numpy().argmax())
        ticker, session = prices["ticker"].iloc[at], prices["session"].iloc[at]
        raise IncompletePrices(f"{ticker} {session:%Y-%m-%d} is there twice. Each ticker and session must come once.")
