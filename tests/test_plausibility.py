"""Forecasts that cannot be believed are named and replaced, and keep a challenger out."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from panels import drawn_volumes, panel_of, priced_panel, tiny_recipe

from volcast.models.backtest import TestSpan, backtest
from volcast.models.comparisons import CHAMPION, Contest, Predecessor
from volcast.models.errors import TrainingDiverged
from volcast.models.forecast_columns import mean_column, quantile_columns
from volcast.models.forecasters import MEDIAN, MODEL, Forecasts, naive_forecasters
from volcast.models.har import Har
from volcast.models.panel import HORIZONS, Panel
from volcast.models.plausibility import CONTEXT, FACTOR, bounds_at, bounds_now, faults, hold_back, implausible_share
from volcast.models.volume_evaluation import VolumePredictor, evaluate_volume, fallback_frame, stand_ins, volume_frame
from volcast.models.volume_inputs import Inputs, VolumeData, volume_data
from volcast.models.volume_training import NetworkForecaster

SESSIONS = 700
WRONG = (3e25, -1.0, 0.0, float("nan"), float("inf"))


@pytest.fixture(scope="module")
def panel() -> Panel:
    return priced_panel(drawn_volumes(3, SESSIONS))


@pytest.fixture(scope="module")
def frame(panel: Panel) -> pd.DataFrame:
    return fallback_frame(panel)


def spoilt(frame: pd.DataFrame, column: str, value: float, ticker: str = "B", h: int = 4) -> pd.DataFrame:
    row = (frame["unique_id"] == ticker) & (frame["h"] == h)
    return frame.assign(**{column: frame[column].mask(row, value)})


def published(panel: Panel, frame: pd.DataFrame) -> tuple[pd.DataFrame, list]:
    others: dict[str, Callable[[], pd.DataFrame]] = {
        name: lambda make=make: make(panel) for name, make in stand_ins().items()
    }
    return hold_back(frame, MODEL, bounds_now(panel), others)


def test_the_bounds_are_ten_times_what_two_years_have_seen_as_it_was_known() -> None:
    volume_NT = np.full((1, CONTEXT + 2), 100.0)
    volume_NT[0, [0, 300, 400]] = 9_000, 700, 20
    volume_NT[0, CONTEXT + 1] = 1e9
    panel = panel_of(volume_NT)
    found_NC2 = bounds_at(panel, np.array([CONTEXT - 1, CONTEXT, CONTEXT + 1]))
    assert found_NC2[0].tolist() == [[2.0, 90_000], [2.0, 7_000], [2.0, 1e10]]
    assert bounds_now(panel).loc["A"].tolist() == [2.0, 1e10]
    assert FACTOR == 10


def test_an_ordinary_forecast_is_published_as_it_is(panel: Panel, frame: pd.DataFrame) -> None:
    whole, held = published(panel, frame)
    assert whole is frame
    assert held == []


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("column", [MODEL, mean_column(MODEL), f"{MODEL}-hi-95", quantile_columns(MODEL)[3]])
def test_a_row_beyond_the_bounds_or_not_finite_is_held_back_and_har_is_published(
    panel: Panel, frame: pd.DataFrame, column: str, value: float
) -> None:
    whole, held = published(panel, spoilt(frame.assign(volcast=frame["volcast"] * 1.01), column, value))
    (row,) = held
    assert (row.ticker, row.h, row.by) == ("B", 4, "har")
    assert row.session == frame.loc[(frame["unique_id"] == "B") & (frame["h"] == 4), "ds"].item().date()
    assert ("not finite" in row.reason) == (not np.isfinite(value))
    assert whole["by"].value_counts().to_dict() == {MODEL: 29, "har": 1}
    is_har = whole["by"] == "har"
    pd.testing.assert_frame_equal(whole.loc[is_har, frame.columns], frame.loc[is_har.to_numpy()])
    assert whole[["unique_id", "h"]].equals(frame[["unique_id", "h"]])


def test_the_reason_says_what_was_expected_and_what_came(panel: Panel, frame: pd.DataFrame) -> None:
    bounds = bounds_now(panel)
    lowest, highest = bounds.loc["B"]
    (most,) = filter(None, faults(spoilt(frame, "volcast-mean", 3e25), bounds))
    assert most == f"3e+25 shares, above {highest:.3g}, 10 times the highest of 504 sessions"
    (least,) = filter(None, faults(spoilt(frame, "volcast-lo-95", 0.5), bounds))
    assert least == f"0.5 shares, below {lowest:.3g}, the lowest of 504 sessions by 10"
    q_80, q_90 = quantile_columns(MODEL)[6:8]
    (order,) = filter(None, faults(spoilt(frame, q_80, 1.5 * frame[q_90].to_numpy().max()), bounds))
    assert order == "its quantiles fall from one level to the next"


def test_where_har_cannot_be_believed_either_the_seasonal_naive_is_published_or_nobody(
    panel: Panel, frame: pd.DataFrame
) -> None:
    bad, bounds = spoilt(frame, MODEL, 3e25), bounds_now(panel)
    naive = stand_ins()["seasonal_naive"](panel)
    whole, (row,) = hold_back(bad, "har", bounds, {"seasonal_naive": lambda: naive})
    assert (row.by, len(whole)) == ("seasonal_naive", 30)
    whole, (row,) = hold_back(bad, MODEL, bounds, {"har": lambda: bad, "seasonal_naive": lambda: bad})
    assert (row.by, len(whole)) == ("", 29)
    assert ("B", 4) not in set(zip(whole["unique_id"], whole["h"], strict=True))


def test_a_short_history_names_the_horizons_that_har_lacks() -> None:
    """har's intervals take 20 errors: of 48 sessions the nearest horizons have them, and the farthest not."""
    volume_NT = drawn_volumes(2, SESSIONS)
    volume_NT[1, : SESSIONS - 48] = np.nan
    short = priced_panel(volume_NT)
    frame = fallback_frame(short)
    assert frame.groupby("unique_id").size().to_dict() == {"A": 10, "B": 10}
    naive = stand_ins()["seasonal_naive"](short)
    whole, held = hold_back(frame, "har", bounds_now(short), {"seasonal_naive": lambda: naive})
    assert len(whole) == 20
    assert held
    assert {(each.ticker, each.reason, each.by) for each in held} == {("B", "not finite", "seasonal_naive")}
    assert [each.h for each in held] == list(range(held[0].h, HORIZONS + 1))
    assert held[0].h > 1


# --- a model that says such things -----------------------------------------------------------------------------------


RECIPE = tiny_recipe(test_sessions=40)


@pytest.fixture(scope="module")
def data(panel: Panel) -> VolumeData:
    return volume_data(panel, panel.announcements.assign(first_seen_assumed=False, source=""), RECIPE)


class Oracle:
    """har's forecasts, half of the way to what came true; `change` makes of them what it likes."""

    def __init__(self, change: Callable[[np.ndarray], np.ndarray] = lambda quantiles_NCHQ: quantiles_NCHQ) -> None:
        self.change = change

    def forecast(self, inputs: Inputs, cutoffs: np.ndarray) -> Forecasts:
        panel = inputs.panel
        said = Har().fit(panel, through=SESSIONS - 41).forecast(panel, cutoffs)
        target_CH = np.minimum(cutoffs[:, None] + np.arange(1, HORIZONS + 1), panel.known - 1)
        factor_NCH = np.sqrt(panel.fields["volume"][:, target_CH] / said.point_NCH)
        quantiles_NCHQ = self.change((said.quantiles_NCHQ * factor_NCH[..., None]).astype(np.float32))
        return Forecasts(cutoffs=cutoffs, quantiles_NCHQ=quantiles_NCHQ, mean_NCH=said.mean_NCH)


def predictor(change: Callable[[np.ndarray], np.ndarray] = lambda quantiles_NCHQ: quantiles_NCHQ) -> VolumePredictor:
    return VolumePredictor(model=Oracle(change), recipe=RECIPE)


def at(where: tuple, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(quantiles_NCHQ: np.ndarray) -> np.ndarray:
        changed = quantiles_NCHQ.copy()
        changed[where] = value
        return changed

    return change


def wide(quantiles_NCHQ: np.ndarray, power: float = 3) -> np.ndarray:
    """The same medians in intervals that are far too wide."""
    median_NCH1 = quantiles_NCHQ[..., MEDIAN : MEDIAN + 1]
    return (median_NCH1 * (quantiles_NCHQ / median_NCH1) ** power).astype(np.float32)


def contest(data: VolumeData) -> Contest:
    day = data.inputs.panel.sessions.date[SESSIONS - 41]
    own = Predecessor(predictor=predictor(), tickers=data.inputs.panel.tickers, trained_through=day)
    return Contest(predecessors={CHAMPION: own})


def test_a_horizon_that_is_not_finite_stays_a_row_that_is_named(data: VolumeData, panel: Panel) -> None:
    model = predictor(at((1, slice(None), 6), np.nan))
    frame = volume_frame(data, model)
    assert len(frame) == 30
    whole, (row,) = published(panel, frame)
    assert (row.ticker, row.h, row.reason, row.by) == ("B", 7, "not finite", "har")
    assert len(whole) == 30


def test_a_backtest_says_which_horizons_it_leaves_out(panel: Panel) -> None:
    class Lacking(Har):
        def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
            said = super().forecast(panel, cutoffs)
            said.quantiles_NCHQ[1, 2:, 6] = np.nan
            return said

    dates, said = panel.sessions.date, list[str]()
    span = TestSpan(train_through=dates[599], test_start=dates[600], test_end=dates[619])
    frame = backtest(
        panel, [Lacking(), *naive_forecasters()], span, on_step=lambda _done, _steps, line: said.append(line)
    )
    assert said[1] == (
        f"har forecast 20 sessions; 12 rows are not finite and left out of the test, first B {dates[608]}, horizon 7"
    )
    assert said[3] == "naive forecast 20 sessions"
    assert len(frame.loc[(frame["unique_id"] == "B") & (frame["h"] == 7)]) == 2


def test_a_ticker_without_any_finite_horizon_is_named_too(data: VolumeData, panel: Panel) -> None:
    whole, held = published(panel, volume_frame(data, predictor(at((2,), np.nan))))
    assert [(row.ticker, row.h, row.by) for row in held] == [("C", h, "har") for h in range(1, 11)]
    assert len(whole) == 30


def test_the_share_that_cannot_be_believed_counts_what_a_model_owes(data: VolumeData) -> None:
    inputs, cutoffs = data.inputs, np.arange(SESSIONS - 21, SESSIONS - 1)
    for value in (np.nan, 1e30, 1e-30):
        said = predictor(at((0, slice(0, 5), 3), value)).forecasts(data, cutoffs)
        assert implausible_share(said, inputs.panel, inputs.usable_NT) == pytest.approx(5 / (3 * 20 * 10))
    fine = predictor().forecasts(data, cutoffs)
    assert implausible_share(fine, inputs.panel, inputs.usable_NT) == 0
    fallen = replace(fine, quantiles_NCHQ=fine.quantiles_NCHQ[..., ::-1])
    assert implausible_share(fallen, inputs.panel, inputs.usable_NT) > 0.9
    assert implausible_share(replace(fine, mean_NCH=fine.mean_NCH * 1e20), inputs.panel, inputs.usable_NT) == 1


@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_a_challenger_that_says_such_things_stays_out_however_good_it_is(data: VolumeData, value: float) -> None:
    found = evaluate_volume(data, predictor(at((0, slice(0, 4), 8), value)), contest(data)).decision
    assert not found.promote
    assert "0.33% of its forecasts cannot be believed" in found.reason
    assert "at most 0.10% may be so" in found.reason


def test_a_challenger_without_a_finite_number_is_named_and_not_its_prices(data: VolumeData) -> None:
    with pytest.raises(TrainingDiverged, match="volcast has no finite forecast in the test"):
        evaluate_volume(data, predictor(at((...,), np.nan)), Contest())


def test_a_challenger_with_poor_quantiles_stays_out_with_or_without_a_champion(data: VolumeData) -> None:
    alone = evaluate_volume(data, predictor(wide), Contest()).decision
    assert not alone.promote
    assert "its pinball loss is +" in alone.reason
    assert "against har: the margin is 1.0%" in alone.reason
    beside = evaluate_volume(data, predictor(partial(wide, power=1.6)), contest(data)).decision
    assert not beside.promote
    assert "against the champion" in beside.reason
    assert ", pinball +" in beside.reason
    assert evaluate_volume(data, predictor(), contest(data)).decision.promote


def test_one_odd_ticker_does_not_swamp_the_mean_over_the_tickers() -> None:
    """Its train volumes were next to constant: in units of their changes all errors of its test are enormous."""
    volume_NT = drawn_volumes(4, SESSIONS)
    volume_NT[3, : SESSIONS - 40] = 1e6 + np.arange(SESSIONS - 40) % 2 * 1e-3
    odd = priced_panel(volume_NT)
    known = odd.announcements.assign(first_seen_assumed=False, source="")
    data = volume_data(odd, known, RECIPE)
    better = evaluate_volume(data, predictor(), contest(data))
    assert better.scores["volcast"]["mase_1_5"] < 11
    assert "Beyond 10 scales, and bounded in the means: D." in better.words

    def much_worse(quantiles_NCHQ: np.ndarray) -> np.ndarray:
        """On the three tickers that are as they should be, and a little better on the odd one."""
        factor_N111 = np.array([1.3, 1.3, 1.3, 0.999])[: len(quantiles_NCHQ), None, None, None]
        return (quantiles_NCHQ * factor_N111).astype(np.float32)

    worse = evaluate_volume(data, predictor(much_worse), contest(data)).decision
    assert not worse.promote
    ordinary = evaluate_volume(data.of(("A", "B", "C")), predictor(), contest(data.of(("A", "B", "C"))))
    assert better.decision.promote == ordinary.decision.promote


def test_a_training_that_diverged_is_named_by_the_training(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    from volcast.models import volume_training

    monkeypatch.setattr(volume_training, "one_cycle", lambda _share: (1e4, 0.9))
    wild = NetworkForecaster(tiny_recipe(members=1), seed=0, device=torch.device("cpu"))
    with pytest.raises(
        TrainingDiverged, match=r"on the held-back sessions is \S+ at its best, more than 10 times that of"
    ):
        wild.fit(panel, through=SESSIONS - 20)


def test_no_true_volume_jump_is_held_back_but_one_in_a_hundred_thousand(shared_data) -> None:
    """On real prices of 2017 to 2020, of every 30th ticker."""
    rows = pd.read_parquet(shared_data / "panel_more_to_2022.parquet", columns=["ticker", "Date", "Volume"])
    rows = rows.loc[(rows["Date"] >= date(2015, 1, 2)) & (rows["Date"] <= date(2020, 12, 31)) & (rows["Volume"] > 0)]
    table = rows.pivot_table(index="Date", columns="ticker", values="Volume", observed=True).iloc[:, ::30]
    volume_TN = table.to_numpy(dtype=float)
    first = int(np.flatnonzero(np.array(table.index) >= date(2017, 1, 1))[0])
    beyond = owed = 0
    for cutoff in range(first, len(volume_TN) - HORIZONS):
        seen_WN = volume_TN[max(0, cutoff + 1 - CONTEXT) : cutoff + 1]
        coming_HN = volume_TN[cutoff + 1 : cutoff + 1 + HORIZONS]
        lowest_N, highest_N = np.nanmin(seen_WN, axis=0) / FACTOR, np.nanmax(seen_WN, axis=0) * FACTOR
        beyond += int(((coming_HN > highest_N) | (coming_HN < lowest_N)).sum())
        owed += int((np.isfinite(coming_HN) & np.isfinite(highest_N)).sum())
    assert owed > 250_000
    assert beyond <= 1e-5 * owed + 3
