"""Panels of volumes for the tests of forecasters: written out by hand, or drawn."""

import string
from datetime import date

import numpy as np
import pandas as pd

from models.panel import FIELDS, Panel, make_panel
from models.sessions import sessions_between

FIRST = date(2012, 1, 3)


def panel_of(volume_NT: np.ndarray) -> Panel:
    """Tickers A, B, ... with these volumes from 2012-01-03 on, NaN for no row; all prices are 1."""
    sessions = sessions_between(FIRST, date(2022, 12, 30))[: volume_NT.shape[1]].as_unit("s")
    tickers = np.array(list(string.ascii_uppercase))[: len(volume_NT)]
    row_R, column_R = np.nonzero(np.isfinite(volume_NT))
    prices = pd.DataFrame({"ticker": tickers[row_R], "session": sessions[column_R], **dict.fromkeys(FIELDS, 1.0)})
    return make_panel(prices.assign(volume=volume_NT[row_R, column_R]))


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
