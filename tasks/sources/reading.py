"""How a file is to be read where it does not say so itself; part of a source's spec, so that later runs do alike.

    files:prices.csv#decimal=,&date-format=%d/%m/%Y&columns=Kurs=close,Stück=volume*100&ticker=SAP

Each part has an option on the command line; `ticker` is for a file whose name is no ticker.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from volcast.models.text import brief
from volcast.storage.locations import OF_FILES
from volcast.tasks.sources.source import SourceUnusable, UnknownSource

KEY = rf"(?=(?:{'|'.join(OF_FILES)})=)"
NAMES = ("date", "open", "high", "low", "close", "adj_close", "volume", "dividend", "split", "ticker")
EPOCHS = {"s": "s", "ms": "ms", "us": "us", "ns": "ns", "days": "D", "excel": "D"}  # --date-format -> unit of a number


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a person has said of a file."""

    date_format: str = ""  # of strptime, or one of EPOCHS
    decimal: str = ""  # . or ,
    columns: Mapping[str, tuple[str, float]] = field(default_factory=dict)  # heading -> name here ("": none), scale
    ticker: str = ""  # of a file of one ticker

    @property
    def tells_volume(self) -> bool:
        """Whether the person has said which column is the volume, and so its unit."""
        return any(name == "volume" for name, _ in self.columns.values())


@dataclass(frozen=True)
class FileReader:
    """A file by its name in messages, how it is to be read, and what a person should know of what was taken from it."""

    file: str
    reading: Reading = field(default_factory=Reading)
    notes: dict[str, None] = field(default_factory=dict)  # in order, each once

    def note(self, text: str) -> None:
        """Keep one sentence of what was taken."""
        self.notes[f"{self.file}: {text}"] = None

    def refuse(self, text: str) -> NoReturn:
        """Raise SourceUnusable."""
        raise SourceUnusable(f"{self.file}: {text}")


def split_location(location: str) -> tuple[str, Reading]:
    """The path or URL of `location`, and what it says on reading it. Raises UnknownSource."""
    path, said = _parts(location)
    if said.get("decimal", ".") not in (".", ","):
        raise UnknownSource(f"--decimal must be . or , (a dot or a comma); {brief(said['decimal'])} came.")
    date_format = said.get("date-format", "")
    if date_format and "%" not in date_format and date_format not in EPOCHS:
        expected = f"a format such as %d/%m/%Y, or one of {', '.join(EPOCHS)}"
        raise UnknownSource(f"--date-format must be {expected}; {brief(date_format)} came.")
    return path, Reading(
        date_format=date_format,
        decimal=said.get("decimal", ""),
        columns=_columns(said.get("columns", "")),
        ticker=said.get("ticker", "").strip().upper(),
    )


def with_reading(spec: str, said: Mapping[str, str | None]) -> str:
    """The spec with what is said anew, by the names of OF_FILES; what is None stays, and "" is said no more.

    Raises UnknownSource.
    """
    given = {name: value for name, value in said.items() if value is not None}
    if not given:
        return spec
    if not spec.startswith("files:"):
        raise UnknownSource(f"--{next(iter(given))} is for files; the source is {brief(spec)}.")
    path, known = _parts(spec)
    merged = "&".join(f"{name}={value}" for name, value in (known | given).items() if value)
    told = f"{path}#{merged}" if merged else path
    split_location(told)
    return told


def _parts(location: str) -> tuple[str, dict[str, str]]:
    path, *rest = re.split("#" + KEY, location, maxsplit=1)
    return path, dict(part.split("=", 1) for part in re.split("&" + KEY, rest[0])) if rest else {}


def _columns(text: str) -> dict[str, tuple[str, float]]:
    """`Vol.=volume, Kurs=close, Umsatz=volume*1000, Name=` by the heading in lower case."""
    found: dict[str, tuple[str, float]] = {}
    rest = text.strip()
    while rest:
        part = re.match(r"\s*(?P<heading>.+?)\s*=\s*(?P<name>\w*)\s*(?:\*\s*(?P<scale>[\d.e+]+))?\s*(?:,|$)", rest)
        try:
            scale = float(part["scale"] or 1) if part else 0.0
        except ValueError:
            scale = 0.0
        if part is None or part["name"].lower() not in ("", *NAMES) or not 0 < scale < float("inf"):
            expected = f"HEADING=NAME or HEADING=NAME*1000, NAME one of {', '.join(NAMES)}, or nothing to leave it out"
            raise UnknownSource(f"--columns must be {expected}; {brief(rest)} came.")
        name = part["name"].lower()
        found[part["heading"].casefold()] = ("session" if name == "date" else name), scale
        rest = rest[part.end() :]
    return found
