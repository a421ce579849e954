"""Decide what an ingest fetches: source, tickers, last session, and where it all goes."""

import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectAlreadyExists
from pydantic import AwareDatetime, BaseModel, ConfigDict

from models.errors import NotASession
from models.sessions import last_closed_session, last_session_on_or_before
from storage.artifacts import ArtifactStore, Draft
from storage.prices import PriceTable
from storage.rows import bucket_of
from storage.store import open_store
from tasks.provenance import provenance
from tasks.settings import DataSettings
from tasks.sources.protocol import Pace, PriceSource, UnknownSource
from tasks.sources.registry import open_event_source, open_source

EACH_ALONE = 20  # tickers; one task run a ticker is for a handful of them, else it is one a bucket
LAST_INGEST = "ingest"  # kind of the artifact that says where prices came from
SIMULATED_FOLDER = "simulated-"  # and the exchange's seed and shift: what is simulated shares no table with real prices


@dataclass(frozen=True)
class LastIngest:
    """Where the prices of a store last came from, and their announcements; a file by its whole path."""

    source: str
    events: str
    events_known_as: str  # the source's name in the table of events, which stays however its path is written


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
    simulated: bool
    last_session: date
    batches: tuple[Batch, ...]
    deadline: AwareDatetime
    allow_shrink: bool
    max_failed_share: float
    recheck_sessions: int

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
    require_event_source(data)
    root = open_store(root_of(data.store, data.source)).url
    tickers = tuple(dict.fromkeys(ticker.upper() for ticker in data.tickers)) or _usual_tickers(source, root)
    plan = IngestPlan(
        root=root,
        source=source.spec,
        events=data.event_source,
        events_known_as=_known_as(data.event_source, root),
        simulated=source.simulated,
        last_session=last_session(data.as_of, data.now),
        batches=_batches(tickers),
        deadline=datetime.now(UTC) + timedelta(hours=data.deadline_hours),
        allow_shrink=data.allow_shrink,
        max_failed_share=data.max_failed_share,
        recheck_sessions=data.recheck_sessions,
    )
    if source.pace is not None:
        _share(source.pace)
    get_run_logger().info(
        "%s: %d tickers, sessions up to %s, into %s", plan.source, len(tickers), plan.last_session, root
    )
    return plan


def record_sources(plan: IngestPlan) -> None:
    """Keep where this ingest's prices came from, for those that do not say it anew."""
    facts = asdict(LastIngest(whole_spec(plan.source), whole_spec(plan.events), plan.events_known_as))
    draft = Draft(kind=LAST_INGEST, name="prices", files={}, facts=facts, provenance=provenance(source=plan.source))
    ArtifactStore(open_store(plan.root)).put(draft)


def last_ingest(root: str) -> LastIngest | None:
    """Where the prices at a root came from; None before the first ingest, and after one by release 0.1.0."""
    newest = ArtifactStore(open_store(root)).newest(LAST_INGEST, "prices")
    facts: Any = newest.facts if newest else None
    return LastIngest(**facts) if facts else None


def whole_path(path_or_url: str) -> str:
    """A path that means the same in whatever folder a run is; a URL as it is."""
    return path_or_url if "://" in path_or_url else str(Path(path_or_url).expanduser().resolve())


def whole_spec(spec: str) -> str:
    """The spec of a source, with the whole path of its file."""
    kind, _, location = spec.partition(":")
    return f"files:{whole_path(location)}" if kind == "files" else spec


def _known_as(events: str, root: str) -> str:
    source, last = open_event_source(events), last_ingest(root)
    if last is not None and last.events == whole_spec(events):
        return last.events_known_as
    return source.spec if source else "none"


def _usual_tickers(source: PriceSource, root: str) -> tuple[str, ...]:
    """Of an ingest that names none: all that the source names, or all that came of one that has no list of its own."""
    named, last = tuple(source.tickers()), last_ingest(root)
    if not source.incremental or len(named) > 1 or last is None or last.source != source.spec:
        return named
    return tuple(PriceTable(open_store(root)).tickers())


def require_event_source(data: DataSettings) -> None:
    """Raises SourceError for a source of announcements that is not there, or not of the world of the prices."""
    spec = data.event_source
    if open_event_source(spec) is not None and root_of(data.store, spec) != root_of(data.store, data.source):
        raise UnknownSource(
            f"--events {spec} does not go with --source {data.source}: a simulated exchange has announcements of its "
            "own, and real ones never share a table with them. Leave --events out, or give none."
        )


def root_of(store: str, source: str) -> str:
    """The root for a source's prices: `store` itself, or a folder of it for each simulated exchange."""
    found = re.match(r"simulated(?::(\d+))?(?:.*\bshift=([\d-]+))?", source)
    if not found:
        return store
    shifted = f"-shift-{found[2]}" if found[2] else ""
    return f"{store.rstrip('/')}/{SIMULATED_FOLDER}{int(found[1] or 0)}{shifted}"


def last_session(as_of: date | None, now: datetime | None = None) -> date:
    """The newest closed session at `now` (none: the clock), or the newest one up to `as_of`.

    Raises NotASession for a date to come.
    """
    now = now or datetime.now(UTC)
    newest = last_closed_session(now)
    if as_of is None:
        return newest
    if as_of > now.astimezone(UTC).date():
        raise NotASession(f"--as-of {as_of} is still to come. The last closed session is {newest}.")
    return min(last_session_on_or_before(as_of), newest)


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
