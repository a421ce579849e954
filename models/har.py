"""Log-HAR with the calendar: the least squares forecaster of volume, and the one to beat.

Corsi (2009), "A Simple Approximate Long-Memory Model of Realized Volatility", for log volume. With v_1, v_5 and v_22
the means of log volume over the last 1, 5 and 22 traded sessions at cutoff t, and k the calendar of session t + h:

    log V(t + h) - v_22 = b_0 + b_1 (v_1 - v_22) + b_2 (v_5 - v_22) + b_3 v_22 + b_4 k_1 + ... + b_28 k_25 + error

1. fit: for each ticker and horizon, from sums of products over the sessions whose target is known
2. a ticker with fewer than LEAST_ROWS of them takes the fit of all tickers together, without b_3: relative to its own
   level, so that one ticker can speak for another
3. forecast: what the equation says, and around it the quantiles of its recent errors. Their median is part of the
   point: the years of the fit are not those of the forecast. Without it 56 % of the points of 2021-2022 lie above the
   volume instead of 51 %, and MASE one session ahead is 0.618 instead of 0.611 (230 tickers, fitted through 2020)
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from models.forecasters import HAR, Forecasts, traded_mean, with_errors
from models.market_calendar import calendar_columns, weekend_columns
from models.panel import HORIZONS, Panel

# N tickers, T sessions, S sessions of the grid, C cutoffs, H horizons, R rows of a fit, B coefficients, K calendar

MEANS = (1, 5, 22)  # sessions: a day, a week, a month
RELATIVE = ("intercept", "v1", "v5")
LEVEL = len(RELATIVE)  # where b_3 stands
LEAST_ROWS = 500  # two years: each date of the calendar has come about twice
WINDOW = 1000  # sessions of errors, four years
SMALLEST = 1e-10  # singular values below this share of the largest count as 0: a calendar date that did not come


@dataclass(kw_only=True, eq=False)
class Har:
    """Log-HAR with calendar columns, fitted per ticker and horizon."""

    name: str = HAR
    tickers: tuple[str, ...] = ()  # of the fit
    betas_NHB: np.ndarray | None = None  # float64; None before the fit

    def fit(self, panel: Panel, *, through: int) -> Self:
        """The fit on all targets up to place `through`."""
        known = panel.until(through + 1)
        design_NTL, calendar_SK = _design(known), _calendar(known)
        products = [_products(design_NTL, known, calendar_SK, h) for h in range(1, HORIZONS + 1)]
        betas_HNB = [_solve_each(products_NBB, rows_N) for products_NBB, rows_N in products]
        return replace(self, tickers=panel.tickers, betas_NHB=np.stack(betas_HNB, axis=1))

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts at `cutoffs` (C,); NaN where the ticker has no row at the cutoff, or fewer than 22 up to it.

        The point is the median. Raises ValueError before `fit`, and for a panel of other tickers than the fit's.
        """
        if self.betas_NHB is None or panel.tickers != self.tickers:
            raise ValueError(f"har forecasts the {len(self.tickers)} tickers it was fitted on; fit it on this panel.")
        betas_NHB = self.betas_NHB
        design_NTL, calendar_SK = _design(panel.until(int(cutoffs.max()) + 1)), _calendar(panel)

        def log_forecast(places: slice, h: int) -> np.ndarray:
            ahead_TK = calendar_SK[places.start + h : places.stop + h]
            return _answers(design_NTL[:, places], ahead_TK, betas_NHB[:, h - 1])

        errors = with_errors(panel, cutoffs, window=WINDOW, log_forecast=log_forecast)
        return Forecasts(cutoffs=cutoffs, quantiles_NCHQ=errors.quantiles_NCHQ, mean_NCH=errors.mean_NCH)


def _calendar(panel: Panel) -> np.ndarray:
    """(S, K) float64: the calendar of each session, and the days of the weekend where they are sessions."""
    own = (panel.sessions, panel.calendar)
    return np.concatenate([calendar_columns(*own), weekend_columns(*own)], axis=1).astype(np.float64)


def _design(panel: Panel) -> np.ndarray:
    """(N, T, 4): 1, v_1 - v_22, v_5 - v_22, v_22; NaN where nothing was traded or fewer than 22 sessions have come."""
    v1_NT, v5_NT, v22_NT = (traded_mean(panel.log_volume_NT, sessions) for sessions in MEANS)
    return np.stack([v22_NT * 0 + 1, v1_NT - v22_NT, v5_NT - v22_NT, v22_NT], axis=2)


def _products(design_NTL: np.ndarray, panel: Panel, calendar_SK: np.ndarray, h: int) -> tuple[np.ndarray, np.ndarray]:
    """((N, B + 1, B + 1), (N,)): sums of products of the regressors and, last, the target; and the rows summed."""
    products, rows = [], []
    for design_TL, log_volume_T in zip(design_NTL, panel.log_volume_NT, strict=True):
        at_R = np.flatnonzero(np.isfinite(design_TL[:-h, LEVEL] + log_volume_T[h:]))
        design_RL = design_TL[at_R]
        target_R1 = log_volume_T[at_R + h, None] - design_RL[:, LEVEL, None]
        whole_RB = np.concatenate([design_RL, calendar_SK[at_R + h], target_R1], axis=1)
        products.append(whole_RB.T @ whole_RB)
        rows.append(len(at_R))
    return np.stack(products), np.array(rows)


def _solve_each(products_NBB: np.ndarray, rows_N: np.ndarray) -> np.ndarray:
    """(N, B): each ticker's own coefficients, or those of all together where it has fewer than LEAST_ROWS rows."""
    betas = np.arange(products_NBB.shape[1] - 1)
    betas_NB, pooled = np.zeros((len(rows_N), len(betas))), np.delete(betas, LEVEL)
    betas_NB[:, pooled] = _solve(products_NBB.sum(axis=0), pooled)
    for place in np.flatnonzero(rows_N >= LEAST_ROWS):
        betas_NB[place] = _solve(products_NBB[place], betas)
    return betas_NB


def _solve(products_BB: np.ndarray, regressors: np.ndarray) -> np.ndarray:
    """The least squares coefficients of `regressors`, from the sums of products; 0 for one that was always 0."""
    return np.linalg.lstsq(products_BB[np.ix_(regressors, regressors)], products_BB[regressors, -1], rcond=SMALLEST)[0]


def _answers(design_NTL: np.ndarray, ahead_TK: np.ndarray, betas_NB: np.ndarray) -> np.ndarray:
    """(N, T) forecasts of log volume. Term by term: a matrix product's bits depend on how many sessions it is of."""
    log_NT = design_NTL[:, :, LEVEL].copy()
    for place in range(LEVEL + 1):
        log_NT += design_NTL[:, :, place] * betas_NB[:, None, place]
    for place in range(ahead_TK.shape[1]):
        log_NT += ahead_TK[:, place] * betas_NB[:, None, LEVEL + 1 + place]
    return log_NT
