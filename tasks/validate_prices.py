"""The rules that a daily bar must keep: which rows can be trained on, which go to quarantine, and when none is used.

1. a row that is there twice, alike, counts once
2. each rule looks at each row; the first one that a row breaks is its reason
3. rows without a broken rule are held against their neighbours (suspicious_rows.py)
4. rows without a broken rule go on; the later_adjustment of a ticker's last row goes to the last one that goes on, a
   bad row's dividend and split go to the next one
5. a history without a volume or on other sessions than the calendar's, and a ticker of which too many rows break a
   rule, is not used at all
"""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import pandera.pandas as pa

from volcast.models.calendar_fit import misfit
from volcast.models.calendar_names import NEW_YORK, market
from volcast.models.sessions import market_calendar
from volcast.models.text import counted
from volcast.tasks.sources.source import BAR_COLUMNS, Fetch, Outcome
from volcast.tasks.suspicious_rows import DIVIDEND_NOT_SHOWN, DIVIDEND_TOO_LARGE, implausible

PRICES = ["open", "high", "low", "close"]
NOT_BY_DEFAULT = {"dividend": 0.0, "split": 0.0, "later_adjustment": 1.0}  # shown where they differ
ROUNDING = 2e-6  # relative: Yahoo keeps 32-bit floats, so that a high may stand a hair below the close
LARGEST_EXACT = 2.0**53  # a float has no odd number above it
QUARANTINED = "{ticker}: {rows} quarantined ({kind}), the first of session {first:%Y-%m-%d}"
NOT_TRADED = "nothing was traded"
NEGATIVE_DIVIDEND, NEGATIVE_SPLIT = "a dividend is negative", "a split is negative"
FEW_BROKEN = 3  # rows, which are accidents whatever their share, unless they are more than half
NOTHING: Mapping[str, pd.DatetimeIndex] = {}
OF_EVENTS = [NEGATIVE_DIVIDEND, NEGATIVE_SPLIT, DIVIDEND_TOO_LARGE, DIVIDEND_NOT_SHOWN]
LOGGED = 10  # tickers and rules, or columns, at a time; the tables have all rows


class Judged(NamedTuple):
    """Bars by what the rules say of them; good and bad together are all rows, but for copies of a row."""

    good: pd.DataFrame  # BAR_COLUMNS
    bad: pd.DataFrame  # ticker, session, rule, value, seen_at; one row for each bad bar
    doubts: dict[str, list[str]]  # ticker -> a line for each good row that looks wrong


class Broken(NamedTuple):
    """Too many of one ticker's rows break a rule."""

    words: str
    share: float  # of its rows, rounded up to a percent: the limit that would let it pass


def split_by_rules(
    bars: pd.DataFrame, calendar: str = NEW_YORK, stored: Mapping[str, pd.DatetimeIndex] = NOTHING
) -> Judged:
    """The rows in order of ticker and session. `bars`: BAR_COLUMNS in any order of rows.

    `stored`: of each ticker the sessions that are stored: a bad row of one of them leaves the stored one, and with it
    its dividend and split.
    """
    bars = bars.loc[:, BAR_COLUMNS].drop_duplicates()
    bars = bars.sort_values(["ticker", "session"], kind="stable").reset_index(drop=True)
    rule = _broken_rules(bars, calendar)
    is_bad = rule.notna()
    good = _good_rows(bars, is_bad)
    unlikely, doubts = implausible(good)
    if len(unlikely):
        rule.iloc[np.flatnonzero(~is_bad)[unlikely.index]] = unlikely.to_numpy()
        is_bad = rule.notna()
        good = _good_rows(bars, is_bad)
    bad_rows = bars.loc[is_bad]
    bad = bad_rows[["ticker", "session"]].assign(
        rule=rule[is_bad], value=_shown(bad_rows), seen_at=pd.Timestamp(datetime.now(UTC))
    )
    is_stored = [session in stored.get(name, ()) for name, session in zip(bad["ticker"], bad["session"], strict=True)]
    is_lost = ~bad["rule"].isin(OF_EVENTS) & ~np.array(is_stored, dtype=bool)
    lost = bad_rows.loc[is_lost].assign(place=np.searchsorted(np.flatnonzero(~is_bad), bad_rows.index[is_lost]))
    good = _with_events_of(lost, good)
    return Judged(good, bad.reset_index(drop=True), doubts)


def refuse_unfit(whole: Fetch, calendar: str) -> Fetch:
    """`whole`, or why a history is none of volumes on the sessions of the calendar: not each row says it then."""
    if not np.any(whole.bars["volume"] > 0):
        rows = counted(len(whole.bars), "row")
        known = f"none of its {rows} has one; an index or a rate cannot be forecast here. Leave it out"
        return Fetch(ticker=whole.ticker, outcome=Outcome.NO_VOLUME, known=known)
    known = misfit(pd.DatetimeIndex(np.unique(whole.bars["session"].dropna())), calendar)
    return Fetch(ticker=whole.ticker, outcome=Outcome.WRONG_CALENDAR, known=known) if known else whole


def too_broken(
    good: pd.DataFrame, bad: pd.DataFrame, limit: float, stored: Mapping[str, pd.DatetimeIndex] = NOTHING
) -> dict[str, Broken]:
    """The tickers whose rows are not to be used, as more than `limit` of them are bad: a wrong unit, no bars.

    `stored`, of a source that is asked for what is missing only: a window is a part of the stored history, and a bad
    row of a session that is stored takes nothing away. A file is judged by itself. A session on which nothing was
    traded, as in a halt, is no fault of the source, unless most are such.
    """
    passed, failed = (good["ticker"].value_counts() if len(good) else pd.Series(dtype=int)).to_dict(), {}
    for name, rows_of in ((str(ticker), each) for ticker, each in bad.groupby("ticker")):
        came, is_halt = passed.get(name, 0) + len(rows_of), rows_of["rule"] == NOT_TRADED
        rows_of = rows_of if 2 * is_halt.sum() > came else rows_of.loc[~is_halt]
        sessions = pd.DatetimeIndex(rows_of["session"])
        known = stored.get(name, pd.DatetimeIndex([]))
        broken, rows = int((~sessions.isin(known)).sum()), max(came, len(known))
        if broken <= limit * rows or (broken <= FEW_BROKEN and broken * 2 <= rows):
            continue
        reasons = ", ".join(f"{count:,}: {reason}" for reason, count in rows_of["rule"].value_counts().head(2).items())
        words = (
            f"{name}: broken: {broken:,} of {counted(rows, 'row breaks', 'rows break')} a rule ({reasons}), the first "
            f"of session {sessions.min():%Y-%m-%d}; {limit:.0%} may"
        )
        failed[name] = Broken(words, min(math.ceil(100 * broken / rows) / 100, 1))
    return failed


def row_lines(rows: pd.DataFrame, kind: str, text: str) -> list[str]:
    """What to log of rows: `text` for each ticker and `kind` (a column), the most rows first; LOGGED, and the rest."""
    if rows.empty:
        return []
    kinds = pd.DataFrame(rows.groupby(["ticker", kind])["session"].agg(["size", "min"]))
    kinds = kinds.sort_values("size", ascending=False, kind="stable")
    lines = [
        text.format(ticker=ticker, kind=what, rows=counted(size, "row"), first=first)
        for (ticker, what), size, first in zip(kinds.index[:LOGGED], kinds["size"], kinds["min"], strict=False)
    ]
    rest = kinds["size"].iloc[LOGGED:]
    if len(rest):
        lines.append(
            f"and {counted(rest.sum(), 'row')} more, of "
            f"{counted(len(rest), f'other ticker and {kind}', f'other tickers and {kind}s')}"
        )
    return lines


def price_rules(calendar: str = NEW_YORK) -> pa.DataFrameSchema:
    """What a daily bar must be; the checks stand in the order in which the rules are named."""
    sessions = market_calendar(calendar).sessions.as_unit("s")  # nanoseconds could not be compared with 2400
    begin, end = sessions[0], sessions[-1]
    rules: dict[str, Callable[[pd.DataFrame], Any]] = {
        f"the market calendar begins in {begin.year}": lambda bars: bars["session"] >= begin,
        f"the market calendar ends on {end:%Y-%m-%d}": lambda bars: bars["session"] <= end,
        f"{market(calendar)} was closed on this date": lambda bars: bars["session"].isin(pd.Series(sessions)),
        "a value is missing": lambda bars: bars.notna().all(axis=1),
        "a price is not positive": lambda bars: ((bars[PRICES] > 0) & (bars[PRICES] < np.inf)).all(axis=1),
        "adj_close is not positive": lambda bars: bars["later_adjustment"] > 0,
        NOT_TRADED: lambda bars: bars["volume"] != 0,
        "volume is not positive": lambda bars: (bars["volume"] > 0) & (bars["volume"] < np.inf),
        "volume is too large to be exact": lambda bars: ~(bars["volume"] >= LARGEST_EXACT),
        "volume is not whole": lambda bars: bars["volume"] % 1 == 0,
        "high is below open, low or close": lambda bars: (
            bars["high"] >= bars[["open", "low", "close"]].max(axis=1) * (1 - ROUNDING)
        ),
        "low is above open or close": lambda bars: bars[["open", "close"]].min(axis=1) >= bars["low"] * (1 - ROUNDING),
        NEGATIVE_DIVIDEND: lambda bars: (bars["dividend"] >= 0) & (bars["dividend"] < np.inf),
        NEGATIVE_SPLIT: lambda bars: (bars["split"] >= 0) & (bars["split"] < np.inf),
        "two different rows of one session": lambda bars: ~bars.duplicated(["ticker", "session"], keep=False),
    }
    # ignore_na=False: a missing value is for the rules to see. n_failure_cases: pandera would spell out every cell of
    # every bad row, 40 s for a million of them; which rows fail stands in check_output.
    checks = [pa.Check(rule, error=name, ignore_na=False, n_failure_cases=1) for name, rule in rules.items()]
    columns = {name: pa.Column(float, nullable=True) for name in BAR_COLUMNS[2:]}
    return pa.DataFrameSchema({"ticker": pa.Column(str), "session": pa.Column("datetime64[s]"), **columns}, checks)


def _broken_rules(bars: pd.DataFrame, calendar: str) -> pd.Series:
    """The first rule that each row breaks, on the frame's index; None for a row without."""
    rule = pd.Series(None, index=bars.index, dtype="object")
    try:
        price_rules(calendar).validate(bars, lazy=True)
    except pa.errors.SchemaErrors as found:
        for error in found.schema_errors:
            check, holds = error.check, cast(pd.Series | None, error.check_output)
            assert isinstance(check, pa.Check), f"bars are not as sources promise them: {error}"
            assert holds is not None, f"a rule could not be tried: {error}"
            rule = rule.mask(~holds & rule.isna(), check.error)
    return rule


def _good_rows(bars: pd.DataFrame, is_bad: pd.Series) -> pd.DataFrame:
    """Of the later_adjustment only that of a ticker's last row counts, so it must not go to quarantine with that."""
    adjustment = bars["later_adjustment"]
    others = bars.loc[(adjustment > 0) & (adjustment != 1.0)]
    factors = others.groupby("ticker")["later_adjustment"].prod()
    good = bars.loc[~is_bad].reset_index(drop=True)
    last = good["ticker"].loc[good["ticker"] != good["ticker"].shift(-1)]
    return good.assign(
        later_adjustment=last.map(factors).astype("float64").fillna(1.0).reindex(good.index, fill_value=1.0)
    )


def _with_events_of(bad: pd.DataFrame, good: pd.DataFrame) -> pd.DataFrame:
    """The good rows with the dividends and splits of the bad ones: a bad volume does not undo them.

    Each goes to the ticker's next good row (`place`), where it has the same effect on all rows before; without one it
    is lost.
    """
    is_event = bad["dividend"].between(0, np.inf, "neither") | bad["split"].between(0, np.inf, "neither")
    events = bad.loc[is_event & (bad["place"] < len(good))]
    events = events.loc[good["ticker"].iloc[events["place"]].to_numpy() == events["ticker"].to_numpy()]
    events = events.groupby(["place", "session"])[["dividend", "split"]].max().fillna(0.0)
    for place, dividend, split in zip(events.index.get_level_values("place"), *events.to_numpy().T, strict=True):
        own = good.at[place, "split"]
        good.loc[place, "dividend"] += dividend
        good.loc[place, "split"] = own * split if own and split else own or split
    return good


def _shown(rows: pd.DataFrame) -> pd.Series:
    """`open=1 high=2 low=0.5 close=1 volume=0`, and dividend, split and later_adjustment where there are any."""
    texts = np.full(len(rows), "", dtype=object)
    for name in [*PRICES, "volume", *NOT_BY_DEFAULT]:
        values = rows[name].to_numpy()
        named = np.array([f" {name}={value:.15g}" for value in values], dtype=object)
        texts = texts + np.where(values == NOT_BY_DEFAULT.get(name), "", named)
    return pd.Series(texts, index=rows.index, dtype="object").str.strip()
