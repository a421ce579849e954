"""fracast as a forecaster: a pretrained network that forecasts a series from itself alone, without any fit.

Its 85,001 weights come with its package. It is given log volume, up to CONTEXT rows of a ticker up to the cutoff. Its
quantiles are 0.1 to 0.9; those beyond are taken from the outermost ones along the normal's scale.
"""

from typing import Self

import numpy as np
from scipy.stats import norm

from benchmarks.peers.common import library, rows_until, to_forecasts
from volcast.models.forecasters import LEVELS, MEDIAN, Forecasts
from volcast.models.panel import HORIZONS, Panel

# N tickers, C cutoffs, H horizons, Q quantile levels, M series, L rows, P given levels

CONTEXT = 2048  # rows, all that it can see
MIN_ROWS = 22
SERIES = 64  # predicted at once


class PretrainedPeer:
    """fracast, zero-shot."""

    name = "fracast"

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Its weights as they come."""
        assert 0 <= through < panel.known
        self._network = library("fracast").FracastModel.from_pretrained(weights="fp32")
        return self

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts of each ticker that traded at the cutoff and has MIN_ROWS rows."""
        places, contexts = [], []
        for row in range(len(panel.tickers)):
            for column, cutoff in enumerate(cutoffs):
                place_L = rows_until(panel, row, cutoff, at_most=CONTEXT)
                if len(place_L) >= MIN_ROWS:
                    places.append((row, column))
                    contexts.append(
                        np.pad(panel.log_volume_NT[row, place_L], (CONTEXT - len(place_L), 0), constant_values=np.nan)
                    )
        log_quantiles_NCHQ = np.full((len(panel.tickers), len(cutoffs), HORIZONS, len(LEVELS)), np.nan)
        for first in range(0, len(places), SERIES):
            given_MHP = self._network.forecast_batch(np.stack(contexts[first : first + SERIES]), horizon=HORIZONS)
            row_M, column_M = np.array(places[first : first + SERIES]).T
            log_quantiles_NCHQ[row_M, column_M] = self._wanted(given_MHP)
        return to_forecasts(cutoffs, log_quantiles_NCHQ)

    def _wanted(self, given_MHP: np.ndarray) -> np.ndarray:
        """(M, H, Q): the given quantiles at LEVELS, linear along the normal's scale, and so beyond their ends."""
        at_P, at_Q = norm.ppf(self._network.quantiles), norm.ppf(LEVELS)
        inner = np.stack([np.interp(at_Q, at_P, unit_P) for unit_P in np.eye(len(at_P))])
        wanted_MHQ = np.sort(given_MHP, axis=-1) @ inner
        median_MH = wanted_MHQ[..., MEDIAN]
        for place in np.flatnonzero(np.abs(at_Q) > at_P[-1]):
            stretched = abs(at_Q[place]) / at_P[-1]
            wanted_MHQ[..., place] = median_MH + (wanted_MHQ[..., place] - median_MH) * stretched
        return wanted_MHQ
