"""Predictions as rows to store: one a ticker and target session."""

import numpy as np
import pandas as pd

from models.recipes import TutorialRecipe

# N sessions


def nowcast_frame(frame: pd.DataFrame, predictions: np.ndarray, recipe: TutorialRecipe) -> pd.DataFrame:
    """The nowcasts of every row of a `build_features` frame, from `predictions` (shares, (N,)), in the same order.

    Returns unique_id (str, the ticker), cutoff (datetime64, the last session known), ds (datetime64, the target
    session, here the cutoff itself), h (int64, sessions ahead, here 0), volcast (float64, shares, as the model gave it:
    not clipped at 0). Raises ValueError when the number of predictions differs from the rows.
    """
    if predictions.shape != (len(frame),):
        raise ValueError(f"One prediction a row is needed, ({len(frame)},); {predictions.shape} came.")
    return pd.DataFrame(
        {
            "unique_id": frame["ticker"],
            "cutoff": frame["session"],
            "ds": frame["session"],
            "h": np.full(len(frame), recipe.horizon, dtype=np.int64),
            "volcast": predictions,
        }
    ).reset_index(drop=True)
