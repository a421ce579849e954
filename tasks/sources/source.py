"""What a source of prices or of announcements promises, how it may fail, and which one a spec means.

SourceError             the source as a whole cannot serve; the message says what to do
├── UnknownSource       no source has that name, or its spec cannot be read
├── SourceMissing       the file or folder named by the spec is not there
└── SourceUnusable      what is there is not prices: a column lacks, a number is text, no rows at all
    └── Contradiction   one ticker's prices and splits fit no reading; the others go on (as_traded.py)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from functools import lru_cache
from typing import Protocol, runtime_checkable

import pandas as pd

from volcast.models.calendar_names import NEW_YORK
from volcast.models.errors import UnusablePlugin
from volcast.models.plugins import added_names, load_added
from volcast.models.text import brief
from volcast.storage.locations import require_no_credentials, shown

SPECS = "simulated[:SEED], yahoo, files:PATH-or-URL"
OWN = ("simulated", "yahoo", "files", "stored", "none")  # no package can add a source whose name begins so
INSTALL = "A source that a package adds needs that installed."
IN_ENVIRONMENT = "env:"  # of a file: the name of a variable that holds its path or URL, which nothing shows or keeps


class SourceError(ValueError):
    """The source as a whole cannot serve."""


class UnknownSource(SourceError):
    """No source has that name, or its spec cannot be read."""


class SourceMissing(SourceError):
    """The file or folder named by the spec is not there."""


class SourceUnusable(SourceError):
    """What is there is not prices, or not announcements."""


class Outcome(StrEnum):
    """What came of asking a source for one ticker."""

    OK = "ok"
    EMPTY = "empty"
    NOT_FOUND = "not_found"
    RATE_LIMITED = "rate_limited"
    BAD_SCHEMA = "bad_schema"
    DOWN = "down"
    SHRUNK = "shrunk"
    NO_VOLUME = "no_volume"
    WRONG_CALENDAR = "wrong_calendar"


TRANSIENT = frozenset({Outcome.RATE_LIMITED, Outcome.DOWN})

BAR_COLUMNS = [
    "ticker",  # str
    "session",  # datetime64[s], midnight without a time zone
    "open",  # float64, USD a share, adjusted for splits and not for dividends
    "high",
    "low",
    "close",
    "volume",  # float64, shares; NaN where missing
    "dividend",  # float64, USD a share on the ex-session, else 0
    "split",  # float64, new shares for one old on the session, else 0
    "later_adjustment",  # float64, the adj_close factor of dividends after the last row, on that row; else 1
]
EVENT_COLUMNS = [
    "ticker",  # str
    "announced_for",  # datetime64[s], midnight without a time zone
    "when",  # bmo (before the open), amc (after the close) or empty
    "first_seen",  # datetime64[s], the session at whose close it was known; NaT where the source does not say
]


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """What a source said of one ticker; `bars` (BAR_COLUMNS, any order of rows) is empty unless the outcome is OK."""

    ticker: str
    outcome: Outcome
    bars: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=BAR_COLUMNS))
    known: str = ""  # what the source said
    guessed: str = ""  # what that may mean
    notes: tuple[str, ...] = ()  # what was changed or left out, as sentences


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a source may be asked, by all workers together."""

    limit: str  # the name of the global limit on Prefect's server
    calls_per_second: float
    pause_seconds: float  # after a refusal, times the number of refusals; a source that says how long is not heard


@dataclass(frozen=True, kw_only=True)
class Announced:
    """What a source said of one ticker's dates; `events` (EVENT_COLUMNS) is empty unless the outcome is OK.

    A source of dated events of any kind has a column `kind` (str) beside; without it all are earnings.
    EMPTY says that the source names no date, NOT_FOUND that it may know nothing of the ticker; neither is a failure.
    """

    ticker: str
    outcome: Outcome
    events: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=EVENT_COLUMNS))
    known: str = ""  # what the source said


def why_not(answer: Fetch | Announced) -> str:
    """A sentence on what kept a ticker from being answered."""
    guess = f" (perhaps {answer.guessed})" if isinstance(answer, Fetch) and answer.guessed else ""
    return f"{answer.ticker}: {answer.outcome.replace('_', ' ')}: {answer.known}{guess}"


@runtime_checkable
class PriceSource(Protocol):
    """Daily bars, one ticker a call; up to four threads ask at once."""

    spec: str
    incremental: bool  # whether it is asked for what is missing only; files are always read whole: they are the truth
    pace: Pace | None

    @property
    def remarks(self) -> Sequence[str]:
        """What a person should know of its tickers before anything is stored."""
        ...

    def tickers(self) -> list[str]:
        """The tickers that are taken when none is asked for."""
        ...

    def fetch(self, ticker: str, *, first: date | None, last: date) -> Fetch:
        """Bars of the sessions from `first` (None: as early as there are any) to `last`, both included."""
        ...


@runtime_checkable
class EventSource(Protocol):
    """Announcements of earnings, or dated events of any kind, one ticker a call."""

    knows_market: bool  # whether it may be asked for the ticker MARKET: the events of the whole market

    @property
    def spec(self) -> str:
        """What it is opened by."""
        ...

    @property
    def pace(self) -> Pace | None:
        """How fast it may be asked; a source of prices and announcements has one pace for both."""
        ...

    def announced(self, ticker: str, *, as_of: date, calendar: str = NEW_YORK) -> Announced:
        """The dates, by the clock of the calendar's market, that were known by the close of `as_of`.

        Those without first_seen, as far as the source has any.
        """
        ...


def open_source(spec: str) -> PriceSource:
    """The source that `spec` names. Raises UnknownSource with the specs that there are, or for credentials in a URL."""
    if location := _file_of(spec):
        from volcast.tasks.sources.files import FilesSource

        return FilesSource(location)
    if market := _market(spec):
        return market
    raise UnknownSource(f"{brief(shown(spec))} is not a source. Expected one of: {_specs()}. {INSTALL}")


def open_event_source(spec: str) -> EventSource | None:
    """The calendar that `spec` names, a file's already read; None for `none`. Raises SourceError."""
    if spec == "none":
        return None
    if location := _file_of(spec):
        from volcast.tasks.sources.files import FileEvents

        return FileEvents(location)
    if isinstance(market := _market(spec), EventSource):
        return market
    known = f"{brief(shown(spec))} is not a source of announcements"
    raise UnknownSource(f"{known}. Expected one of: {_specs()}, none. {INSTALL}")


def is_added(spec: str) -> bool:
    """Whether the source is one that an installed package of somebody else's adds."""
    return not spec.startswith(OWN) and _scheme(spec) in added_names("volcast.sources")


def _file_of(spec: str) -> str:
    """The file of a spec, or an empty text. Raises UnknownSource for credentials in its URL."""
    try:
        require_no_credentials(spec)
    except ValueError as error:
        raise UnknownSource(str(error)) from error
    return spec.removeprefix("files:") if spec.startswith("files:") else ""


@lru_cache  # one a process: the simulated one counts the calls that it has refused (fault ratelimit)
def _market(spec: str) -> PriceSource | None:
    """Any source but files; imported when it is asked for, since yfinance takes a second."""
    if spec == "yahoo":
        from volcast.tasks.sources.yahoo import YahooSource

        return YahooSource()
    if _scheme(spec) == "simulated":
        from volcast.tasks.sources.simulated import simulated_source

        return simulated_source(spec)
    return None if spec.startswith(OWN) else _added(spec)


def _added(spec: str) -> PriceSource | None:
    """What the package makes of the spec that adds its scheme; None where none does. Raises SourceError."""
    try:
        make = load_added("volcast.sources", _scheme(spec))
    except UnusablePlugin as error:
        raise SourceUnusable(str(error)) from error
    if make is None:
        return None
    if not isinstance(source := make(spec), PriceSource):
        raise SourceUnusable(
            f"{spec}: the package that adds it gives no PriceSource, with spec, incremental, pace, remarks, tickers "
            f"and fetch, but {brief(source)}."
        )
    return source


def _scheme(spec: str) -> str:
    return re.split("[:?]", spec, maxsplit=1)[0]


def _specs() -> str:
    return ", ".join([SPECS, *added_names("volcast.sources")])
