"""What a GPU gives volcast: the GPU tests, then the volume recipe trained on the CPU and on the GPU, side by side.

python -m benchmarks.gpu [--tickers 230 2000] [--years 24] [--out gpu.json]

For each number of tickers of the simulated exchange: the seconds that each device takes to train the default recipe,
the losses on the held-back sessions, and how far apart the forecasts of a year later are. On the GPU also
1. `steps a second` beside a bare loop of the same shapes: a cuDNN LSTM, the linear layers and AdamW on random tensors
   that lie on the card, without gathering, heads by horizon, or a loss on what is missing
2. `busy`: the share of the time in which a kernel ran
3. `floor`: what the step's floating-point operations and bytes would take at the rates that a large bf16 matrix product
   and a large copy reached on the card in this run. Networks of 32 units are far from it: what counts is launches

It needs the packages that models/ imports, and neither Prefect nor a store. Without a GPU it ends with an error.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.markets import panel_of_bars
from volcast.models.forecasters import LEVELS, MEDIAN
from volcast.models.market_calendar import CALENDAR_COLUMNS
from volcast.models.panel import HORIZONS, Panel
from volcast.models.recipes import VolumeRecipe
from volcast.models.volume_inputs import AHEAD_COLUMNS, AT_COLUMNS, Inputs, build_inputs
from volcast.models.volume_model import fit_volume_scaler
from volcast.models.volume_training import FittedVolume, TrainingRun, fit_volume
from volcast.tasks.sources.exchange import Exchange
from volcast.tasks.sources.simulated import SimulatedSource

LAST = date(2023, 12, 29)  # the exchange's clock
TEST = 252  # sessions after the train span, forecast by both models
WARM_UP_STEPS, TRACED_STEPS, TIMED_STEPS = 20, 60, 200
FLOAT = 4  # bytes


def main() -> None:
    """Print the tables, and write them as JSON where --out says."""
    asked = _arguments()
    if not torch.cuda.is_available():
        raise SystemExit(f"benchmarks.gpu needs a CUDA device; torch {torch.__version__} sees none on this machine.")
    found: dict[str, Any] = {"machine": _machine(), "tests": _run_tests()}
    _print(found["machine"] | {"tests": found["tests"]})
    for count in asked.tickers:
        found[f"{count} tickers"] = _compare(count, years=asked.years, machine=found["machine"])
        _print({"tickers": count} | found[f"{count} tickers"])
        if asked.out:
            asked.out.write_text(json.dumps(found, indent=1))


def _machine() -> dict[str, Any]:
    """The card, and the two rates that bound everything on it."""
    return {
        "card": torch.cuda.get_device_name(),
        "cpu": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "torch": torch.__version__,
        "bf16 TFLOP/s": round(_matrix_rate() / 1e12, 1),
        "copy TB/s": round(_copy_rate() / 1e12, 2),
    }


def _matrix_rate() -> float:
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / _seconds(lambda: left @ right)


def _copy_rate() -> float:
    source = torch.randn(2**30, device="cuda")
    target = torch.empty_like(source)
    return 2 * FLOAT * len(source) / _seconds(lambda: target.copy_(source))


def _seconds(work: Callable[[], Any], repeats: int = 10) -> float:
    """The median time of some work on the GPU."""
    times = []
    for _ in range(repeats + 2):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        work()
        ended.record()
        torch.cuda.synchronize()
        times.append(begun.elapsed_time(ended) / 1e3)
    return float(np.median(times[2:]))


def _run_tests() -> str:
    """The last line of the GPU tests, run without the fixtures of the rest, which need Prefect."""
    options = ("-q", "--noconftest", "-p", "no:cacheprovider", "-o", "filterwarnings=default", "-W", "default")
    command = (sys.executable, "-m", "pytest", *options, "tests/test_gpu.py")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:], sep="\n")
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else f"exit {done.returncode}"


def _compare(count: int, *, years: int, machine: dict[str, Any]) -> dict[str, Any]:
    begun = time.perf_counter()
    inputs = build_inputs(_panel(count, years), use_earnings=True)
    found: dict[str, Any] = {"sessions": inputs.panel.known, "features, s": time.perf_counter() - begun}
    recipe, through = VolumeRecipe(), inputs.panel.known - 1 - TEST
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    fitted: dict[str, FittedVolume] = {}
    for device in ("cpu", "cuda"):
        fitted[device] = _fit(inputs, recipe, device, through)
        found |= {f"{device}: train, s": fitted[device].seconds, f"{device}: held-back loss": fitted[device].final_loss}
    again = _fit(inputs, recipe, "cuda", through)
    found["cuda, again: train, s"] = again.seconds
    found["cuda, again: equal bits"] = all(
        torch.equal(one, other)
        for one, other in zip(*(each.model.parameters() for each in (fitted["cuda"], again)), strict=True)
    )
    return found | _forecasts(inputs, fitted, through) | _rates(inputs, recipe, through, machine)


def _panel(count: int, years: int) -> Panel:
    exchange = Exchange(seed=7, last=LAST)
    tickers = SimulatedSource(7, universe=count).tickers()
    with ProcessPoolExecutor() as pool:
        bars = list(pool.map(exchange.bars, tickers, chunksize=16))
        events = list(pool.map(exchange.announcements, tickers, chunksize=16))
    return panel_of_bars(bars, events, first=LAST.replace(year=LAST.year - years))


def _fit(inputs: Inputs, recipe: VolumeRecipe, device: str, through: int) -> FittedVolume:
    scaler = fit_volume_scaler(inputs, through=through - recipe.stop_sessions)
    run = TrainingRun(scaler=scaler, through=through, seed=0, device=torch.device(device))
    return fit_volume(inputs, recipe, run)


def _forecasts(inputs: Inputs, fitted: dict[str, FittedVolume], through: int) -> dict[str, Any]:
    """Of the sessions after the train span: errors of both models, and how far their medians are apart."""
    cutoffs = np.arange(through, through + TEST - HORIZONS)
    place_CH = cutoffs[:, None] + np.arange(1, HORIZONS + 1)
    actual_NCH = inputs.log_volume_NS[:, place_CH]
    found: dict[str, Any] = {}
    medians: dict[str, np.ndarray] = {}
    for device, each in fitted.items():
        begun = time.perf_counter()
        quantile_NCHQ = np.log(each.model.forecast(inputs, cutoffs).quantiles_NCHQ)
        medians[device] = quantile_NCHQ[..., MEDIAN]
        low, high = (quantile_NCHQ[..., LEVELS.index(level)] for level in (0.1, 0.9))
        is_there_NCH = np.isfinite(actual_NCH) & np.isfinite(medians[device])
        found |= {
            f"{device}: forecast of {len(cutoffs)} cutoffs, s": time.perf_counter() - begun,
            f"{device}: mean |log error|": float(np.abs(actual_NCH - medians[device])[is_there_NCH].mean()),
            f"{device}: coverage 80": float(((low <= actual_NCH) & (actual_NCH <= high))[is_there_NCH].mean()),
        }
    begun = time.perf_counter()
    model = fitted["cuda"].model.to("cuda")
    on_card = np.log(model.forecast(inputs, cutoffs).quantiles_NCHQ[..., MEDIAN])
    found["cuda, forecast on the card, s"] = time.perf_counter() - begun
    model.to("cpu")
    apart = np.abs(on_card - medians["cuda"])
    return found | {
        "medians apart, same weights on card and CPU": float(np.nanmax(apart)),
        "medians apart, trained on card and CPU, mean": float(np.nanmean(np.abs(medians["cuda"] - medians["cpu"]))),
    }


def _rates(inputs: Inputs, recipe: VolumeRecipe, through: int, machine: dict[str, Any]) -> dict[str, Any]:
    """Steps a second of one member, of the bare loop, of the floor, and the share of the time with a kernel."""
    traced_run, timed_run = (
        VolumeRecipe(members=1, steps=steps, validate_every_steps=WARM_UP_STEPS)
        for steps in (TRACED_STEPS, WARM_UP_STEPS + TIMED_STEPS)
    )
    steps: list[tuple[int, float]] = []
    scaler = fit_volume_scaler(inputs, through=through - recipe.stop_sessions)
    run = TrainingRun(scaler=scaler, through=through, seed=0, device=torch.device("cuda"))

    def note(done: int, _loss: float) -> None:
        steps.append((done, time.perf_counter()))

    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as traced:
        fit_volume(inputs, traced_run, run, on_epoch=note)
    kernels = [event for event in traced.events() or () if event.device_time > 0]
    begins, ends = zip(*((event.time_range.start, event.time_range.end) for event in kernels), strict=True)
    busy = sum(event.device_time for event in kernels) / (max(ends) - min(begins))
    steps.clear()
    fit_volume(inputs, timed_run, run, on_epoch=note)
    (first, begun), (last, ended) = steps[0], steps[-1]
    rate, bare = (last - first) / (ended - begun), _bare_rate(recipe)
    flop, moved = _work(recipe)
    floor = max(flop / (machine["bf16 TFLOP/s"] * 1e12), moved / (machine["copy TB/s"] * 1e12))
    return {
        "steps a second": rate,
        "bare cuDNN loop, steps a second": bare,
        "of the bare loop": rate / bare,
        "busy": busy,
        "kernels a step": len(kernels) / TRACED_STEPS,
        "MFLOP a step": flop / 1e6,
        "MB a step": moved / 1e6,
        "floor, steps a second": 1 / floor,
        "memory of the card, GB": torch.cuda.max_memory_allocated() / 1e9,
    }


def _shapes(recipe: VolumeRecipe) -> tuple[int, int, int, int]:
    """Sequences, sessions of each, scored sessions of each, inputs of the cell."""
    sessions = recipe.burn_in_sessions + recipe.scored_sessions
    inputs = len(AT_COLUMNS) + len(CALENDAR_COLUMNS)
    return recipe.batch_sequences, sessions, recipe.scored_sessions // recipe.score_every, inputs


def _bare_rate(recipe: VolumeRecipe) -> float:
    batch, sessions, scored, width = _shapes(recipe)
    known = recipe.hidden_size + len(AT_COLUMNS)
    cell = nn.LSTM(width, recipe.hidden_size, batch_first=True).cuda()
    layers = [nn.Linear(known, recipe.head_size), nn.Linear(len(AHEAD_COLUMNS), recipe.head_size, bias=False)]
    layers += [nn.Linear(recipe.head_size, len(LEVELS)), nn.Linear(known, HORIZONS * len(LEVELS))]
    for layer in layers:
        layer.cuda()
    parameters = [each for module in (cell, *layers) for each in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    drawn = partial(torch.randn, device="cuda")
    x_BTX, at_BPX = drawn(batch, sessions, width), drawn(batch, scored, len(AT_COLUMNS))
    ahead_BPHA = drawn(batch, scored, HORIZONS, len(AHEAD_COLUMNS))
    target_BPHQ = drawn(batch, scored, HORIZONS, len(LEVELS))

    def step() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            h_BTU, _ = cell(x_BTX)
            known_BPV = torch.cat([h_BTU[:, -scored:], at_BPX], dim=2)
            hidden_BPHU = nn.functional.gelu(layers[0](known_BPV).unsqueeze(2) + layers[1](ahead_BPHA))
            said_BPHQ = layers[2](hidden_BPHU) + layers[3](known_BPV).unflatten(2, (HORIZONS, len(LEVELS)))
        loss = (said_BPHQ.float() - target_BPHQ).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(WARM_UP_STEPS):
        step()
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(TIMED_STEPS):
        step()
    torch.cuda.synchronize()
    return TIMED_STEPS / (time.perf_counter() - begun)


def _work(recipe: VolumeRecipe) -> tuple[float, float]:
    """Of a step, forward and backward: floating-point operations, and the bytes of its inputs, read once."""
    batch, sessions, scored, width = _shapes(recipe)
    known, units = recipe.hidden_size + len(AT_COLUMNS), recipe.head_size
    cell = batch * sessions * 4 * recipe.hidden_size * (width + recipe.hidden_size)
    heads = batch * scored * known * (units + HORIZONS * len(LEVELS))
    ahead = batch * scored * HORIZONS * units * (len(AHEAD_COLUMNS) + len(LEVELS))
    numbers = batch * (sessions * width + scored * HORIZONS * (len(AHEAD_COLUMNS) + 1))
    return 6.0 * (cell + heads + ahead), float(FLOAT * numbers)


def _print(found: dict[str, Any]) -> None:
    rows = {
        name: f"{value:,.4g}" if isinstance(value, float | np.floating) else str(value) for name, value in found.items()
    }
    print(pd.Series(rows).to_string(), end="\n\n", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tickers", type=int, nargs="+", default=[230, 2000])
    parser.add_argument("--years", type=int, default=24)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
