"""LightGBM on the very columns that volcast's network is given, the horizon being one more.

1. rows are drawn at random from every ticker, cutoff and horizon whose target lies in the training span
2. the target is log volume less its mean over the 20 sessions up to the cutoff
3. one model a quantile level for all horizons together: the columns of the target say most of what differs
4. the levels between are interpolated along the normal's scale
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.stats import norm

from benchmarks.peers.common import library, to_forecasts
from volcast.models.forecasters import LEVELS, Forecasts
from volcast.models.panel import HORIZONS, Panel
from volcast.models.volume_inputs import Inputs, build_inputs, table

# N tickers, C cutoffs, H horizons, Q quantile levels, P fitted levels, R rows, K columns

FITTED = (0.025, 0.1, 0.5, 0.9, 0.975)


@dataclass(frozen=True, kw_only=True)
class BoostingSettings:
    """Tuned on 2019 and 2020 with training through 2018, on 20 tickers: larger trees overfit the tails."""

    rows: int = 800_000  # drawn for the fit
    rounds: int = 250  # trees a level
    learning_rate: float = 0.05
    leaves: int = 15  # with 31 the pinball loss is 2 % larger
    least_rows: int = 300  # of a leaf
    column_share: float = 0.5  # drawn for each tree
    row_share: float = 0.5  # drawn for each tree
    threads: int = 1
    seed: int = 0


class Boosting:
    """Gradient-boosted trees, one model a quantile level."""

    name = "lightgbm"

    def __init__(self, settings: BoostingSettings | None = None) -> None:
        self._settings = settings or BoostingSettings()

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Fitted on rows whose target is at most session `through`."""
        lightgbm = library("lightgbm")
        inputs = _inputs(panel.until(through + 1))
        x_RK, y_R = self._draw(inputs)
        rows = lightgbm.Dataset(x_RK, label=y_R, free_raw_data=False)
        self._boosters = [
            lightgbm.train(self._parameters(level), rows, num_boost_round=self._settings.rounds) for level in FITTED
        ]
        return self

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts of each ticker that traded at the cutoff and has a level there."""
        inputs = _inputs(panel)
        row_R, column_R = np.nonzero(inputs.usable_NT[:, cutoffs])
        cutoff_R = cutoffs[column_R]
        weights_PQ = _interpolation()
        log_quantiles_NCHQ = np.full((len(panel.tickers), len(cutoffs), HORIZONS, len(LEVELS)), np.nan)
        for horizon in range(1, HORIZONS + 1):
            x_RK = _table(inputs, row_R, cutoff_R, horizon)
            above_RP = np.stack(
                [booster.predict(x_RK, num_threads=self._settings.threads) for booster in self._boosters], axis=1
            )
            log_RQ = np.sort(above_RP, axis=1) @ weights_PQ + inputs.level_NT[row_R, cutoff_R, None]
            log_quantiles_NCHQ[row_R, column_R, horizon - 1] = log_RQ
        return to_forecasts(cutoffs, log_quantiles_NCHQ)

    def _draw(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """(R, K) columns and (R,) targets of rows drawn without regard to ticker, cutoff or horizon."""
        rng = np.random.default_rng(self._settings.seed)
        tables, targets = [], []
        for horizon in range(1, HORIZONS + 1):
            past_N = inputs.panel.known - horizon
            has_target_NT = np.isfinite(inputs.panel.log_volume_NT[:, horizon:])
            row_R, cutoff_R = np.nonzero(inputs.usable_NT[:, :past_N] & has_target_NT)
            drawn = rng.permutation(len(row_R))[: self._settings.rows // HORIZONS]
            row_R, cutoff_R = row_R[drawn], cutoff_R[drawn]
            tables.append(_table(inputs, row_R, cutoff_R, horizon))
            targets.append(inputs.panel.log_volume_NT[row_R, cutoff_R + horizon] - inputs.level_NT[row_R, cutoff_R])
        return np.concatenate(tables), np.concatenate(targets)

    def _parameters(self, level: float) -> dict[str, Any]:
        ours = self._settings
        return {
            "objective": "quantile",
            "alpha": level,
            "learning_rate": ours.learning_rate,
            "num_leaves": ours.leaves,
            "min_data_in_leaf": ours.least_rows,
            "feature_fraction": ours.column_share,
            "bagging_fraction": ours.row_share,
            "bagging_freq": 1,
            "num_threads": ours.threads,
            "seed": ours.seed,
            "deterministic": True,
            "force_col_wise": True,
            "verbose": -1,
        }


def _inputs(panel: Panel) -> Inputs:
    return build_inputs(panel, use_earnings=len(panel.announcements) > 0)


def _table(inputs: Inputs, row_R: np.ndarray, cutoff_R: np.ndarray, horizon: int) -> np.ndarray:
    """(R, K) float32: volcast's columns and the horizon."""
    x_RK = table(inputs, row_R, cutoff_R, horizon)
    return np.concatenate([x_RK, np.full((len(x_RK), 1), horizon, dtype=np.float32)], axis=1)


def _interpolation() -> np.ndarray:
    """(P, Q): the weights with which the fitted levels give LEVELS, linear along the normal's quantiles."""
    fitted_P, wanted_Q = norm.ppf(FITTED), norm.ppf(LEVELS)
    return np.stack([np.interp(wanted_Q, fitted_P, unit_P) for unit_P in np.eye(len(FITTED))])
