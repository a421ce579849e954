"""Rolling origin: forecast from each session of a test as if it were the newest, with what was known then.

1. cutoffs run from the session before the first test session to the one before the last, so that the first target is
   the first test session; targets after the last test session are left out; with a step, every so many cutoffs
2. every forecaster is fitted on the sessions up to `train_through`; with refit yearly or quarterly again at the first
   cutoff of each calendar year or quarter, the one of the first cutoff aside, on all that is known at that cutoff
3. from each fit, forecasts at the cutoffs up to the next one, all horizons
4. a row is kept where the target was traded and every forecaster has an answer: all are scored on the same rows
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import get_args

import numpy as np
import pandas as pd

from volcast.models.errors import ImpossibleTest, NotEnoughSessions
from volcast.models.forecast_columns import interval_columns, mean_column
from volcast.models.forecasters import LEVELS, Forecaster, Forecasts
from volcast.models.panel import HORIZONS, Panel
from volcast.models.recipes import Refit
from volcast.models.scores import scales
from volcast.models.text import counted, silent

# N tickers, C cutoffs, H horizons, Q quantile levels

PERIODS: dict[Refit, str] = {"yearly": "Y", "quarterly": "Q"}  # as pandas names them

OnStep = Callable[[int, int, str], None]  # steps done, steps in all, what was done


@dataclass(frozen=True, kw_only=True)
class TestSpan:
    """What is trained on and what is tested; a date on which the market is closed stands for the sessions around it."""

    __test__ = False  # pytest would take it for a test, by its name

    train_through: date  # the last session that the first fit sees
    test_start: date  # the first target
    test_end: date  # the last target
    refit: Refit = "never"
    step: int = 1  # sessions from a cutoff to the next; a multiple of 5 would meet the same weekday again and again

    def __post_init__(self) -> None:
        if self.refit not in get_args(Refit):
            raise ImpossibleTest(f"--refit must be {', '.join(get_args(Refit))}; {self.refit!r} came.")
        if self.step < 1 or (self.step > 1 and self.step % 5 == 0):
            raise ImpossibleTest(f"The step must be 1 or more and no multiple of 5, a week; {self.step} came.")
        if self.train_through >= self.test_start:
            raise ImpossibleTest(
                f"The train sessions end on {self.train_through}, the test begins on {self.test_start}: a test on what "
                "was trained on says nothing. Let --train-through be before --test-start."
            )
        if self.test_start > self.test_end:
            raise ImpossibleTest(f"The test begins on {self.test_start}, after it ends on {self.test_end}.")


@dataclass(frozen=True, kw_only=True)
class _Places:
    """A TestSpan as places in a panel's sessions."""

    train_through: int
    first_target: int
    last_target: int
    step: int

    @property
    def cutoffs(self) -> np.ndarray:
        """(C,) the cutoffs: each has a target inside of the test."""
        return np.arange(self.first_target - 1, self.last_target, self.step)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One of the fits of a test, which can be tested by itself."""

    number: int  # from 1
    of: int  # how many there are
    through: date  # the last session that it sees

    @property
    def words(self) -> str:
        """Such as `fit 2 of 9, through 2020-06-30`."""
        return f"fit {self.number} of {self.of}, through {self.through}"


def backtest(
    panel: Panel, forecasters: Sequence[Forecaster], span: TestSpan, *, on_step: OnStep = silent
) -> pd.DataFrame:
    """Every forecast of a test, beside what came true; utilsforecast's losses take it as it is.

    Returns unique_id (str, the ticker), cutoff, ds (datetime64[s], last session known and target session), h (int64,
    sessions ahead, 1 to HORIZONS), y (float64, shares), and for each forecaster X, in their order, float64 shares: X
    (the point), X-lo-80, X-hi-80, X-lo-95, X-hi-95, and X-mean where its mean is another number than its point. Sorted
    by unique_id, cutoff, h; no NaN.

    `on_step` is called as `rows_of_fit` does. Raises ImpossibleTest for dates outside of the panel, NotEnoughSessions
    where no ticker has a history that is long enough.
    """
    frames = [rows_of_fit(panel, forecasters, span, fit, on_step=on_step) for fit in fits_of(panel, span)]
    return join_fits(panel, span, frames)


def fits_of(panel: Panel, span: TestSpan) -> tuple[Fit, ...]:
    """The fits of a test, in order. Raises ImpossibleTest."""
    schedule = _schedule(panel, _places(panel, span), span.refit)
    return tuple(
        Fit(number=number, of=len(schedule), through=panel.sessions.date[through])
        for number, (through, _) in enumerate(schedule, start=1)
    )


def rows_of_fit(
    panel: Panel, forecasters: Sequence[Forecaster], span: TestSpan, fit: Fit, *, on_step: OnStep = silent
) -> pd.DataFrame:
    """The rows of `backtest` from the cutoffs that are forecast with one fit; they may be none.

    `on_step` is called after the fit of each forecaster and after its forecasts, and told of rows that are left out
    because some horizons of a cutoff are not finite.
    """
    places = _places(panel, span)
    through, cutoffs = _schedule(panel, places, span.refit)[fit.number - 1]
    answers, steps = {}, 2 * len(forecasters)
    for done, forecaster in enumerate(forecasters):
        fitted = forecaster.fit(panel, through=through)
        on_step(2 * done + 1, steps, f"{forecaster.name} fitted through {panel.sessions[through]:%Y-%m-%d}")
        answers[forecaster.name] = answer = fitted.forecast(panel, cutoffs)
        left_out = _not_finite(panel, answer, last_target=places.last_target)
        on_step(2 * done + 2, steps, f"{forecaster.name} forecast {counted(len(cutoffs), 'session')}{left_out}")
    return _rows(panel, answers, cutoffs, last_target=places.last_target)


def join_fits(panel: Panel, span: TestSpan, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """What `backtest` returns, from the rows of all fits. Raises NotEnoughSessions where there are none."""
    frame = pd.concat(frames, ignore_index=True)
    if frame.empty:
        raise NotEnoughSessions(
            f"None of the {counted(len(panel.tickers), 'ticker')} has a forecast of every forecaster in the test "
            f"sessions {span.test_start} to {span.test_end}; the sessions begin on {panel.sessions[0]:%Y-%m-%d}. "
            "Bring in an earlier start, or test on later sessions."
        )
    return frame.sort_values(["unique_id", "cutoff", "h"], ignore_index=True)


def train_scales(panel: Panel, span: TestSpan) -> pd.DataFrame:
    """`volcast.models.scores.scales` up to `train_through`."""
    return scales(panel, known=_places(panel, span).train_through + 1)


def _places(panel: Panel, span: TestSpan) -> _Places:
    """Raises ImpossibleTest where the panel does not hold the dates."""
    grid = panel.sessions.to_numpy().astype("datetime64[D]")
    days, first, last, next_to_come = grid[: panel.known], grid[0], grid[panel.known - 1], grid[panel.known]
    if span.train_through < first or span.test_end >= next_to_come:
        raise ImpossibleTest(
            f"The test needs sessions from {span.train_through} (the last train session) to {span.test_end}; those "
            f"with prices are {first} to {last}. Choose dates among them, or ingest more."
        )
    places = _Places(
        train_through=int(days.searchsorted(np.datetime64(span.train_through), side="right")) - 1,
        first_target=int(days.searchsorted(np.datetime64(span.test_start))),
        last_target=int(days.searchsorted(np.datetime64(span.test_end), side="right")) - 1,
        step=span.step,
    )
    if places.first_target > places.last_target:
        raise ImpossibleTest(f"The market was closed from {span.test_start} to {span.test_end}: nothing to test on.")
    return places


def _schedule(panel: Panel, places: _Places, refit: Refit) -> list[tuple[int, np.ndarray]]:
    """(the last place of the fit, the cutoffs that are forecast with it), in order."""
    cutoffs = places.cutoffs
    if refit == "never":
        return [(places.train_through, cutoffs)]
    periods = panel.sessions[cutoffs].to_period(PERIODS[refit])
    begins = np.flatnonzero(np.r_[False, periods[1:] != periods[:-1]])
    first, *later = np.split(cutoffs, begins)
    return [(places.train_through, first), *((int(each[0]), each) for each in later)]


def _rows(panel: Panel, answers: dict[str, Forecasts], cutoffs: np.ndarray, *, last_target: int) -> pd.DataFrame:
    """The rows of some cutoffs, as `backtest` returns them, by ticker, cutoff and horizon."""
    target_CH = cutoffs[:, None] + np.arange(1, HORIZONS + 1)
    columns = {"y": panel.fields["volume"][:, np.minimum(target_CH, last_target)]}
    for name, forecasts in answers.items():
        columns |= values_of(name, forecasts)
    is_kept_NCH = np.broadcast_to(target_CH <= last_target, columns["y"].shape).copy()
    for values_NCH in columns.values():
        is_kept_NCH &= np.isfinite(values_NCH)
    return frame_of(panel, cutoffs, is_kept_NCH, columns)


def _not_finite(panel: Panel, forecasts: Forecasts, *, last_target: int) -> str:
    """Which rows lack, of cutoffs that others are there of; empty for none."""
    target_CH = forecasts.cutoffs[:, None] + np.arange(1, HORIZONS + 1)
    is_scored_NCH = np.isfinite(panel.fields["volume"][:, np.minimum(target_CH, last_target)])
    is_there_NCH = np.logical_and.reduce([np.isfinite(each) for each in values_of("", forecasts).values()])
    lacks_NCH = ~is_there_NCH & is_there_NCH.any(axis=2, keepdims=True) & is_scored_NCH & (target_CH <= last_target)
    if not lacks_NCH.any():
        return ""
    ticker, cutoff, ahead = (int(each[0]) for each in np.nonzero(lacks_NCH))
    first = f"{panel.tickers[ticker]} {panel.sessions[target_CH[cutoff, ahead]]:%Y-%m-%d}, horizon {ahead + 1}"
    return f"; {counted(lacks_NCH.sum(), 'row is', 'rows are')} not finite and left out of the test, first {first}"


def values_of(name: str, forecasts: Forecasts) -> dict[str, np.ndarray]:
    """Column -> (N, C, H) shares: the point, the ends of the intervals, and the mean where it is another number."""
    intervals = {
        column: forecasts.quantiles_NCHQ[..., LEVELS.index(level)] for column, level in interval_columns(name).items()
    }
    mean = {mean_column(name): forecasts.mean_NCH} if forecasts.stated_NCH is None else {}
    return {name: forecasts.point_NCH, **intervals, **mean}


def frame_of(
    panel: Panel, cutoffs: np.ndarray, is_kept_NCH: np.ndarray, columns: dict[str, np.ndarray]
) -> pd.DataFrame:
    """The (N, C, H) values that are kept, a row each: unique_id (str), cutoff, ds, h, and the columns as float64."""
    ticker_R, cutoff_R, ahead_R = np.nonzero(is_kept_NCH)
    place_R = cutoffs[cutoff_R]
    keys = {
        "unique_id": np.array(panel.tickers, dtype=object)[ticker_R],
        "cutoff": panel.sessions[place_R],
        "ds": panel.sessions[place_R + 1 + ahead_R],
        "h": ahead_R.astype(np.int64) + 1,
    }
    values = {name: values_NCH[is_kept_NCH].astype(np.float64) for name, values_NCH in columns.items()}
    return pd.DataFrame(keys | values).astype({"unique_id": str})
