"""Forecasts from frames of prices, by the code that the pipeline's tasks call; nothing is stored.

What a frame of prices is, volcast/prices.py says; what comes back is pandas. Errors are ValueErrors that say what to
do: PricesRefused, SourceError (what cannot be read), ModelError.
"""

import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from safetensors import safe_open

from volcast.models.backtest import TestSpan
from volcast.models.backtest import backtest as rolling_origin
from volcast.models.calendar_names import NEW_YORK
from volcast.models.comparisons import Contest
from volcast.models.errors import FutureModel, ImpossibleTest, NotEnoughSessions, TrainingDiverged, WrongWeights
from volcast.models.forecast_columns import has_reasons, parts_of, row_of
from volcast.models.forecasters import FALLBACK, MODEL
from volcast.models.participation import order_progress
from volcast.models.plausibility import bounds_now, hold_back
from volcast.models.pretrained import vintage_for
from volcast.models.recipes import MIN_TEST_SESSIONS, Refit, VolumeRecipe, make_recipe, settings, stored_recipe
from volcast.models.scores import GATE_METRIC
from volcast.models.sums import sums_of
from volcast.models.text import counted, listed, silent
from volcast.models.volume_evaluation import (
    VolumePredictor,
    evaluate_volume,
    fallback_frame,
    forecasters,
    stand_ins,
    volume_frame,
)
from volcast.models.volume_inputs import VolumeData, volume_data
from volcast.models.volume_model import VolumeModel, volume_from_bytes
from volcast.models.volume_training import fit_volume, training_run
from volcast.models.weights import choose_device, to_bytes
from volcast.prices import Events, Frame, Given, given, keyed, to_pandas
from volcast.storage.records import HeldBack

if TYPE_CHECKING:
    import optuna  # pyright: ignore[reportMissingImports]  # where the extra `search` is not installed

UNTRAINED = VolumeRecipe(tuning_steps=0)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained volume model; it forecasts any ticker. `forecast(prices, model=…)` asks it."""

    predictor: VolumePredictor = field(repr=False)
    tickers: tuple[str, ...] = field(repr=False)  # that it was trained on
    trained_through: date
    scores: pd.DataFrame | None = field(default=None, repr=False)  # of its test: a row a method, a column a measure
    words: tuple[str, ...] = ()  # of its test: how it did, what was used, what was left out

    def save(self, path: str | Path) -> None:
        """Weights, recipe and what they were made of, as a safetensors file, without the scores."""
        model = self.predictor.model
        assert isinstance(model, VolumeModel)
        facts = {
            "recipe": settings(self.predictor.recipe),
            "tickers": self.tickers,
            "trained_through": str(self.trained_through),
        }
        Path(path).write_bytes(to_bytes(model, {"volcast": json.dumps(facts)}))


def load_model(path: str | Path) -> Model:
    """A model that `Model.save` wrote. Raises WrongWeights, FileNotFoundError."""
    with safe_open(path, "pt") as file:
        told = (file.metadata() or {}).get("volcast")
    if told is None:
        raise WrongWeights(f"{path}: no model of volcast. Expected a file that Model.save wrote.")
    facts = json.loads(told)
    recipe = stored_recipe(facts["recipe"])
    assert isinstance(recipe, VolumeRecipe)
    return Model(
        predictor=VolumePredictor(model=volume_from_bytes(Path(path).read_bytes(), recipe), recipe=recipe),
        tickers=tuple(facts["tickers"]),
        trained_through=date.fromisoformat(facts["trained_through"]),
    )


def forecast(
    prices: Frame,
    *,
    events: Events = None,
    calendar: str = NEW_YORK,
    model: Model | Literal["pretrained", "har"] = "pretrained",
) -> pd.DataFrame:
    """The volume of the next ten sessions of each ticker, from its newest session on, as quantiles, and why.

    `model`: "pretrained" asks the weights that come with volcast, without any training; "har" a linear model that needs
    none; else what `fit` or `load_model` gave. `events`: a file of announced earnings or other dated events, or its
    columns as a frame: Ticker, Earnings_Date[, When, First_Seen], or Date, Event[, Ticker][, First_Seen].

    Returns unique_id, cutoff, ds, h (1 to 10), and as float64 shares volcast (the median), volcast-mean,
    volcast-lo-80, volcast-hi-80, volcast-lo-95, volcast-hi-95, volcast-q-0.025 … volcast-q-0.975; of a network
    normal, reason-… (factors that multiply to the median over the normal) and why, a sentence. A row that cannot be
    believed is another method's, as a warning and the column `by` then say. Raises PricesRefused, NotEnoughSessions,
    FutureModel.
    """
    rows = given(prices, events, calendar)
    panel = rows.panel
    author, found = (FALLBACK, fallback_frame(panel)) if model == "har" else (MODEL, _by_network(rows, model))
    others = {name: partial(make, panel) for name, make in stand_ins().items() if name != author}
    found, held = hold_back(found, author, bounds_now(panel), others)
    for each in held:
        warnings.warn(f"held back: {HeldBack(**asdict(each)).words}", stacklevel=2)
    if left_out := sorted(set(panel.tickers) - set(found["unique_id"])):
        words = f"Not forecast, no row of {panel.cutoff} or too short a history: {listed(left_out)}."
        if found.empty:
            raise NotEnoughSessions(words)
        warnings.warn(words, stacklevel=2)
    found.attrs["calendar"] = calendar
    return found


def fit(
    prices: Frame,
    *,
    events: Events = None,
    calendar: str = NEW_YORK,
    test: bool = True,
    seed: int = 0,
    device: str = "auto",
    on_step: Callable[[int, float], None] = silent,
    **recipe: Any,
) -> Model:
    """A model of these tickers: the pretrained weights tuned, as far as they know nothing of its test.

    `test`: whether the newest test_sessions (63) are held back, and the scores are of them; else they are trained on as
    well. `recipe`: settings of the recipe `volume` (`volcast.models.recipes.VolumeRecipe`), such as steps, members,
    start="scratch". `on_step` hears the steps done and the loss. The same arguments give the same weights. Raises
    PricesRefused, UnknownRecipe, NotEnoughSessions, TrainingDiverged.
    """
    chosen = make_recipe("volume", **recipe)
    data = volume_data(*given(prices, events, calendar), chosen)
    if not test:
        data = replace(data, through=int(data.newest[0]))
    predictor = _trained(data, seed=seed, device=device, on_step=on_step)
    found = evaluate_volume(data, predictor, Contest()) if test and data.is_testable else None
    return Model(
        predictor=predictor,
        tickers=data.inputs.panel.tickers,
        trained_through=data.inputs.panel.sessions.date[data.through],
        scores=pd.DataFrame(found.scores).T if found else None,
        words=(found.decision.reason, *found.words) if found else (),
    )


def backtest(
    prices: Frame,
    *,
    events: Events = None,
    calendar: str = NEW_YORK,
    test_sessions: int = 252,
    step: int = 1,
    refit: Refit = "never",
    seed: int = 0,
    **recipe: Any,
) -> pd.DataFrame:
    """Every forecast of the newest sessions, each from what was known before it, beside those of har and naive methods.

    `step`: sessions from a cutoff to the next, no multiple of 5. `recipe`: as for `fit`; tuning_steps=0 takes the
    pretrained weights as they are.

    Returns unique_id, cutoff, ds, h, y and for each method X: X (the point), X-lo-80, X-hi-80, X-lo-95, X-hi-95; as
    utilsforecast's `evaluate` takes it. Raises PricesRefused, ImpossibleTest, NotEnoughSessions.
    """
    panel = given(prices, events, calendar).panel
    if not MIN_TEST_SESSIONS <= test_sessions < panel.known:
        known = counted(panel.known, "session")
        words = f"test_sessions must be {MIN_TEST_SESSIONS} or more, and fewer than the {known} that there are"
        raise ImpossibleTest(f"{words}; {test_sessions} came.")
    dates = panel.sessions.date
    first = panel.known - test_sessions
    span = TestSpan(
        train_through=dates[first - 1], test_start=dates[first], test_end=panel.cutoff, refit=refit, step=step
    )
    chosen = make_recipe("volume", **recipe)
    return rolling_origin(panel, forecasters(seed=seed, device=choose_device("auto"), recipe=chosen), span)


def search(
    prices: Frame,
    *,
    events: Events = None,
    calendar: str = NEW_YORK,
    trials: int = 20,
    suggest: Callable[["optuna.Trial"], dict[str, Any]] | None = None,
    seed: int = 0,
    device: str = "auto",
    **recipe: Any,
) -> "optuna.Study":
    """Which settings of the recipe err least, as a study of Optuna; no trial sees the sessions of the last test.

    The newest test_sessions (63) are left out. A trial is worth the MASE of 1 to 5 sessions ahead on those before them,
    of `fit` with `recipe` and what `suggest` gives, by default tuning_steps, tuning_rate, dropout and linear_share. The
    first trial is of `recipe` as it is, and one whose training diverges has failed. So `fit(prices,
    **study.best_params)` tests the best on sessions that did not choose it. The same arguments give the same study.
    Raises what `fit` raises, and ModuleNotFoundError without the extra `search`.
    """
    optuna, chosen, frame = library("optuna", "search"), make_recipe("volume", **recipe), to_pandas(prices)
    session_R = keyed(frame)["ds"].to_numpy()
    before = frame.loc[session_R < np.unique(session_R)[-chosen.test_sessions :][0]]

    def error_of(trial: "optuna.Trial") -> float:
        tried = recipe | (suggest or _usual_settings)(trial)
        scores = fit(before, events=events, calendar=calendar, seed=seed, device=device, **tried).scores
        if scores is None:
            raise NotEnoughSessions("Too few sessions come before the two tests to score a trial. Bring in more.")
        return float(scores.loc[MODEL, GATE_METRIC])

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(settings(chosen))
    study.optimize(error_of, n_trials=trials, catch=TrainingDiverged)
    return study


def _usual_settings(trial: "optuna.Trial") -> dict[str, Any]:
    return {
        "tuning_steps": trial.suggest_int("tuning_steps", 0, 300, step=50),
        "tuning_rate": trial.suggest_float("tuning_rate", 2e-4, 1e-2, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "linear_share": trial.suggest_float("linear_share", 0.0, 0.9),
    }


def library(name: str, extra: str) -> ModuleType:
    """A module that an extra of volcast installs. Raises ModuleNotFoundError, which says how to get it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}. It comes with an extra: pip install 'volcast[{extra}]'") from error


def explain(forecast: pd.DataFrame, ticker: str, session: date | str | None = None) -> pd.DataFrame:
    """Why one session of a ticker, by default the next, is forecast as it is: part and factor, the strongest first.

    The factors multiply to the median over the ticker's normal, the geometric mean of its last 20 sessions. Raises
    ValueError where the forecast has no such row, or no reasons: only a network's has them.
    """
    row = row_of(forecast.loc[forecast["unique_id"] == ticker], session)
    if row is None:
        asked = ticker if session is None else f"{ticker} on {session}"
        raise ValueError(f"The forecast has no {asked}. It is of {listed(sorted(set(forecast['unique_id'])))}.")
    if not has_reasons(row):
        raise ValueError(f"The forecast of {ticker} gives no reasons: only a network's has them.")
    parts = parts_of(row, forecast.attrs.get("calendar", NEW_YORK))
    return pd.DataFrame({"part": list(parts), "factor": list(parts.values())})


def sums(forecast: pd.DataFrame) -> pd.DataFrame:
    """The volume of the next 2, 5 and 10 sessions together, as quantiles, by ticker: daily quantiles do not add up."""
    return sums_of(forecast)


def participation(forecast: pd.DataFrame, shares: Mapping[str, float], rate: float = 0.1) -> pd.DataFrame:
    """How far orders of so many shares get at a share `rate` of the volume.

    Returns unique_id, cutoff, ds, sessions (1 to 10), and float64 chance (that all of it is done by then), shares_80
    and shares_95 (done by then with that certainty, of any order). Raises ValueError.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0, up to 1; {rate} came.")
    if wrong := [ticker for ticker, count in shares.items() if not 0 < count < math.inf]:
        raise ValueError(f"{listed(wrong)}: expected a number of shares above 0.")
    if lacking := sorted(set(shares) - set(forecast["unique_id"])):
        raise ValueError(f"The forecast has no {listed(lacking)}.")
    return order_progress(forecast, dict(shares), rate)


def _by_network(rows: Given, model: Model | str) -> pd.DataFrame:
    cutoff = rows.panel.cutoff
    if isinstance(model, Model):
        if model.trained_through > cutoff:
            raise FutureModel(
                f"The model was trained on sessions up to {model.trained_through}, after the cutoff {cutoff}: its "
                "forecast would know the future. Fit one on prices up to then."
            )
        predictor = model.predictor
        # what is needed to forecast, and not what it takes to train
        data = volume_data(*rows, replace(predictor.recipe, start="pretrained", tuning_steps=0))
    elif model == "pretrained":
        predictor, data = _untrained(rows)
    else:
        raise ValueError(f'model must be "pretrained", "har", or what fit or load_model gave; {model!r} came.')
    return volume_frame(data, predictor)


def _untrained(rows: Given) -> tuple[VolumePredictor, VolumeData]:
    """The pretrained weights, as `volcast forecast` has them before the first training."""
    data = volume_data(*rows, UNTRAINED)
    through = rows.panel.sessions.date[data.through]
    if vintage_for(UNTRAINED, through=through) is None:
        raise FutureModel(
            f"The pretrained weights have seen later sessions than {through}, and so would know the future. "
            'Train without them, volcast.fit(prices, start="scratch"), or let har forecast: model="har".'
        )
    return _trained(data), data


def _trained(
    data: VolumeData, *, seed: int = 0, device: str = "cpu", on_step: Callable[[int, float], None] = silent
) -> VolumePredictor:
    run = training_run(data.inputs, data.recipe, through=data.through, seed=seed, device=choose_device(device))
    return VolumePredictor(model=fit_volume(data.inputs, data.recipe, run, on_epoch=on_step).model, recipe=data.recipe)
