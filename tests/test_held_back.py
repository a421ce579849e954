"""A champion whose training diverged: what it says of some horizons is not published, and everybody can see it."""

import shutil
from datetime import date
from pathlib import Path

import pytest
from days import DAYS, TICKERS, TRAINING, Served, data_in, store_in
from runs import forecasts_of, log_lines, run_named
from safetensors.torch import load, save

from volcast.flows.daily import daily
from volcast.flows.forecast import forecast
from volcast.storage.artifacts import ArtifactStore, Draft
from volcast.storage.integrity import verify
from volcast.storage.ledger import Ledger
from volcast.storage.records import Daily
from volcast.tasks.gate import promote
from volcast.tasks.monitor import present_health
from volcast.tasks.reports.page import page
from volcast.tasks.stored_models import MODEL_FILE

pytestmark = pytest.mark.usefixtures("prefect_api")

NEXT = date(2004, 7, 8)


def diverge(folder: Path) -> None:
    """The champion's weights once more: it lost the upper end of horizon 4, and horizon 7 is not finite."""
    store = store_in(folder)
    artifacts = ArtifactStore(store)
    manifest = artifacts.get("model", "volume", 1)
    tensors = load(artifacts.read(manifest, MODEL_FILE))
    tensors["calibration_HQ"][3, -1] = 40.0
    tensors["calibration_HQ"][6, -1] = 1e6  # whose exponential is not finite
    draft = Draft(
        kind="model",
        name="volume",
        files={MODEL_FILE: save(tensors)},
        parents=manifest.parents,
        facts=manifest.facts,
        provenance=manifest.provenance,
    )
    promote(store.url, "volume", artifacts.put(draft).version, "for the test: its training diverged")


@pytest.fixture(scope="module")
def diverged(served: Served, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Daily]:
    """The first day of such a champion."""
    folder = shutil.copytree(served[0], tmp_path_factory.mktemp("diverged") / "store")
    diverge(folder)
    return folder, daily(data_in(folder, NEXT), TRAINING)


def test_the_rows_are_named_and_har_is_published_in_their_place(served: Served, diverged: tuple[Path, Daily]) -> None:
    folder, result = diverged
    batch = result.batch
    assert batch is not None
    assert (batch.by, batch.rows) == ("volcast", 30)
    assert {(each.ticker, each.h, each.by) for each in batch.held_back} == {
        (t, h, "har") for t in TICKERS for h in (4, 7)
    }
    assert {each.reason for each in batch.held_back if each.h == 7} == {"not finite"}
    assert all("10 times the highest of 504 sessions" in each.reason for each in batch.held_back if each.h == 4)
    frame = forecasts_of(batch)
    assert set(frame.loc[frame["by"] == "har", "h"]) == {4, 7}
    assert frame.groupby("by").size().to_dict() == {"har": 6, "volcast": 24}
    lines = log_lines(run_named(f"forecast volume SBUX, T1, T2 {NEXT}"))
    named = [line for line in lines if line.startswith("held back: ")]
    assert len(named) == 6
    assert "held back: SBUX 2004-07-19, horizon 7: not finite; har is published" in named
    before = forecast(data_in(shutil.copytree(served[0], folder.with_name("before")), DAYS[-1]), TRAINING)
    assert "by" not in forecasts_of(before).columns  # an ordinary file is what it was


def test_the_ledger_says_who_was_published_and_why(diverged: tuple[Path, Daily]) -> None:
    rows = Ledger(store_in(diverged[0])).forecasts("volume", first=NEXT)
    published = rows.loc[rows["published"]]
    assert len(published) == 30
    stand_in = published.loc[published["h"].isin([4, 7])]
    assert set(stand_in["model"]) == {"har"}
    assert stand_in["why"].str.startswith("held back: ").all()
    assert set(published.loc[~published["h"].isin([4, 7]), "why"]) == {""}
    rivals = rows.loc[~rows["published"]]
    assert set(rivals.loc[rivals["model"] == "volcast", "h"]) <= {4}  # what is not finite cannot be kept
    assert len(rows.loc[rows["model"] == "har"]) == 30
    assert set(rows.loc[rows["model"] == "volcast", "model_version"]) == {2}
    assert list(verify(store_in(diverged[0]))) == []


def test_the_health_and_the_page_say_so(diverged: tuple[Path, Daily]) -> None:
    folder, result = diverged
    assert result.health is not None
    assert (result.health.by, result.health.held_back) == ("volcast", 6)
    assert "HELD_BACK" in [finding.code for finding in result.health.findings]
    assert result.health.needs_person
    assert present_health(data_in(folder, NEXT)).held_back == 6
    html = page(data_in(folder, NEXT))
    assert "HELD_BACK" in html
    assert "<th>by</th>" in html.replace(' class="text"', "")


@pytest.mark.usefixtures("no_server")
def test_the_days_after_are_scored(diverged: tuple[Path, Daily], tmp_path: Path) -> None:
    folder = shutil.copytree(diverged[0], tmp_path / "later")
    daily(data_in(folder, date(2004, 7, 15)), TRAINING)
    scores = Ledger(store_in(folder)).scores("volume", first=date(2004, 7, 9))
    own = scores.loc[scores["published"] & (scores["cutoff"].dt.date == NEXT)]
    assert set(own.loc[own["h"] == 4, "model"]) == {"har"}
    assert own["absolute_error"].max() < 100 * own["scale"].max()
