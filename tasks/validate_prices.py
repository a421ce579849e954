"""Keep the rows that can be trained on; send the others to quarantine, each with the rule that it breaks.

1. a row that is there twice, alike, counts once
2. each rule looks at each row; the first one that a row breaks is its reason
3. rows without a broken rule go on
"""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pandera.pandas as pa
from prefect import get_run_logger, task
from pydantic import BaseModel, ConfigDict

from models.sessions import sessions_between
from storage.staging import StagedFrame, discard, stage, unstage
from storage.store import open_store
from tasks.fetch_prices import Fetched
from tasks.plan_ingest import Batch, IngestPlan
from tasks.sources.protocol import BAR_COLUMNS

PRICES = ["open", "high", "low", "close"]
ROUNDING = 2e-6  # relative: Yahoo keeps 32-bit floats, so that a high may stand a hair below the close


class Checked(BaseModel):
    """One batch after the rules."""

    model_config = ConfigDict(frozen=True)

    good: StagedFrame
    quarantined: StagedFrame


@task(task_run_name="validate {batch.label}")
def validate_prices(plan: IngestPlan, batch: Batch, fetched: Fetched) -> Checked:
    """Both parts of a batch, laid down for `store_prices`."""
    store = open_store(plan.root)
    bars = unstage(store, fetched.bars)
    good, bad = split_by_rules(bars) if len(bars) else (bars, no_quarantine())
    checked = Checked(good=stage(store, good), quarantined=stage(store, bad.assign(source=plan.source)))
    discard(store, fetched.bars)
    log = get_run_logger()
    log.info("%s: %d rows pass, %d quarantined", batch.label, len(good), len(bad))
    for (ticker, rule), rows in bad.groupby(["ticker", "rule"]):
        log.warning(
            "%s: %d rows quarantined (%s), the first of session %s",
            ticker,
            len(rows),
            rule,
            f"{rows['session'].iloc[0]:%Y-%m-%d}",
        )
    return checked


def split_by_rules(bars: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(good, bad): BAR_COLUMNS in order of ticker and session, and one row (ticker, session, rule, value, seen_at) for each bad bar."""
    bars = bars[BAR_COLUMNS].drop_duplicates().sort_values(["ticker", "session"], kind="stable").reset_index(drop=True)
    broken = _broken_rules(bars)
    bad_rows = bars.loc[broken.index]
    bad = bad_rows[["ticker", "session"]].assign(rule=broken, value=_shown(bad_rows), seen_at=datetime.now(UTC))
    return bars.drop(index=broken.index).reset_index(drop=True), bad.reset_index(drop=True)


def no_quarantine() -> pd.DataFrame:
    """An empty frame of quarantined rows."""
    return pd.DataFrame({name: pd.Series(dtype="object") for name in ["ticker", "session", "rule", "value", "seen_at"]})


def price_rules(first: pd.Timestamp, last: pd.Timestamp) -> pa.DataFrameSchema:
    """What a daily bar must be, for bars of the sessions from `first` to `last`."""
    sessions = sessions_between(first, last)
    price = [pa.Check.gt(0, error="a price is not positive")]
    return pa.DataFrameSchema(
        {
            "ticker": pa.Column(str),
            "session": pa.Column(
                "datetime64[s]", pa.Check(lambda column: column.isin(sessions), error="not a session of the calendar")
            ),
            **{name: pa.Column(float, price, nullable=False) for name in PRICES},
            "volume": pa.Column(
                float,
                [
                    pa.Check.gt(0, error="volume is not positive"),
                    pa.Check(lambda column: column % 1 == 0, error="volume is not whole"),
                ],
                nullable=False,
            ),
            "dividend": pa.Column(float, pa.Check.ge(0, error="a dividend is negative")),
            "split": pa.Column(float, pa.Check.ge(0, error="a split is negative")),
            "later_adjustment": pa.Column(float, pa.Check.gt(0, error="adj_close is not positive")),
        },
        checks=[
            pa.Check(
                lambda bars: _at_least(bars["high"], bars[["open", "low", "close"]].max(axis=1)),
                error="high is below open, low or close",
            ),
            pa.Check(
                lambda bars: _at_least(bars[["open", "high", "close"]].min(axis=1), bars["low"]),
                error="low is above open, high or close",
            ),
            pa.Check(
                lambda bars: ~bars.duplicated(["ticker", "session"], keep=False),
                error="two different rows of one session",
            ),
        ],
    )


def _broken_rules(bars: pd.DataFrame) -> pd.Series:
    """The first rule that each bad row breaks, by the row's label."""
    try:
        price_rules(bars["session"].min(), bars["session"].max()).validate(bars, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases.dropna(subset=["index"])
        structural = error.failure_cases[error.failure_cases["index"].isna()]
        assert structural.empty, f"bars are not of the schema that sources promise: {structural.to_dict('records')}"
        rules = cases["check"].replace("not_nullable", "a value is missing")
        first = ~cases["index"].duplicated()
        return pd.Series(rules[first].to_numpy(), index=cases["index"][first].astype(np.int64).to_numpy()).sort_index()
    return pd.Series(dtype="object", index=pd.Index([], dtype=np.int64))


def _at_least(larger: pd.Series, smaller: pd.Series) -> pd.Series:
    return (larger >= smaller * (1 - ROUNDING)) | larger.isna() | smaller.isna()


def _shown(rows: pd.DataFrame) -> pd.Series:
    numbers = [*PRICES, "volume"]
    return pd.Series(
        [
            " ".join(f"{name}={value:g}" for name, value in zip(numbers, row, strict=True))
            for row in rows[numbers].to_numpy()
        ],
        index=rows.index,
        dtype="object",
    )
