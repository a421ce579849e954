"""The simulated exchange as a source of prices and announcements, for offline use, tests and scale.

Specs: `simulated`, `simulated:7` (the seed), `simulated:7?universe=6700` (so many tickers: SBUX and made-up ones),
`simulated:7?faults=gap,null` (exchange_faults.py), `simulated:7?shift=2011-06-01` (a regime shift, exchange.py),
`simulated:7?universe=50&faults=gap`.
The clock is the `last` or `as_of` of each call; nothing after it is ever shown.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import islice, product

import pandas as pd

from models.words import brief
from tasks.sources.exchange import Exchange
from tasks.sources.exchange_calendar import FIRST_SESSION
from tasks.sources.exchange_faults import FAULTS, Fault, is_down, refusals, spoil
from tasks.sources.protocol import EVENT_COLUMNS, Announced, Fetch, Outcome, Pace, UnknownSource

TICKER = re.compile(r"[A-Z0-9][A-Z0-9.\-]{0,11}")
SPEC = re.compile(r"simulated(?::(?P<seed>[0-9]{1,100}))?(?:\?(?P<options>.+))?")
OPTIONS = {"universe": re.compile(r"[0-9]{1,9}"), "faults": re.compile(r"[a-z,]+"), "shift": re.compile(r"[0-9-]{10}")}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_UNIVERSE = 100_000


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

    simulated = True
    incremental = True
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
            bars = spoil(bars, seed=self.seed, clock=last, faults=self.faults) if self.faults else bars
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

    def announced(self, ticker: str, *, as_of: date) -> Announced:
        """`announcements` of one ticker; DOWN where the fault `outage` has its clock."""
        if "outage" in self.faults and is_down(self.seed, as_of):
            known = f"simulated: down at clock {as_of} (fault outage)"
            return Announced(ticker=ticker, outcome=Outcome.DOWN, known=known)
        events = self.announcements([ticker], as_of=as_of)
        return Announced(ticker=ticker, outcome=Outcome.OK if len(events) else Outcome.EMPTY, events=events)

    def _failure(self, ticker: str, last: date) -> Fetch | None:
        if not TICKER.fullmatch(ticker):
            known = f"simulated: {ticker!r} is no ticker, expected {TICKER.pattern}"
            return Fetch(ticker=ticker, outcome=Outcome.NOT_FOUND, known=known)
        if "outage" in self.faults and is_down(self.seed, last):
            return Fetch(ticker=ticker, outcome=Outcome.DOWN, known=f"simulated: down at clock {last} (fault outage)")
        if "ratelimit" in self.faults:
            self._calls[ticker] += 1
            if self._calls[ticker] <= refusals(self.seed, ticker):
                return Fetch(ticker=ticker, outcome=Outcome.RATE_LIMITED, known="simulated: refused (fault ratelimit)")
        return None


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UnknownSource(f"expected a date such as shift=2011-06-01, not {text!r}") from error
