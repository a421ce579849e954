"""A file's own columns under the names and in the types of the product: text becomes numbers and dates.

HEADINGS is the one table of what columns are called; a unit in a heading is read by headings.py, numbers by numerals.py
and dates by dates.py. What is read but cannot be daily bars in shares is refused here: money or percentages as a
volume, volumes in thousands, bars of a week or an hour, several companies as one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from volcast.storage.adjustment import dividends_from_adj_close
from volcast.storage.announced_dates import EARNINGS, MARKET
from volcast.tasks.sources.as_traded import in_todays_shares
from volcast.tasks.sources.cells import require_no_meaning
from volcast.tasks.sources.dates import EXPECTED, sessions_of
from volcast.tasks.sources.headings import Meaning, Names, chosen_columns, letters, plain_heading
from volcast.tasks.sources.numerals import FEW_SHARES, NO_NUMBER, is_missing, is_typed, numbers_of, with_ratios
from volcast.tasks.sources.reading import FileReader
from volcast.tasks.sources.source import BAR_COLUMNS, EVENT_COLUMNS

REQUIRED = ["Date", "Open", "High", "Low", "Close", "Volume"]
HEADINGS = {  # a column's heading, whatever its case, accents, digits and punctuation -> its name here
    **dict.fromkeys(["session", "date", "datetime", "tradedate", "tradingdate", "tradingday", "datum"], "session"),
    **dict.fromkeys(["timestamp", "windowstart", "time", "day", "index", "t", "fecha", "data", "giorno"], "session"),
    **dict.fromkeys(["unnamed", "日付", "日付け", "日期", "交易日期", "날짜", "일자"], "session"),
    **dict.fromkeys(["open", "openprice", "opening", "openingprice", "first", "o", "eröffnung", "eröffn"], "open"),
    **dict.fromkeys(["eröffnungskurs", "erster", "ouverture", "ouv", "apertura", "abertura"], "open"),
    **dict.fromkeys(["始値", "开盘", "开盘价", "시가"], "open"),
    **dict.fromkeys(["high", "highprice", "dayhigh", "h", "max", "hoch", "tageshoch", "höchst", "plushaut"], "high"),
    **dict.fromkeys(["haut", "máximo", "massimo", "máxima", "高値", "最高", "最高价", "고가"], "high"),
    **dict.fromkeys(["low", "lowprice", "daylow", "l", "min", "tief", "tagestief", "tiefst", "plusbas"], "low"),
    **dict.fromkeys(["bas", "mínimo", "minimo", "mínima", "安値", "最低", "最低价", "저가"], "low"),
    **dict.fromkeys(["close", "closeprice", "closing", "closingprice", "closelast", "c", "schluss"], "close"),
    **dict.fromkeys(["price", "last", "lastprice", "schlusskurs", "letzter", "zuletzt", "dernier", "cloture"], "close"),
    **dict.fromkeys(["clot", "último", "ultimo", "cierre", "chiusura", "終値", "收盘", "收盘价", "종가"], "close"),
    **dict.fromkeys(["adjclose", "adjustedclose", "closeadj", "closeadjusted", "adjusted", "調整後終値"], "adj_close"),
    **dict.fromkeys(["volume", "vol", "v", "sharevolume", "sharestraded", "noofshares", "numberofshares"], "volume"),
    **dict.fromkeys(["volumetraded", "tradedvolume", "totaltradedquantity", "tottrdqty", "quantity", "qty"], "volume"),
    **dict.fromkeys(["volumen", "volumes", "volumi", "stück", "stücke", "stuecke", "出来高", "거래량"], "volume"),
    **dict.fromkeys(["ticker", "symbol", "sym", "tic", "tickersymbol", "stocksymbol", "tscode", "actsymbol"], "ticker"),
    **dict.fromkeys(["uniqueid", "instrument", "code", "stockcode", "secid", "permno", "isin", "cusip"], "ticker"),
    **dict.fromkeys(["name", "asset", "stock", "security", "company", "underlying", "コード", "股票代码"], "ticker"),
    **dict.fromkeys(["dividend", "dividends", "divcash", "dividendamount", "exdividend"], "dividend"),
    **dict.fromkeys(["split", "splits", "stocksplits", "splitfactor", "splitcoefficient", "splitratio"], "split"),
    **dict.fromkeys(["adjvolume", "adjustedvolume", "volumeadj", "volumeadjusted"], "adj_volume"),
    **dict.fromkeys(["per", "period", "interval", "timeframe", "frequency"], "period"),
}
WEAK = (  # those of them that also have other meanings: they count where no other column means the same
    "timestamp windowstart time day data first max min price last adjusted quantity qty volumen volumes volumi "
    "uniqueid instrument code stockcode secid permno isin cusip name asset stock security company underlying コード",
    "unnamed index t o h l c v",
)
PRICE_NAMES = Names(tuple(HEADINGS.items()), tuple(frozenset(map(letters, words.split())) for words in WEAK))
NOT_DAILY = r"(?:\d+ ?)?(?:w|wk|weeks?|weekly|m|mo|mon|months?|monthly|q|h|hr|hours?|hourly|min|minutes?)|[1-9]\d{0,2}"
EARNINGS_REQUIRED, EVENTS_REQUIRED = ["Ticker", "Earnings_Date"], ["Date", "Event"]  # the latter are of any kind
EVENT_HEADINGS = {
    "ticker": "ticker",
    "symbol": "ticker",
    "earningsdate": "announced_for",
    "date": "announced_for",
    "event": "kind",
    "when": "when",
    "firstseen": "first_seen",
}
EVENT_NAMES = Names(tuple(EVENT_HEADINGS.items()))
NO_TICKER = "is no ticker. Expected one in every row."
# Of the 14,132 dividends recovered from 230 tickers the smallest real one is 1.8e-5 of the close, and the largest that
# is only rounding (a step up and down again) 7.3e-8.
SMALLEST_DIVIDEND = 1e-6
DAYS_APART = 4  # between the bars of a week or longer; a holiday makes the gap of a weekend one day longer
FEWEST_ROWS = 6  # of which one can say how far they are apart


@dataclass(frozen=True)
class Tidied:
    """A file's rows under the names and in the types of here; `faults` says of rows (by the index) why they cannot be.

    Columns: session (datetime64[s]), open, high, low, close, volume and, where the file has them, adj_close,
    adj_volume, dividend, split (float64), ticker (str).
    """

    frame: pd.DataFrame
    faults: pd.Series


def tidy(raw: pd.DataFrame, reader: FileReader) -> Tidied:
    """A file's own columns under the names of here; others, and lines that are no prices, are left out.

    `raw`: cells as text or typed; its index, with its name, says where a row stands. Raises SourceUnusable for what
    spoils all rows; a value that spoils its own row is a fault of that.
    """
    columns, scales = _columns(raw, reader, PRICE_NAMES, REQUIRED, "Adj Close")
    if "period" in columns:
        _require_daily(columns.pop("period"), reader)
    numeric = {name: column for name, column in columns.items() if name not in ("session", "ticker")}
    if "split" in numeric:
        numeric["split"] = with_ratios(numeric["split"])
    sessions = sessions_of(columns["session"], reader)
    if sessions.isna().any() and (no_row := _no_rows(sessions, columns)).any():
        _note_no_rows(raw.loc[no_row], raw.columns, reader)
        return tidy(raw.loc[~no_row], reader)
    faults = _faults(pd.Series(dtype="object"), sessions.isna(), columns["session"], EXPECTED, reader)
    found = {"session": sessions}
    for name, numbers in numbers_of(numeric, reader, is_scaled=scales["volume"] != 1).items():
        if not is_typed(columns[name]):  # what is infinite there is a row for the rules
            faults = _faults(faults, numbers.abs() == np.inf, columns[name], NO_NUMBER, reader)
        found[name] = numbers * scales[name] if scales[name] != 1 else numbers
    if "ticker" in columns:
        found["ticker"] = _tickers(columns["ticker"], reader)
    return Tidied(pd.DataFrame(found), faults)


def tidy_events(raw: pd.DataFrame, reader: FileReader) -> pd.DataFrame:
    """EVENT_COLUMNS and kind for a calendar's own columns: Ticker and Earnings_Date, or Date and Event.

    Where it has them, When and First_Seen, which may be empty, and beside Event a Ticker, which is empty for the whole
    market. `raw` and what is raised: as for `tidy`; rows that are there twice come once, and no value may be at fault.
    """
    found = [EVENT_NAMES.find(plain_heading(heading), reader) for heading in raw.columns]
    has_kinds = any(meaning and meaning.name == "kind" for meaning in found)
    required, optional = (EVENTS_REQUIRED, "Ticker") if has_kinds else (EARNINGS_REQUIRED, "When")
    columns, _ = _columns(raw, reader, EVENT_NAMES, required, optional)
    tidied = {name: OF_EVENTS[name](column, reader) for name, column in columns.items()}
    unsaid = {"ticker": MARKET, "when": "", "first_seen": pd.NaT, "kind": EARNINGS}
    events = pd.DataFrame(unsaid | tidied, index=raw.index, columns=[*EVENT_COLUMNS, "kind"])
    is_nobodys = pd.Series((events["ticker"] == MARKET) & (events["kind"] == EARNINGS))
    if "ticker" in columns:
        _refuse_first(is_nobodys, columns["ticker"], reader, NO_TICKER)
    elif is_nobodys.any():
        reader.refuse("no column Ticker. Expected one, for earnings are of a ticker.")
    return events.astype({"first_seen": "datetime64[s]"}).drop_duplicates()


def plausible(rows: pd.DataFrame, ticker: str, reader: FileReader) -> pd.DataFrame:
    """The rows of one ticker, volumes in whole shares. Raises SourceUnusable for what is no daily bars in shares."""
    sessions, volume = rows["session"].to_numpy(), pd.Series(rows["volume"])
    if len(rows) >= FEWEST_ROWS and np.ptp(sessions) >= np.timedelta64(2 * len(rows), "D"):  # else most are a day apart
        _require_days(np.unique(sessions), ticker, reader)
    parts = volume.to_numpy()[volume.to_numpy() % 1 > 0]
    if not len(parts):
        return rows
    _require_shares(volume, parts[0], ticker, reader)
    reader.note(
        f"{ticker}: {len(parts):,} of {len(rows):,} volumes are fractions of a share, such as "
        f"{parts[0]:.15g}; rounded to shares"
    )
    return rows.assign(volume=volume.round())


@np.errstate(over="ignore", under="ignore")  # of prices such as 1e302: what is not finite afterwards breaks a rule
def bars_of(ticker: str, rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """BAR_COLUMNS by session, and lines on what was changed; prices that are as traded come out in today's shares.

    Dividends are the file's own or, where it has only Adj Close, recovered from that. Raises Contradiction.
    """
    # A row that is there twice must go first: the second copy would get neither dividend nor later_adjustment.
    bars = rows.drop_duplicates().sort_values("session", kind="stable").reset_index(drop=True)
    bars, notes = in_todays_shares(ticker, bars)
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
    return bars.loc[:, BAR_COLUMNS], notes


def _columns(
    raw: pd.DataFrame, reader: FileReader, names: Names, required: Sequence[str], optional: str
) -> tuple[dict[str, pd.Series], dict[str, float]]:
    """The columns that matter, by their names here, and the factors of their units."""
    headings = [plain_heading(heading) for heading in raw.columns]
    wanted = [meaning.name for heading in required if (meaning := names.find(heading, FileReader("")))]
    chosen = chosen_columns(headings, names, reader, wanted)
    if "session" in wanted and "session" not in chosen and headings[:1] == [""]:  # of pandas, an index without a name
        chosen["session"] = 0, Meaning("session")
    lacking = [heading for heading, name in zip(required, wanted, strict=True) if name not in chosen]
    if lacking:
        found = ", ".join(headings[:12]) or "none"
        reader.refuse(
            f"no column {', '.join(lacking)}. Expected {', '.join(required)} (and, if there is, {optional}); "
            f"found {found[:200]}. If one of them is it, say which by: --columns HEADING={lacking[0].lower()}"
        )
    scales = {name: meaning.scale for name, (_, meaning) in chosen.items()}
    if scales.get("volume", 1.0) != 1.0:
        heading = headings[chosen["volume"][0]]
        reader.note(f"{heading} was taken times {scales['volume']:,.0f}, as shares")
    return {name: raw.iloc[:, position] for name, (position, _) in chosen.items()}, scales


def _require_daily(column: pd.Series, reader: FileReader) -> None:
    grains = column.astype(str).str.strip().str.lower().unique()
    if odd := [grain for grain in grains if re.fullmatch(NOT_DAILY, grain)]:
        reader.refuse(f"column {column.name} says {odd[0]!r}. Expected daily bars; nothing was taken.")


def _no_rows(sessions: pd.Series, columns: dict[str, pd.Series]) -> pd.Series:
    """Rows without a date that have no price and no volume either, or the heading once more."""
    values = [columns[name] for name in ("open", "high", "low", "close", "volume")]
    is_empty = np.logical_and.reduce([is_missing(column) for column in values])
    is_heading = np.logical_and.reduce(
        [column.astype(str).str.strip() == str(column.name).strip() for column in values]
    )
    return sessions.isna() & (is_empty | is_heading)


def _note_no_rows(rows: pd.DataFrame, headings: pd.Index, reader: FileReader) -> None:
    texts = rows.astype(str).agg(" ".join, axis=1).str.strip()
    require_no_meaning([text for text in texts if text.split() != [str(name).strip() for name in headings]], reader)


def _require_days(sessions: np.ndarray, ticker: str, reader: FileReader) -> None:
    """Refuse bars of a week or a month."""
    apart = np.median(np.diff(sessions) / np.timedelta64(1, "D")) if len(sessions) >= FEWEST_ROWS else 1
    if apart >= DAYS_APART:
        reader.refuse(
            f"{ticker}: a row every {apart:.0f} days, from {str(sessions[0])[:10]} to {str(sessions[-1])[:10]}. "
            "Expected one a session: bars of a week or a month are no daily bars. Nothing was taken; get the daily ones"
        )


def _require_shares(volume: pd.Series, shown: float, ticker: str, reader: FileReader) -> None:
    """Refuse volumes that are counted in hundreds, thousands or millions: halves are left by a split, these are not."""
    if reader.reading.tells_volume:
        return
    known = volume.to_numpy()[np.isfinite(volume)]
    what = "thousands or millions of them" if np.median(known) < FEW_SHARES else ""
    for unit in (100, 1000):
        units = np.rint(known * unit)
        parts = units % unit
        is_counted = np.allclose(known * unit, units, rtol=0, atol=1e-3)
        if is_counted and (parts != 0).mean() > 0.5 and len(np.unique(parts)) > min(20, len(known) / 4):
            what = what or f"lots of {unit} shares"
    if what:
        reader.refuse(
            f"{ticker}: volumes such as {shown:.15g} are no counts of shares, but perhaps {what}. Nothing was taken. "
            "Say the unit, by the heading: --columns Volume=volume*100, *1000 or *1000000 (or =volume, for shares)"
        )


def _faults(known: pd.Series, is_wrong: pd.Series, column: pd.Series, fact: str, reader: FileReader) -> pd.Series:
    """The faults known, and those of a column; the first of a row stays. More than half of all rows are the file's."""
    if not is_wrong.any():
        return known
    if is_wrong.mean() > 0.5:
        _refuse_first(is_wrong, column, reader, fact)
    texts = {row: _fault(column, row, fact) for row in column.index[is_wrong.to_numpy()] if row not in known.index}
    return pd.concat([known, pd.Series(texts, dtype="object")]).sort_index()


def _fault(column: pd.Series, row: object, fact: str) -> str:
    place = f"{column.index.name} {row}, column {column.name}"
    return f"{place}: {str(column.at[row])[:60]!r} {fact} Correct it; nothing was taken."


def _dates(column: pd.Series, reader: FileReader) -> pd.Series:
    dates = sessions_of(column, reader)
    _refuse_first(dates.isna(), column, reader, EXPECTED)
    return dates


def _dates_if_any(column: pd.Series, reader: FileReader) -> pd.Series:
    """NaT where nothing stands."""
    stands = ~is_missing(column)
    return _dates(column.loc[stands], reader).reindex(column.index) if stands.any() else pd.Series(pd.NaT, column.index)


def _kinds(column: pd.Series, reader: FileReader) -> pd.Series:
    """In lower case, with one underscore for what stands between words."""
    texts = column.astype(object).where(~is_missing(column), "").astype(str)
    kinds = texts.str.strip().str.casefold().str.replace(r"[\s_-]+", "_", regex=True)
    _refuse_first(kinds == "", column, reader, "is no event. Expected a word or two for its kind in every row.")
    return kinds


def _when(column: pd.Series, reader: FileReader) -> pd.Series:
    texts = column.astype(str).str.strip().str.lower()
    texts = texts.mask(is_missing(column), "")
    fact = "is neither bmo (before the open) nor amc (after the close). Expected one of them, or nothing."
    _refuse_first(~texts.isin(["", "bmo", "amc"]), column, reader, fact)
    return texts


def _tickers(column: pd.Series, reader: FileReader) -> pd.Series:
    texts = ticker_texts(column)
    _refuse_first(texts == "", column, reader, NO_TICKER)
    return texts


def ticker_texts(column: pd.Series) -> pd.Series:
    """In upper case; 7203, for a code that has become 7203.0 on its way; empty for none."""
    texts = column.astype(object).where(column.notna(), "").astype(str).str.strip().str.upper()
    if texts.str.fullmatch(r"\d+\.0").all():
        texts = texts.str.removesuffix(".0")
    return texts


def _refuse_first(is_wrong: pd.Series, column: pd.Series, reader: FileReader, fact: str) -> None:
    if is_wrong.any():
        reader.refuse(_fault(column, column.index[int(is_wrong.to_numpy().argmax())], fact))


OF_EVENTS = {
    "ticker": lambda column, _: ticker_texts(column),  # MARKET for none
    "announced_for": _dates,
    "kind": _kinds,
    "when": _when,
    "first_seen": _dates_if_any,
}
