"""Recipes: the frozen settings that say what a model looks at, how it is built and how it is trained.

A recipe holds no data and no seed: the same recipe, prices, seed and device give the same weights.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, overload

from volcast.models.errors import UnknownRecipe
from volcast.models.plugins import added_names
from volcast.models.text import brief, listed, meant

PRICE_COLUMNS = ("open", "high", "low", "close", "adj_close")

NOWCAST_NOTE = (
    "Same-session nowcast: prices of a session explain the volume of that same session; it cannot be traded on."
)

MIN_TRAIN_SESSIONS = 20  # the 20-session mean, a baseline, needs them before the first test session
SMALL_TEST_SESSIONS = 252  # a year: a shorter test does not hold each season, quarter end and earnings date once
MIN_TEST_SESSIONS = 20  # twice the longest horizon, the least that a test against chance takes
Refit = Literal["never", "yearly", "quarterly"]  # when a backtest fits its forecasters again
MARGIN = 0.01  # of the champion's error, by which a challenger may be worse
CELLS = ("lstm", "gru", "rnn", "mlp")  # volcast's own
LIMITS = {
    "hidden_size": 1024,
    "head_size": 1024,
    "layers": 16,
    "members": 64,
    "steps": 1_000_000,
    "tuning_steps": 1_000_000,
    "epochs": 1_000_000,
    "validate_every_steps": 1_000_000,
    "log_every_epochs": 1_000_000,
    "batch_sequences": 4096,
    "burn_in_sessions": 252,
    "scored_sessions": 1260,
    "score_every": 252,
    "train_sessions": 25_200,
    "stop_sessions": 1260,
    "test_sessions": 1260,
}  # the largest value of each count, far beyond what helps: a mistyped one must not fill the memory, or train for ever
MAX_CLIP = 1e6
MAX_RARE = 100.0
MAX_WINDOW_SESSIONS = 25_200  # a century
Market = Literal["mean of all", "others"]
Start = Literal["pretrained", "scratch"]
Adaptation = Literal["one rate", "rhythm and two rates"]
OLD_SETTINGS = {
    "adaptation": "one rate",
    "market": "mean of all",
    "start": "scratch",
    "tuning_steps": 100,
    "tuning_rate": 2e-3,
    "linear_share": 0.0,
    "rare_dates": 1.0,
}  # what a recipe of release 0.1.0 means, which does not have them
OLD_NAMES = {"log_every_steps": "validate_every_steps"}  # of release 0.1.0, in which digests were made with it


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
        if isinstance(self.features, list):  # as it comes from JSON
            object.__setattr__(self, "features", tuple(self.features))
        for setting, allowed in (
            ("name", ("tutorial",)),
            ("target", ("volume",)),
            ("horizon", (0,)),
            ("fit_scalers_on", ("train", "all")),
        ):
            _require(getattr(self, setting) in allowed, self, setting, f"one of {list(allowed)}")
        chosen = self.features if isinstance(self.features, tuple) else ()
        known = bool(chosen) and all(name in PRICE_COLUMNS for name in chosen)
        distinct = known and len(set(chosen)) == len(chosen)
        _require(distinct, self, "features", f"one or more of {list(PRICE_COLUMNS)}, each once")
        _require_counts(self)
        trainable = self.train_sessions >= MIN_TRAIN_SESSIONS
        _require(trainable, self, "train_sessions", f"{MIN_TRAIN_SESSIONS} or more")
        _require_rate(self, "learning_rate")
        window = self.window_sessions
        enough = window is None or (_is_count(window, MAX_WINDOW_SESSIONS) and window > self.train_sessions)
        expected = f"None, or more than train_sessions ({self.train_sessions}) and up to {MAX_WINDOW_SESSIONS:,}"
        _require(enough, self, "window_sessions", expected)


@dataclass(frozen=True, kw_only=True)
class VolumeRecipe:
    """A forecast of the next 10 sessions, as quantiles, of every ticker by one model.

    Raises UnknownRecipe for a setting that is not allowed.
    """

    name: Literal["volume"] = "volume"
    cell: str = "lstm"  # what carries the past, of CELLS or of what packages add; mlp sees only the cutoff
    use_earnings: bool = True  # announced earnings are features; zeros where none are known
    hidden_size: int = 32  # numbers in the cell's state
    head_size: int = 64  # numbers between state and quantiles
    members: int = 4  # networks from seeds of their own, averaged
    start: Start = "pretrained"  # weights that come with volcast are tuned, where they know nothing of the test
    steps: int = 300  # of the optimiser, for each member
    batch_sequences: int = 128  # stretches of a ticker's history in a step
    burn_in_sessions: int = 20  # at the start of a sequence, not scored: the state fills
    scored_sessions: int = 64  # the rest of a sequence
    score_every: int = 8  # sessions: neighbours share most of their targets
    dropout: float = 0.2
    learning_rate: float = 8e-3  # the highest of the schedule
    tuning_steps: int = 100  # in place of steps, where pretrained weights are tuned; 0 takes them as they are
    tuning_rate: float = 2e-3  # in place of learning_rate there
    weight_decay: float = 1e-3
    gradient_clip: float = 1.0  # norm
    validate_every_steps: int = 50  # each time by other random numbers than before: it changes the weights
    linear_share: float = 0.5  # of the linear member in a forecast, at most (models/volume_linear.py); 0: it has none
    rare_dates: float = 5.0  # what the columns of rare dates are for the networks, instead of 1: they learn them sooner
    market: Market = "others"  # what a ticker's own volume is seen against (models/past_features.py)
    adaptation: Adaptation = "rhythm and two rates"  # to the sessions after the training (models/adaptation.py)
    stop_sessions: int = 63  # the last ones of the train span: early stopping, first calibration
    test_sessions: int = 63  # the newest ones, held back: each is forecast from the sessions before it

    def __post_init__(self) -> None:
        _require(self.name == "volume", self, "name", "volume")
        if self.cell not in CELLS:
            known = f"one of {known_cells()} (another one needs the package installed that adds it)"
            _require(self.cell in known_cells(), self, "cell", known)
        _require(self.start in get_args(Start), self, "start", f"one of {list(get_args(Start))}")
        _require(self.market in get_args(Market), self, "market", f"one of {list(get_args(Market))}")
        _require(self.adaptation in get_args(Adaptation), self, "adaptation", f"one of {list(get_args(Adaptation))}")
        _require(isinstance(self.use_earnings, bool), self, "use_earnings", "true or false")
        _require_counts(self, may_be_0=("tuning_steps",))
        _require_rate(self, "learning_rate")
        _require_rate(self, "tuning_rate")
        for setting in ("dropout", "weight_decay", "gradient_clip", "linear_share", "rare_dates"):
            if type(getattr(self, setting)) is int:  # 0 is as good as 0.0
                object.__setattr__(self, setting, float(getattr(self, setting)))
        for setting in ("dropout", "weight_decay", "linear_share"):
            value = getattr(self, setting)
            _require(isinstance(value, float) and 0 <= value < 1, self, setting, "a number from 0 up to 1")
        rare = self.rare_dates
        _require(isinstance(rare, float) and 1 <= rare <= MAX_RARE, self, "rare_dates", f"from 1 to {MAX_RARE:g}")
        clip = self.gradient_clip
        _require(isinstance(clip, float) and 0 < clip <= MAX_CLIP, self, "gradient_clip", f"above 0, up to {MAX_CLIP}")
        _require(self.test_sessions >= MIN_TEST_SESSIONS, self, "test_sessions", f"{MIN_TEST_SESSIONS} or more")

    @property
    def trains(self) -> bool:
        """Whether pretrained weights, where there are any, are tuned; else they forecast as they are."""
        return self.start == "scratch" or self.tuning_steps > 0


Recipe = TutorialRecipe | VolumeRecipe

DEFAULT_RECIPE = "volume"
RECIPES: dict[str, type[TutorialRecipe] | type[VolumeRecipe]] = {"tutorial": TutorialRecipe, "volume": VolumeRecipe}


def known_cells() -> list[str]:
    """Volcast's own, and those that installed packages add."""
    return [*CELLS, *added_names("volcast.cells")]


def setting_names(name: str) -> list[str]:
    """The settings of the recipe of that name. Raises UnknownRecipe."""
    if name not in RECIPES:
        raise UnknownRecipe(
            f"There is no recipe {brief(name)}. Known recipes: {', '.join(sorted(RECIPES))}.{meant([name], RECIPES)}"
        )
    return [field.name for field in fields(RECIPES[name])]


@overload
def make_recipe(name: Literal["tutorial"], **changes: Any) -> TutorialRecipe: ...
@overload
def make_recipe(name: Literal["volume"], **changes: Any) -> VolumeRecipe: ...
@overload
def make_recipe(name: str, **changes: Any) -> Recipe: ...
def make_recipe(name: str, **changes: Any) -> Recipe:
    """The recipe of that name, with its defaults except for `changes`; `make_recipe(**settings(r)) == r`.

    A setting's name of an earlier release does as well. Raises UnknownRecipe for a name that is not in RECIPES, a
    setting that the recipe lacks, or a value not allowed.
    """
    known = setting_names(name)
    changes = {OLD_NAMES.get(given, given): value for given, value in changes.items()}
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise UnknownRecipe(
            f"Recipe {name} has no setting {listed([each[:60] for each in unknown])}. Its settings: {', '.join(known)}."
            f"{meant([each[:60] for each in unknown], known)}"
        )
    return RECIPES[name](**changes)


def stored_recipe(stored: dict[str, Any]) -> Recipe:
    """The recipe that a release stored as `settings`, and what it meant by those that it did not have yet.

    Raises UnknownRecipe.
    """
    if not isinstance(stored, dict) or not isinstance(stored.get("name"), str):
        raise UnknownRecipe(f"Expected the settings of a recipe with its name; {brief(stored)} came.")
    known = setting_names(stored["name"])
    return make_recipe(**{name: value for name, value in OLD_SETTINGS.items() if name in known} | stored)


def settings(recipe: Recipe) -> dict[str, Any]:
    """Every setting of the recipe, its name included, as JSON types (features as a list)."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(recipe).items()}


def digest(recipe: Recipe) -> str:
    """sha256 (64 hex digits) of the recipe's settings as JSON with sorted keys: equal recipes, equal digests.

    A setting that was renamed is in it by its first name, and one that came later only where it is not OLD_SETTINGS',
    so that a recipe's digest lasts.
    """
    first_names = {new: old for old, new in OLD_NAMES.items()}
    own = {name: value for name, value in settings(recipe).items() if OLD_SETTINGS.get(name) != value}
    named = {first_names.get(name, name): value for name, value in own.items()}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def _is_count(value: object, limit: int, *, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= limit


def _require_counts(recipe: Recipe, *, may_be_0: tuple[str, ...] = ()) -> None:
    for setting, limit in LIMITS.items():
        if hasattr(recipe, setting):
            least = 0 if setting in may_be_0 else 1
            is_count = _is_count(getattr(recipe, setting), limit, least=least)
            _require(is_count, recipe, setting, f"a whole number from {least} to {limit:,}")


def _require_rate(recipe: Recipe, setting: str) -> None:
    rate = getattr(recipe, setting)
    _require(isinstance(rate, float) and 0 < rate < 1, recipe, setting, "a number between 0 and 1")


def _require(holds: bool, recipe: Recipe, setting: str, expected: str) -> None:
    if not holds:
        came = getattr(recipe, setting)
        raise UnknownRecipe(f"Recipe {recipe.name}: {setting} must be {expected}; {brief(came)} came.")
