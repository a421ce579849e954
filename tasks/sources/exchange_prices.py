"""Chance and prices in the simulated exchange.

Chance is streams of draws, heavy-tailed shocks, and long memory:
1. A stream is a random generator keyed by (seed, names), so that tickers and purposes never share draws. Arrays are
   drawn sessions first: a longer draw has the shorter one as its prefix, bit for bit.
2. A shock is a normal whose scale is narrow or, one time in ten, wide: heavy tails whose characteristic function is a
   two-term sum, so that the law of any weighted sum of shocks is known exactly (benchmarks/exchange_oracle.py).
3. A path follows the heterogeneous autoregression (HAR) of Corsi (2009), "A Simple Approximate Long-Memory Model of
   Realized Volatility", Journal of Financial Econometrics 7(2): a value leans on the means of the last 1, 5 and 22.

Prices are in the shares of the first session; later splits are applied by the clock:
1. The move of a session is an overnight gap plus a move inside it, each a market part and an own part (Student t with 5
   degrees of freedom). Their scale follows the surprise in volume, hence clusters and the correlation with volume.
2. Log price is a trend plus a slowly reverting sum of moves, so that prices stay plausible for decades.
3. A quarterly dividend is a share of the previous close and lowers the next open by as much.
4. A price that passes the ticker's threshold is split a month later.
"""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import ArrayLike

BURN_IN = 250  # sessions drawn before the first one, so that a path starts in its long-run law
MEMORY = 22  # past sessions that a path leans on
WIDE_SHARE = 0.1
WIDE_RATIO = 2.5  # of a wide shock's scale to a narrow one's; kurtosis 6.2, SBUX's HAR residuals have 6.1
NARROW_SCALE = 1 / np.sqrt(1 - WIDE_SHARE + WIDE_SHARE * WIDE_RATIO**2)  # unit variance

YEAR = 252  # sessions
REVERSION = 0.998  # of log price about its trend; half of a deviation is left after 346 sessions
OVERNIGHT, INSIDE = 0.5, 0.87  # shares of a session's standard deviation
MARKET_VOLATILITY = 0.009
SPLIT_RATIOS, SPLIT_CHANCES = [2.0, 3.0, 1.5], [0.7, 0.15, 0.15]
SPLIT_NOTICE = 20  # sessions from passing the threshold to the split


def stream(seed: int, *names: str) -> np.random.Generator:
    """A generator of its own for (seed, names)."""
    digest = sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def draw_shocks(rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` independent shocks of mean 0 and variance 1 (float64)."""
    normals, widths = rng.spawn(2)  # one generator each: sharing one would break the prefix
    wide = widths.random(count) < WIDE_SHARE
    return NARROW_SCALE * np.where(wide, WIDE_RATIO, 1.0) * normals.standard_normal(count)


@dataclass(frozen=True, kw_only=True)
class Har:
    """x_t = previous * x_{t-1} + week * (mean of the last 5) + month * (mean of the last 22) + innovation_t."""

    previous: float
    week: float
    month: float

    def __post_init__(self) -> None:
        if not 0 <= self.previous + self.week + self.month < 1:
            raise ValueError(f"the weights of {self} must sum to less than 1, or the path runs away")

    def coefficients(self) -> np.ndarray:
        """(22,): the weight of each past session, the latest first."""
        weights = np.full(MEMORY, self.month / MEMORY)
        weights[:5] += self.week / 5
        weights[0] += self.previous
        return weights

    def path(self, innovations: np.ndarray) -> np.ndarray:
        """The path that starts from zeros and takes these innovations; same shape (T,)."""
        return filtered([1.0], np.r_[1.0, -self.coefficients()], innovations)


MARKET_HAR = Har(previous=0.40, week=0.32, month=0.20)
OWN_HAR = Har(previous=0.32, week=0.30, month=0.25)
MARKET_SCALE = 0.17  # standard deviation of the market factor's innovations, in log volume


def filtered(taps: ArrayLike, feedback: ArrayLike, path: np.ndarray) -> np.ndarray:
    """`scipy.signal.lfilter`, imported when prices are drawn: naming an exchange does not wait for scipy."""
    from scipy.signal import lfilter

    return np.asarray(lfilter(taps, feedback, path))


def volatility_factor(path: np.ndarray) -> np.ndarray:
    """(T,): how much wider prices move than usual, given a path (T,) of surprises in log volume up to each session."""
    month = filtered(np.full(MEMORY, 1 / MEMORY), [1.0], path)
    return np.exp(0.7 * path + 0.8 * month)  # absolute returns then correlate 0.17 with the ones before, SBUX's 0.23


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
