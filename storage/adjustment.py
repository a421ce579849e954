"""Dividends and the adjusted close, each computed from the other. Pure; rows of a ticker in session order.

With close C, dividend D on its ex-session, and F the factor that turns a close into an adjusted close (the method of
the Center for Research in Security Prices, used by Yahoo):

    F_T = later_adjustment of the last row          (dividends after the last row are already in it; 1.0 without any)
    F_(t-1) = F_t * (1 - D_t / C_(t-1))
    adj_close_t = C_t * F_t
"""

import numpy as np
import pandas as pd

PER_SHARE = ["open", "high", "low", "close", "dividend"]
# Yahoo's CSVs hold six decimals of what was a float32: half a unit of the sixth decimal, and 2^-24 relative.
DECIMAL_NOISE = 0.5e-6
FLOAT32_NOISE = 6e-8
# Steps without a dividend reach 3 noise bounds on SBUX and AAPL 2000..2022; the smallest real dividend is 5,000.
NOISE_BOUNDS = 5.0


def adjusted_close(bars: pd.DataFrame) -> pd.Series:
    """The adjusted close of each row, in the closes' unit and on the frame's index.

    `bars`: ticker, close, dividend, later_adjustment; sorted by ticker, then session. Only the later_adjustment of a
    ticker's last row counts.
    """
    ticker = pd.factorize(bars["ticker"])[0]
    previous_close = bars["close"].groupby(ticker).shift(1)
    step = (1.0 - bars["dividend"] / previous_close).where(bars["dividend"] != 0.0, 1.0)
    factor = step.groupby(ticker).shift(-1).fillna(bars["later_adjustment"])
    backwards = slice(None, None, -1)
    factor = factor.iloc[backwards].groupby(ticker[backwards]).cumprod().iloc[backwards]
    return (bars["close"] * factor).rename("adj_close")


def without_splits(bars: pd.DataFrame, shares: pd.Series) -> pd.DataFrame:
    """The bars as they were before later splits that made `shares` of one share (row by row, on the bars' index).

    A price is rounded to the six decimals that sources give; a volume to whole shares, and to no less than one share
    where any was traded: 50 shares before a reverse split of 1:190 did not become none.
    """
    is_split = (shares - 1.0).abs() > 1e-9  # the product comes out of logarithms
    prices = {name: (bars[name] * shares).round(6).where(is_split, bars[name]) for name in PER_SHARE}
    volume = (bars["volume"] / shares).round()
    volume = volume.mask(volume.eq(0) & bars["volume"].gt(0), 1.0).where(is_split, bars["volume"])
    return bars.assign(**prices, volume=volume.astype(bars["volume"].dtype))


def dividends_from_adj_close(close: np.ndarray, adj_close: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recover (dividend, later_adjustment) of one ticker from a file that has only Close and Adj Close.

    Both inputs: (rows,) float64, positive, in session order. Dividends are per share, in the closes' unit, on the
    ex-session; steps within rounding noise are zero. later_adjustment is 1.0 but on the last row. A factor that falls
    gives a negative dividend: that is what the file says, and a quality rule may refuse it.
    Raises ValueError when a value is missing or not positive, or the lengths differ.
    """
    close, adj_close = np.asarray(close, dtype=np.float64), np.asarray(adj_close, dtype=np.float64)
    _check_positive(close, adj_close)
    dividend, later_adjustment = np.zeros(len(close)), np.ones(len(close))
    if not len(close):
        return dividend, later_adjustment
    noise = factor_noise(close, adj_close)
    factor = adj_close / close
    is_step = np.abs(1 - factor[:-1] / factor[1:]) > NOISE_BOUNDS * (noise[:-1] + noise[1:])
    # Between two dividends the factor is constant: its median over that stretch is free of most rounding.
    stretch = np.concatenate([[0], np.cumsum(is_step)])
    smooth = pd.Series(factor).groupby(stretch).transform("median").to_numpy()
    dividend[1:] = close[:-1] * (1 - smooth[:-1] / smooth[1:])  # exactly zero inside a stretch
    later_adjustment[-1] = smooth[-1]
    return dividend, later_adjustment


def factor_noise(close: np.ndarray, adj_close: np.ndarray) -> np.ndarray:
    """How far adj_close / close may be from the true factor by the rounding of both, relative; same shape.

    An adjusted close is taken to be rounded to as many decimals as its values have, six at the most.
    """
    known = adj_close[np.isfinite(adj_close)]
    decimals = next((n for n in range(2, 6) if np.array_equal(known, known.round(n))), 6)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * FLOAT32_NOISE + DECIMAL_NOISE / close + 0.5 * 10.0**-decimals / adj_close


def _check_positive(close: np.ndarray, adj_close: np.ndarray) -> None:
    if len(close) != len(adj_close):
        raise ValueError(f"Expected as many closes as adjusted closes, got {len(close)} and {len(adj_close)}.")
    bad = ~((close > 0) & (adj_close > 0) & np.isfinite(close) & np.isfinite(adj_close))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"Row {row} of {len(close)}: expected a positive close and adjusted close, got {close[row]} and "
            f"{adj_close[row]}. Drop or quarantine the row before recovering dividends."
        )
