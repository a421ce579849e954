import pytest
import torch
from panels import tiny_recipe
from torch import Tensor, nn

from volcast.models.forecasters import LEVELS, MEDIAN
from volcast.models.market_calendar import CALENDAR_COLUMNS
from volcast.models.panel import HORIZONS
from volcast.models.volume_inputs import AHEAD_COLUMNS, AT_COLUMNS
from volcast.models.volume_network import CELLS, ForkingNetwork, pinball_loss


def drawn(*, sequences: int = 3, sessions: int = 7, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """x_BTX, calendar_BTK, ahead_BTHA."""
    draws = torch.Generator().manual_seed(1)
    shape = (sequences, sessions)
    return (
        scale * torch.randn(*shape, len(AT_COLUMNS), generator=draws),
        scale * torch.randn(*shape, len(CALENDAR_COLUMNS), generator=draws),
        scale * torch.randn(*shape, HORIZONS, len(AHEAD_COLUMNS), generator=draws),
    )


def network(cell: str = "lstm", *, seed: int = 0, spread: float = 0.3) -> ForkingNetwork:
    """Random weights in every parameter, gates and shifts included."""
    torch.manual_seed(seed)
    made = ForkingNetwork(tiny_recipe(cell=cell))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=spread)
    return made


def quantiles(made: ForkingNetwork, x_BTX: Tensor, calendar_BTK: Tensor, ahead_BTHA: Tensor) -> Tensor:
    with torch.no_grad():
        return made.decode(made.encode(x_BTX, calendar_BTK), x_BTX, ahead_BTHA)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3, 1e6])
def test_quantiles_never_cross(cell: str, scale: float) -> None:
    said = quantiles(network(cell, spread=2.0), *drawn(scale=scale))
    assert said.shape == (3, 7, HORIZONS, len(LEVELS))
    assert torch.isfinite(said).all()
    assert (said.diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("cell", CELLS)
def test_the_same_session_ahead_has_other_quantiles_at_other_horizons(cell: str) -> None:
    x_BTX, calendar_BTK, ahead_BTHA = drawn()
    same_BTHA = ahead_BTHA[:, :, :1].expand_as(ahead_BTHA)
    median_BTH = quantiles(network(cell), x_BTX, calendar_BTK, same_BTHA)[..., MEDIAN]
    gaps_HH = (median_BTH[0, 0, :, None] - median_BTH[0, 0, None, :]).abs() + torch.eye(HORIZONS)
    assert gaps_HH.min() > 1e-6


@pytest.mark.parametrize(("cell", "remembers"), [("lstm", True), ("gru", True), ("rnn", True), ("mlp", False)])
def test_a_recurrent_cell_remembers_and_none_looks_ahead(cell: str, remembers: bool) -> None:
    made, (x_BTX, calendar_BTK, ahead_BTHA) = network(cell), drawn()
    other_BTX = x_BTX.clone()
    other_BTX[:, 3] += 1
    before, after = (quantiles(made, each, calendar_BTK, ahead_BTHA) for each in (x_BTX, other_BTX))
    differs_T = (before != after).flatten(2).any(dim=2).any(dim=0)
    assert differs_T.tolist() == [False] * 3 + [True] + [remembers] * 3


def test_dropout_follows_its_generator() -> None:
    made, (x_BTX, calendar_BTK, ahead_BTHA) = network(), drawn()
    h_BTU = made.encode(x_BTX, calendar_BTK)
    first, again, other = (
        made.decode(h_BTU, x_BTX, ahead_BTHA, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_pinball_loss_by_hand() -> None:
    # Target 2, all quantiles 1: each level costs itself. Target 0: each costs 1 less the level. Their mean is a half.
    quantile_BPHQ = torch.ones(1, 1, 2, len(LEVELS))
    quantile_BPHQ[0, 0, 1] = torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 1, 3])  # of target 2: 0.5 less its 0.975, and 0.025
    target_BPH, is_there_BPH = torch.tensor([[[2.0, 2.0]]]), torch.ones(1, 1, 2, dtype=torch.bool)
    first, second = sum(LEVELS) / 9, (sum(LEVELS) - 0.975 + 0.025) / 9
    assert first == pytest.approx(0.5)
    assert pinball_loss(quantile_BPHQ, target_BPH, is_there_BPH).item() == pytest.approx((first + second) / 2)


def test_a_target_that_is_not_there_counts_for_nothing() -> None:
    quantile_BPHQ, target_BPH = torch.zeros(1, 1, 2, len(LEVELS)), torch.tensor([[[1.0, 1e6]]])
    assert pinball_loss(quantile_BPHQ, target_BPH, torch.tensor([[[True, False]]])).item() == pytest.approx(0.5)
    assert pinball_loss(quantile_BPHQ, target_BPH, torch.tensor([[[False, False]]])).item() == 0
