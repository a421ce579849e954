"""The floor that no forecaster can beat: the true conditional quantiles of the simulated exchange's volume.

Known at the close of the cutoff: the market factor's and the ticker's own past, the calendar, the announced reports,
and the exchange's constants. Then, with psi the responses of a HAR path to an innovation,

    log V(t+h) = expected(t+h) + beta * E[market(t+h)] + E[own(t+h)]
               + sum over j < h of  beta * psi_market(j) * market innovation(t+h-j) + psi_own(j) * own innovation(t+h-j)

The innovations are independent, symmetric mixtures of two normals, so the characteristic function phi of the last line
is a product of known real ones, and Gil-Pelaez (1951), "Note on the inversion theorem", Biometrika 38, gives its law:

    P(error <= x) = 1/2 + 1/pi * integral over s > 0 of  sin(s x) / s * phi(s) ds

The integral is a midpoint sum on a grid in units of the error's standard deviation. phi depends on the cutoff only
through the place of a report among the horizons, so that there are few of them.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from volcast.tasks.sources.exchange import Exchange
from volcast.tasks.sources.exchange_prices import (
    BURN_IN,
    MARKET_HAR,
    MARKET_SCALE,
    MEMORY,
    NARROW_SCALE,
    OWN_HAR,
    WIDE_RATIO,
    WIDE_SHARE,
    Har,
)

MAX_HORIZON = 10  # every report this near is announced
STEP = 0.02  # of the frequency; the sum repeats itself only 314 standard deviations out
FREQUENCIES = (np.arange(700) + 0.5) * STEP  # beyond 14 the characteristic functions are below 1e-9
ERRORS = np.linspace(-12, 12, 1201)  # where the law is computed, in standard deviations


def oracle_quantiles(
    exchange: Exchange, ticker: str, cutoffs: pd.DatetimeIndex, *, horizons: Sequence[int], levels: Sequence[float]
) -> np.ndarray:
    """(C, H, Q) true conditional quantiles of volume, in shares as of the exchange's clock.

    `cutoffs` are sessions up to the clock, `horizons` lie in 1..10 and may pass the clock, `levels` are in (0, 1).
    Raises ValueError for any other.
    """
    if not (all(1 <= h <= MAX_HORIZON for h in horizons) and all(0 < level < 1 for level in levels)):
        raise ValueError(f"horizons must be in 1..{MAX_HORIZON} and levels between 0 and 1: {horizons}, {levels}")
    positions_C = _positions(exchange, cutoffs)
    means_CH = _means(exchange, ticker, positions_C)
    quantiles = np.empty((len(positions_C), len(horizons), len(levels)))
    for column, horizon in enumerate(horizons):
        errors_CQ = _error_quantiles(exchange, ticker, positions_C, horizon=horizon, levels=levels)
        quantiles[:, column] = means_CH[:, [horizon - 1]] + errors_CQ
    return np.exp(quantiles) * exchange.split_factor(ticker)


def _positions(exchange: Exchange, cutoffs: pd.DatetimeIndex) -> np.ndarray:
    positions = exchange.sessions.get_indexer(cutoffs)
    if (positions < 0).any():
        unknown = cutoffs[positions < 0][0]
        raise ValueError(f"cutoff {unknown:%Y-%m-%d} is not one of the sessions up to the clock, {exchange.last}")
    return positions


def _means(exchange: Exchange, ticker: str, positions_C: np.ndarray) -> np.ndarray:
    """(C, MAX_HORIZON): the conditional mean of log volume."""
    path = exchange.path(ticker)
    past_CM = BURN_IN + positions_C[:, None] + np.arange(1 - MEMORY, 1)
    ahead_CH = positions_C[:, None] + np.arange(1, MAX_HORIZON + 1)
    market_CH = _expected(MARKET_HAR, exchange.market()[past_CM])
    return path.expected[ahead_CH] + path.traits.market_beta * market_CH + _expected(OWN_HAR, path.own[past_CM])


def _expected(har: Har, past_CM: np.ndarray) -> np.ndarray:
    """(C, MAX_HORIZON): the expected values of a path after each row of `past_CM`, newest last."""
    newest_last = har.coefficients()[::-1]
    values = past_CM
    for _ in range(MAX_HORIZON):
        values = np.column_stack([values, values[:, -MEMORY:] @ newest_last])
    return values[:, MEMORY:]


def _responses(har: Har, count: int) -> np.ndarray:
    """(count,): what a unit innovation adds to the path 0, 1, .. count - 1 sessions later (the psi weights)."""
    return har.path(np.eye(1, count)[0])


def _error_quantiles(
    exchange: Exchange, ticker: str, positions_C: np.ndarray, *, horizon: int, levels: Sequence[float]
) -> np.ndarray:
    """(C, Q): the quantiles of log volume about its conditional mean, computed once for each pattern of own scales."""
    path = exchange.path(ticker)
    scales_Ch = path.own_scale[positions_C[:, None] + np.arange(1, horizon + 1)]
    patterns_Ph, pattern_C = np.unique(scales_Ch, axis=0, return_inverse=True)
    market_h = path.traits.market_beta * MARKET_SCALE * _responses(MARKET_HAR, horizon)
    own_Ph = patterns_Ph * _responses(OWN_HAR, horizon)[::-1]  # the nearest session's innovation has echoed longest
    laws_PQ = [_mixture_quantiles(np.r_[market_h, own_h], levels) for own_h in own_Ph]
    return np.array(laws_PQ).reshape(len(laws_PQ), len(levels))[pattern_C]


def _mixture_quantiles(weights: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """(Q,): the quantiles of a sum of independent shocks with these weights."""
    deviation = np.linalg.norm(weights)
    characteristic = _shock_characteristic(np.outer(FREQUENCIES, weights / deviation)).prod(axis=1)
    cumulative = 0.5 + _inversion() @ characteristic
    return deviation * np.interp(levels, np.maximum.accumulate(cumulative), ERRORS)


def _shock_characteristic(frequency: np.ndarray) -> np.ndarray:
    """E[exp(i * frequency * shock)], which is real because shocks are symmetric; same shape as `frequency`."""
    square = (NARROW_SCALE * frequency) ** 2 / 2
    return (1 - WIDE_SHARE) * np.exp(-square) + WIDE_SHARE * np.exp(-square * WIDE_RATIO**2)


@lru_cache(maxsize=1)
def _inversion() -> np.ndarray:
    """(errors, frequencies): the weights of the midpoint sum."""
    return np.sin(np.outer(ERRORS, FREQUENCIES)) / FREQUENCIES * STEP / np.pi
