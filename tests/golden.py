"""What today's code says of a golden store, of the simulated exchange and of wrong commands.

`make_golden.py` writes it down, `test_golden.py` holds later code to it. Only this file knows which function of the
product answers what: when one moves or gets another name, it is changed here, and no golden file is.

What is left out, for it may change on purpose: sentences of findings and their remedies (their codes are compared), and
whatever a later release adds. Nothing is relative to today: the clock stands at the store's last evening.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import scipy
import torch
from prefect.logging import disable_run_logger
from rich.console import Console

from volcast.flows.cli import app, console, main
from volcast.models.comparisons import CHAMPION, Contest
from volcast.models.forecasters import FALLBACK
from volcast.models.scores import live_calibration, rolling_errors, score_forecasts
from volcast.models.sessions import session_before
from volcast.models.volume_evaluation import fallback_frame, naive_frame, scales_now
from volcast.models.weights import to_bytes
from volcast.storage.announced_dates import EventTable
from volcast.storage.append_tables import RestatementTable
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.integrity import verify
from volcast.storage.ledger import SCORE_KEY, Ledger
from volcast.storage.prices import PriceTable
from volcast.storage.records import ArtifactRef, Manifest, Snapshot
from volcast.storage.store import open_store
from volcast.tasks.count_prices import quarantined_rows, status_of
from volcast.tasks.forecast import model_frame
from volcast.tasks.methods.method import Hardware
from volcast.tasks.monitor import measure_drift, present_health
from volcast.tasks.reports.views import history_of, read_forecast, short_rows
from volcast.tasks.settings import DataSettings, TrainingSettings, WatchSettings, last_session, root_of
from volcast.tasks.snapshot import read_panel, read_prepared, take_snapshot
from volcast.tasks.sources.simulated import simulated_source
from volcast.tasks.stored_models import (
    MODEL_FILE,
    SCALER_FILE,
    SCORES_FILE,
    model_version,
    read_model,
    reader,
    stored_method,
)
from volcast.tasks.train import predecessor

GOLDEN = Path(__file__).parent / "data" / "golden"
SOURCE = "simulated:3?faults=gap,null,restated"  # of the store
CLOCK = date(2026, 11, 25)  # of the simulated bars
EXCHANGES = {
    "simulated": ("SBUX", "AAPL", "MSFT", "BRK-B"),
    "simulated:7": ("SBUX", "AAAA"),
    "simulated:2?shift=2003-05-01": ("SBUX", "T1"),
    "simulated:2?faults=duplicate,gap,null,partial,restated": ("SBUX", "T1"),
}
HORIZON = 60  # sessions of scores behind the calibration and the rolling errors
NO_WORDS = {"words", "remedy", "gaps"}  # sentences for people
WIDTH = 100  # columns of a terminal
CONFIGURING = ("VOLCAST_", "FORCE_COLOR", "PY_COLORS")  # variables that change what a command says


# --- how two machines and two answers compare -----------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the last bits of a float depend on: on an equal machine answers are compared byte for byte."""
    cpu = Path("/proc/cpuinfo")
    vendor = re.search(r"vendor_id\s*: (\S+)", cpu.read_text()) if cpu.exists() else None
    simd: Any = np.show_config(mode="dicts")
    return {
        "versions": {module.__name__: module.__version__ for module in (np, scipy, pd, torch)},
        "processor": f"{platform.system()} {platform.machine()} {vendor[1] if vendor else 'unknown'}",
        "torch": torch.backends.cpu.get_cpu_capability(),
        "numpy": simd["SIMD Extensions"]["found"],
    }


def differences(golden: Any, found: Any, where: str = "") -> Iterator[str]:
    """Where `found` lacks or contradicts what is golden, a line each; what it has beside it is no difference.

    Floats may differ by 1e-9 of their value: sums of Delta's queries are not made in a fixed order.
    """
    if isinstance(golden, dict) and isinstance(found, dict):
        for key, value in golden.items():
            there = f"{where}/{key}"
            yield from differences(value, found[key], there) if key in found else [f"{there} is not there"]
    elif isinstance(golden, list) and isinstance(found, list) and len(golden) == len(found):
        for place, (one, other) in enumerate(zip(golden, found, strict=True)):
            yield from differences(one, other, f"{where}/{place}")
    elif isinstance(golden, float) and isinstance(found, float) and math.isclose(golden, found, rel_tol=1e-9):
        return
    elif golden != found:
        yield f"{where}: {golden!r} is golden, {found!r} came"


def as_csv(frame: pd.DataFrame) -> str:
    """Every bit of a frame as text: Python writes the shortest number that is read back as the same float."""
    return frame.to_csv(index=False, lineterminator="\n")


def sha256(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


# --- the store ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A golden store, in a folder that may be written."""

    folder: Path

    @cached_property
    def data(self) -> DataSettings:
        """The settings of a command, on the evening of the newest session."""
        newest = max(PriceTable(open_store(self.root)).last_sessions().values())
        evening = datetime(newest.year, newest.month, newest.day, 23, tzinfo=UTC)
        return DataSettings(source=SOURCE, store=str(self.folder), now=evening)

    @cached_property
    def root(self) -> str:
        return root_of(str(self.folder), SOURCE)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        return ArtifactStore(open_store(self.root))

    def of_kind(self, wanted: str) -> list[Manifest]:
        """Every version of every artifact of a kind, such as `model`."""
        return [manifest for manifest in self._manifests() if manifest.kind == wanted]

    def _manifests(self) -> list[Manifest]:
        return [self.artifacts.get(*place) for place in self.artifacts.all_versions()]

    def facts(self) -> dict[str, Any]:
        """What `models list`, `models show`, `status`, `quarantine`, `verify` and `report` say of it, as JSON types."""
        now = last_session(None, self.data.now)
        health = present_health(self.data)
        assert health is not None
        found = {
            "prices": self._prices(),
            "status": _told(status_of(self.root, (), now)),
            "health": _told(health),
            "models": {name: self._history(name) for name in self.artifacts.names("model")},
            "manifests": {f"{each.ref}": each.digest for each in self._manifests()},
            "lineage": {name: self._lineage(name) for name in self.artifacts.names("forecast")},
            "quarantine": quarantined_rows(self.root, (), 5),
            "tables": self._tables(now),
            "report": self._report(),
            "verify": [finding.words for finding in verify(open_store(self.root))],
        }
        return json.loads(json.dumps(found, default=str))

    def _prices(self) -> dict[str, Any]:
        """The digest of the rows of each version, as snapshots have it."""
        table = PriceTable(open_store(self.root))
        newest = table.version()
        assert newest is not None
        versions = {f"v{number}": table.describe(version=number).digest for number in range(newest + 1)}
        return {"digests": versions, "rows": sha256(as_csv(table.read()))}

    def _history(self, name: str) -> dict[str, Any]:
        history = history_of(self.artifacts, name)
        moves = [move.model_dump(mode="json") for move in history.moves]
        facts = [self.artifacts.get("model", name, line.version).facts for line in history.versions]
        made = [{"loss": each["final_loss"], "seed": each["seed"]} for each in facts]
        lines = [asdict(line) | own for line, own in zip(history.versions, made, strict=True)]
        return {"versions": lines, "moves": moves}

    def _lineage(self, name: str) -> list[str]:
        chain = self.artifacts.walk(self.artifacts.get("forecast", name))
        refs = [step if isinstance(step, ArtifactRef) else step.ref for step in chain]
        return [f"{ref} {ref.digest}" for ref in refs]

    def _tables(self, last: date) -> dict[str, Any]:
        """The digests of all rows of each table beside the prices."""
        store, first = open_store(self.root), session_before(last, HORIZON)
        ledger, events = Ledger(store), EventTable(store)
        frames = {
            "restatements": RestatementTable(store).read(),
            "events": events.history().drop(columns="kind"),  # which 0.1.0 did not have
            "known events": events.known(as_of=last),
            "forecasts": ledger.forecasts("volume", first=first),
            "scores": ledger.scores("volume", first=first),
        }
        return {name: f"{len(frame)} rows {sha256(as_csv(frame))}" for name, frame in frames.items()}

    def _report(self) -> dict[str, Any]:
        """The numbers of the page's charts and of its short table."""
        store, first = open_store(self.root), session_before(last_session(None, self.data.now), HORIZON)
        ledger, newest = Ledger(store), self.artifacts.get("forecast", "volume")
        forecast = read_forecast(store, "volume", newest.version)
        calibration = live_calibration(ledger.shares_below("volume", first=first))
        errors = rolling_errors(ledger.errors("volume", first=first))
        return {
            "calibration": calibration.reset_index().to_dict("list"),
            "rolling errors": errors.dropna().reset_index().astype({"ds": str}).to_dict("list"),
            "next sessions": short_rows(store, forecast, sorted(set(forecast.frame["unique_id"]))),
        }

    def frames(self) -> dict[str, pd.DataFrame]:
        """The forecasts of the newest cutoff: by each version of each model, by har and by naive."""
        snapshot = self.snapshot(self.artifacts.get("forecast", "volume"))
        found = {"har": self.by_har(), "naive": naive_frame(read_panel(snapshot))}
        for model in self.of_kind("model"):
            newest = self.artifacts.get("forecast", model.name)
            record = model_version(self.artifacts, snapshot.store, model)
            found[f"{model.name}-v{model.version}"] = model_frame(self.snapshot(newest), record)[1]
        return found

    def by_har(self) -> pd.DataFrame:
        """har's forecasts of the newest cutoff."""
        return fallback_frame(read_panel(self.snapshot(self.artifacts.get("forecast", "volume"))))

    def snapshot(self, forecast: Manifest) -> Snapshot:
        """The rows that a stored forecast was made from."""
        name, prices = forecast.name, forecast.parents[-1]
        tickers = () if name == "volume" else (name.split(".", 1)[1],)
        cutoff = date.fromisoformat(str(forecast.facts["cutoff"]))
        with disable_run_logger():
            newest = take_snapshot.fn(self.data.model_copy(update={"tickers": tickers, "as_of": cutoff}))
        return newest.model_copy(update={"prices": prices})

    def again(self, forecast: Manifest) -> pd.DataFrame:
        """A stored forecast of the volume model, made again from its own version of the prices."""
        snapshot = self.snapshot(forecast)
        model = self.artifacts.get("model", forecast.name, forecast.parents[0].version)
        return model_frame(snapshot, model_version(self.artifacts, snapshot.store, model))[1]

    def scores(self, scorecard: Manifest) -> tuple[Any, Any]:
        """A stored scorecard: its scores, as they are stored and as they come out now.

        Those of har are left out: it is fitted anew each time, and a later release may fit it better. The gate's rules
        may change.
        """
        model = self.artifacts.get("model", scorecard.name, scorecard.parents[0].version)
        features = model_version(self.artifacts, open_store(self.root).url, model).features
        method, own = read_model(self.artifacts, model.name, model.version)
        facts: Any = scorecard.facts
        champion = facts["champion"]
        predecessors = {CHAMPION: predecessor(self.artifacts, model.name, champion)} if champion else {}
        found = method.evaluate(read_prepared(features, method), own, Contest(predecessors=predecessors))
        stored = json.loads(self.artifacts.read(scorecard, SCORES_FILE))
        return {name: scores for name, scores in stored.items() if name != FALLBACK}, found.scores

    def drift(self) -> tuple[Any, Any]:
        """The drift of the features up to the newest session, as the day's health has it and as it comes out now."""
        stored: Any = self.artifacts.get("health", "volume").facts["drift"]
        snapshot = self.snapshot(self.artifacts.get("forecast", "volume"))
        with disable_run_logger():
            found = measure_drift.fn(snapshot, TrainingSettings(), WatchSettings())
        return stored, None if found is None else found.model_dump(mode="json")

    def newest_scores(self) -> tuple[str, str]:
        """What the newest version of the prices let score, as it is in the ledger and as it comes out now."""
        store, version = open_store(self.root), PriceTable(open_store(self.root)).version()
        first = session_before(last_session(None, self.data.now), HORIZON)
        ledger = Ledger(store)
        stored = ledger.scores("volume", first=first)
        stored = stored.loc[stored["prices_version"] == version].reset_index(drop=True)
        forecasts = ledger.forecasts("volume", first=first).merge(stored[SCORE_KEY], on=SCORE_KEY)
        found = score_forecasts(forecasts, PriceTable(store).read(version=version))
        columns = [name for name in stored.columns if name in found.columns and name != "prices_version"]
        one, other = (pd.DataFrame(frame.sort_values(SCORE_KEY)[columns]) for frame in (stored, found))
        return as_csv(one), as_csv(other)

    def newest_scales(self) -> tuple[dict[str, float], dict[str, float]]:
        """Ticker -> the unit of its errors at the newest cutoff, as it is in the ledger and as it comes out now."""
        newest = self.artifacts.get("forecast", "volume")
        cutoff = date.fromisoformat(str(newest.facts["cutoff"]))
        rows = Ledger(open_store(self.root)).forecasts("volume", first=cutoff)
        stored = rows.groupby("ticker")["scale"].first().to_dict()
        return stored, scales_now(read_panel(self.snapshot(newest))).to_dict()

    def trained_again(self, model: Manifest) -> tuple[bytes, bytes]:
        """The weights of a stored model, and those of the same training now."""
        record = model_version(self.artifacts, open_store(self.root).url, model)
        method = stored_method(self.artifacts, model.name, model.version)
        scaler = reader(self.artifacts, record.scaler.artifact)(SCALER_FILE)
        prepared = read_prepared(record.features, method)
        seed: Any = model.facts["seed"]
        hardware = Hardware(seed=seed, device=torch.device("cpu"), on_epoch=lambda *_: None, checkpoint=Forgetful())
        trained = method.train(prepared, scaler, hardware)
        return self.artifacts.read(model, MODEL_FILE), to_bytes(trained.module)


class Forgetful:
    """A checkpoint that keeps nothing."""

    def load(self) -> None: ...

    def save(self, data: bytes) -> None: ...


def _told(record: Any) -> Any:
    """A record as JSON types, without what is said in sentences."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(each) for key, each in value.items() if key not in NO_WORDS}
        return [without(each) for each in value] if isinstance(value, list) else value

    return without(record.model_dump(mode="json"))


# --- the simulated exchange -----------------------------------------------------------------------------------------


def simulated_digests() -> dict[str, dict[str, str]]:
    """Of all bars and announced earnings of some tickers of some exchanges, as their source gives them."""
    return {spec: _digests(spec, tickers) for spec, tickers in EXCHANGES.items()}


def _digests(spec: str, tickers: Sequence[str]) -> dict[str, str]:
    source, found = simulated_source(spec), {}
    for ticker in tickers:
        bars, events = source.fetch(ticker, first=None, last=CLOCK).bars, source.announcements([ticker], as_of=CLOCK)
        found[f"{ticker} bars"] = f"{len(bars)} rows {sha256(as_csv(bars))}"
        found[f"{ticker} earnings"] = f"{len(events)} rows {sha256(as_csv(events))}"
    return found


# --- the command line -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    error: str


def volcast(folder: Path, *arguments: str) -> Said:
    """A command in this process, as in a terminal of WIDTH columns, in `folder`, by a person who configured nothing."""
    out, error, code = io.StringIO(), io.StringIO(), 0
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(CONFIGURING)}
    with (
        patch.dict(os.environ, inherited | {"VOLCAST_HOME": str(folder / "home"), "COLUMNS": str(WIDTH)}, clear=True),
        patch.object(sys, "argv", ["volcast", *arguments]),
        patch.object(console, "_width", WIDTH),
        patch.object(app, "_console", Console(width=WIDTH)),  # of the help; cyclopts keeps the first one it makes
        patch.object(app.meta, "_console", Console(width=WIDTH)),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Said(code, out.getvalue(), error.getvalue())


COMMANDS = (
    *(
        "",
        "run",
        "ingest",
        "status",
        "doctor",
        "quarantine",
        "retire",
        "retrain",
        "forecast",
        "explain",
        "participation",
        "daily",
        "monitor",
        "backtest",
    ),
    "up",
    *("deploy", "report", "verify", "gc", "completion", "models"),
    *(f"models {each}" for each in ("list", "compare", "show", "promote", "rollback")),
)
TESTED = "--train-through 2021-12-31 --test-start 2022-01-03 --test-end 2022-12-30 --out f.parquet"
MISTAKES = (  # in a folder where `golden` is a golden store, `two` has two exchanges, and `file` is no folder
    "run --recipe nonsense",
    "run --source nonsense",
    "run --source files:absent.csv",
    "run --source simulated:7?faults=none",
    "run --source simulated:7?universe=0",
    "run --source simulated --events yahoo",
    "run --events nonsense",
    "run --as-of 2100-01-01",
    "run --as-of yesterday",
    "run --set steps",
    "run --set nonsense=1",
    "run --set learning_rates=0.1",
    "run --set steps=0",
    "run --set learning_rate=2",
    "run --set test_sessions=10",
    "run --cell nonsense",
    "run --recipe tutorial --cell gru",
    "run --recipe tutorial --sessions many",
    "run --recipe tutorial --sessions 200",
    "run --seed many",
    "run --device tpu",
    "run --point mode",
    "run --recipe tutorial --point ale",
    "run --out forecasts.pdf",
    "run --out nowhere/forecasts.csv",
    "run --store file://host/data",
    "run --store ftp://host/data",
    "run --store file/data",
    "run --nonsense",
    "nonsense",
    "statsu",
    "status --sotre golden",
    "ingest --source nonsense",
    "ingest --source files:absent.csv",
    "ingest --max-failed-share 2",
    "ingest --as-of 2100-01-01",
    "status --store empty",
    "status --store two",
    "status --store golden --tickers ZZZZ,SBXU",
    "status extra",
    "quarantine --store empty",
    "quarantine --store golden --limit 0",
    "retrain --store empty",
    "retrain --store golden --recipe nonsense",
    "retrain --store golden --source yahoo",
    "forecast --store empty",
    "forecast --store golden --what-if nonsense",
    "explain SBUX --store empty",
    "explain SBUX --store golden",
    "explain MFST --store golden",
    "forecast --store golden --out forecasts.pdf",
    "forecast --store golden --as-of 2100-01-01",
    "daily --recipe tutorial",
    "daily --max-model-age 0",
    "monitor --store empty",
    "monitor --store golden --recipe tutorial",
    "backtest",
    f"backtest {TESTED} --test-start 2021-06-30",
    f"backtest {TESTED} --test-end 2100-01-01",
    f"backtest {TESTED} --test-end 2021-01-04",
    f"backtest {TESTED} --refit daily",
    f"backtest {TESTED} --out f.pdf",
    f"backtest {TESTED} --set nonsense=1",
    "up --host 0.0.0.0",
    "up --port many",
    "up --source nonsense",
    "deploy --nonsense",
    "report --store empty",
    "report --store golden --out report.pdf",
    "report --store golden --tickers ZZZZ",
    "verify --store empty",
    "gc --store empty",
    "gc --store golden --keep-versions 0",
    "models nonsense",
    "models list --store empty",
    "models compare nonsense --store golden",
    "models show --store empty",
    "models show volumes --store golden",
    "models promote volume --store golden",
    "models promote volume --version 99 --reason why --store golden",
    "models promote nonsense --version 1 --reason why --store golden",
    "models promote volume --version 0 --reason why --store golden",
    "models promote volume --version 1 --reason= --store golden",
    "models rollback volume --store golden",
    "models rollback nonsense --reason why --store golden",
    "models rollback tutorial.SBUX --reason why --store golden",
)


def with_stores(folder: Path) -> Path:
    """The folder, with the stores that MISTAKES name."""
    shutil.copytree(min(GOLDEN.glob("[0-9]*")) / "store", folder / "golden")
    for name in ("simulated-1", "simulated-2"):
        (folder / "two" / name).mkdir(parents=True)
    (folder / "file").touch()
    return folder


def help_texts(folder: Path) -> dict[str, str]:
    """Command -> what --help prints."""
    return {f"volcast {name}".strip(): _trimmed(volcast(folder, *name.split(), "--help").out) for name in COMMANDS}


def mistakes(folder: Path) -> dict[str, str]:
    """Command -> how it ended, where `folder` is as MISTAKES say; without what depends on today and on the folder."""
    return {f"volcast {line}": _ended(folder, volcast(folder, *line.split())) for line in MISTAKES}


def _ended(folder: Path, said: Said) -> str:
    text = f"exit {said.code}\n{said.out}{said.error}"
    return _trimmed(text.replace(str(folder), "<folder>").replace(str(last_session(None)), "<last closed session>"))


def as_sections(texts: dict[str, str]) -> str:
    """One text, with a line `$ command` before each part and an empty one after it."""
    return "".join(f"$ {command}\n{text}\n\n" for command, text in texts.items())


def sections(text: str) -> dict[str, str]:
    """The parts of `as_sections`, by command."""
    parts = re.split(r"^\$ (.+)\n", text, flags=re.MULTILINE)[1:]
    return {command: _trimmed(part) for command, part in zip(parts[::2], parts[1::2], strict=True)}


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
