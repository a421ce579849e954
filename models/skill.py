"""What live forecasts were worth against har and naive, from their scores alone.

With e the absolute error, s the ticker's scale (the mean of |y(t) - y(t - 5)| up to the cutoff), and the mean over the
rows of one ticker, or over the tickers of all:
    mase         mean(e / s)
    mase_har     mean(e / s) over that of har on the same rows: below 1, the published forecast is better; mase_naive
    pinball_har  the same of the quantile losses; pinball_naive
    coverage_80, coverage_95   the share of actual volumes inside of the interval
    bias         mean(f - y) / mean(y)
    over_share   the share of forecasts above the actual
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

WINDOWS = (5, 20, 60)  # target sessions: a week, a month, a quarter
ALL = "all"  # the mean over the tickers
RIVALS = ("har", "naive")
LOSSES = ("mase", "pinball")
SHARES = {"in_80": "coverage_80", "in_95": "coverage_95", "over": "over_share"}  # of rows, column -> name
KEY = ["ticker", "cutoff", "h"]


def live_skill(scores: pd.DataFrame, windows: Sequence[int] = WINDOWS) -> pd.DataFrame:
    """A row a window and ticker, ALL first; no row where nothing is scored.

    `scores`: ticker, cutoff, ds (datetime64), h, model, published, scale, actual, absolute_error, pinball (shares),
    in_80, in_95, over; of one forecast, any order. Returns sessions (int, of the window), ticker, rows, and the columns
    above (float64; NaN for a ratio to a rival that has no score).
    """
    rows = _beside_rivals(scores.loc[scores["scale"].notna()])
    newest = np.unique(rows["ds"].to_numpy())[::-1]
    tables = [
        _window(rows.loc[rows["ds"] >= newest[min(count, len(newest)) - 1]], count) for count in windows if len(rows)
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"sessions": [], "ticker": [], "rows": []})


def _beside_rivals(scores: pd.DataFrame) -> pd.DataFrame:
    """What was published, with the losses of the rivals from the same cutoff, all in units of the scale."""
    units = scores.assign(
        mase=scores["absolute_error"] / scores["scale"],
        pinball=scores["pinball"] / scores["scale"],
        error=scores["absolute_error"].where(scores["over"], -scores["absolute_error"]),
    )
    rows = units.loc[units["published"]]
    for rival in RIVALS:
        # what a fallback published is in the ledger once, and is its own rival
        own = units.loc[units["model"] == rival, [*KEY, "mase", "pinball"]]
        rows = rows.merge(own, on=KEY, how="left", suffixes=("", f"_of_{rival}"))
        for loss in LOSSES:
            rows[f"{loss}_beside_{rival}"] = rows[loss].where(rows[f"{loss}_of_{rival}"].notna())
    return rows


def _window(rows: pd.DataFrame, sessions: int) -> pd.DataFrame:
    losses = [name for name in rows.columns if name.startswith(LOSSES)]
    grouped = rows.groupby("ticker")
    means = pd.DataFrame(grouped[[*losses, *SHARES, "error", "actual"]].mean())
    means["bias"] = means["error"] / means["actual"]
    means.insert(0, "rows", grouped.size())
    total = means.mean().to_frame(ALL).T.assign(rows=len(rows))
    whole = pd.concat([total, means]).rename_axis("ticker").reset_index()
    pairs = [(loss, rival) for loss in LOSSES for rival in RIVALS]
    ratios = {f"{loss}_{rival}": whole[f"{loss}_beside_{rival}"] / whole[f"{loss}_of_{rival}"] for loss, rival in pairs}
    columns = ["sessions", "ticker", "rows", "mase", *ratios, *SHARES.values(), "bias"]
    named = whole.assign(sessions=sessions, **ratios).rename(columns=SHARES)
    return named.loc[:, columns].astype({"rows": "int64"})
