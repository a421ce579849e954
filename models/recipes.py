"""Recipes: the frozen settings that say what a model looks at, how it is built and how it is trained.

A recipe holds no data and no seed: the same recipe, prices, seed and device give the same weights.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from models.errors import UnknownRecipe

PRICE_COLUMNS = ("open", "high", "low", "close", "adj_close")

NOWCAST_NOTE = (
    "Same-session nowcast: prices of a session explain the volume of that same session; it cannot be traded on."
)

MIN_TRAIN_SESSIONS = 20  # the 20-session mean, a baseline, needs them before the first test session
COUNTS = ("train_sessions", "hidden_size", "layers", "head_size", "epochs", "log_every_epochs")


@dataclass(frozen=True, kw_only=True)
class TutorialRecipe:
    """The article's model: one ticker, an LSTM over one session at a time, volume of the same session.

    Raises UnknownRecipe for a setting that is not allowed.
    """

    name: Literal["tutorial"] = "tutorial"
    features: tuple[str, ...] = PRICE_COLUMNS  # USD a share; each brought to mean 0 and variance 1
    target: Literal["volume"] = "volume"  # shares, of the same session; brought to 0..1
    horizon: Literal[0] = 0  # sessions ahead: none, a nowcast
    window_sessions: int | None = (
        253  # the newest sessions looked at; None: all that there are; the article took a year
    )
    train_sessions: int = 200  # the first sessions of the window; the rest are the test
    fit_scalers_on: Literal["train", "all"] = "train"  # "all", the article's choice, leaks the test into the scalers
    hidden_size: int = 2  # numbers in the LSTM's hidden state
    layers: int = 1  # LSTM layers, stacked
    head_size: int = 128  # numbers between the two linear layers
    epochs: int = 1000  # full-batch steps
    learning_rate: float = 0.001  # Adam's
    log_every_epochs: int = 100

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))  # a list, when it comes from JSON
        for setting, allowed in (
            ("name", ("tutorial",)),
            ("target", ("volume",)),
            ("horizon", (0,)),
            ("fit_scalers_on", ("train", "all")),
        ):
            _require(getattr(self, setting) in allowed, self, setting, f"one of {list(allowed)}")
        known = bool(self.features) and set(self.features) <= set(PRICE_COLUMNS)
        distinct = len(set(self.features)) == len(self.features)
        _require(known and distinct, self, "features", f"one or more of {list(PRICE_COLUMNS)}, each once")
        for setting in COUNTS:
            _require(_is_count(getattr(self, setting)), self, setting, "a whole number, 1 or more")
        trainable = self.train_sessions >= MIN_TRAIN_SESSIONS
        _require(trainable, self, "train_sessions", f"{MIN_TRAIN_SESSIONS} or more")
        rate = self.learning_rate
        _require(isinstance(rate, float) and 0 < rate < 1, self, "learning_rate", "a number between 0 and 1")
        window = self.window_sessions
        enough = window is None or (_is_count(window) and window > self.train_sessions)
        _require(enough, self, "window_sessions", f"None, or more than train_sessions ({self.train_sessions})")


@dataclass(frozen=True, kw_only=True)
class VolumeRecipe:
    """Quantiles of the coming ten sessions' volume."""

    name: Literal["volume"] = "volume"
    cell: Literal["lstm", "gru", "rnn", "mlp"] = "lstm"
    use_earnings: bool = True
    hidden_size: int = 32
    head_size: int = 64
    members: int = 4
    steps: int = 300
    batch_sequences: int = 128
    burn_in_sessions: int = 20
    scored_sessions: int = 64
    score_every: int = 8
    dropout: float = 0.2
    learning_rate: float = 8e-3
    weight_decay: float = 1e-3
    gradient_clip: float = 1.0
    log_every_steps: int = 50
    stop_sessions: int = 63
    test_sessions: int = 63


RECIPES: dict[str, type[TutorialRecipe]] = {"tutorial": TutorialRecipe}


def make_recipe(name: str, **changes: Any) -> TutorialRecipe:
    """The recipe of that name, with its defaults except for `changes`; `make_recipe(**settings(r)) == r`.

    Raises UnknownRecipe for a name that is not in RECIPES, a setting that the recipe lacks, or a value not allowed.
    """
    if name not in RECIPES:
        raise UnknownRecipe(f"There is no recipe {name!r}. Known recipes: {', '.join(sorted(RECIPES))}.")
    known = [field.name for field in fields(RECIPES[name])]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise UnknownRecipe(f"Recipe {name} has no setting {', '.join(unknown)}. Its settings: {', '.join(known)}.")
    return RECIPES[name](**changes)


def settings(recipe: TutorialRecipe) -> dict[str, Any]:
    """Every setting of the recipe, its name included, as JSON types (features as a list)."""
    return asdict(recipe) | {"features": list(recipe.features)}


def digest(recipe: TutorialRecipe) -> str:
    """sha256 (64 hex digits) of the recipe's settings as JSON with sorted keys: equal recipes, equal digests."""
    return hashlib.sha256(json.dumps(settings(recipe), sort_keys=True).encode()).hexdigest()


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _require(holds: bool, recipe: TutorialRecipe, setting: str, expected: str) -> None:
    if not holds:
        came = getattr(recipe, setting)
        raise UnknownRecipe(f"Recipe {recipe.name}: {setting} must be {expected}; {came!r} came.")
