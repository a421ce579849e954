"""How good a volume model is on the sessions that were held back, beside champion and baselines, in numbers and words.

Rolling origin: each test session is forecast from each of the 10 before it, by models that were fitted before the test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import pandas as pd

from models.all_forecasters import baselines
from models.backtest import backtest, train_volumes
from models.duels import duels, verdict
from models.evaluation import MODEL, SMALL_TEST_SESSIONS
from models.forecasters import Forecaster, Forecasts
from models.live_forecasts import FALLBACK, forecast_frame
from models.panel import HORIZONS, Panel
from models.promotion import MASE, Decision, Rivals, decide
from models.recipes import VolumeRecipe
from models.scores import FIRST_TICKER, calibration, score
from models.volume_data import VolumeData
from models.volume_features import Inputs
from models.words import listed

# N tickers, C cutoffs, H horizons

CHAMPION = "champion"
GATE = "1-5"  # the band that decides: what an order of tomorrow and of this week needs
METRICS = {"mase_1": ("1", "mase"), "mase_1_5": ("1-5", "mase"), "mase_1_10": ("1-10", "mase")} | {
    name: ("1-10", name) for name in ("pinball", "coverage_80", "coverage_95")
}  # of a scorecard -> band and loss


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


@dataclass(kw_only=True)
class _Trained:
    """A predictor as a forecaster that has been fitted already."""

    name: str
    predictor: VolumePredictor
    data: VolumeData

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Itself; it was trained up to there, or, a champion, up to an earlier session."""
        assert panel is self.data.inputs.panel
        assert through == self.data.through
        return self

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """As the protocol of forecasters has it."""
        assert panel is self.data.inputs.panel
        return self.predictor.forecasts(self.data, cutoffs)


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeEvaluation:
    """Scores on the test sessions, means over the tickers."""

    scores: dict[str, dict[str, float]]  # forecaster -> METRICS
    words: tuple[str, ...]
    decision: Decision
    calibration: pd.DataFrame  # as `models.scores.calibration` gives it


def evaluate_volume(data: VolumeData, model: VolumePredictor, champion: VolumePredictor | None) -> VolumeEvaluation:
    """The evaluation of a model, trained up to `data.through`. Raises NotEnoughSessions where no ticker has a score."""
    trained = {MODEL: model} | ({} if champion is None else {CHAMPION: champion})
    networks = [_Trained(name=name, predictor=each, data=data) for name, each in trained.items()]
    rivals = baselines()
    taking_part: Sequence[Forecaster] = (*networks, *rivals)
    panel = data.inputs.panel
    frame, train = backtest(panel, taking_part, data.span), train_volumes(panel, data.span)
    found = score(frame, train)
    losses = {(row["band"], row["model"]): row for row in found.panel.to_dict("records")}
    scores = {
        each.name: {metric: float(losses[band, each.name][loss]) for metric, (band, loss) in METRICS.items()}
        for each in taking_part
    }
    gate = {name: own["mase_1_5"] for name, own in scores.items()}
    fought = [duel for duel in duels(frame, train, found, model=MODEL) if duel.band == GATE]
    beside = Rivals(
        champion=gate.get(CHAMPION),
        gate=(FALLBACK, gate[FALLBACK]),
        champion_p=next((duel.p_value / 2 for duel in fought if duel.rival == CHAMPION), math.nan),
    )
    decision = decide(gate[MODEL], beside, measure=MASE)
    words = (
        _what(frame),
        verdict(fought),
        *_first_ticker(found.by_ticker),
        earnings_words(data, model.recipe),
        *_left_out(data, frame),
        *_small(data),
    )
    return VolumeEvaluation(scores=scores, words=words, decision=decision, calibration=calibration(frame, MODEL))


def volume_frame(data: VolumeData, model: VolumePredictor) -> pd.DataFrame:
    """The forecasts of the coming sessions at the newest cutoff, as `forecast_frame` has them."""
    return forecast_frame(data.inputs.panel, model.forecasts(data, data.newest))


def earnings_words(data: VolumeData, recipe: VolumeRecipe) -> str:
    """Whether announced earnings took part, whose, and what was assumed of them."""
    if not recipe.use_earnings:
        return "Announced earnings were not used: use_earnings is false."
    known = data.announcements
    if known.empty:
        return "No announced earnings were known: their features are zeros."
    words = f"Announced earnings took part: {len(known):,} dates of {', '.join(sorted(set(known['source'])))}."
    assumed = int(np.count_nonzero(known["first_seen_assumed"]))
    if assumed:
        words += (
            f" When {assumed:,} of them became known was not recorded; they count as known {HORIZONS} sessions ahead."
        )
    return words


def _what(frame: pd.DataFrame) -> str:
    return (
        f"Forecasts of the next {HORIZONS} sessions from each close, {len(frame):,} of {len(set(frame['unique_id']))} "
        f"tickers; the targets, {len(set(frame['ds']))} sessions {frame['ds'].min():%Y-%m-%d} to "
        f"{frame['ds'].max():%Y-%m-%d}, were held back from all training."
    )


def _first_ticker(by_ticker: pd.DataFrame) -> list[str]:
    """How the leading ticker fares, where it is one of several."""
    inside = by_ticker.loc[by_ticker["band"] == GATE]
    own = inside.loc[inside["unique_id"] == FIRST_TICKER].set_index("model")["mase"].to_dict()
    if not own or inside["unique_id"].nunique() == 1:
        return []
    listed = ", ".join(f"{name} {mase:.3f}" for name, mase in own.items())
    return [f"{FIRST_TICKER} alone, MASE of horizons {GATE}: {listed}."]


def _left_out(data: VolumeData, frame: pd.DataFrame) -> list[str]:
    """The tickers that are not scored, or get no forecast, each with the reason."""
    panel, words = data.inputs.panel, []
    unscored = sorted(set(panel.tickers) - set(frame["unique_id"]))
    if unscored:
        words.append(f"Not scored, no or too short a history in the test: {listed(unscored)}.")
    stale = [panel.tickers[place] for place in np.flatnonzero(~panel.traded_NT[:, -1])]
    is_silent_N = panel.traded_NT[:, -1] & ~data.inputs.usable_NT[:, -1]
    silent = [panel.tickers[place] for place in np.flatnonzero(is_silent_N)]
    if stale:
        words.append(f"Not forecast, no price on {panel.cutoff}: {listed(stale)}.")
    if silent:
        words.append(f"Not forecast, too short a history: {listed(silent)}.")
    return words


def _small(data: VolumeData) -> list[str]:
    count = data.inputs.panel.known - 1 - data.through
    if count >= SMALL_TEST_SESSIONS:
        return []
    return [f"{count} test sessions are less than a year: a small difference may be chance."]
