"""The tickers whose volume moves with a ticker's own: its industry, as far as volume shows it.

Neighbours of a stretch of REFRESH sessions are the COUNT tickers with the highest correlation of surprises over the
MEMORY sessions that end HORIZONS before the stretch, so that they are known at every cutoff that may ask for one of its
sessions. Their mean is weighted by that correlation.
"""

from collections.abc import Iterator

import numpy as np

from models.panel import HORIZONS

# N tickers, T sessions with prices, S = T + HORIZONS, J neighbours

COUNT = 10
MEMORY = 756  # three years
REFRESH = 126
MIN_SESSIONS = 126  # of the memory, that a ticker must have traded


def mean_of_neighbours(values_NS: np.ndarray, surprise_NT: np.ndarray) -> np.ndarray:
    """(N, S) float32: the weighted mean of the neighbours' values; 0 before the first are known.

    `surprise_NT`: own less market log volume, NaN where nothing traded; `values_NS`: any value, without NaN.
    """
    mean_NS = np.zeros(values_NS.shape, dtype=np.float32)
    for stretch, neighbour_NJ, weight_NJ in _neighbours(surprise_NT, values_NS.shape[1]):
        mean_NS[:, stretch] = np.einsum("nj,njt->nt", weight_NJ, values_NS[:, stretch][neighbour_NJ])
    return mean_NS


def _neighbours(surprise_NT: np.ndarray, end: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """(the sessions of a stretch, neighbours (N, J), their weights (N, J), which sum to 1 or are all 0)."""
    count = min(COUNT, len(surprise_NT) - 1)
    if count == 0:
        return
    for begin in range(2 * REFRESH, end, REFRESH):
        memory_NT = surprise_NT[:, max(0, begin - HORIZONS - MEMORY) : begin - HORIZONS]
        alike_NN = _correlations(memory_NT)
        neighbour_NJ = np.argsort(-alike_NN, axis=1, kind="stable")[:, :count]
        weight_NJ = np.clip(np.take_along_axis(alike_NN, neighbour_NJ, axis=1), 0, 1)
        yield (
            slice(begin, min(begin + REFRESH, end)),
            neighbour_NJ,
            weight_NJ / (weight_NJ.sum(1, keepdims=True) + 1e-6),
        )


def _correlations(surprise_NT: np.ndarray) -> np.ndarray:
    """(N, N): correlation, a session without trade being no surprise; -1 with itself and with the little traded."""
    there_NT = np.isfinite(surprise_NT)
    values_NT = np.where(there_NT, surprise_NT, 0.0)
    values_NT -= values_NT.mean(axis=1, keepdims=True)
    values_NT /= np.sqrt((values_NT**2).sum(axis=1, keepdims=True)) + 1e-6
    alike_NN = values_NT @ values_NT.T
    alike_NN[:, there_NT.sum(axis=1) < MIN_SESSIONS] = -1
    np.fill_diagonal(alike_NN, -1)
    return alike_NN
