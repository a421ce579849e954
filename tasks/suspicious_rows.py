"""What a bar tells when it is held against its neighbours: what is certainly wrong, and what only looks so.

Certain, hence a rule that the row breaks:
1. a dividend that is not below the close before it, or one above a third of it while the close hardly falls
2. a stretch of rows whose close is more than 5 times that of the rows around it, or less than a fifth, while its volume
   is the inverse, without a split: it is in other shares. Of the stretches of a ticker the rows of the fewer shares are
   the wrong ones. A crash or a squeeze has another volume than the inverse, and most of all on its first session
3. a first or last row whose volume is below a tenth of the least of the 60 rows beside it, and farther below it than
   that is below the most, though its price moved: a file that was cut in its last number (7169236 became 716)

Doubtful, hence stored and told: a dividend above a third of the close, any other close that jumps beyond 5 times, a
first or last row with less than a third of the least volume beside it. The limits are from 5.8 million rows of 960
tickers: no crash, squeeze or special dividend among them breaks a rule.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd

from volcast.models.text import counted

LARGE_DIVIDEND = 1 / 3  # of the close before it; 48 of 60,000 true ones are larger than 0.2
DIVIDEND_TOO_LARGE = "the dividend is not below the close before it"
DIVIDEND_NOT_SHOWN = "a dividend above a third of the close, which hardly falls"
JUMP = np.log(5.0)
OTHER_SHARES = "close and volume are those of other shares, without a split"
CUT = "the volume of a first or last row was cut"
SHORT = 5  # rows; what a shorter stretch at an end trades is no usual volume
AROUND = 60  # rows of a stretch whose median volume counts
BACK = np.log(2.0)  # two jumps that differ by less undo each other
CALM = np.log(4.0)  # the session of a crash trades more than this times the usual volume after it, that of a split less
BESIDE, LEAST_BESIDE = 60, 20  # rows that a first or last one is held against, and how many there must be
TOLD = 3  # lines of a ticker
SURE, DOUBTFUL = 10, 3  # times less than the least of them


def implausible(bars: pd.DataFrame) -> tuple[pd.Series, dict[str, list[str]]]:
    """The rule of each row that breaks one, on their index; and for each ticker lines on what looks doubtful.

    `bars`: BAR_COLUMNS, by ticker and session, each of them good by itself.
    """
    found: dict[int, str] = {}
    doubts: dict[str, list[str]] = {}
    starts = np.r_[np.flatnonzero(bars["ticker"] != bars["ticker"].shift()), len(bars)]
    for look in (_dividends, _other_shares, _cut_rows) if len(bars) else ():
        for row, text in look(bars, starts, found):
            name = str(bars["ticker"].iat[row])
            doubts.setdefault(name, []).append(f"{name} {bars['session'].iat[row]:%Y-%m-%d}: {text}; it is stored")
    for name, lines in doubts.items():
        lines[TOLD:] = (
            [f"{name}: {counted(len(lines) - TOLD, 'row more looks', 'rows more look')} wrong"]
            if len(lines) > TOLD
            else []
        )
    return pd.Series(list(found.values()), index=bars.index[list(found)], dtype="object"), doubts


Doubts = Iterator[tuple[int, str]]  # row -> what looks doubtful there


def _dividends(bars: pd.DataFrame, starts: np.ndarray, found: dict[int, str]) -> Doubts:
    dividend, close = bars["dividend"].to_numpy(), bars["close"].to_numpy()
    paid = np.flatnonzero(dividend > 0)
    is_first = np.isin(paid, starts)
    before = close[np.where(is_first, paid, paid - 1)]
    share = dividend[paid] / before
    falls = before - close[paid]
    is_hidden = ~is_first & (share > LARGE_DIVIDEND) & (falls < dividend[paid] / 2)
    found.update(dict.fromkeys(paid[is_hidden].tolist(), DIVIDEND_NOT_SHOWN))
    found.update(dict.fromkeys(paid[share >= 1].tolist(), DIVIDEND_TOO_LARGE))
    is_large = (share > LARGE_DIVIDEND) & ~is_first & ~is_hidden & (share < 1)
    for row, value, close_before in zip(paid[is_large], dividend[paid][is_large], before[is_large], strict=True):
        yield int(row), f"a dividend of {value:.6g} at a close of {close_before:.6g}, which falls with it"


def _other_shares(bars: pd.DataFrame, starts: np.ndarray, found: dict[int, str]) -> Doubts:
    log_close = np.log(bars["close"].to_numpy())
    moves = np.diff(log_close, prepend=log_close[0])
    is_jump = (np.abs(moves) > JUMP) & (bars["split"].to_numpy() <= 0)
    is_jump[starts[:-1]] = False
    jumps = np.flatnonzero(is_jump)
    for ticker in np.unique(np.searchsorted(starts, jumps, side="right") - 1):
        begin, end = starts[ticker : ticker + 2]
        own = jumps[(jumps >= begin) & (jumps < end)]
        edges = np.r_[begin, own, end]
        is_sure = _is_other_shares(np.log(bars["volume"].to_numpy()[begin:end]), moves[own], edges - begin)
        levels = np.round(np.cumsum(np.r_[0.0, np.where(is_sure, moves[own], 0.0)]) / JUMP)
        rows_at = {level: int(np.diff(edges)[levels == level].sum()) for level in levels}
        is_wrong = levels != max(rows_at, key=lambda level: rows_at[level])
        wrong = begin + np.flatnonzero(np.repeat(is_wrong, np.diff(edges)))
        found.update(dict.fromkeys(wrong.tolist(), OTHER_SHARES))
        for row in own[~is_sure & (bars["dividend"].to_numpy()[own] <= 0)]:
            yield (
                int(row),
                f"the close is {np.exp(moves[row]):.3g} times the one before it, without a split",
            )


def _is_other_shares(log_volume: np.ndarray, moves: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """For each move, between two stretches of `edges`, whether it is certainly none of the price."""
    sizes = np.diff(edges)
    usual = [
        (
            np.median(log_volume[first : min(last, first + AROUND)]),
            np.median(log_volume[max(first, last - AROUND) : last]),
        )
        for first, last in pairwise(edges)
    ]
    steps = np.array([after[0] - before[1] for before, after in pairwise(usual)])
    is_sure = np.zeros(len(moves), dtype=bool)
    at = 0
    while at < len(moves):
        if at + 1 < len(moves) and abs(moves[at] + moves[at + 1]) < BACK:  # up and down again: both moves or neither
            step, width = (steps[at] - steps[at + 1]) / 2, 0.5 if sizes[at + 1] >= SHORT else 1.0
            is_sure[at : at + 2] = abs(step + moves[at]) < max(width, abs(moves[at]) / 4)
            at += 2
            continue
        is_calm = abs(log_volume[edges[at + 1]] - usual[at + 1][0]) < CALM
        is_long = min(sizes[at], sizes[at + 1]) >= SHORT
        is_sure[at] = is_long and is_calm and abs(steps[at] + moves[at]) < max(0.5, abs(moves[at]) / 4)
        at += 1
    return is_sure


def _cut_rows(bars: pd.DataFrame, starts: np.ndarray, found: dict[int, str]) -> Doubts:
    volume, is_moving = bars["volume"].to_numpy(), (bars["high"] > bars["low"]).to_numpy()
    for begin, end in pairwise(starts.tolist()):
        first, last = volume[begin + 1 : min(begin + 1 + BESIDE, end)], volume[max(end - 1 - BESIDE, begin) : end - 1]
        for row, beside in ((begin, first), (end - 1, last)):
            if len(beside) < LEAST_BESIDE or volume[row] * DOUBTFUL > beside.min():
                continue
            least = beside.min()
            if is_moving[row] and least / volume[row] > max(SURE, beside.max() / least):
                found[row] = CUT
            else:
                yield row, f"a volume of {volume[row]:,.0f}, and {least:,.0f} or more in each row beside"
