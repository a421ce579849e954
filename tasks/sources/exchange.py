"""A stock exchange of our own: bars of any ticker since 2000, deterministic in (seed, ticker, session).

Log volume of a ticker is the sum of
1. a level that drifts slowly: a trend and a cycle of years, both fixed by the ticker;
2. the calendar's effect times the ticker's sensitivity (exchange_calendar.py);
3. after a report, a mean shift of the ticker's own size over three sessions;
4. the market factor times the ticker's beta: a HAR path, one for all tickers (exchange_prices.py);
5. the ticker's own HAR path, with wider innovations on the sessions that react to a report;
6. from a regime shift on, where there is one, a weekly rhythm of the ticker's own (exchange_calendar.py).
Only the innovations of 4 and 5 are unknown at the close before, which is why the oracle can be exact.

A ticker reports about every 63 sessions. The date is announced 12 to 30 sessions ahead; about one in seven is moved
once: the superseded date was seen first, the final one later. The final date is always known at least ten sessions
ahead, so the oracle may count on it for horizons 1 to 10.

Nothing about a session depends on later ones. What an exchange shows is as of its clock, `last`, as Yahoo would: all of
history is adjusted for the splits up to the clock, and for none after it.
"""

from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache

import numpy as np
import pandas as pd

from volcast.tasks.sources.exchange_calendar import LOOKAHEAD, own_rhythm, trading_grid
from volcast.tasks.sources.exchange_prices import (
    BURN_IN,
    MARKET_HAR,
    MARKET_SCALE,
    MARKET_VOLATILITY,
    OWN_HAR,
    YEAR,
    PricePath,
    PriceTraits,
    draw_moves,
    draw_price_traits,
    draw_shocks,
    price_path,
    stream,
    volatility_factor,
)
from volcast.tasks.sources.source import BAR_COLUMNS, EVENT_COLUMNS

SPACING = 63  # sessions between reports
MOVED_SHARE = 0.15
AFTERMATH = np.array([1.0, 0.45, 0.2])  # of the ticker's mean shift, on the reaction session and the two after


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What makes one ticker its own; volumes are in shares of the first session."""

    log_level: float  # at the first session
    trend: float  # of log volume, a year
    cycle: float  # amplitude of a cycle of nine years, in log volume
    phase: float  # of that cycle, radians
    calendar: float  # sensitivity to the calendar's effects, about 1
    market_beta: float  # of log volume to the market factor
    own_scale: float  # standard deviation of the own innovations, in log volume
    report_shift: float  # of mean log volume on the session that reacts to a report
    report_scale: float  # of own innovations on that session, relative to other sessions
    after_close: bool  # reports after the close
    prices: PriceTraits


@dataclass(frozen=True, kw_only=True)
class Path:
    """One ticker's sessions up to the clock (T), and what is known ahead of them (T + LOOKAHEAD)."""

    traits: Traits
    expected: np.ndarray  # (T + LOOKAHEAD,) terms 1 to 3 and 6 of log volume
    own_scale: np.ndarray  # (T + LOOKAHEAD,) of the own innovations
    own: np.ndarray  # (BURN_IN + T,) term 5
    volume: np.ndarray  # (T,) in shares of the first session, not yet whole
    prices: PricePath


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """The simulated exchange with its clock at the close of `last`; ValueError where it has no such clock."""

    seed: int
    last: date
    shift: date | None = None  # of the regime; the sessions before it are those of an exchange without one

    def __post_init__(self) -> None:
        if not (self.seed >= 0 and self.count > 0):
            raise ValueError(f"an exchange needs a seed >= 0 and a session until its clock, not {self}")

    @property
    def count(self) -> int:
        """The number of sessions since the first one."""
        return trading_grid().count_until(self.last)

    @property
    def sessions(self) -> pd.DatetimeIndex:
        """The sessions up to the clock (datetime64[s], ascending)."""
        return trading_grid().sessions[: self.count]

    def path(self, ticker: str) -> Path:
        """What the exchange knows of one ticker, not adjusted for splits."""
        return _path(self.seed, ticker, self.count, self.shift)

    def market(self) -> np.ndarray:
        """(BURN_IN + T,): the market factor of log volume, the newest last."""
        return _market(self.seed, self.count)[0]

    def split_factor(self, ticker: str) -> float:
        """Shares at the clock for one share of the first session."""
        split = self.path(ticker).prices.split
        return float(np.prod(split[split > 0]))

    def bars(self, ticker: str) -> pd.DataFrame:
        """BAR_COLUMNS of all sessions up to the clock, ascending, adjusted for the splits up to the clock."""
        path, factor = self.path(ticker), self.split_factor(ticker)
        adjusted = {name: np.round(getattr(path.prices, name) / factor, 6) for name in ("open", "high", "low", "close")}
        columns = adjusted | {
            "ticker": ticker,
            "session": self.sessions,
            "volume": np.maximum(np.rint(path.volume * factor), 1.0),
            "dividend": np.round(path.prices.dividend / factor, 6),
            "split": path.prices.split.copy(),
            "later_adjustment": 1.0,
        }
        return pd.DataFrame(columns, columns=BAR_COLUMNS)

    def announcements(self, ticker: str) -> pd.DataFrame:
        """EVENT_COLUMNS by first_seen: every date announced up to the clock; the later seen of two close ones holds."""
        reports = _reports(self.seed, ticker, draw_traits(self.seed, ticker), self.count)
        return reports.announcements(ticker, trading_grid().sessions, self.count)


def draw_traits(seed: int, ticker: str) -> Traits:
    """The ticker's traits; SBUX gets about 10 million shares and tens of dollars today."""
    rng = stream(seed, ticker, "traits")
    prices = draw_price_traits(rng)
    traits = Traits(
        log_level=rng.normal(13.5, 1.3),
        trend=-0.6 * prices.trend,  # fewer of the first session's shares change hands as they grow dearer
        cycle=rng.uniform(0, 0.15),
        phase=rng.uniform(0, 2 * np.pi),
        calendar=rng.normal(1, 0.08),
        market_beta=rng.uniform(0.6, 1.3),
        own_scale=rng.uniform(0.28, 0.36),
        report_shift=rng.uniform(0.5, 1.2),
        report_scale=rng.uniform(1.1, 1.6),
        after_close=bool(rng.random() < 0.5),
        prices=prices,
    )
    if ticker != "SBUX":
        return traits
    like_sbux = replace(prices, first=35.0, trend=0.07, dividend_yield=0.02, split_threshold=110.0)
    return replace(traits, log_level=np.log(6.5e6), trend=-0.042, market_beta=1.0, after_close=True, prices=like_sbux)


@lru_cache(maxsize=4)
def _market(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The market factor (BURN_IN + count,), and the market's overnight and inside moves (count, 2)."""
    factor = MARKET_HAR.path(MARKET_SCALE * draw_shocks(stream(seed, "market", "volume"), BURN_IN + count))
    moves = MARKET_VOLATILITY * draw_moves(stream(seed, "market", "moves"), count)
    return factor, moves * volatility_factor(factor)[BURN_IN:, None]


@lru_cache(maxsize=8)
def _path(seed: int, ticker: str, count: int, shift: date | None) -> Path:
    traits, ahead = draw_traits(seed, ticker), count + LOOKAHEAD
    factor, market_moves = _market(seed, count)
    aftermath = _reports(seed, ticker, traits, count).until(ahead)
    expected = _level(traits, ahead) + traits.calendar * trading_grid().effects[:ahead]
    expected = expected + traits.report_shift * aftermath
    if shift is not None:
        expected = expected + own_rhythm(seed, ticker, trading_grid().sessions[:ahead], since=shift)
    own_scale = traits.own_scale * np.where(aftermath == 1.0, traits.report_scale, 1.0)
    shocks = draw_shocks(stream(seed, ticker, "volume"), BURN_IN + count)
    own = OWN_HAR.path(np.r_[np.full(BURN_IN, traits.own_scale), own_scale[:count]] * shocks)
    surprise = traits.market_beta * factor + own
    news = 1 + aftermath[:count, None] * [3.0, 0.5]  # it comes overnight
    scale = news * volatility_factor(surprise)[BURN_IN:, None]
    return Path(
        traits=traits,
        expected=expected,
        own_scale=own_scale,
        own=own,
        volume=np.exp(expected[:count] + surprise[BURN_IN:]),
        prices=price_path(seed, ticker, traits.prices, market=market_moves, scale=scale),
    )


def _level(traits: Traits, count: int) -> np.ndarray:
    """(count,): the drifting level of log volume."""
    years = np.arange(count) / YEAR
    return traits.log_level + traits.trend * years + traits.cycle * np.sin(traits.phase + 2 * np.pi * years / 9)


@dataclass(frozen=True, kw_only=True)
class _Reports:
    """One ticker's reports, as positions among the sessions (int64 arrays of one length, ascending)."""

    after_close: bool  # then the next session reacts first
    reported: np.ndarray
    first_seen: np.ndarray  # of the final date
    superseded: np.ndarray  # an earlier announced date, or -1 where the date never moved
    superseded_seen: np.ndarray

    def until(self, count: int) -> np.ndarray:
        """(count,) float64: the share of the mean shift at each session, 0 away from reports."""
        shares = np.zeros(count + len(AFTERMATH))
        reactions = self.reported + int(self.after_close)
        for later, share in enumerate(AFTERMATH):
            shares[reactions[reactions < count] + later] = share
        return shares[:count]

    def announcements(self, ticker: str, sessions: pd.DatetimeIndex, seen_until: int) -> pd.DataFrame:
        """EVENT_COLUMNS by first_seen: the dates known after `seen_until` sessions, superseded ones included."""
        moved = self.superseded >= 0
        dated = np.r_[self.reported, self.superseded[moved]]
        seen = np.r_[self.first_seen, self.superseded_seen[moved]]
        order = np.argsort(seen, kind="stable")
        order = order[seen[order] < seen_until]
        when = "amc" if self.after_close else "bmo"
        columns = [_text(ticker, len(order)), sessions[dated[order]], _text(when, len(order)), sessions[seen[order]]]
        return pd.DataFrame(dict(zip(EVENT_COLUMNS, columns, strict=True)))


def _reports(seed: int, ticker: str, traits: Traits, clock: int) -> _Reports:
    """The reports whose sessions all lie among the first `clock` + LOOKAHEAD sessions."""
    count = clock + LOOKAHEAD
    rng = stream(seed, ticker, "reports")
    offset = int(rng.integers(35, 76))  # at least 35, so that nothing is seen before the first session
    draws = rng.random((count // SPACING + 1, 4))
    reported = offset + SPACING * np.arange(len(draws)) + _between(draws[:, 0], -3, 3)
    moved = draws[:, 1] < MOVED_SHARE
    shift = _between(draws[:, 2], 1, 5) * np.where(draws[:, 3] < 0.5, -1, 1)
    lead = np.where(moved, _between(draws[:, 3], 12, 20), _between(draws[:, 3], 15, 30))
    fits = reported + 6 < count  # a superseded date and the reaction fit as well
    return _Reports(
        after_close=traits.after_close,
        reported=reported[fits],
        first_seen=(reported - lead)[fits],
        superseded=np.where(moved, reported + shift, -1)[fits],
        superseded_seen=(reported - _between(draws[:, 2], 25, 30))[fits],
    )


def _text(value: str, rows: int) -> pd.Series:
    return pd.Series([value] * rows, dtype="str")  # typed even without rows


def _between(uniform: np.ndarray, low: int, high: int) -> np.ndarray:
    """Uniform draws in [0, 1) as whole numbers from `low` to `high`, both included."""
    return low + (uniform * (high - low + 1)).astype(np.int64)
