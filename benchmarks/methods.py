"""The forecasters that take part in the benchmarks: volcast's own and its baselines, and the peers."""

from collections.abc import Callable
from typing import Literal

import torch

from benchmarks.peers.boosting import Boosting, BoostingSettings
from benchmarks.peers.linear import Linear
from benchmarks.peers.neural import NeuralPeer
from benchmarks.peers.pretrained import PretrainedPeer
from benchmarks.peers.statistical import StatisticalPeer
from volcast.models.forecasters import Forecaster
from volcast.models.recipes import VolumeRecipe
from volcast.models.volume_evaluation import forecasters
from volcast.models.volume_training import NetworkForecaster

Scope = Literal[
    "panel", "neural", "local"
]  # all tickers; those of the peers' networks; those that are fitted one by one

PEERS: dict[str, tuple[Scope, Callable[[], Forecaster]]] = {
    "lightgbm": ("panel", Boosting),
    "har-x": ("panel", Linear),
    "lstm": ("neural", lambda: NeuralPeer("LSTM")),
    "nhits": ("neural", lambda: NeuralPeer("NHITS")),
    "autoarima": ("local", lambda: StatisticalPeer("AutoARIMA")),
    "autoets": ("local", lambda: StatisticalPeer("AutoETS")),
    "autotheta": ("local", lambda: StatisticalPeer("AutoTheta")),
    "fracast": ("local", PretrainedPeer),
}
ALONE = (
    "volcast",  # pretrained weights, tuned; then as they are, and networks from scratch
    "untrained",
    "scratch",
    "har",
    "adv20",
    "lightgbm",
    "har-x",
    "autoarima",
    "autoets",
    "fracast",
)  # of `accuracy --alone`
RECIPES = {"untrained": VolumeRecipe(tuning_steps=0), "scratch": VolumeRecipe(start="scratch")}  # volcast's others
QUICK: dict[str, Callable[[], Forecaster]] = {
    "lightgbm": lambda: Boosting(BoostingSettings(rows=50_000, rounds=50)),
    "lstm": lambda: NeuralPeer("LSTM", max_steps=20),
    "nhits": lambda: NeuralPeer("NHITS", max_steps=20),
}


def own_methods(*, seed: int) -> dict[str, Forecaster]:
    """volcast and the baselines by name, in the order in which the product lists them."""
    return {forecaster.name: forecaster for forecaster in forecasters(seed=seed, device=torch.device("cpu"))}


def make_method(name: str, *, seed: int, quick: bool) -> tuple[Scope, Forecaster]:
    """A forecaster and the tickers that it is fitted on. Raises ValueError for a name that is none."""
    own = own_methods(seed=seed)
    if name in own:
        return "panel", own[name]
    if name in RECIPES:
        return "panel", NetworkForecaster(RECIPES[name], seed=seed, device=torch.device("cpu"), name=name)
    if name not in PEERS:
        raise ValueError(f"Unknown method {name!r}. Expected one of: {', '.join([*own, *RECIPES, *PEERS])}.")
    scope, make = PEERS[name]
    return scope, QUICK.get(name, make)() if quick else make()
