"""The names of points of a forecast, and the quantile level of each; models/points.py says what they are for."""

import re

from volcast.models.errors import UnknownPoint
from volcast.models.text import brief

USUAL_POINT, MEAN, ALE = "median", "mean", "ale"
LEVELS_OF = {USUAL_POINT: 0.5, ALE: 1 / 3}
LEAST, MOST = 0.025, 0.975  # the levels that a forecast has


def point_named(word: str) -> str:
    """The name of a point. Raises UnknownPoint."""
    name = word.strip().lower()
    number = re.fullmatch(r"quantile:(0?\.\d+)", name)
    if name in (*LEVELS_OF, MEAN) or (number and LEAST <= float(number[1]) <= MOST):
        return name
    known = f"median, mean, ale or quantile:Q with a Q of {LEAST} to {MOST}"
    raise UnknownPoint(f"--point must be {known}; {brief(word)} came.")


def level_of(point: str) -> float | None:
    """The quantile level of a point; None for the mean."""
    return None if point == MEAN else LEVELS_OF.get(point) or float(point.removeprefix("quantile:"))


def point_words(point: str) -> str:
    """What a person calls it."""
    return "quantile 1/3 (ale)" if point == ALE else point.replace(":", " ")
