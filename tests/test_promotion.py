import math

import pytest

from models.promotion import decide

BASELINES = {"last_value": 2.80e6, "mean_20": 2.50e6}


def test_the_first_version_is_promoted_even_when_a_baseline_beats_it() -> None:
    decision = decide(2.53e6, None, baselines=BASELINES)
    assert decision.promote
    assert decision.reason == (
        "Promoted: the first version, RMSE 2.53 M shares. "
        "It beats last_value (2.80 M), and does not beat mean_20 (2.50 M)."
    )


def test_a_better_challenger_is_promoted() -> None:
    decision = decide(2.40e6, 2.60e6, baselines=BASELINES)
    assert decision.promote
    assert "not worse than the champion on the same sessions, RMSE 2.40 M shares against 2.60 M." in decision.reason


def test_an_equal_challenger_is_promoted() -> None:
    decision = decide(2.40e6, 2.40e6, baselines=BASELINES)
    assert decision.promote
    assert "RMSE 2.40 M shares against 2.40 M" in decision.reason


def test_a_worse_challenger_is_not_promoted_and_the_baselines_are_still_named() -> None:
    decision = decide(2.70e6, 2.60e6, baselines=BASELINES)
    assert not decision.promote
    assert decision.reason == (
        "Not promoted: worse than the champion on the same sessions, RMSE 2.70 M shares against 2.60 M. "
        "It beats last_value (2.80 M), and does not beat mean_20 (2.50 M)."
    )


def test_the_reason_says_so_when_every_baseline_or_none_is_beaten() -> None:
    assert decide(2.0e6, None, baselines=BASELINES).reason.endswith(
        "It beats every baseline: last_value (2.80 M), mean_20 (2.50 M)."
    )
    assert decide(3.0e6, None, baselines=BASELINES).reason.endswith(
        "It beats no baseline: last_value (2.80 M), mean_20 (2.50 M)."
    )


@pytest.mark.parametrize(("challenger", "champion"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, None)])
def test_a_score_that_is_not_finite_decides_nothing(challenger: float, champion: float | None) -> None:
    with pytest.raises(ValueError, match="needs finite RMSEs"):
        decide(challenger, champion, baselines=BASELINES)


def test_a_decision_without_baselines_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one baseline"):
        decide(1.0, None, baselines={})
