"""Words for a reader."""

from collections.abc import Sequence


def listed(names: Sequence[str], limit: int = 8, joint: str = ", ") -> str:
    """The first names, and how many more there are: "AAPL, SBUX and 3 more"."""
    return joint.join(names[:limit]) + (f" and {len(names) - limit:,} more" if len(names) > limit else "")
