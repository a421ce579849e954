"""Prices and earnings dates from Yahoo through yfinance: `yahoo`."""

import tempfile
from collections.abc import Sequence
from datetime import date, timedelta
from functools import lru_cache
from json import JSONDecodeError

import numpy as np
import pandas as pd
import yfinance
from curl_cffi.requests.exceptions import HTTPError, RequestException
from yfinance.data import YfData
from yfinance.exceptions import (
    YFDataException,
    YFException,
    YFPricesMissingError,
    YFRateLimitError,
    YFTickerMissingError,
)

from volcast.models.calendar_names import NEW_YORK
from volcast.models.sessions import FIRST_DATE, market_hours
from volcast.storage.errors import first_line
from volcast.tasks.sources.as_traded import Contradiction, in_todays_shares
from volcast.tasks.sources.source import BAR_COLUMNS, EVENT_COLUMNS, Announced, Fetch, Outcome, Pace

NO_DATA_IN_WINDOW = "Data doesn't exist for startDate"
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError)  # what yfinance trips over in an odd answer
NO_ROWS = "delisted, or no session in the window"
NO_TICKER = "an unknown or delisted ticker"
TIMEOUT_SECONDS = 30
MOST_DATES = 100  # of one page
COLUMNS = {
    "Open": "open",
    "High": "high",
    "Low": "low",
    "Close": "close",
    "Volume": "volume",
    "Dividends": "dividend",
    "Stock Splits": "split",
}


class YahooSource:
    """Daily bars as Yahoo gives them today: adjusted for splits, not for dividends."""

    spec = "yahoo"
    knows_market = False
    incremental = True
    remarks: Sequence[str] = ()
    pace: Pace | None = Pace(limit="volcast-yahoo", calls_per_second=2.0, pause_seconds=30.0)

    def tickers(self) -> list[str]:
        """SBUX: Yahoo has no list of its own."""
        return ["SBUX"]

    def fetch(self, ticker: str, *, first: date | None, last: date) -> Fetch:
        """One call for one ticker; whatever Yahoo answers becomes a typed outcome."""
        _fresh()
        try:
            history = yfinance.Ticker(ticker).history(
                interval="1d",
                start=first or FIRST_DATE,  # no calendar could check earlier rows
                end=last + timedelta(days=1),  # Yahoo's end is exclusive
                prepost=False,
                actions=True,
                auto_adjust=False,
                back_adjust=False,
                repair=False,
                keepna=True,
                rounding=False,
                timeout=TIMEOUT_SECONDS,
            )
        except (YFException, RequestException, OSError, *UNREADABLE) as error:
            return _failed(ticker, error)
        return _typed(ticker, history, last)

    def announced(self, ticker: str, *, as_of: date, calendar: str = NEW_YORK) -> Announced:  # noqa: ARG002  # of now
        """One call: the newest hundred dates of Yahoo's earnings page, as they stand now; no first_seen."""
        _fresh()
        try:
            dates = yfinance.Ticker(ticker).get_earnings_dates(limit=MOST_DATES)
        except (YFException, RequestException, OSError, *UNREADABLE) as error:
            failure = _failed(ticker, error)
            return Announced(ticker=ticker, outcome=failure.outcome, known=failure.known)
        if dates is None or dates.empty:  # yfinance does not look at the status, so that it may be an error's page, too
            return Announced(ticker=ticker, outcome=Outcome.NOT_FOUND, known="no table on Yahoo's page of its earnings")
        said, hours = pd.DatetimeIndex(dates.index).tz_convert("America/New_York"), market_hours(calendar)
        times = said.tz_convert(hours.zone).tz_localize(None)
        clock, is_known = times - times.normalize(), said != said.normalize()  # midnight: unknown
        columns = {
            "ticker": ticker,
            "announced_for": times.normalize().as_unit("s"),
            "when": np.select([is_known & (clock >= hours.close), is_known & (clock < hours.open)], ["amc", "bmo"], ""),
            "first_seen": pd.Series(pd.NaT, index=range(len(times)), dtype="datetime64[s]"),
        }
        return Announced(ticker=ticker, outcome=Outcome.OK, events=pd.DataFrame(columns, columns=EVENT_COLUMNS))


def _fresh() -> None:
    """Let yfinance ask Yahoo, and not its cache of what this process asked before.

    The clearing is no public part of yfinance; drop it when tests/test_yahoo.py says that it asks by itself.
    """
    _own_cache_folder()
    YfData.cache_get.cache_clear()


@lru_cache(maxsize=1)
def _own_cache_folder() -> tempfile.TemporaryDirectory[str]:
    """A cache folder of this process alone, gone at its end: yfinance's SQLite cache is made for one writer."""
    folder = tempfile.TemporaryDirectory(prefix="volcast-yfinance-")
    yfinance.set_tz_cache_location(folder.name)
    yfinance.config.debug.hide_exceptions = False  # a 429 must not look like an empty frame
    return folder


def _failed(ticker: str, error: Exception) -> Fetch:
    """What an error of yfinance means."""
    known = first_line(error)
    match error:
        case YFRateLimitError():
            return Fetch(ticker=ticker, outcome=Outcome.RATE_LIMITED, known=known)
        case YFPricesMissingError() if error.yahoo_reason is None or NO_DATA_IN_WINDOW in error.yahoo_reason:
            return Fetch(ticker=ticker, outcome=Outcome.EMPTY, known=error.rationale, guessed=NO_ROWS)
        case YFTickerMissingError():
            return Fetch(ticker=ticker, outcome=Outcome.NOT_FOUND, known=error.rationale, guessed=NO_TICKER)
        case HTTPError() if getattr(error.response, "status_code", None) == 404:  # for a ticker without a chart, too
            return Fetch(ticker=ticker, outcome=Outcome.NOT_FOUND, known=known, guessed=NO_TICKER)
        case YFDataException() | JSONDecodeError() | RequestException() | OSError():
            return Fetch(ticker=ticker, outcome=Outcome.DOWN, known=known, guessed="no network, or Yahoo is down")
    return Fetch(ticker=ticker, outcome=Outcome.BAD_SCHEMA, known=f"{type(error).__name__}: {known}")


def _typed(ticker: str, history: pd.DataFrame, last: date) -> Fetch:
    """Bars from yfinance's frame; its index holds the exchange's midnights."""
    lacking = [name for name in COLUMNS if name not in history]
    if not history.empty and (lacking or not isinstance(history.index, pd.DatetimeIndex)):
        known = f"no column {', '.join(lacking)} in Yahoo's answer" if lacking else "Yahoo's answer has no dates"
        return Fetch(ticker=ticker, outcome=Outcome.BAD_SCHEMA, known=known)
    sessions = pd.DatetimeIndex(history.index).tz_localize(None).normalize()
    chosen = history.loc[sessions <= pd.Timestamp(last)]
    if chosen.empty:
        return Fetch(ticker=ticker, outcome=Outcome.EMPTY, known="Yahoo answered without rows", guessed=NO_ROWS)
    columns = {ours: chosen[theirs].to_numpy("float64") for theirs, ours in COLUMNS.items()}
    bars = pd.DataFrame(columns).assign(ticker=ticker, session=sessions[sessions <= pd.Timestamp(last)].as_unit("s"))
    bars["volume"] = bars["volume"].where(bars["volume"] > 0)  # a null volume arrives as 0
    bars = bars.assign(later_adjustment=1.0).fillna({"dividend": 0.0, "split": 0.0})
    try:
        bars, notes = in_todays_shares(ticker, bars)  # Yahoo fails to apply a split now and then
    except Contradiction as error:
        return Fetch(ticker=ticker, outcome=Outcome.BAD_SCHEMA, known=str(error))
    return Fetch(ticker=ticker, outcome=Outcome.OK, bars=bars.loc[:, BAR_COLUMNS], notes=notes)
