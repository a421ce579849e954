"""Ask the source for the bars of some tickers, and lay them down for the next step."""

import time
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from prefect import Task, get_run_logger, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run
from pydantic import BaseModel, ConfigDict

from storage.records import PriceCounts
from storage.staging import StagedFrame, stage
from storage.store import open_store
from tasks.ask_source import ask, what_is_stored
from tasks.plan_ingest import Batch, IngestPlan
from tasks.sources.protocol import TRANSIENT, Fetch, Outcome, SourceError
from tasks.sources.registry import open_source

RETRIES = 3
_answered: dict[str, dict[str, Fetch]] = {}  # task run -> what need not be asked for again when it is tried again


class SourceBusy(SourceError):
    """The source refused or did not answer; asking again may help."""


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


def may_pass(_task: Task[Any, Any], _run: TaskRun, state: State) -> bool:
    return isinstance(state.result(raise_on_failure=False), SourceBusy)


@task(
    task_run_name="fetch {batch.label}",
    retries=RETRIES,
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
    run_id, attempt = str(task_run.id), task_run.run_count or 0
    answers = _answered.pop(run_id, {})
    answers |= {ticker: ask(source, ticker, plan, stored) for ticker in batch.tickers if ticker not in answers}
    busy = [answer for answer in answers.values() if answer.outcome in TRANSIENT]
    if busy and attempt <= RETRIES and datetime.now(UTC) < plan.deadline:
        _answered[run_id] = {name: answer for name, answer in answers.items() if answer.outcome not in TRANSIENT}
        log.warning("%s; asking again", "; ".join(_why(answer) for answer in busy))
        if source.pace is not None and any(answer.outcome == Outcome.RATE_LIMITED for answer in busy):
            time.sleep(source.pace.pause_seconds * attempt)
        raise SourceBusy("; ".join(_why(answer) for answer in busy))
    good = [answer.bars for answer in answers.values() if len(answer.bars)]
    failed = {answer.ticker: _why(answer) for answer in answers.values() if answer.outcome != Outcome.OK}
    bars = pd.concat(good, ignore_index=True) if good else pd.DataFrame()
    log.info("%s: %d rows of %d tickers", source.spec, len(bars), len(good))
    for why in failed.values():
        log.warning(why)
    unknown = tuple(answer.ticker for answer in answers.values() if answer.outcome == Outcome.NOT_FOUND)
    return Fetched(bars=stage(store, bars), failed=failed, unknown=unknown)


def _why(answer: Fetch) -> str:
    guess = f" (perhaps {answer.guessed})" if answer.guessed else ""
    return f"{answer.ticker}: {answer.outcome.replace('_', ' ')}: {answer.known}{guess}"
