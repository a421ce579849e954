"""Record what a source says of earnings dates and of other events, as known at the close of the ingest's last session.

1. ask for one ticker after the other, in turn with the calls for prices, until the ingest's deadline; one that fails
   stops no other, a source that is down stops no ingest
2. what was known of the dates at that close (tasks/sources/known_events.py) goes into the table
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from prefect import get_run_logger, task

from volcast.models.text import listed
from volcast.storage.announced_dates import MARKET, Changes, EventTable
from volcast.storage.records import Announcements
from volcast.storage.store import open_store
from volcast.tasks.fetch_prices import ask_each, may_pass, wait_for_turn
from volcast.tasks.plan_ingest import IngestPlan
from volcast.tasks.settings import last_session
from volcast.tasks.sources.known_events import known_events
from volcast.tasks.sources.source import Announced, EventSource, Outcome, SourceError, open_event_source, why_not

GIVE_UP = 3  # tickers in a row without an answer, after which a source counts as down: each may take a time-out of 30 s
ANSWERED = (Outcome.OK, Outcome.EMPTY)


@task(
    task_run_name="record announcements of {plan.label}",
    retries=2,
    retry_delay_seconds=[2, 8],
    retry_jitter_factor=0.5,
    retry_condition_fn=may_pass,
)
def record_events(plan: IngestPlan) -> Announcements | None:
    """One commit, or none without news; None without a source. What failed is logged, and named in the result.

    The prices are stored already, so that no source of announcements fails the ingest: neither one that is not there
    any more, nor a slow one, which is not asked after the plan's deadline.
    """
    log, table = get_run_logger(), EventTable(open_store(plan.root, writable=True))
    try:
        source = open_event_source(plan.events)
    except SourceError as error:
        answers, failed = {}, str(error)
    else:
        if source is None:
            log.info("no source of announcements is asked (--events)")
            return None
        answers = _ask_for_dates(source, plan)
        failed = _failures(answers, plan.tickers)
    asked = [ticker for ticker, answer in answers.items() if answer.outcome in ANSWERED]
    as_of = plan.last_session
    is_now = as_of == last_session(None, calendar=plan.calendar)
    events = known_events(list(answers.values()), as_of=as_of, is_now=is_now, calendar=plan.calendar)
    changes = table.record(events, as_of=as_of, source=plan.events_known_as, asked=asked)
    stood = table.known(plan.tickers, as_of=as_of), table.dated(plan.tickers, as_of=as_of)
    recorded = _recorded(plan, *stood, changes, failed)
    log.info(recorded.words)
    if failed:
        log.warning("announcements are not complete: %s", failed)
    return recorded


def _ask_for_dates(source: EventSource, plan: IngestPlan) -> dict[str, Announced]:
    """An answer for each ticker, and MARKET, as far as the source does not count as down. Raises SourceBusy."""

    def ask_one(ticker: str) -> Announced:
        if why := wait_for_turn(source.pace, plan.deadline):
            return Announced(ticker=ticker, outcome=Outcome.DOWN, known=why)
        return source.announced(ticker, as_of=plan.last_session, calendar=plan.calendar)

    asked = (*plan.tickers, *([MARKET] if source.knows_market else []))
    return ask_each(ask_one, asked, pace=source.pace, deadline=plan.deadline, patience=GIVE_UP)


def _failures(answers: Mapping[str, Announced], tickers: Sequence[str]) -> str:
    """Which tickers have no answer and why; empty when all have, be it that there is no date."""
    good = {ticker for ticker, answer in answers.items() if answer.outcome in (*ANSWERED, Outcome.NOT_FOUND)}
    whys = [why_not(answers[ticker]) if ticker in answers else ticker for ticker in tickers if ticker not in good]
    return listed(whys, GIVE_UP, "; ")


def _recorded(
    plan: IngestPlan, known: pd.DataFrame, dated: pd.DataFrame, changes: Changes, failed: str
) -> Announcements:
    is_to_come = known["announced_for"] > pd.Timestamp(plan.last_session)
    coming = known.loc[is_to_come].groupby("ticker")["announced_for"].min()
    return Announcements(
        source=plan.events,
        known=len(known),
        dated=dated["kind"].value_counts().sort_index().to_dict(),
        new=changes.new,
        moved=changes.moved,
        withdrawn=changes.withdrawn,
        coming={ticker: coming[ticker].date() for ticker in plan.tickers if ticker in coming.index},
        failed=failed,
    )
