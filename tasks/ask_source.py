"""Ask a source for what is missing of one ticker, and refuse a history that has shrunk.

1. a ticker without stored rows, and any ticker of a file: the whole history
2. else: from the last stored session, less a window that is looked at again
3. a split after the last stored session, or a stored row that has changed: the whole history after all
4. a whole history that lacks many of the sessions that are stored: SHRUNK, unless that is allowed
"""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import cast

import pandas as pd
from prefect.concurrency.sync import rate_limit

from models.sessions import FIRST_DATE
from storage.errors import NotStored
from storage.prices import PriceTable
from storage.rows import RESTATED, differs
from storage.store import Store
from tasks.plan_ingest import IngestPlan
from tasks.sources.protocol import Fetch, Outcome, PriceSource

LACKING_SHARE, LACKING_SESSIONS = 0.05, 10  # more than both: a few late or lost rows are gaps, named as such


@dataclass(frozen=True)
class Stored:
    """What the store holds of some tickers: all their sessions, and the newest bars of each."""

    sessions: dict[str, pd.DatetimeIndex]
    bars: pd.DataFrame

    def asked_from(self, ticker: str, recheck_sessions: int) -> date:
        """The session from which on the ticker is asked for again."""
        known = self.sessions[ticker]
        return cast(pd.Timestamp, known[max(len(known) - 1 - recheck_sessions, 0)]).date()


def what_is_stored(store: Store, tickers: tuple[str, ...], recheck_sessions: int) -> Stored:
    """Nothing where nothing is stored."""
    table = PriceTable(store)
    try:
        stored = Stored(table.sessions(tickers), pd.DataFrame())
    except NotStored:
        return Stored({}, pd.DataFrame())
    if not stored.sessions:
        return stored
    first = min(stored.asked_from(ticker, recheck_sessions) for ticker in stored.sessions)
    return replace(stored, bars=table.raw(stored.sessions, first=first))


def ask(source: PriceSource, ticker: str, plan: IngestPlan, stored: Stored) -> Fetch:
    """The bars that may be new or changed; OK without bars where the store is ahead of the plan's last session."""
    known = stored.sessions.get(ticker)
    if known is None:
        return _call(source, ticker, None, plan)
    if source.incremental:
        last_stored = cast(pd.Timestamp, known[-1])
        if last_stored.date() > plan.last_session:  # an earlier clock knows nothing new, and other splits
            return Fetch(ticker=ticker, outcome=Outcome.OK)
        recent = _call(source, ticker, stored.asked_from(ticker, plan.recheck_sessions), plan)
        if recent.outcome != Outcome.OK or not _rewrites_history(recent.bars, stored.bars, last_stored):
            return recent
    whole = _call(source, ticker, None, plan)
    if whole.outcome == Outcome.OK and not plan.allow_shrink:
        return _refuse_shrunk(whole, known, from_start=source.incremental)
    return whole


def _call(source: PriceSource, ticker: str, first: date | None, plan: IngestPlan) -> Fetch:
    """One call, when it is its turn. All workers share the limit; a server without it does not hold anyone up."""
    if datetime.now(UTC) > plan.deadline:
        known = f"not asked for: the ingest's deadline of {plan.deadline:%H:%M} UTC has passed"
        return Fetch(ticker=ticker, outcome=Outcome.DOWN, known=known)
    if source.pace is not None:
        rate_limit(source.pace.limit)
    return source.fetch(ticker, first=first, last=plan.last_session)


def _rewrites_history(bars: pd.DataFrame, stored: pd.DataFrame, last_stored: pd.Timestamp) -> bool:
    """Whether the source's history is no longer the stored one."""
    if bool(((bars["split"] > 0) & (bars["session"] > last_stored)).any()):
        return True
    both = bars.drop_duplicates().merge(stored, on=["ticker", "session"], suffixes=("", "_stored"))
    return any(differs(name, both[f"{name}_stored"], both[name]).any() for name in RESTATED)


def _refuse_shrunk(whole: Fetch, known: pd.DatetimeIndex, *, from_start: bool) -> Fetch:
    """`whole`, or SHRUNK where it lacks too many of the stored sessions of the window that it covers.

    One that starts later or ends earlier is no shrunk one: a file of the year 2020 is a look at 2020. A source that is
    asked for what is missing promises the whole history, and is held to its beginning as well.
    """
    given = pd.DatetimeIndex(whole.bars["session"])
    window = known[(known <= given.max()) & (known >= (pd.Timestamp(FIRST_DATE) if from_start else given.min()))]
    lacking = window.difference(given)
    if len(lacking) <= max(LACKING_SESSIONS, LACKING_SHARE * len(window)):
        return whole
    shown = ", ".join(f"{session:%Y-%m-%d}" for session in lacking[:3])
    return Fetch(
        ticker=whole.ticker,
        outcome=Outcome.SHRUNK,
        known=f"the source gives {len(window) - len(lacking):,} of the {len(window):,} sessions stored from "
        f"{window[0]:%Y-%m-%d} to {window[-1]:%Y-%m-%d}; {len(lacking):,} lack: {shown}, … to {lacking[-1]:%Y-%m-%d}. "
        "The stored history stays. If the source is right, ingest with --allow-shrink",
    )
