from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from volcast.storage.adjustment import adjusted_close, dividends_from_adj_close

DATA = Path(__file__).parents[2] / "shared" / "data"
# file, first year of the count, sessions with a dividend since then
REAL_FILES = [("SBUX_tutorial.csv", 2019, 4), ("yahoo_csv/SBUX.csv", 2010, 51), ("yahoo_csv/AAPL.csv", 2012, 42)]


def test_a_dividend_is_recovered_from_the_two_closes():
    # 1.01 on the third session, 1 % of the close before it; another 10 % were paid after the file's last session
    close = np.array([100.0, 101.0, 102.0, 103.0])
    adj_close = close * np.array([0.891, 0.891, 0.9, 0.9])
    dividend, later_adjustment = dividends_from_adj_close(close, adj_close)
    assert dividend == pytest.approx([0.0, 0.0, 1.01, 0.0])
    assert (dividend == 0).tolist() == [True, True, False, True]
    assert later_adjustment == pytest.approx([1.0, 1.0, 1.0, 0.9])


def test_rounding_of_the_file_is_no_dividend():
    close = np.round(np.random.default_rng(0).uniform(2, 3, 2000), 6)
    dividend, later_adjustment = dividends_from_adj_close(close, np.round(close * 0.8, 6))
    assert not dividend.any()
    assert later_adjustment[-1] == pytest.approx(0.8, rel=1e-7)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_close_that_is_not_positive_is_refused(bad):
    with pytest.raises(ValueError, match="Row 1 of 2"):
        dividends_from_adj_close(np.array([1.0, bad]), np.array([1.0, 1.0]))


def test_closes_of_different_lengths_are_refused_and_no_rows_are_fine():
    with pytest.raises(ValueError, match="2 and 1"):
        dividends_from_adj_close(np.ones(2), np.ones(1))
    dividend, later_adjustment = dividends_from_adj_close(np.array([]), np.array([]))
    assert len(dividend) == len(later_adjustment) == 0


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real price files are not at {DATA}")
@pytest.mark.parametrize(("name", "since", "dividends"), REAL_FILES)
def test_the_adjusted_close_of_a_real_file_comes_back(name, since, dividends):
    rows = pd.read_csv(DATA / name, parse_dates=["Date"])
    dividend, later_adjustment = dividends_from_adj_close(rows["Close"].to_numpy(), rows["Adj Close"].to_numpy())
    bars = pd.DataFrame(
        {"ticker": "X", "close": rows["Close"], "dividend": dividend, "later_adjustment": later_adjustment}
    )
    assert adjusted_close(bars).to_numpy() == pytest.approx(rows["Adj Close"].to_numpy(), rel=5e-6)
    paid = pd.DatetimeIndex(rows["Date"])[dividend != 0]
    assert len(paid) == dividends
    assert paid.year.min() >= since
    assert (dividend >= 0).all()
