"""Rows that tests make up, as files hold them, as features want them and as the tables of a store keep them."""

from datetime import date

import numpy as np
import pandas as pd

from volcast.models.recipes import TutorialRecipe
from volcast.models.scores import score_forecasts
from volcast.models.sessions import sessions_between
from volcast.storage.records import Provenance
from volcast.storage.schemas import SCORES

MADE_BY = Provenance(code_version="test", packages={}, flow_run_id=None, seed=None)
CUTOFF = pd.DatetimeIndex(["2024-01-05"])[0]
TARGETS = pd.to_datetime(["2024-01-08", "2024-01-09", "2024-01-10"])


def yahoo_frame(
    sessions: int = 253, *, last: date = date(2020, 12, 10), seed: int = 1, calendar: str = "XNYS"
) -> pd.DataFrame:
    """Rows under Yahoo's headings, of made-up prices with one dividend a quarter."""
    draws = np.random.default_rng(seed)
    dates = sessions_between(date(2015, 1, 2), last, calendar)[-sessions:]
    close = 80 * np.exp(np.cumsum(draws.normal(0, 0.015, sessions)))
    open_ = close * np.exp(draws.normal(0, 0.005, sessions))
    factor = np.ones(sessions)
    for ex_session in range(40, sessions, 63):
        factor[:ex_session] *= 1 - 0.45 / close[ex_session - 1]
    volume = np.round(8e6 * np.exp(draws.normal(0, 0.4, sessions) + 12 * np.abs(np.log(close / open_))))
    return pd.DataFrame(
        {
            "Date": dates.strftime("%Y-%m-%d"),
            "Open": open_.round(6),
            "High": (np.maximum(open_, close) * 1.01).round(6),
            "Low": (np.minimum(open_, close) * 0.99).round(6),
            "Close": close.round(6),
            "Adj Close": (close * factor).round(6),
            "Volume": volume.astype(np.int64),
        }
    )


def disturb_test_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with other prices and volumes in its test rows."""
    numbers = [*TutorialRecipe().features, "volume"]
    factor = np.where(frame["role"] == "test", 3.0, 1.0)
    return frame.assign(**{name: frame[name] * factor for name in numbers})


def bars(ticker: str = "SBUX", first: str = "2024-01-02", sessions: int = 3, **changes) -> pd.DataFrame:
    """Bars on consecutive weekdays; close 100, 101, …; volume 1000, 1001, …"""
    step = np.arange(sessions)
    columns = {
        "ticker": ticker,
        "session": pd.bdate_range(first, periods=sessions),
        "open": 100.0,
        "high": 200.0,
        "low": 50.0,
        "close": 100.0 + step,
        "volume": 1000 + step,
        "dividend": 0.0,
        "split": 0.0,
        "later_adjustment": 1.0,
    }
    return pd.DataFrame(columns | changes)


def announced(*dates: str, ticker: str = "SBUX", when: str = "amc", **columns) -> pd.DataFrame:
    """Announcements of one ticker, as a source of events gives them."""
    dated = pd.DatetimeIndex(list(dates)).as_unit("s")
    return pd.DataFrame({"ticker": ticker, "announced_for": dated, "when": when} | columns)


def forecast_rows(version: int = 1, **changes: object) -> pd.DataFrame:
    """Three sessions ahead of one ticker, by volcast and, not published, by har."""
    steps = pd.DataFrame({"ds": TARGETS, "h": [1, 2, 3], "median": [100.0, 110.0, 120.0]})
    rows = pd.concat([steps.assign(model="volcast", published=True), steps.assign(model="har", published=False)])
    spread = {name: rows["median"] + by for name, by in (("lo_95", -40), ("lo_80", -20), ("hi_80", 20), ("hi_95", 40))}
    columns = {
        "ticker": "SBUX",
        "cutoff": CUTOFF,
        "name": "volume",
        "version": version,
        "model_version": 4,
        "prices_version": 7,
        "why": "",
        "scale": 50.0,
        "mean": rows["median"] + 1,
        "published_at": pd.Timestamp("2024-01-05 22:00", tz="UTC"),
    }
    return rows.assign(**columns, **spread).assign(**changes)


def score_rows(rows: pd.DataFrame, volume: float = 105) -> pd.DataFrame:
    """What forecasts of these rows score when the volume of every session was this one."""
    prices = pd.DataFrame({"ticker": "SBUX", "session": TARGETS, "volume": volume, "split": 0.0})
    return score_forecasts(rows, prices).assign(scored_at=pd.Timestamp.now("UTC")).loc[:, SCORES.names]


def quarantined(ticker: str = "SBUX", **changes) -> pd.DataFrame:
    """Two sessions of a ticker that one rule refused, the later one first."""
    columns = {
        "ticker": ticker,
        "session": pd.DatetimeIndex(["2024-01-03", "2024-01-02"]).as_unit("s"),
        "rule": "volume is not positive",
        "value": ["volume=0", "volume=-1"],
        "source": "files:a.csv",
        "seen_at": pd.Timestamp("2024-01-04 12:00", tz="UTC"),
    }
    return pd.DataFrame(columns | changes)
