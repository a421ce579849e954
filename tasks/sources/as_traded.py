"""Prices as they were traded become prices in today's shares, which is what a source of bars promises.

Tiingo, Alpha Vantage, Quandl and EODHD give what was traded, with a factor on the session of a split (1.0 on all
others) or with an adjusted close beside. Yahoo gives today's shares and lists the split as well, but for the splits
that it fails to apply. The headings do not tell which of these a file is; its numbers do:

1. a listed split is 0 or 1 where there is none; a step of the adjusted close, or of the adjusted volume, that is a
   plain ratio such as 4:1 is a split that the file does not list
2. each split is held against what lies on both sides of it: the adjusted close and volume, if the file has them, and
   the close, which moves by the ratio only where prices are as traded
3. where neither tells, as with a stock dividend of 5 %, the split is as the file's others are; without any, as traded
   where the file writes 1 for no split
4. prices and dividends before a split that is as traded are divided by its ratio, volumes are multiplied: whole shares,
   and at least one where any was traded

Raises Contradiction where the numbers fit neither.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd

from volcast.models.text import counted
from volcast.storage.adjustment import NOISE_BOUNDS, dividends_from_adj_close, factor_noise, without_splits
from volcast.tasks.sources.source import SourceUnusable

SURE = 6.0  # times the usual move of a session: a ratio beyond it can be told from a move
APART = 1 / 3  # of a split's log ratio: a step that is farther from both "moved by it" and "did not move" fits neither
NEARBY = 5  # rows on each side in which the prices of a split that is listed elsewhere are looked for
AROUND = 60  # rows on each side whose median volume says whether it moved with the price
LEAST_RATIO = 1.24  # of a split that is not listed; below it a dividend is as likely
FEW_SHARES = 100  # an adjusted volume below it may be off by its rounding
LARGEST_TERM = 5  # of the plain ratios a:b, in lowest terms the smaller of both
AS_TRADED, ADJUSTED = True, False


class Contradiction(SourceUnusable):
    """The file's prices fit neither reading of its splits; the others of its tickers are not concerned."""


@dataclass(frozen=True)
class _Series:
    """One ticker's rows with a usable close (n,), logarithms where so named; NaN where the file has none.

    A single wrong price or volume says nothing of a split: its row is left out, and the rules look at it later.
    """

    place: np.ndarray  # of each in the ticker's rows
    log_close: np.ndarray
    log_volume: np.ndarray
    log_factor: np.ndarray  # adjusted close over close
    log_shares: np.ndarray  # adjusted volume over volume
    noise: np.ndarray  # relative, of the factor

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "_Series":
        close = rows["close"].to_numpy()
        lacking = np.full(len(rows), np.nan)
        adjusted = {name: rows[name].to_numpy() if name in rows else lacking for name in ("adj_close", "adj_volume")}
        is_usable = np.isfinite(close) & (close > 0) & ~_is_beside_its_range(rows)
        for value, base in ((adjusted["adj_close"], close), (adjusted["adj_volume"], rows["volume"].to_numpy())):
            is_usable &= ~_is_slip(_log(value) - _log(base))
        place = np.flatnonzero(is_usable)
        logs = {
            name: _log(values[place]) for name, values in (adjusted | {"volume": rows["volume"].to_numpy()}).items()
        }
        log_close = np.log(close[place])
        return cls(
            place=place,
            log_close=log_close,
            log_volume=logs["volume"],
            log_factor=logs["adj_close"] - log_close,
            log_shares=logs["adj_volume"] - logs["volume"],
            noise=factor_noise(close[place], adjusted["adj_close"][place]),
        )

    def step(self, values: np.ndarray, at: int) -> float:
        """How much the logarithm changes from the row before `at` to it."""
        return float(values[at] - values[at - 1])

    def usual_move(self) -> float:
        """The usual absolute move of a session, as a standard deviation; at least 1 %."""
        moves = np.abs(np.diff(self.log_close))
        return max(1.4826 * float(np.median(moves)), 0.01) if len(moves) else 0.01

    def volume_step(self, at: int) -> float:
        """How much the median of the volume changes there; NaN with less than five rows on a side."""
        sides = self.log_volume[max(at - AROUND, 0) : at], self.log_volume[at : at + AROUND]
        known = [side[np.isfinite(side)] for side in sides]
        return float(np.median(known[1]) - np.median(known[0])) if min(map(len, known)) >= 5 else float("nan")


def in_todays_shares(ticker: str, rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows with all prices, volumes and dividends in the shares of the last one, and what was changed, as lines.

    `rows`: session, open, high, low, close, volume and, where there are any, adj_close, adj_volume, dividend, split;
    one ticker, by session. The split is 0 where there is none. Raises Contradiction.
    """
    rows, writes_one = _without_ones(rows)
    series = _Series.of(rows)
    listed = {at: ratio for at, ratio in _listed(rows, series).items() if at > 0}
    verdicts = {at: _judge(ticker, rows, series, at, ratio) for at, ratio in listed.items()}
    told = [verdict for verdict in verdicts.values() if verdict is not None]
    usual = np.mean(told) > 0.5 if told else writes_one
    as_traded = {at: exact_ratio(listed[at]) for at in listed if (usual if verdicts[at] is None else verdicts[at])}
    as_traded |= _unlisted(ticker, rows, series, set(listed))
    if not as_traded:
        return rows, ()
    adjusted = _adjusted(rows, series, as_traded, listed)
    _check_volume(ticker, rows, adjusted)
    names = [f"{shown_ratio(ratio)} on {_date(rows, series, at)}" for at, ratio in sorted(as_traded.items())]
    changed = f"{counted(series.place[max(as_traded)], 'row')} taken to today's shares"
    return adjusted, (f"{ticker}: prices as they were traded, {changed}: split {', '.join(names)}",)


def exact_ratio(ratio: float) -> float:
    """The ratio, but that of a reverse split as 1:n where it is that in fewer decimals: 0.005263 is 1/190."""
    inverse = round(1 / ratio)
    decimals = len(f"{ratio:.12f}".rstrip("0").split(".")[1])
    return 1 / inverse if inverse > 1 and abs(ratio - 1 / inverse) <= 0.5 * 10.0**-decimals else ratio


def shown_ratio(ratio: float) -> str:
    """New shares for old ones: `4:1`, `1:20`, `3:2`."""
    plain = Fraction(ratio).limit_denominator(20) if ratio > 1 else 1 / Fraction(1 / ratio).limit_denominator(20)
    return f"{plain.numerator}:{plain.denominator}" if abs(float(plain) / ratio - 1) < 1e-4 else f"{ratio:.6g}:1"


def _without_ones(rows: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """The rows with a split of 0 where there is none, and whether the file writes 1 there."""
    if "split" not in rows:
        return rows, False
    split = rows["split"].fillna(0.0)
    is_one = split == 1.0
    return rows.assign(split=split.mask(is_one, 0.0)), bool(is_one.mean() > 0.5)


def _listed(rows: pd.DataFrame, series: _Series) -> dict[int, float]:
    """The listed splits: the first usable row of the split's session or after it (as its number) -> the ratio."""
    if "split" not in rows:
        return {}
    split = rows["split"].where(~rows.duplicated("session"), 0.0).to_numpy()
    found: dict[int, float] = {}
    for place in np.flatnonzero((split > 0) & np.isfinite(split)):
        at = int(np.searchsorted(series.place, place))
        if at < len(series.place):
            found[at] = found.get(at, 1.0) * float(split[place])
    return found


def _judge(ticker: str, rows: pd.DataFrame, series: _Series, at: int, ratio: float) -> bool | None:
    """AS_TRADED, ADJUSTED, or None where the split is too small to tell. Raises Contradiction."""
    log_ratio, sure = float(np.log(ratio)), SURE * series.usual_move()
    beside = [_nearer(series.step(values, at), log_ratio, APART) for values in (series.log_factor, -series.log_shares)]
    says_traded = AS_TRADED in beside
    if abs(log_ratio) <= sure:
        return AS_TRADED if says_traded else ADJUSTED if ADJUSTED in beside else None
    by_price = _nearer(-series.step(series.log_close, at), log_ratio, max(APART, sure / abs(log_ratio)))
    elsewhere = _moved_elsewhere(series, at, log_ratio) if by_price is ADJUSTED else None
    if by_price is AS_TRADED or (by_price is ADJUSTED and elsewhere is None and not says_traded):
        return by_price
    before, after = np.exp(series.log_close[at - 1 : at + 1])
    there = f", and by about that on {_date(rows, series, elsewhere)}" if elsewhere is not None else ""
    beside_it = ", and the adjusted columns are those of prices as traded" if says_traded else ""
    raise Contradiction(
        f"{ticker} {_date(rows, series, at)}: the file lists a split of {shown_ratio(ratio)}; the close goes from "
        f"{before:.6g} to {after:.6g}{there}{beside_it}. Expected about {before / ratio:.6g} where prices are as "
        f"traded, or {before:.6g} where they are adjusted for splits. Correct the split or the prices."
    )


def _nearer(step: float, log_ratio: float, apart: float) -> bool | None:
    """Whether a step is that of the ratio (AS_TRADED) or none; None where it is neither, or not known."""
    share = step / log_ratio
    if not np.isfinite(share) or min(abs(share), abs(share - 1)) > apart:
        return None
    return AS_TRADED if share > 0.5 else ADJUSTED


def _moved_elsewhere(series: _Series, at: int, log_ratio: float) -> int | None:
    """A row near the split at which the close moves by the ratio, where it does not at the split itself."""
    for other in range(max(at - NEARBY, 1), min(at + NEARBY + 1, len(series.place))):
        if _nearer(-series.step(series.log_close, other), log_ratio, APART / 2) is AS_TRADED:
            return other
    return None


def _unlisted(ticker: str, rows: pd.DataFrame, series: _Series, listed: set[int]) -> dict[int, float]:
    """Splits that only the adjusted columns know: the row of each -> the ratio. Raises Contradiction."""
    steps, by_volume = np.diff(series.log_factor, prepend=np.nan), -np.diff(series.log_shares, prepend=np.nan)
    noise = NOISE_BOUNDS * (series.noise + np.r_[np.nan, series.noise[:-1]])
    is_large = np.abs(np.where(np.isfinite(steps), steps, by_volume)) > np.log(LEAST_RATIO)
    found: dict[int, float] = {}
    for at in set(np.flatnonzero(is_large).tolist()) - listed:
        step, is_known = (steps[at], False) if np.isfinite(steps[at]) else (by_volume[at], True)
        ratio = _plain(float(np.exp(step)), noise[at] if np.isfinite(noise[at]) else 1e-3)
        moved = _nearer(-series.step(series.log_close, at), step, max(APART, SURE * series.usual_move() / abs(step)))
        if moved is not AS_TRADED or (ratio is None and not _is_split_with_dividend(series, at, step)):
            continue  # a dividend, which the rules look at
        if ratio is None:
            raise Contradiction(_no_ratio(ticker, rows, series, at))
        is_known = is_known or bool(abs(by_volume[at] - step) < APART * abs(step))
        if is_known or _volume_moved(ticker, rows, series, at, ratio):
            found[int(at)] = ratio
    return found


def _is_split_with_dividend(series: _Series, at: int, step: float) -> bool:
    """Whether a step that is no plain ratio must be a split all the same: no dividend raises the factor of later rows.

    A dividend of up to 2 % on the session of a split, with volumes that follow the split, is one too.
    """
    ratio, share = float(np.exp(step)), series.volume_step(at) / step
    return step < 0 or (ratio >= 2 and 0 < ratio / round(ratio) - 1 < 0.02 and 0.6 < share < 1.5)


def _no_ratio(ticker: str, rows: pd.DataFrame, series: _Series, at: int) -> str:
    before, after = np.exp(series.log_close[at - 1 : at + 1])
    ratio = float(np.exp(series.step(series.log_factor, at)))
    return (
        f"{ticker} {_date(rows, series, at)}: the close goes from {before:.6g} to {after:.6g}, and by the adjusted "
        f"close this is no move of the price: a factor of {ratio:.6g}, which is no plain ratio of a split. "
        "Add columns Stock Splits and Dividends."
    )


def _plain(ratio: float, noise: float) -> float | None:
    """The ratio of small whole numbers that this is, within its noise; None where it is none."""
    larger = max(ratio, 1 / ratio)
    plain = float(Fraction(larger).limit_denominator(LARGEST_TERM))
    if abs(plain / larger - 1) > noise:
        return None
    return plain if ratio > 1 else 1 / plain


def _volume_moved(ticker: str, rows: pd.DataFrame, series: _Series, at: int, ratio: float) -> bool:
    """Whether the step is a split: a reverse one always is, of others the volume tells. Raises Contradiction."""
    if ratio < 1 and at == len(series.place) - 1:
        raise Contradiction(
            f"{ticker} {_date(rows, series, at)}: by the adjusted close there is a split of {shown_ratio(ratio)}, but "
            "the newest row alone says so, and a wrong price looks alike. Correct it, or add a column Stock Splits."
        )
    share = series.volume_step(at) / np.log(ratio)
    if ratio < 1 or share > 0.75:  # no dividend raises the factor
        return True
    if share < 0.25:
        return False
    close = np.exp(series.log_close[at - 1])
    raise Contradiction(
        f"{ticker} {_date(rows, series, at)}: the adjusted close says a split of {shown_ratio(ratio)}, or a dividend "
        f"of {close * (1 - 1 / ratio):.6g} at a close of {close:.6g}; the volume does not tell which. "
        "Add a column Stock Splits or Dividends."
    )


def _adjusted(
    rows: pd.DataFrame, series: _Series, as_traded: dict[int, float], listed: dict[int, float]
) -> pd.DataFrame:
    """The rows in today's shares, with each split in its place."""
    shares, of_adj_close = _later(rows, series, as_traded), np.ones(len(rows))
    if "adj_close" in rows:  # one that knows of a split has a step there; one that does not is as traded itself
        known = [at for at, q in as_traded.items() if _nearer(series.step(series.log_factor, at), np.log(q), APART)]
        of_adj_close = _later(rows, series, {at: q for at, q in as_traded.items() if at not in known})
    split = rows["split"].to_numpy().copy() if "split" in rows else np.zeros(len(rows))
    for at, ratio in as_traded.items():
        place = series.place[at]
        is_listed = split[place] > 0 or at in listed
        split[place] = ratio if not is_listed or split[place] > 0 else 0.0  # a row without prices may list it
    dividend = pd.Series(rows.get("dividend", 0.0), index=rows.index)
    bars = without_splits(rows.assign(dividend=dividend, split=split), pd.Series(1 / shares, index=rows.index))
    if "adj_close" in rows:
        bars["adj_close"] = rows["adj_close"] / of_adj_close
        divided = pd.Series(dividend.to_numpy() / _later(rows, series, listed | as_traded), index=rows.index)
        bars["dividend"] = _nearest_dividend(bars, dividend, divided)
    return bars if "dividend" in rows else bars.drop(columns="dividend")


def _later(rows: pd.DataFrame, series: _Series, splits: dict[int, float]) -> np.ndarray:
    """(rows,): today's shares for one share of each row."""
    steps = np.ones(len(rows) + 1)
    for at, ratio in splits.items():
        steps[series.place[at]] *= ratio
    return np.cumprod(steps[::-1])[::-1][1:]


def _nearest_dividend(bars: pd.DataFrame, as_listed: pd.Series, divided: pd.Series) -> pd.Series:
    """The dividends as the file lists them or divided by later splits, whichever the adjusted close confirms."""
    close, adj_close = bars["close"].to_numpy(), bars["adj_close"].to_numpy()
    usable = np.isfinite(close) & (close > 0) & np.isfinite(adj_close) & (adj_close > 0)
    recovered = np.full(len(bars), np.nan)
    recovered[usable] = dividends_from_adj_close(close[usable], adj_close[usable])[0]
    is_paid = ((as_listed > 0) & (as_listed != divided)).to_numpy() & (recovered > 0)
    errors = [np.abs(each.to_numpy() - recovered)[is_paid] for each in (as_listed, divided)]
    return as_listed if is_paid.any() and np.median(errors[0]) < np.median(errors[1]) else divided


def _check_volume(ticker: str, rows: pd.DataFrame, adjusted: pd.DataFrame) -> None:
    """Raises Contradiction where the file's own adjusted volume is another."""
    if "adj_volume" not in rows:
        return
    before, after, theirs = (
        frame[name].to_numpy() for frame, name in ((rows, "volume"), (adjusted, "volume"), (rows, "adj_volume"))
    )
    changed = np.flatnonzero((after != before) & (theirs > FEW_SHARES))
    if len(changed) and np.median(np.abs(after[changed] / theirs[changed] - 1)) > 0.01:
        row = changed[0]
        raise Contradiction(
            f"{ticker} {rows['session'].iloc[row]:%Y-%m-%d}: the volume {before[row]:,.0f} is {after[row]:,.0f} in "
            f"today's shares by the file's splits, and {theirs[row]:,.0f} by its adjusted volume. Correct one of them."
        )


def _is_beside_its_range(rows: pd.DataFrame) -> np.ndarray:
    """(rows,): whether the close is not between low and high, by more than their rounding."""
    close, low, high = (rows[name] for name in ("close", "low", "high"))
    return ((close < 0.995 * low) | (close > 1.005 * high)).to_numpy()


def _is_slip(log_factor: np.ndarray) -> np.ndarray:
    """(rows,): the up to NEARBY rows at a time in which a factor leaves its level and comes back to it."""
    is_slip = np.zeros(len(log_factor), bool)
    known = np.flatnonzero(np.isfinite(log_factor))
    factor, least = log_factor[known], np.log(LEAST_RATIO)
    for at in np.flatnonzero(np.abs(np.diff(factor)) > least) + 1:
        level = factor[at - 1]
        if is_slip[known[at - 1]]:
            continue  # the way back
        back = np.flatnonzero(np.abs(factor[at + 1 : at + 1 + NEARBY] - level) < APART * abs(factor[at] - level))
        if len(back):
            is_slip[known[at : at + 1 + back[0]]] = True
    return is_slip


def _log(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(np.where(values > 0, values, np.nan))


def _date(rows: pd.DataFrame, series: _Series, at: int) -> str:
    return f"{rows['session'].iloc[series.place[at]]:%Y-%m-%d}"
