"""Errors of predicted volume, by utilsforecast, and the words for numbers of shares.

With y actual, p predicted, and the mean over the sessions:
    rmse_shares  sqrt(mean((y - p)^2))
    mae_shares   mean(|y - p|)
    mape         mean(|y - p| / |y|): a fraction, not per cent; sessions with y = 0 are left out of it
    smape        mean(|y - p| / (|y| + |p|)): 0..1, so half of the definition that runs to 2 (or 200 %)
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from utilsforecast.evaluation import evaluate
from utilsforecast.losses import mae, mape, rmse, smape

COLUMNS = {"rmse": "rmse_shares", "mae": "mae_shares", "mape": "mape", "smape": "smape"}


def error_table(actual: pd.Series, predictions: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row a method: rmse_shares, mae_shares, mape, smape (float64), in the order of `predictions`.

    `actual`: shares, indexed by session (datetime64); each prediction: shares (N,), row by row the same sessions.
    Raises ValueError when a value is not finite: a mean over fewer sessions would not compare.
    """
    frame = pd.DataFrame({"unique_id": "series", "ds": actual.index, "y": actual.to_numpy(), **predictions})
    missing = {name: int((~np.isfinite(frame[name].to_numpy())).sum()) for name in ["y", *predictions]}
    if any(missing.values()):
        counts = ", ".join(f"{name} {count}" for name, count in missing.items() if count)
        raise ValueError(f"Errors need a finite number for each of the {len(frame)} sessions; not finite: {counts}.")
    table = evaluate(frame, metrics=[rmse, mae, mape, smape], models=list(predictions))
    errors = table.set_index("metric")[list(predictions)].T.rename(columns=COLUMNS)
    return errors.rename_axis(index="method", columns=None)


def format_shares(shares: float) -> str:
    """Shares for a reader, three digits or so: 2.53 M, 12.3 k, 950."""
    if abs(shares) >= 1e6:
        return f"{shares / 1e6:.2f} M"
    return f"{shares / 1e3:.1f} k" if abs(shares) >= 1e3 else f"{shares:.0f}"


def format_millions(shares: float) -> str:
    """Million shares for a reader, three digits or so: 33.7, 6.18, 0.099."""
    millions = shares / 1e6
    return f"{millions:,.{3 if millions < 1 else 2 if millions < 10 else 1}f}"
