"""docs/extend.md: the page's package is installed, and what it adds works; then it is gone, and that is said."""

import importlib
import re
import sqlite3
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from panels import panel_of, tiny_recipe
from programs import Volcast

from benchmarks.programs import CODE, QUICK, options
from volcast.models.errors import UnknownRecipe, UnusablePlugin
from volcast.models.recipes import VolumeRecipe
from volcast.models.volume_evaluation import baselines
from volcast.models.volume_network import ForkingNetwork
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.store import open_store
from volcast.tasks.settings import TrainingSettings
from volcast.tasks.sources import source
from volcast.tasks.sources.simulated import SimulatedSource

BLOCK = re.compile(r"`([\w/.]+)`:\n\n```(?:python|toml)\n(.*?)```", re.DOTALL)
AHEAD = """
from torch import nn


class Ahead(nn.LSTM):
    def forward(self, x):
        return super().forward(x.flip(1))
"""
LAST = date(2020, 12, 10)
PAGE = dict(BLOCK.findall((CODE / "docs" / "extend.md").read_text()))


def install(folder: Path, name: str, added: dict[str, dict[str, str]]) -> None:
    """What pip leaves of a package: its name, its version and its entry points."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]\n{key} = {value}\n" for group, own in added.items() for key, value in own.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages; what was imported from it is forgotten."""
    folder, before = tmp_path / "site", {*sys.modules}
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    source._market.cache_clear()
    for name in {*sys.modules} - before:
        if name.partition(".")[0] in ("acme_volume", "other"):
            del sys.modules[name]


@pytest.fixture
def acme(site: Path) -> Path:
    """The package of the page."""
    for file, content in PAGE.items():
        (site / file).parent.mkdir(exist_ok=True)
        (site / file).write_text(content)
    project = tomllib.loads(PAGE["pyproject.toml"])["project"]
    install(site, project["name"], project["entry-points"])
    return site


def uninstall(site: Path) -> None:
    """Uninstall all that is there."""
    for info in site.glob("*.dist-info"):
        for file in info.iterdir():
            file.unlink()
        info.rmdir()
    importlib.invalidate_caches()
    source._market.cache_clear()


@pytest.mark.usefixtures("prefect_api")
def test_what_a_package_adds_is_ingested_tested_and_trained_and_named_once_it_is_gone(
    acme: Path, volcast: Volcast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = SimulatedSource().fetch("SBUX", first=date(2019, 1, 2), last=LAST).bars
    with closing(sqlite3.connect(tmp_path / "bars.db")) as database:
        bars.loc[:, "ticker":"volume"].to_sql("bars", database, index=False)
    said = volcast("run", "--source", "sqlite:bars.db", "--as-of", LAST, "--cell", "convolution", *options(QUICK))
    assert said.code == 0, said.errors
    assert "median20" in said.out
    assert ArtifactStore(open_store("data")).get("model", "volume", 1).provenance.packages["acme-volume"] == "1.0"
    assert volcast("models", "promote", "volume", "--version", 1, "--reason", "to see it forecast").code == 0
    monkeypatch.chdir(acme)  # another folder: the source is known by its whole path
    spec, stored = f"sqlite:{tmp_path / 'bars.db'}", ("--store", tmp_path / "data", "--as-of", LAST)
    said = volcast("ingest", *stored)
    assert (said.code, f"{spec}, announcements of none" in said.out) == (0, True), said.errors
    assert "acme-volume" not in volcast("forecast", *stored).out
    assert "acme-volume 1.0" in volcast("doctor", *stored[:2]).out
    uninstall(acme)
    (error,) = volcast("ingest", *stored).errors
    assert error.startswith("Error: 'sqlite:")
    assert error.endswith("A source that a package adds needs that installed.")
    said = volcast("forecast", *stored)
    assert (said.code, "volume v1 was made with acme-volume" in re.sub(r"\s+", " ", said.out)) == (0, True), said.out
    assert "volume v1 was made with acme-volume" in re.sub(r"\s+", " ", volcast("status", *stored[:2]).out)
    said = volcast("models", "list", *stored[:2])
    assert (said.code, "volume v1 was made with acme-volume" in re.sub(r"\s+", " ", said.out)) == (0, True), said.out


@pytest.mark.usefixtures("acme")
def test_a_baseline_of_a_package_takes_part_in_every_test() -> None:
    *own, median20 = baselines()
    assert [each.name for each in own] == ["har", "naive", "seasonal_naive", "adv20"]
    said = median20.forecast(panel_of(np.arange(1.0, 31.0)[None]), np.array([29]))
    assert said.point_NCH[0, 0].tolist() == [20.5] * 10  # of 11 ... 30


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("har", "other:made", "none of volcast, champion, best, har"),
        ("Median-20", "other:made", "lower-case letters, digits and _"),
        ("median", "other:made", "must make a forecaster of that name"),
        ("median", "other:broken", r"cannot be loaded from the package other 1\.0 \(AttributeError"),
        ("median", "not_there:made", "ModuleNotFoundError"),
    ],
)
def test_a_baseline_that_is_none_is_named_with_its_package(site: Path, name: str, value: str, fact: str) -> None:
    (site / "other.py").write_text("def made():\n    return 1\n")
    install(site, "other", {"volcast.baselines": {name: value}})
    with pytest.raises(UnusablePlugin, match=f"{name} of volcast.baselines.*{fact}"):
        baselines()


def test_two_packages_that_add_the_same_name_are_both_refused(acme: Path) -> None:
    install(acme, "other", {"volcast.sources": {"sqlite": "other:made"}})
    with pytest.raises(
        source.SourceUnusable, match=r"added by acme-volume 1\.0 and other 1\.0\. Uninstall all but one"
    ):
        source.open_source("sqlite:bars.db")


def test_no_package_takes_the_place_of_a_source_of_volcasts_own(site: Path) -> None:
    (site / "other.py").write_text("def made(spec):\n    return spec\n")
    install(site, "other", {"volcast.sources": {"yahoo": "other:made", "simulated-2": "other:made", "x": "other:made"}})
    assert source.open_source("yahoo").spec == "yahoo"
    for spec in ("yahoo:1", "simulated-2:1"):
        with pytest.raises(source.UnknownSource, match="is not a source"):
            source.open_source(spec)
    with pytest.raises(source.SourceUnusable, match="gives no PriceSource"):
        source.open_source("x:1")


def test_a_cell_that_looks_ahead_is_refused(site: Path) -> None:
    (site / "other.py").write_text(AHEAD)
    install(site, "other", {"volcast.cells": {"ahead": "other:Ahead"}})
    with pytest.raises(UnusablePlugin, match=r"The cell ahead must give .* see no later session"):
        ForkingNetwork(tiny_recipe(cell="ahead"))


def test_a_cell_that_no_package_adds_is_answered_with_those_there_are(acme: Path) -> None:
    assert "convolution" in str(TrainingSettings.model_json_schema())
    uninstall(acme)
    known = r"cell must be one of \['lstm', 'gru', 'rnn', 'mlp'\] \(another one needs the package installed"
    with pytest.raises(UnknownRecipe, match=known):
        VolumeRecipe(cell="convolution")
