"""Words for a reader, of bounded length."""

from collections.abc import Sequence


def listed(names: Sequence[str], limit: int = 8, joint: str = ", ") -> str:
    """The first names, and how many more there are: "AAPL, SBUX and 3 more"."""
    return joint.join(names[:limit]) + (f" and {len(names) - limit:,} more" if len(names) > limit else "")


def brief(value: object, limit: int = 60) -> str:
    """The value as Python writes it, or the beginning of that: "'steps', …"."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"
