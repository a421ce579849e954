"""What a recipe is to the pipeline: the steps from prices to a forecast, without any store.

    prices + announcements -> prepared -> scaler -> trained -> evaluated
                                 └-------------> predictor -> forecast -> plots

The tasks read and write, and ask the method of their recipe (`registry.method_of`) for the rest.
"""

from __future__ import annotations  # torch and scipy are only named here: what reads no model imports neither

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
from pydantic import JsonValue

from models.panel import Panel, make_panel
from models.recipes import Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn

    from models.comparisons import Contest, Decision
    from models.drift import FeatureDrift
    from models.volume_training import Checkpoint

Prepared = Any  # what a method makes of prices; only the method itself looks inside
Predictor = Any  # a loaded model; only its method calls it
Scores = dict[str, dict[str, float]]  # forecaster -> metric -> value


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """What is known at the cutoff of a snapshot."""

    read_prices: Callable[[], pd.DataFrame]  # as `PriceTable.read` gives them
    announcements: pd.DataFrame  # as `EventTable.known` gives them

    @cached_property
    def panel(self) -> Panel:
        """Both on the grid of sessions, made once. Raises ModelError."""
        return make_panel(self.read_prices(), self.announcements)


@dataclass(frozen=True, kw_only=True)
class Described:
    """What is stored of the features."""

    files: dict[str, bytes]
    facts: dict[str, JsonValue]  # among them rows and train_rows


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a training runs on and reports to."""

    seed: int
    device: torch.device
    on_epoch: Callable[[int, float], None]
    checkpoint: Checkpoint


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model, on the CPU, scaler included."""

    module: nn.Module
    losses: Sequence[tuple[int, float]]
    final_loss: float
    seconds: float
    summary: str  # of its layers


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Scores on the held-back sessions, what they mean, and whether the model forecasts."""

    scores: Scores
    words: tuple[str, ...]  # first what kind of forecast it is, second what it beats
    decision: Decision
    files: dict[str, bytes] = field(default_factory=dict)  # more that the plots need


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A picture, and the name of its file."""

    file: str
    title: str
    png: bytes


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a title is made of."""

    tickers: str
    version: str  # of the model
    note: str  # what must be said wherever it is shown, with the space before it


class Method(Protocol):
    """The steps of one recipe."""

    horizon: int  # sessions ahead, the farthest
    epochs: int  # of a training, as its log counts them
    epoch_name: str

    @property
    def recipe(self) -> Recipe:
        """The settings."""
        ...

    def parts(self, tickers: Sequence[str]) -> list[tuple[str, ...]]:
        """The tickers of each model."""
        ...

    def model_name(self, tickers: Sequence[str]) -> str:
        """The registered name of the model of some tickers. Raises ValueError when they are not one model's."""
        ...

    def prepare(self, rows: Rows) -> Prepared:
        """What the recipe looks at, of some rows. Raises ModelError."""
        ...

    def describe(self, prepared: Prepared) -> Described:
        """What is stored as the version of the features."""
        ...

    def restore(self, read: Callable[[str], bytes], prices: Callable[[], pd.DataFrame]) -> Prepared:
        """What `describe` was given, from the stored files and, where that is not enough, from the prices again."""
        ...

    def scaler(self, prepared: Prepared) -> nn.Module:
        """Fitted on the train rows."""
        ...

    def load_scaler(self, data: bytes) -> nn.Module:
        """From `to_bytes`. Raises WrongWeights."""
        ...

    def shapes(self, prepared: Prepared) -> list[str]:
        """Lines for the log before a training."""
        ...

    def train(self, prepared: Prepared, scaler: nn.Module, hardware: Hardware) -> Trained:
        """The model. Raises TrainingDiverged."""
        ...

    def load(self, data: bytes) -> Predictor:
        """A model from `to_bytes`. Raises WrongWeights."""
        ...

    def evaluate(self, prepared: Prepared, model: Predictor, contest: Contest) -> Evaluated:
        """It, its predecessors and the baselines on the same held-back rows; they may be of other settings."""
        ...

    def drift(self, prepared: Prepared, read: Callable[[str], bytes], sessions: int) -> dict[str, FeatureDrift]:
        """The drift of each feature of the newest sessions from what was trained on, those beyond their limit first.

        `read`: the files of the features that a model was trained on. Empty where the recipe keeps no profile of them.
        """
        ...

    def forecast(self, prepared: Prepared, model: Predictor) -> pd.DataFrame:
        """unique_id, cutoff, ds, h, volcast (shares), and intervals where the recipe has them."""
        ...

    def model_plots(
        self, prepared: Callable[[], Prepared], model: Predictor, read: Callable[[str], bytes], names: Names
    ) -> list[Plot]:
        """How good the model is, where it was trained and tested.

        `read`: the scorecard's files.
        """
        ...

    def forecast_plots(self, prices: pd.DataFrame, forecasts: pd.DataFrame, note: str) -> list[Plot]:
        """What is to come, after what was; `note` is added to each title."""
        ...

    def score_rows(self, scores: Scores) -> list[dict[str, str]]:
        """The scores, rounded for a reader, one dictionary a forecaster."""
        ...

    def forecast_rows(self, forecasts: pd.DataFrame) -> list[dict[str, str]]:
        """The coming sessions for a reader, one dictionary a session; none where that is not what it forecasts."""
        ...
