"""Commit what passed the rules, keep what did not, and say how it went."""

from collections.abc import Iterator
from datetime import date

import pandas as pd
from prefect import get_run_logger, task
from pydantic import BaseModel, ConfigDict

from storage.prices import PriceTable
from storage.quarantine import QuarantineTable
from storage.rows import bucket_of
from storage.staging import StagedFrame, discard, unstage
from storage.store import Store, open_store
from tasks.fetch_prices import Fetched, FetchFailed
from tasks.plan_ingest import IngestPlan
from tasks.settings import DataSettings
from tasks.validate_prices import Checked

MAX_FAILED_SHARE = 0.05


class Ingested(BaseModel):
    """What an ingest did."""

    model_config = ConfigDict(frozen=True)

    prices_version: int
    inserted: int
    updated: int
    unchanged: int
    quarantined: int
    newest_session: date | None  # of the good rows that came; None when none came

    @property
    def words(self) -> str:
        """One line for logs and people."""
        quarantined = f", {self.quarantined:,} quarantined" if self.quarantined else ""
        if not self.inserted + self.updated:
            return f"nothing new, still prices v{self.prices_version} ({self.unchanged:,} rows as before{quarantined})"
        counts = f"{self.inserted:,} rows new, {self.updated:,} changed, {self.unchanged:,} as before{quarantined}"
        return f"prices v{self.prices_version}: {counts}"


@task(task_run_name="store prices of {plan.source}")
def store_prices(plan: IngestPlan, checked: list[Checked]) -> Ingested:
    """One commit for all batches, or none when no row is new or changed. Version -1: nothing has ever been stored."""
    store = open_store(plan.root)
    bad = _gather(store, [batch.quarantined for batch in checked])
    if len(bad):
        QuarantineTable(store).add(bad)
    good = _Buckets(store, plan, checked)
    commit = PriceTable(store).upsert_parts(good) if good.parts else None
    for batch in checked:
        discard(store, batch.good)
        discard(store, batch.quarantined)
    present = PriceTable(store).version()
    ingested = Ingested(
        prices_version=-1 if present is None else present,
        inserted=commit.inserted if commit else 0,
        updated=commit.updated if commit else 0,
        unchanged=commit.unchanged if commit else 0,
        quarantined=len(bad),
        newest_session=max((batch.newest_session for batch in checked if batch.newest_session), default=None),
    )
    get_run_logger().info(ingested.words)
    return ingested


@task(task_run_name="check what {plan.source} gave")
def require_fetched(plan: IngestPlan, fetched: list[Fetched], ingested: Ingested) -> None:
    """Raises FetchFailed, naming tickers, when over MAX_FAILED_SHARE of them failed, or not one good row came."""
    failed = {ticker: why for batch in fetched for ticker, why in batch.failed.items()}
    if not failed and ingested.newest_session is None:
        raise FetchFailed(
            f"{plan.source}: every row that came is in quarantine; nothing was stored. Look at the source's values."
        )
    if not failed or len(failed) <= MAX_FAILED_SHARE * len(plan.tickers):
        return
    kept = (
        f" What came of the other {len(plan.tickers) - len(failed)} is stored."
        if len(failed) < len(plan.tickers)
        else " Nothing was changed."
    )
    raise FetchFailed(f"{'; '.join(list(failed.values())[:5])}{' …' if len(failed) > 5 else '.'}{kept}")


def ingested_part(data: DataSettings, plan: IngestPlan, fetched: list[Fetched], ingested: Ingested) -> DataSettings:
    """The stored prices that this ingest stands for: the tickers that came, up to the source's newest session.

    A file that ends in 2020 is worked on as of 2020, whatever else the store holds.
    """
    failed = {ticker for batch in fetched for ticker in batch.failed}
    tickers = tuple(ticker for ticker in plan.tickers if ticker not in failed)
    return data.model_copy(update={"tickers": tickers, "as_of": ingested.newest_session})


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
