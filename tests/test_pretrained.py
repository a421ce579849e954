import hashlib
import json
from dataclasses import replace
from datetime import date
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
import torch
from panels import InMemory, gappy_volumes, panel_of, priced_panel

from benchmarks.pretrain import FEW, SHORT, views
from volcast.models.panel import HORIZONS, Panel
from volcast.models.pretrained import FOLDER, PROVENANCE, vintage_for, vintages
from volcast.models.recipes import VolumeRecipe
from volcast.models.volume_inputs import AHEAD_COLUMNS, CPU, Inputs, build_inputs
from volcast.models.volume_training import FittedVolume, NetworkForecaster, fit_volume, training_run
from volcast.models.weights import to_bytes

LATER = 300  # sessions of a panel that begins after the last vintage


def recent_panel(tickers: int = 3, sessions: int = LATER, *, seed: int = 0) -> Panel:
    """On sessions that the first vintage has not seen, for the panels of tests begin in 2012."""
    before = 1300
    return priced_panel(gappy_volumes(tickers, before + sessions, seed=seed)).since(before)


def tuned(panel: Panel, *, checkpoint: InMemory | None = None, **changes: Any) -> FittedVolume:
    own: dict[str, Any] = {"members": 1, "tuning_steps": 20, "validate_every_steps": 10, **changes}
    recipe = VolumeRecipe(**own)
    inputs = build_inputs(panel, use_earnings=True)
    run = training_run(inputs, recipe, through=panel.known - 1, seed=3, device=CPU)
    return fit_volume(inputs, recipe, run, checkpoint=checkpoint)


def test_the_weights_are_those_of_their_provenance_and_small() -> None:
    folder = files("volcast.models") / FOLDER
    provenance = json.loads((folder / PROVENANCE).read_text())["vintages"]
    for own in provenance:
        assert hashlib.sha256((folder / own["file"]).read_bytes()).hexdigest() == own["sha256"]
    sizes = [len(each.read_bytes()) for each in folder.iterdir()]
    assert len(sizes) == len(provenance) + 1  # none without a provenance
    assert sum(sizes) < 2_000_000


def test_no_vintage_has_seen_a_session_after_its_last_one() -> None:
    for vintage in vintages():
        fitted_through = np.datetime64(int(vintage.model(VolumeRecipe()).fitted_through), "D")
        assert fitted_through == np.datetime64(vintage.last_session)


@pytest.mark.parametrize(
    ("through", "last_session"),
    [
        (date(2016, 12, 29), None),
        (date(2016, 12, 30), date(2016, 12, 30)),
        (date(2018, 12, 30), date(2016, 12, 30)),
        (date(2018, 12, 31), date(2018, 12, 31)),
        (date(2022, 12, 29), date(2020, 12, 31)),
        (date(2026, 7, 1), date(2022, 12, 30)),
    ],
)
def test_a_training_starts_from_the_newest_weights_that_know_nothing_of_its_test(
    through: date, last_session: date | None
) -> None:
    found = vintage_for(VolumeRecipe(), through=through)
    assert (found and found.last_session) == last_session


@pytest.mark.parametrize(
    "changes",
    [{"start": "scratch"}, {"cell": "gru"}, {"hidden_size": 16}, {"members": 64}, {"market": "mean of all"}],
)
def test_a_recipe_of_another_shape_is_trained_from_scratch(changes: dict[str, Any]) -> None:
    assert vintage_for(VolumeRecipe(**changes), through=date(2026, 7, 1)) is None


def test_without_a_step_the_weights_are_the_vintages_and_few_sessions_are_enough() -> None:
    panel = recent_panel(sessions=60)
    fitted = tuned(panel, tuning_steps=0)
    vintage = vintage_for(VolumeRecipe(), through=panel.sessions.date[59])
    assert vintage is not None
    as_they_are = vintage.model(VolumeRecipe(members=1))
    assert to_bytes(fitted.model.members) == to_bytes(as_they_are.members)
    assert fitted.model.calibration_HQ.equal(as_they_are.calibration_HQ)
    assert fitted.model.linear is not None
    assert 0 < fitted.model.linear.share_NH.max() < 0.06  # of 60 sessions
    said = fitted.model.forecast(build_inputs(panel, use_earnings=True), np.array([58, 59]))
    assert np.isfinite(said.quantiles_NCHQ[0]).all()


def test_a_tuning_keeps_the_best_weights_those_that_it_began_with_among_them() -> None:
    panel = recent_panel()
    fitted, again = tuned(panel), tuned(panel)
    assert [steps for steps, _ in fitted.losses] == [10, 20]
    assert to_bytes(again.model) == to_bytes(fitted.model)
    wild = tuned(panel, tuning_rate=0.9)
    assert wild.final_loss < min(loss for _, loss in wild.losses)


def test_a_tuning_that_was_killed_goes_on_to_the_same_weights() -> None:
    panel, checkpoint = recent_panel(), InMemory()
    whole = tuned(panel, checkpoint=checkpoint)
    assert to_bytes(tuned(panel, checkpoint=checkpoint).model) == to_bytes(whole.model)


def test_a_forecast_by_pretrained_weights_knows_nothing_of_the_future() -> None:
    panel, cutoffs = recent_panel(), np.array([120, 250])
    forecaster = NetworkForecaster(VolumeRecipe(members=1, tuning_steps=0), seed=0, device=CPU)
    before = forecaster.fit(panel, through=200).forecast(panel, cutoffs)
    after_T = np.where(np.arange(panel.known) > 250, 7.0, 1.0)
    other = replace(panel, fields={name: values * after_T for name, values in panel.fields.items()})
    after = forecaster.fit(other, through=200).forecast(other, cutoffs)
    assert np.array_equal(before.quantiles_NCHQ, after.quantiles_NCHQ, equal_nan=True)


# --- what they are made of ------------------------------------------------------------------------------------------


def told(inputs: Inputs, row: int, cutoff: int) -> np.ndarray:
    """Everything that a network is given of one ticker at a cutoff."""
    tensors, ticker, place = inputs.on(CPU), torch.tensor([row]), torch.tensor([cutoff])
    ahead = [tensors.ahead(ticker, place, place + h) for h in range(1, HORIZONS + 1)]
    return torch.cat([tensors.at_cutoff(ticker, place), *ahead], dim=1).numpy()


def test_each_view_is_what_a_panel_of_that_width_gives() -> None:
    panel = priced_panel(gappy_volumes(FEW + 2, 800))
    inputs, count = views(panel, np.random.default_rng(0)), FEW + 2
    assert len(inputs.panel.tickers) == 4 * count
    whole = build_inputs(panel, use_earnings=True)
    for row, ticker in enumerate(panel.tickers):
        alone = build_inputs(panel.of([ticker]), use_earnings=True)
        assert np.array_equal(told(inputs, row, 700), told(whole, row, 700))
        assert np.array_equal(told(inputs, 2 * count + row, 700), told(alone, 0, 700))
    few = {name.split()[1]: place for place, name in enumerate(inputs.panel.tickers[count : 2 * count], count)}
    assert few.keys() == set(panel.tickers)


def test_a_short_history_knows_nothing_of_before_it() -> None:
    panel = priced_panel(gappy_volumes(3, 800)).of(["A"])
    inputs = views(panel, np.random.default_rng(0))
    row = 3  # of one ticker: among all, among few, alone, short
    kept_T = np.flatnonzero(inputs.panel.traded_NT[row])
    begin = int(kept_T[0])
    cut = build_inputs(panel.since(begin), use_earnings=True)
    assert np.array_equal(told(inputs, row, begin + 100), told(cut, 0, 100))
    assert len(kept_T) < 2 * SHORT


def test_alone_a_ticker_keeps_its_own_part() -> None:
    volume_NT = np.full((1, 400), 1000.0)
    volume_NT[0, 60::63] = 4000  # once a quarter
    inputs = build_inputs(panel_of(volume_NT), use_earnings=True)
    assert inputs.surprise_NS[0, 123] == pytest.approx(np.log(4))
    echoes = [place for place, name in enumerate(AHEAD_COLUMNS) if name.startswith("echo")]
    assert told(inputs, 0, 370)[0, -len(AHEAD_COLUMNS) * HORIZONS :][echoes].any()
