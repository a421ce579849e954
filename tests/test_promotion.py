import math

import pytest

from models.promotion import MASE, NOISE, Rivals, decide

HAR = ("har", 0.574)


def ahead(champion: float | None = None, p: float = math.nan) -> Rivals:
    return Rivals(champion=champion, champion_p=p, gate=HAR)


def test_a_nowcast_has_no_baseline_to_beat_and_its_first_version_is_promoted() -> None:
    decision = decide(2.53e6, Rivals(champion=None))
    assert decision.promote
    assert decision.reason == "RMSE 2.53 M shares, with no champion beside it."


@pytest.mark.parametrize("champion", [2.60e6, 2.40e6])
def test_a_better_or_equal_challenger_is_promoted(champion: float) -> None:
    decision = decide(2.40e6, Rivals(champion=champion))
    assert decision.promote
    sign = "<" if champion > 2.40e6 else "="
    assert decision.reason == f"RMSE 2.40 M shares {sign} champion {champion / 1e6:.2f} M."


def test_without_a_paired_test_any_larger_error_is_worse() -> None:
    decision = decide(2.70e6, Rivals(champion=2.60e6))
    assert not decision.promote
    assert decision.reason == "RMSE 2.70 M shares, worse than the champion 2.60 M on the same sessions."


def test_a_challenger_ahead_of_champion_and_har_is_promoted_with_the_numbers_in_order() -> None:
    decision = decide(0.546, ahead(0.551, p=0.2), measure=MASE)
    assert decision.promote
    assert decision.reason == "MASE 0.546 < champion 0.551 < har 0.574."


@pytest.mark.parametrize("champion", [None, 0.590])
def test_whoever_does_not_beat_har_is_not_promoted_be_the_champion_worse_or_absent(champion: float | None) -> None:
    decision = decide(0.574, ahead(champion), measure=MASE)
    assert not decision.promote
    assert decision.reason == "MASE 0.574, does not beat har 0.574."


def test_the_first_version_that_beats_har_is_promoted() -> None:
    decision = decide(0.550, ahead(), measure=MASE)
    assert decision.promote
    assert decision.reason == "MASE 0.550 < har 0.574, with no champion beside it."


def test_a_challenger_that_is_worse_than_the_champion_by_no_more_than_noise_is_promoted() -> None:
    decision = decide(0.553, ahead(0.551, p=0.31), measure=MASE)
    assert decision.promote
    assert decision.reason == (
        "MASE 0.553 < har 0.574, not worse than the champion 0.551 beyond noise (paired test, p 0.31)."
    )


@pytest.mark.parametrize(("p", "tested"), [(NOISE, " beyond noise (paired test, p 0.050)"), (math.nan, "")])
def test_a_challenger_that_is_worse_beyond_noise_or_untested_is_not_promoted(p: float, tested: str) -> None:
    decision = decide(0.560, ahead(0.551, p=p), measure=MASE)
    assert not decision.promote
    assert decision.reason == (f"MASE 0.560, worse than the champion 0.551 on the same sessions{tested}.")


@pytest.mark.parametrize(("challenger", "champion"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, None)])
def test_a_score_that_is_not_finite_decides_nothing(challenger: float, champion: float | None) -> None:
    with pytest.raises(ValueError, match="needs finite RMSEs"):
        decide(challenger, Rivals(champion=champion))
