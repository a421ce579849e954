import math
from dataclasses import replace

import numpy as np
import pytest

from volcast.models.comparisons import (
    BEST,
    CHAMPION,
    CUMULATED,
    MARGIN,
    MASE,
    Comparison,
    Contest,
    decide,
    half_interval,
)

HAR = ("har", 0.574)
ALONE = Contest()


def beside(challenger: float, champion: float, spread: float = 0.0, **changes: object) -> Comparison:
    comparison = Comparison(name=CHAMPION, challenger=challenger, predecessor=champion, margin=MARGIN, spread=spread)
    return replace(comparison, **changes)


def test_a_nowcast_has_no_baseline_to_beat_and_its_first_version_is_promoted() -> None:
    decision = decide(2.53e6, ALONE)
    assert decision.promote
    assert decision.reason == "RMSE 2.53 M shares, with no champion beside it."


@pytest.mark.parametrize(("champion", "change"), [(2.60e6, "-7.7%"), (2.40e6, "+0.0%")])
def test_without_an_interval_a_better_or_equal_challenger_is_promoted(champion: float, change: str) -> None:
    decision = decide(2.40e6, ALONE, [beside(2.40e6, champion, margin=0.0)])
    assert decision.promote
    assert decision.reason == f"RMSE 2.40 M shares, {change} against the champion."


def test_without_an_interval_any_larger_error_is_worse() -> None:
    decision = decide(2.61e6, ALONE, [beside(2.61e6, 2.60e6, margin=0.0)])
    assert not decision.promote
    assert decision.reason == "RMSE 2.61 M shares, but +0.4% against the champion: the margin is 0.0%."


@pytest.mark.parametrize("champion", [None, 0.590])
def test_whoever_does_not_beat_har_is_not_promoted_be_the_champion_worse_or_absent(champion: float | None) -> None:
    comparisons = [] if champion is None else [beside(0.574, champion)]
    decision = decide(0.574, ALONE, comparisons, gate=HAR, measure=MASE)
    assert not decision.promote
    assert decision.reason == "MASE 0.574, does not beat har 0.574."


def test_the_first_version_that_beats_har_is_promoted() -> None:
    decision = decide(0.550, ALONE, gate=HAR, measure=MASE)
    assert decision.promote
    assert decision.reason == "MASE 0.550 < har 0.574, with no champion beside it."


def test_a_challenger_that_is_surely_worse_by_less_than_the_margin_is_promoted() -> None:
    decision = decide(0.502, ALONE, [beside(0.502, 0.500, spread=0.002)], gate=HAR, measure=MASE)
    assert decision.promote
    assert decision.reason == "MASE 0.502 < har 0.574, +0.4% against the champion, at most +0.8%."


def test_a_large_loss_that_may_be_chance_is_not_promoted() -> None:
    """0.570 against 0.520 with a p-value of 0.06 was promoted once: few data made the gate wide."""
    decision = decide(0.570, ALONE, [beside(0.570, 0.520, spread=0.053)], gate=HAR, measure=MASE)
    assert not decision.promote
    expected = "MASE 0.570 < har 0.574, but +9.6% against the champion, at most +19.8%: the margin is 1.0%."
    assert decision.reason == expected


@pytest.mark.parametrize("sessions", [20, 40, 80, 640])
def test_the_same_difference_passes_less_easily_on_fewer_sessions(sessions: int) -> None:
    differences = np.tile([0.03, -0.03, 0.01, -0.01, 0.02, -0.02, 0.0, 0.0, 0.01, -0.01], sessions // 10)
    noisy = np.random.default_rng(0).permutation(differences)
    spread = half_interval(noisy, h=1)
    assert decide(0.5, ALONE, [beside(0.5, 0.5, spread)], gate=HAR, measure=MASE).promote is (sessions > 20)


def test_what_has_no_interval_for_want_of_sessions_is_not_promoted() -> None:
    few = half_interval(np.array([0.1, -0.1, 0.1]), h=5)
    assert math.isnan(few)
    assert not decide(0.5, ALONE, [beside(0.5, 0.6, spread=few)], gate=HAR, measure=MASE).promote


def test_another_recipe_must_be_better_and_not_only_no_worse() -> None:
    worse = beside(0.502, 0.500, spread=0.002, must_be_better=True)
    decision = decide(0.502, ALONE, [worse], gate=HAR, measure=MASE)
    assert not decision.promote
    assert decision.reason.endswith("+0.4% against the champion, at most +0.8%: another recipe must be better.")
    better = beside(0.498, 0.500, spread=0.002, must_be_better=True)
    assert decide(0.498, ALONE, [better], gate=HAR, measure=MASE).promote


def test_a_series_of_small_losses_ends_at_the_best_version_that_ever_forecast() -> None:
    champion, best, promoted, reason = 0.500, 0.500, 0, ""
    for _ in range(20):
        challenger = champion * 1.004
        against_best = beside(challenger, best, spread=0.002, name=BEST, margin=CUMULATED * MARGIN)
        comparisons = [beside(challenger, champion, spread=0.002), against_best]
        decision = decide(challenger, ALONE, comparisons, gate=HAR, measure=MASE)
        reason = decision.reason
        assert decision.best
        if not decision.promote:
            break
        champion, promoted = challenger, promoted + 1
    assert promoted == 3
    assert champion < best * (1 + CUMULATED * MARGIN)
    assert reason.endswith(", but +1.6% against the best, at most +2.0%: the margin is 2.0%.")


def test_the_best_version_is_the_one_with_the_smaller_error_on_the_same_rows() -> None:
    assert decide(0.49, ALONE, [beside(0.49, 0.50)], gate=HAR, measure=MASE).best == ""
    assert decide(0.51, ALONE, [beside(0.51, 0.50)], gate=HAR, measure=MASE).best == CHAMPION


def test_what_bars_a_challenger_holds_whatever_its_error_is() -> None:
    decision = decide(0.1, Contest(bar="it was not made of KO"), gate=HAR, measure=MASE)
    assert not decision.promote
    assert decision.reason == "MASE 0.100 < har 0.574, but it was not made of KO."


def test_a_champion_that_does_not_forecast_any_more_gives_way_to_whoever_beats_har() -> None:
    tired = Contest(gives_way="model volume v1 is 70 sessions old, more than 53")
    worse = beside(0.570, 0.550, spread=0.03)
    decision = decide(0.570, tired, [worse], gate=HAR, measure=MASE)
    assert decision.promote
    assert decision.reason.endswith(
        "at most +9.1%; the champion gives way: model volume v1 is 70 sessions old, more than 53."
    )
    assert not decide(0.580, tired, [worse], gate=HAR, measure=MASE).promote


@pytest.mark.parametrize(("challenger", "champion"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, None)])
def test_a_score_that_is_not_finite_decides_nothing(challenger: float, champion: float | None) -> None:
    comparisons = [] if champion is None else [beside(challenger, champion)]
    with pytest.raises(ValueError, match="needs finite RMSEs"):
        decide(challenger, ALONE, comparisons)
