"""Prices and events that Python code brings: what is accepted of a frame, and the panel that is made of it.

A frame of prices is long, a row a ticker and session, in any order: unique_id (str), ds (a date) and y (shares); open,
high, low, close and adj_close (USD a share, adjusted for splits, the last one for dividends as well) where there are
any. pandas, polars and Arrow frames are taken. Without prices y alone is forecast from, which costs one to three
percent of the error.
"""

import time
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from volcast.models.calendar_names import NEW_YORK
from volcast.models.panel import FIELDS, MARKET, Panel, make_panel
from volcast.models.text import listed
from volcast.storage.adjustment import adjusted_close
from volcast.tasks.settings import MAX_BROKEN_SHARE, last_session
from volcast.tasks.sources.files import FileEvents
from volcast.tasks.sources.known_events import known_events
from volcast.tasks.sources.source import (
    BAR_COLUMNS,
    EVENT_COLUMNS,
    EventSource,
    Outcome,
    UnknownSource,
    open_event_source,
    open_source,
    why_not,
)
from volcast.tasks.validate_prices import refuse_unfit, row_lines, split_by_rules, too_broken

Frame = Any  # of pandas, or of whatever can be had by Arrow's C stream: polars, pyarrow, DuckDB
Events = str | Path | Frame | None
KEYS, VOLUME, PRICES = ["unique_id", "ds"], "y", ["open", "high", "low", "close"]
OF_BARS = {"unique_id": "ticker", "ds": "session", "y": "volume"}
UNSAID = {"dividend": 0.0, "split": 0.0, "later_adjustment": 1.0}
LEFT_OUT = "{ticker}: {rows} left out ({kind}), the first of session {first:%Y-%m-%d}"
BROKEN = "{ticker}: {rows} ({kind}), the first of session {first:%Y-%m-%d}"


class PricesRefused(ValueError):
    """A frame that is no prices, or rows of it that break a rule."""


class Given(NamedTuple):
    """What a forecast is made from."""

    panel: Panel
    events: pd.DataFrame  # EVENT_COLUMNS, kind, first_seen_assumed and source; what was known at the panel's cutoff


def load_prices(
    source: str | Path | Frame,
    tickers: Sequence[str] | None = None,
    *,
    calendar: str = NEW_YORK,
    through: date | None = None,
    max_broken_share: float = MAX_BROKEN_SHARE,
) -> pd.DataFrame:
    """The prices of a file, a folder or a URL (whatever `volcast ingest` reads), of "yahoo" or "simulated", or a frame.

    Rows that break a rule are left out, and named in a warning; so is, where there are others, a ticker that cannot be
    used, as one of which more than `max_broken_share` of the rows break a rule. What was taken for what, rounded or
    brought to today's shares is said in warnings too. `through`: the last session; by default the newest closed one.

    Returns unique_id, ds (datetime64[s]), and as float64 y, open, high, low, close, adj_close, dividend, split; by
    unique_id and ds. Raises PricesRefused where nothing is left, SourceError.
    """
    last = last_session(through, calendar=calendar)
    if isinstance(source, str | Path):
        bars, failed, said = _fetched(source, tickers, last, calendar)
    else:
        bars, failed, said = _bars(source), {}, []
    judged = split_by_rules(bars, calendar)
    for ticker, broken in too_broken(judged.good, judged.bad, max_broken_share).items():
        failed[ticker] = f"{broken.words}. If the others are right: max_broken_share={broken.share}"
    good = judged.good.loc[~judged.good["ticker"].isin(list(failed))].reset_index(drop=True)
    if good.empty:
        raise PricesRefused(f"No prices. {listed(list(failed.values()), 3, '; ')}.")
    said += [line for ticker, lines in judged.doubts.items() if ticker not in failed for line in lines]
    left_out = judged.bad.loc[~judged.bad["ticker"].isin(list(failed))]
    for line in [*failed.values(), *row_lines(left_out, "rule", LEFT_OUT), *said]:
        warnings.warn(line, stacklevel=2)
    named = good.assign(adj_close=adjusted_close(good)).rename(columns={own: name for name, own in OF_BARS.items()})
    return named.loc[:, [*KEYS, VOLUME, *PRICES, "adj_close", "dividend", "split"]]


def given(prices: Frame, events: Events, calendar: str) -> Given:
    """Prices and events on the grid of sessions. Raises PricesRefused for a row that breaks a rule, ModelError."""
    bars = _bars(prices)
    judged = split_by_rules(bars, calendar)
    if len(judged.bad):
        lines = listed(row_lines(judged.bad, "rule", BROKEN), 3, "; ")
        raise PricesRefused(f"{lines}. Mend these rows, or leave them out: volcast.load_prices(frame)")
    good = judged.good
    if "adj_close" in bars:
        if not bool((bars["adj_close"] > 0).all()):
            raise PricesRefused("Column adj_close: expected a price above 0 in each row. Mend it, or leave it out.")
        good = good.merge(bars.loc[:, ["ticker", "session", "adj_close"]].drop_duplicates())
    else:
        good = good.assign(adj_close=adjusted_close(good))
    known = _known(events, good, calendar)
    return Given(make_panel(good.loc[:, ["ticker", "session", *FIELDS]], known, calendar=calendar), known)


def _bars(prices: Frame) -> pd.DataFrame:
    """BAR_COLUMNS and, where it has it, adj_close, of a frame of prices."""
    frame = to_pandas(prices)
    _require_columns(frame, [*KEYS, VOLUME])
    there = [name for name in PRICES if name in frame]
    if there and len(there) < len(PRICES):
        raise PricesRefused(f"The frame has {', '.join(there)}: expected {', '.join(PRICES)}, or none of them.")
    if frame.empty:
        raise PricesRefused("The frame has no rows.")
    told = [VOLUME, *there, *(name for name in ("adj_close", *UNSAID) if name in frame)]
    numbers = {name: _numbers(frame, name) for name in told}
    flat = dict.fromkeys(() if there else PRICES, 1.0)
    bars = pd.DataFrame(
        {
            **keyed(frame),
            **UNSAID,
            **flat,
            **numbers,
        }
    ).rename(columns=OF_BARS)
    return bars.loc[:, [*BAR_COLUMNS, *(["adj_close"] if "adj_close" in bars else [])]].reset_index(drop=True)


def keyed(frame: pd.DataFrame) -> pd.DataFrame:
    """The unique_id (str) and the ds (datetime64[s]) of each row. Raises PricesRefused."""
    _require_columns(frame, KEYS)
    return pd.DataFrame({"unique_id": frame["unique_id"].astype(str), "ds": _sessions(pd.Series(frame["ds"]))})


def _require_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    if lacking := [name for name in names if name not in frame]:
        raise PricesRefused(f"The frame lacks {', '.join(lacking)}. It has {listed(list(map(str, frame.columns)))}.")


def to_pandas(frame: Frame) -> pd.DataFrame:
    """Any frame as one of pandas. Raises PricesRefused for what is none."""
    if isinstance(frame, pd.DataFrame):
        return frame
    if hasattr(frame, "__arrow_c_stream__"):
        return pa.table(frame).to_pandas()
    raise PricesRefused(f"Expected a frame of pandas, polars or Arrow; {type(frame).__name__} came.")


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    try:
        return frame[name].to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise PricesRefused(f"Column {name}: expected numbers ({error}).") from error


def _sessions(days: pd.Series) -> pd.Series:
    try:
        found = pd.Series(pd.to_datetime(days))
    except (TypeError, ValueError) as error:
        raise PricesRefused(f"Column ds: expected dates ({error}).") from error
    if found.dt.tz is not None or bool((found != found.dt.normalize()).any()):
        raise PricesRefused("Column ds: expected dates, the market's own, without a time of day or a time zone.")
    return found.astype("datetime64[s]")


def _fetched(
    source: str | Path, tickers: Sequence[str] | None, last: date, calendar: str
) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """BAR_COLUMNS of the tickers that came, why others did not, and what a person should know of what was read."""
    try:
        opened = open_source(str(source))
    except UnknownSource:
        opened = open_source(f"files:{source}")
    bars, failed = [], {}
    asked, said = tickers or opened.tickers(), list(opened.remarks)
    for ticker in asked:
        answer = opened.fetch(ticker, first=None, last=last)
        answer = refuse_unfit(answer, calendar) if len(answer.bars) else answer
        if answer.outcome == Outcome.OK:
            bars.append(answer.bars)
            said += answer.notes
        else:
            failed[ticker] = why_not(answer)
        if opened.pace:
            time.sleep(1 / opened.pace.calls_per_second)
    if not bars:
        raise PricesRefused(f"No prices. {listed(list(failed.values()), 3, '; ')}.")
    return pd.concat(bars, ignore_index=True), failed, said


def _known(events: Events, bars: pd.DataFrame, calendar: str) -> pd.DataFrame:
    """Given.events."""
    cutoff = cast(pd.Timestamp, bars["session"].max()).date()
    if events is None:
        return _standing(known_events([], as_of=cutoff, is_now=False, calendar=calendar), "")
    source = _event_source(events)
    asked = [*sorted(set(bars["ticker"])), *([MARKET] if source.knows_market else [])]
    answers = [source.announced(ticker, as_of=cutoff, calendar=calendar) for ticker in asked]
    for answer in answers:
        if answer.outcome not in (Outcome.OK, Outcome.EMPTY, Outcome.NOT_FOUND):
            warnings.warn(why_not(answer), stacklevel=4)
    is_now = cutoff == last_session(None, calendar=calendar)
    return _standing(known_events(answers, as_of=cutoff, is_now=is_now, calendar=calendar), source.spec)


def _standing(known: pd.DataFrame, source: str) -> pd.DataFrame:
    """Without the dates that another one has taken the place of."""
    standing = known.loc[known["withdrawn_seen"].isna()].sort_values(["ticker", "announced_for", "kind", "first_seen"])
    standing = standing.drop_duplicates(["ticker", "announced_for", "kind"]).assign(source=source)
    return standing.loc[:, [*EVENT_COLUMNS, "kind", "first_seen_assumed", "source"]].reset_index(drop=True)


def _event_source(events: Events) -> EventSource:
    if not isinstance(events, str | Path):
        return FileEvents("events", to_pandas(events))
    try:
        source = open_event_source(str(events))
    except UnknownSource:
        source = open_event_source(f"files:{events}")
    assert source is not None
    return source
