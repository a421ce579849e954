"""Commit what passed the rules, keep what did not, and say how it went.

Let the automations know of a new version of the prices.
"""

from collections.abc import Iterator
from datetime import date

import pandas as pd
from prefect import get_run_logger, task
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict

from models.text import listed
from storage.append_tables import QuarantineTable
from storage.price_rows import bucket_of
from storage.prices import Commit, PriceTable
from storage.records import PriceCounts, Snapshot
from storage.staging import StagedFrame, discard, unstage
from storage.store import Store, open_store
from tasks.fetch_prices import Fetched, FetchFailed
from tasks.plan_ingest import IngestPlan
from tasks.run_tools import complete, emit
from tasks.settings import DataSettings
from tasks.validate_prices import LOGGED, Checked


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

    @property
    def quarantined(self) -> int:
        return sum(self.quarantined_of.values())

    @property
    def words(self) -> str:
        """One line for logs and people."""
        quarantined = f", {self.quarantined:,} quarantined" if self.quarantined else ""
        if not self.inserted + self.updated:
            return f"nothing new, still prices v{self.prices_version} ({self.unchanged:,} rows as before{quarantined})"
        later = self.updated - self.restated
        changed = f"{self.restated:,} restated" + (f", {later:,} with later dividends known" if later else "")
        return (
            f"prices v{self.prices_version}: {self.inserted:,} rows new, {changed}, "
            f"{self.unchanged:,} as before{quarantined}"
        )


@task(task_run_name="store prices of {plan.source}")
def store_prices(plan: IngestPlan, checked: list[Checked]) -> Ingested:
    """One commit for all batches, or none when no row is new or changed. Version -1: nothing has ever been stored."""
    store = open_store(plan.root, writable=True)
    bad = _gather(store, [batch.quarantined for batch in checked])
    if len(bad):
        QuarantineTable(store).add(bad)
    good = _Buckets(store, plan, checked)
    commit = PriceTable(store).upsert_parts(good, source=plan.source) if good.parts else None
    changed = _log_restatements(commit)
    for batch in checked:
        discard(store, batch.good)
        discard(store, batch.quarantined)
    present = PriceTable(store).version()
    ingested = Ingested(
        prices_version=-1 if present is None else present,
        inserted=commit.inserted if commit else 0,
        updated=commit.updated if commit else 0,
        unchanged=commit.unchanged if commit else 0,
        restated=len(changed),
        quarantined_of=_tickers_of(bad),
        restated_of=_tickers_of(changed),
        newest_session=max((batch.newest_session for batch in checked if batch.newest_session), default=None),
    )
    get_run_logger().info(ingested.words)
    return ingested


@task(task_run_name="check what {plan.source} gave")
def require_fetched(plan: IngestPlan, fetched: list[Fetched], ingested: Ingested, counts: PriceCounts | None) -> None:
    """Raises FetchFailed, naming tickers, when too large a share of them failed, or nothing but bad rows came.

    A ticker that a file does not hold is left out, and named: it is not the file that failed, unless it holds none.
    """
    failed = {ticker: why for batch in fetched for ticker, why in batch.failed.items()}
    if not failed and ingested.newest_session is None and ingested.quarantined:
        known = f"{plan.source}: every row that came is in quarantine; nothing was stored."
        raise FetchFailed(f"{known} Look at the source's values.", counts)
    is_left_out = plan.source.startswith("files:") and len(failed) < len(plan.tickers)
    left_out = sum(len(batch.unknown) for batch in fetched) if is_left_out else 0
    if len(failed) - left_out <= plan.max_failed_share * len(plan.tickers):
        return
    kept = (
        f" What came of the other {len(plan.tickers) - len(failed)} is stored."
        if len(failed) < len(plan.tickers)
        else " Nothing was changed."
    )
    raise FetchFailed(f"{listed(list(failed.values()), 5, '; ')}.{kept}", counts)


def ingested_part(data: DataSettings, plan: IngestPlan, fetched: list[Fetched], ingested: Ingested) -> DataSettings:
    """The stored prices that this ingest stands for: the tickers that came, up to the source's newest session.

    A file that ends in 2020 is worked on as of 2020, whatever else the store holds.
    """
    failed = {ticker for batch in fetched for ticker in batch.failed}
    tickers = tuple(ticker for ticker in plan.tickers if ticker not in failed)
    return data.model_copy(update={"tickers": tickers, "as_of": ingested.newest_session or data.as_of})


def ended_ingest(ingested: Ingested, snapshot: Snapshot) -> Snapshot:
    """The final state of an ingest, with what it brought."""
    return complete(snapshot, f"{ingested.words}; to {snapshot.cutoff}")


class _Buckets:
    """The good bars, one frame a bucket of the prices table, each read when its turn comes."""

    def __init__(self, store: Store, plan: IngestPlan, checked: list[Checked]) -> None:
        self._store = store
        self.parts: dict[int, list[StagedFrame]] = {}
        for batch, done in zip(plan.batches, checked, strict=True):
            if done.good.rows:
                self.parts.setdefault(bucket_of(batch.tickers[0]), []).append(done.good)

    def __iter__(self) -> Iterator[pd.DataFrame]:
        return (_gather(self._store, staged) for staged in self.parts.values())


def _gather(store: Store, staged: list[StagedFrame]) -> pd.DataFrame:
    frames = [unstage(store, part) for part in staged if part.rows]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _log_restatements(commit: Commit | None) -> pd.DataFrame:
    """Log what a commit changed of history; gives the ticker and session of each row, once."""
    if commit is None or commit.changes.empty:
        return pd.DataFrame({"ticker": [], "session": []})
    rows = commit.changes
    kinds = rows.groupby(["ticker", "column"], sort=False)["session"].agg(["size", "min"]).head(LOGGED)
    for (ticker, column), size, first in zip(kinds.index, kinds["size"], kinds["min"], strict=True):
        words = f"{ticker}: {column} restated in {size:,} rows, the first of session {first:%Y-%m-%d}"
        get_run_logger().warning(words)
    return rows.loc[:, ["ticker", "session"]].drop_duplicates()


def _tickers_of(rows: pd.DataFrame) -> dict[str, int]:
    return {str(ticker): int(count) for ticker, count in rows["ticker"].value_counts().items()} if len(rows) else {}


def announce_prices(snapshot: Snapshot, ingested: Ingested) -> None:
    """The event `volcast.prices.published`, unless nothing is new.

    Its label followed-by says whether the run goes on by itself (daily, pipeline) or leaves the forecast to others.
    """
    if not ingested.inserted + ingested.updated:
        return
    emit(
        "volcast.prices.published",
        snapshot.store,
        words=f"{ingested.words}, to {snapshot.cutoff}",
        labels={"volcast.followed-by": "nothing" if flow_run.parent_flow_run_id is None else "the-run-itself"},
        version=snapshot.prices.version,
        cutoff=str(snapshot.cutoff),
    )
