"""Ask a source for one ticker after the other, for what is missing of each, and refuse a history that has shrunk.

1. a ticker without stored rows, and any ticker of a file: the whole history
2. else: from the last stored session, less a window that is looked at again
3. a split after the last stored session, or a stored row that has changed: the whole history after all
4. a whole history that lacks many of the sessions that are stored: SHRUNK, unless that is allowed

Ask the source for the bars of some tickers, and lay them down for the next step.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, TypeVar, cast

import pandas as pd
from prefect import Task, get_run_logger, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import rate_limit
from prefect.context import TaskRunContext
from pydantic import BaseModel, ConfigDict

from models.sessions import FIRST_DATE
from models.text import listed
from storage.errors import NotStored
from storage.price_rows import RESTATED, differs
from storage.prices import PriceTable
from storage.records import PriceCounts
from storage.staging import StagedFrame, stage
from storage.store import Store, open_store
from tasks.plan_ingest import Batch, IngestPlan
from tasks.sources.registry import open_source
from tasks.sources.source import TRANSIENT, Announced, Fetch, Outcome, Pace, PriceSource, SourceError

Answer = TypeVar("Answer", Fetch, Announced)
NAMED = 3  # tickers without an answer
LACKING_SHARE, LACKING_SESSIONS = 0.05, 10  # more than both: a few late or lost rows are gaps, named as such

_answered: dict[str, dict[str, Any]] = {}  # task run -> what need not be asked for again when it is tried again


class SourceBusy(SourceError):
    """The source refused or did not answer; asking again may help."""


def may_pass(_task: Task[Any, Any], _run: TaskRun, state: State) -> bool:
    """Whether Prefect should try a task run again."""
    return isinstance(state.result(raise_on_failure=False), SourceBusy)


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
        why = listed([why_not(answer) for answer in busy], NAMED, "; ")
        get_run_logger().warning("%s; asking again", why)
        if pace is not None and any(answer.outcome == Outcome.RATE_LIMITED for answer in busy):
            time.sleep(pace.pause_seconds * attempt)
        raise SourceBusy(why)
    return answers


def why_not(answer: Fetch | Announced) -> str:
    """What kept a ticker from being answered, in words."""
    guess = f" (perhaps {answer.guessed})" if isinstance(answer, Fetch) and answer.guessed else ""
    return f"{answer.ticker}: {answer.outcome.replace('_', ' ')}: {answer.known}{guess}"


def wait_for_turn(pace: Pace | None, deadline: datetime) -> str:
    """Return when it may be called, or why it may not be. All workers share the limit; without one nobody waits."""
    if datetime.now(UTC) > deadline:
        return f"not asked for: the ingest's deadline of {deadline:%H:%M} UTC has passed"
    if pace is not None:
        rate_limit(pace.limit)
    return ""


def _call(source: PriceSource, ticker: str, first: date | None, plan: IngestPlan) -> Fetch:
    if why := wait_for_turn(source.pace, plan.deadline):
        return Fetch(ticker=ticker, outcome=Outcome.DOWN, known=why)
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


class FetchFailed(SourceError):
    """Too many of the tickers could not be fetched; `counts` says what the store has of them."""

    def __init__(self, message: str, counts: PriceCounts | None) -> None:
        super().__init__(message)
        self.counts = counts


class Fetched(BaseModel):
    """What came of one batch."""

    model_config = ConfigDict(frozen=True)

    bars: StagedFrame
    failed: dict[str, str]  # ticker -> why
    unknown: tuple[str, ...] = ()  # those of them that the source does not have


@task(
    task_run_name="fetch {batch.label}",
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
    stored = what_is_stored(store, batch.tickers, plan.recheck_sessions)
    answers = ask_each(
        lambda ticker: ask(source, ticker, plan, stored), batch.tickers, pace=source.pace, deadline=plan.deadline
    )
    good = [answer.bars for answer in answers.values() if len(answer.bars)]
    failed = {answer.ticker: why_not(answer) for answer in answers.values() if answer.outcome != Outcome.OK}
    bars = pd.concat(good, ignore_index=True) if good else pd.DataFrame()
    log.info("%s: %d rows of %d tickers", source.spec, len(bars), len(good))
    for why in failed.values():
        log.warning(why)
    unknown = tuple(answer.ticker for answer in answers.values() if answer.outcome == Outcome.NOT_FOUND)
    return Fetched(bars=stage(store, bars), failed=failed, unknown=unknown)
