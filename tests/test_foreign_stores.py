"""Stores that somebody else wrote, and files that unpack to more than a machine holds: one line each, and bounded."""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import stat
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rows import MADE_BY, bars, quarantined
from safetensors.torch import save

from volcast.models.recipes import make_recipe, settings
from volcast.models.tutorial import Nowcaster, Scaler, TutorialLSTM
from volcast.models.weights import to_bytes
from volcast.storage.append_tables import QuarantineTable
from volcast.storage.artifacts import ArtifactStore, Draft, from_parquet, put_blob, to_parquet
from volcast.storage.bounds import max_bytes, open_parquet, read_json
from volcast.storage.errors import Foreign, StoreError
from volcast.storage.integrity import find_garbage, verify
from volcast.storage.prices import PriceTable
from volcast.storage.staging import stage
from volcast.storage.store import delete, entries, get, move, open_store, put
from volcast.tasks.maintenance import collect_garbage, find_faults
from volcast.tasks.sources.files import FilesSource
from volcast.tasks.sources.source import SourceMissing, SourceUnusable, open_event_source

LAST = date(2024, 1, 1)
LATER = datetime.now(UTC) + timedelta(days=2)
DEEP = "[" * 200_000 + "]" * 200_000


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """The one that most people have; a store that is opened to be written changes it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with two versions of the prices, quarantined rows, a model and its alias."""
    store = open_store(str(tmp_path / "data"), writable=True)
    table, artifacts = PriceTable(store), ArtifactStore(store)
    table.upsert(bars())
    table.upsert(bars(close=7.0))
    QuarantineTable(store).add(quarantined())
    artifacts.put(Draft(kind="dataset", name="m", files={"f": b"1234"}, provenance=MADE_BY))
    artifacts.set_alias("dataset", "m", "champion", 1, "the first")
    return tmp_path / "data"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the store, with files that are nobody's business."""
    folder = tmp_path / "outside"
    for name in ("old", "sha256/00/00ff", "x.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"of somebody else")
        os.utime(folder / name, (0, 0))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def words(root: Path) -> list[str]:
    return [finding.words for finding in verify(open_store(str(root))) if finding.damage]


# ---- nothing outside of the root


@pytest.mark.parametrize(
    "place", ["staging", "checkpoints", "blobs", "trash", "prices/x", "prices/bucket=1", "quarantine/x"]
)
def test_gc_removes_nothing_where_a_folder_is_a_link_and_names_it(root: Path, outside: Path, place: str) -> None:
    if (root / place).is_dir():
        (root / place).rename(root / "moved")
    (root / place).symlink_to(outside)
    before = contents(outside), contents(root)
    with pytest.raises(Foreign, match=f"{place}: a link to {outside}.* Nothing was removed"):
        find_garbage(open_store(str(root)), keep_versions=1, now=LATER)
    with pytest.raises(Foreign):
        collect_garbage(str(root), keep_versions=1, dry_run=False)
    assert (contents(outside), contents(root)) == before
    assert any(f"{place}: a link to {outside}" in line for line in words(root))


@pytest.mark.parametrize(
    "place", ["staging", "blobs", "artifacts", "aliases", "prices", "prices/_delta_log", "quarantine"]
)
def test_nothing_is_written_or_read_through_a_link(root: Path, outside: Path, place: str) -> None:
    if (root / place).is_dir():
        (root / place).rename(root / "moved")
    (root / place).symlink_to(outside)
    before = contents(outside)
    store = open_store(str(root), writable=True)
    steps: dict[str, Callable[[], object]] = {
        "staging": lambda: stage(store, bars()),
        "blobs": lambda: put_blob(store, b"new"),
        "artifacts": lambda: ArtifactStore(store).put(Draft(kind="model", name="n", files={}, provenance=MADE_BY)),
        "aliases": lambda: ArtifactStore(store).set_alias("dataset", "m", "champion", 1, "again"),
        "prices": lambda: PriceTable(store).upsert(bars(close=8.0)),
        "prices/_delta_log": lambda: PriceTable(store).upsert(bars(close=8.0)),
        "quarantine": lambda: QuarantineTable(store).add(quarantined("AAPL")),
    }
    reads: list[Callable[[], object]] = [
        lambda: get(store, f"{place}/old"),
        lambda: entries(store, place),
        lambda: delete(store, f"{place}/old"),
        lambda: move(store, f"{place}/old", "new"),
        lambda: put(store, f"{place}/new", b""),
    ]
    for step in [steps[place], *reads]:
        with pytest.raises(Foreign, match="a link to"):
            step()
    assert contents(outside) == before


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    store = open_store(str(tmp_path / "link"), writable=True)
    PriceTable(store).upsert(bars(close=9.0))
    assert list(verify(store)) == []
    assert store.url == root.as_uri()


@pytest.mark.parametrize("key", ["../outside/old", "a/../../outside/old", "/etc/hostname", "a//b", "./a"])
def test_a_key_that_leads_out_of_the_root_is_no_key(root: Path, outside: Path, key: str) -> None:
    before = contents(outside)
    for step in (get, delete, entries):
        with pytest.raises(Foreign):
            step(open_store(str(root)), key)
    assert contents(outside) == before


# ---- what is there is none of volcast's making


def commit(root: Path, *actions: dict[str, object]) -> None:
    log = root / "prices/_delta_log/00000000000000000002.json"
    log.write_text("\n".join(json.dumps(action) for action in [*actions, {"commitInfo": {}}]))


def added(path: str, size: int = 16) -> dict[str, object]:
    partition = {"bucket": "1", "year": "2024"}
    return {
        "add": {"path": path, "size": size, "partitionValues": partition, "modificationTime": 0, "dataChange": True}
    }


def newest(root: Path, pattern: str) -> Path:
    return max(root.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink(missing_ok=True)
    make(path)


BLOB, MANIFEST = "blobs/*/*/*", "artifacts/dataset/m/00000001.json"
DAMAGES: dict[str, Callable[[Path], object]] = {
    "a loop of links": lambda root: (root / "artifacts/loop").symlink_to(root / "artifacts"),
    "a link to itself": lambda root: (root / "blobs/itself").symlink_to("itself"),
    "a pipe as a manifest": lambda root: instead(root / MANIFEST, os.mkfifo),
    "a pipe as a blob": lambda root: instead(newest(root, BLOB), os.mkfifo),
    "a pipe as a data file": lambda root: instead(newest(root, "prices/bucket=*/*/*.parquet"), os.mkfifo),
    "a pipe in the log": lambda root: os.mkfifo(root / "prices/_delta_log/_last_checkpoint"),
    "a path with dots": lambda root: commit(root, added("../../outside/x.parquet")),
    "a path with encoded dots": lambda root: commit(root, added("%2e%2e/%2e%2e/outside/x.parquet")),
    "a file URL": lambda root: commit(root, added(f"file://{root.parent}/outside/x.parquet")),
    "a URL of another machine": lambda root: commit(root, added("http://127.0.0.1:9/x.parquet")),
    "a whole path": lambda root: commit(root, added(f"{root.parent}/outside/x.parquet")),
    "a deep manifest": lambda root: (root / MANIFEST).write_text(DEEP),
    "a deep commit": lambda root: (root / "prices/_delta_log/00000000000000000002.json").write_text(DEEP),
    "a huge manifest": lambda root: os.truncate(root / MANIFEST, 2**36),
    "a huge blob": lambda root: os.truncate(newest(root, BLOB), 2**36),
    "a huge commit": lambda root: os.truncate(newest(root, "prices/_delta_log/*.json"), 2**36),
    "a later protocol": lambda root: commit(root, {"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_foreign_thing_is_one_line_and_verify_goes_on(root: Path, outside: Path, damage: str) -> None:
    other = newest(root, "quarantine/*.parquet")
    other.write_bytes(other.read_bytes()[:-20])
    before = contents(outside)
    DAMAGES[damage](root)
    found = words(root)
    assert any(other.name in line for line in found)
    assert len(found) > 1
    assert len(found) == len(set(found))
    assert all("\n" not in line and len(line) < 1000 for line in found)
    store = open_store(str(root))
    steps: list[Callable[[], object]] = [
        lambda: find_garbage(store, keep_versions=1, now=LATER),
        lambda: PriceTable(store).read(),
        lambda: ArtifactStore(store).read(ArtifactStore(store).get("dataset", "m", 1), "f"),
    ]
    failed = []
    for step in steps:
        try:
            step()
        except StoreError as error:
            failed.append(str(error))
    assert failed
    assert contents(outside) == before


def test_a_manifest_whose_blob_has_a_path_for_a_digest_is_refused(root: Path) -> None:
    sealed = json.loads((root / MANIFEST).read_text())
    sealed["record"]["files"]["f"]["sha256"] = "../../../../etc/hostname"
    (root / MANIFEST).write_text(json.dumps(sealed))
    assert any("expected" in line for line in words(root))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"members": 10**9}, r"members must be a whole number from 1 to 64; 1000000000 came"),
        ({"name": None}, "Expected the settings of a recipe with its name"),
        ({"hidden_size": 10**9}, "hidden_size must be"),
        ({"unheard_of": 1}, "has no setting unheard_of"),
    ],
)
def test_a_model_of_settings_that_volcast_would_not_write_is_named(root: Path, recipe: dict, said: str) -> None:
    facts = {"recipe": settings(make_recipe("volume")) | recipe}
    store = open_store(str(root))
    ArtifactStore(store).put(
        Draft(kind="model", name="v", files={"model.safetensors": b"1"}, facts=facts, provenance=MADE_BY)
    )
    (found,) = [finding.words for finding in find_faults(str(root))]
    assert said in found
    assert found.startswith("model v v1: ")


def test_a_model_without_a_recipe_or_with_weights_that_are_no_numbers_is_named(root: Path) -> None:
    recipe, artifacts = make_recipe("tutorial"), ArtifactStore(open_store(str(root)))
    network = Nowcaster(Scaler(len(recipe.features)), TutorialLSTM(recipe))
    for unfitted in network.buffers():
        unfitted.fill_(1.0)
    facts = {"recipe": settings(recipe)}
    for weights, known in ((to_bytes(network), facts), (to_bytes(network), {})):
        files = {"model.safetensors": weights}
        artifacts.put(Draft(kind="model", name="m", files=files, facts=known, provenance=MADE_BY))
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    next(tensor for name, tensor in tensors.items() if "weight" in name)[0] = torch.nan
    artifacts.put(
        Draft(kind="model", name="m", files={"model.safetensors": save(tensors)}, facts=facts, provenance=MADE_BY)
    )
    second, third = [finding.words for finding in find_faults(str(root))]
    assert second.startswith("model m v2: ")
    assert "expected the fact recipe" in second
    assert third.startswith("model m v3: ")
    assert "not a number, or infinite" in third


# ---- bounds


def repeated(path: Path, rows: int, **values: object) -> Path:
    """A Parquet file whose columns are one value each, `rows` times: some kB, whatever that is in memory."""
    zeros = pa.array(np.zeros(rows, dtype=np.int32))
    arrays = [pa.DictionaryArray.from_arrays(zeros, pa.array([value])) for value in values.values()]
    table = pa.table(arrays, names=list(values))
    pq.write_table(table, path, store_schema=False, dictionary_pagesize_limit=2**24)
    return path


PRICES = {"Date": "2020-01-02", "Open": 1.0, "High": 1.0, "Low": 1.0, "Close": 1.0, "Volume": 5}


@pytest.mark.parametrize(
    ("rows", "changes"),
    [(5_000_000, {}), (5_000_000, {"Ticker": "SBUX"}), (500, {"Date": "2020-01-02" * 100_000})],
    ids=["many rows", "many rows of a ticker", "a long text"],
)
def test_a_small_file_that_unpacks_to_more_than_the_limit_is_refused_by_what_it_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, changes: dict
) -> None:
    monkeypatch.setenv("VOLCAST_MAX_BYTES", str(100 * 2**20))
    path = repeated(tmp_path / "SBUX.parquet", rows, **(changes | PRICES | changes))
    assert path.stat().st_size < 2**20
    before = pa.total_allocated_bytes()
    with pytest.raises(SourceUnusable, match=r"SBUX.parquet: it unpacks to .* MB, more than the limit of 104.9 MB"):
        FilesSource(str(path)).fetch("SBUX", first=None, last=LAST)
    assert pa.total_allocated_bytes() - before < 100 * 2**20
    with pytest.raises(SourceUnusable, match="more than the limit"):
        open_event_source(f"files:{path}")


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return file.getvalue()


ZEROS = bytes(20 * 2**20)
BOMBS: dict[str, Callable[[], bytes]] = {
    "SBUX.csv.gz": lambda: gzip.compress(ZEROS),
    "SBUX.csv.bz2": lambda: bz2.compress(ZEROS),
    "SBUX.csv.xz": lambda: lzma.compress(ZEROS),
    "SBUX.csv.zst": lambda: pa.compress(ZEROS, codec="zstd", asbytes=True),
    "SBUX.zip": lambda: zipped(SBUX_csv=ZEROS),
    "SBUX.tgz": lambda: gzip.compress(ZEROS),
    "SBUX.xlsx": lambda: zipped(**{"xl/workbook_xml": b"<x/>", "xl/worksheets/sheet1_xml": ZEROS}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_is_compressed_is_unpacked_no_further_than_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("VOLCAST_MAX_BYTES", str(10 * 2**20))
    path = tmp_path / name
    path.write_bytes(BOMBS[name]())
    with pytest.raises(SourceUnusable, match=rf"{name}: it .*unpacks to .* MB, more than the limit of 10.5 MB"):
        FilesSource(str(path)).fetch("SBUX", first=None, last=LAST)


def test_an_archive_in_an_archive_in_an_archive_is_not_opened_any_further(tmp_path: Path) -> None:
    content = b"Date,Close"
    for _ in range(20):
        content = zipped(SBUX_zip=content)
    (tmp_path / "SBUX.zip").write_bytes(content)
    with pytest.raises(SourceUnusable, match="an archive in an archive in an archive"):
        FilesSource(str(tmp_path / "SBUX.zip")).fetch("SBUX", first=None, last=LAST)


class Endless(BaseHTTPRequestHandler):
    """Sends zeros until the client has had enough: as they are, or packed."""

    sent = 0

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""

    def do_GET(self) -> None:
        self.send_response(200)
        packer = zlib.compressobj(wbits=31) if "gz" in self.path else None
        if packer:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            while Endless.sent < 2**32:
                chunk = bytes(2**20)
                Endless.sent += len(chunk)
                self.wfile.write(packer.compress(chunk) + packer.flush(zlib.Z_SYNC_FLUSH) if packer else chunk)


@pytest.mark.parametrize("path", ["SBUX.csv", "gz/SBUX.csv"])
def test_a_download_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("VOLCAST_MAX_BYTES", str(10 * 2**20))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(SourceUnusable, match=r"it has .* MB, more than the limit of 10.5 MB"):
        FilesSource(f"http://127.0.0.1:{server.server_port}/{path}").tickers()
    server.shutdown()
    server.server_close()


def test_a_data_file_of_a_store_that_unpacks_to_more_than_the_limit_is_named_and_not_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOLCAST_MAX_BYTES", str(30 * 2**20))
    (root / "prices/bucket=1").mkdir()
    path = repeated(root / "prices/bucket=1/x.parquet", 5_000_000, close=1.0)
    commit(root, added("bucket=1/x.parquet", size=path.stat().st_size))
    assert any("it unpacks to 40.0 MB, more than the limit of 31.5 MB" in line for line in words(root))


def test_what_a_query_gives_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PriceTable(open_store(str(root))).upsert(bars(sessions=5000))
    monkeypatch.setenv("VOLCAST_MAX_BYTES", "100000")
    with pytest.raises(Foreign, match="what is asked for"):
        PriceTable(open_store(str(root))).read()


def test_a_file_of_the_size_of_the_whole_market_is_below_the_limit() -> None:
    rows, columns = 26_000_000, 11
    assert rows * columns * 8 < max_bytes()


def test_a_frame_of_a_version_is_as_it_was_written(tmp_path: Path) -> None:
    sessions = pd.to_datetime(["2020-01-02"] * 3)
    frame = pd.DataFrame({"ticker": ["SBUX", None, "A"], "session": sessions, "x": [1.0, 2.0, 3.0]})
    content = to_parquet(frame)
    (tmp_path / "x").write_bytes(content)
    with (tmp_path / "x").open("rb") as file:
        assert open_parquet(file, "x").metadata.num_rows == 3
    pd.testing.assert_frame_equal(from_parquet(content), pd.read_parquet(tmp_path / "x"))


@pytest.mark.parametrize("setting", ["", "0"])
def test_a_limit_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("VOLCAST_MAX_BYTES", setting or "4 GB")
    with pytest.raises(ValueError, match="VOLCAST_MAX_BYTES must be a number of bytes"):
        max_bytes()


@pytest.mark.parametrize(
    "content", [DEEP, '{"a":' * 200 + "1" + "}" * 200, '{"x": "]]]", "a": ' + "[" * 200 + "]" * 200 + "}"]
)
def test_deep_json_is_refused(content: str) -> None:
    with pytest.raises(ValueError, match="deep"):
        read_json(content.encode())


@pytest.mark.parametrize("value", ["[" * 500, '"[[', "\\[" * 300, '\\"' * 200 + "[" * 300])
def test_brackets_inside_of_a_text_are_not_deep(value: str) -> None:
    assert read_json(json.dumps({"a": value}).encode()) == {"a": value}


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_pipe_or_a_device_is_no_source(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "SBUX.csv")
    with pytest.raises(SourceMissing, match="no such file"):
        FilesSource(str(tmp_path / "SBUX.csv")).tickers()


# ---- private by default


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


def fill(root: Path) -> None:
    store = open_store(str(root), writable=True)
    for close in (1.0, 2.0):
        PriceTable(store).upsert(bars(close=close))
    QuarantineTable(store).add(quarantined())
    ArtifactStore(store).put(Draft(kind="model", name="m", files={"f": b"1"}, provenance=MADE_BY))


def test_a_store_that_volcast_makes_is_its_owner_s_alone_whatever_the_umask(tmp_path: Path) -> None:
    os.umask(0)
    fill(tmp_path / "data")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert modes(tmp_path / "data") == {0o700, 0o600}


@pytest.mark.parametrize(
    ("mode", "inside"),
    [
        (0o755, {0o700, 0o600}),
        (0o777, {0o700, 0o600}),
        (0o750, {0o750, 0o640}),
        (0o770, {0o770, 0o660}),
        (0o2770, {0o2770, 0o660}),
    ],
)
def test_a_root_that_is_open_to_its_group_alone_is_a_shared_store(tmp_path: Path, mode: int, inside: set[int]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(mode)
    fill(tmp_path / "data")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == mode
    assert modes(tmp_path / "data") == inside
