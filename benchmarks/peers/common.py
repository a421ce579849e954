"""What the peers share: their library on demand, forecasts out of quantiles of log volume, and a ticker's own rows."""

import importlib
from types import ModuleType

import numpy as np

from volcast.models.forecasters import LEVELS, MEDIAN, Forecasts
from volcast.models.panel import Panel

# N tickers, C cutoffs, H horizons, Q quantile levels, R rows that traded

TENTH, NINTH_TENTH = LEVELS.index(0.1), LEVELS.index(0.9)
NORMAL_WIDTH = 2.5631  # standard deviations between the 0.1 and the 0.9 quantile of a normal


def library(name: str) -> ModuleType:
    """A module of the extra `bench`, which only the benchmarks need; ModuleNotFoundError says how to get it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name} cannot be imported: {error}. The peers need the extra: "
            "pip install --constraint constraints.txt --editable '.[bench]'"
        ) from error


def to_forecasts(cutoffs: np.ndarray, log_quantiles_NCHQ: np.ndarray) -> Forecasts:
    """Forecasts in shares from quantiles of log volume, sorted where a method lets them cross; NaN stays.

    The mean is that of a lognormal with the same median and 80 % interval: no peer forecasts it.
    """
    log_quantiles_NCHQ = np.sort(log_quantiles_NCHQ, axis=-1)
    deviation_NCH = (log_quantiles_NCHQ[..., NINTH_TENTH] - log_quantiles_NCHQ[..., TENTH]) / NORMAL_WIDTH
    log_mean_NCH = log_quantiles_NCHQ[..., MEDIAN] + deviation_NCH**2 / 2
    return Forecasts(
        cutoffs=cutoffs,
        quantiles_NCHQ=np.exp(log_quantiles_NCHQ).astype(np.float32),
        mean_NCH=np.exp(log_mean_NCH).astype(np.float32),
    )


def rows_until(panel: Panel, row: int, cutoff: int, *, at_most: int) -> np.ndarray:
    """(R,) int: the places of a ticker's newest `at_most` rows up to `cutoff`; empty where it had none there."""
    if not panel.traded_NT[row, cutoff]:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(panel.traded_NT[row, : cutoff + 1])[-at_most:]
