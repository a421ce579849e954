"""Save models as the present release does: python tests/data/make_saved_model.py 0.1.0

A pair of files for each recipe and release; a later release must load all of them and say the same.
"""

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from panels import synthetic_prices

from volcast.models.panel import make_panel
from volcast.models.recipes import VolumeRecipe, make_recipe, settings
from volcast.models.tutorial import build_features, fit, fit_scaler, tensors
from volcast.models.volume_inputs import volume_data
from volcast.models.volume_model import fit_volume_scaler
from volcast.models.volume_training import TrainingRun, fit_volume
from volcast.models.weights import to_bytes
from volcast.tasks.sources.simulated import simulated_source

ROWS = 20
CPU = torch.device("cpu")
TICKERS, SESSIONS, LAST = ["SBUX", "T1"], 200, date(2004, 6, 28)
SMALL = VolumeRecipe(steps=20, members=2, hidden_size=4, head_size=8, stop_sessions=20, test_sessions=20)


def save(recipe: str, model: nn.Module, answers: dict[str, Any]) -> None:
    """The weights, and beside them recipe, inputs and answers."""
    path = Path(__file__).parent / f"{recipe}_{sys.argv[1]}.safetensors"
    path.write_bytes(to_bytes(model))
    path.with_suffix(".json").write_text(json.dumps(answers, indent=1) + "\n")


def tutorial() -> None:
    """Trained on the synthetic prices of the tests."""
    recipe = make_recipe("tutorial")
    frame = build_features(synthetic_prices(), recipe)
    fitted = fit(frame, recipe, scaler=fit_scaler(frame, recipe), seed=0, device=CPU)
    x_NF = tensors(frame, recipe)[0][:ROWS]
    volume_shares = fitted.nowcaster.predict(x_NF).tolist()
    save(
        "tutorial",
        fitted.nowcaster,
        {"recipe": settings(recipe), "prices": x_NF.tolist(), "volume_shares": volume_shares},
    )


def volume() -> None:
    """Trained on prices and announced earnings of the simulated exchange; forecasts from its last two sessions."""
    source = simulated_source("simulated:5")
    bars = pd.concat([source.fetch(each, first=None, last=LAST).bars.tail(SESSIONS) for each in TICKERS])
    events = source.announcements(TICKERS, as_of=LAST)
    prices = bars[["ticker", "session", "open", "high", "low", "close", "volume"]].assign(adj_close=bars["close"])
    data = volume_data(make_panel(prices, events), events, SMALL)
    scaler = fit_volume_scaler(data.inputs, through=data.through - SMALL.stop_sessions)
    fitted = fit_volume(data.inputs, SMALL, TrainingRun(scaler=scaler, through=data.through, seed=0, device=CPU))
    forecasts = fitted.model.forecast(data.inputs, data.newest - [1, 0])
    save(
        "volume",
        fitted.model,
        {
            "recipe": settings(SMALL),
            "prices": as_columns(prices),
            "announcements": as_columns(pd.DataFrame(events[["ticker", "announced_for", "first_seen"]])),
            "quantiles_NCHQ": forecasts.quantiles_NCHQ.tolist(),
            "mean_NCH": forecasts.mean_NCH.tolist(),
        },
    )


def as_columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """A frame as JSON types, its dates as text."""
    dates = frame.select_dtypes("datetime").columns
    return frame.assign(**{name: frame[name].dt.strftime("%Y-%m-%d") for name in dates}).to_dict("list")


if __name__ == "__main__":
    tutorial()
    volume()
