"""Price panels for the benchmarks: from a file of real prices, or from the simulated exchange."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from volcast.models.panel import FIELDS, HORIZONS, Panel, make_panel
from volcast.models.scores import FIRST_TICKER
from volcast.models.sessions import market_calendar
from volcast.storage.adjustment import adjusted_close
from volcast.tasks.sources.exchange import Exchange


def read_prices(path: Path, *, through: date) -> pd.DataFrame:
    """ticker, session and FIELDS of a Parquet file with ticker, date and FIELDS (or Adj Close, …), up to `through`."""
    name_of = {name.lower().replace(" ", "_"): name for name in pq.read_schema(path).names}
    names = {name_of[name]: name for name in ("ticker", "date", *FIELDS)}
    prices = pd.read_parquet(path, columns=list(names)).rename(columns=names | {name_of["date"]: "session"})
    prices = prices.astype({"ticker": str})
    prices["session"] = pd.to_datetime(prices["session"]).astype("datetime64[s]")
    return prices.loc[prices["session"] <= pd.Timestamp(through)].reset_index(drop=True)


def read_announcements(path: Path) -> pd.DataFrame:
    """ticker, announced_for and first_seen of a CSV with Ticker and Earnings_Date, known ten sessions ahead."""
    raw = pd.read_csv(path, parse_dates=["Earnings_Date"])
    return _known_ahead(pd.DataFrame({"ticker": raw["Ticker"], "announced_for": raw["Earnings_Date"]}))


def read_events(path: Path) -> pd.DataFrame:
    """As `read_announcements`, and kind, of a CSV with Date, Event and Ticker, which is empty for the whole market."""
    raw = pd.read_csv(path, parse_dates=["Date"], keep_default_na=False)
    return _known_ahead(pd.DataFrame({"ticker": raw["Ticker"], "announced_for": raw["Date"], "kind": raw["Event"]}))


def _known_ahead(events: pd.DataFrame) -> pd.DataFrame:
    sessions = market_calendar().sessions
    place = sessions.searchsorted(pd.DatetimeIndex(events["announced_for"]))
    return events.assign(first_seen=sessions[np.maximum(place - HORIZONS, 0)]).drop_duplicates(ignore_index=True)


def pick(tickers: list[str], count: int) -> list[str]:
    """`count` of the tickers (0: all), FIRST_TICKER among them and the others evenly spread; sorted."""
    if FIRST_TICKER not in tickers:
        raise ValueError(f"{FIRST_TICKER} is not among the {len(tickers)} tickers; its own columns need it.")
    others = sorted(set(tickers) - {FIRST_TICKER})
    if 0 < count <= len(others):
        others = [others[place * len(others) // max(1, count - 1)] for place in range(count - 1)]
    return sorted([FIRST_TICKER, *others])


def simulated_panel(exchange: Exchange, tickers: list[str], *, first: date) -> Panel:
    """Bars and announced earnings of the simulated exchange from `first` to its clock."""
    bars, events = ([of(ticker) for ticker in tickers] for of in (exchange.bars, exchange.announcements))
    return panel_of_bars(bars, events, first=first)


def panel_of_bars(bars: list[pd.DataFrame], events: list[pd.DataFrame], *, first: date) -> Panel:
    """The panel of simulated bars from `first` on, and of announcements, one frame a ticker."""
    prices = pd.concat(bars, ignore_index=True)
    prices = prices.assign(adj_close=adjusted_close(prices))
    return make_panel(
        prices.loc[prices["session"] >= pd.Timestamp(first)], _standing(pd.concat(events, ignore_index=True))
    )


def _standing(events: pd.DataFrame) -> pd.DataFrame:
    """Without the dates that were moved: of two of a ticker less than ten sessions apart the later seen one holds.

    That one is always known ten sessions ahead, so that no forecast of up to ten sessions knows too much by this.
    """
    place = market_calendar().sessions.searchsorted(pd.DatetimeIndex(events["announced_for"]))
    ordered = events.assign(place=place).sort_values(["ticker", "first_seen"], kind="stable")
    later = ordered.groupby("ticker")["place"].shift(-1)
    return ordered.loc[~((later - ordered["place"]).abs() < HORIZONS)].drop(columns="place")
