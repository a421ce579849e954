"""How good forecasts of volume were: the losses of a backtest's frame.

With y actual volume, f a forecast, and the mean over the rows of one ticker:
    mase       mean(|y - f|) / scale;  scale: the mean of |y(t) - y(t - 5)| over the ticker's train sessions
    rmsse      sqrt(mean((y - f)^2) / mean((y(t) - y(t - 5))^2))
    smape      mean(|y - f| / (y + f)): 0 to 1
    qlike      mean(y/f - log(y/f) - 1)       (Patton 2011, "Volatility forecast comparison using imperfect proxies")
    log_rmse   sqrt(mean((log y - log f)^2))
    pinball    the quantile losses of the levels 0.025, 0.1, 0.5, 0.9 and 0.975, their mean, / scale
    coverage_80, coverage_95   the share of y inside of the interval
    bias       mean(f - y) / mean(y)
    over_share the share of f above y
f is the point in all of them; rmsse_mean and qlike_mean are those of the mean forecast, X-mean, where a forecaster has
one (it is the mean that squares and QLIKE ask for), else of its point again. A panel's score is the mean over its
tickers. utilsforecast has the losses; a ticker without a scale (listed after the train sessions) is not scored.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from utilsforecast import losses

from models.backtest import INTERVALS, KEYS
from models.errors import NotEnoughSessions

SEASON = 5  # sessions
BANDS = {"1": (1, 1), "1-5": (1, 5), "1-10": (1, 10)}  # horizons, first and last
QUANTILES = (0.025, 0.1, 0.5, 0.9, 0.975)
POINT_LEVEL = 0.5  # the level that the point stands for in the pinball loss and in the calibration
FIRST_TICKER = "SBUX"  # leads the tickers' own rows

Bands = dict[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """The losses of every forecaster."""

    by_ticker: pd.DataFrame  # band, model, unique_id (SBUX first), mean_of, one column a loss
    panel: pd.DataFrame  # band, model, tickers (how many), mean_of, one column a loss: the mean over the tickers


def models_of(frame: pd.DataFrame) -> list[str]:
    """The forecasters in a backtest's frame, in the order of their columns."""
    endings = (*(f"-{end}" for end in INTERVALS), "-mean")
    return [name for name in frame.columns if name not in KEYS and not name.endswith(endings)]


def scales(train: pd.DataFrame) -> pd.Series:
    """unique_id -> the mean of |y(t) - y(t - SEASON)|, in shares; only tickers for which it is above 0."""
    step = pd.Series(train["y"] - train.groupby("unique_id")["y"].shift(SEASON)).abs()
    scale = pd.Series(step.groupby(train["unique_id"]).mean())
    return scale.loc[scale > 0]


def scored_rows(frame: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """The rows of the tickers that have a scale. Raises NotEnoughSessions where none has."""
    rows = frame.loc[frame["unique_id"].isin(list(scales(train).index))]
    if rows.empty:
        raise NotEnoughSessions(
            f"No ticker of the test has more than {SEASON} train sessions, so no error can be scaled. "
            "Let --train-through be later, or bring in an earlier start."
        )
    return rows


def score(frame: pd.DataFrame, train: pd.DataFrame, *, bands: Bands = BANDS) -> Scores:
    """The scores of a `backtest` frame; `train` as `train_volumes` gives it. Raises NotEnoughSessions."""
    rows = scored_rows(frame, train)
    by_ticker = pd.concat([_band(rows, train, band, between) for band, between in bands.items()], ignore_index=True)
    grouped = by_ticker.groupby(["band", "model", "mean_of"], sort=False)
    panel = pd.DataFrame(grouped.mean(numeric_only=True))
    panel.insert(0, "tickers", grouped.size())
    return Scores(by_ticker=by_ticker, panel=panel.reset_index())


def calibration(frame: pd.DataFrame, model: str, *, bands: Bands = BANDS) -> pd.DataFrame:
    """The share of volumes at or below each quantile: index nominal level, a column a band; the mean over tickers."""
    columns = dict(zip(QUANTILES, quantile_columns(model), strict=True))
    observed = {}
    for band, between in bands.items():
        rows = frame.loc[frame["h"].between(*between)]
        is_below = pd.DataFrame({level: rows["y"] <= rows[name] for level, name in columns.items()})
        observed[band] = pd.DataFrame(is_below.groupby(rows["unique_id"]).mean()).mean()
    return pd.DataFrame(observed).rename_axis("level")


def _band(rows: pd.DataFrame, train: pd.DataFrame, band: str, between: tuple[int, int]) -> pd.DataFrame:
    """The by_ticker rows of one band."""
    models = models_of(rows)
    mean_of = {model: f"{model}-mean" if f"{model}-mean" in rows.columns else model for model in models}
    inside = rows.loc[rows["h"].between(*between)].drop(columns="cutoff")  # or each cutoff would be scored for itself
    found = _point_losses(inside, train, models)
    means = _square_losses(inside, train, list(mean_of.values()))
    tables = [
        pd.DataFrame({name: table[model] for name, table in found.items()}).assign(
            band=band,
            model=model,
            mean_of=mean_of[model],
            **{f"{name}_mean": means[name][mean_of[model]] for name in means},
        )
        for model in models
    ]
    whole = pd.concat([table.rename_axis("unique_id").reset_index() for table in tables])
    whole["is_other"] = whole["unique_id"] != FIRST_TICKER
    ordered = whole.sort_values(["is_other", "unique_id"], kind="stable").drop(columns="is_other")
    leading = ["band", "model", "unique_id", "mean_of"]
    return ordered.loc[:, [*leading, *(name for name in ordered.columns if name not in leading)]]


def _point_losses(rows: pd.DataFrame, train: pd.DataFrame, models: list[str]) -> dict[str, pd.DataFrame]:
    """Loss -> a row a ticker, a column a forecaster."""
    scale: dict[str, Any] = {"seasonality": SEASON, "train_df": train}
    logs = rows[["unique_id"]].assign(**{name: np.log(rows[name]) for name in ("y", *models)})
    quantiles = {model: quantile_columns(model) for model in models}
    above = rows[["unique_id"]].assign(**{model: rows[model] > rows["y"] for model in models})
    return {
        "mase": _indexed(losses.mase(rows, models, **scale)),
        "smape": _indexed(losses.smape(rows, models)),
        **_square_losses(rows, train, models),
        "log_rmse": _indexed(losses.rmse(logs, models)),
        "pinball": _indexed(losses.scaled_mqloss(rows, quantiles, np.array(QUANTILES), **scale)),
        "coverage_80": _indexed(losses.coverage(rows, models, 80)),
        "coverage_95": _indexed(losses.coverage(rows, models, 95)),
        "bias": _indexed(losses.bias(rows, models)).div(rows.groupby("unique_id")["y"].mean(), axis=0),
        "over_share": pd.DataFrame(above.groupby("unique_id")[models].mean()),
    }


def _square_losses(rows: pd.DataFrame, train: pd.DataFrame, columns: list[str]) -> dict[str, pd.DataFrame]:
    """The losses that a mean minimises: rmsse and qlike, a row a ticker, a column a column."""
    ratios = pd.DataFrame({name: rows["y"] / rows[name] for name in columns})
    qlike = pd.DataFrame((ratios - np.log(ratios) - 1).groupby(rows["unique_id"]).mean())
    return {"rmsse": _indexed(losses.rmsse(rows, columns, seasonality=SEASON, train_df=train)), "qlike": qlike}


def quantile_columns(model: str) -> list[str]:
    """The columns of the levels QUANTILES; the point stands for the median."""
    ends = {level: f"{model}-{end}" for end, level in INTERVALS.items()} | {POINT_LEVEL: model}
    return [ends[level] for level in QUANTILES]


def _indexed(table: Any) -> pd.DataFrame:
    return cast(pd.DataFrame, table).set_index("unique_id")
