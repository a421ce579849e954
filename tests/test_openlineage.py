"""OpenLineage's own client writes the events of a run to a file, and they say what the store's manifests say."""

import json
import logging
from datetime import date
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from volcast.flows.forecast import forecast
from volcast.flows.ingest import ingest
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.records import ArtifactRef, Manifest
from volcast.storage.store import open_store
from volcast.tasks import run_tools
from volcast.tasks.settings import DataSettings, TrainingSettings

pytest.importorskip("openlineage.client", reason="the extra openlineage installs it")
LAST = date(2018, 6, 28)


def data_in(folder: Path) -> DataSettings:
    return DataSettings(source="simulated:0", tickers=("SBUX",), store=str(folder / "data"), as_of=LAST)


def dataset(ref: ArtifactRef) -> tuple[str, str]:
    return "prices" if ref.kind == "prices" else f"{ref.kind}.{ref.name}", str(ref.version)


def named(found: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(each["name"], each["facets"]["version"]["datasetVersion"]) for each in found}


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the events go."""
    monkeypatch.setattr(run_tools, "_has_failed", Event())
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(tmp_path / "events.jsonl"))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
    return tmp_path / "events.jsonl"


@pytest.mark.usefixtures("no_server")
def test_the_events_of_a_run_are_the_lineage_that_is_stored(file: Path, tmp_path: Path) -> None:
    data = data_in(tmp_path)
    ingest(data)
    made = forecast(data, TrainingSettings())
    events = [json.loads(line) for line in file.read_text().splitlines()]
    first = events[0]
    assert first["job"] == {"namespace": "volcast", "name": "prices", "facets": {}}
    assert [(each["namespace"], each["name"]) for each in first["inputs"]] == [("volcast.source", "simulated:0")]
    runs = [each["run"]["runId"] for each in events]
    assert [each["eventType"] for each in events] == ["START", "COMPLETE"] * (len(events) // 2)
    assert runs[::2] == runs[1::2]
    sent = {named(each["outputs"]).pop(): named(each["inputs"]) for each in events[2:]}
    artifacts = ArtifactStore(open_store(data.root))
    newest = artifacts.get("forecast", "volume", made.artifact.version)
    stored = [each for each in artifacts.walk(newest) if isinstance(each, Manifest)]
    assert {each.kind for each in stored} == {"forecast", "model", "scaler", "features"}
    for each in stored:
        assert sent[dataset(each.ref)] == {dataset(parent) for parent in each.parents}
    namespaces = {each["namespace"] for event in events for each in event["outputs"]}
    assert namespaces == {open_store(data.root).url}
    forecast(data, TrainingSettings())  # the same version is the same run
    again = [json.loads(line) for line in file.read_text().splitlines()[len(events) :]]
    assert {each["run"]["runId"] for each in again} <= set(runs)


@pytest.mark.usefixtures("no_server")
def test_a_place_that_does_not_answer_fails_no_run_and_is_said_once(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(tmp_path / "no folder" / "events.jsonl"))
    with caplog.at_level(logging.WARNING):
        ingest(data_in(tmp_path))
        forecast(data_in(tmp_path), TrainingSettings())
    (line,) = [each.getMessage() for each in caplog.records if "OpenLineage" in each.getMessage()]
    assert line.startswith("OpenLineage has no event of prices prices v0, nor of what follows: ")
    assert not file.exists()
