"""The forecasts of the newest cutoff as they are published, and those of the rivals beside them."""

import numpy as np
import pandas as pd

from models.backtest import INTERVALS, volumes
from models.evaluation import MODEL
from models.forecasters import LEVELS, Forecasts
from models.har import Har
from models.naive import naive_forecasters
from models.panel import Panel
from models.scores import scales

FALLBACK = "har"


def forecast_frame(panel: Panel, said: Forecasts) -> pd.DataFrame:
    """The forecasts of the newest cutoff, the only one in `said`, of every ticker that has one.

    Returns unique_id (str), cutoff, ds (datetime64[s]), h (int64, 1 to HORIZONS), and as float64 shares: volcast (the
    point), volcast-mean, volcast-lo-80, volcast-hi-80, volcast-lo-95, volcast-hi-95, and volcast-q-0.025 …
    volcast-q-0.975, one of each of LEVELS. By unique_id and h. The columns are called so whoever made them.
    """
    cutoff = panel.known - 1
    quantiles_NHQ, mean_NH, point_NH = said.quantiles_NCHQ[:, 0], said.mean_NCH[:, 0], said.point_NCH[:, 0]
    ticker_R, ahead_R = np.nonzero(np.isfinite(quantiles_NHQ).all(axis=2) & np.isfinite(point_NH))
    quantiles = {level: quantiles_NHQ[ticker_R, ahead_R, place] for place, level in enumerate(LEVELS)}
    columns = {
        MODEL: point_NH[ticker_R, ahead_R],
        f"{MODEL}-mean": mean_NH[ticker_R, ahead_R],
        **{f"{MODEL}-{end}": quantiles[level] for end, level in INTERVALS.items()},
        **{f"{MODEL}-q-{level}": values_R for level, values_R in quantiles.items()},
    }
    keys = {
        "unique_id": np.array(panel.tickers, dtype=object)[ticker_R],
        "cutoff": panel.sessions[np.full(len(ticker_R), cutoff)],
        "ds": panel.sessions[cutoff + 1 + ahead_R],
        "h": ahead_R.astype(np.int64) + 1,
    }
    values = {name: np.asarray(values_R, dtype=np.float64) for name, values_R in columns.items()}
    return pd.DataFrame(keys | values).astype({"unique_id": str})


def fallback_frame(panel: Panel) -> pd.DataFrame:
    """`forecast_frame` of har, fitted on all that is known at the newest cutoff."""
    newest = panel.known - 1
    return forecast_frame(panel, Har().fit(panel, through=newest).forecast(panel, np.array([newest])))


def naive_frame(panel: Panel) -> pd.DataFrame:
    """`forecast_frame` of the last volume."""
    naive = next(each for each in naive_forecasters() if each.name == "naive")
    return forecast_frame(panel, naive.forecast(panel, np.array([panel.known - 1])))


def scales_now(panel: Panel) -> pd.Series:
    """Ticker -> the unit of its errors, as `models.scores.scales` has it, from all that is known."""
    return scales(volumes(panel, known=panel.known))
