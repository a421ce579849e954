"""What each part of the volume recipe is worth: the recipe with one thing changed at a time, on one panel.

python -m benchmarks.ablations --panel panel.parquet [--earnings earnings.csv] [--variants …] [--members 2]

Other cells (the tutorial's comparison of a multilayer perceptron, a plain recurrent network and an LSTM), other sizes,
and features left out, which is to say 0 in training and in the test. Rows are the variants; the columns are MASE, and
the geometric mean over tickers of the ratio of MASE (horizons 1 to 5) to log-HAR's, in which each ticker counts alike.
"""

import argparse
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.kept import SECONDS, forecasts_of
from benchmarks.markets import pick, read_announcements, read_prices
from volcast.models.ahead_features import HABIT_COLUMNS, SEASON_COLUMNS
from volcast.models.backtest import TestSpan, train_scales
from volcast.models.har import Har
from volcast.models.panel import Panel, make_panel
from volcast.models.past_features import PAST_COLUMNS
from volcast.models.recipes import VolumeRecipe
from volcast.models.scores import score
from volcast.models.volume_inputs import Inputs
from volcast.models.volume_training import NetworkForecaster

BAND = "1-5"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A change of the recipe, and the features that are 0."""

    settings: dict[str, Any] = field(default_factory=dict)
    without_past: tuple[str, ...] = ()
    without_ahead: tuple[str, ...] = ()
    without_echoes: bool = False


VARIANTS = {
    "lstm": Variant(),
    "gru": Variant(settings={"cell": "gru"}),
    "rnn": Variant(settings={"cell": "rnn"}),
    "mlp": Variant(settings={"cell": "mlp"}),
    "16 units": Variant(settings={"hidden_size": 16}),
    "64 units": Variant(settings={"hidden_size": 64}),
    "600 steps": Variant(settings={"steps": 600}),
    "1 member": Variant(settings={"members": 1}),
    "no linear member": Variant(settings={"linear_share": 0.0}),
    "rare dates as others": Variant(settings={"rare_dates": 1.0}),
    "no earnings dates": Variant(settings={"use_earnings": False}),
    "no echoes": Variant(without_echoes=True),
    "no habits": Variant(without_ahead=HABIT_COLUMNS),
    "no season": Variant(without_ahead=SEASON_COLUMNS),
    "no neighbours": Variant(without_past=("neighbours_surprise", "neighbours_surprise_5")),
    "no noise": Variant(without_past=("noise_60_to_252", "noise_252", "volume_beta")),
    "no prices": Variant(without_past=("return_20", "below_high_252", "above_low_252", "close_in_range")),
    "no market": Variant(without_past=("market_volume", "market_return", "market_range")),
}


class Ablated(NetworkForecaster):
    """The volume recipe without some features."""

    def __init__(self, name: str, variant: Variant, *, members: int, seed: int) -> None:
        recipe = replace(VolumeRecipe(start="scratch"), **({"members": members} | variant.settings))
        super().__init__(recipe, seed=seed, device=torch.device("cpu"), name=name.replace(" ", "_"))
        self._variant = variant

    def inputs(self, panel: Panel) -> Inputs:
        """The features of the panel, those left out at 0."""
        inputs = super().inputs(panel)
        past_NTF, known_ahead_NSA = inputs.past_NTF.copy(), inputs.known_ahead_NSA.copy()
        past_NTF[:, :, [PAST_COLUMNS.index(name) for name in self._variant.without_past]] = 0
        columns = (*HABIT_COLUMNS, *SEASON_COLUMNS)
        known_ahead_NSA[:, :, [columns.index(name) for name in self._variant.without_ahead]] = 0
        surprise_NS = np.zeros_like(inputs.surprise_NS) if self._variant.without_echoes else inputs.surprise_NS
        return replace(inputs, past_NTF=past_NTF, known_ahead_NSA=known_ahead_NSA, surprise_NS=surprise_NS)


def main() -> None:
    """Print a row a variant."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    prices = read_prices(asked.panel, through=asked.test_end)
    tickers = pick(prices["ticker"].unique().tolist(), asked.tickers)
    announced = read_announcements(asked.earnings) if asked.earnings else None
    panel = make_panel(prices.loc[prices["ticker"].isin(tickers)], announced)
    span = TestSpan(
        train_through=asked.train_through, test_start=asked.test_start, test_end=asked.test_end, step=asked.step
    )
    scale = train_scales(panel, span)
    har = _by_ticker(forecasts_of(Har(), panel, span, folder=asked.keep), scale, "har")
    rows = {}
    for name in asked.variants or VARIANTS:
        forecaster = Ablated(name, VARIANTS[name], members=asked.members, seed=asked.seed)
        settings = f"{VARIANTS[name]} {asked.members} members, seed {asked.seed}"
        frame = forecasts_of(forecaster, panel, span, settings=settings, folder=asked.keep)
        rows[name] = _row(frame, scale, forecaster.name, har)
        print(pd.DataFrame(rows).T.tail(1).to_string(header=len(rows) == 1, float_format="%.4f"), flush=True)


def _row(frame: pd.DataFrame, scale: pd.DataFrame, name: str, har: pd.Series) -> dict[str, float]:
    scores = score(frame, scale)
    panel = scores.panel.loc[scores.panel["model"] == name].set_index("band")
    ratio = (_by_ticker(frame, scale, name) / har).dropna()
    return {
        "h=1": panel["mase"]["1"],
        "h=1..5": panel["mase"][BAND],
        "h=1..10": panel["mase"]["1-10"],
        "pinball h=1..5": panel["pinball"][BAND],
        "to har": float(np.exp(np.log(ratio).mean())),
        "better than har": float((ratio < 1).mean()),
        "training CPU s": frame.attrs[SECONDS],
    }


def _by_ticker(frame: pd.DataFrame, scale: pd.DataFrame, name: str) -> pd.Series:
    scores = score(frame, scale).by_ticker
    chosen = scores.loc[(scores["model"] == name) & (scores["band"] == BAND)]
    return chosen.set_index("unique_id")["mase"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panel", type=Path, required=True)
    parser.add_argument("--earnings", type=Path)
    parser.add_argument("--train-through", type=date.fromisoformat, default=date(2016, 12, 30))
    parser.add_argument("--test-start", type=date.fromisoformat, default=date(2017, 1, 3))
    parser.add_argument("--test-end", type=date.fromisoformat, default=date(2018, 12, 31))
    parser.add_argument("--step", type=int, default=3, help="sessions between cutoffs; no multiple of 5")
    parser.add_argument("--tickers", type=int, default=0, help="SBUX and others evenly picked; 0: all of the panel")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="all by default")
    parser.add_argument("--members", type=int, default=2, help="of the variants that do not change them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch: members side by side")
    parser.add_argument("--keep", type=Path, help="a folder in which forecasts are kept, and found again")
    return parser.parse_args()


if __name__ == "__main__":
    main()
