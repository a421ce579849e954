"""Forecasts of daily trading volume, for Python code: plain frames in, plain frames out, no server and no store needed.

    import volcast

    prices = volcast.load_prices("SBUX.csv")
    forecast = volcast.forecast(prices)

Prices are in the long format of Nixtla's libraries: unique_id (the ticker), ds (the session), y (the volume in shares),
and open, high, low, close, adj_close where there are any. `open_store` gives the tables of a store of the pipeline as
frames. Nothing heavy is imported before it is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volcast.adapters import VolumeForecaster, predict_fev
    from volcast.frames import (
        Model,
        backtest,
        explain,
        fit,
        forecast,
        load_model,
        participation,
        search,
        sums,
    )
    from volcast.prices import PricesRefused, load_prices
    from volcast.stores import StoredFrames, open_store

__all__ = [
    "Model",
    "PricesRefused",
    "StoredFrames",
    "VolumeForecaster",
    "backtest",
    "explain",
    "fit",
    "forecast",
    "load_model",
    "load_prices",
    "open_store",
    "participation",
    "predict_fev",
    "search",
    "sums",
]
MODULES = {
    "PricesRefused": "prices",
    "StoredFrames": "stores",
    "VolumeForecaster": "adapters",
    "load_prices": "prices",
    "open_store": "stores",
    "predict_fev": "adapters",
}  # where a name is that `frames` has not


def __getattr__(name: str) -> Any:
    """One of `__all__`, imported when it is asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'volcast' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"volcast.{MODULES.get(name, 'frames')}"), name)


def __dir__() -> list[str]:
    return __all__
