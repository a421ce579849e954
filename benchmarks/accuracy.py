"""How accurate volcast is beside its baselines and its peers, on a panel of real prices with rolling cutoffs.

python -m benchmarks.accuracy --panel panel.parquet [--earnings earnings.csv] [--alone [--rows 253]] [--keep DIR]

--panel: Parquet with ticker, date, open, high, low, close, adj_close, volume. --earnings: CSV with Ticker and
Earnings_Date, each date taken as known ten sessions ahead; --no-events leaves it out of every method's columns.
Every method is fitted once, through --train-through, and forecasts 1 to 10 sessions ahead from each cutoff. The peers
need the extra: pip install -c constraints.txt --editable '.[bench]'. lstm and nhits are fitted on --neural-tickers of
the panel, the automatic models of statsforecast on --local-tickers of those, one by one; a table has the methods that
forecast all of its tickers, on exactly the same rows. The columns are those of models/scores.py: MASE, then for
horizons 1 to 5 the scaled pinball loss, the coverages, and the share of tickers with a smaller MASE than log-HAR's; and
of the next session R2 (`dollar_r2`) and what the forecast is worth to a trader (`dollar_value`). --sums prints after
each table how good the quantiles of the volume of 2, 5 and 10 sessions together are, of each method whose point is its
median (`sums_table`).

--alone gives 30 tickers to each method one by one, each as a panel of its own, and, with --rows, only so many of its
rows before the test begins. Errors are scaled by the ticker's whole history through --train-through, whatever --rows
is, so that the tables compare. A method that needs more rows than a ticker has is named, and has no row.
"""

import argparse
from collections.abc import Iterator
from datetime import date
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.kept import LIBRARIES, SECONDS, forecasts_of, version_of
from benchmarks.markets import pick, read_announcements, read_prices
from benchmarks.methods import ALONE, PEERS, Scope, make_method, own_methods
from volcast.models.backtest import TestSpan, train_scales
from volcast.models.errors import NotEnoughSessions
from volcast.models.forecast_columns import KEYS, models_of
from volcast.models.forecasters import HAR, traded_mean
from volcast.models.panel import Panel, make_panel
from volcast.models.scores import FIRST_TICKER, score
from volcast.models.sums import score_sums

SCOPES: tuple[Scope, ...] = ("panel", "neural", "local")  # each one's tickers are among those of the one before
LONG = 1260  # rows, five years
IMPACT = 0.2  # of w33037: buying a tenth of a session's dollar volume moves the price by 1 %, 0.1 of the share, twice
AVERSION = 1.2e-9  # of w33037's trader of $10bn; those of smaller ones trade nearly all of what large companies offer
TITLES = {"panel": "All", "neural": "The networks'", "local": "The automatic models'"}


def main() -> None:
    """Print a table for each set of tickers that some method was fitted on."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    panels = _panels(asked)
    span = TestSpan(
        train_through=asked.train_through, test_start=asked.test_start, test_end=asked.test_end, step=asked.step
    )
    if asked.alone:
        _print_alone(asked, panels["panel"], span)
        return
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
        table = accuracy_table(joined, panels[scope], span).assign(**{"training CPU s": seconds})
        print(_markdown(table) if asked.markdown else table.to_string(float_format="%.4f"))
        if asked.sums:
            sums = sums_table(joined, panels[scope], span)
            print(f"\n{_markdown(sums) if asked.markdown else sums.to_string(float_format='%.4f')}")


def _print_alone(asked: argparse.Namespace, panel: Panel, span: TestSpan) -> None:
    """The table of tickers that are given to every method one by one."""
    methods: dict[str, pd.DataFrame] = {}
    for name in asked.methods or ALONE:
        _scope, forecaster = make_method(name, seed=asked.seed, quick=asked.quick)
        settings = f"seed {asked.seed}, quick {asked.quick}"
        try:
            panels = [alone(panel, ticker, span, rows=asked.rows) for ticker in panel.tickers]
            parts = [forecasts_of(forecaster, own, span, settings=settings, folder=asked.keep) for own in panels]
        except NotEnoughSessions as error:
            print(f"{name} has no row: {error}", flush=True)
            continue
        methods[name] = pd.concat(parts, ignore_index=True)
        methods[name].attrs[SECONDS] = sum(part.attrs[SECONDS] for part in parts)
        print(f"{name}: {methods[name].attrs[SECONDS]:.0f} s of training", flush=True)
    print(_heading(asked, panel))
    joined, seconds = _join(methods, panel.tickers)
    given = f"its last {asked.rows} rows" if asked.rows else "all of its rows"
    print(f"\nEach alone with {given}: {len(panel.tickers)} tickers, {len(joined):,} forecasts a method\n")
    table = accuracy_table(joined, panel, span).assign(**{"training CPU s": seconds})
    print(_markdown(table) if asked.markdown else table.to_string(float_format="%.4f"))


def alone(panel: Panel, ticker: str, span: TestSpan, *, rows: int) -> Panel:
    """The panel of one ticker, on a grid that begins with the last `rows` (0: all) of its rows of the train span."""
    own = panel.of([ticker])
    train_T = own.sessions[: own.known].to_numpy() <= np.datetime64(span.train_through)
    return own.since(int(np.flatnonzero(own.traded_NT[0] & train_T)[-rows if rows else 0]))


def dollar_r2(frame: pd.DataFrame, panel: Panel) -> pd.Series:
    """Forecaster -> R2 of next-session log dollar volume less its 5-session mean, all tickers and cutoffs pooled.

    Goyenko, Kelly, Moskowitz, Su and Zhang (2024), "Trading Volume Alpha", NBER w33037. With V shares, P the close and
    f a forecast of V(t + 1), the point of horizon 1, all in the shares of the panel:

        y    = log(V(t + 1) P(t + 1)) - the mean of log(V P) over the last five traded sessions up to the cutoff t
        yhat = log(f P(t)) - the same mean
        R2   = 1 - sum (y - yhat)^2 / sum y^2

    It is against 0, no mean of y is taken off. The price of t + 1 is not known to a forecast: that of t stands for it.
    """
    actual_R, usual_R, forecasts = _log_dollars(frame, panel)
    square = ((actual_R - usual_R) ** 2).sum()
    return pd.Series({name: 1 - ((actual_R - each_R) ** 2).sum() / square for name, each_R in forecasts.items()})


def dollar_value(frame: pd.DataFrame, panel: Panel) -> pd.Series:
    """Forecaster -> how much of what perfect foresight saves a trader against the mean of five sessions it saves.

    The same paper, sections 4 and 5, and its table 2, panel A'. Whoever trades the share z of what would bring a
    position to its target pays for impact, of which each dollar costs 0.1 of its share of the dollar volume V, and for
    the part of the target that is missed, by an aversion mu to it; which is least, were V known, at the z below. With f
    a forecast of V, v = log V and log f as in `dollar_r2`:

        z    = 1 / (1 + exp(-log f + log 0.2 - log mu)) = mu / (mu + 0.2 / f)
        loss = the mean over all tickers and cutoffs of 0.2 / V z^2 + mu (1 - z)^2
        value = (loss of the mean - loss of f) / (loss of the mean - loss of f = V): 0 the mean of five, 1 foresight

    mu is AVERSION. A forecast that is too high costs far more than one that is as much too low.
    """
    actual_R, usual_R, forecasts = _log_dollars(frame, panel)
    worst, best = _trading_loss(usual_R, actual_R), _trading_loss(actual_R, actual_R)
    losses = {name: _trading_loss(each_R, actual_R) for name, each_R in forecasts.items()}
    return pd.Series({name: (worst - loss) / (worst - best) for name, loss in losses.items()})


def _trading_loss(log_forecast_R: np.ndarray, log_actual_R: np.ndarray) -> float:
    traded_R = 1 / (1 + np.exp(-log_forecast_R) * IMPACT / AVERSION)
    return float(np.mean(IMPACT * np.exp(-log_actual_R) * traded_R**2 + AVERSION * (1 - traded_R) ** 2))


def _log_dollars(frame: pd.DataFrame, panel: Panel) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """(R,) of horizon 1, where the volume came: log dollar volume, its mean of five before, and each forecaster's."""
    close_NT = panel.fields["close"]
    log_dollars_NT = panel.log_volume_NT + np.log(close_NT)
    usual_NT = traded_mean(log_dollars_NT, 5)
    rows = frame.loc[frame["h"] == 1]
    row_R = np.searchsorted(np.array(panel.tickers), rows["unique_id"].to_numpy(dtype=str))
    cutoff_R, target_R = (panel.sessions.get_indexer(pd.DatetimeIndex(rows[name])) for name in ("cutoff", "ds"))
    usual_R, log_close_R = usual_NT[row_R, cutoff_R], np.log(close_NT[row_R, cutoff_R])
    actual_R = log_dollars_NT[row_R, target_R]
    known_R = np.isfinite(actual_R - usual_R)
    forecasts = {name: (np.log(rows[name].to_numpy()) + log_close_R)[known_R] for name in models_of(rows)}
    return actual_R[known_R], usual_R[known_R], forecasts


def accuracy_table(frame: pd.DataFrame, panel: Panel, span: TestSpan) -> pd.DataFrame:
    """A row a method: MASE of SBUX and of the panel, and the panel's pinball, coverage, share of tickers won and R2."""
    scores = score(frame, train_scales(panel, span))
    of_all = scores.panel.set_index(["band", "model"])
    of_one = scores.by_ticker.loc[scores.by_ticker["unique_id"] == FIRST_TICKER].set_index(["band", "model"])
    mase = scores.by_ticker.loc[scores.by_ticker["band"] == "1-5"].pivot(
        index="unique_id", columns="model", values="mase"
    )
    columns = {
        f"{FIRST_TICKER} h=1": of_one["mase"]["1"],
        f"{FIRST_TICKER} h=1..5": of_one["mase"]["1-5"],
        "panel h=1": of_all["mase"]["1"],
        "panel h=1..5": of_all["mase"]["1-5"],
        "panel h=1..10": of_all["mase"]["1-10"],
        "pinball h=1..5": of_all["pinball"]["1-5"],
        "coverage 80": of_all["coverage_80"]["1-5"],
        "coverage 95": of_all["coverage_95"]["1-5"],
    }
    if HAR in mase:
        columns[f"better than {HAR}"] = mase.lt(mase[HAR], axis=0).mean()
    columns |= {"R2 h=1": dollar_r2(frame, panel), "value h=1": dollar_value(frame, panel)}
    return pd.DataFrame(columns).loc[of_all.loc["1"].index].rename_axis("method")


def sums_table(frame: pd.DataFrame, panel: Panel, span: TestSpan) -> pd.DataFrame:
    """A row a method and number of sessions: coverage and pinball of sums, and what added quantiles would have."""
    found = score_sums(frame, train_scales(panel, span))
    labels = found["model"] + ", " + found["band"] + " sessions"
    columns = {name: found[name].to_list() for name in ("coverage_80", "coverage_95", "pinball", "of_added")}
    return pd.DataFrame(columns, index=pd.Index(labels, name="method"))


def _panels(asked: argparse.Namespace) -> dict[Scope, Panel]:
    prices = read_prices(asked.panel, through=asked.test_end)
    announced = read_announcements(asked.earnings) if asked.earnings and asked.events else None
    tickers = pick(_long_listed(prices, asked) if asked.alone else prices["ticker"].unique().tolist(), asked.tickers)
    names: dict[Scope, list[str]] = {"panel": tickers, "neural": pick(tickers, asked.neural_tickers)}
    names["local"] = pick(names["neural"], asked.local_tickers)
    return {scope: make_panel(prices.loc[prices["ticker"].isin(some)], announced) for scope, some in names.items()}


def _long_listed(prices: pd.DataFrame, asked: argparse.Namespace) -> list[str]:
    """The tickers with LONG rows of the train span: how short a history is, --rows says."""
    rows = prices.loc[prices["session"] <= pd.Timestamp(asked.train_through)].groupby("ticker").size()
    return rows.index[rows >= LONG].tolist()


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
    parser.add_argument("--alone", action="store_true", help="each ticker as a panel of its own")
    parser.add_argument("--rows", type=int, default=0, help="with --alone: of each before the test; 0: all")
    parser.add_argument("--neural-tickers", type=int, default=50, help="of them; 0: all")
    parser.add_argument("--local-tickers", type=int, default=11, help="of those; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--quick", action="store_true", help="5 tickers and hardly any training: does it run?")
    parser.add_argument("--keep", type=Path, help="a folder in which forecasts are kept, and found again")
    parser.add_argument("--sums", action="store_true", help="also of the volume of several sessions together")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    if asked.quick or asked.alone:
        asked.tickers = asked.tickers or (5 if asked.quick else 30)
    return asked


if __name__ == "__main__":
    main()
