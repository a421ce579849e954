"""Later code says of an earlier release's store what that release said: tests/data/golden, made by make_golden.py.

Floats that a network or a regression gives are compared byte for byte on a machine that is equal to the one on which
they were made (golden.machine: versions, processor, vector instructions); on another one to RELATIVE, and what is known
by a digest of such floats (features, weights) is skipped there. Everything else must be equal anywhere.
"""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from golden import (
    GOLDEN,
    SOURCE,
    Opened,
    as_csv,
    differences,
    help_texts,
    machine,
    mistakes,
    sections,
    simulated_digests,
    volcast,
    with_stores,
)

from benchmarks.programs import environment
from volcast.tasks.reports.page import page
from volcast.tasks.stored_models import FORECAST_FILE, read_frame

RELATIVE = 1e-6  # AVX-512, AVX2 and plain instructions differ by 3e-7, measured on these files
RELEASES = sorted(path for path in GOLDEN.iterdir() if (path / "facts.json").exists())


class Golden:
    """What a release left."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        self.folder = folder
        self.opened = Opened(folder=Path(shutil.copytree(folder / "store", temporary / "store")))
        self.is_same_machine = self.read("machine") == machine()

    def read(self, name: str) -> Any:
        return json.loads((self.folder / f"{name}.json").read_text())

    def require_same_machine(self) -> None:
        if not self.is_same_machine:
            pytest.skip(f"made on another machine: {list(differences(self.read('machine'), machine()))}")

    def require_same(self, golden: str, found: pd.DataFrame) -> None:
        """A frame and the CSV of a golden one; it may have columns that the golden one has not."""
        found = found.loc[:, golden.partition("\n")[0].split(",")]
        if self.is_same_machine:
            assert as_csv(found) == golden
        one, other = (pd.read_csv(io.StringIO(text)) for text in (golden, as_csv(found)))
        pd.testing.assert_frame_equal(one, other, rtol=RELATIVE, atol=0)


@pytest.fixture(scope="module", params=RELEASES, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    return Golden(request.param, tmp_path_factory.mktemp("golden"))


def test_there_are_golden_files_of_each_release() -> None:
    assert [path.name for path in RELEASES] == ["0.1.0"]


def test_what_is_stored_is_read_as_it_was(golden: Golden) -> None:
    """Prices, models, lineage, status, health with skill and drift, quarantine, ledger, report; nothing is damaged."""
    assert list(differences(golden.read("facts"), golden.opened.facts())) == []


def test_every_model_har_and_naive_forecast_the_same_from_the_same_prices(golden: Golden) -> None:
    found = golden.opened.frames()
    files = sorted((golden.folder / "frames").glob("*.csv"))
    assert [path.stem for path in files] == sorted(found)
    for path in files:
        golden.require_same(path.read_text(), found[path.stem])


def test_published_forecasts_are_made_again_from_their_own_version_of_the_prices(golden: Golden) -> None:
    of_volume = [forecast for forecast in golden.opened.of_kind("forecast") if forecast.name == "volume"]
    by_model = [each for each in of_volume if len(each.parents) == 2]  # har's have the prices alone
    for forecast in (by_model[0], by_model[len(by_model) // 2]):
        stored = read_frame(golden.opened.artifacts, forecast.ref, FORECAST_FILE)
        golden.require_same(as_csv(stored), golden.opened.again(forecast))


def test_every_scorecard_comes_out_as_it_is_stored(golden: Golden) -> None:
    """That the features are built again bit for bit is checked on the way: their digest is stored."""
    golden.require_same_machine()
    for scorecard in golden.opened.of_kind("scorecard"):
        stored, found = golden.opened.scores(scorecard)
        assert list(differences(stored, found, str(scorecard.ref))) == []


def test_scores_and_their_units_come_out_as_the_ledger_has_them(golden: Golden) -> None:
    stored, found = golden.opened.newest_scores()
    assert len(stored.splitlines()) > 50
    assert found == stored
    stored_scales, scales = golden.opened.newest_scales()
    assert list(differences(stored_scales, scales)) == []


def test_the_drift_of_the_features_comes_out_as_it_is_stored(golden: Golden) -> None:
    golden.require_same_machine()
    stored, found = golden.opened.drift()
    assert stored["features"]
    assert list(differences(stored, found)) == []


def test_training_again_gives_the_same_weights(golden: Golden) -> None:
    golden.require_same_machine()
    for model in golden.opened.of_kind("model"):
        stored, found = golden.opened.trained_again(model)
        assert stored == found, model.ref


def test_simulated_bars_and_earnings_are_what_they_were(golden: Golden) -> None:
    assert list(differences(golden.read("simulated"), simulated_digests())) == []


def test_the_commands_that_only_look_work_on_an_old_store(golden: Golden, tmp_path: Path) -> None:
    store, facts = ("--store", str(golden.opened.folder)), golden.read("facts")
    said = {
        name: volcast(tmp_path, *name.split(), *store)
        for name in ("models list", "models compare", "models show", "status", "quarantine", "verify")
    }
    stale = {"status": 1}  # for the prices are of long ago
    assert {name: each.code for name, each in said.items()} == dict.fromkeys(said, 0) | stale
    assert all(f"v{line['version']}" in said["models list"].out for line in facts["models"]["volume"]["versions"])
    assert all(ref.split()[-1][:12] in said["models show"].out for refs in facts["lineage"].values() for ref in refs)
    assert all(row["ticker"] in said["status"].out for row in facts["status"]["worst"])
    beside, alone = said["models compare"].out.split("Comparable with no other:")
    assert beside.index("volume v2, champion") < beside.index(
        "volume v1"
    )  # the best first; both tested on the same rows
    assert "volume v3, lstm 2x90: MASE" in alone
    html = page(golden.opened.data)
    assert all(row["ticker"] in html for row in facts["report"]["next sessions"])


@pytest.mark.parametrize(("file", "ask"), [("help", help_texts), ("mistakes", mistakes)])
def test_the_command_line_says_what_it_said(file: str, ask: Callable[[Path], dict[str, str]], tmp_path: Path) -> None:
    """Every command's --help; exit status and error of typical mistakes."""
    expected = sections((GOLDEN / "cli" / f"{file}.txt").read_text())
    assert ask(with_stores(tmp_path)) == expected, (
        "to accept what is meant to change: python tests/make_golden.py --update"
    )


READ = """
import sys
from volcast.flows.cli import main

sys.argv = ["volcast", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    print("\\nexit", end.code, [name for name in ("torch", "matplotlib") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [("status", 1), ("explain SBUX", 1), ("quarantine", 0), ("models list", 0), ("models show volume", 0)],
)
def test_reading_a_store_imports_neither_torch_nor_matplotlib(
    golden: Golden, arguments: str, code: int, tmp_path: Path
) -> None:
    own = ["--store", str(golden.opened.folder), "--source", SOURCE]
    command = [sys.executable, "-c", READ, *arguments.split(), *own]
    env = environment(tmp_path)
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"exit {code} []", done.stderr
