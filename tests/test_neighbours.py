import numpy as np

from models.past_features import mean_of_neighbours


def pairs(sessions: int = 400) -> np.ndarray:
    """Surprises of four tickers: the first two go together, and the last two."""
    draws = np.random.default_rng(0).normal(size=(2, sessions))
    return np.repeat(draws, 2, axis=0) + 0.01 * np.random.default_rng(1).normal(size=(4, sessions))


def test_a_ticker_takes_the_values_of_those_that_go_with_it() -> None:
    values_NS = np.tile(np.array([[1.0], [2.0], [30.0], [40.0]]), (1, 410))
    mean_NS = mean_of_neighbours(values_NS, pairs())
    assert (mean_NS[:, :252] == 0).all()  # not yet known
    np.testing.assert_allclose(mean_NS[:2, 252:], np.tile([[2.0], [1.0]], (1, 158)), atol=6)
    np.testing.assert_allclose(mean_NS[2:, 252:], np.tile([[40.0], [30.0]], (1, 158)), atol=6)


def test_one_that_hardly_traded_is_nobodys_neighbour_and_a_lone_ticker_has_none() -> None:
    surprise_NT = pairs()
    surprise_NT[1, 100:] = np.nan  # 100 sessions of the memory are too few
    values_NS = np.zeros((4, 410))
    values_NS[1] = 1.0
    assert (mean_of_neighbours(values_NS, surprise_NT)[:, 252:378] == 0).all()
    assert (mean_of_neighbours(values_NS[:1], surprise_NT[:1]) == 0).all()
