"""Commit what passed the rules, keep what did not, and say how the ingest went: in its log, state and event."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

import pandas as pd
from prefect import get_run_logger, task
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict

from volcast.models.text import counted, listed
from volcast.storage.append_tables import QuarantineTable
from volcast.storage.price_rows import bucket_of
from volcast.storage.prices import Commit, PriceTable
from volcast.storage.records import Announcements, PriceCounts, Snapshot
from volcast.storage.staging import StagedFrame, discard, unstage
from volcast.storage.store import Store, open_store
from volcast.tasks.fetch_prices import Fetched, FetchFailed
from volcast.tasks.plan_ingest import IngestPlan
from volcast.tasks.run_tools import complete, emit, emit_lineage
from volcast.tasks.settings import DataSettings
from volcast.tasks.validate_prices import row_lines

RESTATED = "{ticker}: {kind} restated in {rows}, the first of session {first:%Y-%m-%d}"


class Ingested(BaseModel):
    """What an ingest did."""

    model_config = ConfigDict(frozen=True)

    prices_version: int
    inserted: int
    updated: int
    unchanged: int
    restated: int  # of the updated ones; those whose past is the same only know of later dividends
    quarantined_of: dict[str, int]  # ticker -> rows, where there are any
    restated_of: dict[str, int]
    newest_session: date | None  # of the good rows that came; None when none came
    failed: dict[str, str]  # ticker -> why it could not be fetched
    notes: dict[str, list[str]]  # ticker -> lines on what was changed of its rows, or looks wrong in them
    unknown: tuple[str, ...]  # those of them that the source does not have

    @property
    def quarantined(self) -> int:
        return sum(self.quarantined_of.values())

    @property
    def summary(self) -> str:
        """One line for logs and people."""
        quarantined = f", {self.quarantined:,} quarantined" if self.quarantined else ""
        quarantined += f", failed: {listed(list(self.failed), 3)}" if self.failed else ""
        if not self.inserted + self.updated:
            version = f"still prices v{self.prices_version}" if self.prices_version >= 0 else "no prices are stored yet"
            return f"nothing new, {version} ({counted(self.unchanged, 'row')} as before{quarantined})"
        later = self.updated - self.restated
        changed = f"{self.restated:,} restated" + (f", {later:,} with later dividends known" if later else "")
        return (
            f"prices v{self.prices_version}: {counted(self.inserted, 'row')} new, {changed}, "
            f"{self.unchanged:,} as before{quarantined}"
        )


@task(task_run_name="store prices of {plan.source}")
def store_prices(plan: IngestPlan, fetched: list[Fetched]) -> Ingested:
    """One commit for all batches, or none when no row is new or changed. Version -1: nothing has ever been stored."""
    store, log = open_store(plan.root, writable=True), get_run_logger()
    bad = [batch.quarantined for batch in fetched if batch.quarantined]
    quarantined = _read(store, bad)
    if bad:
        QuarantineTable(store).add(quarantined)
    good: dict[int, list[StagedFrame]] = {}
    for planned, batch in zip(plan.batches, fetched, strict=True):
        if batch.good:
            good.setdefault(bucket_of(planned.tickers[0]), []).append(batch.good)
    commit = _commit(store, plan.source, good)
    for staged in [*bad, *(frame for frames in good.values() for frame in frames)]:
        discard(store, staged)
    for line in row_lines(commit.changes, "column", RESTATED):
        log.warning(line)
    restated = commit.changes.reindex(columns=["ticker", "session"]).drop_duplicates()
    ingested = Ingested(
        prices_version=commit.version,
        inserted=commit.inserted,
        updated=commit.updated,
        unchanged=commit.unchanged,
        restated=len(restated),
        quarantined_of=_rows_of_tickers(quarantined),
        restated_of=_rows_of_tickers(restated),
        newest_session=max((batch.newest_session for batch in fetched if batch.newest_session), default=None),
        failed={ticker: why for batch in fetched for ticker, why in batch.failed.items()},
        notes={ticker: lines for batch in fetched for ticker, lines in batch.notes.items()},
        unknown=tuple(ticker for batch in fetched for ticker in batch.unknown),
    )
    log.info(ingested.summary)
    return ingested


@task(task_run_name="check what {plan.source} gave")
def require_fetched(plan: IngestPlan, ingested: Ingested, counts: PriceCounts | None) -> None:
    """Raises FetchFailed, naming tickers, when too large a share of them failed, or nothing but bad rows came.

    A ticker that a file does not hold is left out, and named: it is not the file that failed, unless it holds none.
    """
    failed, asked = ingested.failed, len(plan.tickers)
    if not failed and ingested.newest_session is None and ingested.quarantined:
        known = f"{plan.source}: every row that came is in quarantine; nothing was stored."
        raise FetchFailed(f"{known} Look at the source's values.", counts)
    others = asked - len(failed)
    left_out = len(ingested.unknown) if plan.source.startswith("files:") and others else 0
    if len(failed) - left_out > plan.max_failed_share * asked:
        stored = f"What came of the other {others} is stored." if others else "Nothing was changed."
        raise FetchFailed(f"{listed(list(failed.values()), 5, '; ')}. {stored}", counts)


def ingested_part(data: DataSettings, plan: IngestPlan, ingested: Ingested) -> DataSettings:
    """The stored prices that this ingest stands for: the tickers that came, up to the source's newest session.

    A file that ends in 2020 is worked on as of 2020, whatever else the store holds, and with the values that came;
    a run that was asked to work as of a date has those that were known then.
    """
    tickers = tuple(ticker for ticker in plan.tickers if ticker not in ingested.failed)
    part = {"tickers": tickers, "as_of": ingested.newest_session or data.as_of}
    if data.as_of is None and ingested.prices_version >= 0:
        part["prices_version"] = ingested.prices_version
    return data.model_copy(update=part)


def announce_prices(snapshot: Snapshot, ingested: Ingested) -> None:
    """The event `volcast.prices.published`, unless nothing is new.

    Its label followed-by says whether the run goes on by itself (daily, pipeline) or leaves the forecast to others.
    """
    if not ingested.inserted + ingested.updated:
        return
    emit_lineage(snapshot.store, snapshot.prices, inputs=(snapshot.source,), made=datetime.now(UTC))
    emit(
        "volcast.prices.published",
        snapshot.store,
        words=f"{ingested.summary}, to {snapshot.cutoff}",
        labels={"volcast.followed-by": "nothing" if flow_run.parent_flow_run_id is None else "the-run-itself"},
        version=snapshot.prices.version,
        cutoff=str(snapshot.cutoff),
    )


def finish_ingest(ingested: Ingested, snapshot: Snapshot, announcements: Announcements | None) -> Snapshot:
    """The final state of an ingest, with what it brought; the snapshot says what it learnt of the calendar."""
    snapshot = snapshot.model_copy(update={"announcements": announcements})
    return complete(snapshot, f"{ingested.summary}; to {snapshot.cutoff}")


@dataclass(frozen=True)
class _Buckets:
    """The good bars, one frame a bucket of the prices table, each read when its turn comes (again, after a race)."""

    store: Store
    staged: dict[int, list[StagedFrame]]

    def __iter__(self) -> Iterator[pd.DataFrame]:
        return (_read(self.store, frames) for frames in self.staged.values())


def _commit(store: Store, source: str, good: dict[int, list[StagedFrame]]) -> Commit:
    if good:
        return PriceTable(store).upsert_parts(_Buckets(store, good), source=source)
    present = PriceTable(store).version()
    return Commit(-1 if present is None else present, 0, 0, 0)


def _read(store: Store, staged: list[StagedFrame]) -> pd.DataFrame:
    return pd.concat([unstage(store, frame) for frame in staged], ignore_index=True) if staged else pd.DataFrame()


def _rows_of_tickers(rows: pd.DataFrame) -> dict[str, int]:
    return {str(ticker): int(count) for ticker, count in rows["ticker"].value_counts().items()} if len(rows) else {}
