import numpy as np
import pytest

from volcast.models.past_features import sums_of_tickers, trailing_max, trailing_mean, value_before

NAN = np.nan


def test_a_trailing_mean_is_of_the_rows_that_there_are() -> None:
    mean_NT, rows_NT = trailing_mean(np.array([[NAN, 2.0, 4.0, NAN, 9.0, NAN, NAN, NAN]]), 3)
    np.testing.assert_array_equal(mean_NT, [[NAN, 2, 3, 3, 6.5, 9, 9, NAN]])
    np.testing.assert_array_equal(rows_NT, [[0, 1, 2, 2, 2, 1, 1, 0]])


def test_a_trailing_mean_has_the_same_bits_whatever_follows() -> None:
    values_NT = np.random.default_rng(0).normal(size=(3, 300))
    assert trailing_mean(values_NT[:, :200], 60)[0].tobytes() == trailing_mean(values_NT, 60)[0][:, :200].tobytes()


def test_the_sums_of_tickers_are_the_same_bit_for_bit_in_parts() -> None:
    total_T, count_T = sums_of_tickers(np.array([[1.0, NAN, NAN], [4.0, 6.0, NAN]]))
    assert (total_T.tolist(), count_T.tolist()) == ([5, 6, 0], [2, 1, 0])
    values_NT = np.random.default_rng(0).normal(size=(70, 300))
    total_T, count_T = sums_of_tickers(values_NT[7:], sums_of_tickers(values_NT[:7]))
    whole_T, all_T = sums_of_tickers(values_NT)
    assert (total_T.tobytes(), count_T.tolist()) == (whole_T.tobytes(), all_T.tolist())


def test_the_value_before_reaches_over_gaps() -> None:
    before_NT = value_before(np.array([[NAN, 2.0, NAN, NAN, 5.0, 6.0]]))
    np.testing.assert_array_equal(before_NT, [[NAN, NAN, 2, 2, 2, 5]])


@pytest.mark.parametrize("window", [1, 2, 3, 7, 8, 252])
def test_a_trailing_maximum_is_of_the_window(window: int) -> None:
    values_NT = np.random.default_rng(1).normal(size=(2, 300))
    expected = [[max(row[max(0, t - window + 1) : t + 1]) for t in range(300)] for row in values_NT]
    np.testing.assert_array_equal(trailing_max(values_NT, window), expected)
