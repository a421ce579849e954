"""Prices of the simulated exchange, in the shares of its first session: later splits are applied by the clock.

1. The move of a session is an overnight gap plus a move inside it, each a market part and an own part (Student t with 5
   degrees of freedom). Their scale follows the surprise in volume, hence clusters and the correlation with volume.
2. Log price is a trend plus a slowly reverting sum of moves, so that prices stay plausible for decades.
3. A quarterly dividend is a share of the previous close and lowers the next open by as much.
4. A price that passes the ticker's threshold is split a month later.
"""

from dataclasses import dataclass

import numpy as np

from tasks.sources.exchange_shocks import filtered, stream

YEAR = 252  # sessions
REVERSION = 0.998  # of log price about its trend; half of a deviation is left after 346 sessions
OVERNIGHT, INSIDE = 0.5, 0.87  # shares of a session's standard deviation
MARKET_VOLATILITY = 0.009
SPLIT_RATIOS, SPLIT_CHANCES = [2.0, 3.0, 1.5], [0.7, 0.15, 0.15]
SPLIT_NOTICE = 20  # sessions from passing the threshold to the split


@dataclass(frozen=True, kw_only=True)
class PriceTraits:
    """What makes one ticker's prices its own."""

    first: float  # USD
    trend: float  # of log price, a year
    volatility: float  # own part, a session
    market_beta: float
    dividend_yield: float  # a year; 0 for none
    dividend_offset: int  # session of the first ex-dividend, < 63
    split_threshold: float  # USD


@dataclass(frozen=True, kw_only=True)
class PricePath:
    """Arrays (T,) in USD per share of the first session; `split` is new shares for one old on its session, else 0."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    dividend: np.ndarray
    split: np.ndarray


def draw_price_traits(rng: np.random.Generator) -> PriceTraits:
    """The traits of a ticker, plausible for a listed company."""
    return PriceTraits(
        trend=rng.uniform(0.04, 0.09),
        first=rng.lognormal(3.3, 0.5),
        volatility=rng.uniform(0.009, 0.02),
        market_beta=rng.uniform(0.6, 1.5),
        dividend_yield=rng.uniform(0.01, 0.035) * (rng.random() < 0.75),
        dividend_offset=int(rng.integers(63)),
        split_threshold=rng.uniform(80, 180),
    )


def draw_moves(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 2): overnight gap and move inside the session, together of variance about 1."""
    return rng.standard_t(5, (count, 2)) * np.sqrt(3 / 5) * [OVERNIGHT, INSIDE]


def price_path(seed: int, ticker: str, traits: PriceTraits, *, market: np.ndarray, scale: np.ndarray) -> PricePath:
    """Prices of T sessions; `market` (T, 2) are the market's moves, `scale` (T, 2) widens the ticker's own ones."""
    count = len(market)
    moves = traits.market_beta * market + traits.volatility * scale * draw_moves(stream(seed, ticker, "moves"), count)
    paid = (np.arange(count) % 63 == traits.dividend_offset) & (np.arange(count) > 0)
    yields = np.where(paid, traits.dividend_yield / 4, 0.0)
    overnight = moves[:, 0] + np.log1p(-yields)
    trend = np.log(traits.first) + traits.trend / YEAR * np.arange(count)
    close = trend + filtered([1.0], [1.0, -REVERSION], overnight + moves[:, 1])
    before = np.r_[trend[0], close[:-1]]
    opened = before + overnight
    reach = np.abs(stream(seed, ticker, "reach").standard_normal((count, 2)))
    reach = 0.4 * traits.volatility * scale[:, 1:] * reach
    return PricePath(
        open=np.exp(opened),
        high=np.exp(np.maximum(opened, close) + reach[:, 0]),
        low=np.exp(np.minimum(opened, close) - reach[:, 1]),
        close=np.exp(close),
        dividend=yields * np.exp(before),
        split=_splits(stream(seed, ticker, "splits"), np.exp(close), traits.split_threshold),
    )


def _splits(rng: np.random.Generator, close: np.ndarray, threshold: float) -> np.ndarray:
    """(T,): the ratio on the sessions of splits, else 0; at most one split in about a year."""
    split = np.zeros(len(close))
    start, shares = 0, 1.0
    while True:
        above = np.flatnonzero(close[start:] / shares > threshold)
        if not above.size or start + above[0] + SPLIT_NOTICE >= len(close):
            return split
        session = start + above[0] + SPLIT_NOTICE
        split[session] = rng.choice(SPLIT_RATIOS, p=SPLIT_CHANCES)
        shares *= split[session]
        start = session + YEAR
