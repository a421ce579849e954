"""Volume forecasts as scikit-learn and mlforecast drive a regressor, and as fev drives a model: docs/libraries.md."""

from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from volcast import frames
from volcast.models.calendar_names import NEW_YORK
from volcast.models.forecasters import MODEL
from volcast.models.point_names import USUAL_POINT
from volcast.models.points import with_point
from volcast.models.text import counted, listed
from volcast.prices import KEYS, Events, Frame, keyed, to_pandas


class VolumeForecaster(RegressorMixin, BaseEstimator):
    """The volume recipe as a regressor of scikit-learn: a row of X is a session of a ticker, and y is its volume.

    X is a frame with the ticker (`id_col`), the session (`time_col`), and open, high, low, close and adj_close where
    there are any; other columns are not used. `fit` trains on all of it, and forecasts the ten sessions after its
    newest one: `forecast_` is what `volcast.forecast` gives of `model_`. `predict` looks its rows up in there, and uses
    nothing of X but their keys. The settings of the recipe `volume` are parameters, too: tuning_steps=0, say.
    """

    def __init__(
        self,
        *,
        id_col: str = "unique_id",
        time_col: str = "ds",
        events: Events = None,
        calendar: str = NEW_YORK,
        seed: int = 0,
        device: str = "auto",
        **recipe: Any,
    ) -> None:
        self.id_col, self.time_col = id_col, time_col
        self.events, self.calendar, self.seed, self.device = events, calendar, seed, device
        self.recipe = recipe

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters, with the settings of the recipe that were given."""
        return super().get_params(deep) | self.recipe

    def set_params(self, **params: Any) -> Self:
        """Change parameters, or settings of the recipe; `fit` refuses a setting that there is not."""
        own = {name: params.pop(name) for name in super().get_params(deep=False) if name in params}
        super().set_params(**own)
        self.recipe = self.recipe | params
        return self

    def fit(self, X: Frame, y: Any) -> Self:
        """Train on these rows. Raises PricesRefused, UnknownRecipe, NotEnoughSessions, TrainingDiverged."""
        prices = self._named(X).assign(y=np.asarray(y))
        known = {"events": self.events, "calendar": self.calendar}
        self.model_ = frames.fit(prices, **known, test=False, seed=self.seed, device=self.device, **self.recipe)
        self.forecast_ = frames.forecast(prices, **known, model=self.model_)
        return self

    def predict(self, X: Frame) -> np.ndarray:
        """The median of each row, in shares. Raises ValueError for a row of another session than the ten that come."""
        check_is_fitted(self)
        return _looked_up(self.forecast_, keyed(self._named(X)))[MODEL].to_numpy()

    def _named(self, X: Frame) -> pd.DataFrame:
        return to_pandas(X).rename(columns={self.id_col: "unique_id", self.time_col: "ds"})


def predict_fev(
    task: Any,
    *,
    events: Events = None,
    calendar: str = NEW_YORK,
    model: frames.Model | Literal["pretrained", "har"] = "pretrained",
) -> list[list[dict[str, list[float]]]]:
    """What `fev.Task.evaluation_summary` asks of a model: of each window and each of its series the predictions.

    The target is volume; open, high, low and close are used where they are past_dynamic_columns. fev knows regular
    dates only, such as all weekdays: one without a session is forecast as 0, and its past is left out. `events`,
    `calendar` and `model` are those of `volcast.forecast`. Raises what that raises, and ValueError for a horizon of
    more than ten sessions.
    """
    fev = frames.library("fev", "fev")
    points = {"predictions": USUAL_POINT} | {str(level): f"quantile:{level}" for level in task.quantile_levels}
    windows = []
    for window in task.iter_windows():
        past, coming, _ = fev.convert_input_data(window, adapter="nixtla")
        found = frames.forecast(past.dropna(subset="y"), events=events, calendar=calendar, model=model)
        asked = keyed(coming)
        is_open_R = np.isin(asked["ds"], found["ds"]) | (asked["ds"].to_numpy() > found["ds"].to_numpy().max())
        rows = _looked_up(found, asked.loc[is_open_R]).set_axis(asked.index[is_open_R])
        said = pd.DataFrame({name: with_point(rows, point)[MODEL] for name, point in points.items()})
        said = said.reindex(asked.index, fill_value=0.0)
        windows.append([own.to_dict("list") for _, own in said.groupby(asked["unique_id"], sort=False)])
    return windows


def _looked_up(found: pd.DataFrame, keys: pd.DataFrame) -> pd.DataFrame:
    """The rows of a forecast with these keys, in their order. Raises ValueError where one is not there."""
    rows = keys.merge(found, how="left", on=KEYS)
    lacking = rows.loc[rows[MODEL].isna()]
    if len(lacking):
        first, last, one = found["ds"].min(), found["ds"].max(), lacking.iloc[0]
        raise ValueError(
            f"{counted(len(lacking), 'row')} without a forecast, the first {one['unique_id']} {one['ds']:%Y-%m-%d}. "
            f"The forecast is of {listed(sorted(set(found['unique_id'])))}, {first:%Y-%m-%d} to {last:%Y-%m-%d}: "
            "the ten sessions after the newest one that is known."
        )
    return rows
