from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from panels import SPAN, drawn_volumes, gappy_volumes, panel_of
from utilsforecast.evaluation import evaluate
from utilsforecast.losses import coverage, mae, mase, rmsse, scaled_mqloss

from volcast.models.backtest import TestSpan, backtest, train_scales
from volcast.models.errors import ImpossibleTest, NotEnoughSessions
from volcast.models.forecast_columns import KEYS, SCORED_LEVELS, scored_columns
from volcast.models.forecasters import Forecaster, naive_forecasters
from volcast.models.panel import Panel
from volcast.models.scores import score
from volcast.models.volume_evaluation import baselines

ALL = baselines()


class Spy:
    """Forecasts as the naive, and remembers its fits and cutoffs."""

    name = "spy"

    def __init__(self) -> None:
        self.fits: list[date] = []
        self.cutoffs: list[list[date]] = []

    def fit(self, panel: Panel, *, through: int) -> "Spy":
        self.fits.append(panel.sessions.date[through])
        return self

    def forecast(self, panel: Panel, cutoffs: np.ndarray):
        self.cutoffs.append(panel.sessions[cutoffs].date.tolist())
        return naive_forecasters()[0].forecast(panel, cutoffs)


@pytest.fixture(scope="module")
def panel() -> Panel:
    volume_NT = gappy_volumes(3, 820)
    volume_NT[0, 770] = np.nan
    return panel_of(volume_NT)


@pytest.fixture(scope="module")
def frame(panel: Panel) -> pd.DataFrame:
    return backtest(panel, ALL, SPAN)


def weekly_mase(df: pd.DataFrame, models: list[str], train_df: pd.DataFrame, **columns: str) -> pd.DataFrame:
    return mase(df, models, 5, train_df, **columns)


def spied(panel: Panel, refit: str, end: date) -> Spy:
    spy = Spy()
    span = TestSpan(train_through=date(2013, 6, 28), test_start=date(2013, 11, 25), test_end=end, refit=refit)  # pyright: ignore[reportArgumentType]
    backtest(panel, [spy], span)
    return spy


def test_targets_begin_with_the_first_test_session_and_end_with_the_last(frame: pd.DataFrame) -> None:
    first = frame.loc[frame["h"] == 1, "ds"]
    assert (first.min(), frame["ds"].max()) == (pd.Timestamp("2015-01-02"), pd.Timestamp("2015-02-27"))
    assert (frame["cutoff"].min(), frame["cutoff"].max()) == (pd.Timestamp("2014-12-31"), pd.Timestamp("2015-02-26"))
    assert frame.loc[frame["cutoff"] == "2015-02-26", "h"].unique().tolist() == [1]
    assert np.all(frame["ds"] > frame["cutoff"])


def test_the_frame_has_one_row_a_ticker_cutoff_and_horizon_and_no_hole(frame: pd.DataFrame, panel: Panel) -> None:
    leading = ["har", "har-lo-80", "har-hi-80", "har-lo-95", "har-hi-95", "har-mean", "naive"]
    assert list(frame.columns[:12]) == [*KEYS, *leading]
    assert frame["h"].dtype == np.int64
    assert not frame.isna().any(axis=None)
    assert not frame.duplicated(["unique_id", "cutoff", "h"]).any()
    assert frame.sort_values(["unique_id", "cutoff", "h"]).index.is_monotonic_increasing
    volume = {
        (t, s): v
        for t, row in zip(panel.tickers, panel.fields["volume"], strict=True)
        for s, v in zip(panel.sessions, row, strict=False)
    }
    assert all(
        volume[key] == y for key, y in zip(zip(frame["unique_id"], frame["ds"], strict=True), frame["y"], strict=True)
    )
    assert all(
        volume[key] == last
        for key, last in zip(zip(frame["unique_id"], frame["cutoff"], strict=True), frame["naive"], strict=True)
    )


def test_a_gap_leaves_out_the_rows_from_it_and_the_rows_to_it(frame: pd.DataFrame, panel: Panel) -> None:
    gaps = panel.sessions[: panel.known][~panel.traded_NT[0]]
    of_first = frame.loc[frame["unique_id"] == "A"]
    inside = gaps[(gaps > of_first["ds"].min()) & (gaps < of_first["ds"].max())]
    assert len(inside) == 1
    assert not of_first["ds"].isin(list(inside)).any()
    assert not of_first["cutoff"].isin(list(inside)).any()


def test_utilsforecast_takes_the_frame_as_it_is(frame: pd.DataFrame, panel: Panel) -> None:
    row_R, column_R = np.nonzero(panel.traded_NT[:, : panel.position(SPAN.train_through) + 1])
    volume_R = panel.fields["volume"][row_R, column_R]
    train = pd.DataFrame({"unique_id": np.array(panel.tickers)[row_R], "ds": panel.sessions[column_R], "y": volume_R})
    table = evaluate(frame, [mae, weekly_mase], train_df=train)
    assert {"har", "har-mean", "naive", "seasonal_naive", "adv20"} <= set(table.columns)
    assert len(table) == 2 * frame.groupby(["unique_id", "cutoff"]).ngroups
    inside = frame.loc[frame["h"] <= 5].drop(columns="cutoff")
    ours = (
        score(frame, train_scales(panel, SPAN))
        .by_ticker.query("band == '1-5'")
        .pivot(index="unique_id", columns="model", values=["mase", "rmsse", "pinball"])
    )
    quantiles = {name: scored_columns(name) for name in ("har", "naive")}
    for loss, theirs in {
        "mase": mase(inside, ["har", "naive"], 5, train),
        "rmsse": rmsse(inside, ["har", "naive"], 5, train),
        "pinball": scaled_mqloss(inside, quantiles, np.array(SCORED_LEVELS), 5, train),
    }.items():
        for name in quantiles:
            assert ours[(loss, name)].to_numpy() == pytest.approx(theirs.set_index("unique_id")[name].to_numpy())
    covered = evaluate(frame, [coverage], models=["har", "naive"], level=[80, 95])
    assert covered[["har", "naive"]].to_numpy().max() <= 1


def test_what_comes_after_the_test_changes_no_row(panel: Panel, frame: pd.DataFrame) -> None:
    end = panel.position(date(2015, 2, 27))
    pd.testing.assert_frame_equal(backtest(panel.until(end + 1), ALL, SPAN), frame, check_exact=True)


def test_a_fit_is_never_yearly_or_quarterly_repeated_at_the_first_cutoff_of_the_period() -> None:
    panel = panel_of(drawn_volumes(1, 800))
    end = date(2014, 7, 15)
    assert spied(panel, "never", end).fits == [date(2013, 6, 28)]
    yearly = spied(panel, "yearly", end)
    assert yearly.fits == [date(2013, 6, 28), date(2014, 1, 2)]
    assert [each[0] for each in yearly.cutoffs] == [date(2013, 11, 22), date(2014, 1, 2)]
    assert [each[-1] for each in yearly.cutoffs] == [date(2013, 12, 31), date(2014, 7, 14)]
    quarterly = spied(panel, "quarterly", end)
    assert quarterly.fits == [date(2013, 6, 28), date(2014, 1, 2), date(2014, 4, 1), date(2014, 7, 1)]


def test_a_step_leaves_cutoffs_out_and_changes_no_row_of_the_others(panel: Panel, frame: pd.DataFrame) -> None:
    stepped = backtest(panel, ALL, replace(SPAN, step=7))
    cutoffs = np.unique(frame["cutoff"])[::7].tolist()
    expected = frame.loc[frame["cutoff"].isin(cutoffs)].reset_index(drop=True)
    pd.testing.assert_frame_equal(stepped, expected)


def test_each_step_is_reported(panel: Panel) -> None:
    steps: list[tuple[int, int]] = []
    backtest(panel, ALL, SPAN, on_step=lambda done, of, _: steps.append((done, of)))
    assert steps == [(done, 8) for done in range(1, 9)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_through": date(2015, 1, 2)}, "a test on what was trained on says nothing"),
        ({"test_end": date(2014, 12, 1)}, "after it ends on 2014-12-01"),
        ({"refit": "daily"}, "--refit must be never, yearly, quarterly; 'daily' came"),
    ],
)
def test_a_test_that_makes_no_sense_is_refused(changes: dict[str, Any], expected: str) -> None:
    dates: dict[str, Any] = {
        "train_through": date(2014, 12, 31),
        "test_start": date(2015, 1, 2),
        "test_end": date(2015, 2, 27),
    }
    with pytest.raises(ImpossibleTest, match=expected):
        TestSpan(**{**dates, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"test_end": date(2017, 1, 3)}, "those with prices are 2012-01-03 to 2015-04-08"),
        ({"train_through": date(2011, 12, 30)}, "those with prices are 2012-01-03 to"),
        ({"test_start": date(2015, 1, 3), "test_end": date(2015, 1, 4)}, "The market was closed from 2015-01-03"),
    ],
)
def test_dates_without_prices_are_refused(panel: Panel, changes: dict[str, Any], expected: str) -> None:
    dates: dict[str, Any] = {
        "train_through": date(2014, 12, 31),
        "test_start": date(2015, 1, 2),
        "test_end": date(2015, 2, 27),
    }
    with pytest.raises(ImpossibleTest, match=expected):
        backtest(panel, ALL, TestSpan(**{**dates, **changes}))


def test_a_panel_without_enough_history_is_refused() -> None:
    few: list[Forecaster] = list(ALL)
    span = TestSpan(train_through=date(2012, 2, 1), test_start=date(2012, 2, 2), test_end=date(2012, 2, 10))
    with pytest.raises(NotEnoughSessions, match="None of the 2 tickers has a forecast of every forecaster"):
        backtest(panel_of(drawn_volumes(2, 40)), few, span)
