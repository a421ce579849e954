"""How good a model is on the test sessions, beside the baselines on the same sessions, in numbers and in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from models.baselines import BASELINES
from models.metrics import error_table, format_shares
from models.recipes import NOWCAST_NOTE, TutorialRecipe

# N sessions

MODEL = "volcast"  # the model's row among the methods
SMALL_TEST_SESSIONS = 252  # a year: a shorter test does not hold each season, quarter end and earnings date once

LEAK_NOTE = (
    "fit_scalers_on is all: the scalers were fitted on the test sessions too, so the test leaks into the model and "
    "its score may be better than it would be in use. The article does so; fit_scalers_on=train does not."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Errors on the test sessions."""

    table: pd.DataFrame  # index method (volcast, rivals, baselines); rmse_shares, mae_shares, mape, smape
    first_session: date  # of the test
    last_session: date
    test_sessions: int
    words: tuple[str, ...]  # sentences that belong beside the numbers

    @property
    def rmse_shares(self) -> float:
        """The model's own root mean squared error."""
        return self.table["rmse_shares"].to_dict()[MODEL]


def evaluate(
    frame: pd.DataFrame,
    predictions: np.ndarray,
    recipe: TutorialRecipe,
    *,
    rivals: Mapping[str, np.ndarray] | None = None,
) -> Evaluation:
    """The evaluation of `predictions` (shares, one a row of the `build_features` frame, (N,)) on its test rows.

    `rivals` are predictions of other models, by name, scored on the same rows beside the baselines.
    Raises ValueError when the number of predictions differs from the rows, or a test row has no finite one of a method.
    """
    if predictions.shape != (len(frame),):
        raise ValueError(f"One prediction a row is needed, ({len(frame)},); {predictions.shape} came.")
    is_test_N = (frame["role"] == "test").to_numpy()
    sessions = pd.DatetimeIndex(frame["session"])[is_test_N]
    baselines = {name: baseline(frame, recipe) for name, baseline in BASELINES.items()}
    methods = {MODEL: predictions, **(rivals or {}), **baselines}
    actual = pd.Series(frame[recipe.target].to_numpy()[is_test_N], index=sessions)
    table = error_table(actual, {name: values_N[is_test_N] for name, values_N in methods.items()})
    return Evaluation(
        table=table,
        first_session=sessions.date[0],
        last_session=sessions.date[-1],
        test_sessions=len(sessions),
        words=_words(table, sessions, recipe),
    )


def _words(table: pd.DataFrame, sessions: pd.DatetimeIndex, recipe: TutorialRecipe) -> tuple[str, ...]:
    rmses: dict[str, float] = table["rmse_shares"].to_dict()
    own = rmses.pop(MODEL)
    count = len(sessions)
    words = [
        NOWCAST_NOTE,
        f"RMSE {format_shares(own)} shares on the {count} test sessions {sessions[0]:%Y-%m-%d} to "
        f"{sessions[-1]:%Y-%m-%d}: {MODEL} {_verdicts(own, rmses)}.",
    ]
    if recipe.fit_scalers_on == "all":
        words.append(LEAK_NOTE)
    if count < SMALL_TEST_SESSIONS:
        words.append(f"{count} test sessions of one ticker are few: a small difference may be chance.")
    return tuple(words)


def _verdicts(own: float, baselines: dict[str, float]) -> str:
    """For example "beats last_value (2.80 M, ratio 0.90), does not beat mean_20 (...)"; ratio is own RMSE / other."""
    return ", ".join(
        f"{'beats' if own < rmse else 'does not beat'} {name} ({format_shares(rmse)}, ratio {own / rmse:.2f})"
        for name, rmse in baselines.items()
    )
