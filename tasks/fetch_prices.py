"""Ask the source for the bars of some tickers, and lay them down for the next step."""

import pandas as pd
from prefect import get_run_logger, task
from pydantic import BaseModel, ConfigDict

from storage.records import PriceCounts
from storage.staging import StagedFrame, stage
from storage.store import open_store
from tasks.ask_source import ask, ask_each, may_pass, what_is_stored, why_not
from tasks.plan_ingest import Batch, IngestPlan
from tasks.sources.protocol import Outcome, SourceError
from tasks.sources.registry import open_source


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
