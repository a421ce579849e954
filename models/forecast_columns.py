"""Names of the columns of forecasts: the keys of a row, point, mean, ends of intervals, quantiles, reasons.

A frame of forecasts names them after the forecaster X, as utilsforecast's losses look for them: X (the point), X-mean,
X-lo-80, X-hi-80, X-lo-95, X-hi-95, and, in a published forecast, X-q-LEVEL for each of `forecasters.LEVELS`. A row of
the ledger is of one forecaster: median, mean, lo_80, hi_80, lo_95, hi_95.

X is the median, or what a naive forecaster states. Where a person asked for another point (models/points.py), the
column `point` names it, and X-median stands beside it.

A network's published forecast says why (models/reasons.py): its median is `normal` (shares) times all of `reason-PART`,
and `why` says so in a sentence.
"""

from collections.abc import Mapping
from datetime import date
from math import isfinite, nan
from typing import Any

import pandas as pd

from volcast.models.forecasters import LEVELS, MODEL
from volcast.models.market_calendar import special_days
from volcast.models.point_names import USUAL_POINT

KEYS = ["unique_id", "cutoff", "ds", "h", "y"]  # of a row of a backtest
INTERVAL_ENDS = {"lo-80": 0.1, "hi-80": 0.9, "lo-95": 0.025, "hi-95": 0.975}  # ending of a name -> quantile level
POINT = "point"  # the column that names the point
SCORED_LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)  # the point stands for the median


def mean_column(name: str) -> str:
    """The column of a forecaster's mean."""
    return f"{name}-mean"


def median_column(name: str) -> str:
    """The column of a forecaster's median, beside another point."""
    return f"{name}-median"


def point_of(frame: pd.DataFrame) -> str:
    """Which number the point of a published forecast is, or of sums of it."""
    return str(frame[POINT].iloc[0]) if POINT in frame else USUAL_POINT


def interval_columns(name: str) -> dict[str, float]:
    """The columns of a forecaster's interval ends, and the quantile level of each."""
    return {f"{name}-{end}": level for end, level in INTERVAL_ENDS.items()}


def scored_columns(name: str) -> list[str]:
    """The columns of SCORED_LEVELS."""
    columns = {level: column for column, level in interval_columns(name).items()} | {0.5: name}
    return [columns[level] for level in SCORED_LEVELS]


def quantile_columns(name: str) -> list[str]:
    """The columns of `forecasters.LEVELS`, in a published forecast."""
    return [f"{name}-q-{level}" for level in LEVELS]


def in_whole_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Forecasts as people read them: whole shares, factors with four digits, no quantile twice."""
    twice, shares = [f"{MODEL}-q-{level}" for level in SCORED_LEVELS], share_columns(frame)
    digits = {name: 0 if name in shares else 4 for name in frame.select_dtypes("float")}
    return frame.drop(columns=twice, errors="ignore").round(digits)


def share_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of numbers of shares; the other numbers are factors."""
    return [str(name) for name in frame.select_dtypes("float") if not str(name).startswith(REASON)]


def models_of(frame: pd.DataFrame) -> list[str]:
    """The forecasters in a backtest's frame, in the order of their columns."""
    endings = (*interval_columns(""), mean_column(""))
    return [name for name in frame.columns if name not in KEYS and not name.endswith(endings)]


LEDGER_COLUMNS = {MODEL: "median", mean_column(MODEL): "mean"} | {
    f"{MODEL}-{end}": end.replace("-", "_") for end in INTERVAL_ENDS
}  # column of a published forecast -> column of the ledger
LEDGER_LEVELS = dict(zip((LEDGER_COLUMNS[name] for name in scored_columns(MODEL)), SCORED_LEVELS, strict=True))

NORMAL, REASON, WHY = "normal", "reason-", "why"
PARTS = {
    "recent": "recent activity",
    "weekday": "weekday",
    "calendar": "calendar",
    "earnings": "earnings",
    "others-earnings": "others' earnings",
    "events": "dated events",
    "market": "market",
    "year": "time of the year",
    "rest": "rest",
}  # part of the reasons -> what a person calls it
LEAST_PART = 0.005  # from 1: what is said in two decimals


def reason_column(part: str) -> str:
    """The column of one of PARTS, a factor."""
    return f"{REASON}{part}"


def has_reasons(row: Mapping[str, Any]) -> bool:
    """Whether a row of a published forecast says why; one of har or the seasonal naive does not."""
    return isfinite(row.get(reason_column("rest"), nan))


def row_of(own: pd.DataFrame, session: date | str | None) -> dict[str, Any] | None:
    """The row of one session of a ticker's published forecast, by default the next one; None where there is none."""
    rows = own.head(1) if session is None else own.loc[own["ds"] == pd.Timestamp(session)]
    return next(iter(rows.to_dict("records")), None)


def parts_of(row: Mapping[str, Any], calendar: str) -> dict[str, float]:
    """`named_parts` of a row of a market's calendar."""
    return named_parts(row, special_days(pd.DatetimeIndex([row["ds"]]), calendar)[row["ds"]])


def named_parts(row: Mapping[str, Any], special: str) -> dict[str, float]:
    """The parts of a row that count, by name, the strongest first and the rest last.

    `special`: what its session is in the calendar, in words.
    """
    factors = {part: float(row.get(reason_column(part), 1.0)) for part in PARTS}
    names = PARTS | {"weekday": f"{row['ds']:%A}", "calendar": special or PARTS["calendar"]}
    strength = {part: abs(factor - 1) if part != "rest" else 0.0 for part, factor in factors.items()}
    order = sorted(factors, key=lambda part: -strength[part])
    return {names[part]: factors[part] for part in order if abs(factors[part] - 1) >= LEAST_PART}


def sentence(row: Mapping[str, Any], special: str) -> str:
    """Why a row's median is what it is: "1.42 times normal: triple witching 1.31, recent activity 1.12, rest 0.97"."""
    parts = ", ".join(f"{name} {factor:.2f}" for name, factor in named_parts(row, special).items())
    return f"{row[MODEL] / row[NORMAL]:.2f} times normal" + (f": {parts}" if parts else "")
