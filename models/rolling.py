"""Trailing statistics of values by ticker and session, over the rows that there are: NaN where there is none.

Each is a sum of prefixes, so that a value is the same bit for bit whatever comes after it.
"""

import numpy as np

# N tickers, T sessions


def trailing_mean(values_NT: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the rows that there are among t-window+1..t (NaN where none), and their number; both (N, T)."""
    there_NT = np.isfinite(values_NT)
    sums_NT = _trailing_sum(np.where(there_NT, values_NT, 0.0), window)
    rows_NT = _trailing_sum(there_NT.astype(np.float64), window)
    return np.divide(sums_NT, rows_NT, out=np.full_like(sums_NT, np.nan), where=rows_NT > 0), rows_NT


def mean_of_tickers(values_NT: np.ndarray) -> np.ndarray:
    """(T,): the mean of the tickers that have a value; 0 where none has."""
    there_NT = np.isfinite(values_NT)
    return np.where(there_NT, values_NT, 0.0).sum(axis=0) / np.maximum(there_NT.sum(axis=0), 1)


def value_before(values_NT: np.ndarray) -> np.ndarray:
    """(N, T): the newest value before each session, over gaps; NaN before the first."""
    places_NT = np.where(np.isfinite(values_NT), np.arange(values_NT.shape[1]), 0)
    newest_NT = np.take_along_axis(values_NT, np.maximum.accumulate(places_NT, axis=1), axis=1)
    return np.concatenate([np.full((len(values_NT), 1), np.nan), newest_NT[:, :-1]], axis=1)


def trailing_max(values_NT: np.ndarray, window: int) -> np.ndarray:
    """(N, T): the greatest of t-window+1..t, or of as many as there are; `values_NT` has no NaN."""
    padded = np.concatenate([np.full((len(values_NT), window - 1), -np.inf), values_NT], axis=1)
    reach = 1
    while 2 * reach <= window:  # the maximum over twice as many, until it spans most of the window
        padded[:, reach:] = np.maximum(padded[:, reach:], padded[:, :-reach])
        reach *= 2
    rest = window - reach
    widest = np.maximum(padded[:, rest:], padded[:, : padded.shape[1] - rest]) if rest else padded
    return widest[:, -values_NT.shape[1] :]


def _trailing_sum(values_NT: np.ndarray, window: int) -> np.ndarray:
    total_NT = np.cumsum(values_NT, axis=1)
    total_NT[:, window:] = total_NT[:, window:] - total_NT[:, :-window]
    return total_NT
