"""How a trained volume model follows the sessions that come after its training.

The week. A change of regime may give a ticker a rhythm of its own, long before there is enough of it to train on. Per
ticker, horizon and weekday, the errors of the median on the last WEEKS such sessions, less those on all sessions of
these weeks, are what the model misses of the rhythm; the forecast is moved by a share of it. The share is the slope of
the errors that have come on what was missed before them: least squares with weights that fall by MEMORY a session, and
shrunk by PRIOR, so that it is near 0 where errors have no rhythm (it never exceeded 0.17 on real prices of 2017 to
2020) and near 1 within three weeks where they do. It is one number for all tickers and horizons; a session of n tickers
counts by n / (n + SOME), as the errors of one ticker alone look like a rhythm by chance.

The widths. After each session a quantile other than the median moves by a rate times what the share of tickers below it
missed its level by (adaptive conformal inference: Gibbs and Candès, 2021). It is followed at two rates: the slow one
costs nothing in quiet times, the fast one makes up for a shift. What is said is their mean, weighted by exp(-ETA times
their pinball losses), with SHARED of the weight given back to PRIOR_WEIGHTS after each session, so that either can come
to lead again (Gibbs and Candès, 2024, "Conformal inference for online prediction with arbitrary distribution shifts",
after the fixed share of Herbster and Warmuth, 1998). Few tickers say little: of n of them ETA counts by n / (n + FEW),
and the rates by n / (n + PAIR), or the quantiles of one ticker alone would wander past its median.

Errors are in units of half the 80 % interval. Only what has come by a cutoff is used for it. Chosen on real prices of
2017 to 2020 and on simulated shifts (docs/results.md).

N tickers, C cutoffs without a gap, H horizons, Q levels, D weekdays, K rates, W sessions that are looked back on
"""

import numpy as np

from volcast.models.forecasters import LEVELS, MEDIAN

WEEKS, LEAST_WEEKS = 3, 2
MEMORY, PRIOR, SOME = 0.95, 10.0, 8
WARM_UP = 126  # sessions before the first one that training has not seen: the share is known when it is needed
RATES = np.array([0.1, 0.8])
PRIOR_WEIGHTS = np.array([0.97, 0.03])
ONE_RATE = 0.1  # of the adaptation `one rate`
ETA, SHARED, FEW = 10.0, 0.05, 4
PAIR = 2  # tickers
LEAST_HALF = 1e-6  # of an interval: of a network that says one number at all levels
LEVELS_Q = np.array(LEVELS)
IS_MOVED = np.arange(len(LEVELS)) != MEDIAN


def half_interval(quantile_Q: np.ndarray) -> np.ndarray:
    """(..., 1): half the width of the 80 % interval of quantiles (..., Q)."""
    return (quantile_Q[..., [LEVELS.index(0.9)]] - quantile_Q[..., [LEVELS.index(0.1)]]) / 2


def add_rhythm(
    quantile_NCHQ: np.ndarray, target_NCH: np.ndarray, is_there_NCH: np.ndarray, weekday_S: np.ndarray, season: int
) -> None:
    """Move the quantiles (N, C, H, Q), where they are, by the share of the week's rhythm that the model misses.

    `weekday_S`: of the first cutoff and the C + H - 1 sessions after it; `season`: the sessions of a week.
    """
    horizons = quantile_NCHQ.shape[2]
    is_there_NCH = is_there_NCH & np.isfinite(quantile_NCHQ).all(axis=3)
    half_NCH = np.maximum(half_interval(quantile_NCHQ)[..., 0].astype(np.float64), LEAST_HALF)
    error_NCH = np.where(is_there_NCH, target_NCH - quantile_NCHQ[..., MEDIAN], 0.0).astype(np.float64)
    missed_NCH, mean_NCH = np.zeros_like(error_NCH), np.zeros_like(error_NCH)
    product, square = 0.0, PRIOR
    for place in range(quantile_NCHQ.shape[1]):
        missed_NCH[:, place], mean_NCH[:, place] = _missed(error_NCH, is_there_NCH, weekday_S, season, place)
        product, square = product * MEMORY, (square - PRIOR) * MEMORY + PRIOR
        for h, told in _told(place, horizons):
            there_N = is_there_NCH[:, told, h]
            if there_N.any():
                half_N, missed_N = half_NCH[there_N, told, h], missed_NCH[there_N, told, h]
                beyond_N = error_NCH[there_N, told, h] - mean_NCH[there_N, told, h]
                counts = len(half_N) / (len(half_N) + SOME)
                product += counts * float(np.mean(beyond_N * missed_N / half_N**2))
                square += counts * float(np.mean((missed_N / half_N) ** 2))
        share = min(max(product / square, 0.0), 1.0)
        quantile_NCHQ[:, place] += (share * missed_NCH[:, place, :, None]).astype(np.float32)


def _missed(
    error_NCH: np.ndarray, is_there_NCH: np.ndarray, weekday_S: np.ndarray, season: int, place: int
) -> tuple[np.ndarray, np.ndarray]:
    """(N, H), known at the cutoff at `place`: the rhythm that was missed of each target's weekday, and the mean error.

    0 of a weekday with fewer than LEAST_WEEKS errors.
    """
    horizons = error_NCH.shape[2]
    missed_NH, mean_NH = (np.zeros((len(error_NCH), horizons)) for _ in range(2))
    for h in range(horizons):
        target_W = np.arange(place, max(place - season * (WEEKS + 1), h), -1)  # the newest first
        error_NW, is_there_NW = error_NCH[:, target_W - h - 1, h], is_there_NCH[:, target_W - h - 1, h]
        same_W = np.flatnonzero(weekday_S[target_W] == weekday_S[place + h + 1])[:WEEKS]
        count_N, every_N = is_there_NW[:, same_W].sum(axis=1), is_there_NW[:, : season * WEEKS].sum(axis=1)
        mean_NH[:, h] = error_NW[:, : season * WEEKS].sum(axis=1) / np.maximum(every_N, 1)
        rhythm_N = error_NW[:, same_W].sum(axis=1) / np.maximum(count_N, 1) - mean_NH[:, h]
        missed_NH[:, h] = np.where(count_N >= LEAST_WEEKS, rhythm_N, 0.0)
    return missed_NH, mean_NH


def following_moves(
    quantile_NCHQ: np.ndarray,
    target_NCH: np.ndarray,
    is_there_NCH: np.ndarray,
    calibration_HQ: np.ndarray,
    *,
    unseen: int,
) -> np.ndarray:
    """(C, H, Q) float64: by how many halves of the 80 % interval the quantiles move at each cutoff.

    From `calibration_HQ` on by the targets of the cutoffs from place `unseen` on; the median stays.
    """
    cutoffs, horizons = quantile_NCHQ.shape[1:3]
    is_there_NCH = is_there_NCH & np.isfinite(quantile_NCHQ).all(axis=3)
    moves_KHQ, weight_K = np.repeat(calibration_HQ[None], len(RATES), axis=0), PRIOR_WEIGHTS
    found_CHQ = np.empty((cutoffs, *calibration_HQ.shape))
    for place in range(cutoffs):
        losses, tickers = [], 0
        for h, told in _told(place, horizons, unseen):
            there_N = is_there_NCH[:, told, h]
            if there_N.any():
                quantile_NQ = quantile_NCHQ[there_N, told, h]
                half_N1 = np.maximum(half_interval(quantile_NQ), LEAST_HALF)
                error_NQ = (target_NCH[there_N, told, h, None] - quantile_NQ) / half_N1
                loss_K, moves_KHQ[:, h] = _step(moves_KHQ[:, h], error_NQ)
                losses.append(loss_K)
                tickers = max(tickers, len(error_NQ))
        if losses:
            weight_K = _reweighted(weight_K, np.mean(losses, axis=0), ETA * tickers / (tickers + FEW))
        found_CHQ[place] = np.tensordot(weight_K, moves_KHQ, 1)
    return found_CHQ


def one_rate_moves(
    quantile_NCHQ: np.ndarray,
    target_NCH: np.ndarray,
    is_there_NCH: np.ndarray,
    calibration_HQ: np.ndarray,
    *,
    unseen: int,
) -> np.ndarray:
    """`following_moves` as release 0.1.0 had them: one rate, and shares below the quantiles as they were said."""
    moves_HQ, found_CHQ = calibration_HQ.copy(), np.empty((quantile_NCHQ.shape[1], *calibration_HQ.shape))
    said_NCHQ = np.empty_like(quantile_NCHQ)
    for place in range(len(found_CHQ)):
        for h, told in _told(place, quantile_NCHQ.shape[2], unseen):
            if is_there_NCH[:, told, h].any():
                there_N = is_there_NCH[:, told, h]
                below_Q = (target_NCH[there_N, told, h, None] <= said_NCHQ[there_N, told, h]).mean(axis=0)
                moves_HQ[h] += ONE_RATE * (LEVELS_Q - below_Q) * IS_MOVED
        found_CHQ[place], said_NCHQ[:, place] = moves_HQ, moved(quantile_NCHQ[:, place], moves_HQ)
    return found_CHQ


def moved(quantile_HQ: np.ndarray, moves_HQ: np.ndarray) -> np.ndarray:
    """(..., H, Q): quantiles moved by so many halves of their 80 % interval, in ascending order still."""
    return np.sort(quantile_HQ + (moves_HQ * half_interval(quantile_HQ)).astype(np.float32), axis=-1)


def _step(moves_KQ: np.ndarray, error_NQ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pinball loss (K,) of each rate's moves at one session, and the moves (K, Q) after it."""
    beyond_KNQ = error_NQ[None] - moves_KQ[:, None]
    loss_KNQ = np.maximum(LEVELS_Q * beyond_KNQ, (LEVELS_Q - 1) * beyond_KNQ)
    rate_K1 = RATES[:, None] * len(error_NQ) / (len(error_NQ) + PAIR)
    step_KQ = rate_K1 * (LEVELS_Q - (beyond_KNQ <= 0).mean(axis=1)) * IS_MOVED
    return loss_KNQ[..., IS_MOVED].mean(axis=(1, 2)), moves_KQ + step_KQ


def _reweighted(weight_K: np.ndarray, loss_K: np.ndarray, eta: float) -> np.ndarray:
    better_K = weight_K * np.exp(-eta * (loss_K - loss_K.min()))
    return (1 - SHARED) * better_K / better_K.sum() + SHARED * PRIOR_WEIGHTS


def _told(place: int, horizons: int, unseen: int = 0) -> list[tuple[int, int]]:
    """(h, the place of the cutoff, `unseen` or later, whose target h + 1 sessions ahead is the session at `place`)."""
    return [(h, place - h - 1) for h in range(min(horizons, place - max(unseen, 0)))]
