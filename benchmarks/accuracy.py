"""How accurate volcast is beside its baselines and its peers, on a panel of real prices with rolling cutoffs.

python -m benchmarks.accuracy --panel panel.parquet [--earnings earnings.csv] [--keep DIR] [--markdown]

--panel: Parquet with ticker, date, open, high, low, close, adj_close, volume. --earnings: CSV with Ticker and
Earnings_Date, each date taken as known ten sessions ahead; --no-events leaves it out of every method's columns.
Every method is fitted once, through --train-through, and forecasts 1 to 10 sessions ahead from each cutoff. The peers
need the extra: pip install -c constraints.txt --editable '.[bench]'. lstm and nhits are fitted on --neural-tickers of
the panel, the automatic models of statsforecast on --local-tickers of those, one by one; a table has the methods that
forecast all of its tickers, on exactly the same rows. The columns are those of models/scores.py: MASE, then for
horizons 1 to 5 the scaled pinball loss, the coverages, and the share of tickers with a smaller MASE than log-HAR's.
"""

import argparse
from collections.abc import Iterator
from datetime import date
from functools import reduce
from pathlib import Path

import pandas as pd
import torch

from benchmarks.kept import LIBRARIES, SECONDS, forecasts_of, version_of
from benchmarks.markets import pick, read_announcements, read_prices
from benchmarks.methods import PEERS, Scope, make_method, own_methods
from models.backtest import TestSpan, train_volumes
from models.forecast_columns import KEYS
from models.forecasters import HAR
from models.panel import Panel, make_panel
from models.scores import FIRST_TICKER, score

SCOPES: tuple[Scope, ...] = ("panel", "neural", "local")  # each one's tickers are among those of the one before
TITLES = {"panel": "All", "neural": "The networks'", "local": "The automatic models'"}


def main() -> None:
    """Print a table for each set of tickers that some method was fitted on."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    panels = _panels(asked)
    span = TestSpan(
        train_through=asked.train_through, test_start=asked.test_start, test_end=asked.test_end, step=asked.step
    )
    frames: dict[Scope, dict[str, pd.DataFrame]] = {scope: {} for scope in SCOPES}
    for name in asked.methods or [*own_methods(seed=asked.seed), *PEERS]:
        scope, forecaster = make_method(name, seed=asked.seed, quick=asked.quick)
        settings = f"seed {asked.seed}, quick {asked.quick}"
        frames[scope][name] = forecasts_of(forecaster, panels[scope], span, settings=settings, folder=asked.keep)
        print(f"{name}: {frames[scope][name].attrs[SECONDS]:.0f} s of training", flush=True)
    print(_heading(asked, panels["panel"]))
    for scope, methods in _tables(frames):
        tickers = panels[scope].tickers
        joined, seconds = _join(methods, tickers)
        print(f"\n{TITLES[scope]} {len(tickers)} tickers, {len(joined):,} forecasts a method\n")
        table = accuracy_table(joined, train_volumes(panels[scope], span)).assign(**{"training CPU s": seconds})
        print(_markdown(table) if asked.markdown else table.to_string(float_format="%.4f"))


def accuracy_table(frame: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """A row a method: MASE of SBUX and of the panel, and the panel's pinball, coverage and share of tickers won."""
    scores = score(frame, train)
    panel = scores.panel.set_index(["band", "model"])
    of_one = scores.by_ticker.loc[scores.by_ticker["unique_id"] == FIRST_TICKER].set_index(["band", "model"])
    mase = scores.by_ticker.loc[scores.by_ticker["band"] == "1-5"].pivot(
        index="unique_id", columns="model", values="mase"
    )
    columns = {
        f"{FIRST_TICKER} h=1": of_one["mase"]["1"],
        f"{FIRST_TICKER} h=1..5": of_one["mase"]["1-5"],
        "panel h=1": panel["mase"]["1"],
        "panel h=1..5": panel["mase"]["1-5"],
        "panel h=1..10": panel["mase"]["1-10"],
        "pinball h=1..5": panel["pinball"]["1-5"],
        "coverage 80": panel["coverage_80"]["1-5"],
        "coverage 95": panel["coverage_95"]["1-5"],
    }
    if HAR in mase:
        columns[f"better than {HAR}"] = mase.lt(mase[HAR], axis=0).mean()
    return pd.DataFrame(columns).loc[panel.loc["1"].index].rename_axis("method")


def _panels(asked: argparse.Namespace) -> dict[Scope, Panel]:
    prices = read_prices(asked.panel, through=asked.test_end)
    announced = read_announcements(asked.earnings) if asked.earnings and asked.events else None
    tickers = pick(prices["ticker"].unique().tolist(), asked.tickers)
    names: dict[Scope, list[str]] = {"panel": tickers, "neural": pick(tickers, asked.neural_tickers)}
    names["local"] = pick(names["neural"], asked.local_tickers)
    return {scope: make_panel(prices.loc[prices["ticker"].isin(some)], announced) for scope, some in names.items()}


def _tables(frames: dict[Scope, dict[str, pd.DataFrame]]) -> Iterator[tuple[Scope, dict[str, pd.DataFrame]]]:
    """The tickers of each table and its methods: those that were fitted on these tickers or on more."""
    methods: dict[str, pd.DataFrame] = {}
    for scope in SCOPES:
        methods |= frames[scope]
        if frames[scope]:
            yield scope, dict(methods)


def _join(methods: dict[str, pd.DataFrame], tickers: tuple[str, ...]) -> tuple[pd.DataFrame, dict[str, float]]:
    """The methods beside each other where all have an answer, and the CPU seconds that each one's training took."""
    seconds = {name: frame.attrs[SECONDS] for name, frame in methods.items()}
    parts = [frame.loc[frame["unique_id"].isin(tickers)] for frame in methods.values()]
    joined = reduce(lambda left, right: left.merge(right, on=KEYS), parts)
    return joined, seconds


def _heading(asked: argparse.Namespace, panel: Panel) -> str:
    versions = ", ".join(f"{name} {version_of(name)}" for name in LIBRARIES)
    return (
        f"\n{asked.panel.name}, {len(panel.tickers)} tickers, {len(panel.announcements):,} announcements; trained "
        f"through {asked.train_through}, tested {asked.test_start} to {asked.test_end}, "
        f"a cutoff every {asked.step} sessions\n"
        f"{versions}"
    )


def _markdown(table: pd.DataFrame) -> str:
    """The table as docs/results.md shows it."""
    heads = ["method", *table.columns]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in table.iterrows():
        cells = [_cell(column, value) for column, value in row.items()]
        lines.append(f"| {' | '.join([str(name), *cells])} |")
    return "\n".join(lines)


def _cell(column: object, value: float) -> str:
    if "CPU" in str(column):
        return f"{value:,.0f}"
    return f"{value:.0%}" if "better" in str(column) else f"{value:.3f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panel", type=Path, required=True)
    parser.add_argument("--earnings", type=Path)
    parser.add_argument("--events", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--train-through", type=date.fromisoformat, default=date(2020, 12, 31))
    parser.add_argument("--test-start", type=date.fromisoformat, default=date(2021, 1, 4))
    parser.add_argument("--test-end", type=date.fromisoformat, default=date(2022, 12, 30))
    parser.add_argument("--step", type=int, default=1, help="sessions between cutoffs; no multiple of 5")
    parser.add_argument("--methods", nargs="+", help="all by default")
    parser.add_argument("--tickers", type=int, default=0, help="SBUX and others evenly picked; 0: all of the panel")
    parser.add_argument("--neural-tickers", type=int, default=50, help="of them; 0: all")
    parser.add_argument("--local-tickers", type=int, default=11, help="of those; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--quick", action="store_true", help="5 tickers and hardly any training: does it run?")
    parser.add_argument("--keep", type=Path, help="a folder in which forecasts are kept, and found again")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    if asked.quick:
        asked.tickers = asked.tickers or 5
    return asked


if __name__ == "__main__":
    main()
