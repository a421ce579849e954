"""Which forecasts of volume can be believed, by the ticker's own history as it was known at the cutoff.

Let V be the volumes of the last CONTEXT sessions up to the cutoff. A forecast of a session can be believed where all of
its numbers (point, mean, each quantile) are finite, lie between min(V) / FACTOR and max(V) * FACTOR, and its quantiles
do not fall from one level to the next.

Measured on 900 tickers of 2017 to 2020, ten sessions ahead, 9,013,068 rows: 6 true volumes in a million lie above these
bounds, 4 in a million below. Of 3,007,420 rows of har no point, mean or end of a 95 % interval does. What a training
that diverged says is off by powers of ten, so that the bounds need not be narrow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from volcast.models.forecast_columns import interval_columns, mean_column, quantile_columns
from volcast.models.forecasters import MODEL, Forecasts
from volcast.models.panel import Panel

# N tickers, C cutoffs, H horizons, Q quantile levels, R rows

CONTEXT = 504  # sessions, two years: a level of long ago bounds nothing
FACTOR = 10.0
BOUNDS = ["lowest", "highest"]
NUMBERS = [MODEL, mean_column(MODEL), *interval_columns(MODEL), *quantile_columns(MODEL)]  # of a published row
KEY = ["unique_id", "cutoff", "ds", "h"]


def bounds_at(panel: Panel, cutoffs: np.ndarray) -> np.ndarray:
    """(N, C, 2) shares: the lowest and the highest volume that can be believed; NaN where nothing was traded."""
    found_NC2 = np.full((len(panel.tickers), len(cutoffs), 2), np.nan)
    for place, cutoff in enumerate(cutoffs):
        volume_NT = panel.fields["volume"][:, max(0, cutoff + 1 - CONTEXT) : cutoff + 1]
        was_traded_N = np.isfinite(volume_NT).any(axis=1)
        found_NC2[was_traded_N, place, 0] = np.nanmin(volume_NT[was_traded_N], axis=1) / FACTOR
        found_NC2[was_traded_N, place, 1] = np.nanmax(volume_NT[was_traded_N], axis=1) * FACTOR
    return found_NC2


def bounds_now(panel: Panel) -> pd.DataFrame:
    """Ticker -> BOUNDS at the newest cutoff."""
    return pd.DataFrame(bounds_at(panel, np.array([panel.known - 1]))[:, 0], index=list(panel.tickers), columns=BOUNDS)


def implausible_share(forecasts: Forecasts, panel: Panel, usable_NT: np.ndarray) -> float:
    """The share of a model's forecasts that cannot be believed; it owes one of each usable session and horizon."""
    bounds_NC2 = bounds_at(panel, forecasts.cutoffs)
    lowest_NC11, highest_NC11 = bounds_NC2[:, :, :1, None], bounds_NC2[:, :, 1:, None]
    numbers = [forecasts.quantiles_NCHQ, forecasts.mean_NCH[..., None], forecasts.point_NCH[..., None]]
    is_believed_NCH = np.all(np.diff(forecasts.quantiles_NCHQ, axis=3) >= 0, axis=3)
    for each in numbers:
        is_believed_NCH &= np.all((each >= lowest_NC11) & (each <= highest_NC11), axis=3)  # NaN lies nowhere
    owed_NC = usable_NT[:, forecasts.cutoffs]
    return float(1 - np.asarray(is_believed_NCH)[owed_NC].mean()) if owed_NC.any() else 0.0


def faults(frame: pd.DataFrame, bounds: pd.DataFrame) -> np.ndarray:
    """(R,) str: why each row of a published forecast cannot be believed; empty where it can.

    `frame`: as `volcast.models.volume_evaluation.forecast_frame` gives it. `bounds`: ticker -> BOUNDS.
    """
    values_RK, quantiles_RQ = frame[NUMBERS].to_numpy(), frame[quantile_columns(MODEL)].to_numpy()
    lowest_R, highest_R = bounds.reindex(list(frame["unique_id"]))[BOUNDS].to_numpy().T
    least_R, most_R = values_RK.min(axis=1), values_RK.max(axis=1)
    reasons_R = np.full(len(frame), "", dtype=object)
    reasons_R[(np.diff(quantiles_RQ, axis=1) < 0).any(axis=1)] = "its quantiles fall from one level to the next"
    for row in np.flatnonzero(least_R < lowest_R):
        bound = f"{lowest_R[row]:.3g}, the lowest of {CONTEXT} sessions by {FACTOR:g}"
        reasons_R[row] = f"{least_R[row]:.3g} shares, below {bound}"
    for row in np.flatnonzero(most_R > highest_R):
        bound = f"{highest_R[row]:.3g}, {FACTOR:g} times the highest of {CONTEXT} sessions"
        reasons_R[row] = f"{most_R[row]:.3g} shares, above {bound}"
    reasons_R[~np.isfinite(values_RK).all(axis=1)] = "not finite"
    return reasons_R


@dataclass(frozen=True, kw_only=True)
class Held:
    """A row that was held back."""

    ticker: str
    session: date  # the target
    h: int
    reason: str
    by: str  # whose row is published in its place; empty where nobody has one


def hold_back(
    frame: pd.DataFrame, author: str, bounds: pd.DataFrame, stand_ins: Mapping[str, Callable[[], pd.DataFrame]]
) -> tuple[pd.DataFrame, list[Held]]:
    """The forecast without the rows that cannot be believed, each replaced by the first stand-in's that can.

    `stand_ins`: name -> its frame, made only where a row is held back. The frame comes back as it was where none is;
    else with a column `by`, who forecast each row: `author` or a stand-in.
    """
    reasons = pd.Series(faults(frame, bounds), index=_keys(frame))
    held = reasons.loc[reasons != ""]
    if held.empty:
        return frame, []
    by, published = pd.Series("", index=held.index), [frame.loc[(reasons == "").to_numpy()].assign(by=author)]
    for name, make in stand_ins.items():
        theirs = make()
        is_taken = (faults(theirs, bounds) == "") & _keys(theirs).isin(by.index[(by == "").to_numpy()])
        taken = pd.DataFrame(theirs.loc[is_taken])
        by.loc[_keys(taken)] = name
        published.append(taken.assign(by=name))
    whole = pd.concat(published).sort_values(["unique_id", "h"], kind="stable", ignore_index=True)
    return whole, [
        Held(ticker=ticker, session=session.date(), h=h, reason=reason, by=stand_in)
        for ((ticker, _, session, h), reason), stand_in in zip(held.items(), by, strict=True)
    ]


def _keys(frame: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(pd.DataFrame(frame[KEY]))
