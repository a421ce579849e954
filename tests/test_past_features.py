import numpy as np
import pytest
from panels import gappy_volumes, panel_of, priced_panel

from volcast.models import past_features
from volcast.models.panel import Panel
from volcast.models.past_features import PAST_COLUMNS
from volcast.models.recipes import Market
from volcast.models.volume_inputs import Inputs, build_inputs, sha256_of


def built(panel: Panel) -> Inputs:
    return build_inputs(panel, use_earnings=False)


def column(inputs: Inputs, name: str) -> np.ndarray:
    return inputs.past_NTF[:, :, PAST_COLUMNS.index(name)]


def test_a_doubled_volume_by_hand() -> None:
    # 40 sessions of 1,000 shares, then 2,000: the log is up by 0.693, its 20-session mean by a 20th of it.
    volume_NT = np.full((2, 42), 1000.0)
    volume_NT[0, 40] = 2000
    inputs = built(panel_of(volume_NT))
    assert column(inputs, "volume_to_20")[0, 40] == pytest.approx(np.log(2) * 19 / 20)
    assert column(inputs, "volume_5_to_20")[0, 40] == pytest.approx(np.log(2) * (1 / 5 - 1 / 20))
    # the market is the other one, and 1 ticker counts 1 / (1 + 3)
    assert column(inputs, "market_volume")[:, 40] == pytest.approx([0, np.log(2) * 19 / 80])
    assert inputs.surprise_NS[:, 40] == pytest.approx([np.log(2), -np.log(2) / 4])  # less that of the market
    assert inputs.level_NT[0, 40] == pytest.approx(np.log(1000) + np.log(2) / 20)


def test_a_return_over_a_gap_is_from_the_row_before_it() -> None:
    volume_NT = np.full((2, 30), 1000.0)
    volume_NT[0, 25] = np.nan
    panel = panel_of(volume_NT)
    panel.fields["adj_close"][0, 26:] = np.e
    inputs = built(panel)
    # One return of 1 among 25 of the last 60 sessions: the volatility is its root mean square, 0.2 of 1; clipped at 5.
    returns = 25  # 27 sessions, less the gap, less the first
    assert column(inputs, "return_20")[0, 26] == pytest.approx(np.sqrt(returns / 20), rel=1e-4)
    assert column(inputs, "signed_return")[0, 26] == pytest.approx(5.0, rel=1e-4)
    assert column(inputs, "signed_return")[0, 27] == 0


def test_where_nothing_traded_all_is_0_and_says_so() -> None:
    volume_NT = gappy_volumes(4, 300)
    volume_NT[1, 250:260] = np.nan  # a halt
    volume_NT[2, 270] = 0
    panel = priced_panel(np.where(volume_NT > 0, volume_NT, np.nan))
    inputs = built(panel)
    is_there_NT = volume_NT > 0
    assert (column(inputs, "others")[:, 280] == [0.5, 0.5, 0.5, 0.5]).all()  # three others: 3 of 3 + 3
    assert (inputs.past_NTF[~is_there_NT] == 0).all()
    assert np.isfinite(inputs.past_NTF).all()
    assert np.abs(inputs.past_NTF).max() <= 5
    assert np.isnan(inputs.level_NT[-1, :109]).all()  # listed at 100: ten rows make a level
    assert np.isfinite(inputs.level_NT[-1, 109])


def test_a_spike_is_remembered_for_sixty_sessions() -> None:
    volume_NT = np.full((4, 120), 1000.0)
    volume_NT[0, 40] = 5000
    since_T = column(built(panel_of(volume_NT)), "since_spike")[0]
    assert since_T[[39, 40, 43, 100, 101]] == pytest.approx([1, 0, np.log(4) / np.log(61), 1, 1])


@pytest.mark.parametrize("market", ["others", "mean of all"])
def test_features_are_the_same_bit_for_bit_in_blocks_of_any_size(monkeypatch, market: Market) -> None:
    panel, found = priced_panel(gappy_volumes(5, 420)), set[str]()
    for size in (1, 3, 100):
        monkeypatch.setattr(past_features, "BLOCK", size)
        found.add(sha256_of(build_inputs(panel, use_earnings=True, market=market)))
    assert len(found) == 1
