"""What dated events are worth: the pretrained network's errors around them, without and with what it missed before.

    python -m benchmarks.dated_events --panel panel.parquet --events dated_events.csv --kinds sp500_addition

`--panel` is a Parquet file of daily prices, `--events` a CSV with Date, Event and Ticker, each date taken as known ten
sessions ahead. The weights are the newest vintage that has seen no session of the test. A row is a kind and a session
around its dates: the absolute error in logs one session ahead (median), and 1 to 5 sessions ahead (mean).
"""

import argparse
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.markets import read_events, read_prices
from volcast.models.dated_events import AROUND, dated_moves
from volcast.models.forecasters import MEDIAN
from volcast.models.panel import HORIZONS, MARKET, Panel, make_panel
from volcast.models.pretrained import vintage_for
from volcast.models.recipes import VolumeRecipe
from volcast.models.volume_inputs import Inputs, inputs_for
from volcast.models.volume_model import targets_at

BEFORE = 7 * 365  # days of prices before the test: a reaction looks back on five years, a feature on one


def main() -> None:
    """Print a row a kind and session."""
    asked = _arguments()
    torch.set_num_threads(1)
    events = read_events(asked.events)
    events = events.loc[events["kind"].isin(asked.kinds)]
    prices = read_prices(asked.panel, through=asked.test_end)
    prices = prices.loc[prices["session"] > pd.Timestamp(asked.test_start) - pd.Timedelta(days=BEFORE)]
    if MARKET not in set(events["ticker"]):
        prices = prices.loc[prices["ticker"].isin(set(events["ticker"]))]
    recipe = VolumeRecipe()
    vintage = vintage_for(recipe, through=asked.test_start)
    assert vintage, "no weights know nothing of the test"
    inputs = inputs_for(make_panel(prices, events), recipe)
    first = int(inputs.panel.sessions.searchsorted(np.datetime64(asked.test_start, "s")))
    cutoffs, model = np.arange(first - 1, inputs.panel.known - 1), vintage.model(recipe)
    quantile_NCHQ = model.quantiles(inputs, cutoffs)
    without_NCH = _errors(inputs, cutoffs, quantile_NCHQ[..., MEDIAN])
    with_NCH = without_NCH - dated_moves(inputs, cutoffs, quantile_NCHQ, model.quantiles)
    print(f"{vintage.words}; {len(inputs.panel.tickers)} tickers, {asked.test_start} to {asked.test_end}")
    print("| events | session | forecasts, h=1 | median, h=1 | mean, h=1..5 |\n|---|---|---|---|---|")
    print(_row("all sessions", "", *(np.abs(each) for each in (without_NCH, with_NCH))))
    for kind in asked.kinds:
        for offset in AROUND:
            is_near_NCH = _near(inputs.panel, kind, offset, cutoffs)
            found = (np.where(is_near_NCH, np.abs(each), np.nan) for each in (without_NCH, with_NCH))
            print(_row(kind, f"{offset:+d}", *found))


def _errors(inputs: Inputs, cutoffs: np.ndarray, median_NCH: np.ndarray) -> np.ndarray:
    """(N, C, H) actual less median, in logs; NaN where there is none."""
    target_NCH, is_there_NCH = targets_at(inputs, cutoffs, through=inputs.panel.known - 1)
    return np.where(is_there_NCH & inputs.usable_NT[:, cutoffs, None], target_NCH - median_NCH, np.nan)


def _near(panel: Panel, kind: str, offset: int, cutoffs: np.ndarray) -> np.ndarray:
    """(N, C, H) bool: the target lies so many sessions from a date of the kind."""
    own = panel.dated.loc[panel.dated["kind"] == kind]
    place_E = panel.sessions.searchsorted(pd.DatetimeIndex(own["announced_for"])) + offset
    is_near_NS = np.zeros((len(panel.tickers), len(panel.sessions) + 1), dtype=bool)
    for ticker, place in zip(own["ticker"], place_E, strict=True):
        rows = slice(None) if ticker == MARKET else panel.tickers.index(ticker)
        is_near_NS[rows, min(place, len(panel.sessions))] = True
    return is_near_NS[:, cutoffs[:, None] + np.arange(1, HORIZONS + 1)]


def _row(kind: str, session: str, without_NCH: np.ndarray, with_NCH: np.ndarray) -> str:
    count = np.isfinite(without_NCH[..., 0]).sum()
    nearest = " -> ".join(f"{np.nanmedian(each[..., 0]):.3f}" for each in (without_NCH, with_NCH))
    band = " -> ".join(f"{np.nanmean(each[..., :5]):.4f}" for each in (without_NCH, with_NCH))
    return f"| {kind} | {session} | {count:,} | {nearest} | {band} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panel", type=Path, required=True)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", required=True)
    parser.add_argument("--test-start", type=date.fromisoformat, default=date(2017, 1, 3))
    parser.add_argument("--test-end", type=date.fromisoformat, default=date(2018, 12, 31))
    return parser.parse_args()


if __name__ == "__main__":
    main()
