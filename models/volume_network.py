"""The forking-sequence network: along a ticker's sessions once, and from each of them all horizons at once.

Wen, Torkkola, Narayanaswamy and Madeka (2017), "A multi-horizon quantile recurrent forecaster", arXiv:1711.11053.

1. the recurrent cell reads x_t, what is known of session t, and keeps h_t;
2. for horizon h, with c what is known at t of session t + h:   a = W1 [h_t, x_t] * (1 + g_h) + W2 c + b_h
   where columns of dates that come rarely are RARE_DATES times as large, or they would hardly be learned
3. raw outputs o = W3 dropout(gelu(a)) + S_h [h_t, x_t], the last a linear path of each horizon's own: without it
   yesterday's volume counts alike at every horizon
4. the middle of o is the median, the others are steps away from it, made positive: quantiles cannot cross

All is in units of log volume less the level of t, the mean log volume of its last 20 sessions.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from volcast.models.errors import UnusablePlugin
from volcast.models.forecasters import LEVELS, MEDIAN
from volcast.models.market_calendar import CALENDAR_COLUMNS, SPECIAL_DAYS
from volcast.models.panel import HORIZONS
from volcast.models.plugins import load_added
from volcast.models.recipes import VolumeRecipe
from volcast.models.volume_inputs import AHEAD_COLUMNS, AT_COLUMNS

# B sequences, T sessions of each, P of them forecast from, H horizons, Q quantile levels, U units
# X known of a session, K its calendar, A known of a session ahead

RARE_DATES = SPECIAL_DAYS.keys() - {"week_of_expiry"}  # columns that are 1 on a few sessions a year
NARROW = 1.5  # taken from a step before it is made positive, so that an untrained fan is about as wide as volumes are


class Plain(nn.Module):
    """A cell without memory: one layer, the same at each session; the article's multilayer perceptron."""

    def __init__(self, inputs: int, units: int, batch_first: bool = True) -> None:
        super().__init__()
        assert batch_first
        self.layer = nn.Linear(inputs, units)

    def forward(self, x_BTX: Tensor) -> tuple[Tensor, None]:
        """As a recurrent layer, which returns its last state, too."""
        return torch.tanh(self.layer(x_BTX)), None


CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN, "mlp": Plain}
PROBED = 8  # sessions, by which a cell of another package is tried: half of them are changed


def make_cell(name: str, inputs: int, units: int) -> nn.Module:
    """A cell of volcast's own, or of an installed package. Raises UnusablePlugin, also for one that looks ahead."""
    if name in CELLS:
        return CELLS[name](inputs, units, batch_first=True)
    make = load_added("volcast.cells", name)
    assert make is not None, f"{name} was there when the recipe was checked"
    _require_causal(name, make, inputs, units)
    return make(inputs, units, batch_first=True)


def _require_causal(name: str, make: Callable[..., nn.Module], inputs: int, units: int) -> None:
    """Raises UnusablePlugin for a cell whose state changes with what comes later, or is none."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.no_grad():
        x_BTX = torch.randn(1, PROBED, inputs).repeat(2, 1, 1)
        x_BTX[1, PROBED // 2 :] += 1
        h_BTU = make(inputs, units, batch_first=True).eval()(x_BTX)[0]
        past_BTU = h_BTU[:, : PROBED // 2]
        if h_BTU.shape == (2, PROBED, units) and torch.allclose(past_BTU[0], past_BTU[1]):
            return
    raise UnusablePlugin(
        f"The cell {name} must give (sequences, sessions, units) and a state, as torch.nn.LSTM does, and see no later "
        f"session than each; {tuple(h_BTU.shape)} came of (2, {PROBED}, {units}), or it changed with later sessions."
    )


class ForkingNetwork(nn.Module):
    """One member: features of sessions in, quantiles of the sessions after each of them out."""

    def __init__(self, recipe: VolumeRecipe) -> None:
        super().__init__()
        units, known = recipe.head_size, recipe.hidden_size + len(AT_COLUMNS)
        self.cell = make_cell(recipe.cell, len(AT_COLUMNS) + len(CALENDAR_COLUMNS), recipe.hidden_size)
        self.known = nn.Linear(known, units)  # W1
        self.ahead = nn.Linear(len(AHEAD_COLUMNS), units, bias=False)  # W2
        self.gate_HU = nn.Parameter(torch.zeros(HORIZONS, units))  # g
        self.shift_HU = nn.Parameter(torch.zeros(HORIZONS, units))  # b
        self.out = nn.Linear(units, len(LEVELS))  # W3
        self.direct = nn.Linear(known, HORIZONS * len(LEVELS))  # S
        self.keep = 1 - recipe.dropout
        self.rare_dates = recipe.rare_dates

    def encode(self, x_BTX: Tensor, calendar_BTK: Tensor) -> Tensor:
        """The hidden state after each session (B, T, U), from zero."""
        return self.cell(torch.cat([x_BTX, calendar_BTK], dim=2))[0]

    def decode(
        self, h_BPU: Tensor, x_BPX: Tensor, ahead_BPHA: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Quantiles (B, P, H, Q) from hidden states, their sessions, and the sessions ahead.

        `generator` draws the dropout of a training step; without one nothing is dropped.
        """
        known_BPV = torch.cat([h_BPU, x_BPX], dim=2)
        if self.rare_dates != 1:
            ahead_BPHA = ahead_BPHA * _units(self.rare_dates, ahead_BPHA.device)
        hidden_BPHU = self.known(known_BPV).unsqueeze(2) * (1 + self.gate_HU) + self.ahead(ahead_BPHA) + self.shift_HU
        hidden_BPHU = nn.functional.gelu(hidden_BPHU)
        if generator is not None:
            mask = torch.empty_like(hidden_BPHU).bernoulli_(self.keep, generator=generator)
            hidden_BPHU = hidden_BPHU * mask / self.keep
        direct_BPHQ = self.direct(known_BPV).unflatten(2, (HORIZONS, len(LEVELS)))
        return _ordered(self.out(hidden_BPHU) + direct_BPHQ)


def _ordered(raw_Q: Tensor) -> Tensor:
    """Raw outputs (..., Q) as ascending quantiles: the median, and steps up and down from it."""
    step_Q = nn.functional.softplus(raw_Q - NARROW)
    median_1 = raw_Q[..., MEDIAN : MEDIAN + 1]
    above = median_1 + step_Q[..., MEDIAN + 1 :].cumsum(-1)
    below = median_1 - step_Q[..., :MEDIAN].flip(-1).cumsum(-1).flip(-1)
    return torch.cat([below, median_1, above], dim=-1)


def pinball_loss(quantile_BPHQ: Tensor, target_BPH: Tensor, is_there_BPH: Tensor) -> Tensor:
    """The mean over levels and over the targets that are there (Koenker and Bassett, 1978)."""
    level_Q = _levels(quantile_BPHQ.device)
    error_BPHQ = target_BPH.unsqueeze(-1) - quantile_BPHQ
    loss_BPH = torch.maximum(level_Q * error_BPHQ, (level_Q - 1) * error_BPHQ).mean(-1)
    return (loss_BPH * is_there_BPH).sum() / is_there_BPH.sum().clamp(min=1)


@cache
def _units(rare_dates: float, device: torch.device) -> Tensor:
    """(A,): what each column is multiplied by."""
    return torch.tensor([rare_dates if name in RARE_DATES else 1.0 for name in AHEAD_COLUMNS], device=device)


@cache
def _levels(device: torch.device) -> Tensor:
    return torch.tensor(LEVELS, device=device)
