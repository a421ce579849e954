"""How good forecasts of volume were: those of a backtest, and those that were published.

With y actual volume, f a forecast, and the mean over the rows of one ticker:
    mase       mean(|y - f|) / scale;  scale: the mean of |y(t) - y(t - 5)| over the ticker's train sessions, or, of a
               published forecast, over those up to its cutoff; of a market that is open every day |y(t) - y(t - 7)|
    rmsse      sqrt(mean((y - f)^2) / mean((y(t) - y(t - 5))^2))
    smape      mean(|y - f| / (y + f)): 0 to 1
    qlike      mean(y/f - log(y/f) - 1)       (Patton 2011, "Volatility forecast comparison using imperfect proxies")
    log_rmse   sqrt(mean((log y - log f)^2))
    pinball    the quantile losses of the levels 0.025, 0.1, 0.5, 0.9 and 0.975, their mean, / scale
    coverage_80, coverage_95   the share of y inside of the interval
    bias       mean(f - y) / mean(y)
    over_share the share of f above y
f is the point in all of them; rmsse_mean and qlike_mean are those of the mean forecast, X-mean, where a forecaster has
one (it is the mean that squares and QLIKE ask for), else of its point again. A panel's score is the mean over its
tickers, in which a ticker's scaled losses are divided by as much as it takes for the largest of any forecaster to be
MOST: a ticker that has outgrown its scale, or one that a forecaster has lost, does not swamp the others, and who is
better on it stays so. A ticker without a scale (listed after the train sessions) is not scored. utilsforecast has a
backtest's losses. Published forecasts are compared with har and naive on the same rows: mase_har is mase over that of
har, below 1 the published forecast is better; mase_naive, pinball_har and pinball_naive likewise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from utilsforecast import losses

from volcast.models.errors import NotEnoughSessions
from volcast.models.forecast_columns import LEDGER_LEVELS, SCORED_LEVELS, mean_column, models_of, scored_columns
from volcast.models.forecasters import HAR, season_of
from volcast.models.panel import Panel

BANDS = {"1": (1, 1), "1-5": (1, 5), "1-10": (1, 10)}  # horizons, first and last
GATE_BAND, GATE_METRIC = "1-5", "mase_1_5"  # decide at the gate: what an order of tomorrow and of this week needs
FIRST_TICKER = "SBUX"  # leads the tickers' own rows

WINDOWS = (5, 20, 60)  # target sessions: a week, a month, a quarter
SKILL_SPAN = 2 * max(WINDOWS)  # sessions in which the largest window is looked for
ALL = "all"  # the mean over the tickers
RIVALS = (HAR, "naive")
RIVAL_LOSSES = ("mase", "pinball")
SCALED = ("mase", "rmsse", "rmsse_mean", "pinball")  # losses
MOST = 10.0  # of a ticker's scaled loss in a mean; of har's MASEs of a quarter 99 % are below 3.7 (2017 to 2020)
SHARES = {"in_80": "coverage_80", "in_95": "coverage_95", "over": "over_share"}  # of rows, column -> name
ROLLING, FEWEST = 20, 5  # target sessions in a rolling mean, and at its start

Bands = dict[str, tuple[int, int]]


# --- a backtest ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """The losses of every forecaster."""

    by_ticker: pd.DataFrame  # band, model, unique_id (SBUX first), mean_of, one column a loss
    panel: pd.DataFrame  # band, model, tickers (how many), mean_of, one column a loss: the mean over the tickers


def scales(panel: Panel, *, known: int) -> pd.DataFrame:
    """The scales of a panel's tickers, from the first `known` sessions, as `scales_of` has them."""
    traded = (volume_T[np.isfinite(volume_T)] for volume_T in panel.fields["volume"][:, :known])
    return scales_of(dict(zip(panel.tickers, traded, strict=True)), season_of(panel.sessions[:known]))


def scales_of(volumes: Mapping[str, np.ndarray], season: int) -> pd.DataFrame:
    """unique_id -> `absolute`, the mean of |y(t) - y(t - a week)|, and `root`, the root of its mean square, in shares.

    `volumes`: of each ticker those that were traded, in order of time, of a market with `season` sessions a week. Only
    of tickers whose scale is above 0.
    """
    steps = {ticker: y_T[season:] - y_T[:-season] for ticker, y_T in volumes.items()}
    moved = {ticker: step_T for ticker, step_T in steps.items() if step_T.any()}
    rows = {ticker: (np.abs(step_T).mean(), np.sqrt((step_T**2).mean())) for ticker, step_T in moved.items()}
    found = pd.DataFrame.from_dict(rows, orient="index", columns=["absolute", "root"], dtype="float64")
    return found.rename_axis("unique_id")


def scaled(loss: Any, scale: Any) -> pd.Series:
    """A loss of each row, in shares, in units of its ticker's scale: MASE is the mean of absolute errors so scaled."""
    return pd.Series(loss / scale)


def stretch(losses: pd.DataFrame) -> pd.Series:
    """What the scaled losses of each row, a ticker's, are divided by in a mean: 1, or more where one is above MOST."""
    return pd.Series(losses.max(axis=1) / MOST).clip(lower=1.0)


def scored_rows(frame: pd.DataFrame, scale: pd.DataFrame) -> pd.DataFrame:
    """The rows of the tickers that have a scale. Raises NotEnoughSessions where none has."""
    rows = frame.loc[frame["unique_id"].isin(list(scale.index))]
    if rows.empty:
        raise NotEnoughSessions(
            "No ticker of the test has more than a week of train sessions, so no error can be scaled. "
            "Let --train-through be later, or bring in an earlier start."
        )
    return rows


def score(frame: pd.DataFrame, scale: pd.DataFrame, *, bands: Bands = BANDS) -> Scores:
    """The scores of a `backtest` frame; `scale` as `train_scales` gives it. Raises NotEnoughSessions."""
    rows = scored_rows(frame, scale)
    by_ticker = pd.concat([_band(rows, scale, band, between) for band, between in bands.items()], ignore_index=True)
    grouped = _bounded(by_ticker).groupby(["band", "model", "mean_of"], sort=False)
    panel = pd.DataFrame(grouped.mean(numeric_only=True))
    panel.insert(0, "tickers", grouped.size())
    return Scores(by_ticker=by_ticker, panel=panel.reset_index())


def _bounded(by_ticker: pd.DataFrame) -> pd.DataFrame:
    """The losses as they count in the mean over the tickers."""
    key = ["band", "unique_id"]
    worst = by_ticker.groupby(key)[list(SCALED)].transform("max")
    return by_ticker.assign(**{loss: by_ticker[loss] / stretch(pd.DataFrame(worst[[loss]])) for loss in SCALED})


def calibration(frame: pd.DataFrame, model: str, *, bands: Bands = BANDS) -> pd.DataFrame:
    """The share of volumes at or below each quantile: index nominal level, a column a band; the mean over tickers."""
    columns = dict(zip(SCORED_LEVELS, scored_columns(model), strict=True))
    observed = {}
    for band, between in bands.items():
        rows = frame.loc[frame["h"].between(*between)]
        is_below = pd.DataFrame({level: rows["y"] <= rows[name] for level, name in columns.items()})
        observed[band] = pd.DataFrame(is_below.groupby(rows["unique_id"]).mean()).mean()
    return pd.DataFrame(observed).rename_axis("level")


def _band(rows: pd.DataFrame, scale: pd.DataFrame, band: str, between: tuple[int, int]) -> pd.DataFrame:
    """The by_ticker rows of one band."""
    models = models_of(rows)
    mean_of = {model: mean_column(model) if mean_column(model) in rows.columns else model for model in models}
    inside = rows.loc[rows["h"].between(*between)].drop(columns="cutoff")  # or each cutoff would be scored for itself
    found = _point_losses(inside, scale, models)
    means = _square_losses(inside, scale, list(mean_of.values()))
    tables = [
        pd.DataFrame({name: table[model] for name, table in found.items()}).assign(
            band=band,
            model=model,
            mean_of=mean_of[model],
            **{f"{name}_mean": means[name][mean_of[model]] for name in means},
        )
        for model in models
    ]
    whole = pd.concat([table.rename_axis("unique_id").reset_index() for table in tables])
    whole["is_other"] = whole["unique_id"] != FIRST_TICKER
    ordered = whole.sort_values(["is_other", "unique_id"], kind="stable").drop(columns="is_other")
    leading = ["band", "model", "unique_id", "mean_of"]
    return ordered.loc[:, [*leading, *(name for name in ordered.columns if name not in leading)]]


def _point_losses(rows: pd.DataFrame, scale: pd.DataFrame, models: list[str]) -> dict[str, pd.DataFrame]:
    """Loss -> a row a ticker, a column a forecaster."""
    logs = rows[["unique_id"]].assign(**{name: np.log(rows[name]) for name in ("y", *models)})
    quantiles = {model: scored_columns(model) for model in models}
    above = rows[["unique_id"]].assign(**{model: rows[model] > rows["y"] for model in models})
    return {
        "mase": in_units(losses.mae(rows, models), scale["absolute"]),
        "smape": indexed(losses.smape(rows, models)),
        **_square_losses(rows, scale, models),
        "log_rmse": indexed(losses.rmse(logs, models)),
        "pinball": in_units(losses.mqloss(rows, quantiles, np.array(SCORED_LEVELS)), scale["absolute"]),
        "coverage_80": indexed(losses.coverage(rows, models, 80)),
        "coverage_95": indexed(losses.coverage(rows, models, 95)),
        "bias": indexed(losses.bias(rows, models)).div(rows.groupby("unique_id")["y"].mean(), axis=0),
        "over_share": pd.DataFrame(above.groupby("unique_id")[models].mean()),
    }


def _square_losses(rows: pd.DataFrame, scale: pd.DataFrame, columns: list[str]) -> dict[str, pd.DataFrame]:
    """The losses that a mean minimises: rmsse and qlike, a row a ticker, a column a column."""
    ratios = pd.DataFrame({name: rows["y"] / rows[name] for name in columns})
    qlike = pd.DataFrame((ratios - np.log(ratios) - 1).groupby(rows["unique_id"]).mean())
    return {"rmsse": in_units(losses.rmse(rows, columns), scale["root"]), "qlike": qlike}


def in_units(table: Any, unit: Any) -> pd.DataFrame:
    """A loss of utilsforecast in the tickers' units."""
    found = indexed(table)
    return found.div(unit.reindex(found.index), axis=0)


def indexed(table: Any) -> pd.DataFrame:
    """A loss of utilsforecast: a row a ticker, a column a forecaster."""
    return cast(pd.DataFrame, table).set_index("unique_id")


# --- published forecasts ---------------------------------------------------------------------------------------------


def score_forecasts(forecasts: pd.DataFrame, prices: pd.DataFrame) -> pd.DataFrame:
    """The forecasts whose target has a volume, with what they were worth, in their order.

    `forecasts`: ticker, cutoff, ds (datetime64), lo_95, lo_80, median, hi_80, hi_95 (shares as of the cutoff), and
    any more. `prices`: ticker, session (datetime64), volume (shares as of the last session), split (new shares per old
    one, 0 without); from the first cutoff on, each ticker and session once.

    Adds actual (int64, shares as of the cutoff: a split in between changes the unit, not the forecast's worth),
    absolute_error (shares, of the median), pinball (shares: the mean of the quantile losses of LEDGER_LEVELS), in_80,
    in_95, over (bool: the median lies above the actual).
    """
    volumes = pd.DataFrame(prices[["ticker", "session", "volume"]]).rename(
        columns={"session": "ds", "volume": "actual"}
    )
    rows = forecasts.astype({"ds": "datetime64[s]", "cutoff": "datetime64[s]"}).merge(
        volumes.astype({"ds": "datetime64[s]"}), on=["ticker", "ds"]
    )
    rows["actual"] = (rows["actual"] / _shares_now(rows, prices)).round().astype("int64")
    actual = rows["actual"]
    errors = {level: actual - rows[name] for name, level in LEDGER_LEVELS.items()}
    pinballs = [np.maximum(level * error, (level - 1) * error) for level, error in errors.items()]
    return rows.assign(
        absolute_error=(rows["median"] - actual).abs().astype("float64"),
        pinball=sum(pinballs) / len(pinballs),
        in_80=actual.between(rows["lo_80"], rows["hi_80"]),
        in_95=actual.between(rows["lo_95"], rows["hi_95"]),
        over=rows["median"] > actual,
    )


def _shares_now(rows: pd.DataFrame, prices: pd.DataFrame) -> np.ndarray:
    """What one share of each row's cutoff has become by the last session."""
    shares = np.ones(len(rows))
    splits = prices.loc[prices["split"] > 0, ["ticker", "session", "split"]]
    for ticker, session, split in splits.itertuples(index=False):
        shares[np.asarray((rows["ticker"] == ticker) & (rows["cutoff"] < session))] *= split
    return shares


def live_skill(scores: pd.DataFrame, windows: Sequence[int] = WINDOWS) -> pd.DataFrame:
    """A row a window and ticker, ALL first; no row where nothing is scored.

    `scores`: ticker, cutoff, ds (datetime64), h, model, published, scale, actual, absolute_error, pinball (shares),
    in_80, in_95, over; of one forecast, any order. Returns sessions (int, of the window), ticker, rows, and the columns
    above (float64; NaN for a ratio to a rival that has no score).
    """
    rows = _beside_rivals(scores.loc[scores["scale"].notna()])
    newest = np.unique(rows["ds"].to_numpy())[::-1]
    tables = [
        _window(rows.loc[rows["ds"] >= newest[min(count, len(newest)) - 1]], count) for count in windows if len(rows)
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"sessions": [], "ticker": [], "rows": []})


def bounded_errors(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores (as `live_skill` takes them) with absolute errors as they count in a mean over tickers: `stretch`."""
    errors = scores.assign(mase=scaled(scores["absolute_error"], scores["scale"]))
    of_tickers = errors.pivot_table(index="ticker", columns="model", values="mase")
    counted = stretch(of_tickers).reindex(list(scores["ticker"])).fillna(1.0).to_numpy()
    return scores.assign(absolute_error=scores["absolute_error"] / counted)


def rolling_errors(errors: pd.DataFrame) -> pd.DataFrame:
    """MASE over the last ROLLING target sessions: index ds, columns published, har, naive; NaN before FEWEST of them.

    `errors`: ds, model, published, rows, mase (the sum over the rows).
    """
    published = errors.loc[errors["published"]].assign(model="published")
    rows = pd.concat([published, errors.loc[errors["model"].isin(RIVALS)]])
    sums = rows.pivot_table(index="ds", columns="model", values=["mase", "rows"], aggfunc="sum")
    means = pd.DataFrame(sums["mase"] / sums["rows"]).reindex(columns=["published", *RIVALS])
    return pd.DataFrame(means.rolling(ROLLING, min_periods=FEWEST).mean())


def live_calibration(below: pd.DataFrame) -> pd.DataFrame:
    """The share of volumes at or below each published quantile: index nominal level, a column a band of horizons.

    `below`: h, rows, and how many of the rows were at or below each of LEDGER_LEVELS.
    """
    shares = {}
    for band, ends in BANDS.items():
        inside = below.loc[below["h"].between(*ends)]
        shares[band] = [inside[name].sum() / inside["rows"].sum() for name in LEDGER_LEVELS]
    return pd.DataFrame(shares, index=list(LEDGER_LEVELS.values()))


def _beside_rivals(scores: pd.DataFrame) -> pd.DataFrame:
    """What was published, with the losses of the rivals from the same cutoff, all in units of the scale."""
    units = scores.assign(
        mase=scaled(scores["absolute_error"], scores["scale"]),
        pinball=scaled(scores["pinball"], scores["scale"]),
        error=scores["absolute_error"].where(scores["over"], -scores["absolute_error"]),
    )
    rows = units.loc[units["published"]]
    for rival in RIVALS:
        # what a fallback published is in the ledger once, and is its own rival
        key = ["ticker", "cutoff", "h"]
        own = units.loc[units["model"] == rival, [*key, *RIVAL_LOSSES]]
        rows = rows.merge(own, on=key, how="left", suffixes=("", f"_of_{rival}"))
        for loss in RIVAL_LOSSES:
            rows[f"{loss}_beside_{rival}"] = rows[loss].where(rows[f"{loss}_of_{rival}"].notna())
    return rows


def _window(rows: pd.DataFrame, sessions: int) -> pd.DataFrame:
    losses = [name for name in rows.columns if name.startswith(RIVAL_LOSSES)]
    grouped = rows.groupby("ticker")
    means = pd.DataFrame(grouped[[*losses, *SHARES, "error", "actual"]].mean())
    means["bias"] = means["error"] / means["actual"]
    means.insert(0, "rows", grouped.size())
    counted = means.copy()
    for loss in RIVAL_LOSSES:
        own = [name for name in losses if name.startswith(loss)]
        counted[own] = means[own].div(stretch(pd.DataFrame(means[own])), axis=0)
    total = counted.mean().to_frame(ALL).T.assign(rows=len(rows))
    whole = pd.concat([total, means]).rename_axis("ticker").reset_index()
    pairs = [(loss, rival) for loss in RIVAL_LOSSES for rival in RIVALS]
    ratios = {f"{loss}_{rival}": whole[f"{loss}_beside_{rival}"] / whole[f"{loss}_of_{rival}"] for loss, rival in pairs}
    columns = ["sessions", "ticker", "rows", "mase", *ratios, *SHARES.values(), "bias"]
    named = whole.assign(sessions=sessions, **ratios).rename(columns=SHARES)
    return named.loc[:, columns].astype({"rows": "int64"})
