"""Panels of volumes for the tests of forecasters: written out by hand, or drawn."""

import string
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from volcast.models.backtest import TestSpan
from volcast.models.panel import FIELDS, MARKET, Panel, make_panel
from volcast.models.recipes import VolumeRecipe
from volcast.models.sessions import sessions_between

FIRST = date(2012, 1, 3)
SPAN = TestSpan(train_through=date(2014, 12, 31), test_start=date(2015, 1, 1), test_end=date(2015, 2, 28))


def panel_of(volume_NT: np.ndarray, calendar: str = "XNYS") -> Panel:
    """Tickers A, B, ... with these volumes from 2012-01-03 on, NaN for no row; all prices are 1."""
    sessions = sessions_between(FIRST, date(2022, 12, 30), calendar)[: volume_NT.shape[1]].as_unit("s")
    tickers = np.array(list(string.ascii_uppercase))[: len(volume_NT)]
    row_R, column_R = np.nonzero(np.isfinite(volume_NT))
    prices = pd.DataFrame({"ticker": tickers[row_R], "session": sessions[column_R], **dict.fromkeys(FIELDS, 1.0)})
    return make_panel(prices.assign(volume=volume_NT[row_R, column_R]), calendar=calendar)


def drawn_volumes(tickers: int, sessions: int, *, seed: int = 0) -> np.ndarray:
    """(N, T) shares: an autoregression of log volume around a level of each ticker's own."""
    draws = np.random.default_rng(seed)
    log_NT = draws.normal(0, 0.3, (tickers, sessions))
    for place in range(1, sessions):
        log_NT[:, place] += 0.7 * log_NT[:, place - 1]
    return np.round(np.exp(log_NT + 14 + np.arange(tickers)[:, None]))


def gappy_volumes(tickers: int, sessions: int, *, seed: int = 0) -> np.ndarray:
    """As drawn, but the last ticker was listed after a third of the sessions, and the first lacks every 50th."""
    volume_NT = drawn_volumes(tickers, sessions, seed=seed)
    volume_NT[-1, : sessions // 3] = np.nan
    volume_NT[0, 49::50] = np.nan
    return volume_NT


def shaken_after(panel: Panel, cutoff: int) -> Panel:
    """The same panel, but every number after the cutoff is another one, and some rows come and go."""
    draws = np.random.default_rng(99)
    fields = {name: values.copy() for name, values in panel.fields.items()}
    for values_NT in fields.values():
        values_NT[:, cutoff + 1 :] = draws.lognormal(10, 2, values_NT[:, cutoff + 1 :].shape)
        values_NT[0, cutoff + 2 :: 3] = np.nan
    return Panel(
        tickers=panel.tickers,
        sessions=panel.sessions,
        known=panel.known,
        fields=fields,
        announcements=panel.announcements,
    )


def priced_panel(volume_NT: np.ndarray, *, seed: int = 1) -> Panel:
    """These volumes under prices that walk at random, the same ones in every field but for the session's range."""
    panel, draws = panel_of(volume_NT), np.random.default_rng(seed)
    close_NT = 50 * np.exp(np.cumsum(draws.normal(0, 0.02, volume_NT.shape), axis=1))
    open_NT = close_NT * np.exp(draws.normal(0, 0.01, volume_NT.shape))
    prices = {
        "open": open_NT,
        "high": np.maximum(open_NT, close_NT) * np.exp(draws.uniform(0, 0.01, volume_NT.shape)),
        "low": np.minimum(open_NT, close_NT) * np.exp(-draws.uniform(0, 0.01, volume_NT.shape)),
        "close": close_NT,
        "adj_close": close_NT,
        "volume": volume_NT,
    }
    return replace(panel, fields={name: np.where(panel.traded_NT, each, np.nan) for name, each in prices.items()})


def announced(panel: Panel, rows: Sequence[tuple[int, int, int]]) -> pd.DataFrame:
    """Announcements of (row of the ticker, place of its date, place of the session at which it was first seen)."""
    tickers, dates, seen = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "ticker": np.array(panel.tickers)[list(tickers)],
            "announced_for": panel.sessions[list(dates)],
            "first_seen": panel.sessions[list(seen)],
        }
    )


def dated(panel: Panel, rows: Sequence[tuple[str, int | None, int, int]]) -> pd.DataFrame:
    """Other events of (kind, row of the ticker or None, place of its date, place of the session when first seen)."""
    kinds, tickers, dates, seen = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "kind": kinds,
            "ticker": [MARKET if row is None else panel.tickers[row] for row in tickers],
            "announced_for": panel.sessions[list(dates)],
            "first_seen": panel.sessions[list(seen)],
        }
    )


def synthetic_prices(sessions: int = 253, seed: int = 1, ticker: str = "AAA") -> pd.DataFrame:
    """Prices of one made-up ticker: a random walk near 80 USD; volume near 8 M shares, larger when the price moves."""
    random = np.random.default_rng(seed)
    returns = 0.02 * random.standard_normal(sessions)
    close = 80 * np.exp(np.cumsum(returns))
    frame = pd.DataFrame({"ticker": ticker, "session": pd.bdate_range("2019-12-11", periods=sessions)})
    frame["open"] = close * np.exp(0.005 * random.standard_normal(sessions))
    frame["high"] = np.maximum(frame["open"], close) * 1.01
    frame["low"] = np.minimum(frame["open"], close) * 0.99
    frame["close"] = close
    frame["adj_close"] = close * np.linspace(0.97, 1.0, sessions)
    frame["volume"] = np.round(5e6 * np.exp(15 * np.abs(returns) + 0.2 * random.standard_normal(sessions)))
    return frame


def tiny_recipe(**changes: Any) -> VolumeRecipe:
    """A volume recipe that trains in a second."""
    small = {
        "members": 2,
        "steps": 40,
        "validate_every_steps": 10,
        "hidden_size": 8,
        "head_size": 16,
        "batch_sequences": 16,
        "stop_sessions": 42,
    }
    return VolumeRecipe(**{**small, **changes})


class InMemory:
    """A checkpoint that stays here."""

    def __init__(self) -> None:
        self.data: bytes | None = None

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data
