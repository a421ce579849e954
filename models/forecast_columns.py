"""Names of the columns of forecasts: the keys of a row, the point, the mean, the ends of intervals, the quantiles.

A frame of forecasts names them after the forecaster X, as utilsforecast's losses look for them: X (the point), X-mean,
X-lo-80, X-hi-80, X-lo-95, X-hi-95, and, in a published forecast, X-q-LEVEL for each of `forecasters.LEVELS`. A row of
the ledger is of one forecaster: median, mean, lo_80, hi_80, lo_95, hi_95.
"""

import pandas as pd

from models.forecasters import LEVELS, MODEL

KEYS = ["unique_id", "cutoff", "ds", "h", "y"]  # of a row of a backtest
INTERVAL_ENDS = {"lo-80": 0.1, "hi-80": 0.9, "lo-95": 0.025, "hi-95": 0.975}  # ending of a name -> quantile level
SCORED_LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)  # the point stands for the median


def mean_column(name: str) -> str:
    """The column of a forecaster's mean."""
    return f"{name}-mean"


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
    """Forecasts as people read them: in whole shares, without the quantiles that have another name as well."""
    twice = [f"{MODEL}-q-{level}" for level in SCORED_LEVELS]
    return frame.drop(columns=twice, errors="ignore").round(dict.fromkeys(frame.select_dtypes("float"), 0))


def models_of(frame: pd.DataFrame) -> list[str]:
    """The forecasters in a backtest's frame, in the order of their columns."""
    endings = (*interval_columns(""), mean_column(""))
    return [name for name in frame.columns if name not in KEYS and not name.endswith(endings)]


LEDGER_COLUMNS = {MODEL: "median", mean_column(MODEL): "mean"} | {
    f"{MODEL}-{end}": end.replace("-", "_") for end in INTERVAL_ENDS
}  # column of a published forecast -> column of the ledger
LEDGER_LEVELS = dict(zip((LEDGER_COLUMNS[name] for name in scored_columns(MODEL)), SCORED_LEVELS, strict=True))
