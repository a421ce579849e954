"""How near to the floor the forecasters come: the scaled pinball loss beside that of the true conditional quantiles.

python -m benchmarks.oracle [--tickers 200] [--years 10] [--step 1] [--methods volcast har naive]

On the simulated exchange the law of tomorrow's volume is known (benchmarks/exchange_oracle.py), and no forecaster
can have a smaller expected loss than its quantiles; a ratio of 1.02 is 2 % above what is possible. Training ends a
year before the exchange's clock, the test is that last year.
"""

import argparse
from datetime import date, timedelta
from functools import reduce

import pandas as pd
import torch

from benchmarks.exchange_oracle import oracle_quantiles
from benchmarks.kept import SECONDS, forecasts_of
from benchmarks.markets import simulated_panel
from benchmarks.methods import make_method, own_methods
from volcast.models.backtest import TestSpan, train_scales
from volcast.models.forecast_columns import KEYS, SCORED_LEVELS, scored_columns
from volcast.models.scores import score
from volcast.tasks.sources.exchange import Exchange
from volcast.tasks.sources.simulated import SimulatedSource

LAST = date(2023, 12, 29)  # the exchange's clock
HORIZONS = range(1, 6)
BAND = "1-5"


def main() -> None:
    """Print a row a method: its loss, the ratio to the oracle's, its intervals' coverage and its fit's CPU seconds."""
    asked = _arguments()
    torch.set_num_threads(1)
    exchange = Exchange(seed=asked.exchange_seed, last=LAST)
    tickers = SimulatedSource(asked.exchange_seed, universe=asked.tickers).tickers()
    panel = simulated_panel(exchange, tickers, first=_years_back(asked.years + 1))
    train_through = _years_back(1)
    span = TestSpan(
        train_through=train_through, test_start=train_through + timedelta(days=1), test_end=LAST, step=asked.step
    )
    print(
        f"Simulated exchange {asked.exchange_seed}: {len(tickers)} tickers, {asked.years} years of training, tested "
        f"{span.test_start} to {span.test_end}, a cutoff every {asked.step} sessions; horizons {BAND}\n"
    )
    names = asked.methods or list(own_methods(seed=asked.seed))
    frames = [forecasts_of(make_method(name, seed=asked.seed, quick=False)[1], panel, span) for name in names]
    joined = reduce(lambda left, right: left.merge(right, on=KEYS), frames)
    seconds = {name: frame.attrs[SECONDS] for name, frame in zip(names, frames, strict=True)}
    joined = with_oracle(joined.loc[joined["h"].isin(HORIZONS)], exchange)
    table = floor_table(joined, train_scales(panel, span)).assign(**{"training CPU s": pd.Series(seconds)})
    print(table.to_string(float_format="%.4f"))


def with_oracle(frame: pd.DataFrame, exchange: Exchange) -> pd.DataFrame:
    """A `backtest` frame with one forecaster more, `oracle`: the true conditional quantiles of each row."""
    parts = []
    for ticker, rows in frame.groupby("unique_id"):
        cutoffs = pd.DatetimeIndex(rows["cutoff"].unique())
        true_CHQ = oracle_quantiles(exchange, str(ticker), cutoffs, horizons=HORIZONS, levels=SCORED_LEVELS)
        true_RQ = true_CHQ[cutoffs.get_indexer(pd.DatetimeIndex(rows["cutoff"])), rows["h"].to_numpy() - HORIZONS[0]]
        columns = dict(zip(scored_columns("oracle"), true_RQ.T, strict=True))
        parts.append(rows.assign(**columns))
    return pd.concat(parts, ignore_index=True)


def floor_table(frame: pd.DataFrame, scale: pd.DataFrame) -> pd.DataFrame:
    """A row a method, the oracle last: the panel's pinball and MASE with their ratios to the oracle's, and coverage."""
    panel = score(frame, scale, bands={BAND: (HORIZONS[0], HORIZONS[-1])}).panel.set_index("model")
    columns = {
        "pinball": panel["pinball"],
        "to the oracle": panel["pinball"] / panel.loc["oracle", "pinball"],
        "MASE": panel["mase"],
        "MASE to the oracle": panel["mase"] / panel.loc["oracle", "mase"],
        "coverage 80": panel["coverage_80"],
        "coverage 95": panel["coverage_95"],
    }
    return pd.DataFrame(columns).rename_axis("method")


def _years_back(years: int) -> date:
    return LAST.replace(year=LAST.year - years)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, default=200)
    parser.add_argument("--years", type=int, default=10, help="of training")
    parser.add_argument("--step", type=int, default=1, help="sessions between cutoffs")
    parser.add_argument("--exchange-seed", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of training")
    parser.add_argument(
        "--methods", nargs="+", help="volcast and its baselines by default; peers, too, where installed"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
