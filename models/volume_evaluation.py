"""Who forecasts volume, what is published of it, and how good a trained model is on the sessions that were held back.

The list of forecasters begins with the network; har comes next: the baseline to beat, and what is published where no
model can answer. An evaluation is a rolling origin: each test session is forecast from each of the 10 before it, by
models that were fitted before the test. A predecessor and the challenger are compared on the same rows: on the tickers
that the predecessor serves, with features of these alone, from closes that it has not seen.

N tickers, C cutoffs, H horizons.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
import torch

from volcast.models.backtest import backtest, frame_of, train_scales, values_of
from volcast.models.comparisons import (
    BEST,
    CHAMPION,
    CUMULATED,
    MASE,
    Comparison,
    Contest,
    Decision,
    Duel,
    decide,
    duels,
    verdict,
)
from volcast.models.errors import TrainingDiverged, UnusablePlugin
from volcast.models.forecast_columns import KEYS, mean_column, quantile_columns
from volcast.models.forecasters import FALLBACK, MODEL, Forecaster, Forecasts, naive_forecasters
from volcast.models.har import Har
from volcast.models.panel import HORIZONS, Panel, is_earnings
from volcast.models.plausibility import CONTEXT, FACTOR, implausible_share
from volcast.models.plugins import added_names, load_added
from volcast.models.reasons import reasons_of, with_reasons
from volcast.models.recipes import MIN_TEST_SESSIONS, SMALL_TEST_SESSIONS, VolumeRecipe
from volcast.models.scores import BANDS, FIRST_TICKER, GATE_BAND, GATE_METRIC, MOST, Scores, calibration, scales, score
from volcast.models.sums import sum_words
from volcast.models.text import brief, counted, listed, silent
from volcast.models.volume_inputs import Inputs, VolumeData
from volcast.models.volume_model import VolumeModel
from volcast.models.volume_training import NetworkForecaster

GATE_BANDS = {GATE_BAND: BANDS[GATE_BAND]}
COLUMN = re.compile("[a-z][a-z0-9_]*")  # a forecaster's name, of which those of its columns are made
MOST_IMPLAUSIBLE = 0.001  # of a challenger's forecasts in its test: har stands in for each when it is published
METRICS = {"mase_1": ("1", "mase"), "mase_1_5": ("1-5", "mase"), "mase_1_10": ("1-10", "mase")} | {
    name: ("1-10", name) for name in ("pinball", "coverage_80", "coverage_95", "over_share")
}  # of a scorecard -> band and loss


# --- forecasters -----------------------------------------------------------------------------------------------------


def forecasters(
    *,
    seed: int,
    device: torch.device,
    recipe: VolumeRecipe | None = None,
    on_epoch: Callable[[int, float], None] = silent,
) -> tuple[Forecaster, ...]:
    """The forecasters of a test, unfitted; all arguments are for the one that trains networks."""
    network = NetworkForecaster(recipe or VolumeRecipe(), seed=seed, device=device, on_epoch=on_epoch)
    return (network, *baselines())


def baselines() -> tuple[Forecaster, ...]:
    """The forecasters that train no network, the one to beat first, those of other packages last.

    Raises UnusablePlugin.
    """
    own, names = (Har(), *naive_forecasters()), added_names("volcast.baselines")
    taken = [MODEL, CHAMPION, BEST, *(each.name for each in own)]
    return (*own, *(_added_baseline(name, taken) for name in names))


def _added_baseline(name: str, taken: Sequence[str]) -> Forecaster:
    """What an installed package adds, unfitted. Raises UnusablePlugin."""
    make = load_added("volcast.baselines", name)
    made: Any = make() if callable(make) else make
    if name in taken or not COLUMN.fullmatch(name) or getattr(made, "name", None) != name:
        raise UnusablePlugin(
            f"{name} of volcast.baselines must make a forecaster of that name, of lower-case letters, digits and _, "
            f"that is none of {', '.join(taken)}; {brief(made)} came. Mend or uninstall its package."
        )
    return made


class VolumeAnswers(Protocol):
    """A trained volume model."""

    def forecast(self, inputs: Inputs, cutoffs: np.ndarray) -> Forecasts:
        """Forecasts at `cutoffs` (C,), places in the panel's sessions."""
        ...


@dataclass(frozen=True, kw_only=True)
class VolumePredictor:
    """A trained model with the recipe that it was made by."""

    model: VolumeAnswers
    recipe: VolumeRecipe

    def forecasts(self, data: VolumeData, cutoffs: np.ndarray) -> Forecasts:
        """Its forecasts at `cutoffs` (C,)."""
        return self.model.forecast(data.inputs_of(self.recipe), cutoffs)

    def reasons(self, data: VolumeData, newest: Forecasts) -> dict[str, np.ndarray]:
        """As `reasons_of`, of its forecasts at the newest cutoff; none of a model that is no network."""
        if not isinstance(self.model, VolumeModel):
            return {}
        return reasons_of(self.model, data.inputs_of(self.recipe), newest)


# --- published forecasts ---------------------------------------------------------------------------------------------


def forecast_frame(
    panel: Panel,
    forecasts: Forecasts,
    *,
    owed_N: np.ndarray | None = None,
    more: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """The forecasts of the newest cutoff, the only one in `forecasts`, of every ticker that has one.

    A ticker has all horizons or none: where some are not finite, or all are of one that `owed_N` says must have them,
    its rows hold what came, for whoever publishes them to name (models/plausibility.py).

    Returns unique_id (str), cutoff, ds (datetime64[s]), h (int64, 1 to HORIZONS), and as float64 shares: volcast (the
    point), volcast-mean, volcast-lo-80, volcast-hi-80, volcast-lo-95, volcast-hi-95, and volcast-q-0.025 …
    volcast-q-0.975, one of each of forecasters.LEVELS; then `more`, columns of (N, 1, H). By unique_id and h. The
    columns are called so whoever made them.
    """
    quantiles = {column: forecasts.quantiles_NCHQ[..., place] for place, column in enumerate(quantile_columns(MODEL))}
    leading = {MODEL: forecasts.point_NCH, mean_column(MODEL): forecasts.mean_NCH}
    is_finite_NCH = np.isfinite(forecasts.quantiles_NCHQ).all(axis=3) & np.isfinite(forecasts.point_NCH)
    has_one_N = np.any(is_finite_NCH, axis=(1, 2)) | (False if owed_N is None else owed_N)
    is_there_NCH = np.broadcast_to(np.asarray(has_one_N)[:, None, None], is_finite_NCH.shape)
    columns = leading | values_of(MODEL, forecasts) | quantiles | dict(more or {})
    return frame_of(panel, forecasts.cutoffs, is_there_NCH, columns)


def fallback_frame(panel: Panel) -> pd.DataFrame:
    """`forecast_frame` of har, fitted on all that is known at the newest cutoff."""
    newest = panel.known - 1
    return forecast_frame(panel, Har().fit(panel, through=newest).forecast(panel, np.array([newest])))


def naive_frame(panel: Panel, name: str = "naive") -> pd.DataFrame:
    """`forecast_frame` of the last volume, or of another of the naive forecasters."""
    (naive,) = (each for each in naive_forecasters() if each.name == name)
    return forecast_frame(panel, naive.forecast(panel, np.array([panel.known - 1])))


def stand_ins() -> dict[str, Callable[[Panel], pd.DataFrame]]:
    """Who is published where a row of a forecast cannot be believed, the first one that can be."""
    return {FALLBACK: fallback_frame, "seasonal_naive": partial(naive_frame, name="seasonal_naive")}


def scales_now(panel: Panel) -> pd.Series:
    """Ticker -> the unit of its errors, as `volcast.models.scores.scales` has it, from all that is known."""
    return pd.Series(scales(panel, known=panel.known)["absolute"])


def volume_frame(data: VolumeData, model: VolumePredictor) -> pd.DataFrame:
    """The forecasts of the coming sessions at the newest cutoff, as `forecast_frame` has them, and why.

    A network's have the columns of `volcast.models.reasons.reasons_of`, and WHY, a sentence.
    """
    (newest,), panel = data.newest, data.inputs.panel
    found, owed_N = model.forecasts(data, data.newest), data.inputs.usable_NT[:, newest]
    reasons = model.reasons(data, found)
    frame = forecast_frame(panel, found, owed_N=owed_N, more=reasons)
    return with_reasons(frame, panel.calendar) if reasons else frame


# --- evaluation ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeEvaluation:
    """Scores on the test sessions, means over the tickers."""

    scores: dict[str, dict[str, float]]  # forecaster -> METRICS
    words: tuple[str, ...]
    decision: Decision
    calibration: pd.DataFrame  # as `volcast.models.scores.calibration` gives it


@dataclass(kw_only=True)
class _Trained:
    """A predictor as a forecaster that has been fitted already."""

    name: str
    predictor: VolumePredictor
    data: VolumeData
    implausible: float = 0.0  # the share of the forecasts that it gave last which cannot be believed

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Itself; it was trained up to there, or, a champion, up to an earlier session."""
        assert panel is self.data.inputs.panel
        assert through == self.data.through
        return self

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """As the protocol of forecasters has it. Raises TrainingDiverged where no number is finite."""
        assert panel is self.data.inputs.panel
        usable_NT, found = self.data.inputs.usable_NT, self.predictor.forecasts(self.data, cutoffs)
        if usable_NT[:, cutoffs].any() and not np.isfinite(found.quantiles_NCHQ).any():
            raise TrainingDiverged(
                f"{self.name} has no finite forecast in the test: its training diverged. Lower the learning rate "
                f"({self.predictor.recipe.learning_rate}), and look for extreme values in the train rows."
            )
        self.implausible = implausible_share(found, panel, usable_NT)
        return found


@dataclass(frozen=True, kw_only=True)
class _Beside:
    """A predecessor and the challenger on the same rows."""

    name: str
    rows: int
    tickers: int
    cutoffs: int
    losses: dict[str, dict[str, float]]  # of both, as METRICS
    duel: Duel
    trains: bool  # or is of pretrained weights as they are

    @property
    def words(self) -> str:
        """What the two numbers are of."""
        own, other = self.losses[MODEL][GATE_METRIC], self.losses[self.name][GATE_METRIC]
        name = self.name if self.trains else f"{self.name}, pretrained weights as they are"
        return (
            f"Beside the {name}, on its {counted(self.tickers, 'ticker')}, "
            f"from {counted(self.cutoffs, 'close')} that it was not trained on: MASE {own:.3f} against {other:.3f}."
        )


def evaluate_volume(data: VolumeData, model: VolumePredictor, contest: Contest) -> VolumeEvaluation:
    """The evaluation of a model, trained up to `data.through`. Raises NotEnoughSessions where no ticker has a score."""
    panel = data.inputs.panel
    trained = _Trained(name=MODEL, predictor=model, data=data)
    frame, scale = backtest(panel, [trained, *baselines()], data.span), train_scales(panel, data.span)
    found = score(frame, scale)
    besides = [each for name in contest.predecessors if (each := _beside(data, frame, scale, name, contest))]
    losses = _losses(found)
    scores = {MODEL: losses[MODEL]} | {each.name: each.losses[each.name] for each in besides} | losses
    fights = duels(frame, scale, found, model=MODEL, bands=GATE_BANDS)
    bars = [
        contest.bar,
        "" if besides else _unfair(contest),
        _unbelieved(trained),
        _poor_quantiles(fights, contest),
    ]
    decision = decide(
        scores[MODEL][GATE_METRIC],
        replace(contest, bar=next(filter(None, bars), "")),
        [_comparison(each, model, contest) for each in besides],
        gate=(FALLBACK, scores[FALLBACK][GATE_METRIC]),
        measure=MASE,
    )
    words = (
        _rows_tested(frame),
        verdict([*(each.duel for each in besides), *fights]),
        *(each.words for each in besides if each.rows < len(frame) or not each.trains),
        *filter(None, [sum_words(frame, scale, MODEL)]),
        *_first_ticker(found.by_ticker),
        _earnings(data, model.recipe),
        *_dated(data),
        *_outgrown(found.by_ticker),
        *_left_out(data, frame),
        *_small(data),
    )
    return VolumeEvaluation(scores=scores, words=words, decision=decision, calibration=calibration(frame, MODEL))


def _earnings(data: VolumeData, recipe: VolumeRecipe) -> str:
    """Whether announced earnings were used, whose, and what was assumed of them."""
    if not recipe.use_earnings:
        return "Announced earnings were not used: use_earnings is false."
    known, _ = _by_kind(data)
    if known.empty:
        return "No announced earnings were known: their features are zeros."
    sources = ", ".join(sorted(set(known["source"])))
    return f"Announced earnings took part: {counted(len(known), 'date')} of {sources}.{_assumed(known)}"


def _dated(data: VolumeData) -> list[str]:
    """Which other kinds of dated events took part."""
    _, dated = _by_kind(data)
    if dated.empty:
        return []
    kinds = listed([f"{count:,} of {kind}" for kind, count in dated["kind"].value_counts().sort_index().items()])
    sources = ", ".join(sorted(set(dated["source"])))
    return [f"Dated events took part, by what volume did on such dates before: {kinds}, by {sources}.{_assumed(dated)}"]


def _by_kind(data: VolumeData) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The announced earnings, and the dated events of other kinds."""
    known, is_of_earnings = data.announcements, is_earnings(data.announcements)
    return known.loc[is_of_earnings], known.loc[~is_of_earnings]


def _assumed(known: pd.DataFrame) -> str:
    if not (assumed := int(np.count_nonzero(known["first_seen_assumed"]))):
        return ""
    return f" When {assumed:,} of them became known was not recorded; they count as known {HORIZONS} sessions ahead."


def _beside(data: VolumeData, frame: pd.DataFrame, scale: pd.DataFrame, name: str, contest: Contest) -> _Beside | None:
    """Both on the tickers that the predecessor serves, with features of these alone, from closes that it has not seen.

    None where these are too few for a test.
    """
    predecessor = contest.predecessors[name]
    own = data.of(predecessor.tickers)
    theirs = backtest(own.inputs.panel, [_Trained(name=name, predictor=predecessor.predictor, data=own)], data.span)
    ours = [column for column in frame.columns if column in KEYS or column.startswith(MODEL)]
    rows = frame[ours].merge(theirs, on=KEYS)
    rows = rows.loc[rows["cutoff"] >= pd.Timestamp(predecessor.trained_through)]
    if rows["cutoff"].nunique() < MIN_TEST_SESSIONS:
        return None
    found = score(rows, scale)
    (duel,) = duels(rows, scale, found, model=MODEL, bands=GATE_BANDS)
    return _Beside(
        name=name,
        rows=len(rows),
        tickers=rows["unique_id"].nunique(),
        cutoffs=rows["cutoff"].nunique(),
        losses=_losses(found),
        duel=duel,
        trains=predecessor.predictor.recipe.trains,
    )


def _comparison(beside: _Beside, model: VolumePredictor, contest: Contest) -> Comparison:
    is_champion, predictor = beside.name == CHAMPION, contest.predecessors[beside.name].predictor
    return Comparison(
        name=beside.name,
        challenger=beside.losses[MODEL][GATE_METRIC],
        predecessor=beside.losses[beside.name][GATE_METRIC],
        margin=contest.margin * (1 if is_champion else CUMULATED),
        spread=beside.duel.spread,
        pinball_ratio=beside.duel.pinball_ratio,
        must_be_better=is_champion and predictor.recipe != model.recipe,
    )


def _unfair(contest: Contest) -> str:
    """Why nothing can be compared with the champion."""
    if contest.gives_way or CHAMPION not in contest.predecessors:
        return ""
    return (
        f"the champion was trained up to {contest.predecessors[CHAMPION].trained_through}: fewer than "
        f"{MIN_TEST_SESSIONS} sessions of the test are new to it, too few to compare them on"
    )


def _unbelieved(trained: _Trained) -> str:
    """Why a model with forecasts that cannot be believed is kept out; empty where few or none are."""
    if trained.implausible <= MOST_IMPLAUSIBLE:
        return ""
    return (
        f"{trained.implausible:.2%} of its forecasts cannot be believed (not finite, or beyond {FACTOR:g} times what "
        f"the ticker has traded in {CONTEXT} sessions): at most {MOST_IMPLAUSIBLE:.2%} may be so"
    )


def _poor_quantiles(fights: Sequence[Duel], contest: Contest) -> str:
    """Why a model whose quantiles are worse than the fallback's is kept out; empty where they are not."""
    (ratio,) = (duel.pinball_ratio for duel in fights if duel.rival == FALLBACK)
    if ratio <= 1 + contest.margin:
        return ""
    return f"its pinball loss is {ratio - 1:+.1%} against {FALLBACK}: the margin is {contest.margin:.1%}"


def _outgrown(by_ticker: pd.DataFrame) -> list[str]:
    """The tickers whose errors are bounded in the means."""
    worst = by_ticker.loc[by_ticker["band"] == GATE_BAND].groupby("unique_id")["mase"].max()
    names = [str(ticker) for ticker in worst.index[worst > MOST]]
    return [f"Beyond {MOST:g} scales, and bounded in the means: {listed(names)}."] if names else []


def _losses(found: Scores) -> dict[str, dict[str, float]]:
    """Forecaster -> METRICS, means over the tickers."""
    losses = {(row["band"], row["model"]): row for row in found.panel.to_dict("records")}
    return {
        name: {metric: float(losses[band, name][loss]) for metric, (band, loss) in METRICS.items()}
        for name in dict.fromkeys(found.panel["model"])
    }


def _rows_tested(frame: pd.DataFrame) -> str:
    return (
        f"Forecasts of the next {HORIZONS} sessions from each close, {len(frame):,} of "
        f"{counted(len(set(frame['unique_id'])), 'ticker')}; the targets, {counted(len(set(frame['ds'])), 'session')} "
        f"{frame['ds'].min():%Y-%m-%d} to "
        f"{frame['ds'].max():%Y-%m-%d}, were held back from all training."
    )


def _first_ticker(by_ticker: pd.DataFrame) -> list[str]:
    """How the leading ticker fares, where it is one of several."""
    inside = by_ticker.loc[by_ticker["band"] == GATE_BAND]
    own = inside.loc[inside["unique_id"] == FIRST_TICKER].set_index("model")["mase"].to_dict()
    if not own or inside["unique_id"].nunique() == 1:
        return []
    errors = ", ".join(f"{name} {mase:.3f}" for name, mase in own.items())
    return [f"{FIRST_TICKER} alone, MASE of horizons {GATE_BAND}: {errors}."]


def _left_out(data: VolumeData, frame: pd.DataFrame) -> list[str]:
    """The tickers that are not scored, or get no forecast, each with the reason."""
    panel, words = data.inputs.panel, []
    unscored = sorted(set(panel.tickers) - set(frame["unique_id"]))
    if unscored:
        words.append(f"Not scored, no or too short a history in the test: {listed(unscored)}.")
    stale = [panel.tickers[place] for place in np.flatnonzero(~panel.traded_NT[:, -1])]
    is_short_N = panel.traded_NT[:, -1] & ~data.inputs.usable_NT[:, -1]
    short = [panel.tickers[place] for place in np.flatnonzero(is_short_N)]
    if stale:
        words.append(f"Not forecast, no price on {panel.cutoff}: {listed(stale)}.")
    if short:
        words.append(f"Not forecast, too short a history: {listed(short)}.")
    return words


def _small(data: VolumeData) -> list[str]:
    count = data.inputs.panel.known - 1 - data.through
    if count >= SMALL_TEST_SESSIONS:
        return []
    return [f"{count} test sessions are less than a year: a small difference may be chance."]
