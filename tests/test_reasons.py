"""Reasons of a forecast, held to what is known: on the simulated exchange, how much each special session trades.

A part errs by what the network errs, which was trained for a few seconds, and by little more.
"""

from copy import deepcopy
from dataclasses import replace
from datetime import date
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
import torch
from panels import tiny_recipe

from benchmarks.exchange_oracle import oracle_quantiles
from benchmarks.markets import simulated_panel
from benchmarks.programs import BEATS_HAR
from volcast.models.forecast_columns import NORMAL, PARTS, WHY, named_parts, reason_column, sentence
from volcast.models.forecasters import MODEL
from volcast.models.market_calendar import CALENDAR_COLUMNS, special_days
from volcast.models.panel import HORIZONS
from volcast.models.reasons import ALWAYS_ON, GROUPS, reasons_of, shapley
from volcast.models.recipes import VolumeRecipe
from volcast.models.volume_evaluation import VolumePredictor, volume_frame
from volcast.models.volume_inputs import AHEAD_COLUMNS, AT_COLUMNS, Inputs, VolumeData, inputs_for
from volcast.models.volume_model import VolumeModel, fit_volume_scaler
from volcast.models.volume_training import fit_volume, training_run
from volcast.tasks.sources.exchange import Exchange
from volcast.tasks.sources.exchange_calendar import WEEKDAY, trading_grid

EXCHANGE = Exchange(seed=3, last=date(2010, 12, 31))
TICKERS = [f"T{place}" for place in range(10)]
RECIPE = VolumeRecipe(
    **{**BEATS_HAR, "members": 2, "steps": 300, "hidden_size": 8, "learning_rate": 0.005}  # knows what days are special
)
TEST = 252  # sessions that it was not trained on


@lru_cache(maxsize=1)
def trained() -> tuple[VolumeModel, Inputs]:
    inputs = inputs_for(simulated_panel(EXCHANGE, TICKERS, first=date(2000, 1, 3)), RECIPE)
    through = inputs.panel.known - 1 - TEST
    run = training_run(inputs, RECIPE, through=through, seed=0, device=torch.device("cpu"))
    model = fit_volume(inputs, RECIPE, run).model
    model.fitted_through = torch.tensor(20_000)  # days: later than the panel, so that no errors are followed
    return model, inputs


def reasons_at(cutoff: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The medians (N, H) of a cutoff in shares, and part -> factors (N, H), of NORMAL the shares."""
    model, inputs = trained()
    found = model.forecast(inputs, np.array([cutoff]))
    columns = reasons_of(model, inputs, found)
    names = {NORMAL: NORMAL} | {part: reason_column(part) for part in PARTS}
    return found.point_NCH[:, 0].astype(np.float64), {part: columns[name][:, 0] for part, name in names.items()}


def sessions_of(name: str) -> np.ndarray:
    """The places of the special sessions of the test."""
    _, inputs = trained()
    places = np.flatnonzero(inputs.calendar_SK[: inputs.panel.known, CALENDAR_COLUMNS.index(name)])
    return places[places >= inputs.panel.known - TEST]


def test_each_input_of_the_network_is_in_one_group() -> None:
    grouped = [*ALWAYS_ON, *(name for names in GROUPS.values() for name in names)]
    assert sorted(grouped) == sorted([*AT_COLUMNS, *AHEAD_COLUMNS])
    assert set(PARTS) == {*GROUPS, "events", "rest"}


def test_the_shapley_value_is_the_mean_over_the_orders() -> None:
    # alone 1 and 2, together 5: the first adds 1 or 5 - 2, the second 2 or 5 - 1
    assert shapley(np.array([[0.0, 2.0], [1.0, 5.0]]), 2).tolist() == [2.0, 3.0]


@pytest.mark.parametrize("name", ["triple_witching", "half_day", "expiry", "russell"])
def test_a_special_session_has_the_effect_that_it_has_on_the_exchange(name: str) -> None:
    """Within 10 % of the true factor, as the mean over the tickers."""
    _, inputs = trained()
    grid, traits = trading_grid(), [EXCHANGE.path(ticker).traits for ticker in inputs.panel.tickers]
    for place in sessions_of(name):
        session = inputs.panel.sessions[place]
        effect = grid.effects[grid.sessions.searchsorted(session)] - WEEKDAY[session.day_of_week]
        true_N = [own.calendar * effect for own in traits]
        _, parts = reasons_at(place - 1)
        assert np.log(parts["calendar"][:, 0]).mean() == pytest.approx(np.mean(true_N), abs=0.1), session


def test_an_announcement_has_the_effect_that_it_has_on_the_exchange_less_what_the_network_lacks_of_it() -> None:
    """Within 10 % of the true factor, and more than half of it is found."""
    _, inputs = trained()
    found = []
    for row, ticker in enumerate(inputs.panel.tickers):
        traits, own = EXCHANGE.path(ticker).traits, inputs.earnings.begins[row : row + 2]
        reported = inputs.earnings.place_A[own[0] : own[1]].numpy()
        cutoff = int(reported[reported > inputs.panel.known - TEST + 3][0]) + traits.after_close - 3
        medians, parts = reasons_at(cutoff)
        session = inputs.panel.sessions[[cutoff]]
        best = oracle_quantiles(EXCHANGE, ticker, session, horizons=[3], levels=[0.5])[0, 0, 0]
        found.append((np.log(parts["earnings"][row, 2]), traits.report_shift, np.log(medians[row, 2] / best)))
    part, true, missed = np.mean(found, axis=0)
    assert part > 0.5 * true
    assert part == pytest.approx(true + missed, abs=0.1)


def test_parts_multiply_to_the_median_and_the_rest_is_small() -> None:
    for cutoff in (-1, -40, -90):
        medians, parts = reasons_at(trained()[1].panel.known + cutoff)
        np.testing.assert_allclose(np.prod(list(parts.values()), axis=0), medians, rtol=1e-9)
        assert np.abs(np.log(parts["rest"])).max() < 0.15
        level = trained()[1].level_NT[:, cutoff]
        np.testing.assert_allclose(parts[NORMAL], np.exp(level)[:, None].repeat(HORIZONS, 1))


def test_the_rhythm_that_its_errors_tell_is_the_weekdays() -> None:
    """By a model that was not adapted, every part but the weekday's is the same."""
    model, inputs = trained()
    cutoff = np.array([inputs.panel.known - 60])
    plain = model.forecast(inputs, cutoff)
    factor_H = np.exp(np.linspace(-0.2, 0.3, HORIZONS, dtype=np.float32))
    adapted = replace(plain, quantiles_NCHQ=plain.quantiles_NCHQ * factor_H[:, None])
    before, after = (reasons_of(model, inputs, each) for each in (plain, adapted))
    for name, values in before.items():
        moved_H = factor_H if name == reason_column("weekday") else 1.0
        np.testing.assert_allclose(after[name][:, 0], values[:, 0] * moved_H, rtol=1e-5, err_msg=name)


def test_an_input_that_is_not_there_has_exactly_no_effect() -> None:
    _, inputs = trained()
    cutoff = inputs.panel.known - 60
    _, parts = reasons_at(cutoff)
    sessions = inputs.panel.sessions[cutoff + 1 : cutoff + 1 + HORIZONS]
    is_ordinary_H = np.array([not words for words in special_days(sessions).values()])
    assert 0 < is_ordinary_H.sum() < HORIZONS
    assert ((parts["calendar"] == 1).all(axis=0) == is_ordinary_H).all()
    assert (parts["calendar"][:, ~is_ordinary_H] != 1).all()
    place_A, begins = inputs.earnings.place_A.numpy(), inputs.earnings.begins.numpy()
    for row in range(len(TICKERS)):
        own = place_A[begins[row] : begins[row + 1]]
        is_near = ((own > cutoff - 6) & (own <= cutoff + HORIZONS)).any()
        assert (parts["earnings"][row] != 1).all() == is_near, inputs.panel.tickers[row]
    assert 0 < (parts["earnings"] == 1).all(axis=1).sum() < len(TICKERS)


def test_a_ticker_alone_has_no_market_and_no_others() -> None:
    _, several = trained()
    recipe = tiny_recipe()
    inputs = inputs_for(several.panel.of(["T1"]), recipe)
    torch.manual_seed(0)
    model = VolumeModel(recipe, fit_volume_scaler(inputs, through=2000)).eval()
    parts = reasons_of(model, inputs, model.forecast(inputs, np.array([2400])))
    assert (parts[reason_column("market")] == 1).all()
    assert (parts[reason_column("others-earnings")] == 1).all()
    assert (parts[reason_column("recent")] != 1).all()


def test_reasons_are_the_same_bits_whatever_comes_after_the_cutoff() -> None:
    model, inputs = trained()
    cutoff, last = inputs.panel.known - 30, inputs.panel.sessions.to_numpy()[inputs.panel.known - TEST - 1]
    followed = deepcopy(model)
    followed.fitted_through = torch.tensor((last - np.datetime64("1970-01-01")) // np.timedelta64(1, "D"))
    then = inputs_for(inputs.panel.until(cutoff + 1), RECIPE)
    here, there = (reasons_of(followed, each, followed.forecast(each, np.array([cutoff]))) for each in (inputs, then))
    for name, values in here.items():
        assert there[name].tobytes() == values.tobytes(), name


def test_a_published_forecast_says_why_in_a_sentence() -> None:
    model, inputs = trained()
    announcements = inputs.panel.announcements.assign(first_seen_assumed=False, source="simulated")
    data = VolumeData(inputs=inputs, recipe=RECIPE, announcements=announcements, through=inputs.panel.known - TEST)
    predictor = VolumePredictor(model=model, recipe=RECIPE)
    frame = volume_frame(data, predictor)
    product = frame[[NORMAL, *map(reason_column, PARTS)]].prod(axis=1)
    np.testing.assert_allclose(product, frame[MODEL], rtol=1e-9)
    assert frame[WHY].str.match(r"\d\.\d\d times normal(: .+ \d\.\d\d)?$").all()
    first = frame.iloc[0]
    assert first["ds"] == pd.Timestamp("2011-01-03")
    assert "month start" in first[WHY]


def test_the_sentence_names_the_strongest_first_and_the_rest_last() -> None:
    row = {"ds": pd.Timestamp("2022-09-16"), MODEL: 142.0, NORMAL: 100.0}
    row |= {reason_column(part): 1.0 for part in PARTS}
    row |= {reason_column("recent"): 1.12, reason_column("calendar"): 1.31, reason_column("rest"): 0.97}
    assert named_parts(row, "triple witching") == {"triple witching": 1.31, "recent activity": 1.12, "rest": 0.97}
    words = "1.42 times normal: triple witching 1.31, recent activity 1.12, rest 0.97"
    assert sentence(row, "triple witching") == words


def test_special_days_are_called_by_the_strongest_of_their_names() -> None:
    days = pd.DatetimeIndex(["2022-09-16", "2022-11-25", "2022-11-30", "2022-12-07", "2022-12-12", "2022-12-30"])
    assert list(special_days(days).values()) == [
        "triple witching",
        "half day, after Thanksgiving",
        "month end, MSCI review",
        "",
        "week of an option expiry",
        "before a holiday, quarter end, end of the year",
    ]
    assert list(special_days(days, weeks=False).values())[4] == ""
