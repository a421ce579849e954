"""neuralforecast's LSTM and NHITS as forecasters: global over the panel, on log volume.

Both get volcast's columns of the calendar and of announced earnings for every session, those to come included. They are
fitted once. For the forecasts each ticker and cutoff is a series of its own, its last INPUT rows, so that nothing of
later can reach the network.

The LSTM runs in the library's recurrent mode: its direct one, the default, decodes horizon h from the hidden state of
10 - h sessions before the cutoff and comes out far worse. Recurrently the library keeps no quantiles of MQLoss, only
their mean, so that the LSTM has a Student-t law instead; from the second horizon on its intervals leave out that the
session before is a forecast. NHITS has MQLoss. neuralforecast 3.3.0 works with the pinned pandas 3.1 and torch 2.13.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch

from benchmarks.peers.common import library, rows_until, to_forecasts
from volcast.models.earnings_features import EARNINGS_COLUMNS
from volcast.models.forecasters import LEVELS, Forecasts
from volcast.models.market_calendar import CALENDAR_COLUMNS
from volcast.models.panel import HORIZONS, Panel
from volcast.models.volume_inputs import Inputs, build_inputs

# N tickers, C cutoffs, H horizons, Q quantile levels, K columns known ahead, M series, L sessions of each, R rows

INPUT = 60  # sessions that a forecast sees
CHUNK_SERIES = 6000  # predicted at once: about 100 MB
SETTINGS: dict[str, dict[str, Any]] = {
    "LSTM": {
        "recurrent": True,
        "encoder_hidden_size": 64,
        "encoder_n_layers": 1,
        "max_steps": 400,
        "learning_rate": 5e-3,
        "batch_size": 4,
        "windows_batch_size": 256,
    },
    "NHITS": {
        "mlp_units": [[256, 256]] * 3,
        "max_steps": 400,
        "learning_rate": 1e-3,
        "batch_size": 4,
        "windows_batch_size": 512,
    },
}
COMMON = {
    "scaler_type": "standard",
    "num_lr_decays": 3,
    "random_seed": 0,
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class NeuralPeer:
    """One network of neuralforecast."""

    def __init__(self, kind: Literal["LSTM", "NHITS"], **settings: Any) -> None:
        self.name = kind.lower()
        self._kind = kind
        self._settings = COMMON | SETTINGS[kind] | settings

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Fitted on the rows up to `through` of every ticker that has enough; the windows are drawn at random."""
        past = panel.until(through + 1)
        inputs = _inputs(past)
        parts = []
        for row in range(len(past.tickers)):
            place_R = np.flatnonzero(past.traded_NT[row])
            if len(place_R) >= INPUT + HORIZONS:
                known_R = np.full(len(place_R), through)
                ahead_RK = _ahead(inputs, np.full(len(place_R), row), known_R, place_R)
                parts.append(_frame(np.array([row]), ahead_RK[None], past.log_volume_NT[[row], place_R][None]))
        network = getattr(library("neuralforecast.models"), self._kind)(
            h=HORIZONS,
            input_size=INPUT,
            futr_exog_list=_column_names(),
            loss=_loss(self._kind),
            **self._settings,
        )
        self._networks = library("neuralforecast").NeuralForecast(models=[network], freq=1)
        with _quiet():
            self._networks.fit(df=pd.concat(parts, ignore_index=True))
        return self

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts of each ticker that traded at the cutoff and has INPUT rows up to it."""
        inputs = _inputs(panel)
        log_quantiles_NCHQ = np.full((len(panel.tickers), len(cutoffs), HORIZONS, len(LEVELS)), np.nan)
        places = {
            (row, column): place_L
            for row in range(len(panel.tickers))
            for column, cutoff in enumerate(cutoffs)
            if len(place_L := rows_until(panel, row, cutoff, at_most=INPUT)) == INPUT
        }
        keys_M2, place_ML = np.array(list(places)), np.array(list(places.values()))
        for start in range(0, len(keys_M2), CHUNK_SERIES):
            row_M, column_M = keys_M2[start : start + CHUNK_SERIES].T
            quantiles_MHQ = self._predict(inputs, row_M, place_ML[start : start + CHUNK_SERIES])
            log_quantiles_NCHQ[row_M, column_M] = quantiles_MHQ
        return to_forecasts(cutoffs, log_quantiles_NCHQ)

    def _predict(self, inputs: Inputs, row_M: np.ndarray, place_ML: np.ndarray) -> np.ndarray:
        """(M, H, Q) quantiles of log volume after the last of the sessions of each series."""
        cutoff_M1 = place_ML[:, -1:]
        place_MX = np.concatenate([place_ML, cutoff_M1 + np.arange(1, HORIZONS + 1)], axis=1)
        shape = place_MX.shape
        row_MX, cutoff_MX = np.broadcast_to(row_M[:, None], shape), np.broadcast_to(cutoff_M1, shape)
        ahead_MXK = _ahead(inputs, row_MX.ravel(), cutoff_MX.ravel(), place_MX.ravel()).reshape(*shape, -1)
        series_M = np.arange(len(row_M))
        past = _frame(series_M, ahead_MXK[:, :INPUT], inputs.panel.log_volume_NT[row_M[:, None], place_ML])
        future = _frame(series_M, ahead_MXK[:, INPUT:], None, first=INPUT)
        with _quiet():
            predicted = self._networks.predict(df=past, futr_df=future)
        ordered = predicted.sort_values(["unique_id", "ds"]).iloc[:, -len(LEVELS) :]  # a law gives its mean before them
        return ordered.to_numpy().reshape(len(row_M), HORIZONS, len(LEVELS))


def _loss(kind: str) -> Any:
    losses = library("neuralforecast.losses.pytorch")
    if kind == "LSTM":
        return losses.DistributionLoss(distribution="StudentT", quantiles=list(LEVELS), num_samples=1000)
    return losses.MQLoss(quantiles=list(LEVELS))


def _inputs(panel: Panel) -> Inputs:
    return build_inputs(panel, use_earnings=len(panel.announcements) > 0)


def _column_names() -> list[str]:
    return [*CALENDAR_COLUMNS, *EARNINGS_COLUMNS]


def _ahead(inputs: Inputs, ticker_R: np.ndarray, cutoff_R: np.ndarray, target_R: np.ndarray) -> np.ndarray:
    """(R, K) float32: the calendar of a session, and its announced earnings as known at the close of the cutoff."""
    places = (torch.from_numpy(each) for each in (ticker_R, cutoff_R, target_R))
    return np.concatenate([inputs.calendar_SK[target_R], inputs.earnings.columns(*places).numpy()], axis=1)


def _frame(
    series_M: np.ndarray, ahead_MLK: np.ndarray, log_volume_ML: np.ndarray | None, *, first: int = 0
) -> pd.DataFrame:
    """neuralforecast's long frame; its `ds` counts a series' rows, so that a halt is no gap."""
    series, length, columns = ahead_MLK.shape
    names = [*CALENDAR_COLUMNS, *EARNINGS_COLUMNS][:columns]
    frame = pd.DataFrame(ahead_MLK.reshape(-1, columns), columns=names)
    frame.insert(0, "unique_id", np.repeat(series_M, length))
    frame.insert(1, "ds", np.tile(np.arange(first, first + length), series))
    if log_volume_ML is not None:
        frame.insert(2, "y", log_volume_ML.ravel().astype(np.float32))
    return frame


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lightning's talk of devices and workers."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
