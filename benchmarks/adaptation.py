"""What it is worth how a volume model follows the sessions after its training, and how often its intervals raise alarm.

python -m benchmarks.adaptation --panel panel.parquet --earnings earnings.csv [--train-through 2016-12-30 …]
python -m benchmarks.adaptation --seeds 11 12 13

Of one training the forecasts by each adaptation (models/adaptation.py), scored on the same rows, and the difference of
their pinball losses with its standard error. On a panel also the alarms of models/drift.py, interval_drift: of the
whole panel, and of sets of 8 tickers and of 1, each followed by itself. With --seeds, simulated years with the shift of
`make year`: the model is that of the year's script, trained until a month before.
"""

import argparse
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Self, get_args

import numpy as np
import pandas as pd
import torch

from benchmarks.markets import read_announcements, read_prices, simulated_panel
from benchmarks.year_script import END, SETTINGS, SHIFT, TICKERS
from volcast.models.backtest import TestSpan, backtest, train_scales
from volcast.models.comparisons import standard_error
from volcast.models.drift import COVERAGE_SESSIONS, interval_drift
from volcast.models.forecast_columns import SCORED_LEVELS, scored_columns
from volcast.models.forecasters import HAR, Forecasts
from volcast.models.har import Har
from volcast.models.panel import HORIZONS, Panel, make_panel
from volcast.models.recipes import Adaptation, VolumeRecipe
from volcast.models.scores import BANDS, GATE_BAND, score
from volcast.models.volume_inputs import CPU, build_inputs
from volcast.models.volume_model import VolumeModel, calibrate, volume_from_bytes
from volcast.models.volume_training import fit_volume, training_run
from volcast.models.weights import to_bytes
from volcast.tasks.sources.exchange import Exchange

FIRST = date(2000, 1, 3)  # of the simulated prices
UNSEEN = 20  # sessions before the shift that the model of a simulated year has not seen
OLD, NEW = RULES = get_args(Adaptation)
QUIET = 20  # sessions without an alarm, before another one counts
SETS = {8: 20, 1: 20}  # tickers of a set -> how many sets


@dataclass(kw_only=True)
class Followed:
    """A trained model as a forecaster."""

    name: str
    model: VolumeModel

    def fit(self, panel: Panel, *, through: int) -> Self:
        """Itself."""
        assert through < panel.known
        return self

    def forecast(self, panel: Panel, cutoffs: np.ndarray) -> Forecasts:
        """As the protocol of forecasters has it."""
        return self.model.forecast(build_inputs(panel, use_earnings=True), cutoffs)


def main() -> None:
    """Print what was found."""
    asked = _arguments()
    torch.set_num_threads(1)
    if asked.panel:
        prices = read_prices(asked.panel, through=asked.test_end)
        panel = make_panel(prices, read_announcements(asked.earnings) if asked.earnings else None)
        span = TestSpan(train_through=asked.train_through, test_start=asked.test_start, test_end=asked.test_end)
        rules = _followed(panel, span, VolumeRecipe())
        _print_scores(panel, span, rules)
        _print_alarms(panel, span, rules[-1])
    for seed in asked.seeds:
        panel = simulated_panel(Exchange(seed=seed, last=END, shift=SHIFT), list(TICKERS), first=FIRST)
        before = panel.sessions.date[panel.position(SHIFT) - UNSEEN :]
        span = TestSpan(train_through=before[0], test_start=before[1], test_end=panel.cutoff)
        _print_shift(seed, panel, span, _followed(panel, span, VolumeRecipe(**SETTINGS)))


def _followed(panel: Panel, span: TestSpan, recipe: VolumeRecipe) -> list[Followed]:
    """One training, followed by each of RULES."""
    inputs = build_inputs(panel, use_earnings=True)
    through = int(panel.sessions.searchsorted(np.datetime64(span.test_start))) - 1
    run = training_run(inputs, recipe, through=through, seed=0, device=CPU)
    trained = to_bytes(fit_volume(inputs, recipe, run).model)
    found = []
    for rule in RULES:
        model = volume_from_bytes(trained, replace(recipe, adaptation=rule))
        calibrate(model, inputs, np.arange(through - recipe.stop_sessions, through), through=through)
        found.append(Followed(name=rule, model=model))
    return found


def _print_scores(panel: Panel, span: TestSpan, rules: list[Followed]) -> None:
    frame, scale = backtest(panel, rules, span), train_scales(panel, span)
    columns = ["mase", "pinball", "coverage_80", "coverage_95"]
    print(score(frame, scale).panel.set_index(["band", "model"])[columns].to_string(float_format="%.4f"))
    old, new = (_pinball(frame, rule, scale) for rule in RULES)
    error = standard_error((new - old).to_numpy(), h=HORIZONS)
    change, error = (100 * each / old.mean() for each in ((new - old).mean(), error))
    print(f"pinball loss of `{NEW}` to that of `{OLD}`, all horizons: {change:+.2f} %, standard error {error:.2f} %")


def _pinball(frame: pd.DataFrame, model: str, scale: pd.DataFrame) -> pd.Series:
    """Cutoff -> the mean pinball loss of its rows, in units of the tickers' scales."""
    level_Q, error_RQ = np.array(SCORED_LEVELS), frame[["y"]].to_numpy() - frame[scored_columns(model)].to_numpy()
    loss_R = np.maximum(level_Q * error_RQ, (level_Q - 1) * error_RQ).mean(axis=1)
    scale_R = scale["absolute"].reindex(list(frame["unique_id"])).to_numpy()
    return pd.Series(pd.Series(loss_R / scale_R).groupby(frame["cutoff"]).mean())


def _print_alarms(panel: Panel, span: TestSpan, rule: Followed) -> None:
    """How many alarms were raised in the span, by sets of tickers."""
    whole = _alarms(backtest(panel, [rule], span), rule.name)
    print(f"alarms of all {len(panel.tickers)} tickers: {[str(day) for day in whole] or 'none'}")
    draws, listed = (
        np.random.default_rng(0),
        np.array(panel.tickers)[panel.traded_NT[:, panel.position(span.train_through)]],
    )
    for size, count in SETS.items():
        sets = [panel.of(draws.choice(listed, size, replace=False).tolist()) for _ in range(count)]
        raised = [len(_alarms(backtest(own, [rule], span), rule.name)) for own in sets]
        print(f"alarms of {count} sets of {size}: {sum(raised)}, each followed by itself")


def _alarms(frame: pd.DataFrame, model: str) -> list[date]:
    """The target sessions at which the 80 % intervals of one session ahead are called broken after QUIET sessions."""
    inside = frame["y"].between(frame[f"{model}-lo-80"], frame[f"{model}-hi-80"])
    scores = frame[["ds", "h"]].assign(published=True, in_80=inside)
    sessions, found = np.unique(scores.loc[scores["h"] == 1, "ds"]), []
    quiet = QUIET
    for place, session in enumerate(sessions):
        first = sessions[max(place + 1 - COVERAGE_SESSIONS, 0)]
        drift = interval_drift(scores.loc[scores["ds"].between(first, session)])
        assert drift is not None
        if drift.broken and quiet >= QUIET:
            found.append(pd.Timestamp(session).date())
        quiet = 0 if drift.broken else quiet + 1
    return found


def _print_shift(seed: int, panel: Panel, span: TestSpan, rules: list[Followed]) -> None:
    """By ten sessions since the shift: what 80 % intervals cover, and errors to har's; 1 to 5 sessions ahead."""
    frame = backtest(panel, [*rules, Har()], span)
    near = frame.loc[frame["h"].between(*BANDS[GATE_BAND])]
    past = panel.sessions.searchsorted(near["ds"]) - panel.position(SHIFT)
    tens = pd.Series(past // 10 * 10, index=near.index, name="sessions")
    scale = train_scales(panel, span)["absolute"].reindex(list(near["unique_id"])).to_numpy()
    errors = {model: ((near["y"] - near[model]).abs() / scale).groupby(tens).mean() for model in (*RULES, HAR)}
    columns = {}
    for rule in RULES:
        inside = near["y"].between(near[f"{rule}-lo-80"], near[f"{rule}-hi-80"])
        columns |= {f"{rule}: covers": inside.groupby(tens).mean(), f"{rule}: error": errors[rule] / errors[HAR]}
    noticed = [panel.position(day) - panel.position(SHIFT) + 1 for day in _alarms(frame, NEW)]
    print(f"\nseed {seed}: alarm after {noticed} sessions; errors are to har's, fitted before the shift")
    print(pd.DataFrame(columns).to_string(float_format="%.2f"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panel", type=Path)
    parser.add_argument("--earnings", type=Path)
    parser.add_argument("--train-through", type=date.fromisoformat, default=date(2016, 12, 30))
    parser.add_argument("--test-start", type=date.fromisoformat, default=date(2017, 1, 3))
    parser.add_argument("--test-end", type=date.fromisoformat, default=date(2018, 12, 31))
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="of simulated years")
    return parser.parse_args()


if __name__ == "__main__":
    main()
