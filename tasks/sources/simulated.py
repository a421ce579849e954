"""The simulated exchange as a source of prices and announcements, for offline use, tests and scale.

Specs: `simulated`, `simulated:7` (the seed), `simulated:7?universe=6700` (so many tickers: SBUX and made-up ones),
`simulated:7?faults=gap,null`, `simulated:7?shift=2011-06-01`, `simulated:7?universe=50&faults=gap`.
The clock is the `last` or `as_of` of each call; nothing after it is ever shown.

Faults are what can be wrong with the answers, each deterministic in (seed, ticker, session):

gap        a few sessions are missing; half of them for good, half come ten sessions late
duplicate  a few rows come twice
null       a few rows have no prices and no volume
partial    the bar of the clock's own session is only partly traded; a later clock has it whole
restated   a few volumes are too low until their correction comes thirty sessions later
ratelimit  the first one or two calls for a ticker are refused
outage     nothing answers at about one clock date in five

A regime shift (`?shift=DATE`) is none of them: the answers are right, and the exchange is no longer what it was. From
that date on each ticker has a weekly rhythm of its own (exchange_calendar.py); before it all is as without it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import islice, product
from typing import Literal, get_args

import numpy as np
import pandas as pd

from volcast.models.calendar_names import NEW_YORK
from volcast.models.text import brief
from volcast.tasks.sources.exchange import Exchange
from volcast.tasks.sources.exchange_calendar import FIRST_SESSION
from volcast.tasks.sources.exchange_prices import stream
from volcast.tasks.sources.source import EVENT_COLUMNS, Announced, Fetch, Outcome, Pace, UnknownSource

TICKER = re.compile(r"[A-Z0-9][A-Z0-9.\-]{0,11}")
SPEC = re.compile(r"simulated(?::(?P<seed>[0-9]{1,100}))?(?:\?(?P<options>.+))?")
OPTIONS = {"universe": re.compile(r"[0-9]{1,9}"), "faults": re.compile(r"[a-z,]+"), "shift": re.compile(r"[0-9-]{10}")}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_UNIVERSE = 100_000

Fault = Literal["gap", "duplicate", "null", "partial", "restated", "ratelimit", "outage"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
SHARE = 0.01  # of the sessions, for each of gap, duplicate, null and restated
LATE_BY = 10  # sessions
CORRECTED_AFTER = 30  # sessions
RESTATED_RATIO = 0.9
MEASURES = ["open", "high", "low", "close", "volume"]


def simulated_source(spec: str) -> "SimulatedSource":
    """The source that `spec` names; UnknownSource (a ValueError) when it cannot be read."""
    match = SPEC.fullmatch(spec)
    parts = [part.partition("=") for part in match["options"].split("&")] if match and match["options"] else []
    given = {name: value for name, _, value in parts if name in OPTIONS and OPTIONS[name].fullmatch(value)}
    if match is None or len(given) < len(parts):
        raise UnknownSource(
            "expected simulated[:SEED][?universe=TICKERS][&faults=NAME,NAME][&shift=DATE], such as "
            f"simulated:7?faults=gap, not {brief(spec)}"
        )
    faults = given["faults"].split(",") if "faults" in given else []
    shift = _date(given["shift"]) if "shift" in given else None
    return SimulatedSource(int(match["seed"] or 0), faults, universe=int(given.get("universe", 1)), shift=shift)


class SimulatedSource:
    """A PriceSource and EventSource; equal calls get equal answers, but for the refusals of the fault `ratelimit`."""

    knows_market = False
    incremental = True
    remarks: Sequence[str] = ()
    pace: Pace | None = None

    def __init__(
        self, seed: int = 0, faults: Iterable[str] = (), *, universe: int = 1, shift: date | None = None
    ) -> None:
        """`seed` >= 0, `faults` among FAULTS and `universe` from 1 to MAX_UNIVERSE tickers, else UnknownSource."""
        names = set(faults)
        if seed < 0 or not names <= set(FAULTS):
            raise UnknownSource(
                f"expected a seed >= 0 and faults among {', '.join(FAULTS)}, not {seed} and {brief(sorted(names))}"
            )
        if not 1 <= universe <= MAX_UNIVERSE:
            raise UnknownSource(f"expected a universe of 1 to {MAX_UNIVERSE} tickers, not {universe}")
        self.seed, self._universe, self._shift = seed, universe, shift
        self.faults: frozenset[Fault] = frozenset(fault for fault in FAULTS if fault in names)
        options = [f"universe={universe}"] * (universe > 1) + [f"faults={','.join(sorted(names))}"] * bool(names)
        options += [f"shift={shift}"] if shift else []
        self.spec = f"simulated:{seed}" + (f"?{'&'.join(options)}" if options else "")
        self._calls: Counter[str] = Counter()

    def tickers(self) -> list[str]:
        """The tickers that are taken when none is asked for."""
        made_up = ("".join(letters) for letters in product(LETTERS, repeat=4))
        return ["SBUX", *islice((name for name in made_up if name != "SBUX"), self._universe - 1)]

    def fetch(self, ticker: str, *, first: date | None, last: date) -> Fetch:
        """Bars of the sessions from `first` (None: 2000-01-03) to `last`, both included, as of the close of `last`.

        Raises ValueError when the market's calendar does not reach `last`.
        """
        failure = self._failure(ticker, last)
        if failure is not None:
            return failure
        first = first or FIRST_SESSION
        if last >= FIRST_SESSION:
            bars = Exchange(seed=self.seed, last=last, shift=self._shift).bars(ticker)
            bars = _spoil(bars, seed=self.seed, clock=last, faults=self.faults) if self.faults else bars
            bars = bars.loc[bars["session"] >= pd.Timestamp(first)].reset_index(drop=True)
            if len(bars):
                return Fetch(ticker=ticker, outcome=Outcome.OK, bars=bars)
        return Fetch(ticker=ticker, outcome=Outcome.EMPTY, known=f"simulated: no bar from {first} to {last}")

    def announcements(self, tickers: Sequence[str], *, as_of: date) -> pd.DataFrame:
        """EVENT_COLUMNS, by ticker as given and first_seen: every date announced by the close of `as_of`.

        A date that was moved stays, with its earlier first_seen: of two dates of a ticker less than ten sessions apart
        the later seen one holds. A name that no ticker can have gets no rows.
        """
        known = [ticker for ticker in tickers if TICKER.fullmatch(ticker)]
        if not known or as_of < FIRST_SESSION:
            return pd.DataFrame(columns=EVENT_COLUMNS)
        exchange = Exchange(seed=self.seed, last=as_of)
        return pd.concat([exchange.announcements(ticker) for ticker in known], ignore_index=True)

    def announced(self, ticker: str, *, as_of: date, calendar: str = NEW_YORK) -> Announced:  # noqa: ARG002
        """`announcements` of one ticker; DOWN where the fault `outage` has its clock."""
        if why := self._outage(as_of):
            return Announced(ticker=ticker, outcome=Outcome.DOWN, known=why)
        events = self.announcements([ticker], as_of=as_of)
        return Announced(ticker=ticker, outcome=Outcome.OK if len(events) else Outcome.EMPTY, events=events)

    def _failure(self, ticker: str, last: date) -> Fetch | None:
        if not TICKER.fullmatch(ticker):
            known = f"simulated: {ticker!r} is no ticker, expected {TICKER.pattern}"
            return Fetch(ticker=ticker, outcome=Outcome.NOT_FOUND, known=known)
        if why := self._outage(last):
            return Fetch(ticker=ticker, outcome=Outcome.DOWN, known=why)
        if "ratelimit" in self.faults:
            self._calls[ticker] += 1
            if self._calls[ticker] <= stream(self.seed, ticker, "ratelimit").integers(1, 3):  # 1 or 2 refusals
                return Fetch(ticker=ticker, outcome=Outcome.RATE_LIMITED, known="simulated: refused (fault ratelimit)")
        return None

    def _outage(self, clock: date) -> str:
        """Why nothing answers at this clock date; empty where the exchange is up."""
        is_down = "outage" in self.faults and stream(self.seed, "market", f"outage {clock}").random() < 0.2
        return f"simulated: down at clock {clock} (fault outage)" if is_down else ""


def _spoil(bars: pd.DataFrame, *, seed: int, clock: date, faults: frozenset[Fault]) -> pd.DataFrame:
    """`bars` of one ticker from the first session on (BAR_COLUMNS, ascending), with those faults that live in rows."""
    ticker = str(bars["ticker"].iloc[0])
    age = np.arange(len(bars))[::-1]  # sessions from each row to the clock
    draws = {fault: stream(seed, ticker, fault).random(len(bars)) for fault in faults}
    times = np.ones(len(bars), int)
    if "restated" in faults:
        uncorrected = (draws["restated"] < SHARE) & (age < CORRECTED_AFTER)
        bars.loc[uncorrected, "volume"] = np.ceil(bars["volume"] * RESTATED_RATIO)
    if "partial" in faults and bars["session"].iloc[-1] == pd.Timestamp(clock):
        _trade_partly(bars, stream(seed, ticker, f"partial {clock}").uniform(0.2, 0.8))
    if "null" in faults:
        bars.loc[draws["null"] < SHARE, MEASURES] = np.nan
    if "duplicate" in faults:
        times[draws["duplicate"] < SHARE] = 2
    if "gap" in faults:
        times[(draws["gap"] < SHARE / 2) | ((draws["gap"] < SHARE) & (age < LATE_BY))] = 0
    return bars.iloc[np.repeat(np.arange(len(bars)), times)].reset_index(drop=True)


def _trade_partly(bars: pd.DataFrame, traded: float) -> None:
    """Make the last row what it was after a share `traded` of its volume, with that share of its moves."""
    opened, high, low, close = (float(bars[name].iloc[-1]) for name in ("open", "high", "low", "close"))
    so_far = opened + traded * (close - opened)
    highest = max(opened, so_far) + traded * (high - max(opened, close))
    lowest = min(opened, so_far) - traded * (min(opened, close) - low)
    volume = np.ceil(bars["volume"].iloc[-1] * traded)
    bars.loc[bars.index[-1], MEASURES] = [opened, round(highest, 6), round(lowest, 6), round(so_far, 6), volume]


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UnknownSource(f"expected a date such as shift=2011-06-01, not {text!r}") from error
