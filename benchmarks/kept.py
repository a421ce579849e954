"""Forecasts of one method at a time, kept: what was run on the same data, code and settings is not run again.

A kept file is named for its method and for a digest of the settings, the panel, the versions of the libraries and the
source of every module of ours that the method's own one imports, however indirectly.
"""

import ast
import hashlib
import json
import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from volcast.models.backtest import TestSpan, backtest
from volcast.models.forecasters import Forecaster
from volcast.models.panel import Panel

LIBRARIES = ("numpy", "pandas", "torch", "lightgbm", "statsforecast", "neuralforecast", "fracast")
OURS = ("volcast.models.", "benchmarks.")
SECONDS = "training_cpu_seconds"  # in the frame's attrs


def forecasts_of(
    forecaster: Forecaster, panel: Panel, span: TestSpan, *, settings: str = "", folder: Path | None = None
) -> pd.DataFrame:
    """The frame of `backtest` of one forecaster, its fit's CPU seconds in `attrs`; out of `folder` where it is there.

    `settings`: all that the forecaster was made with.
    """
    if folder is None:
        return _run(forecaster, panel, span)
    file = folder / f"{forecaster.name}-{_digest(forecaster, panel, span, settings)}.parquet"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        _run(forecaster, panel, span).to_parquet(unfinished)
        unfinished.rename(file)
    return pd.read_parquet(file)


def cpu_seconds() -> float:
    """Of this process with all its threads, and of its children that have ended."""
    return sum(os.times()[:4])


def _run(forecaster: Forecaster, panel: Panel, span: TestSpan) -> pd.DataFrame:
    begun, training = cpu_seconds(), 0.0

    def on_step(_done: int, _steps: int, words: str) -> None:
        nonlocal begun, training
        if "fitted" in words:
            training += cpu_seconds() - begun
        begun = cpu_seconds()

    frame = backtest(panel, [forecaster], span, on_step=on_step)
    frame.attrs[SECONDS] = training
    return frame


def _digest(forecaster: Forecaster, panel: Panel, span: TestSpan, settings: str) -> str:
    digest = hashlib.sha256(json.dumps([forecaster.name, settings, repr(span), panel.tickers]).encode())
    for values in panel.fields.values():
        digest.update(values.tobytes())
    digest.update(panel.sessions.to_numpy().tobytes())
    digest.update(panel.announcements.to_csv().encode())
    sources: dict[str, bytes] = {}
    for module in (type(forecaster).__module__, backtest.__module__):
        _gather(module, sources)
    for module in sorted(sources):
        digest.update(sources[module])
    digest.update("".join(map(version_of, LIBRARIES)).encode())
    return digest.hexdigest()[:16]


def _gather(module: str, sources: dict[str, bytes]) -> None:
    """Adds the source of a module of ours, and of those that it imports."""
    spec = find_spec(module) if module.startswith(OURS) and module not in sources else None
    if spec is None or spec.origin is None:
        return
    sources[module] = Path(spec.origin).read_bytes()
    for node in ast.walk(ast.parse(sources[module])):
        if isinstance(node, ast.ImportFrom) and node.module:
            _gather(node.module, sources)


def version_of(library: str) -> str:
    """The installed version of a library, or none."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"
