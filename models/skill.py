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

from models.live_scores import LEVELS
from models.scores import BANDS

WINDOWS = (5, 20, 60)  # target sessions: a week, a month, a quarter
ALL = "all"  # the mean over the tickers
RIVALS = ("har", "naive")
LOSSES = ("mase", "pinball")
SHARES = {"in_80": "coverage_80", "in_95": "coverage_95", "over": "over_share"}  # of rows, column -> name
KEY = ["ticker", "cutoff", "h"]
ROLLING, FEWEST = 20, 5  # target sessions in a rolling mean, and at its start


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


def rolling_errors(errors: pd.DataFrame) -> pd.DataFrame:
    """MASE over the last ROLLING target sessions: index ds, columns published, har, naive; NaN before FEWEST of them.

    `errors`: ds, model, published, rows, mase (the sum over the rows).
    """
    said = errors.loc[errors["published"]].assign(model="published")
    rows = pd.concat([said, errors.loc[errors["model"].isin(RIVALS)]])
    sums = rows.pivot_table(index="ds", columns="model", values=["mase", "rows"], aggfunc="sum")
    means = pd.DataFrame(sums["mase"] / sums["rows"]).reindex(columns=["published", *RIVALS])
    return pd.DataFrame(means.rolling(ROLLING, min_periods=FEWEST).mean())


def live_calibration(below: pd.DataFrame) -> pd.DataFrame:
    """The share of volumes at or below each published quantile: index nominal level, a column a band of horizons.

    `below`: h, rows, and how many of the rows were at or below each of LEVELS.
    """
    shares = {}
    for band, ends in BANDS.items():
        inside = below.loc[below["h"].between(*ends)]
        shares[band] = [inside[name].sum() / inside["rows"].sum() for name in LEVELS]
    return pd.DataFrame(shares, index=list(LEVELS.values()))


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
