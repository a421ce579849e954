"""Challenger and predecessors on the same rows: whose tickers, which sessions, and what follows."""

from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pandas as pd
import pytest
from panels import announced, dated, drawn_volumes, priced_panel, tiny_recipe

from volcast.models.comparisons import BEST, CHAMPION, Contest, Predecessor
from volcast.models.forecasters import MEDIAN, Forecasts
from volcast.models.har import Har
from volcast.models.panel import HORIZONS, Panel
from volcast.models.recipes import VolumeRecipe
from volcast.models.volume_evaluation import VolumePredictor, evaluate_volume
from volcast.models.volume_inputs import Inputs, VolumeData, volume_data

RECIPE = tiny_recipe(test_sessions=40)
THROUGH = 359  # place of the last train session


@dataclass
class HalfOracle:
    """har's forecasts, moved to what came true by a share of the distance in logs; it notes what it was given."""

    share: float
    panels: list[Panel] = field(default_factory=list)

    def forecast(self, inputs: Inputs, cutoffs: np.ndarray) -> Forecasts:
        panel = inputs.panel
        self.panels.append(panel)
        said = Har().fit(panel, through=THROUGH).forecast(panel, cutoffs)
        target_CH = np.minimum(cutoffs[:, None] + np.arange(1, HORIZONS + 1), panel.known - 1)
        factor_NCH = (panel.fields["volume"][:, target_CH] / said.quantiles_NCHQ[..., MEDIAN]) ** self.share
        quantiles_NCHQ = (said.quantiles_NCHQ * factor_NCH[..., None]).astype(np.float32)
        return Forecasts(cutoffs=cutoffs, quantiles_NCHQ=quantiles_NCHQ, mean_NCH=said.mean_NCH)


@pytest.fixture(scope="module")
def data() -> VolumeData:
    """Tickers A, B and C; the last 40 of 400 sessions are the test."""
    panel = priced_panel(drawn_volumes(3, 400))
    found = volume_data(panel, panel.announcements.assign(first_seen_assumed=False, source=""), RECIPE)
    assert found.through == THROUGH
    return found


def predictor(share: float, recipe: VolumeRecipe = RECIPE) -> VolumePredictor:
    return VolumePredictor(model=HalfOracle(share), recipe=recipe)


def champion(share: float, data: VolumeData, place: int = THROUGH, **changes: object) -> Predecessor:
    """A predecessor that was trained up to a place among the sessions."""
    facts = {"tickers": data.inputs.panel.tickers, "trained_through": day(data, place), **changes}
    return Predecessor(predictor=predictor(share), **facts)  # pyright: ignore[reportArgumentType]


def day(data: VolumeData, place: int) -> date:
    return data.inputs.panel.sessions.date[place]


def test_the_scorecard_says_which_kinds_of_events_took_part(data: VolumeData) -> None:
    panel = data.inputs.panel
    events = dated(panel, [("vote", 0, 100, 90), ("fomc", None, 120, 110), ("fomc", None, 380, 370)])
    events = events.assign(first_seen_assumed=[False, True, True], source="files:a.csv")
    own = announced(panel, [(0, 50, 40)]).assign(first_seen_assumed=False, source="yahoo", kind="earnings")
    both = volume_data(panel, pd.concat([own, events]), RECIPE)
    words = evaluate_volume(both, predictor(0.5), Contest(predecessors={})).words
    assert "Announced earnings took part: 1 date of yahoo." in words
    assert (
        "Dated events took part, by what volume did on such dates before: 2 of fomc, 1 of vote, by files:a.csv. "
        "When 2 of them became known was not recorded; they count as known 10 sessions ahead."
    ) in words


def test_a_champion_is_compared_from_closes_on_that_it_was_not_trained_on(data: VolumeData) -> None:
    seen = champion(0.5, data, THROUGH + 20)
    found = evaluate_volume(data, predictor(0.5), Contest(predecessors={CHAMPION: seen}))
    assert found.decision.promote
    (words,) = (each for each in found.words if each.startswith("Beside the champion"))
    assert "on its 3 tickers, from 20 closes that it was not trained on" in words
    assert found.scores["champion"] != found.scores["volcast"]  # of fewer rows
    whole = evaluate_volume(data, predictor(0.5), Contest(predecessors={CHAMPION: champion(0.5, data)}))
    assert whole.scores["champion"] == whole.scores["volcast"]


@pytest.mark.parametrize("place", [THROUGH + 21, 399])
def test_against_a_champion_that_was_trained_on_the_test_nothing_is_promoted(data: VolumeData, place: int) -> None:
    found = evaluate_volume(data, predictor(0.9), Contest(predecessors={CHAMPION: champion(0.1, data, place)}))
    assert not found.decision.promote
    assert f"but the champion was trained up to {day(data, place)}: fewer than 20 sessions" in found.decision.reason
    assert "champion" not in found.scores


def test_a_challenger_of_more_tickers_is_judged_on_those_that_the_champion_serves(data: VolumeData) -> None:
    two = champion(0.5, data, tickers=("A", "B"))
    found = evaluate_volume(data, predictor(0.5), Contest(predecessors={CHAMPION: two}))
    assert [panel.tickers for panel in two.predictor.model.panels] == [("A", "B")]  # features of these alone
    assert any("Beside the champion, on its 2 tickers, from 40 closes" in words for words in found.words)
    assert "against the champion" in found.decision.reason
    assert "of 3 tickers" in found.words[0]


def test_the_best_version_is_held_against_the_challenger_beside_the_champion(data: VolumeData) -> None:
    predecessors = {CHAMPION: champion(0.4, data), BEST: champion(0.8, data)}
    found = evaluate_volume(data, predictor(0.41), Contest(predecessors=predecessors))
    assert set(found.scores) >= {"volcast", "champion", "best", "har"}
    assert not found.decision.promote
    assert "against the best" in found.decision.reason
    assert found.decision.best == BEST


def test_another_recipe_takes_over_only_when_it_is_better(data: VolumeData) -> None:
    contest, other = Contest(predecessors={CHAMPION: champion(0.5, data)}), tiny_recipe(test_sessions=40, members=1)
    assert evaluate_volume(data, predictor(0.499), contest).decision.promote
    kept = evaluate_volume(data, predictor(0.499, other), contest).decision
    assert not kept.promote
    assert kept.reason.endswith("another recipe must be better.")
    assert evaluate_volume(data, predictor(0.6, other), contest).decision.promote
