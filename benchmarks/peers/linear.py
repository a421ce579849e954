"""har-x: the linear forecaster of volume that is fed everything that volcast's network is fed.

1. the columns are those of `volcast.models.volume_inputs.table`, cut at CLIP pooled standard deviations, and 1
2. the target is log volume less its mean over the 20 sessions up to the cutoff
3. fit and intervals are har's (`volcast.models.har`): sums of products with newer sessions weighing more, ridge, the
   quantiles of the recent errors with their median as part of the point

It is no part of the product. It cannot stand in for the network where the network's inputs are what fails, as har can;
and a champion needs a form that is stored and follows the sessions that come. By its errors it would be worth
it (docs/results.md: "The inputs in a linear model").
"""

from typing import Self

import numpy as np

from volcast.models.forecasters import Forecasts, with_errors
from volcast.models.har import HALF_LIFE, WINDOW, ridge
from volcast.models.panel import HORIZONS, Panel
from volcast.models.volume_inputs import Inputs, build_inputs, table

# N tickers, T sessions, C cutoffs, H horizons, R rows, B columns

ADDED = 400  # sessions that say 0 of each coefficient
CLIP = 4.0


class Linear:
    """Ridge on the network's inputs, per ticker and horizon."""

    name = "har-x"

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Fitted on the rows whose target is at most session `through`."""
        inputs = _inputs(panel.until(through + 1))
        self._middle_B, self._spread_B = _moments(inputs)
        betas_HNB = [self._betas(inputs, h) for h in range(1, HORIZONS + 1)]
        self._betas_NHB = np.stack(betas_HNB, axis=1)
        return self

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts of each ticker that traded at the cutoff and has a level there."""
        inputs = _inputs(panel.until(int(cutoffs.max()) + 1))

        def log_forecast(places: slice, h: int) -> np.ndarray:
            log_NT = np.full((len(panel.tickers), places.stop - places.start), np.nan)
            for row, betas_B in enumerate(self._betas_NHB[:, h - 1]):
                at_R = places.start + np.flatnonzero(inputs.usable_NT[row, places])
                log_NT[row, at_R - places.start] = self._columns(inputs, row, at_R, h) @ betas_B
            return log_NT + inputs.level_NT[:, places]

        errors = with_errors(panel, cutoffs, window=WINDOW, log_forecast=log_forecast)
        return Forecasts(cutoffs=cutoffs, quantiles_NCHQ=errors.quantiles_NCHQ, mean_NCH=errors.mean_NCH)

    def _betas(self, inputs: Inputs, h: int) -> np.ndarray:
        """(N, B)"""
        products, known = [], inputs.panel.known
        for row, log_volume_T in enumerate(inputs.panel.log_volume_NT):
            at_R = np.flatnonzero(inputs.usable_NT[row, :-h] & np.isfinite(log_volume_T[h:]))
            target_R = log_volume_T[at_R + h] - inputs.level_NT[row, at_R]
            whole_RB = np.column_stack([self._columns(inputs, row, at_R, h), target_R])
            weight_R = 0.5 ** ((known - 1 - at_R - h) / HALF_LIFE)
            products.append(whole_RB.T @ (whole_RB * weight_R[:, None]))
        return ridge(np.stack(products), np.r_[1, np.full(products[0].shape[0] - 2, ADDED)])

    def _columns(self, inputs: Inputs, row: int, at_R: np.ndarray, h: int) -> np.ndarray:
        """(R, B) float64: 1, and the scaled columns."""
        x_RB = (table(inputs, np.full(len(at_R), row), at_R, h) - self._middle_B) / self._spread_B
        return np.column_stack([np.ones(len(at_R)), np.clip(x_RB, -CLIP, CLIP)])


def _inputs(panel: Panel) -> Inputs:
    return build_inputs(panel, use_earnings=len(panel.announcements) > 0)


def _moments(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """(B,) mean and standard deviation of each column, of every tenth row; 1 where it does not vary."""
    row_R, at_R = (places[::10] for places in np.nonzero(inputs.usable_NT))
    x_RB = table(inputs, row_R, at_R, 1)
    spread_B = x_RB.std(axis=0, dtype=np.float64)
    return x_RB.mean(axis=0, dtype=np.float64), np.where(spread_B > 0, spread_B, 1.0)
