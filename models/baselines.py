"""What a model must beat: forecasts of volume that need no network, each from no row after the one it answers for."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from models.features import rows
from models.recipes import TutorialRecipe

# N sessions

TRAILING_SESSIONS = 20  # about a month


def last_value(frame: pd.DataFrame, recipe: TutorialRecipe) -> np.ndarray:
    """The volume of the session before, in shares (N,); NaN for the first row."""
    return frame[recipe.target].shift(1).to_numpy(np.float64)


def mean_20(frame: pd.DataFrame, recipe: TutorialRecipe) -> np.ndarray:
    """The mean volume of the 20 sessions before, in shares (N,); NaN for the first 20 rows."""
    return np.asarray(frame[recipe.target].shift(1).rolling(TRAILING_SESSIONS).mean(), dtype=np.float64)


def least_squares(frame: pd.DataFrame, recipe: TutorialRecipe) -> np.ndarray:
    """Ordinary least squares of volume on the recipe's features and an intercept, fitted on the train rows.

    It sees what the network sees: the prices of the same session. Shares (N,); train rows are answered in sample.
    """
    features, train = list(recipe.features), rows(frame, "train")
    regression = LinearRegression().fit(train[features], train[recipe.target])
    return regression.predict(frame[features])


BASELINES: dict[str, Callable[[pd.DataFrame, TutorialRecipe], np.ndarray]] = {
    "last_value": last_value,
    "mean_20": mean_20,
    "least_squares": least_squares,
}
