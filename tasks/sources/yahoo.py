"""Prices from Yahoo through yfinance: `yahoo`."""

import tempfile
from datetime import date, timedelta
from functools import lru_cache

import pandas as pd
import yfinance
from curl_cffi.requests.exceptions import RequestException
from yfinance.exceptions import (
    YFException,
    YFPricesMissingError,
    YFRateLimitError,
    YFTickerMissingError,
    YFTzMissingError,
)

from tasks.sources.protocol import BAR_COLUMNS, Fetch, Outcome

EARLIEST = date(1962, 1, 2)  # the first session that Yahoo has of any ticker
TIMEOUT_SECONDS = 30
COLUMNS = {
    "Open": "open",
    "High": "high",
    "Low": "low",
    "Close": "close",
    "Volume": "volume",
    "Dividends": "dividend",
    "Stock Splits": "split",
}


@lru_cache(maxsize=1)
def _own_cache_folder() -> tempfile.TemporaryDirectory[str]:
    """A cache folder of this process alone, gone at its end: yfinance's SQLite cache is not made for several writers."""
    folder = tempfile.TemporaryDirectory(prefix="volcast-yfinance-")
    yfinance.set_tz_cache_location(folder.name)
    yfinance.config.debug.hide_exceptions = False  # a 429 must not look like an empty frame
    return folder


class YahooSource:
    """Daily bars as Yahoo gives them today: adjusted for splits, not for dividends."""

    spec = "yahoo"
    simulated = False

    def tickers(self) -> list[str]:
        """SBUX: Yahoo has no list of its own."""
        return ["SBUX"]

    def fetch(self, ticker: str, *, first: date | None, last: date) -> Fetch:
        """One call for one ticker; whatever Yahoo answers becomes a typed outcome."""
        _own_cache_folder()
        try:
            history = yfinance.Ticker(ticker).history(
                interval="1d",
                start=first or EARLIEST,
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
        except YFRateLimitError as error:
            return Fetch(ticker=ticker, outcome=Outcome.RATE_LIMITED, known=str(error))
        except (YFTzMissingError, YFPricesMissingError, YFTickerMissingError) as error:
            return Fetch(
                ticker=ticker, outcome=Outcome.NOT_FOUND, known=error.rationale, guessed="an unknown or delisted ticker"
            )
        except (RequestException, OSError) as error:
            return Fetch(
                ticker=ticker, outcome=Outcome.DOWN, known=_first_line(error), guessed="no network, or Yahoo is down"
            )
        except (YFException, KeyError, TypeError, ValueError) as error:
            return Fetch(
                ticker=ticker, outcome=Outcome.BAD_SCHEMA, known=f"{type(error).__name__}: {_first_line(error)}"
            )
        return _typed(ticker, history, last)


def _typed(ticker: str, history: pd.DataFrame, last: date) -> Fetch:
    lacking = [name for name in COLUMNS if name not in history]
    if history.empty:
        return Fetch(
            ticker=ticker,
            outcome=Outcome.EMPTY,
            known="Yahoo answered without rows",
            guessed="delisted, or no session in the window",
        )
    if lacking:
        return Fetch(
            ticker=ticker, outcome=Outcome.BAD_SCHEMA, known=f"no column {', '.join(lacking)} in Yahoo's answer"
        )
    bars = history[list(COLUMNS)].rename(columns=COLUMNS)
    bars["volume"] = bars["volume"].astype("float64").where(bars["volume"] > 0)  # a null volume arrives as 0
    bars["session"] = pd.DatetimeIndex(history.index).tz_localize(None).normalize().astype("datetime64[s]")
    bars = bars.assign(ticker=ticker, later_adjustment=1.0).reset_index(drop=True)
    return Fetch(ticker=ticker, outcome=Outcome.OK, bars=bars.loc[bars["session"] <= pd.Timestamp(last), BAR_COLUMNS])


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
