"""From prices to what a recipe looks at: its window, its columns, and the split into train and test rows."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from models.errors import IncompletePrices, NotEnoughSessions
from models.recipes import TutorialRecipe
from models.words import listed

# N sessions, F features, C columns of numbers


def build_features(prices: pd.DataFrame, recipe: TutorialRecipe) -> pd.DataFrame:
    """The newest `window_sessions` rows of one ticker, split by order into train and test.

    `prices`: one ticker; columns ticker, session (datetime64, ascending, each once), the recipe's features (USD a
    share) and its target (shares); more columns are ignored. Sessions are taken as they come: gaps are the caller's to
    find.

    Returns ticker, session, *features (float64), volume (float64), role ("train" for the first `train_sessions` rows,
    then "test"), in session order with a fresh index. Raises NotEnoughSessions when not one test row would be left,
    and IncompletePrices when a value of the window is null or infinite, or the sessions do not ascend.
    """
    tickers = sorted(set(prices["ticker"]))
    if len(tickers) > 1:
        raise ValueError(f"Recipe {recipe.name} takes the rows of one ticker; these came: {listed(tickers)}.")
    _check_count(prices, recipe)
    numbers = [*recipe.features, recipe.target]
    window = prices if recipe.window_sessions is None else prices.tail(recipe.window_sessions)
    frame = window.loc[:, ["ticker", "session", *numbers]].reset_index(drop=True)
    frame = frame.astype(dict.fromkeys(numbers, "float64"))
    _check_values(frame, numbers)
    frame["role"] = np.where(frame.index < recipe.train_sessions, "train", "test")
    return frame


def rows(frame: pd.DataFrame, role: str) -> pd.DataFrame:
    """The rows of `build_features` whose role is "train" or "test"."""
    return frame.loc[frame["role"] == role]


def tensors(frame: pd.DataFrame, recipe: TutorialRecipe) -> tuple[Tensor, Tensor]:
    """(x_NF, y_N1): the features and the target of every row, unscaled, float64, on the CPU."""
    x_NF = torch.from_numpy(frame[list(recipe.features)].to_numpy(np.float64, copy=True))
    y_N1 = torch.from_numpy(frame[[recipe.target]].to_numpy(np.float64, copy=True))
    return x_NF, y_N1


def _check_count(prices: pd.DataFrame, recipe: TutorialRecipe) -> None:
    came, needed = len(prices), recipe.train_sessions + 1
    if came == 0:
        raise NotEnoughSessions(
            f"Recipe {recipe.name} needs {needed} sessions; none came. Ingest the ticker's prices first."
        )
    if came < needed:
        first, last = (f"{session:%Y-%m-%d}" for session in (prices["session"].iloc[0], prices["session"].iloc[-1]))
        raise NotEnoughSessions(
            f"{prices['ticker'].iloc[0]}: {came} sessions came, {first} to {last}; recipe {recipe.name} needs "
            f"{needed}: {recipe.train_sessions} to train on and at least one to test. "
            "Bring in an earlier start."
        )


def _check_values(frame: pd.DataFrame, numbers: list[str]) -> None:
    names = [f"{ticker} {session:%Y-%m-%d}" for ticker, session in zip(frame["ticker"], frame["session"], strict=True)]
    late_N = np.diff(frame["session"].to_numpy()) <= np.timedelta64(0, "s")
    if late_N.any():
        at = int(late_N.argmax()) + 1
        raise IncompletePrices(
            f"{names[at]} stands after {names[at - 1]}. Rows must ascend by session, each session once: sort them."
        )
    bad_NC = ~np.isfinite(frame[numbers].to_numpy())
    bad_N = bad_NC.any(axis=1)
    if bad_N.any():
        at = int(bad_N.argmax())
        came = ", ".join(f"{name} {frame[name].iloc[at]}" for name, bad in zip(numbers, bad_NC[at], strict=True) if bad)
        raise IncompletePrices(
            f"{names[at]}: {came}; every value must be a finite number. {int(bad_N.sum())} of {len(frame)} sessions "
            "are not so. Quarantine or repair them, then run again."
        )
