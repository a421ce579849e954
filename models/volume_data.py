"""What the volume recipe works on: the inputs of some tickers, split by time, and their profile.

The newest `test_sessions` sessions are held back; everything that is fitted ends with the session before them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from models.backtest import TestSpan
from models.drift import DECILES
from models.errors import NotEnoughSessions
from models.panel import HORIZONS, Panel
from models.past_features import PAST_COLUMNS
from models.recipes import VolumeRecipe
from models.volume_features import AHEAD_COLUMNS, AT_COLUMNS, Inputs, build_inputs

# N tickers, T sessions with prices, R rows, F past features


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeData:
    """Inputs, and where their train span ends."""

    inputs: Inputs
    use_earnings: bool  # of these inputs
    announcements: pd.DataFrame  # ticker, announced_for, first_seen (datetime64), first_seen_assumed (bool), source
    through: int  # place of the last train session; those after it with prices are the test

    @property
    def span(self) -> TestSpan:
        """The test, as a backtest takes it."""
        dates = self.inputs.panel.sessions.date
        return TestSpan(
            train_through=dates[self.through],
            test_start=dates[self.through + 1],
            test_end=dates[self.inputs.panel.known - 1],
        )

    @property
    def newest(self) -> np.ndarray:
        """(1,) the newest cutoff, as a place."""
        return np.array([self.inputs.panel.known - 1])

    def inputs_of(self, recipe: VolumeRecipe) -> Inputs:
        """The inputs for a model that was made by another recipe: with announced earnings, or without."""
        if recipe.use_earnings == self.use_earnings:
            return self.inputs
        return build_inputs(self.inputs.panel, use_earnings=recipe.use_earnings)

    def of(self, tickers: Sequence[str]) -> "VolumeData":
        """The data of some of the tickers: what a feature takes from the others, it takes from these alone."""
        if set(tickers) == set(self.inputs.panel.tickers):
            return self
        panel = self.inputs.panel.of(tickers)
        return replace(self, inputs=build_inputs(panel, use_earnings=self.use_earnings))


def volume_data(panel: Panel, announcements: pd.DataFrame, recipe: VolumeRecipe) -> VolumeData:
    """The data of a recipe from a panel, and the announcements that it was made from.

    Raises NotEnoughSessions when nothing would be left to train on.
    """
    held_back = recipe.stop_sessions + recipe.test_sessions
    needed = recipe.burn_in_sessions + recipe.scored_sessions + HORIZONS + held_back
    if panel.known < needed:
        raise NotEnoughSessions(
            f"{', '.join(panel.tickers[:5])}: {panel.known} sessions came, {panel.sessions[0]:%Y-%m-%d} to "
            f"{panel.cutoff}; recipe volume needs {needed}, the last {held_back} of them to stop and to test. Bring in "
            "an earlier start, or take the recipe that needs 201: --recipe tutorial"
        )
    inputs = build_inputs(panel, use_earnings=recipe.use_earnings)
    return VolumeData(
        inputs=inputs,
        use_earnings=recipe.use_earnings,
        announcements=announcements,
        through=panel.known - 1 - recipe.test_sessions,
    )


def profile(data: VolumeData) -> dict[str, Any]:
    """What the features were like, as JSON types: enough to know them again, and to see later ones drift.

    sha256 of all arrays, columns, tickers, traded sessions of each, and for each past feature mean, standard deviation
    and deciles over the rows of the train span that can be forecast from.
    """
    inputs, panel = data.inputs, data.inputs.panel
    is_train_NT = inputs.usable_NT[:, : data.through + 1]
    train_RF = inputs.past_NTF[:, : data.through + 1][is_train_NT].astype(np.float64)
    features = {
        name: {
            "mean": float(values_R.mean()),
            "std": float(values_R.std()),
            "deciles": np.quantile(values_R, DECILES).tolist(),
        }
        for name, values_R in zip(PAST_COLUMNS, train_RF.T, strict=True)
    }
    return {
        "sha256": sha256_of(inputs),
        "columns": [*AT_COLUMNS, *AHEAD_COLUMNS],
        "traded_sessions": dict(zip(panel.tickers, panel.traded_NT.sum(axis=1).tolist(), strict=True)),
        "train_rows": len(train_RF),
        "features": features,
    }


def recent_features(data: VolumeData, sessions: int) -> dict[str, np.ndarray]:
    """Of PAST_COLUMNS: feature -> (N, sessions) float64 of the newest sessions, NaN where none can be forecast from."""
    inputs, first = data.inputs, data.inputs.panel.known - sessions
    recent_NSF = np.where(inputs.usable_NT[:, first:, None], inputs.past_NTF[:, first:].astype(np.float64), np.nan)
    return dict(zip(PAST_COLUMNS, np.moveaxis(recent_NSF, 2, 0), strict=True))


def sha256_of(inputs: Inputs) -> str:
    """Of all arrays of the features: by it they are known again."""
    digest = hashlib.sha256()
    members = [getattr(each, field.name) for each in (inputs, inputs.earnings) for field in fields(each)]
    for values in (np.asarray(member) for member in members if isinstance(member, np.ndarray | Tensor)):
        digest.update(f"{values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
