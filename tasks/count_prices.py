"""Count what is stored of each ticker, and what is wrong with it: the table at the end of an ingest, and `status`."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from prefect import task

from volcast.models.sessions import market_calendar, sessions_between
from volcast.models.text import listed
from volcast.storage.append_tables import QuarantineTable, RestatementTable
from volcast.storage.locations import shown
from volcast.storage.prices import PriceTable
from volcast.storage.records import PriceCounts, TickerCount
from volcast.storage.schemas import QUARANTINE
from volcast.storage.store import Store, open_store
from volcast.tasks.plan_ingest import IngestPlan
from volcast.tasks.preflight import require_prices, tickers_in_use
from volcast.tasks.settings import calendar_of
from volcast.tasks.store_prices import Ingested

WORST_SHOWN = 20  # tickers
NOTES_SHOWN = 10
NAMED_GAPS = 4  # missing sessions of a ticker
FINE = "ok"


@task(task_run_name="count prices of {plan.source}")
def count_prices(plan: IngestPlan, ingested: Ingested) -> PriceCounts | None:
    """What an ingest left of its tickers; quarantined and restated are its own. None before anything is stored."""
    store = open_store(plan.root)
    if PriceTable(store).version() is None:
        return None
    table = _table(store, plan.last_session).reindex(list(plan.tickers))
    table["quarantined"] = pd.Series(ingested.quarantined_of, dtype=float).reindex(table.index)
    table["restated"] = pd.Series(ingested.restated_of, dtype=float).reindex(table.index)
    counts = _counts(store, table, plan.last_session, ingested.failed)
    notes = [line for lines in ingested.notes.values() for line in lines]
    more = [f"and {len(notes) - NOTES_SHOWN:,} more; the log has all"] if len(notes) > NOTES_SHOWN else []
    return counts.model_copy(update={"notes": (*notes[:NOTES_SHOWN], *more)})


def status_of(root: str, tickers: tuple[str, ...], last_closed: date) -> PriceCounts:
    """What the store holds of some tickers (none: all in use), from the store alone. Raises NotStored."""
    store = open_store(root)
    table = _table(store, last_closed)
    require_prices(store, tickers)
    chosen = table.loc[list(tickers) or tickers_in_use(store, last_closed)].copy()
    quarantined = QuarantineTable(store).read()["ticker"].value_counts()
    chosen["quarantined"] = quarantined.reindex(chosen.index)
    chosen["restated"] = RestatementTable(store).sessions().reindex(chosen.index)
    return _counts(store, chosen, last_closed, {})


def quarantined_rows(root: str, tickers: tuple[str, ...], limit: int) -> tuple[list[tuple[str, ...]], int]:
    """The `limit` quarantined rows of some tickers (none: all) that were seen last, as texts; and the number of all."""
    rows = QuarantineTable(open_store(root)).read()
    rows = rows.loc[rows["ticker"].isin(tickers)] if tickers else rows
    newest = rows.sort_values(["seen_at", "session"], ascending=False, kind="stable").head(limit)
    texts = newest.assign(
        session=newest["session"].dt.strftime("%Y-%m-%d").fillna("no date"),
        seen_at=newest["seen_at"].dt.strftime("%Y-%m-%d %H:%M"),
        value=newest["value"].fillna(""),
        source=newest["source"].map(shown),  # release 0.1.0 kept the credentials in a URL
    )
    return [tuple(row) for row in texts[QUARANTINE.names].itertuples(index=False)], len(rows)


def _table(store: Store, last_closed: date) -> pd.DataFrame:
    """A row a stored ticker (the index): first, last, rows, missing, behind."""
    sessions = market_calendar(calendar_of(store.url)).sessions.to_numpy()
    table = PriceTable(store).coverage()
    begin = np.searchsorted(sessions, table["first"].to_numpy())
    end = np.searchsorted(sessions, table["last"].to_numpy(), side="right")
    closed = np.searchsorted(sessions, np.datetime64(last_closed), side="right")
    return table.assign(missing=end - begin - table["rows"], behind=np.maximum(closed - end, 0))


def _counts(store: Store, table: pd.DataFrame, last_closed: date, failed: Mapping[str, str]) -> PriceCounts:
    """The total of the table, and its worst tickers: those that failed first, then by what is wrong."""
    counts = ["rows", "missing", "behind", "quarantined", "restated"]
    table = table.assign(**table[counts].fillna(0).astype("int64"), failed=table.index.isin(list(failed)))
    table["wrong"] = table[["missing", "quarantined", "restated"]].sum(axis=1)
    by_harm = table.sort_values(["failed", "wrong", "behind"], ascending=False, kind="stable")
    worst_rows: dict[str, Any] = by_harm.iloc[:WORST_SHOWN].to_dict("index")
    gaps = _gaps(store, [ticker for ticker, row in worst_rows.items() if row["missing"]])
    outcomes = {ticker: failed.get(ticker, FINE).removeprefix(f"{ticker}: ") for ticker in worst_rows}
    worst = [_count(ticker, row, gaps.get(ticker, ""), outcomes[ticker]) for ticker, row in worst_rows.items()]
    ends = {"first": table["first"].min(), "last": table["last"].max(), "behind": table["behind"].min()}
    whole: dict[str, Any] = {name: table[name].sum() for name in counts} | ends
    outcome = f"{len(failed):,} failed" if failed else FINE
    return PriceCounts(
        version=PriceTable(store).version() or 0,
        last_closed=last_closed,
        tickers=len(table),
        total=_count("total", whole, "", outcome),
        worst=tuple(worst),
    )


def _count(ticker: str, row: Mapping[str, Any], gaps: str, outcome: str) -> TickerCount:
    facts: dict[str, Any] = {name: None if pd.isna(row[name]) else row[name].date() for name in ("first", "last")}
    facts |= {name: int(row[name]) for name in ("behind", "quarantined", "missing", "restated")}
    return TickerCount(ticker=ticker, stored=int(row["rows"]), gaps=gaps, outcome=outcome, **facts)


def _gaps(store: Store, tickers: list[str]) -> dict[str, str]:
    """The missing sessions of each ticker as a text, the newest first; one in quarantine with its rule."""
    if not tickers:
        return {}
    bad = QuarantineTable(store).read()
    rules = bad.drop_duplicates(["ticker", "session"], keep="last").set_index(["ticker", "session"])["rule"].to_dict()
    gaps = {}
    for ticker, known in PriceTable(store).sessions(tickers).items():
        first, last = known[[0, -1]].date
        lacking = sessions_between(first, last, calendar_of(store.url)).difference(known)[::-1]
        reasons = [rules.get((ticker, session)) for session in lacking]
        named = [
            f"{session:%Y-%m-%d}" + (f" ({reason})" if reason else "")
            for session, reason in zip(lacking, reasons, strict=True)
        ]
        gaps[ticker] = listed(named, NAMED_GAPS)
    return gaps
