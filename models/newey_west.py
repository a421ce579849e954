"""The variance of a mean of values that follow each other."""

import numpy as np

# P points in time


def long_run_variance(values_P: np.ndarray, *, lags: int) -> float:
    """Of values in order of time; over P, it is that of their mean. The weights of Newey and West (1987) fall to 0."""
    count, centred_P = len(values_P), values_P - values_P.mean()
    covariances = [centred_P[lag:] @ centred_P[: count - lag] / count for lag in range(lags + 1)]
    return covariances[0] + 2 * sum((1 - lag / (lags + 1)) * covariances[lag] for lag in range(1, lags + 1))
