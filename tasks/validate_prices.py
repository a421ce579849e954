"""Keep the rows that can be trained on; send the others to quarantine, each with the rule that it breaks.

1. a row that is there twice, alike, counts once
2. each rule looks at each row; the first one that a row breaks is its reason
3. rows without a broken rule go on; the later_adjustment of a ticker's last row goes to the last one that goes on
"""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, cast

import numpy as np
import pandas as pd
import pandera.pandas as pa
from prefect import get_run_logger, task
from pydantic import BaseModel, ConfigDict

from models.sessions import FIRST_DATE, market_calendar
from storage.staging import StagedFrame, discard, stage, unstage
from storage.store import open_store
from tasks.fetch_prices import Fetched
from tasks.plan_ingest import Batch, IngestPlan
from tasks.sources.source import BAR_COLUMNS

PRICES = ["open", "high", "low", "close"]
NOT_BY_DEFAULT = {"dividend": 0.0, "split": 0.0, "later_adjustment": 1.0}  # shown where they differ
ROUNDING = 2e-6  # relative: Yahoo keeps 32-bit floats, so that a high may stand a hair below the close
LOGGED = 10  # kinds of quarantined rows a batch; the table has them all


class Checked(BaseModel):
    """One batch after the rules."""

    model_config = ConfigDict(frozen=True)

    good: StagedFrame
    quarantined: StagedFrame
    newest_session: date | None  # of the good rows


@task(task_run_name="validate {batch.label}")
def validate_prices(plan: IngestPlan, batch: Batch, fetched: Fetched) -> Checked:
    """Both parts of a batch, laid down for `store_prices`."""
    store = open_store(plan.root, writable=True)
    bars = unstage(store, fetched.bars)
    good, bad = split_by_rules(bars) if len(bars) else (bars, no_quarantine())
    checked = Checked(
        good=stage(store, good),
        quarantined=stage(store, bad.assign(source=plan.source)),
        newest_session=good["session"].max().date() if len(good) else None,
    )
    discard(store, fetched.bars)
    log = get_run_logger()
    log.info("%s: %d rows pass, %d quarantined", batch.label, len(good), len(bad))
    for line in quarantine_lines(bad):
        log.warning(line)
    return checked


def split_by_rules(bars: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(good, bad), both in order of ticker and session.

    `bars`: BAR_COLUMNS in any order of rows. good: BAR_COLUMNS. bad: ticker, session, rule, value, seen_at; one row for
    each bad bar. Good and bad rows together are all rows, but for copies of a row.
    """
    bars = bars.loc[:, BAR_COLUMNS].drop_duplicates()
    bars = bars.sort_values(["ticker", "session"], kind="stable").reset_index(drop=True)
    rule = _broken_rules(bars)
    is_bad = rule.notna()
    bad_rows = bars.loc[is_bad]
    bad = bad_rows[["ticker", "session"]].assign(
        rule=rule[is_bad], value=_shown(bad_rows), seen_at=pd.Timestamp(datetime.now(UTC))
    )
    return _good_rows(bars, is_bad), bad.reset_index(drop=True)


def no_quarantine() -> pd.DataFrame:
    """An empty frame of quarantined rows."""
    return pd.DataFrame({name: pd.Series(dtype="object") for name in ["ticker", "session", "rule", "value", "seen_at"]})


def quarantine_lines(bad: pd.DataFrame) -> list[str]:
    """What to log of `bad`: a line a ticker and rule, the most rows first; LOGGED of them, and one for the rest."""
    kinds = pd.DataFrame(bad.groupby(["ticker", "rule"])["session"].agg(["size", "min"]))
    kinds = kinds.sort_values("size", ascending=False, kind="stable")
    lines = [
        f"{ticker}: {size:,} rows quarantined ({rule}), the first of session {first:%Y-%m-%d}"
        for (ticker, rule), size, first in zip(kinds.index[:LOGGED], kinds["size"], kinds["min"], strict=False)
    ]
    rest = kinds["size"].iloc[LOGGED:]
    if len(rest):
        lines.append(f"and {rest.sum():,} rows more, of {len(rest):,} other tickers and rules")
    return lines


def price_rules() -> pa.DataFrameSchema:
    """What a daily bar must be; the checks stand in the order in which the rules are named."""
    sessions = market_calendar().sessions.as_unit("s")  # in nanoseconds, a year such as 2400 could not be compared
    begin, end = sessions[0], sessions[-1]
    rules: dict[str, Callable[[pd.DataFrame], Any]] = {
        f"the market calendar begins in {FIRST_DATE.year}": lambda bars: bars["session"] >= begin,
        f"the market calendar ends on {end:%Y-%m-%d}": lambda bars: bars["session"] <= end,
        "the market was closed on this date": lambda bars: bars["session"].isin(pd.Series(sessions)),
        "a value is missing": lambda bars: bars.notna().all(axis=1),
        "a price is not positive": lambda bars: ((bars[PRICES] > 0) & (bars[PRICES] < np.inf)).all(axis=1),
        "adj_close is not positive": lambda bars: bars["later_adjustment"] > 0,
        "volume is not positive": lambda bars: (bars["volume"] > 0) & (bars["volume"] < np.inf),
        "volume is not whole": lambda bars: bars["volume"] % 1 == 0,
        "high is below open, low or close": lambda bars: (
            bars["high"] >= bars[["open", "low", "close"]].max(axis=1) * (1 - ROUNDING)
        ),
        "low is above open or close": lambda bars: bars[["open", "close"]].min(axis=1) >= bars["low"] * (1 - ROUNDING),
        "a dividend is negative": lambda bars: (bars["dividend"] >= 0) & (bars["dividend"] < np.inf),
        "a split is negative": lambda bars: (bars["split"] >= 0) & (bars["split"] < np.inf),
        "two different rows of one session": lambda bars: ~bars.duplicated(["ticker", "session"], keep=False),
    }
    # ignore_na=False: a missing value is for the rules to see. n_failure_cases: pandera would spell out every cell of
    # every bad row, 40 s for a million of them; which rows fail stands in check_output.
    checks = [pa.Check(rule, error=name, ignore_na=False, n_failure_cases=1) for name, rule in rules.items()]
    columns = {name: pa.Column(float, nullable=True) for name in BAR_COLUMNS[2:]}
    return pa.DataFrameSchema({"ticker": pa.Column(str), "session": pa.Column("datetime64[s]"), **columns}, checks)


def _broken_rules(bars: pd.DataFrame) -> pd.Series:
    """The first rule that each row breaks, on the frame's index; None for a row without."""
    rule = pd.Series(None, index=bars.index, dtype="object")
    try:
        price_rules().validate(bars, lazy=True)
    except pa.errors.SchemaErrors as found:
        for error in found.schema_errors:
            check, holds = error.check, cast(pd.Series | None, error.check_output)
            assert isinstance(check, pa.Check), f"bars are not as sources promise them: {error}"
            assert holds is not None, f"a rule could not be tried: {error}"
            rule = rule.mask(~holds & rule.isna(), check.error)
    return rule


def _good_rows(bars: pd.DataFrame, is_bad: pd.Series) -> pd.DataFrame:
    """Of the later_adjustment only that of a ticker's last row counts, so it must not go to quarantine with that."""
    positive = bars["later_adjustment"].where(bars["later_adjustment"] > 0, 1.0)
    factor = positive.groupby(bars["ticker"]).transform("prod")
    good = bars.loc[~is_bad]
    is_last = ~good.duplicated("ticker", keep="last")
    return good.assign(later_adjustment=factor[good.index].where(is_last, 1.0)).reset_index(drop=True)


def _shown(rows: pd.DataFrame) -> pd.Series:
    """`open=1 high=2 low=0.5 close=1 volume=0`, and dividend, split and later_adjustment where there are any."""
    texts = np.full(len(rows), "", dtype=object)
    for name in [*PRICES, "volume", *NOT_BY_DEFAULT]:
        values = rows[name].to_numpy()
        words = np.array([f" {name}={value:.15g}" for value in values], dtype=object)
        texts = texts + np.where(values == NOT_BY_DEFAULT.get(name), "", words)
    return pd.Series(texts, index=rows.index, dtype="object").str.strip()
