"""Stored rows that a rewritten history did not replace, taken to its shares. Pure; bars of one ticker, by session.

After a split a source gives its history anew, in today's shares. A row that is missing or bad there stays as it was
stored, in the shares of before: closes of 9.26, 9.29, 92.3, 9.36. The replaced rows around it say by how much:

1. the splits that were not stored cut the sessions into stretches; in each of them the old and the new close of the
   replaced rows have one ratio, that of the later splits among them
2. a stretch without replaced rows goes by the close that follows it: whether it moves by the ratio of the splits
3. where no split explains it, five rows or more that agree on a ratio do
"""

import numpy as np
import pandas as pd

from volcast.storage.adjustment import without_splits

NEAREST = 11  # replaced rows around a row that say how it has to change
LEAST = 5  # of them, where no split says so, too
SAME = 0.02  # of a log ratio: by so much a split's ratio may be missed; a smaller change is a correction of values
STEADY = 2e-3  # of a log ratio: rows of one change of shares agree within the rounding of small prices


def in_new_shares(stored: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Those of the `stored` rows without a row in `new` that have to change, as they should be; columns of BARS."""
    kept = stored.loc[~stored["session"].isin(new["session"])]
    if kept.empty:
        return kept
    both = new.merge(stored, on="session", suffixes=("", "_stored"))
    splits = _unknown_splits(new, stored)
    edges = splits["session"].to_numpy()
    later = np.r_[np.cumprod(splits["split"].to_numpy()[::-1])[::-1], 1.0]  # of each stretch
    stretch, stretch_of_both = (np.searchsorted(edges, rows["session"].to_numpy(), "right") for rows in (kept, both))
    price, volume = np.ones(len(kept)), np.ones(len(kept))
    for number in np.unique(stretch):
        rows, around = np.flatnonzero(stretch == number), both.loc[stretch_of_both == number]
        if around.empty:
            price[rows] = volume[rows] = _by_the_close_after(kept.iloc[rows], new, float(later[number]))
        else:
            price[rows], volume[rows] = _by_the_rows_around(kept.iloc[rows], around, float(later[number]))
    is_other = (price != 1.0) | (volume != 1.0)
    shares = pd.Series(price, index=kept.index)
    changed = without_splits(kept, 1 / shares)
    by_itself = without_splits(kept, 1 / pd.Series(volume, index=kept.index))["volume"]
    return changed.assign(volume=by_itself).loc[is_other]


def _unknown_splits(new: pd.DataFrame, stored: pd.DataFrame) -> pd.DataFrame:
    """session, split: those of `new` that the stored rows do not have."""
    known = stored.set_index("session")["split"].reindex(new["session"]).fillna(0.0).to_numpy()
    return new.loc[(new["split"] > 0) & (np.abs(new["split"] - known) > 1e-9), ["session", "split"]]


def _by_the_close_after(rows: pd.DataFrame, new: pd.DataFrame, ratio: float) -> float:
    after = new.loc[new["session"] > rows["session"].iloc[-1]]
    if after.empty or ratio == 1.0:
        return 1.0
    fall = np.log(rows["close"].iloc[-1] / after["close"].iloc[0])
    return ratio if abs(fall - np.log(ratio)) < abs(fall) else 1.0


def _by_the_rows_around(rows: pd.DataFrame, around: pd.DataFrame, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """By how much the prices of each row fall, and its volume grows."""
    falls = np.log((around["close_stored"] / around["close"]).to_numpy())
    growths = np.log((around["volume"] / around["volume_stored"]).to_numpy())
    begin = np.searchsorted(around["session"].to_numpy(), rows["session"].to_numpy()) - NEAREST // 2
    price, volume = np.ones(len(rows)), np.ones(len(rows))
    for row, first in enumerate(np.clip(begin, 0, max(len(around) - NEAREST, 0))):
        near = slice(first, first + NEAREST)
        fall, growth = np.median(falls[near]), np.median(growths[near])
        if abs(fall) < SAME:
            continue
        if abs(fall - np.log(ratio)) < SAME:
            price[row] = volume[row] = ratio
        elif (np.abs(falls[near] - fall) < STEADY).sum() >= LEAST:
            price[row] = np.exp(fall)
            volume[row] = np.exp(growth if abs(growth) > SAME else 0.0)
    return price, volume
