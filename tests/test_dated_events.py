"""Reactions to dated events. The network here says 0 at every level: its errors are log volume less the level."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from panels import dated, drawn_volumes, priced_panel

from volcast.models import dated_events
from volcast.models.dated_events import OF_MARKET, OF_TICKER, dated_moves
from volcast.models.forecasters import LEVELS
from volcast.models.panel import HORIZONS
from volcast.models.pretrained import vintages
from volcast.models.recipes import VolumeRecipe
from volcast.models.volume_inputs import Inputs, build_inputs, inputs_for

SESSIONS, TICKERS = 500, 4
PLACES = (100, 160, 220, 280, 340, 400)  # of events; of the newest panel the last one is to come
CUTOFF = 395


def zeros(inputs: Inputs, cutoffs: np.ndarray) -> np.ndarray:
    return np.zeros((len(inputs.panel.tickers), len(cutoffs), HORIZONS, len(LEVELS)), dtype=np.float32)


def inputs_of(rows: Sequence[tuple[str, int | None, int, int]], jumps: dict[tuple[int, int], float]) -> Inputs:
    """Volumes that never change, but for some by (row of the ticker, place): times exp of the jump."""
    volume_NT = np.full((TICKERS, SESSIONS), 1e6)
    for (row, place), jump in jumps.items():
        volume_NT[row, place] *= np.exp(jump)
    panel = priced_panel(volume_NT)
    return build_inputs(replace(panel, dated=dated(panel, rows)), use_earnings=True)


def moves_at(inputs: Inputs, cutoff: int) -> np.ndarray:
    cutoffs = np.array([cutoff])
    return dated_moves(inputs, cutoffs, zeros(inputs, cutoffs), zeros)[:, 0]


def test_a_tickers_own_kind_is_learned_and_shrunk_by_how_often_it_came() -> None:
    """Five events of the ticker A, each with x1 before, x2 on and x0.5 after the date: logs of 0, 1 and -0.5."""
    jumps = {(0, place): 1.0 for place in PLACES} | {(0, place + 1): -0.5 for place in PLACES}
    inputs = inputs_of([("investor_day", 0, place, place - 30) for place in PLACES], jumps)
    common, own = 5 / (5 + OF_TICKER.dates), 5 / (5 + OF_TICKER.own)
    moves_NH = moves_at(inputs, CUTOFF)
    assert moves_NH[0, 3] == pytest.approx(0, abs=0.01)  # the session before, 399
    assert moves_NH[0, 4] == pytest.approx(common + (1 - common) * own, rel=1e-3)
    # at the close of the date the level has risen by 1/20 of its jump, which counts at one horizon of those after it
    assert moves_NH[0, 5] == pytest.approx(-0.5 * (common + (1 - common) * own), rel=1e-3)
    assert not moves_NH[0, 6:].any()
    assert not moves_NH[1:].any()  # that have no event ahead


def test_a_ticker_without_a_history_of_the_kind_gets_what_the_others_did() -> None:
    """Of three dates that B and C share, each counts once: B jumped by 1 and C by 2; D's first event is ahead."""
    rows = [("addition", row, place, place - 5) for row in (1, 2) for place in PLACES[:3]]
    jumps = {(row, place): float(row) for row in (1, 2) for place in PLACES[:3]}
    moves_NH = moves_at(inputs_of([*rows, ("addition", 3, 400, 390)], jumps), CUTOFF)
    assert moves_NH[3, 4] == pytest.approx(1.5 * 3 / (3 + OF_TICKER.dates), rel=1e-3)
    assert not moves_NH[:3].any()


def test_an_event_of_the_market_moves_all_tickers_and_a_tickers_own_part_little() -> None:
    jumps = {(row, place): 0.4 if row == 3 else 0.2 for row in range(TICKERS) for place in PLACES}
    moves_NH = moves_at(inputs_of([("fomc", None, place, place - 30) for place in PLACES], jumps), CUTOFF)
    common, own = 0.25 * 5 / (5 + OF_MARKET.dates), 5 / (5 + OF_MARKET.own)
    assert moves_NH[:, 4] == pytest.approx([common + (mean - common) * own for mean in (0.2, 0.2, 0.2, 0.4)], rel=1e-3)


def test_the_largest_of_several_reactions_counts_once() -> None:
    jumps = {(0, place): 1.0 for place in PLACES}
    once = [("addition", 0, place, place - 30) for place in PLACES]
    by_two_names = [*once, *(("index_change", *row[1:]) for row in once)]
    assert np.array_equal(moves_at(inputs_of(by_two_names, jumps), CUTOFF), moves_at(inputs_of(once, jumps), CUTOFF))


def test_an_event_counts_from_the_close_at_which_it_was_first_seen() -> None:
    jumps = {(0, place): 1.0 for place in PLACES}
    inputs = inputs_of([("investor_day", 0, place, place - 3) for place in PLACES], jumps)
    assert not moves_at(inputs, 396).any()
    assert moves_at(inputs, 397)[0, 2] > 0.5
    late = inputs_of([("investor_day", 0, place, max(place, 398) - 2) for place in PLACES], jumps)
    assert not moves_at(late, 395).any()  # no earlier one was known
    assert moves_at(late, 398)[0, 1] == moves_at(inputs, 398)[0, 1]


def test_what_is_learned_of_an_event_must_have_closed() -> None:
    """Two of the kind a session apart: at the close before both, and between them, none of the kind is known."""
    inputs = inputs_of([("strike", 0, 300, 200), ("strike", 0, 301, 200)], {(0, 300): 1.0, (0, 301): 1.0})
    assert not moves_at(inputs, 299).any()
    common = 1 / (1 + OF_TICKER.dates)
    assert moves_at(inputs, 300)[0, 0] == pytest.approx(common + (1 - common) / (1 + OF_TICKER.own), rel=0.1)


def test_events_of_longer_ago_than_the_look_back_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dated_events, "OF_TICKER", replace(OF_TICKER, look_back=200))
    jumps = {(0, place): 9.0 if place < 200 else 1.0 for place in PLACES}
    moves_NH = moves_at(inputs_of([("investor_day", 0, place, place - 30) for place in PLACES], jumps), CUTOFF)
    assert 0.5 < moves_NH[0, 4] < 1


def test_a_forecast_is_moved_as_a_whole_by_what_the_network_missed_before() -> None:
    """A trades x e^2 on the session before each event; the network, which knows of none, is the pretrained one."""
    volume_NT = drawn_volumes(2, SESSIONS)
    volume_NT[0, [place - 1 for place in PLACES]] *= np.exp(2)
    panel, recipe = priced_panel(volume_NT), VolumeRecipe()
    model = vintages()[0].model(recipe)
    with_events = replace(panel, dated=dated(panel, [("addition", 0, place, place - 30) for place in PLACES]))
    without, moved = (model.forecast(inputs_for(each, recipe), np.array([CUTOFF])) for each in (panel, with_events))
    logs_NHQ = np.log(moved.quantiles_NCHQ / without.quantiles_NCHQ)[:, 0]
    assert logs_NHQ[0, 3] == pytest.approx(2 * 5 / 9 + 2 * 4 / 9 * 5 / 9, abs=0.3)  # its own noise of five dates
    assert np.ptp(logs_NHQ, axis=2).max() < 1e-5
    assert np.abs(logs_NHQ[0, 4:6]).max() < 0.3  # nothing happens on the date and after it
    assert not logs_NHQ[0, [0, 1, 2, 6, 7, 8, 9]].any()
    assert not logs_NHQ[1].any()
