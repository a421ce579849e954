from collections.abc import Callable
from pathlib import Path

import pytest
from rows import MADE_BY, bars

from storage.artifacts import ArtifactStore, Draft
from storage.errors import NotStored, StoreError
from storage.integrity import verify
from storage.prices import PriceTable
from storage.staging import stage
from storage.store import open_store
from tasks.maintenance import find_faults


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with two versions of the prices, a model and its alias."""
    store = open_store(str(tmp_path))
    table, artifacts = PriceTable(store), ArtifactStore(store)
    table.upsert(bars(sessions=200))
    table.upsert(bars(sessions=201))
    artifacts.put(Draft(kind="model", name="m", files={"weights": b"1234"}, provenance=MADE_BY))
    artifacts.set_alias("model", "m", "champion", 1, "the first")
    return tmp_path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def words(root: Path) -> list[str]:
    return [finding.words for finding in verify(open_store(str(root))) if finding.damage]


def test_a_whole_store_has_no_faults(root: Path) -> None:
    assert words(root) == []


@pytest.mark.parametrize("damage", [truncate, flip, empty])
@pytest.mark.parametrize(
    "pattern",
    ["prices/bucket=*/*/*.parquet", "blobs/sha256/*/*", "artifacts/model/m/*.json", "aliases/model/m/champion/*.json"],
)
def test_each_damaged_file_is_named(root: Path, damage: Callable[[Path], None], pattern: str) -> None:
    path = sorted(root.glob(pattern), key=lambda path: path.stat().st_size)[-1]
    damage(path)
    found = words(root)
    assert len(found) >= 1
    assert "Restore" in found[0]
    assert path.name in found[0]


def test_a_version_that_an_alias_points_at_and_that_is_gone_is_named(root: Path) -> None:
    next(root.glob("artifacts/model/m/*.json")).unlink()
    assert words(root) == [
        "champion of model m: model m has no version 1; stored versions: none. "
        "Restore the version from a backup, or retrain."
    ]


@pytest.mark.parametrize("damage", [truncate, empty])
def test_a_torn_last_commit_is_named_and_never_read_and_the_next_ingest_brings_its_rows(
    root: Path, damage: Callable[[Path], None]
) -> None:
    table, last = PriceTable(open_store(str(root))), root / "prices/_delta_log/00000000000000000001.json"
    damage(last)
    assert any(last.name in line for line in words(root))
    if damage is empty:
        assert len(table.read()) == 200
    else:
        with pytest.raises(StoreError, match=r"cannot be read.*volcast verify"):
            table.read()
    last.unlink()  # as the words say
    assert table.upsert(bars(sessions=201)).inserted == 1
    assert words(root) == []


def test_a_truncated_data_file_is_an_error_and_never_fewer_rows(root: Path) -> None:
    truncate(max(root.glob("prices/bucket=*/*/*.parquet"), key=lambda path: path.stat().st_size))
    with pytest.raises(StoreError, match=r"cannot be read.*volcast verify"):
        PriceTable(open_store(str(root))).read()


@pytest.mark.parametrize("pattern", ["prices/bucket=*/*/*.parquet", "blobs/sha256/*/*"])
def test_a_file_that_is_gone_is_named(root: Path, pattern: str) -> None:
    path = max(root.glob(pattern), key=lambda path: path.stat().st_size)
    path.unlink()
    (found,) = words(root)
    assert path.name in found


def test_left_over_frames_are_named_and_are_no_damage(root: Path) -> None:
    stage(open_store(str(root)), bars())
    (finding,) = verify(open_store(str(root)))
    assert not finding.damage
    assert "1 frames" in finding.words


def test_a_simulated_exchange_inside_is_looked_at_too_and_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotStored, match="holds nothing"):
        list(find_faults(str(tmp_path)))
    PriceTable(open_store(str(tmp_path / "simulated-7"), writable=True)).upsert(bars())
    assert list(find_faults(str(tmp_path))) == []
    flip(next(tmp_path.glob("simulated-7/prices/bucket=*/*/*.parquet")))
    assert [finding.damage for finding in find_faults(str(tmp_path))] == [True]
