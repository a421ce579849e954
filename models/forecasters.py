"""What every forecaster of volume is to the rest: something fitted on the past that answers at cutoffs.

The network and the baselines are of this one kind, so that they are scored, calibrated and drawn by the same code.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from models.panel import Panel

# N tickers, C cutoffs, H horizons (1 to HORIZONS), Q quantile levels

LEVELS = (0.025, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.975)  # among them the ends of the 80 % and the 95 % interval
MEDIAN = LEVELS.index(0.5)


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecasts:
    """Forecasts of every ticker at some cutoffs; NaN where it had no row at the cutoff, or too short a history."""

    cutoffs: np.ndarray  # (C,) int, places in the panel's sessions
    quantiles_NCHQ: np.ndarray  # float32, shares; ascending along Q, of LEVELS
    mean_NCH: np.ndarray  # float32, shares: the conditional mean, right for squared errors as the median is for MAE
    stated_NCH: np.ndarray | None = None  # float64, shares: what a forecaster says instead of its median

    @property
    def point_NCH(self) -> np.ndarray:
        """The one number that is scored by absolute errors, in shares: what is stated, else the median."""
        return self.quantiles_NCHQ[..., MEDIAN] if self.stated_NCH is None else self.stated_NCH


class Forecaster(Protocol):
    """A way to forecast volume.

    `forecast` uses nothing of the panel after each cutoff, although the panel may hold it: `panel.until(cutoff + 1)`
    must give the same numbers, bit for bit.
    """

    name: str

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Fitted on the sessions up to place `through`, targets included: the last target is that session."""
        ...

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts at `cutoffs` (C,), places in `panel.sessions`, each below `panel.known`."""
        ...
