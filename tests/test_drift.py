from datetime import date

import numpy as np
import pandas as pd
import pytest

from volcast.models.drift import CHANCE, error_drift, feature_drift, interval_drift, limit, psi
from volcast.models.sessions import sessions_between

LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
DECILES = [1.0, 2, 3, 4, 5, 6, 7, 8, 9]


def scores(own: np.ndarray, har: np.ndarray) -> pd.DataFrame:
    """A target session after the other, one ahead, with these errors in units of the scale."""
    sessions = sessions_between(date(2024, 1, 2), date(2024, 12, 31))[: len(own)]
    parts = [
        pd.DataFrame({"ds": sessions, "absolute_error": 10 * errors, "model": model})
        for model, errors in (("volcast", own), ("har", har))
    ]
    return pd.concat(parts).assign(h=1, scale=10.0)


def test_the_index_can_be_checked_by_hand() -> None:
    assert psi(np.arange(10) + 0.5, DECILES, LEVELS) == pytest.approx(0.0)
    one_edge = psi(np.array([0.0, 0, 0, 2]), [1.0], [0.5])  # shares 0.75 and 0.25 where there were 0.5 and 0.5
    assert one_edge == pytest.approx(0.25 * np.log(1.5) - 0.25 * np.log(0.5))
    assert psi(np.full(10, 20.0), DECILES, LEVELS) > 1


def test_a_value_that_comes_often_is_no_drift() -> None:
    capped = [0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.0, 1.0, 1.0]  # four of ten rows at the cap
    recent = np.concatenate([np.linspace(0.01, 0.49, 50), np.full(50, 1.0)])
    assert psi(recent, capped, LEVELS) == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(psi(recent, [1.0] * 9, LEVELS))
    assert np.isnan(psi(np.array([]), DECILES, LEVELS))


def test_a_shifted_feature_stands_first_and_chance_stays_below_the_limit() -> None:
    draws = np.random.default_rng(0)
    edges = {name: np.quantile(draws.normal(size=5000), LEVELS).tolist() for name in ("still", "moved", "constant")}
    edges["constant"] = [1.0] * 9
    recent = {
        "constant": np.ones((1, 63)),
        "still": draws.normal(size=(1, 63)),
        "moved": draws.normal(1.5, size=(1, 63)),
    }
    found = feature_drift(recent, edges)
    assert list(found) == ["moved", "still"]
    assert found["still"].index < found["still"].limit
    assert found["moved"].index > found["moved"].limit


def test_a_feature_that_hardly_moves_needs_a_larger_index() -> None:
    draws = np.random.default_rng(0)
    fast, slow = draws.normal(size=(5, 63)), np.cumsum(draws.normal(size=(5, 63)), axis=1)
    # chi2 of 9 degrees of freedom exceeds 21.67 once in a hundred times
    assert limit(np.tile([1.0, -1.0], (1, 50))) == pytest.approx(0.25 + 21.666 / 100, abs=1e-4)
    assert 0.59 <= limit(fast) < 0.8
    assert limit(slow) > 2


def test_gaps_of_a_ticker_do_not_matter() -> None:
    values = np.random.default_rng(0).normal(size=(2, 63))
    values[0, :20] = np.nan
    assert np.isfinite(limit(values))
    assert np.isfinite(feature_drift({"a": values}, {"a": DECILES})["a"].index)


def test_errors_as_in_the_test_are_no_drift_and_larger_ones_are() -> None:
    draws = np.random.default_rng(1)
    usual = draws.gamma(4, 0.25 * 0.6, 20)  # about 0.6
    same = error_drift(scores(usual, usual), expected=0.6, model="volcast")
    assert same is not None
    assert not same.grown
    worse = error_drift(scores(usual + 0.5, usual), expected=0.6, model="volcast")
    assert worse is not None
    assert worse.grown
    assert worse.breached
    assert worse.recent == pytest.approx(usual.mean() + 0.5)
    assert (worse.sessions, worse.har) == (20, pytest.approx(usual.mean()))


def test_a_market_that_is_harder_for_har_too_is_no_breach() -> None:
    draws = np.random.default_rng(1)
    hard = draws.gamma(4, 0.25 * 0.6, 20) + 0.5
    found = error_drift(scores(hard, hard + 0.1), expected=0.6, model="volcast")
    assert found is not None
    assert (found.grown, found.breached) == (True, False)


def test_one_bad_session_among_twenty_is_noise_and_too_few_say_nothing() -> None:
    usual = np.random.default_rng(2).gamma(4, 0.25 * 0.6, 20)
    bad = usual.copy()
    bad[10] += 4
    found = error_drift(scores(bad, usual), expected=float(usual.mean()), model="volcast")
    assert found is not None
    assert not found.grown
    assert found.p_value > 0.01
    assert error_drift(scores(usual[:9], usual[:9]), expected=0.6, model="volcast") is None
    assert error_drift(scores(usual, usual).head(0), expected=0.6, model="volcast") is None


def covered(shares: np.ndarray) -> pd.DataFrame:
    """A target session after the other, of which this share of eight tickers came inside of the interval."""
    sessions = sessions_between(date(2024, 1, 2), date(2026, 6, 30))[: len(shares)]
    inside = [(ds, 1, True, n < round(8 * share)) for ds, share in zip(sessions, shares, strict=True) for n in range(8)]
    others = [(sessions[0], 2, True, False), (sessions[0], 1, False, False)]  # two ahead, or not published
    return pd.DataFrame([*inside, *others], columns=["ds", "h", "published", "in_80"])


def test_the_evidence_against_intervals_can_be_checked_by_hand() -> None:
    """Of two sessions with 4 of 8 inside: 1 + 0.3 b each for the seven bets."""
    found = interval_drift(covered(np.array([0.5, 0.5])))
    assert found is not None
    once = np.mean([1.15, 1.3, 1.6, 2.2, 0.91, 0.82, 0.7])
    twice = np.mean(np.square([1.15, 1.3, 1.6, 2.2, 0.91, 0.82, 0.7]))
    assert found.evidence == pytest.approx(once + twice)
    assert (found.sessions, found.covered, found.broken) == (2, 0.5, False)
    assert interval_drift(covered(np.array([0.5])).tail(1)) is None  # nothing published


def test_a_session_that_an_outage_left_without_a_forecast_from_the_one_before_counts_by_the_nearest() -> None:
    found = interval_drift(covered(np.array([0.5])).tail(2))  # one row, two ahead and outside
    assert found is not None
    assert (found.sessions, found.covered) == (1, 0.0)


def test_a_shift_of_the_coverage_is_found_within_ten_sessions_with_the_day_it_began() -> None:
    shares = np.concatenate([np.tile([0.75, 0.75, 0.75, 0.75, 1], 20), np.tile([0.375, 0.5], 5)])
    before, after = interval_drift(covered(shares[:100])), interval_drift(covered(shares))
    assert before is not None
    assert after is not None
    assert not before.broken
    assert after.broken
    assert (after.sessions, after.covered) == (10, pytest.approx(0.4375))
    assert after.first == sessions_between(date(2024, 1, 2), date(2024, 12, 31)).date[100]


def test_intervals_that_are_far_too_wide_are_found_too() -> None:
    found = interval_drift(covered(np.ones(60)))
    assert found is not None
    assert found.broken
    assert found.covered == 1


@pytest.mark.parametrize("alike", [False, True])
def test_intervals_that_hold_are_hardly_ever_called_broken_also_where_all_tickers_move_as_one(alike: bool) -> None:
    """Over 20,000 sessions alarms are CHANCE sessions apart or more: forty at most."""
    draws = np.random.default_rng(3)
    inside = draws.binomial(1 if alike else 8, 0.8, 20_000) / (1 if alike else 8)
    sessions, is_broken = pd.date_range("2024-01-01", periods=60), []
    for end in range(60, len(inside), 20):
        window = pd.DataFrame({"ds": sessions, "h": 1, "published": True, "in_80": inside[end - 60 : end]})
        found = interval_drift(window)
        assert found is not None
        is_broken.append(found.broken)
    assert sum(is_broken) <= len(inside) / CHANCE
