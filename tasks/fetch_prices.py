"""Ask the source for the bars of some tickers, and lay them down for the next step."""

from typing import Any

import pandas as pd
from prefect import Task, get_run_logger, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run
from pydantic import BaseModel, ConfigDict

from storage.staging import StagedFrame, stage
from storage.store import open_store
from tasks.plan_ingest import Batch, IngestPlan
from tasks.sources.protocol import TRANSIENT, Fetch, Outcome, SourceError
from tasks.sources.registry import open_source

RETRIES = 3


class SourceBusy(SourceError):
    """The source refused or did not answer; asking again may help."""


class FetchFailed(SourceError):
    """Too many of the tickers could not be fetched."""


class Fetched(BaseModel):
    """What came of one batch."""

    model_config = ConfigDict(frozen=True)

    bars: StagedFrame
    failed: dict[str, str]  # ticker -> why


def may_pass(_task: Task[Any, Any], _run: TaskRun, state: State) -> bool:
    return isinstance(state.result(raise_on_failure=False), SourceBusy)


@task(
    task_run_name="fetch {batch.label}",
    retries=RETRIES,
    retry_delay_seconds=[2, 8, 32],
    retry_jitter_factor=0.5,
    retry_condition_fn=may_pass,
    timeout_seconds=1800,
)
def fetch_prices(plan: IngestPlan, batch: Batch) -> Fetched:
    """One call a ticker; one that fails is named in `failed` and stops no other. A busy source is asked again."""
    source, log = open_source(plan.source), get_run_logger()
    answers = [source.fetch(ticker, first=None, last=plan.last_session) for ticker in batch.tickers]
    busy = [answer for answer in answers if answer.outcome in TRANSIENT]
    if busy and (task_run.run_count or 0) <= RETRIES:
        log.warning("%s; asking again", "; ".join(_why(answer) for answer in busy))
        raise SourceBusy("; ".join(_why(answer) for answer in busy))
    good = [answer.bars for answer in answers if answer.outcome == Outcome.OK]
    failed = {answer.ticker: _why(answer) for answer in answers if answer.outcome != Outcome.OK}
    bars = pd.concat(good, ignore_index=True) if good else pd.DataFrame()
    log.info("%s: %d rows of %d tickers", source.spec, len(bars), len(good))
    for why in failed.values():
        log.warning(why)
    return Fetched(bars=stage(open_store(plan.root), bars), failed=failed)


def _why(answer: Fetch) -> str:
    guess = f" (perhaps {answer.guessed})" if answer.guessed else ""
    return f"{answer.ticker}: {answer.outcome.replace('_', ' ')}: {answer.known}{guess}"
