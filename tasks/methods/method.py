"""What a recipe is to the pipeline: the steps from prices to a forecast, without any store.

    prices + announcements -> prepared -> scaler -> trained -> evaluated
                                 └-------------> predictor -> forecast -> plots

The tasks read and write, and ask the method of their recipe (`method_of`) for the rest. Settings are checked with this
file loaded, so that it imports nothing heavy, and a method only when it is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

from volcast.models.calendar_names import NEW_YORK
from volcast.models.recipes import Recipe, TutorialRecipe
from volcast.models.text import silent

if TYPE_CHECKING:
    from datetime import date

    import pandas as pd
    import torch
    from pydantic import JsonValue
    from torch import nn

    from volcast.models.comparisons import Contest, Decision
    from volcast.models.drift import FeatureDrift
    from volcast.models.panel import Panel
    from volcast.models.volume_training import Checkpoint

SomeRecipe = TypeVar("SomeRecipe", bound=Recipe)
Prepared = TypeVar("Prepared")  # what a method makes of prices; only the method itself looks inside
Predictor = TypeVar("Predictor")  # a loaded model; only its method calls it
ReadFile = Callable[[str], bytes]  # a file of a stored version, by its name
Scores = dict[str, dict[str, float]]  # forecaster -> metric -> value
TableRow = dict[str, str]  # heading -> cell, rounded for a reader
Marks = Mapping[tuple[str, "pd.Timestamp"], str]  # ticker and target session -> what is special about it, in words


@dataclass(frozen=True, eq=False)
class Rows:
    """What is known at the cutoff of a snapshot."""

    read_parts: Callable[[], Iterable[pd.DataFrame]]  # as `PriceTable.read_parts` gives them
    announcements: pd.DataFrame  # as `EventTable.events` gives them
    calendar: str = NEW_YORK  # the market's

    @property
    def prices(self) -> pd.DataFrame:
        """All parts."""
        import pandas as pd

        return pd.concat(self.read_parts()).sort_values(["ticker", "session"], ignore_index=True)

    @cached_property
    def panel(self) -> Panel:
        """Both on the grid of sessions, made once, of one part of the prices at a time. Raises ModelError."""
        from volcast.models.panel import join_panels, make_panel

        panels = [make_panel(part, calendar=self.calendar) for part in self.read_parts()]
        return join_panels(panels, self.announcements)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a training runs on and reports to."""

    seed: int
    device: torch.device
    on_epoch: Callable[[int, float], None]
    checkpoint: Checkpoint
    on_resume: Callable[[int], None] = silent  # with what a training that was stopped had done


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


class Method(ABC, Generic[SomeRecipe, Prepared, Predictor]):
    """The steps of one recipe, whose models are registered under `name` or, without one, the recipe's."""

    horizon = 0  # sessions ahead, the farthest; 0 for a nowcast
    trains = True  # False: pretrained weights forecast as they are

    def __init__(self, recipe: SomeRecipe, name: str | None = None) -> None:
        self.recipe, self._name = recipe, name or recipe.name

    @abstractmethod
    def epochs(self, prepared: Prepared) -> int:
        """The epochs of a training."""

    def done(self, epoch: int) -> int:
        """How many epochs are done when `epoch` is reported; the article counts them from 0."""
        return epoch + 1

    def progress_words(self, epoch: int, epochs: int) -> str:  # noqa: ARG002 (the article does not say of how many)
        """How the log of a training counts."""
        return f"Epoch: {epoch}"

    def split_tickers(self, tickers: Sequence[str]) -> list[tuple[str, ...]]:
        """The tickers of each model."""
        return [tuple(tickers)]

    def model_name(self, tickers: Sequence[str]) -> str:  # noqa: ARG002 (whichever they are)
        """The registered name of the model of some tickers. Raises ValueError when they are not one model's."""
        return self._name

    def untrained(self, cutoff: date, *, newer_than: date) -> dict[str, JsonValue] | None:  # noqa: ARG002
        """The settings by which pretrained weights forecast from a cutoff as they are.

        None where there are none that know a session after `newer_than`.
        """
        return None

    def pretrained_through(self, prepared: Prepared) -> date | None:  # noqa: ARG002
        """The last session that the pretrained weights know which a training starts from; None for none."""
        return None

    def is_testable(self, prepared: Prepared) -> bool:  # noqa: ARG002
        """Whether there are sessions enough to hold some back as a test."""
        return True

    @abstractmethod
    def prepare(self, rows: Rows) -> Prepared:
        """What the recipe looks at, of some rows. Raises ModelError."""

    @abstractmethod
    def describe(self, prepared: Prepared) -> tuple[dict[str, bytes], dict[str, JsonValue]]:
        """The files and facts of the version of the features; among the facts are rows and train_rows."""

    @abstractmethod
    def restore(self, read: ReadFile, rows: Rows) -> Prepared:
        """What `describe` was given, from the stored files and, where that is not enough, from the prices again."""

    @abstractmethod
    def scaler(self, prepared: Prepared) -> nn.Module:
        """The scaler, fitted on the train rows."""

    @abstractmethod
    def shapes(self, prepared: Prepared) -> list[str]:
        """Lines for the log before a training."""

    @abstractmethod
    def train(self, prepared: Prepared, scaler: bytes, hardware: Hardware) -> Trained:
        """The model; `scaler` is from `to_bytes`. Raises TrainingDiverged, WrongWeights."""

    @abstractmethod
    def load(self, data: bytes) -> Predictor:
        """A model from `to_bytes`. Raises WrongWeights."""

    @abstractmethod
    def evaluate(self, prepared: Prepared, model: Predictor, contest: Contest) -> Evaluated:
        """It, its predecessors and the baselines on the same held-back rows; they may be of other settings."""

    def drift(self, prepared: Prepared, read: ReadFile, sessions: int) -> dict[str, FeatureDrift]:  # noqa: ARG002
        """The drift of each feature of the newest sessions from what was trained on, those beyond their limit first.

        `read` reads the features that a model was trained on. It is empty where the recipe keeps no profile of them.
        """
        return {}

    @abstractmethod
    def forecast(self, prepared: Prepared, model: Predictor) -> pd.DataFrame:
        """unique_id, cutoff, ds, h, volcast (shares), and intervals where the recipe has them."""

    @abstractmethod
    def model_plots(
        self, prepared: Callable[[], Prepared], model: Predictor, read: ReadFile, names: Names
    ) -> list[Plot]:
        """How good the model is, where it was trained and tested; `read` reads the scorecard's files."""

    def forecast_plots(
        self,
        prices: pd.DataFrame,  # noqa: ARG002
        forecasts: pd.DataFrame,  # noqa: ARG002
        note: str,  # noqa: ARG002
        marks: Marks,  # noqa: ARG002
    ) -> list[Plot]:
        """What is to come, after what was; `note` is added to each title. A nowcast has none."""
        return []

    @abstractmethod
    def score_rows(self, scores: Scores) -> list[TableRow]:
        """The scores, a row a forecaster."""

    def forecast_rows(self, forecasts: pd.DataFrame) -> list[TableRow]:  # noqa: ARG002
        """The coming sessions, a row a session. A nowcast has none."""
        return []


def method_of(recipe: Recipe, name: str | None = None) -> Method:
    """The method of a recipe, whose models are registered under `name` or, without one, the recipe's."""
    if isinstance(recipe, TutorialRecipe):
        from volcast.tasks.methods.tutorial import TutorialMethod

        return TutorialMethod(recipe, name)
    from volcast.tasks.methods.volume import VolumeMethod

    return VolumeMethod(recipe, name)
