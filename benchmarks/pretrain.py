"""Train the weights that come with volcast (models/pretrained.py), or check that they are what this makes.

python -m benchmarks.pretrain --panel panel.parquet --earnings earnings.csv [--check] [--vintages 2018-12-31 …]

1. a vintage is trained on the sessions up to its last one, and has seen nothing of later ones: one for each of
   VINTAGES, so that there is one for the tests of past years, too
2. each ticker is seen four times: among all the others, among four of them, alone, and alone with a short history,
   SHORT sessions at a time without anything of before; so the networks are at home with one ticker and with all,
   with 23 years and with one
3. the linear member's pooled coefficients are those of all these rows
4. weights and their provenance are written to models/pretrained; the same panel gives the same bytes on a CPU

With --check nothing is written: each vintage is trained again, and its bytes are compared with those that are there.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

import volcast.models
from benchmarks.kept import LIBRARIES, cpu_seconds, version_of
from benchmarks.markets import read_announcements, read_prices
from volcast.models.earnings_features import EarningsCalendar
from volcast.models.panel import HORIZONS, Panel, make_panel
from volcast.models.pretrained import FOLDER, PROVENANCE
from volcast.models.recipes import VolumeRecipe, settings
from volcast.models.volume_inputs import Inputs, build_inputs
from volcast.models.volume_linear import LinearMember
from volcast.models.volume_model import VolumeModel, fit_linear
from volcast.models.volume_training import fit_volume, training_run
from volcast.models.weights import to_bytes

VINTAGES = (date(2016, 12, 30), date(2018, 12, 31), date(2020, 12, 31), date(2022, 12, 30))
RECIPE = VolumeRecipe(start="scratch", steps=900)
SEED = 0
FEW = 5  # tickers of a small panel
SHORT, GAP = 300, 280  # sessions; no echo (models/ahead_features.py) reaches over the gap


def main() -> int:
    """Train what is asked for, and write or compare it."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    folder, made = Path(*volcast.models.__path__) / FOLDER, []
    if not asked.check:
        folder.mkdir(exist_ok=True)
    differs = False
    for last in asked.vintages:
        weights, facts = _vintage(asked, last)
        made.append(facts)
        if asked.check:
            is_same = (folder / str(facts["file"])).read_bytes() == weights
            differs |= not is_same
            print(f"{facts['file']}: {'the same bytes' if is_same else 'other bytes than those that are there'}")
        else:
            (folder / str(facts["file"])).write_bytes(weights)
            (folder / PROVENANCE).write_text(json.dumps({"vintages": made}, indent=1) + "\n")
    return int(differs)


def _vintage(asked: argparse.Namespace, last: date) -> tuple[bytes, dict[str, Any]]:
    """The weights that know nothing after a session, and what they were made of."""
    begun = cpu_seconds()
    panel = make_panel(read_prices(asked.panel, through=last), read_announcements(asked.earnings))
    inputs = views(panel, np.random.default_rng(SEED))
    run = training_run(inputs, RECIPE, through=panel.known - 1, seed=SEED, device=torch.device("cpu"))
    networks = replace(RECIPE, linear_share=0.0)  # which are calibrated for a ticker that has no history to fit to
    fitted = fit_volume(
        inputs, networks, run, on_epoch=lambda step, loss: print(f"{last}: step {step}, loss {loss:.5f}")
    )
    fitted.model.linear = _pooled(fitted.model, inputs, through=panel.known - 1)
    weights = to_bytes(fitted.model)
    print(f"{last}: {cpu_seconds() - begun:.0f} CPU-seconds", flush=True)
    return weights, {
        "file": f"volume-{last}.safetensors",
        "sha256": hashlib.sha256(weights).hexdigest(),
        "last_session": str(panel.cutoff),
        "first_session": f"{panel.sessions[0]:%Y-%m-%d}",
        "tickers": len(panel.tickers),
        "rows": int(panel.traded_NT.sum()),
        "loss": fitted.final_loss,
        "seed": SEED,
        "recipe": settings(RECIPE),
        "panel": {"file": asked.panel.name, "sha256": hashlib.sha256(asked.panel.read_bytes()).hexdigest()},
        "earnings": {"file": asked.earnings.name, "sha256": hashlib.sha256(asked.earnings.read_bytes()).hexdigest()},
        "versions": {name: version_of(name) for name in ("volcast", *LIBRARIES[:3])},
    }


def _pooled(networks: VolumeModel, inputs: Inputs, *, through: int) -> LinearMember:
    """The linear member of all rows together, which knows no ticker."""
    model = VolumeModel(RECIPE, networks.scaler)
    fit_linear(model, inputs, RECIPE, through=through)
    assert model.linear is not None
    found = LinearMember()
    found.pooled_HB = model.linear.pooled_HB
    return found


def views(panel: Panel, rng: np.random.Generator) -> Inputs:
    """The inputs of a panel's tickers, four rows each: among all, among few, alone, and alone with short histories."""
    shuffled = [panel.tickers[place] for place in rng.permutation(len(panel.tickers))]
    few = [panel.of(shuffled[place : place + FEW]) for place in range(0, len(shuffled), FEW)]
    alone = [panel.of([ticker]) for ticker in panel.tickers]
    whole = [build_inputs(each, use_earnings=True) for each in (panel, *few, *alone)]
    return _joined([*whole, *(_short(each, int(rng.integers(SHORT + GAP))) for each in alone)])


def _short(alone: Panel, begin: int) -> Inputs:
    """The inputs of one ticker, SHORT sessions at a time, of which each stretch knows nothing of the ones before."""
    stretches = [slice(at, min(at + SHORT, alone.known)) for at in range(begin, alone.known, SHORT + GAP)]
    is_kept_T = np.zeros(alone.known, dtype=bool)
    for stretch in stretches:
        is_kept_T[stretch] = True
    kept = {name: np.where(is_kept_T, values, np.nan) for name, values in alone.fields.items()}
    inputs = build_inputs(replace(alone, fields=kept), use_earnings=True)
    past_NTF, known_NSA = np.zeros_like(inputs.past_NTF), np.zeros_like(inputs.known_ahead_NSA)
    for stretch in stretches:
        own = build_inputs(alone.until(stretch.stop).since(stretch.start), use_earnings=True)
        past_NTF[:, stretch] = own.past_NTF
        known_NSA[:, stretch.start : stretch.stop + HORIZONS] = own.known_ahead_NSA
    return replace(inputs, past_NTF=past_NTF, known_ahead_NSA=known_NSA)


def _joined(parts: Sequence[Inputs]) -> Inputs:
    """The inputs of panels on one grid, one under the other."""
    panels = [part.panel for part in parts]
    fields = {name: np.concatenate([each.fields[name] for each in panels]) for name in panels[0].fields}
    names = tuple(f"{number} {ticker}" for number, each in enumerate(panels) for ticker in each.tickers)
    rows = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("past_NTF", "level_NT", "surprise_NS", "known_ahead_NSA")
    }
    earnings = _calendars([part.earnings for part in parts])
    return replace(parts[0], panel=replace(panels[0], tickers=names, fields=fields), earnings=earnings, **rows)


def _calendars(parts: Sequence[EarningsCalendar]) -> EarningsCalendar:
    """The calendars of tickers, one under the other: the last announcement of each part, which is none, is left out."""
    before = [0, *accumulate(len(part.place_A) - 1 for part in parts)]
    none = parts[0]
    rows = {
        name: torch.cat([*(getattr(part, name)[:-1] for part in parts), getattr(none, name)[-1:]])
        for name in ("place_A", "seen_A", "gone_A", "usual_A2")
    }
    begins = [part.begins[:-1] + count for part, count in zip(parts, before, strict=False)]
    return EarningsCalendar(
        **rows,
        begins=torch.cat([*begins, torch.tensor(before[-1:])]),
        newest_NS=torch.cat([part.newest_NS + count for part, count in zip(parts, before, strict=False)]),
        covered_NS=torch.cat([part.covered_NS for part in parts]),
        crowd=max(part.crowd for part in parts),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panel", type=Path, required=True)
    parser.add_argument("--earnings", type=Path, required=True)
    parser.add_argument("--vintages", type=date.fromisoformat, nargs="+", default=list(VINTAGES))
    parser.add_argument("--check", action="store_true", help="compare with the weights that are there")
    parser.add_argument("--threads", type=int, default=1, help="of torch: members side by side")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
