import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import obstore
import pytest
from deltalake import DeltaTable
from rows import MADE_BY, announced, bars, forecast_rows, quarantined, score_rows

from volcast.storage import append_tables
from volcast.storage.announced_dates import EventTable
from volcast.storage.append_tables import QuarantineTable
from volcast.storage.artifacts import ArtifactStore, Draft, blob_key, create_record, put_blob
from volcast.storage.errors import Corrupt, StoreError
from volcast.storage.integrity import TABLES, find_garbage, remove, verify
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.storage.records import ArtifactRef
from volcast.storage.staging import stage
from volcast.storage.store import Store, open_store

LATER = datetime.now(UTC) + timedelta(days=2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Six versions of the prices, each of one file that replaces the one before; a model made from version 1."""
    store = open_store(str(tmp_path))
    for version in range(6):
        PriceTable(store).upsert(bars(close=10.0 + version))
    prices = ArtifactRef(kind="prices", name="prices", version=1, digest="d1")
    artifacts = ArtifactStore(store)
    artifacts.put(Draft(kind="model", name="m", files={"weights": b"1"}, parents=(prices,), provenance=MADE_BY))
    yield store
    assert list(verify(store)) == []


def collect(store: Store, keep_versions: int = 2) -> list[str]:
    garbage = find_garbage(store, keep_versions=keep_versions, now=LATER)
    remove(store, garbage)
    assert find_garbage(store, keep_versions=keep_versions, now=LATER) == {}
    return sorted(garbage)


def test_the_newest_versions_and_those_behind_a_kept_model_stay_and_the_others_go(store: Store) -> None:
    table = PriceTable(store)
    before = {version: table.read(version=version) for version in (1, 4, 5)}
    assert len(collect(store)) == 3
    for version, frame in before.items():
        assert table.read(version=version).equals(frame)
    with pytest.raises(StoreError, match="version 2 cannot be read"):
        table.read(version=2)


def test_a_version_behind_an_old_model_stays_as_long_as_an_alias_points_at_it(store: Store) -> None:
    artifacts = ArtifactStore(store)
    artifacts.set_alias("model", "m", "champion", 1, "the first")
    for number in range(2, 13):
        artifacts.put(Draft(kind="model", name="m", files={"weights": b"%d" % number}, provenance=MADE_BY))
    collect(store)
    assert list(PriceTable(store).read(version=1)["close"]) == [11.0] * 3
    artifacts.set_alias("model", "m", "champion", 12, "better")
    assert len(collect(store)) == 1


def test_staged_frames_and_blobs_that_nothing_names_go_and_named_ones_stay(store: Store, tmp_path: Path) -> None:
    left = stage(store, bars())
    (tmp_path / "blobs/sha256/00").mkdir(parents=True)
    (tmp_path / "blobs/sha256/00/00ff").write_bytes(b"of no manifest")
    assert collect(store, keep_versions=30) == ["blobs/sha256/00/00ff", left.key]
    artifacts = ArtifactStore(store)
    assert artifacts.read(artifacts.get("model", "m"), "weights") == b"1"


def test_the_small_files_of_a_table_are_joined_and_go_a_day_after_that(
    store: Store, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(append_tables, "MAX_FILES", 3)
    ledger, folder = Ledger(store), tmp_path / "forecasts"
    for version in range(1, 5):
        ledger.record_forecasts(forecast_rows(version))
    assert len(DeltaTable(folder).file_uris()) == 2  # one of the first three, and one more
    assert len(ledger.forecasts("volume", first=date(2024, 1, 1))) == 4 * 6
    assert list(verify(store)) == []
    days_ago = (datetime.now() - timedelta(days=3)).timestamp()
    for path in folder.glob("*.parquet"):
        os.utime(path, (days_ago, days_ago))
    assert find_garbage(store, keep_versions=30) == {}  # they are old, but a reader may have opened the table just now
    assert len(collect(store, keep_versions=30)) == 2  # the rows of the third commit were joined with them at once
    assert len(ledger.forecasts("volume", first=date(2024, 1, 1))) == 4 * 6


@pytest.mark.parametrize("table", TABLES)
def test_a_file_that_a_dead_writer_left_in_any_table_goes(store: Store, tmp_path: Path, table: str) -> None:
    QuarantineTable(store).add(quarantined())
    EventTable(store).record(announced("2024-01-30"), as_of=date(2024, 1, 5), source="yahoo")
    ledger = Ledger(store)
    ledger.record_forecasts(forecast_rows())
    ledger.record_scores(score_rows(forecast_rows()))
    (tmp_path / table / "lost.parquet").write_bytes(b"of a writer that died")
    assert collect(store, keep_versions=30) == [f"{table}/lost.parquet"]


@pytest.mark.parametrize("moment", ["found, not removed yet", "before the manifest", "of a gc that was stopped"])
def test_an_old_blob_that_a_running_put_uses_again_is_there_in_the_end(
    store: Store, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    artifacts = ArtifactStore(store)
    blob = put_blob(store, b"2")  # of a put that died before its manifest
    garbage = find_garbage(store, keep_versions=30, now=LATER)
    assert list(garbage) == [blob_key(blob)]
    if moment == "before the manifest":
        monkeypatch.setattr(
            "volcast.storage.artifacts.create_record", lambda *args: remove(store, garbage) or create_record(*args)
        )
    manifest = artifacts.put(Draft(kind="model", name="m", files={"weights": b"2"}, provenance=MADE_BY))
    monkeypatch.undo()
    if moment == "of a gc that was stopped":
        obstore.rename(store.objects, blob_key(blob), f"trash/{blob_key(blob)}")
        garbage = {}
    remove(store, garbage)
    assert artifacts.read(manifest, "weights") == b"2"
    assert list(verify(store)) == []
    assert [chunk for chunk in obstore.list(store.objects, "trash") if chunk] == []


def test_what_is_younger_than_a_day_stays(store: Store) -> None:
    stage(store, bars())
    assert find_garbage(store, keep_versions=1) == {}
    collect(store)


def test_nothing_goes_while_a_manifest_cannot_be_read(store: Store, tmp_path: Path) -> None:
    manifest = next(tmp_path.glob("artifacts/model/m/*.json"))
    content = manifest.read_bytes()
    manifest.write_bytes(b"")
    with pytest.raises(Corrupt):
        find_garbage(store, keep_versions=1, now=LATER)
    manifest.write_bytes(content)
