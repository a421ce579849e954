"""Log-HAR with the calendar: the least squares forecaster of volume, and the one to beat.

Corsi (2009), "A Simple Approximate Long-Memory Model of Realized Volatility", for log volume. With v_1, v_5 and v_22
the means of log volume over the last 1, 5 and 22 traded sessions at cutoff t, m the ticker's mean of v_22 in the fit,
and k the calendar of session t + h:

    log V(t + h) - v_22 = b_0 + b_1 (v_1 - v_22) + b_2 (v_5 - v_22) + b_3 (v_22 - m) + b_4 k_1 + ... + b_28 k_25 + error

1. fit: for each ticker and horizon, from sums of products over the sessions whose target is known; one counts half as
   much as another that is HALF_LIFE sessions newer
2. ridge: all tickers are fitted together as if RIDGE sessions more said 0 of each coefficient; then each for itself as
   if these sessions, and POOLED sessions of the average ticker, said what all together say. A long history outweighs
   them, a short one does not, and RIDGE steadies even a ticker that is alone
3. forecast: what the equation says, and around it the quantiles of its recent errors. Their median is part of the
   point: the years of the fit are not those of the forecast. They are widened, most where the fit had few sessions

All constants were chosen on 2017 to 2020; docs/results.md says what came of them.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
from threadpoolctl import threadpool_limits

from volcast.models.forecasters import HAR, PART, Forecasts, joined, traded_mean, with_errors
from volcast.models.market_calendar import calendar_columns, weekend_columns
from volcast.models.panel import HORIZONS, Panel
from volcast.models.weights import side_by_side

# N tickers, T sessions, S sessions of the grid, C cutoffs, H horizons, R rows of a fit, B coefficients, K calendar

MEANS = (1, 5, 22)  # sessions: a day, a week, a month
LEVEL = 3  # where b_3 stands
HALF_LIFE = 1260  # sessions, five years
POOLED = 1000  # sessions
RIDGE = (1, 10, 10, 1000)  # sessions, of b_0 to b_3: a short history says little of the level that volume returns to
RIDGE_CALENDAR = 400  # sessions: a date of the calendar comes a few times a year
LEAST_SQUARE = 1e-6  # the mean square of a regressor counts as this at least: where it was always 0, so is its beta
WINDOW = 1000  # sessions of errors, four years
SPENT = 32  # sessions: errors are sqrt(1 + SPENT / sessions of the fit) times as wide outside of it as in it
LEAST_FIT = 4 * SPENT  # sessions that count in this at least: few errors have wide quantiles of their own


@dataclass(kw_only=True, eq=False)
class Har:
    """Log-HAR with calendar columns, fitted per ticker and horizon."""

    name: str = HAR
    tickers: tuple[str, ...] = ()  # of the fit
    betas_NHB: np.ndarray | None = None  # float64; None before the fit
    weights_NH: np.ndarray | None = None  # float64: the sum of the weights of the fit's sessions

    def fit(self, panel: Panel, *, through: int) -> Self:
        """The fit on all targets up to place `through`."""
        weight_T = 0.5 ** (np.arange(through, -1, -1) / HALF_LIFE)
        with threadpool_limits(1, "blas"):  # for matrices as small as these more threads wait for each other
            betas_NHB, weights_NH = _betas(panel.until(through + 1), weight_T)
        return replace(self, tickers=panel.tickers, betas_NHB=betas_NHB, weights_NH=weights_NH)

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts at `cutoffs` (C,); NaN where the ticker has no row at the cutoff, or fewer than 22 up to it.

        The point is the median. Raises ValueError before `fit`, and for a panel of other tickers than the fit's.
        """
        if self.betas_NHB is None or self.weights_NH is None or panel.tickers != self.tickers:
            raise ValueError(f"har forecasts the {len(self.tickers)} tickers it was fitted on; fit it on this panel.")
        betas, weights = (np.split(each, range(PART, len(each), PART)) for each in (self.betas_NHB, self.weights_NH))
        forecast = partial(_forecast, cutoffs, _calendar(panel))
        return joined(list(side_by_side(forecast, panel.parts(PART), betas, weights)))


def _forecast(
    cutoffs: np.ndarray, calendar_SK: np.ndarray, panel: Panel, betas_NHB: np.ndarray, weights_NH: np.ndarray
) -> Forecasts:
    design_NTL = _design(panel.until(int(cutoffs.max()) + 1))

    def log_forecast(places: slice, h: int) -> np.ndarray:
        ahead_TK = calendar_SK[places.start + h : places.stop + h]
        return _answers(design_NTL[:, places], ahead_TK, betas_NHB[:, h - 1])

    widening_NH = np.sqrt(1 + SPENT / np.maximum(weights_NH, LEAST_FIT))
    errors = with_errors(panel, cutoffs, window=WINDOW, log_forecast=log_forecast).widened(widening_NH)
    return Forecasts(cutoffs=cutoffs, quantiles_NCHQ=errors.quantiles_NCHQ, mean_NCH=errors.mean_NCH)


def _calendar(panel: Panel) -> np.ndarray:
    """(S, K) float64: the calendar of each session, and the days of the weekend where they are sessions."""
    own = (panel.sessions, panel.calendar)
    return np.concatenate([calendar_columns(*own), weekend_columns(*own)], axis=1).astype(np.float64)


def _design(panel: Panel) -> np.ndarray:
    """(N, T, 4): 1, v_1 - v_22, v_5 - v_22, v_22; NaN where nothing was traded or fewer than 22 sessions have come."""
    v1_NT, v5_NT, v22_NT = (traded_mean(panel.log_volume_NT, sessions) for sessions in MEANS)
    return np.stack([v22_NT * 0 + 1, v1_NT - v22_NT, v5_NT - v22_NT, v22_NT], axis=2)


def _level(v22_NT: np.ndarray, weight_T: np.ndarray) -> np.ndarray:
    """(N,) the weighted mean of v_22; NaN where there is none."""
    weight_NT = np.where(np.isfinite(v22_NT), weight_T, 0)
    with np.errstate(invalid="ignore"):
        return (np.nan_to_num(v22_NT) * weight_NT).sum(axis=1) / weight_NT.sum(axis=1)


def _betas(panel: Panel, weight_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients (N, H, B), and the sums of the weights (N, H)."""
    calendar_SK = _calendar(panel)

    def sums(part: Panel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        design_NTL = _design(part)
        level_N = _level(design_NTL[:, :, LEVEL], weight_T)
        products_NHBB = _products(part, design_NTL, calendar_SK, weight_T)
        return level_N, products_NHBB[:, :, 0, 0], _centered(products_NHBB, level_N)

    found = zip(*side_by_side(sums, panel.parts(PART)), strict=True)
    level_N, weights_NH, centered_NHBB = (np.concatenate(each) for each in found)
    added_B = np.r_[RIDGE, np.full(centered_NHBB.shape[2] - 1 - len(RIDGE), RIDGE_CALENDAR)]
    betas_NHB = np.stack([ridge(centered_NHBB[:, h], added_B) for h in range(HORIZONS)], axis=1)
    betas_NHB[np.isnan(level_N), :, LEVEL] = 0
    betas_NHB[:, :, 0] -= betas_NHB[:, :, LEVEL] * np.nan_to_num(level_N)[:, None]  # for v_22 instead of v_22 - m
    return betas_NHB, weights_NH


def _products(panel: Panel, design_NTL: np.ndarray, calendar_SK: np.ndarray, weight_T: np.ndarray) -> np.ndarray:
    """(N, H, B + 1, B + 1): weighted sums of products of the regressors and, last, the target."""
    products = []
    for design_TL, log_volume_T in zip(design_NTL, panel.log_volume_NT, strict=True):
        for h in range(1, HORIZONS + 1):
            at_R = np.flatnonzero(np.isfinite(design_TL[:-h, LEVEL] + log_volume_T[h:]))
            design_RL = design_TL[at_R]
            target_R1 = log_volume_T[at_R + h, None] - design_RL[:, LEVEL, None]
            whole_RB = np.concatenate([design_RL, calendar_SK[at_R + h], target_R1], axis=1)
            products.append(whole_RB.T @ (whole_RB * weight_T[at_R + h, None]))
    return np.stack(products).reshape(len(design_NTL), HORIZONS, *products[0].shape)


def _centered(products_NHBB: np.ndarray, level_N: np.ndarray) -> np.ndarray:
    """The sums of products with v_22 - m for v_22."""
    shift_N1BB = np.tile(np.eye(products_NHBB.shape[2]), (len(level_N), 1, 1, 1))
    shift_N1BB[:, 0, 0, LEVEL] = -np.nan_to_num(level_N)
    return shift_N1BB.transpose(0, 1, 3, 2) @ products_NHBB @ shift_N1BB


def ridge(products_NBB: np.ndarray, added_B: np.ndarray) -> np.ndarray:
    """(N, B): the coefficients of each ticker, shrunk towards those of all together, and these towards 0.

    `products_NBB`: (N, B + 1, B + 1) sums of products of the regressors, the first of which is 1, and, last, of the
    target. `added_B`: how many sessions say 0 of each coefficient, as step 2 above has it.
    """
    return own_ridge(products_NBB, *pooled_ridge(products_NBB.sum(axis=0), added_B, np.zeros(len(added_B))))


def pooled_ridge(sums_BB: np.ndarray, added_B: np.ndarray, towards_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients of all tickers together (B,), shrunk to others, and what holds each ticker to them (B, B)."""
    mean_BB = sums_BB[:-1, :-1] / max(sums_BB[0, 0], 1)  # of a session
    added_BB = np.diag(added_B * np.maximum(np.diag(mean_BB), LEAST_SQUARE))
    pooled_B = np.linalg.solve(sums_BB[:-1, :-1] + added_BB, sums_BB[:-1, -1] + added_BB @ towards_B)
    return pooled_B, POOLED * mean_BB + added_BB


def own_ridge(products_NBB: np.ndarray, pooled_B: np.ndarray, prior_BB: np.ndarray) -> np.ndarray:
    """(N, B): the coefficients of each ticker, held to those of all together."""
    answers_NB = products_NBB[:, :-1, -1] + prior_BB @ pooled_B
    return np.linalg.solve(products_NBB[:, :-1, :-1] + prior_BB, answers_NB[:, :, None])[:, :, 0]


def _answers(design_NTL: np.ndarray, ahead_TK: np.ndarray, betas_NB: np.ndarray) -> np.ndarray:
    """(N, T) forecasts of log volume. Term by term: a matrix product's bits depend on how many sessions it is of."""
    log_NT = design_NTL[:, :, LEVEL].copy()
    for place in range(LEVEL + 1):
        log_NT += design_NTL[:, :, place] * betas_NB[:, None, place]
    for place in range(ahead_TK.shape[1]):
        log_NT += ahead_TK[:, place] * betas_NB[:, None, LEVEL + 1 + place]
    return log_NT
