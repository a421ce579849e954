"""statsforecast's AutoARIMA, AutoETS and AutoTheta as forecasters: one model a ticker, on log volume.

The form of each model is chosen and its parameters are fitted once, on the last HISTORY rows of the training span; for
a later cutoff the library's `forward` runs that model over the last HISTORY rows up to it. The quantiles are the ends
of the library's own intervals.
"""

from typing import Any, Literal, Self

import numpy as np

from benchmarks.peers.common import library, rows_until, to_forecasts
from volcast.models.forecasters import LEVELS, Forecasts
from volcast.models.panel import HORIZONS, Panel

# N tickers, C cutoffs, H horizons, Q quantile levels, R rows

HISTORY = 750  # three years: older rows have another level, and the search takes its time
SEASON = 5  # sessions, a week
MIN_ROWS = 60
WIDTHS = tuple(round(100 * (1 - 2 * level)) for level in LEVELS if level < 0.5)  # of the intervals, per cent
Kind = Literal["AutoARIMA", "AutoETS", "AutoTheta"]


class StatisticalPeer:
    """One of statsforecast's automatic models for every ticker."""

    def __init__(self, kind: Kind) -> None:
        self.name = kind.lower()
        self._kind = kind

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Fitted on each ticker that has MIN_ROWS rows up to `through`."""
        self._models: dict[str, Any] = {}
        for row, ticker in enumerate(panel.tickers):
            log_volume_R = panel.log_volume_NT[row, np.flatnonzero(panel.traded_NT[row, : through + 1])[-HISTORY:]]
            if len(log_volume_R) >= MIN_ROWS:
                model = getattr(library("statsforecast.models"), self._kind)(season_length=SEASON)
                self._models[ticker] = model.fit(log_volume_R)
        return self

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts of each ticker that was fitted, where it traded at the cutoff and has MIN_ROWS rows."""
        log_quantiles_NCHQ = np.full((len(panel.tickers), len(cutoffs), HORIZONS, len(LEVELS)), np.nan)
        for row, ticker in enumerate(panel.tickers):
            for column, cutoff in enumerate(cutoffs):
                place_R = rows_until(panel, row, cutoff, at_most=HISTORY)
                if ticker in self._models and len(place_R) >= MIN_ROWS:
                    past_R = panel.log_volume_NT[row, place_R]
                    given = self._models[ticker].forward(past_R, h=HORIZONS, level=sorted(WIDTHS))
                    log_quantiles_NCHQ[row, column] = _quantiles(given)
        return to_forecasts(cutoffs, log_quantiles_NCHQ)


def _quantiles(given: dict[str, np.ndarray]) -> np.ndarray:
    """(H, Q): the lower ends of the intervals, widest first, the mean, which is the median of these, and the upper."""
    lower = [given[f"lo-{width}"] for width in WIDTHS]
    upper = [given[f"hi-{width}"] for width in reversed(WIDTHS)]
    return np.stack([*lower, given["mean"], *upper], axis=1)
