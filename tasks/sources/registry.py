"""Which source a spec means."""

from functools import lru_cache
from typing import TYPE_CHECKING

from models.text import brief
from tasks.sources.files import FileEvents, FilesSource
from tasks.sources.simulated import simulated_source
from tasks.sources.source import EventSource, PriceSource, UnknownSource

if TYPE_CHECKING:
    from tasks.sources.yahoo import YahooSource

KNOWN = "simulated[:SEED], yahoo, files:PATH-or-URL"

_simulated = lru_cache(simulated_source)  # one a process: it counts the calls that it has refused (fault ratelimit)


def _yahoo() -> "YahooSource":
    """Imported when it is asked for: yfinance takes a second."""
    from tasks.sources.yahoo import YahooSource

    return YahooSource()


def open_source(spec: str) -> PriceSource:
    """The source that `spec` names. Raises UnknownSource with the specs that there are."""
    kind, _, rest = spec.partition(":")
    match kind:
        case "yahoo" if spec == "yahoo":
            return _yahoo()
        case "files" if rest:
            return FilesSource(rest)
        case _ if kind.split("?")[0] == "simulated":
            return _simulated(spec)
    raise UnknownSource(f"{brief(spec)} is not a source. Expected one of: {KNOWN}.")


def open_event_source(spec: str) -> EventSource | None:
    """The calendar that `spec` names, a file's already read; None for `none`. Raises SourceError."""
    kind, _, rest = spec.partition(":")
    match kind:
        case "none" if spec == "none":
            return None
        case "yahoo" if spec == "yahoo":
            return _yahoo()
        case "files" if rest:
            return FileEvents(rest)
        case _ if kind.split("?")[0] == "simulated":
            return simulated_source(spec)
    raise UnknownSource(f"{brief(spec)} is not a source of announcements. Expected one of: {KNOWN}, none.")
