"""How a model follows the sessions after its training: worked numbers, and a change of regime of each kind."""

from typing import Any

import numpy as np
import pytest

from volcast.models.adaptation import add_rhythm, following_moves, half_interval, one_rate_moves
from volcast.models.forecasters import LEVELS, MEDIAN
from volcast.models.panel import HORIZONS

LAW = np.array([-1.96, -1.2816, -0.8416, -0.3853, 0, 0.3853, 0.8416, 1.2816, 1.96])  # of a normal error
SHIFT, CUTOFFS, SEASON = 60, 140, 5
WEEKDAY = np.arange(CUTOFFS + HORIZONS) % SEASON
LOW, HIGH = LEVELS.index(0.1), LEVELS.index(0.9)

Told = tuple[np.ndarray, np.ndarray, np.ndarray]


def told(tickers: int, *, rhythm: float = 0.0, spread: float = 1.0, seed: int = 0) -> Told:
    """Quantiles that were right until SHIFT, targets and which of them there are; from SHIFT on targets have a rhythm
    of each ticker's own, in standard deviations, or a wider spread.
    """
    draws = np.random.default_rng(seed)
    session = draws.normal(0, 1, (tickers, CUTOFFS + HORIZONS))
    session[:, SHIFT:] *= spread
    for own, weekdays in zip(session, draws.permuted(np.tile([-2.0, -1, 0, 1, 2], (tickers, 1)), axis=1), strict=True):
        own[SHIFT:] += rhythm * weekdays[WEEKDAY[SHIFT:]]
    target_CH = np.arange(CUTOFFS)[:, None] + np.arange(1, HORIZONS + 1)
    quantile_NCHQ = np.broadcast_to(LAW, (tickers, CUTOFFS, HORIZONS, len(LEVELS))).astype(np.float32)
    target_NCH = session[:, target_CH].astype(np.float32)
    return quantile_NCHQ, target_NCH, np.broadcast_to(target_CH < CUTOFFS, target_NCH.shape)


def covered(quantile_NCHQ: np.ndarray, target_NCH: np.ndarray, first: int, last: int) -> float:
    """The share inside of the 80 % interval, of one session ahead, from the cutoffs `first` to `last`."""
    inside = slice(first, last)
    low_NC, high_NC = (quantile_NCHQ[:, inside, 0, level] for level in (LOW, HIGH))
    return float(((low_NC <= target_NCH[:, inside, 0]) & (target_NCH[:, inside, 0] <= high_NC)).mean())


def with_rhythm(quantile_NCHQ: np.ndarray, target_NCH: np.ndarray, is_there_NCH: np.ndarray) -> np.ndarray:
    moved_NCHQ = quantile_NCHQ.copy()
    add_rhythm(moved_NCHQ, target_NCH, is_there_NCH, WEEKDAY, SEASON)
    return moved_NCHQ


def followed(
    quantile_NCHQ: np.ndarray, target_NCH: np.ndarray, is_there_NCH: np.ndarray, rule: Any = following_moves
) -> np.ndarray:
    none = np.zeros((HORIZONS, len(LEVELS)))
    moves_CHQ = rule(quantile_NCHQ, target_NCH, is_there_NCH, none, unseen=0)
    return quantile_NCHQ + moves_CHQ * half_interval(quantile_NCHQ)


@pytest.mark.parametrize("tickers", [1, 8, 100])
def test_a_rhythm_of_the_week_is_followed_within_three_weeks(tickers: int) -> None:
    quantile_NCHQ, target_NCH, is_there_NCH = told(tickers, rhythm=2.0)
    moved_NCHQ = with_rhythm(quantile_NCHQ, target_NCH, is_there_NCH)
    error_NC, moved_error_NC = (
        np.abs(target_NCH[:, :, 0] - each[:, :, 0, MEDIAN]) for each in (quantile_NCHQ, moved_NCHQ)
    )
    later = slice(SHIFT + 15, CUTOFFS - HORIZONS)
    assert moved_error_NC[:, later].mean() < 0.55 * error_NC[:, later].mean()
    assert moved_error_NC[:, :SHIFT].mean() < 1.01 * error_NC[:, :SHIFT].mean()
    np.testing.assert_allclose(np.diff(moved_NCHQ), np.diff(quantile_NCHQ), atol=1e-5)  # widths stay


def test_what_is_missed_of_a_weekday_is_its_mean_error_less_that_of_all() -> None:
    """Tickers that on each Monday are 2 above the median, without another error: 2 - 2/5 of Mondays, -2/5 of others."""
    quantile_NCHQ, target_NCH, is_there_NCH = told(100)
    target_CH = np.arange(CUTOFFS)[:, None] + np.arange(1, HORIZONS + 1)
    target_NCH = np.broadcast_to(np.where(WEEKDAY[target_CH] == 0, 2.0, 0.0), target_NCH.shape).astype(np.float32)
    moved_NCHQ = with_rhythm(quantile_NCHQ, target_NCH, is_there_NCH)
    assert (moved_NCHQ[:, :5] == quantile_NCHQ[:, :5]).all()  # a first week says nothing
    late_CH = moved_NCHQ[0, 100:120, :, MEDIAN]
    is_monday_CH = WEEKDAY[target_CH[100:120]] == 0
    np.testing.assert_allclose(late_CH[is_monday_CH], 1.6, rtol=0.15)  # the share is nearly 1
    np.testing.assert_allclose(late_CH[~is_monday_CH], -0.4, rtol=0.15)


@pytest.mark.parametrize("tickers", [8, 100])
def test_a_law_three_times_as_wide_is_covered_again_sooner_than_by_one_rate(tickers: int) -> None:
    errors = told(tickers, spread=3.0)
    shares = {}
    for rule in (one_rate_moves, following_moves):
        moved_NCHQ = followed(*errors, rule)
        shares[rule] = [covered(moved_NCHQ, errors[1], SHIFT + a, SHIFT + b) for a, b in ((0, 5), (10, 20), (40, 70))]
    assert max(shares[one_rate_moves][:2]) < 0.55
    assert shares[following_moves][1] > 0.6
    assert shares[following_moves][2] == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("tickers", [1, 8, 100])
def test_quantiles_that_are_right_hardly_move(tickers: int) -> None:
    quantile_NCHQ, target_NCH, is_there_NCH = told(tickers)
    moved_NCHQ = followed(quantile_NCHQ, target_NCH, is_there_NCH)
    slow_NQ = np.abs(moved_NCHQ - quantile_NCHQ)[:, 20:, 0].mean(axis=(0, 1))
    assert (slow_NQ < 0.15).all()
    assert slow_NQ[MEDIAN] == 0


def test_the_first_session_that_comes_moves_the_quantiles_by_the_mixed_rates() -> None:
    """Worked: one ticker, its volume above all quantiles; each rate moves by itself times the level.

    The losses of the two rates are equal, for both had not moved yet: the weights stay 0.97 and 0.03, in all a rate of
    0.97 * 0.1 + 0.03 * 0.8 = 0.121, which of one ticker counts by 1 / (1 + 2).
    """
    quantile_NCHQ, target_NCH, is_there_NCH = told(1)
    target_NCH = np.full_like(target_NCH, 9.0)
    none = np.zeros((HORIZONS, len(LEVELS)))
    moves_CHQ = following_moves(quantile_NCHQ, target_NCH, is_there_NCH, none, unseen=0)
    assert (moves_CHQ[0] == 0).all()
    expected_Q = 0.121 / 3 * np.array(LEVELS)
    expected_Q[MEDIAN] = 0
    np.testing.assert_allclose(moves_CHQ[1, 0], expected_Q)
    assert (moves_CHQ[1, 1:] == 0).all()  # two sessions ahead: no target has come yet
    assert (following_moves(quantile_NCHQ, target_NCH, is_there_NCH, none, unseen=CUTOFFS) == 0).all()


def test_a_ticker_that_has_no_numbers_takes_nothing_from_the_others() -> None:
    quantile_NCHQ, target_NCH, is_there_NCH = told(3, rhythm=2.0, spread=2.0)
    broken_NCHQ = quantile_NCHQ.copy()
    broken_NCHQ[2] = np.nan
    broken_NCHQ[1, 5] = 0.0  # no width
    for moved_NCHQ in (
        with_rhythm(broken_NCHQ, target_NCH, is_there_NCH),
        followed(broken_NCHQ, target_NCH, is_there_NCH),
    ):
        assert np.isfinite(moved_NCHQ[:2]).all()
