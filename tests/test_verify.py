from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rows import MADE_BY, bars, forecast_rows, quarantined, score_rows

from benchmarks.faults import flip_a_bit
from volcast.storage import append_tables, prices
from volcast.storage.append_tables import QuarantineTable
from volcast.storage.artifacts import ArtifactStore, Draft
from volcast.storage.errors import Corrupt, NotStored, StoreError
from volcast.storage.integrity import verify
from volcast.storage.ledger import Ledger
from volcast.storage.price_rows import bucket_of
from volcast.storage.prices import PriceTable
from volcast.storage.staging import stage, unstage
from volcast.storage.store import Store, open_store
from volcast.tasks.maintenance import find_faults

SBUX_FILES = f"prices/bucket={bucket_of('SBUX')}/year=2024/*.parquet"
OTHER_FILES = "quarantine/*.parquet"


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


def flip_unnoticed(path: Path) -> None:
    """Flip the first bit that changes a value and that no reader notices."""
    whole, rows = path.read_bytes(), pq.read_table(path)
    for place in range(4, len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 4
        with suppress(OSError, pa.ArrowException, UnicodeDecodeError):
            if not pq.read_table(pa.BufferReader(bytes(changed))).equals(rows):
                path.write_bytes(changed)
                return
    raise AssertionError(f"every flipped bit of {path} is noticed")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def words(root: Path) -> list[str]:
    return [finding.words for finding in verify(open_store(str(root))) if finding.damage]


def test_a_whole_store_has_no_faults(root: Path) -> None:
    assert words(root) == []


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty])
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


SPLIT = bars(sessions=202, split=[0.0] * 201 + [2.0], close=[50.0] * 202)
REWRITES: dict[str, tuple[str, Callable[[Store], object]]] = {
    "a restatement": (SBUX_FILES, lambda store: PriceTable(store).upsert(bars(sessions=1, low=49.0))),
    "a split that rescales what it lacks": (SBUX_FILES, lambda store: PriceTable(store).upsert(SPLIT.iloc[60:])),
    "small files that are joined": (SBUX_FILES, lambda store: PriceTable(store).upsert(bars(sessions=202))),
    "small files of another table": (OTHER_FILES, lambda store: QuarantineTable(store).add(quarantined("AAPL"))),
}


@pytest.mark.parametrize("rewrite", REWRITES)
@pytest.mark.parametrize("is_known", [True, False])
def test_no_new_file_is_made_of_a_damaged_one_also_where_it_was_whole_when_it_was_read_before(
    root: Path, monkeypatch: pytest.MonkeyPatch, rewrite: str, is_known: bool
) -> None:
    monkeypatch.setattr(prices, "MAX_FILES_A_PARTITION", 2)
    monkeypatch.setattr(append_tables, "MAX_FILES", 2)
    store, (pattern, act) = open_store(str(root)), REWRITES[rewrite]
    QuarantineTable(store).add(quarantined())
    monkeypatch.setattr(append_tables, "_unchanged", set())  # as in another process
    if is_known:
        PriceTable(store).read()
        QuarantineTable(store).read()
    path = max(root.glob(pattern), key=lambda path: path.stat().st_size)
    flip_unnoticed(path)
    before = sorted(root.rglob("*.json"))
    with pytest.raises(Corrupt, match=rf"{path.name}: its sha256 is not .* None of it was used. Restore it"):
        act(store)
    assert sorted(root.rglob("*.json")) == before
    assert any(path.name in line for line in words(root))


def test_what_a_training_or_a_forecast_reads_is_compared_with_what_was_written(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_tables, "_unchanged", set())  # as in another process
    store, last = open_store(str(root)), date(2024, 9, 1)
    PriceTable(store).upsert(bars("AAPL", sessions=200))
    reads: list[Callable[[], object]] = [
        lambda: PriceTable(store).read(["SBUX"], first=date(2024, 1, 3), last=date(2024, 1, 3)),
        lambda: PriceTable(store).read_known(["SBUX"], last=last, version=1, known=0),
        lambda: PriceTable(store).raw(["SBUX"], first=last),
        lambda: PriceTable(store).describe(["SBUX"]),
    ]
    for path in root.glob(SBUX_FILES):
        flip_unnoticed(path)
    for read in reads:
        with pytest.raises(Corrupt, match=r"SBUX: file:.*its sha256 .* volcast verify"):
            read()
    assert len(PriceTable(store).read(["AAPL"])) == 200


@pytest.mark.parametrize("damage", [truncate, empty])
def test_a_data_file_that_no_reader_opens_is_named_with_its_tickers_and_what_to_do(
    root: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(append_tables, "_unchanged", set())  # as in another process
    monkeypatch.setattr(prices, "_answers", {})
    damage(next(root.glob(SBUX_FILES)))
    with pytest.raises(Corrupt, match=r"SBUX: file:.*its sha256 .*Restore it.* volcast verify"):
        PriceTable(open_store(str(root))).coverage()


def test_the_ledger_is_compared_too_where_it_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(open_store(str(root)))
    ledger.record_forecasts(forecast_rows())
    ledger.record_scores(score_rows(forecast_rows()))
    first = date(2024, 1, 5)
    reads = {
        "scores": [lambda: ledger.errors("volume", first=first), lambda: ledger.scores("volume", first=first)],
        "forecasts": [
            lambda: ledger.forecasts("volume", first=first),
            lambda: ledger.pending(first=first, last=date(2024, 2, 1)),
        ],
    }
    for table, of_table in reads.items():
        monkeypatch.setattr(append_tables, "_unchanged", set())  # as in another process
        flip_unnoticed(next(root.glob(f"{table}/*.parquet")))
        for read in of_table:
            with pytest.raises(Corrupt, match=f"{table}/.*its sha256"):
                read()


def test_a_frame_that_changed_between_two_steps_is_an_error(root: Path) -> None:
    store = open_store(str(root))
    staged = stage(store, bars())
    flip_a_bit(root / staged.key)
    with pytest.raises(Corrupt, match=r"its sha256 is not the one in its name"):
        unstage(store, staged)


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
    assert "left: 1." in finding.words


def test_a_simulated_exchange_inside_is_looked_at_too_and_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotStored, match="holds nothing"):
        list(find_faults(str(tmp_path)))
    PriceTable(open_store(str(tmp_path / "simulated-7"), writable=True)).upsert(bars())
    assert list(find_faults(str(tmp_path))) == []
    flip_a_bit(next(tmp_path.glob("simulated-7/prices/bucket=*/*/*.parquet")))
    assert [finding.damage for finding in find_faults(str(tmp_path))] == [True]
