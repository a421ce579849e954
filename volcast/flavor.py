"""What MLflow calls a flavor: a trained model is logged and loaded as a pyfunc that reads its safetensors file.

import volcast.flavor

volcast.flavor.log_model(model, name="volume")
mlflow.pyfunc.load_model(uri).predict(prices)
"""

from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from volcast.frames import Model, forecast, library, load_model
from volcast.models.calendar_names import NEW_YORK

FILE = "model.safetensors"


def log_model(model: Model, name: str = "volume", **options: Any) -> Any:
    """Log a model with the active run of MLflow, as `mlflow.pyfunc.log_model` does, which `options` are of.

    Returns its mlflow.models.model.ModelInfo. Raises ModuleNotFoundError without the extra `mlflow`.
    """
    return _written(model, "log_model", {"name": name} | options)


def save_model(model: Model, path: str | Path, **options: Any) -> None:
    """Save a model as a folder in MLflow's format, as `mlflow.pyfunc.save_model` does, which `options` are of.

    Raises ModuleNotFoundError without the extra `mlflow`.
    """
    _written(model, "save_model", {"path": str(path)} | options)


class VolumeFunction:
    """What MLflow loads: `predict(prices)` is `volcast.forecast` of the model."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, prices: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The forecast of a frame of prices; the parameter `calendar` names another market than New York's."""
        return forecast(prices, model=self.model, **(params or {}))


def _load_pyfunc(path: str) -> VolumeFunction:
    """As mlflow.pyfunc asks for a model by the name of its loader module."""
    return VolumeFunction(load_model(path))


def _written(model: Model, how: str, options: dict[str, Any]) -> Any:
    pyfunc, types = library("mlflow.pyfunc", "mlflow"), library("mlflow.types", "mlflow")
    calendar = types.ParamSchema([types.ParamSpec("calendar", "string", NEW_YORK)])
    usual = {
        "loader_module": __name__,
        "signature": library("mlflow.models", "mlflow").ModelSignature(params=calendar),
        "pip_requirements": [f"volcast=={version('volcast')}"],
    }
    with TemporaryDirectory() as folder:
        model.save(Path(folder) / FILE)
        return getattr(pyfunc, how)(data_path=str(Path(folder) / FILE), **usual | options)
