"""Nothing after a cutoff may reach it: features, scaler, weights, calibration and forecasts, bit for bit."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from panels import announced, dated, gappy_volumes, priced_panel, tiny_recipe

from volcast.models.panel import HORIZONS, Panel
from volcast.models.volume_inputs import Inputs, build_inputs, table
from volcast.models.volume_model import VolumeModel, fit_volume_scaler
from volcast.models.volume_training import TrainingRun, fit_volume
from volcast.models.weights import to_bytes

CUTOFF, THROUGH = 380, 370

Bits = dict[str, bytes]


def known_at(cutoff: int, *, sessions: int = 430) -> Panel:
    """Six tickers with prices, announcements and other events, some moved or seen late, around the cutoff too."""
    panel = priced_panel(gappy_volumes(6, sessions))
    draws = np.random.default_rng(5)
    dates = [(row, place + row) for row in range(5) for place in (30, 93, 156, 219, 282, 345, cutoff + 3)]
    rows = [(row, place, place - int(draws.integers(1, 40))) for row, place in dates]
    rows += [(row, place + 4, cutoff - 3) for row, place in dates if place > cutoff]  # moved, as was known
    own = [("addition", row, place + 2, seen) for row, place, seen in rows[::2]]
    of_all = [("fomc", None, place, place - 8) for place in range(40, cutoff + 20, 29)]
    return replace(panel, announcements=announced(panel, rows), dated=dated(panel, [*own, *of_all]))


def shaken(panel: Panel, cutoff: int, *, seed: int) -> Panel:
    """All that comes after the cutoff is drawn anew: rows come and go, and dates are moved, announced and forgotten."""
    draws = np.random.default_rng(seed)
    fields = {name: values.copy() for name, values in panel.fields.items()}
    shape = fields["volume"][:, cutoff + 1 :].shape
    is_gone = draws.random(shape) < 0.2
    for name, lowest in {"low": 0.1, "open": 1, "close": 1, "adj_close": 1, "high": 10, "volume": 1e4}.items():
        fields[name][:, cutoff + 1 :] = np.where(is_gone, np.nan, lowest * draws.uniform(1, 10, shape))
    close = panel.sessions[cutoff]
    seen = panel.announcements.loc[panel.announcements["first_seen"] <= close]
    rows = [
        (row, int(place), int(first_seen))
        for row in range(6)
        for place in draws.integers(cutoff - 30, panel.known + HORIZONS, 12)
        for first_seen in draws.integers(cutoff + 1, panel.known, 1)
    ]
    others = panel.dated.loc[panel.dated["first_seen"] <= close]
    own = [("addition", row, place, first_seen) for row, place, first_seen in rows]
    later = dated(panel, [*own, *(("fomc", None, place, first_seen) for _, place, first_seen in rows[::9])])
    return replace(
        panel,
        fields=fields,
        announcements=pd.concat([seen, announced(panel, rows)], ignore_index=True),
        dated=pd.concat([others, later], ignore_index=True),
    )


def features_at(inputs: Inputs, cutoff: int) -> Bits:
    tickers = np.arange(len(inputs.panel.tickers))
    cutoffs = np.full(len(tickers), cutoff)
    return {f"horizon {h}": table(inputs, tickers, cutoffs, h).tobytes() for h in range(1, HORIZONS + 1)}


def forecasts_at(model: VolumeModel, inputs: Inputs, *cutoffs: int) -> Bits:
    said = model.forecast(inputs, np.array(cutoffs))
    return {
        f"{what} at {cutoff}": values[:, place].tobytes()
        for place, cutoff in enumerate(cutoffs)
        for what, values in (("quantiles", said.quantiles_NCHQ), ("mean", said.mean_NCH))
    }


def fitted(inputs: Inputs) -> VolumeModel:
    recipe = tiny_recipe()
    scaler = fit_volume_scaler(inputs, through=THROUGH - recipe.stop_sessions)
    run = TrainingRun(scaler=scaler, through=THROUGH, seed=3, device=torch.device("cpu"))
    return fit_volume(inputs, recipe, run).model


def assert_same(before: Bits, after: Bits) -> None:
    differ = [name for name in before if before[name] != after[name]]
    assert not differ, f"these bits changed with what came later: {differ}"


@pytest.fixture(scope="module")
def panel() -> Panel:
    return known_at(CUTOFF)


@pytest.fixture(scope="module")
def inputs(panel: Panel) -> Inputs:
    return build_inputs(panel, use_earnings=True)


@pytest.fixture(scope="module")
def model(inputs: Inputs) -> VolumeModel:
    return fitted(inputs)


def others(panel: Panel, cutoff: int) -> Iterator[Panel]:
    """The panel with three other futures, and with none."""
    yield from (shaken(panel, cutoff, seed=seed) for seed in range(3))
    yield panel.until(cutoff + 1)


def test_features_do_not_change_with_what_comes_after_the_cutoff(panel: Panel, inputs: Inputs) -> None:
    for cutoff in (60, 255, 261, 345, 379, CUTOFF, 395):
        for other in others(panel, cutoff):
            assert_same(features_at(inputs, cutoff), features_at(build_inputs(other, use_earnings=True), cutoff))


def test_the_fit_does_not_change_with_what_comes_after_its_last_session(panel: Panel, model: VolumeModel) -> None:
    before = {"model": to_bytes(model)}  # scaler, weights and calibration
    assert before["model"] != to_bytes(fitted(build_inputs(shaken(panel, THROUGH - 1, seed=1), use_earnings=True)))
    for other in (shaken(panel, THROUGH, seed=1), panel.until(THROUGH + 1)):
        assert_same(before, {"model": to_bytes(fitted(build_inputs(other, use_earnings=True)))})


def test_forecasts_do_not_change_with_what_comes_after_the_cutoff(
    panel: Panel, inputs: Inputs, model: VolumeModel
) -> None:
    cutoffs = (300, 360, CUTOFF - 1, CUTOFF)
    before = forecasts_at(model, inputs, *cutoffs)
    for other in others(panel, CUTOFF):
        assert_same(before, forecasts_at(model, build_inputs(other, use_earnings=True), *cutoffs))


def test_a_forecast_is_the_same_alone_and_among_others(inputs: Inputs, model: VolumeModel) -> None:
    every = (100, 251, 252, 300, 371, 379, CUTOFF, 429)
    together = forecasts_at(model, inputs, *every)
    for cutoff in every:
        alone = forecasts_at(model, inputs, cutoff)
        assert_same(alone, together)


def leaks_the_next_volume(inputs: Inputs) -> Inputs:
    past_NTF = inputs.past_NTF.copy()
    past_NTF[:, :-1, 0] = np.nan_to_num(inputs.panel.log_volume_NT[:, 1:])
    return replace(inputs, past_NTF=past_NTF)


def leaks_a_spread_of_all(inputs: Inputs) -> Inputs:
    past_NTF = inputs.past_NTF / np.nanstd(inputs.panel.log_volume_NT).astype(np.float32)
    return replace(inputs, past_NTF=past_NTF)


def leaks_dates_not_yet_seen(inputs: Inputs) -> Inputs:
    earnings = replace(inputs.earnings, seen_A=inputs.earnings.seen_A.clamp(max=0))
    return replace(inputs, earnings=earnings)


def test_a_dated_event_that_is_seen_too_early_is_found(panel: Panel, inputs: Inputs, model: VolumeModel) -> None:
    at_once = panel.dated.assign(first_seen=panel.sessions[0])
    other = replace(inputs, panel=replace(panel, dated=at_once))
    with pytest.raises(AssertionError, match="changed with what came later"):
        assert_same(forecasts_at(model, inputs, CUTOFF), forecasts_at(model, other, CUTOFF))


@pytest.mark.parametrize("leak", [leaks_the_next_volume, leaks_a_spread_of_all, leaks_dates_not_yet_seen])
def test_a_leak_is_found(panel: Panel, inputs: Inputs, model: VolumeModel, leak: Callable[[Inputs], Inputs]) -> None:
    other = leak(build_inputs(shaken(panel, CUTOFF, seed=0), use_earnings=True))
    with pytest.raises(AssertionError, match="changed with what came later"):
        assert_same(features_at(leak(inputs), CUTOFF), features_at(other, CUTOFF))
    with pytest.raises(AssertionError, match="changed with what came later"):
        assert_same(forecasts_at(model, leak(inputs), CUTOFF), forecasts_at(model, other, CUTOFF))
