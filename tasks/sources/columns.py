"""A file's own columns under the names and in the types of the product: text becomes numbers and dates.

Numbers may be quoted with thousands separators, as in Yahoo's own download ("1,234,500"); empty cells and MISSING
are missing values. A date is the exchange's own: see `_sessions`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd

from storage.adjustment import dividends_from_adj_close
from tasks.sources.source import BAR_COLUMNS, EVENT_COLUMNS, SourceUnusable

MARKET_TIME_ZONE = "America/New_York"
REQUIRED = ["Date", "Open", "High", "Low", "Close", "Volume"]
HEADINGS = {  # the letters of a column's heading -> its name here
    "session": "session",
    "date": "session",
    "datetime": "session",
    **{name: name for name in ("ticker", "open", "high", "low", "close", "volume", "dividend", "split")},
    "adjclose": "adj_close",
    "adjustedclose": "adj_close",
    "dividends": "dividend",
    "splits": "split",
    "stocksplits": "split",
    "symbol": "ticker",
}
EVENTS_REQUIRED = ["Ticker", "Earnings_Date"]
EVENT_HEADINGS = {
    "ticker": "ticker",
    "symbol": "ticker",
    "earningsdate": "announced_for",
    "date": "announced_for",
    "when": "when",
    "firstseen": "first_seen",
}
MISSING = ["", "-", "null", "none", "nan", "na", "n/a"]  # in any case
THOUSANDS = r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?"
STAMP = (
    r"^(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<time>\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?) ?(?P<zone>Z|UTC|[+-]\d{2}:?\d{2})?)?$"
)
UTC_ZONE = r"Z|UTC|[+-]00:?00"
# Of the 14,132 dividends recovered from 230 tickers the smallest real one is 1.8e-5 of the close, and the largest that
# is only rounding (a step up and down again) 7.3e-8.
SMALLEST_DIVIDEND = 1e-6


def name_of(heading: object, names: Mapping[str, str] = HEADINGS) -> str | None:
    """The name here of a column, in whatever case and punctuation; None for a column that does not matter."""
    return names.get(re.sub(r"[^a-z]", "", str(heading).lower()))


def tidy(raw: pd.DataFrame, file: str) -> pd.DataFrame:
    """A file's own columns under the names and in the types of here; others are left out, rows stay as they are.

    Gives session (datetime64[s]), open, high, low, close, volume and, where the file has them, adj_close, dividend,
    split (float64), ticker (str). `raw`: cells as text or typed; its index, with its name, says where a row stands.
    Raises SourceUnusable, naming the file and, where there is one, the row, column and value.
    """
    columns = _columns(raw, file, HEADINGS, REQUIRED, "Adj Close")
    readers = {"session": _sessions, "ticker": _tickers}
    return pd.DataFrame({name: readers.get(name, _numbers)(column, file) for name, column in columns.items()})


def tidy_events(raw: pd.DataFrame, file: str) -> pd.DataFrame:
    """EVENT_COLUMNS for a calendar's own columns Ticker, Earnings_Date and, where it has them, When and First_Seen.

    `raw` and what is raised: as for `tidy`; rows that are there twice come once.
    """
    columns = _columns(raw, file, EVENT_HEADINGS, EVENTS_REQUIRED, "When")
    readers = {"ticker": _tickers, "when": _when}
    tidied = {name: readers.get(name, _sessions)(column, file) for name, column in columns.items()}
    unknown = pd.Series(pd.NaT, index=raw.index, dtype="datetime64[s]")
    events = pd.DataFrame({"when": "", "first_seen": unknown} | tidied, index=raw.index, columns=EVENT_COLUMNS)
    return events.drop_duplicates()


def bars_of(ticker: str, rows: pd.DataFrame) -> pd.DataFrame:
    """BAR_COLUMNS by session; dividends are the file's own or, where it has only Adj Close, recovered from that."""
    # A row that is there twice must go first: the second copy would get neither dividend nor later_adjustment.
    bars = rows.drop_duplicates().sort_values("session", kind="stable").reset_index(drop=True)
    bars = bars.assign(ticker=ticker, later_adjustment=1.0)
    if "adj_close" in bars:
        close, adj_close = bars["close"].to_numpy(), bars["adj_close"].to_numpy()
        usable = (close > 0) & (adj_close > 0) & np.isfinite(close) & np.isfinite(adj_close)
        dividend, later = dividends_from_adj_close(close[usable], adj_close[usable])
        dividend[1:] = np.where(np.abs(dividend[1:]) < SMALLEST_DIVIDEND * close[usable][:-1], 0.0, dividend[1:])
        bars.loc[usable, "later_adjustment"] = later
        # No factor makes such a row; the rules will name it.
        bars.loc[~usable & ~np.isnan(adj_close) & (close > 0), "later_adjustment"] = -1.0
        if "dividend" not in bars:
            bars["dividend"] = 0.0
            bars.loc[usable, "dividend"] = dividend
    for name in ("dividend", "split"):
        bars[name] = bars[name].fillna(0.0) if name in bars else 0.0
    return bars.loc[:, BAR_COLUMNS]


def _columns(
    raw: pd.DataFrame, file: str, names: Mapping[str, str], required: Sequence[str], optional: str
) -> dict[str, pd.Series]:
    """The columns that matter, by their names here."""
    columns: dict[str, pd.Series] = {}
    for position, heading in enumerate(raw.columns):
        name = name_of(heading, names)
        if name in columns:
            raise SourceUnusable(
                f"{file}: the columns {columns[name].name} and {heading} mean the same. Expected one; take one out."
            )
        if name is not None:
            columns[name] = raw.iloc[:, position]
    lacking = [heading for heading in required if name_of(heading, names) not in columns]
    if lacking:
        found = ", ".join(str(heading) for heading in raw.columns[:12]) or "none"
        raise SourceUnusable(
            f"{file}: no column {', '.join(lacking)}. Expected {', '.join(required)} "
            f"(and, if there is, {optional}); found {found[:200]}."
        )
    return columns


def _when(column: pd.Series, file: str) -> pd.Series:
    texts = column.astype(str).str.strip().str.lower()
    texts = texts.mask(column.isna() | texts.isin(MISSING), "")
    fact = "is neither bmo (before the open) nor amc (after the close). Expected one of them, or nothing."
    _refuse_first(~texts.isin(["", "bmo", "amc"]), column, file, fact)
    return texts


def _tickers(column: pd.Series, file: str) -> pd.Series:
    texts = column.astype(str).str.strip().str.upper()
    _refuse_first(texts == "", column, file, "is no ticker. Expected one in every row.")
    return texts


def _numbers(column: pd.Series, file: str) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return column.astype("float64")
    texts = column.astype(str).str.strip()
    is_missing = column.isna() | texts.str.lower().isin(MISSING)
    bare = texts.where(~texts.str.fullmatch(THOUSANDS), texts.str.replace(",", ""))
    numbers = cast(pd.Series, pd.to_numeric(bare.mask(is_missing), errors="coerce")).astype("float64")
    is_wrong = ~np.isfinite(numbers) & ~is_missing
    _refuse_first(is_wrong, column, file, "is not a number. Expected one, or nothing where the value is missing.")
    return numbers


def _sessions(column: pd.Series, file: str) -> pd.Series:
    """The dates on the exchange's wall clock: with a time zone, the date as written, whatever the offset.

    Stamps in UTC are labels of dates when all are midnights, else instants, which are taken to New York.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        local, utc = column.dt.tz_localize(None), column.dt.tz_convert("UTC").dt.tz_localize(None)
        dates = _from_utc(utc) if local.equals(utc) else local
    elif pd.api.types.is_datetime64_dtype(column.dtype):
        dates = column
    else:
        dates = _dates_of_text(column.astype(str).str.strip())
    _refuse_first(dates.isna(), column, file, "is not a date. Expected YYYY-MM-DD, such as 2019-12-11.")
    return dates.dt.normalize().astype("datetime64[s]")


def _dates_of_text(texts: pd.Series) -> pd.Series:
    """Naive datetimes, NaT for a text that is not a date."""
    found = texts.str.extract(STAMP)
    dates = cast(pd.Series, pd.to_datetime(found["date"], format="%Y-%m-%d", errors="coerce"))
    is_utc = found["zone"].str.fullmatch(UTC_ZONE).fillna(False).astype(bool) & dates.notna()
    stamps = found.loc[is_utc, "date"] + " " + found.loc[is_utc, "time"]
    utc = cast(pd.Series, pd.to_datetime(stamps, format="ISO8601", errors="coerce"))
    return pd.concat([dates.loc[~is_utc], _from_utc(utc)]).reindex(texts.index)


def _from_utc(utc: pd.Series) -> pd.Series:
    if (utc.dt.normalize() == utc).all():
        return utc
    return utc.dt.tz_localize("UTC").dt.tz_convert(MARKET_TIME_ZONE).dt.tz_localize(None)


def _refuse_first(is_wrong: pd.Series, column: pd.Series, file: str, fact: str) -> None:
    if is_wrong.any():
        row = int(is_wrong.to_numpy().argmax())
        place = f"{column.index.name} {column.index[row]}, column {column.name}"
        raise SourceUnusable(f"{file}: {place}: {str(column.iloc[row])[:60]!r} {fact} Correct it; nothing was taken.")
