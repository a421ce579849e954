"""What the volume recipe looks at, from a panel: all of it known at the close of the cutoff.

Of each session up to the cutoff: the past features, and where the ticker stands in its earnings cycle. Of the target
session: the calendar, the echoes of earlier quarters, the ticker's habits, announced earnings. The unit of volume is
its log less the level: the mean of the last 20 sessions at the cutoff.

What the volume recipe works on: the inputs of some tickers, split by time, and their profile.

The newest `test_sessions` sessions are held back; everything that is fitted ends with the session before them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from volcast.models import arrays
from volcast.models.ahead_features import (
    ECHO_COLUMNS,
    ECHO_DAYS,
    ECHO_OFFSETS,
    HABIT_COLUMNS,
    SEASON_COLUMNS,
    earnings_season,
    echo_places,
    habits,
)
from volcast.models.backtest import TestSpan
from volcast.models.drift import DECILES
from volcast.models.earnings_features import EARNINGS_COLUMNS, EarningsCalendar, earnings_calendar
from volcast.models.errors import NotEnoughSessions
from volcast.models.market_calendar import CALENDAR_COLUMNS, calendar_columns
from volcast.models.panel import HORIZONS, Panel
from volcast.models.past_features import (
    PAST_COLUMNS,
    blocks_of,
    find_neighbours,
    mean_of_neighbours,
    past_features,
    surprise,
    trailing_mean,
)
from volcast.models.recipes import Market, VolumeRecipe
from volcast.models.weights import side_by_side

# N tickers, T sessions with prices, S = T + HORIZONS, F past features, K calendar columns, R rows of any selection

CPU = torch.device("cpu")

MIN_LEVEL_ROWS = 10  # of the last 20 sessions, for a forecast
HASHED = 2**26  # bytes at a time
LEAST_BEFORE_TEST = 126  # sessions: half a year, for the scale of the errors, and for har to be fitted on

AT_COLUMNS = (*PAST_COLUMNS, *(f"at_{name}" for name in EARNINGS_COLUMNS))
AHEAD_COLUMNS = (*CALENDAR_COLUMNS, *ECHO_COLUMNS, *HABIT_COLUMNS, *SEASON_COLUMNS, *EARNINGS_COLUMNS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """The features of a panel."""

    panel: Panel
    past_NTF: np.ndarray  # float32, of PAST_COLUMNS
    level_NT: np.ndarray  # float64, mean log volume of t-19..t; NaN where fewer than MIN_LEVEL_ROWS traded
    surprise_NS: np.ndarray  # float32; 0 where nothing traded, or not yet
    calendar_SK: np.ndarray  # float32, of CALENDAR_COLUMNS
    echo_places_SE: np.ndarray  # int64, places in the sessions; 0 before them
    known_ahead_NSA: np.ndarray  # float32, of HABIT_COLUMNS and SEASON_COLUMNS
    earnings: EarningsCalendar  # all 0 where no calendar is used

    @cached_property
    def log_volume_NS(self) -> np.ndarray:
        """(N, S) float64: log volume; NaN where nothing traded, or not yet. Less the cutoff's level, the target."""
        ahead_NH = np.full((len(self.panel.tickers), HORIZONS), np.nan)
        return np.concatenate([self.panel.log_volume_NT, ahead_NH], axis=1)

    @cached_property
    def usable_NT(self) -> np.ndarray:
        """(N, T) bool: a forecast can be made at the session: it traded, and its level is known."""
        return self.panel.traded_NT & np.isfinite(self.level_NT)

    def on(self, device: torch.device) -> "InputTensors":
        """The inputs on a device."""
        held = {
            "past_NTF": self.past_NTF,
            "level_NT": self.level_NT,
            "log_volume_NS": self.log_volume_NS,
            "traded_NT": self.panel.traded_NT,
            "usable_NT": self.usable_NT,
            "surprise_NS": self.surprise_NS,
            "calendar_SK": self.calendar_SK,
            "echo_places_SE": self.echo_places_SE,
            "known_ahead_NSA": self.known_ahead_NSA,
        }
        tensors = {name: torch.from_numpy(array).to(device) for name, array in held.items()}
        return InputTensors(**tensors, earnings=self.earnings.to(device))


def build_inputs(panel: Panel, *, use_earnings: bool, market: Market = "others") -> Inputs:
    """The features of every ticker and session of a panel; without earnings, as if no ticker had a calendar."""
    level_NT, blocks = arrays.empty(panel.log_volume_NT.shape), blocks_of(len(panel.tickers))
    for block in blocks:
        mean_NT, rows_NT = trailing_mean(panel.log_volume_NT[block], 20)
        level_NT[block] = np.where(rows_NT >= MIN_LEVEL_ROWS, mean_NT, np.nan)
    surprise_NT = surprise(panel, level_NT, market)
    surprise_NS = np.zeros((len(panel.tickers), len(panel.sessions)), dtype=np.float32)
    for block in blocks:
        surprise_NS[block, : panel.known] = np.nan_to_num(surprise_NT[block])
    calendar_SK = calendar_columns(panel.sessions, panel.calendar)
    earnings = earnings_calendar(panel, surprise_NS, use=use_earnings)
    neighbours = find_neighbours(surprise_NT, len(panel.sessions))
    neighbours_NT = mean_of_neighbours(surprise_NS, neighbours)[:, : panel.known]
    weekday_S, habit_count = panel.sessions.day_of_week.to_numpy(), len(HABIT_COLUMNS)
    known_ahead_NSA = arrays.empty((*surprise_NS.shape, habit_count + len(SEASON_COLUMNS)), np.float32)
    known_ahead_NSA[:, :, habit_count:] = earnings_season(earnings, neighbours, market)

    def fill(block: slice) -> None:
        known_ahead_NSA[block, :, :habit_count] = habits(surprise_NT[block], calendar_SK, weekday_S)

    list(side_by_side(fill, blocks))
    return Inputs(
        panel=panel,
        past_NTF=past_features(panel, surprise_NT, neighbours_NT, market),
        level_NT=level_NT,
        surprise_NS=surprise_NS,
        calendar_SK=calendar_SK,
        echo_places_SE=echo_places(panel.sessions),
        known_ahead_NSA=known_ahead_NSA,
        earnings=earnings,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class InputTensors:
    """The inputs of a panel on the device where a network gathers from them; on the CPU they share the arrays' memory.

    Tickers, cutoffs and targets are int64 tensors on that device, places in the panel, and broadcast to (...).
    """

    past_NTF: Tensor
    level_NT: Tensor
    log_volume_NS: Tensor
    traded_NT: Tensor
    usable_NT: Tensor
    surprise_NS: Tensor
    calendar_SK: Tensor
    echo_places_SE: Tensor
    known_ahead_NSA: Tensor
    earnings: EarningsCalendar

    def at_cutoff(self, ticker: Tensor, cutoff: Tensor) -> Tensor:
        """(..., len(AT_COLUMNS)) float32: what there is of each ticker at each cutoff, unscaled."""
        earnings = self.earnings.columns(ticker, cutoff, cutoff)
        return torch.cat([self.past_NTF[ticker, cutoff], earnings], dim=-1)

    def ahead(self, ticker: Tensor, cutoff: Tensor, target: Tensor) -> Tensor:
        """(..., len(AHEAD_COLUMNS)) float32: what is known at the cutoff of a session up to HORIZONS after it."""
        ticker, cutoff, target = torch.broadcast_tensors(ticker, cutoff, target)
        around = self.surprise_NS[ticker.unsqueeze(-1), self.echo_places_SE[target]]
        strongest = around.unflatten(-1, (len(ECHO_DAYS), len(ECHO_OFFSETS))).amax(dim=-1)
        return torch.cat(
            [
                self.calendar_SK[target],
                around,
                strongest,
                self.known_ahead_NSA[ticker, target],
                self.earnings.columns(ticker, cutoff, target),
            ],
            dim=-1,
        )

    def targets(self, ticker: Tensor, cutoff: Tensor, *, through: int) -> tuple[Tensor, Tensor]:
        """(..., HORIZONS) float32 log volume less the cutoff's level, and bool: it is there and not after `through`.

        Where it is not, the first is 0.
        """
        ticker, cutoff = torch.broadcast_tensors(ticker, cutoff)
        place = cutoff.unsqueeze(-1) + torch.arange(1, HORIZONS + 1, device=cutoff.device)
        target = self.log_volume_NS[ticker.unsqueeze(-1), place] - self.level_NT[ticker, cutoff].unsqueeze(-1)
        is_there = target.isfinite() & (place <= through) & self.traded_NT[ticker, cutoff].unsqueeze(-1)
        return torch.where(is_there, target, 0).float(), is_there


def table(inputs: Inputs, ticker_R: np.ndarray, cutoff_R: np.ndarray, horizon: int) -> np.ndarray:
    """(R, columns) float32: everything that the network is given for a target `horizon` sessions after each cutoff."""
    tensors, ticker, cutoff = inputs.on(CPU), torch.from_numpy(ticker_R), torch.from_numpy(cutoff_R)
    parts = [tensors.at_cutoff(ticker, cutoff), tensors.ahead(ticker, cutoff, cutoff + horizon)]
    return torch.cat(parts, dim=1).numpy()


# N tickers, T sessions with prices, R rows, F past features


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeData:
    """Inputs, and where their train span ends."""

    inputs: Inputs
    recipe: VolumeRecipe  # that they are for
    announcements: pd.DataFrame  # of `make_panel`, first_seen_assumed (bool), source
    through: int  # place of the last train session; those after it with prices are the test

    @property
    def span(self) -> TestSpan:
        """The test, as a backtest takes it."""
        dates = self.inputs.panel.sessions.date
        return TestSpan(
            train_through=dates[self.through],
            test_start=dates[self.through + 1],
            test_end=dates[self.inputs.panel.known - 1],
        )

    @property
    def is_testable(self) -> bool:
        """Whether enough comes before the test to score it."""
        return self.through >= LEAST_BEFORE_TEST

    @property
    def newest(self) -> np.ndarray:
        """(1,) the newest cutoff, as a place."""
        return np.array([self.inputs.panel.known - 1])

    def inputs_of(self, recipe: VolumeRecipe) -> Inputs:
        """The inputs for a model that was made by another recipe."""
        return inputs_for(self.inputs.panel, recipe)

    def of(self, tickers: Sequence[str]) -> "VolumeData":
        """The data of some of the tickers: what a feature takes from the others, it takes from these alone."""
        if set(tickers) == set(self.inputs.panel.tickers):
            return self
        panel = self.inputs.panel.of(tickers)
        return replace(self, inputs=inputs_for(panel, self.recipe))


def inputs_settings(recipe: VolumeRecipe) -> dict[str, Any]:
    """The settings of a recipe that its inputs depend on, as `build_inputs` takes them."""
    return {"use_earnings": recipe.use_earnings, "market": recipe.market}


def inputs_for(panel: Panel, recipe: VolumeRecipe) -> Inputs:
    """The features of every ticker and session of a panel, as a recipe looks at them; made once."""
    settings = inputs_settings(recipe)
    key = ("inputs", *settings.values())
    if key not in panel.made:
        panel.made[key] = build_inputs(panel, **settings)
    return panel.made[key]


def volume_data(panel: Panel, announcements: pd.DataFrame, recipe: VolumeRecipe) -> VolumeData:
    """The data of a recipe from a panel, and the announcements that it was made from.

    Raises NotEnoughSessions when nothing would be left to train on, or, of a recipe that does not train, when no ticker
    has traded on MIN_LEVEL_ROWS of 20 sessions.
    """
    held_back = recipe.stop_sessions + recipe.test_sessions
    needed = recipe.burn_in_sessions + recipe.scored_sessions + HORIZONS + held_back
    came = (
        f"{', '.join(panel.tickers[:5])}: {panel.known} sessions came, {panel.sessions[0]:%Y-%m-%d} to {panel.cutoff}"
    )
    if recipe.trains and panel.known < needed:
        raise NotEnoughSessions(
            f"{came}; recipe volume needs {needed}, the last {held_back} of them to stop and to test. Bring in "
            "an earlier start, or take the recipe that needs 201: --recipe tutorial"
        )
    data = VolumeData(
        inputs=inputs_for(panel, recipe),
        recipe=recipe,
        announcements=announcements,
        through=max(panel.known - 1 - recipe.test_sessions, 0),
    )
    if not data.inputs.usable_NT.any():
        raise NotEnoughSessions(f"{came}; a forecast needs {MIN_LEVEL_ROWS} that traded among 20. Bring in more.")
    return data


def profile(data: VolumeData) -> dict[str, Any]:
    """What the features were like, as JSON types: enough to know them again, and to see later ones drift.

    sha256 of all arrays, columns, tickers, traded sessions of each, and for each past feature mean, standard deviation
    and deciles over the rows of the train span that can be forecast from; over all, where nothing is trained.
    """
    inputs, panel = data.inputs, data.inputs.panel
    end = data.through + 1 if data.recipe.trains else panel.known
    is_used_NT = inputs.usable_NT[:, :end]
    features = {}
    for place, name in enumerate(PAST_COLUMNS):
        values_R = np.concatenate(
            [inputs.past_NTF[block, :end, place][is_used_NT[block]] for block in blocks_of(len(is_used_NT))]
        ).astype(np.float64)
        arrays.let_go()
        deciles = np.quantile(values_R, DECILES).tolist()
        features[name] = {"mean": float(values_R.mean()), "std": float(values_R.std()), "deciles": deciles}
    return {
        "sha256": sha256_of(inputs),
        "columns": [*AT_COLUMNS, *AHEAD_COLUMNS],
        "traded_sessions": dict(zip(panel.tickers, panel.traded_NT.sum(axis=1).tolist(), strict=True)),
        "train_rows": int(np.count_nonzero(is_used_NT)),
        "features": features,
    }


def recent_features(data: VolumeData, sessions: int) -> dict[str, np.ndarray]:
    """Each measurement of PAST_COLUMNS, (N, sessions) float64 of the newest ones; NaN where none is forecast from."""
    inputs, first = data.inputs, data.inputs.panel.known - sessions
    recent_NSF = np.where(inputs.usable_NT[:, first:, None], inputs.past_NTF[:, first:].astype(np.float64), np.nan)
    values = zip(PAST_COLUMNS, np.moveaxis(recent_NSF, 2, 0), strict=True)
    return {name: own_NS for name, own_NS in values if name != "others"}  # a count of tickers is no measurement


def sha256_of(inputs: Inputs) -> str:
    """Of all arrays of the features: by it they are known again."""
    digest = hashlib.sha256()
    members = [getattr(each, field.name) for each in (inputs, inputs.earnings) for field in fields(each)]
    for values in (np.asarray(member) for member in members if isinstance(member, np.ndarray | Tensor)):
        digest.update(f"{values.dtype} {values.shape}".encode())
        whole = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        for begin in range(0, len(whole), HASHED):
            digest.update(whole[begin : begin + HASHED].data)
            arrays.let_go()
    return digest.hexdigest()
