"""The linear member: what it learns of a ticker, how far it is trusted, and what it changes in a forecast."""

import numpy as np
import pytest
import torch
from panels import gappy_volumes, priced_panel, tiny_recipe

from volcast.models.har import HALF_LIFE, POOLED
from volcast.models.panel import HORIZONS
from volcast.models.volume_inputs import AHEAD_COLUMNS, AT_COLUMNS, build_inputs
from volcast.models.volume_linear import COEFFICIENTS, FEW_ERRORS, PRIOR, TRUST, History, LinearMember
from volcast.models.volume_model import VolumeModel, fit_linear, fit_volume_scaler, volume_from_bytes
from volcast.models.weights import to_bytes

SHARE = 0.5
TRUE = 0.7  # of the first column of a session, in `history_of`


def history_of(sessions: int, true: float, *, noise: str = "normal", seed: int = 0) -> History:
    draws = np.random.default_rng(seed)
    x_RX = draws.normal(size=(sessions, len(AT_COLUMNS)))
    ahead_RHA = draws.normal(size=(sessions, HORIZONS, len(AHEAD_COLUMNS)))
    error_RH = draws.normal(size=(sessions, HORIZONS)) if noise == "normal" else draws.exponential(size=(sessions, 10))
    target_RH = true * x_RX[:, :1] + 0.3 * (error_RH - error_RH.mean())
    return History(
        cutoff_R=np.arange(sessions),
        x_RX=torch.from_numpy(x_RX).float(),
        ahead_RHA=torch.from_numpy(ahead_RHA).float(),
        target_RH=target_RH,
    )


def fitted(histories: dict[str, History], start: LinearMember | None = None) -> LinearMember:
    def newest(row: int, count: int) -> History:
        return list(histories.values())[row].newest(count)

    through = max(len(each.cutoff_R) for each in histories.values()) + HORIZONS
    return (start or LinearMember()).fitted(list(histories), newest, through=through, share=SHARE)


def weighted(sessions: int) -> float:
    """The sum of the weights of a fit's sessions, one ahead."""
    return float((0.5 ** ((np.arange(sessions, 0, -1) + HORIZONS - 1) / HALF_LIFE)).sum())


@pytest.mark.parametrize("sessions", [30, 500, 4000])
def test_a_long_history_says_its_own_coefficient_and_a_short_one_that_of_before(sessions: int) -> None:
    """Worked: of a column of variance 1 PRIOR sessions say what was before, then PRIOR and POOLED what that gave."""
    before = LinearMember()
    before.pooled_HB[:, 1] = TRUE
    member, own = fitted({"ONE": history_of(sessions, -TRUE)}, before), weighted(sessions)
    pooled = (PRIOR - own) / (PRIOR + own) * TRUE
    expected = (pooled * (PRIOR + POOLED) - TRUE * own) / (PRIOR + POOLED + own)
    np.testing.assert_allclose(member.own_NHB[0, :, 1], expected, atol=0.05)
    assert float(member.share_NH[0, 0]) == pytest.approx(SHARE * own / (own + TRUST), rel=1e-3)


def test_two_tickers_that_differ_have_coefficients_of_their_own_around_those_of_both() -> None:
    member = fitted({"UP": history_of(4000, TRUE, seed=1), "DOWN": history_of(4000, 0.0, seed=2)})
    up, down, both = member.own_NHB[0, 0, 1], member.own_NHB[1, 0, 1], member.pooled_HB[0, 1]
    assert 0 < down < both < up < TRUE


def test_errors_that_are_skewed_are_centred_on_their_median() -> None:
    member = fitted({"SKEWED": history_of(3000, TRUE, noise="skewed")})
    middle = 0.3 * (np.log(2) - 1) * 1000 / (1000 + FEW_ERRORS)  # the median of an exponential law less its mean
    assert ((1.1 * middle < member.own_NHB[0, :, 0]) & (member.own_NHB[0, :, 0] < 0.4 * middle)).all()


def test_the_median_moves_by_the_share_and_that_of_an_unknown_ticker_stays() -> None:
    member = fitted({"OLD": history_of(4000, TRUE)})
    x_NCX, ahead_NCHA = torch.ones(2, 3, len(AT_COLUMNS)), torch.zeros(2, 3, HORIZONS, len(AHEAD_COLUMNS))
    shift_NCH = member.of(["NEW", "OLD"]).shift(torch.full((2, 3, HORIZONS), 0.25), x_NCX, ahead_NCHA)
    assert (shift_NCH[0] == 0).all()
    said_H = member.own_NHB[0, :, : 1 + len(AT_COLUMNS)].sum(dim=1)
    torch.testing.assert_close(shift_NCH[1], (member.share_NH[0] * (said_H - 0.25)).expand(3, -1))


def test_a_model_keeps_it_and_what_comes_after_the_fit_changes_no_bit_of_it() -> None:
    recipe, through = tiny_recipe(), 400
    panel = priced_panel(gappy_volumes(3, 560))
    inputs = build_inputs(panel, use_earnings=True)
    torch.manual_seed(0)
    models = [VolumeModel(recipe, fit_volume_scaler(each, through=through)) for each in (inputs, inputs)]
    models[1].members.load_state_dict(models[0].members.state_dict())
    later = build_inputs(panel.until(through + 30), use_earnings=True)
    for model, own in zip(models, (inputs, later), strict=True):
        fit_linear(model.eval(), own, recipe, through=through)
    first, second = map(to_bytes, models)
    assert first == second
    assert models[0].linear is not None
    assert models[0].linear.own_NHB.shape == (3, HORIZONS, COEFFICIENTS)
    loaded = volume_from_bytes(first, recipe)
    cutoffs = np.array([450, 500])
    said = [each.forecast(inputs, cutoffs).quantiles_NCHQ for each in (models[0], loaded)]
    assert said[0].tobytes() == said[1].tobytes()
    models[0].linear = None
    without = models[0].forecast(inputs, cutoffs).quantiles_NCHQ
    assert (without != said[0]).any()
