import numpy as np

from volcast.models.past_features import find_neighbours, highest, mean_of_neighbours


def pairs(sessions: int = 400) -> np.ndarray:
    """Surprises of four tickers: the first two go together, and the last two."""
    draws = np.random.default_rng(0).normal(size=(2, sessions))
    return np.repeat(draws, 2, axis=0) + 0.01 * np.random.default_rng(1).normal(size=(4, sessions))


def test_a_ticker_takes_the_values_of_those_that_go_with_it() -> None:
    values_NS = np.tile(np.array([[1.0], [2.0], [30.0], [40.0]]), (1, 410))
    mean_NS = mean_of_neighbours(values_NS, find_neighbours(pairs(), 410))
    assert (mean_NS[:, :252] == 0).all()  # not yet known
    np.testing.assert_allclose(mean_NS[:2, 252:], np.tile([[2.0], [1.0]], (1, 158)), atol=6)
    np.testing.assert_allclose(mean_NS[2:, 252:], np.tile([[40.0], [30.0]], (1, 158)), atol=6)


def test_one_that_hardly_traded_is_nobodys_neighbour_and_a_lone_ticker_has_none() -> None:
    surprise_NT = pairs()
    surprise_NT[1, 100:] = np.nan  # 100 sessions of the memory are too few
    values_NS = np.zeros((4, 410))
    values_NS[1] = 1.0
    assert (mean_of_neighbours(values_NS, find_neighbours(surprise_NT, 410))[:, 252:378] == 0).all()
    assert find_neighbours(surprise_NT[:1], 410) == []


def test_the_highest_are_those_of_a_whole_order_also_where_many_are_equal() -> None:
    values_NN = np.random.default_rng(0).integers(0, 12, size=(90, 90)).astype(np.float64)
    values_NN[:30] = np.random.default_rng(1).normal(size=(30, 90))
    for count in (1, 10, 89):
        ordered_NN = np.argsort(-values_NN, axis=1, kind="stable")
        np.testing.assert_array_equal(highest(values_NN, count), ordered_NN[:, :count])
