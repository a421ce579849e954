"""Names, values and numbers for a reader, of bounded length; and silence for whoever does not read."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def listed(names: Sequence[str], limit: int = 8, joint: str = ", ") -> str:
    """The first names, and how many more there are: "AAPL, SBUX and 3 more"."""
    return joint.join(names[:limit]) + (f" and {len(names) - limit:,} more" if len(names) > limit else "")


def counted(count: int, one: str, several: str = "") -> str:
    """A count with what it is of: "1 ticker", "1,250 tickers"; "1 row was held back", "2 rows were held back"."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def meant(words: Iterable[str], known: Iterable[str]) -> str:
    """The known names that unknown words may stand for, as a question behind a sentence; empty where none is like them.

    " Did you mean SBUX?"
    """
    names = list(known)
    close = [match for word in words if word not in names for match in get_close_matches(word, names, n=1)]
    return f" Did you mean {listed(list(dict.fromkeys(close)), joint=' and ')}?" if close else ""


def brief(value: object, limit: int = 60) -> str:
    """The value as Python writes it, or the beginning of that: "'steps', …"."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"


def line_starts(text: str, width: int) -> list[int]:
    """Where the lines after the first one begin, each at most so wide; none within a word, however long that is."""
    starts, start = list[int](), 0
    for word in re.finditer(r"\S+", text):
        if word.end() - start > width and word.start() > start:
            starts.append(start := word.start())
    return starts


def format_p(p_value: float) -> str:
    """A p-value in three decimals, or < 0.001."""
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def format_shares(shares: float) -> str:
    """Shares, three digits or so: 2.53 M, 12.3 k, 950."""
    if abs(shares) >= 1e6:
        return f"{shares / 1e6:.2f} M"
    return f"{shares / 1e3:.1f} k" if abs(shares) >= 1e3 else f"{shares:.0f}"


def format_millions(shares: float) -> str:
    """Million shares, three digits or so: 33.7, 6.18, 0.099."""
    millions = shares / 1e6
    return f"{millions:,.{3 if millions < 1 else 2 if millions < 10 else 1}f}"


def silent(*_progress: object) -> None:
    """A callback of progress that says nothing."""
