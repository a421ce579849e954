import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks.faults import flip_a_bit
from volcast.storage.artifacts import ArtifactStore, Draft, canonical_json, sha256
from volcast.storage.errors import Corrupt, NotStored
from volcast.storage.records import ArtifactRef, Manifest, Provenance
from volcast.storage.store import open_store

PROVENANCE = Provenance(code_version="abc1234", packages={"torch": "2.9"}, flow_run_id=None, seed=7)
PRICES = ArtifactRef(kind="prices", name="prices", version=4, digest="d4")
AWKWARD_NAMES = ["tutorial.BF.B", "tutorial.BRK-B", "tutorial.EURUSD=X", "tutorial.^GSPC"]


def draft(content: bytes = b"weights", name: str = "tutorial.SBUX", **changes) -> Draft:
    fields = {"kind": "model", "name": name, "files": {"model.bin": content}, "provenance": PROVENANCE}
    return Draft(**(fields | changes))


@pytest.fixture(params=["folder", "memory"])
def artifacts(request, tmp_path) -> ArtifactStore:
    return ArtifactStore(open_store(str(tmp_path) if request.param == "folder" else "memory://"))


@pytest.fixture
def on_disk(tmp_path) -> ArtifactStore:
    return ArtifactStore(open_store(str(tmp_path)))


def the_file(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def replace_in(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def test_what_is_put_comes_back(artifacts):
    stored = artifacts.put(draft(parents=(PRICES,), facts={"loss": 0.25, "tickers": ["SBUX"]}))
    assert str(stored.ref) == "model tutorial.SBUX v1"
    assert artifacts.get("model", "tutorial.SBUX") == stored
    assert artifacts.get("model", "tutorial.SBUX", 1) == stored
    assert artifacts.read(stored, "model.bin") == b"weights"
    assert Manifest.model_validate_json(stored.model_dump_json()) == stored


def test_the_same_content_is_the_same_version(artifacts):
    first = artifacts.put(draft())
    again = artifacts.put(draft(provenance=PROVENANCE.model_copy(update={"seed": 8})))
    assert again == first
    assert artifacts.versions("model", "tutorial.SBUX") == [1]


@pytest.mark.parametrize("change", [{"content": b"other"}, {"parents": (PRICES,)}, {"facts": {"epochs": 2}}])
def test_other_content_is_the_next_version(artifacts, change):
    artifacts.put(draft())
    assert artifacts.put(draft(**change)).version == 2
    assert artifacts.versions("model", "tutorial.SBUX") == [1, 2]


def test_content_that_returns_after_another_is_a_new_version(artifacts):
    digests = [artifacts.put(draft(content)).digest for content in (b"a", b"b", b"a")]
    assert digests[0] == digests[2] != digests[1]
    assert artifacts.versions("model", "tutorial.SBUX") == [1, 2, 3]


def test_names_of_every_ticker_come_back_from_the_list(artifacts):
    for name in AWKWARD_NAMES:
        artifacts.put(draft(name=name))
        artifacts.set_alias("model", name, "champion", 1, "first")
    assert artifacts.names("model") == AWKWARD_NAMES
    assert [artifacts.newest("model", name).name for name in AWKWARD_NAMES] == AWKWARD_NAMES
    assert artifacts.alias("model", "tutorial.^GSPC", "champion").version == 1


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a%2Fb", "a#1", "a\n", "é"])
def test_a_name_that_is_no_name_is_refused(artifacts, name):
    with pytest.raises(ValueError, match="expected a name"):
        draft(name=name)
    with pytest.raises(ValueError, match="expected a name"):
        artifacts.versions("model", name)
    with pytest.raises(ValidationError):
        ArtifactRef(kind="model", name=name, version=1, digest="")


def test_a_fact_that_is_not_a_number_is_refused(artifacts):
    with pytest.raises(ValueError, match="JSON"):
        artifacts.put(draft(facts={"loss": float("nan")}))
    assert artifacts.versions("model", "tutorial.SBUX") == []


def test_racing_writers_get_different_versions_and_lose_nothing(artifacts):
    start = threading.Barrier(8)

    def write(writer: int) -> list[int]:
        start.wait()
        return [artifacts.put(draft(f"{writer}.{step}".encode())).version for step in range(5)]

    with ThreadPoolExecutor(8) as pool:
        taken = [version for versions in pool.map(write, range(8)) for version in versions]
    assert sorted(taken) == list(range(1, 41)) == artifacts.versions("model", "tutorial.SBUX")
    contents = {artifacts.read(artifacts.get("model", "tutorial.SBUX", version), "model.bin") for version in taken}
    assert len(contents) == 40


def test_what_is_not_stored_is_named(artifacts):
    stored = artifacts.put(draft())
    with pytest.raises(NotStored, match=r"no version 9; stored versions: \[1\]"):
        artifacts.get("model", "tutorial.SBUX", 9)
    with pytest.raises(NotStored, match="stored versions: none"):
        artifacts.get("model", "tutorial.AAPL")
    with pytest.raises(NotStored, match="no file scaler"):
        artifacts.read(stored, "scaler")
    assert artifacts.newest("model", "tutorial.AAPL") is None
    assert artifacts.names("scorecard") == []


def test_a_flipped_bit_in_a_blob_is_corrupt(on_disk, tmp_path):
    stored = on_disk.put(draft())
    blob = the_file(tmp_path, "blobs/sha256/*/*")
    flip_a_bit(blob, 0)
    with pytest.raises(Corrupt, match=stored.files["model.bin"].sha256):
        on_disk.read(stored, "model.bin")
    assert on_disk.put(draft()) == stored  # the step that made it, run again, mends it
    assert on_disk.read(stored, "model.bin") == b"weights"
    blob.unlink()
    assert on_disk.put(draft()) == stored
    assert on_disk.read(stored, "model.bin") == b"weights"


def test_a_damaged_manifest_stops_no_new_version(on_disk, tmp_path):
    on_disk.put(draft())
    the_file(tmp_path, "artifacts/*/*/*.json").write_bytes(b"")
    again = on_disk.put(draft())
    assert again.version == 2
    assert on_disk.put(draft()) == again


def test_a_lost_blob_is_not_stored(on_disk, tmp_path):
    stored = on_disk.put(draft())
    the_file(tmp_path, "blobs/sha256/*/*").unlink()
    with pytest.raises(NotStored, match="blobs/sha256"):
        on_disk.read(stored, "model.bin")


@pytest.mark.parametrize(
    ("old", "new"), [(b'"seed": 7', b'"seed": 6'), (b'"version": 1', b'"version": 2'), (b"0.25", b"0.24")]
)
def test_a_changed_manifest_is_corrupt(on_disk, tmp_path, old, new):
    on_disk.put(draft(facts={"loss": 0.25}))
    replace_in(the_file(tmp_path, "artifacts/*/*/*.json"), old, new)
    with pytest.raises(Corrupt, match=r"00000001\.json"):
        on_disk.get("model", "tutorial.SBUX")


@pytest.mark.parametrize("kept_bytes", [0, 100])
def test_a_torn_manifest_is_corrupt(on_disk, tmp_path, kept_bytes):
    on_disk.put(draft())
    path = the_file(tmp_path, "artifacts/*/*/*.json")
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(Corrupt, match=f"{kept_bytes} bytes that are not whole JSON"):
        on_disk.get("model", "tutorial.SBUX")


@pytest.mark.parametrize(
    ("key", "words"),
    [("digest", "Manifest, found digest: Field required. "), ("sha256", "Manifest, found no 'sha256'. ")],
)
def test_a_manifest_that_lacks_a_key_is_named_with_it_in_one_line(on_disk, tmp_path, key, words):
    on_disk.put(draft())
    path = the_file(tmp_path, "artifacts/model/tutorial.SBUX/00000001.json")
    sealed = json.loads(path.read_text())
    (sealed if key in sealed else sealed["record"]).pop(key)
    if key != "sha256":
        sealed["sha256"] = sha256(canonical_json(sealed["record"]))
    path.write_text(json.dumps(sealed))
    with pytest.raises(Corrupt, match=words) as found:
        on_disk.get("model", "tutorial.SBUX")
    assert "\n" not in str(found.value)


def test_a_fact_or_parent_that_lacks_is_named(artifacts):
    manifest = artifacts.put(draft(facts={"loss": 0.25}))
    with pytest.raises(Corrupt, match=r"^model tutorial.SBUX v1: expected the fact recipe, found loss. Another"):
        manifest.fact("recipe")
    with pytest.raises(Corrupt, match=r"^model tutorial.SBUX v1: expected what it was made from, found none."):
        assert manifest.parent
    assert manifest.fact("loss") == 0.25


def test_a_manifest_under_another_version_is_corrupt(on_disk, tmp_path):
    on_disk.put(draft())
    path = the_file(tmp_path, "artifacts/*/*/*.json")
    path.with_name("00000002.json").write_bytes(path.read_bytes())
    with pytest.raises(Corrupt, match=r"expected model tutorial\.SBUX v2, found model tutorial\.SBUX v1"):
        on_disk.get("model", "tutorial.SBUX")


def test_a_changed_alias_is_corrupt(on_disk, tmp_path):
    on_disk.put(draft())
    on_disk.set_alias("model", "tutorial.SBUX", "champion", 1, "first")
    replace_in(the_file(tmp_path, "aliases/*/*/*/*.json"), b'"version": 1', b'"version": 3')
    with pytest.raises(Corrupt, match="champion"):
        on_disk.alias("model", "tutorial.SBUX", "champion")


def test_a_model_walks_back_to_its_prices(artifacts):
    scaler = artifacts.put(draft(b"scaler", kind="scaler", parents=(PRICES,)))
    model = artifacts.put(draft(b"model", parents=(scaler.ref, PRICES)))
    scorecard = artifacts.put(draft(b"scores", kind="scorecard", parents=(model.ref,)))
    assert artifacts.walk(scorecard) == [scorecard, model, scaler, PRICES]


def test_a_parent_with_another_digest_is_corrupt(artifacts):
    scaler = artifacts.put(draft(b"scaler", kind="scaler"))
    model = artifacts.put(draft(parents=(scaler.ref.model_copy(update={"digest": "0"}),)))
    with pytest.raises(Corrupt, match="scaler"):
        artifacts.walk(model)


@pytest.fixture
def three_champions(artifacts) -> ArtifactStore:
    for content in (b"a", b"b", b"c"):
        version = artifacts.put(draft(content)).version
        artifacts.set_alias("model", "tutorial.SBUX", "champion", version, "better")
    return artifacts


def test_an_alias_is_where_it_was_set_last(three_champions):
    assert three_champions.alias("model", "tutorial.SBUX", "champion").version == 3
    assert three_champions.alias("model", "tutorial.SBUX", "challenger") is None
    with pytest.raises(NotStored, match="no version 9"):
        three_champions.set_alias("model", "tutorial.SBUX", "champion", 9, "typo")


def test_rolling_back_appends_and_goes_on_going_back(three_champions):
    where = ("model", "tutorial.SBUX", "champion")
    assert three_champions.roll_back(*where, "bad forecasts").version == 2
    assert three_champions.roll_back(*where, "still bad").version == 1
    assert [entry.version for entry in three_champions.history(*where)] == [1, 2, 3, 2, 1]
    assert [entry.number for entry in three_champions.history(*where)] == [1, 2, 3, 4, 5]
    assert three_champions.history(*where)[3].reason == "bad forecasts"
    with pytest.raises(NotStored, match="no version before"):
        three_champions.roll_back(*where, "once too often")


def test_racing_alias_writers_all_leave_an_entry(three_champions):
    def move(version: int) -> int:
        return three_champions.set_alias("model", "tutorial.SBUX", "champion", version, "race").number

    with ThreadPoolExecutor(3) as pool:
        numbers = list(pool.map(move, [1, 2, 3] * 4))
    assert sorted(numbers) == list(range(4, 16))


def test_manifests_are_json_that_a_person_can_read(on_disk, tmp_path):
    on_disk.put(draft(facts={"loss": 0.25}))
    sealed = json.loads(the_file(tmp_path, "artifacts/model/tutorial.SBUX/00000001.json").read_text())
    assert sealed["record"]["facts"] == {"loss": 0.25}
