"""Which number of a forecast is its point: the one that costs least, for whoever pays for its errors.

With y the volume, f the point, and the means over the rows of one ticker, each point has the least loss of its own:
    median       mean(|y - f|)
    mean         sqrt(mean((y - f)^2))
    quantile:Q   mean(Q (y - f) where y is above f, else (1 - Q) (f - y))
    ale          mean(w |log f - log y|), w = 2 where f is above y, else 1: the Asymmetrical Logarithmic Error of
                 Markov, Vilenskaia and Rashkovich (2019), "Quintet Volume Projection", arXiv:1904.01412, equations 7
                 and 8 (there a sum): an order that counts on too much volume trades at too high a rate. The quantile
                 1/3 has the least of it, for what is too much costs twice as much as what is too little.
All but the last are in units of the ticker's scale (models/scores.py). What is judged, published and kept is the
median, so that models and forecasts of all times compare; a point is a way to read them. A quantile between two levels
of a frame is on the straight line of models/sums.py.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from utilsforecast import losses

from volcast.models.errors import UnknownPoint
from volcast.models.forecast_columns import (
    POINT,
    SCORED_LEVELS,
    mean_column,
    median_column,
    models_of,
    quantile_columns,
    scored_columns,
)
from volcast.models.forecasters import LEVELS, MODEL
from volcast.models.point_names import ALE, USUAL_POINT, level_of, point_words
from volcast.models.scores import BANDS, in_units, indexed, scored_rows, stretch
from volcast.models.sums import between

# R rows, Q levels


def with_point(frame: pd.DataFrame, point: str) -> pd.DataFrame:
    """A published forecast, or sums of it, with another point than the median: then `point` says which one it is.

    The median stands beside it, as `volcast-median`: reasons are its factors. Raises UnknownPoint where there are no
    quantiles, as in a nowcast.
    """
    if point == USUAL_POINT:
        return frame
    if not {*scored_columns(MODEL), mean_column(MODEL)} <= set(frame):
        raise UnknownPoint(f"A forecast of one number a session has no {point_words(point)}. Its point is what it is.")
    shown, place = frame.assign(**{MODEL: _values(frame, MODEL, point)}), list(frame).index(MODEL) + 1
    shown.insert(place, POINT, point)
    shown.insert(place + 1, median_column(MODEL), frame[MODEL])
    return shown


def _values(frame: pd.DataFrame, name: str, point: str) -> np.ndarray:
    """(R,) shares: the point of one forecaster; where it says no mean, its own point again."""
    level = level_of(point)
    if level is None:
        return frame[mean_column(name) if mean_column(name) in frame else name].to_numpy()
    columns = dict(zip(LEVELS, quantile_columns(name), strict=True))
    if not set(columns.values()) <= set(frame):
        columns = dict(zip(SCORED_LEVELS, scored_columns(name), strict=True))
    return frame[columns[level]].to_numpy() if level in columns else _on_the_line(frame, columns, level)


def _on_the_line(frame: pd.DataFrame, columns: Mapping[float, str], level: float) -> np.ndarray:
    """(R,) shares: a quantile between two levels of a frame; these ascend, as a stand-in's point may not do."""
    from scipy.special import ndtri  # which what only reads forecasts does without

    (below,), (share,) = between(tuple(columns), ndtri([level]))
    log_RQ = np.log(np.sort(frame[list(columns.values())].to_numpy(np.float64), axis=1))
    return np.exp(log_RQ[:, below] + share * (log_RQ[:, below + 1] - log_RQ[:, below]))


def score_points(frame: pd.DataFrame, scale: pd.DataFrame, point: str) -> pd.DataFrame:
    """What the points of the forecasters in a frame of `backtest` are worth, by their own loss.

    Returns band, model, mean_of (which number is the point), over_share, bias, loss, and of_median: the loss over that
    of the median. Means over the tickers, in which a ticker counts as in `volcast.models.scores.score`. `scale` as
    `train_scales` gives it. Raises NotEnoughSessions.
    """
    rows, models = scored_rows(frame, scale), models_of(frame)
    chosen = rows.assign(**{name: _values(rows, name, point) for name in models})
    tables = []
    for band, (first, last) in BANDS.items():
        inside = rows["h"].between(first, last)
        own, by_median = (pd.DataFrame(each.loc[inside]).drop(columns="cutoff") for each in (chosen, rows))
        found, median = (_losses(each, scale, models, point) for each in (own, by_median))
        worst = pd.Series(1.0, index=found.index) if point == ALE else stretch(pd.concat([found, median], axis=1))
        over = pd.DataFrame(own[models].gt(own["y"], axis=0).groupby(own["unique_id"]).mean())
        bias = indexed(losses.bias(own, models)).div(own.groupby("unique_id")["y"].mean(), axis=0)
        loss, of_median = (each.div(worst, axis=0).mean() for each in (found, median))
        columns = {"over_share": over.mean(), "bias": bias.mean(), "loss": loss, "of_median": loss / of_median}
        tables.append(pd.DataFrame(columns).loc[models].rename_axis("model").reset_index().assign(band=band))
    return pd.concat(tables, ignore_index=True).assign(mean_of=point)


def _losses(rows: pd.DataFrame, scale: pd.DataFrame, models: list[str], point: str) -> pd.DataFrame:
    """The point's own loss: a row a ticker, a column a forecaster."""
    if point == ALE:
        excess = pd.DataFrame({name: np.log(rows[name]) - np.log(rows["y"]) for name in models})
        weighed = excess.abs() * np.where(excess > 0, 2.0, 1.0)
        return pd.DataFrame(weighed.groupby(rows["unique_id"]).mean())
    if (level := level_of(point)) is None:
        return in_units(losses.rmse(rows, models), scale["root"])
    return in_units(losses.quantile_loss(rows, {name: name for name in models}, q=level), scale["absolute"])
