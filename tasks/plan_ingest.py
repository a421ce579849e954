"""Decide what an ingest fetches: source, tickers, last session, and where it all goes."""

from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta

from prefect import get_run_logger, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectAlreadyExists
from pydantic import AwareDatetime, BaseModel, ConfigDict

from volcast.models.text import counted
from volcast.storage.artifacts import ArtifactStore, Draft
from volcast.storage.price_rows import bucket_of
from volcast.storage.prices import PriceTable
from volcast.storage.store import open_store
from volcast.tasks.preflight import (
    LAST_INGEST,
    LastIngest,
    last_ingest,
    named_events,
    require_event_source,
    retirements,
    tickers_in_use,
    whole_spec,
)
from volcast.tasks.run_tools import provenance
from volcast.tasks.settings import DataSettings, calendar_of
from volcast.tasks.sources.source import EventSource, Pace, PriceSource, open_source

EACH_ALONE = 20  # tickers; one task run a ticker is for a handful of them, else it is one a bucket


class Batch(BaseModel):
    """The tickers that one task run fetches."""

    model_config = ConfigDict(frozen=True)

    tickers: tuple[str, ...]

    @property
    def label(self) -> str:
        """`SBUX`, or `15 tickers AAPL to ZTS`."""
        return (
            self.tickers[0]
            if len(self.tickers) == 1
            else f"{len(self.tickers)} tickers {self.tickers[0]} to {self.tickers[-1]}"
        )


class IngestPlan(BaseModel):
    """What to fetch, and the store's root for it: simulated prices never share one with real prices."""

    model_config = ConfigDict(frozen=True)

    root: str
    source: str
    events: str  # the source of announcements
    events_known_as: str
    last_session: date
    batches: tuple[Batch, ...]
    deadline: AwareDatetime
    allow_shrink: bool
    max_failed_share: float
    max_broken_share: float
    recheck_sessions: int

    @property
    def calendar(self) -> str:
        return calendar_of(self.root)

    @property
    def tickers(self) -> tuple[str, ...]:
        return tuple(ticker for batch in self.batches for ticker in batch.tickers)

    @property
    def label(self) -> str:
        """As a batch's, of all tickers."""
        return Batch(tickers=self.tickers).label


@task(task_run_name="plan ingest from {data.source}")
def plan_ingest(data: DataSettings) -> IngestPlan:
    """Raises SourceError for a source that is not there, StoreError for a store that cannot be written."""
    source = open_source(data.source)
    events = require_event_source(data)
    root = open_store(data.root, writable=True).url
    last = last_ingest(root)
    tickers = tuple(dict.fromkeys(ticker.upper() for ticker in data.tickers)) or _usual_tickers(source, data)
    plan = IngestPlan(
        root=root,
        source=source.spec,
        events=data.event_source,
        events_known_as=_known_as(data.event_source, events, last),
        last_session=data.session,
        batches=_batches(tickers),
        deadline=datetime.now(UTC) + timedelta(hours=data.deadline_hours),
        allow_shrink=data.allow_shrink,
        max_failed_share=data.max_failed_share,
        max_broken_share=data.max_broken_share,
        recheck_sessions=data.recheck_sessions,
    )
    for asked in (source, events):
        if asked is not None and asked.pace is not None:
            _share(asked.pace)
    for remark in source.remarks:
        get_run_logger().warning(remark)
    get_run_logger().info(
        "%s: %s, sessions of %s up to %s, into %s",
        plan.source,
        counted(len(tickers), "ticker"),
        plan.calendar,
        plan.last_session,
        root,
    )
    return plan


def record_sources(data: DataSettings, plan: IngestPlan) -> None:
    """Keep where this ingest's prices came from, for those that do not say it anew."""
    facts = asdict(LastIngest(whole_spec(plan.source), named_events(data), plan.events_known_as))
    draft = Draft(kind=LAST_INGEST, name="prices", files={}, facts=facts, provenance=provenance(source=plan.source))
    ArtifactStore(open_store(plan.root, writable=True)).put(draft)


def _known_as(spec: str, events: EventSource | None, last: LastIngest | None) -> str:
    """The name of a source of announcements in the events table: the one it had, however its path is written."""
    if last is not None and last.events == whole_spec(spec):
        return last.events_known_as
    return events.spec if events else "none"


def _usual_tickers(source: PriceSource, data: DataSettings) -> tuple[str, ...]:
    """Of an ingest that names none: all that the source lists, or that are stored where it has no list of its own.

    Those that are retired are not asked for.
    """
    named, store = tuple(source.tickers()), open_store(data.root)
    if not source.incremental or len(named) > 1 or PriceTable(store).version() is None:
        retired = retirements(store, data.session)
        return tuple(ticker for ticker in named if ticker not in retired)
    return tuple(tickers_in_use(store, data.session))


def _share(pace: Pace) -> None:
    """Let the server know the limit that all workers share; one that is there, perhaps changed by hand, is left."""
    limit = GlobalConcurrencyLimitCreate(name=pace.limit, limit=1, slot_decay_per_second=pace.calls_per_second)
    with suppress(ObjectAlreadyExists), get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(limit)


def _batches(tickers: tuple[str, ...]) -> tuple[Batch, ...]:
    """The tickers of a batch share a bucket of the prices table, so that they are stored a bucket at a time."""
    if len(tickers) <= EACH_ALONE:
        return tuple(Batch(tickers=(ticker,)) for ticker in tickers)
    buckets: dict[int, list[str]] = {}
    for ticker in tickers:
        buckets.setdefault(bucket_of(ticker), []).append(ticker)
    return tuple(Batch(tickers=tuple(buckets[bucket])) for bucket in sorted(buckets))
