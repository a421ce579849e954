"""Ask a source for what is missing of some tickers, and stage the rows that came, the good ones and the others.

1. a ticker without stored rows, and any ticker of a file: the whole history
2. else: from the last stored session, less a window that is looked at again
3. a split after the last stored session, or a stored row that has changed: the whole history after all
4. a whole history without a volume, or whose dates are not the sessions of the calendar: NO_VOLUME, WRONG_CALENDAR
5. a whole history that lacks many of the sessions that are stored: SHRUNK, unless that is allowed
6. each row that came is held against the rules of tasks/validate_prices.py
7. a ticker of which too many rows break a rule has failed: none of its rows is stored, those that broke one are kept in
   quarantine, where they can be looked at
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, TypeVar, cast

import pandas as pd
from prefect import Task, get_run_logger, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import rate_limit
from prefect.context import TaskRunContext
from pydantic import BaseModel, ConfigDict

from volcast.models.sessions import FIRST_DATE
from volcast.models.text import counted, listed
from volcast.storage.errors import NotStored
from volcast.storage.price_rows import RESTATED, differs
from volcast.storage.prices import PriceTable
from volcast.storage.records import PriceCounts
from volcast.storage.staging import StagedFrame, stage
from volcast.storage.store import Store, open_store
from volcast.tasks.plan_ingest import Batch, IngestPlan
from volcast.tasks.sources.source import (
    TRANSIENT,
    Announced,
    Fetch,
    Outcome,
    Pace,
    PriceSource,
    SourceError,
    open_source,
    why_not,
)
from volcast.tasks.validate_prices import (
    NOTHING,
    QUARANTINED,
    Broken,
    Judged,
    refuse_unfit,
    row_lines,
    split_by_rules,
    too_broken,
)

Answer = TypeVar("Answer", Fetch, Announced)
NAMED_TICKERS = 3  # tickers without an answer
LACKING_SHARE, LACKING_SESSIONS = 0.05, 10  # more than both: a few late or lost rows are gaps, named as such

_answered: dict[str, dict[str, Any]] = {}  # task run -> what need not be asked for again when it is tried again


class SourceBusy(SourceError):
    """The source refused or did not answer; asking again may help."""


class FetchFailed(SourceError):
    """Too many of the tickers could not be fetched; `counts` says what the store has of them."""

    def __init__(self, message: str, counts: PriceCounts | None) -> None:
        super().__init__(message)
        self.counts = counts


class Fetched(BaseModel):
    """What came of one batch; a frame without rows is not staged."""

    model_config = ConfigDict(frozen=True)

    good: StagedFrame | None
    quarantined: StagedFrame | None
    newest_session: date | None  # of the good rows
    failed: dict[str, str]  # ticker -> why
    notes: dict[str, list[str]]  # ticker -> lines on what was changed of its rows, or looks wrong in them
    unknown: tuple[str, ...]  # those of them that the source does not have


def may_pass(_task: Task[Any, Any], _run: TaskRun, state: State) -> bool:
    """Whether Prefect should try a task run again."""
    return isinstance(state.result(raise_on_failure=False), SourceBusy)


@task(
    task_run_name="fetch and validate {batch.label}",
    retries=3,
    retry_delay_seconds=[2, 8, 32],
    retry_jitter_factor=0.5,
    retry_condition_fn=may_pass,
)
def fetch_prices(plan: IngestPlan, batch: Batch) -> Fetched:
    """What is missing of each ticker; one that fails is named in `failed` and stops no other.

    A busy source is asked again for the tickers that it refused, until the plan's deadline.
    """
    source, store, log = open_source(plan.source), open_store(plan.root, writable=True), get_run_logger()
    stored = _what_is_stored(store, batch.tickers, plan.recheck_sessions)
    answers = ask_each(
        lambda ticker: _ask(source, ticker, plan, stored), batch.tickers, pace=source.pace, deadline=plan.deadline
    )
    failed = {ticker: why_not(answer) for ticker, answer in answers.items() if answer.outcome != Outcome.OK}
    unknown = tuple(ticker for ticker in failed if answers[ticker].outcome == Outcome.NOT_FOUND)
    notes = {ticker: list(answer.notes) for ticker, answer in answers.items() if answer.notes}
    bars = [answer.bars for answer in answers.values() if len(answer.bars)]
    log.info("%s: %s of %s", source.spec, counted(sum(map(len, bars)), "row"), counted(len(bars), "ticker"))
    joined = pd.concat(bars, ignore_index=True) if bars else None
    del answers, bars  # a batch may have millions of rows; one copy of them is enough
    good, bad, doubts = (
        Judged(pd.DataFrame(), pd.DataFrame(), {})
        if joined is None
        else split_by_rules(joined, plan.calendar, stored.sessions)
    )
    log.info("%s: %s, %d quarantined", batch.label, counted(len(good), "row passes", "rows pass"), len(bad))
    if len(bad):
        broken = too_broken(good, bad, plan.max_broken_share, stored.sessions if source.incremental else NOTHING)
        failed |= {ticker: f"{found.words}. {_remedy(ticker, found)}" for ticker, found in broken.items()}
        good = good.loc[~good["ticker"].isin(list(broken))]
    for ticker, lines in doubts.items():
        notes.setdefault(ticker, []).extend(lines)
    notes = {ticker: lines for ticker, lines in notes.items() if ticker not in failed}
    said = dict.fromkeys(line for lines in notes.values() for line in lines)
    for line in [*failed.values(), *said, *row_lines(bad, "rule", QUARANTINED)]:
        log.warning(line)
    return Fetched(
        good=stage(store, good) if len(good) else None,
        quarantined=stage(store, bad.assign(source=plan.source)) if len(bad) else None,
        newest_session=good["session"].max().date() if len(good) else None,
        failed=failed,
        notes=notes,
        unknown=unknown,
    )


def _remedy(ticker: str, found: Broken) -> str:
    return (
        f"Nothing of it is stored, what was before stays. See: volcast quarantine {ticker}. "
        f"If the others are right: ingest with --max-broken-share {found.share}"
    )


def ask_each(
    ask_one: Callable[[str], Answer],
    tickers: Sequence[str],
    *,
    pace: Pace | None,
    deadline: datetime,
    patience: int | None = None,
) -> dict[str, Answer]:
    """The answers by ticker; with `patience`, of those before so many in a row did not come.

    Raises SourceBusy where some did not come, its task run can be tried again, and the deadline has not passed; the
    tickers that have answered are not asked for again then.
    """
    context = TaskRunContext.get()
    run_id, attempt = (str(context.task_run.id), context.task_run.run_count) if context else ("", 0)
    answers: dict[str, Answer] = _answered.pop(run_id, {})
    in_a_row = 0
    for ticker in (each for each in tickers if each not in answers):
        answers[ticker] = ask_one(ticker)
        in_a_row = in_a_row + 1 if answers[ticker].outcome in TRANSIENT else 0
        if in_a_row == patience:
            break
    busy = [answer for answer in answers.values() if answer.outcome in TRANSIENT]
    if busy and context and attempt <= context.task.retries and datetime.now(UTC) < deadline:
        _answered[run_id] = {name: answer for name, answer in answers.items() if answer.outcome not in TRANSIENT}
        why = listed([why_not(answer) for answer in busy], NAMED_TICKERS, "; ")
        get_run_logger().warning("%s; asking again", why)
        if pace is not None and any(answer.outcome == Outcome.RATE_LIMITED for answer in busy):
            time.sleep(pace.pause_seconds * attempt)
        raise SourceBusy(why)
    return answers


def wait_for_turn(pace: Pace | None, deadline: datetime) -> str:
    """Return when it may be called, or why it may not be. All workers share the limit; without one nobody waits."""
    if datetime.now(UTC) > deadline:
        return f"not asked for: the ingest's deadline of {deadline:%H:%M} UTC has passed"
    if pace is not None:
        rate_limit(pace.limit)
    return ""


@dataclass(frozen=True)
class _Stored:
    """What the store holds of some tickers: all their sessions, and the newest bars of each, by session."""

    sessions: dict[str, pd.DatetimeIndex]
    bars: dict[str, pd.DataFrame]


def _what_is_stored(store: Store, tickers: tuple[str, ...], recheck_sessions: int) -> _Stored:
    """Nothing where nothing is stored."""
    table = PriceTable(store)
    try:
        sessions = table.sessions(tickers)
    except NotStored:
        sessions = {}
    first = min((_asked_from(known, recheck_sessions) for known in sessions.values()), default=None)
    bars = () if first is None else table.raw(sessions, first=first).set_index("session").groupby("ticker")
    return _Stored(sessions, {str(ticker): own for ticker, own in bars})


def _asked_from(known: pd.DatetimeIndex, recheck_sessions: int) -> date:
    """The session from which on a ticker of these stored sessions is asked for again."""
    return cast(pd.Timestamp, known[max(len(known) - 1 - recheck_sessions, 0)]).date()


def _ask(source: PriceSource, ticker: str, plan: IngestPlan, stored: _Stored) -> Fetch:
    """The bars that may be new or changed; OK without bars where the store is ahead of the plan's last session."""
    known = stored.sessions.get(ticker)
    if known is None:
        return _call(source, ticker, None, plan)
    if source.incremental:
        last_stored = cast(pd.Timestamp, known[-1])
        if last_stored.date() > plan.last_session:  # an earlier clock knows nothing new, and other splits
            return Fetch(ticker=ticker, outcome=Outcome.OK)
        recent = _call(source, ticker, _asked_from(known, plan.recheck_sessions), plan)
        if recent.outcome != Outcome.OK or not _rewrites_history(recent.bars, stored.bars[ticker], last_stored):
            return recent
    whole = _call(source, ticker, None, plan)
    if whole.outcome == Outcome.OK and not plan.allow_shrink:
        return _refuse_shrunk(whole, known, from_start=source.incremental)
    return whole


def _call(source: PriceSource, ticker: str, first: date | None, plan: IngestPlan) -> Fetch:
    if why := wait_for_turn(source.pace, plan.deadline):
        return Fetch(ticker=ticker, outcome=Outcome.DOWN, known=why)
    answer = source.fetch(ticker, first=first, last=plan.last_session)
    return refuse_unfit(answer, plan.calendar) if first is None and len(answer.bars) else answer


def _rewrites_history(bars: pd.DataFrame, stored: pd.DataFrame, last_stored: pd.Timestamp) -> bool:
    """Whether the source's history of a ticker is no longer the stored one."""
    if bool(((bars["split"] > 0) & (bars["session"] > last_stored)).any()):
        return True
    place_R = stored.index.get_indexer(pd.DatetimeIndex(bars["session"]))
    before, after = stored.iloc[place_R[place_R >= 0]], bars.loc[place_R >= 0]
    return any(differs(name, before[name], after[name]).any() for name in RESTATED)


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
