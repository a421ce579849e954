"""How long an order takes at a share of the volume, and how liquid a position is by SEC rule 22e-4.

An order of S shares that is traded at a rate r of the volume is done by the first session at whose end r times the
volume so far is S or more. How likely that is each session follows from the paths of models/sums.py. The order's own
shares count as part of the volume.
"""

from datetime import date, timedelta

import numpy as np
import pandas as pd

from volcast.models.panel import HORIZONS
from volcast.models.sums import KEYS, of_sums, session_quantiles, wide

# R orders, H horizons (1 to HORIZONS), D draws, X what is found

CERTAINTIES = (0.8, 0.95)
WEEK = timedelta(days=7)
HIGHLY, MODERATELY, LESS, ILLIQUID = BUCKETS = ("highly liquid", "moderately liquid", "less liquid", "illiquid")
CASH_SESSIONS = 3  # business days, in which what is highly liquid becomes cash


def order_progress(frame: pd.DataFrame, shares: dict[str, float], rate: float) -> pd.DataFrame:
    """How far each order gets, by ticker and session: unique_id, cutoff, ds, sessions (1 to HORIZONS), and as float64
    chance (that all of it is done by then), shares_80 and shares_95 (done by then with that certainty, of any order).

    `frame`: a forecast of one cutoff, with the columns of `volcast.models.volume_evaluation.forecast_frame`, and a row
    of each ticker of `shares` and session ahead.
    """
    own = frame.loc[frame["unique_id"].isin(list(shares))]
    ds = wide(own, "ds")
    order_R11 = ds.index.get_level_values("unique_id").map(shares).to_numpy(np.float64)[:, None, None]

    def find(done_RHD: np.ndarray) -> np.ndarray:
        certain = np.quantile(done_RHD, [1 - certainty for certainty in CERTAINTIES], axis=2)
        return np.stack([np.mean(done_RHD >= 1, axis=2), *certain], axis=2)

    found_RHX = of_sums(session_quantiles(own) * (rate / order_R11), find)  # in units of the order
    found_RHX[:, :, 1:] *= order_R11
    columns = ("chance", *(f"shares_{certainty * 100:.0f}" for certainty in CERTAINTIES))
    return pd.DataFrame(
        {
            **{key: np.repeat(ds.index.get_level_values(key), HORIZONS) for key in KEYS},
            "ds": ds.to_numpy().ravel(),
            "sessions": np.tile(np.arange(1, HORIZONS + 1), len(ds)),
            **{column: found_RHX[:, :, place].ravel() for place, column in enumerate(columns)},
        }
    )


def sessions_needed(progress: pd.DataFrame, certainty: float) -> int | None:
    """Of one order: the sessions after which all of it is done with this certainty; None for more than HORIZONS."""
    enough = progress.loc[progress["chance"] >= certainty, "sessions"]
    return None if enough.empty else int(enough.min())


def bucket(progress: pd.DataFrame, needed: int | None, settlement: int) -> str:
    """The bucket of SEC rule 22e-4(b)(1)(ii) of a position that takes so many sessions, and then as many to settle.

    Highly liquid: cash within three business days. Moderately liquid: cash within seven calendar days. Less liquid:
    sold within seven calendar days, and settled later. Illiquid: the others.
    """
    if needed is None:
        return ILLIQUID
    if needed + settlement <= CASH_SESSIONS:
        return HIGHLY
    sessions, cutoff = [each.date() for each in progress["ds"]], progress["cutoff"].iloc[0].date()
    cash_at = needed - 1 + settlement
    if cash_at < len(sessions) and _is_within_a_week(cutoff, sessions[cash_at]):
        return MODERATELY
    return LESS if _is_within_a_week(cutoff, sessions[needed - 1]) else ILLIQUID


def _is_within_a_week(cutoff: date, session: date) -> bool:
    return session - cutoff <= WEEK
