"""How good each published forecast was, once the volume has come. Pure; a row a forecast."""

import numpy as np
import pandas as pd

LEVELS = {"lo_95": 0.025, "lo_80": 0.1, "median": 0.5, "hi_80": 0.9, "hi_95": 0.975}  # column -> its quantile level


def score_forecasts(forecasts: pd.DataFrame, prices: pd.DataFrame) -> pd.DataFrame:
    """The forecasts whose target has a volume, with what they were worth, in their order.

    `forecasts`: ticker, cutoff, ds (datetime64), lo_95, lo_80, median, hi_80, hi_95 (shares as of the cutoff), and
    any more. `prices`: ticker, session (datetime64), volume (shares as of the last session), split (new shares per old
    one, 0 without); from the first cutoff on, each ticker and session once.

    Adds actual (int64, shares as of the cutoff: a split in between changes the unit, not the forecast's worth),
    absolute_error (shares, of the median), pinball (shares: the mean of the quantile losses of LEVELS), in_80, in_95,
    over (bool: the median lies above the actual).
    """
    volumes = pd.DataFrame(prices[["ticker", "session", "volume"]]).rename(
        columns={"session": "ds", "volume": "actual"}
    )
    rows = forecasts.astype({"ds": "datetime64[s]", "cutoff": "datetime64[s]"}).merge(
        volumes.astype({"ds": "datetime64[s]"}), on=["ticker", "ds"]
    )
    rows["actual"] = (rows["actual"] / _shares_now(rows, prices)).round().astype("int64")
    actual = rows["actual"]
    losses = [np.maximum(q * (actual - rows[name]), (q - 1) * (actual - rows[name])) for name, q in LEVELS.items()]
    return rows.assign(
        absolute_error=(rows["median"] - actual).abs().astype("float64"),
        pinball=sum(losses) / len(losses),
        in_80=actual.between(rows["lo_80"], rows["hi_80"]),
        in_95=actual.between(rows["lo_95"], rows["hi_95"]),
        over=rows["median"] > actual,
    )


def _shares_now(rows: pd.DataFrame, prices: pd.DataFrame) -> np.ndarray:
    """What one share of each row's cutoff has become by the last session."""
    shares = np.ones(len(rows))
    splits = prices.loc[prices["split"] > 0, ["ticker", "session", "split"]]
    for ticker, session, split in splits.itertuples(index=False):
        shares[np.asarray((rows["ticker"] == ticker) & (rows["cutoff"] < session))] *= split
    return shares
