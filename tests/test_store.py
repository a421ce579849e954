import os
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

import pandas as pd
import pytest
from rows import bars

from volcast.storage.artifacts import ArtifactStore, Draft
from volcast.storage.errors import NotStored, StoreNotWritable, StoreUnsafe
from volcast.storage.integrity import verify
from volcast.storage.prices import PriceTable
from volcast.storage.records import Provenance
from volcast.storage.store import get, open_store, put
from volcast.tasks.settings import root_of


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path):
    store = open_store(str(tmp_path / "a" / "b c"), writable=True)
    assert store.url == (tmp_path / "a" / "b c").as_uri()
    assert list((tmp_path / "a" / "b c").iterdir()) == []


def test_a_path_and_its_file_url_are_one_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_path = open_store("./da ta", writable=True)
    by_url = open_store(f"{by_path.url}/")
    assert by_path.url == by_url.url
    assert by_path.table_url("prices") == by_url.table_url("prices") == str(tmp_path / "da ta" / "prices")
    by_path.objects.put("key", b"value")
    assert by_url.objects.get("key").bytes() == b"value"


def test_a_path_under_a_regular_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreNotWritable, match="file/data"):
        open_store(str(tmp_path / "file" / "data"), writable=True)
    with pytest.raises(StoreNotWritable, match="Give another root"):
        open_store(str(tmp_path / "file"), writable=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreNotWritable, match=str(tmp_path)):
        open_store(str(tmp_path), writable=True)


def test_a_folder_that_even_root_cannot_write_is_refused():
    with pytest.raises(StoreNotWritable, match="/proc"):
        open_store("/proc/volcast", writable=True)
    with pytest.raises(StoreNotWritable, match="/proc"):
        open_store("/proc", writable=True)


@pytest.mark.parametrize(
    "url", ["", " ", "ftp://host/x", "file://data", "s3://", "s3://key:secret@bucket/x", "s3://bucket/x?y=1"]
)
def test_a_url_of_no_known_kind_is_refused(url):
    with pytest.raises(ValueError, match=r"expected|needs"):
        open_store(url)


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\x7fb", "a\\b", "a|b", "a^b", "a[b", "a]b", "a%20b"])
@pytest.mark.parametrize("form", ["{}/{}", "file://{}/{}"])
def test_a_folder_whose_name_the_tables_cannot_bear_is_refused_before_anything_is_written(tmp_path, name, form):
    name = name.replace("%", "%25") if form.startswith("file") else name
    with pytest.raises(ValueError, match="Nothing was written"):
        open_store(form.format(tmp_path, name), writable=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["s3:", "s3:/bucket", "S3:bucket", "memory:", "gs:/b", "file:/x", "https:/h/x"])
def test_a_url_that_lacks_a_slash_is_no_folder(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"as a URL; a folder of that name is \./"):
        open_store(root_of(url, "simulated"), writable=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["s3://", "memory://"])
def test_a_url_without_a_bucket_makes_no_folder_for_a_simulated_exchange(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"needs a bucket|objects, not tables"):
        PriceTable(open_store(root_of(url, "simulated"), writable=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", ["a\\b", "a|b", "a^b", "a[b", "a]b", "a//b", "a/../b", "a/./b", ".."])
def test_a_prefix_that_the_tables_cannot_bear_is_refused_before_anything_is_written(serve, prefix):
    listing = serve("conditional")
    with pytest.raises(ValueError, match="Nothing was written"):
        open_store(f"s3://bucket/{prefix}", writable=True)
    assert "<Key>" not in listing()


@pytest.mark.parametrize("prefix", ["a b", "100%", "a%20b", "a%2e%2e", "ä", "a&b=c;d'e"])
def test_a_prefix_of_another_name_holds_tables_and_artifacts(serve, prefix):
    serve("conditional")
    store = open_store(f"s3://bucket/{prefix}", writable=True)
    PriceTable(store).upsert(bars())
    assert PriceTable(store).upsert(bars(close=1.0)).updated == 3
    assert len(PriceTable(open_store(store.url)).read()) == 3
    assert list(verify(store)) == []


@pytest.mark.parametrize("name", ["a b", "100%", "ä", "a#b", "a?b", "a&b=c;d", "a'b", 'a"b', "a:b*<c>{d}~`"])
def test_a_folder_of_another_name_holds_tables_and_objects(tmp_path, name):
    table = PriceTable(open_store(str(tmp_path / name), writable=True))
    table.upsert(bars())
    assert table.upsert(bars(close=1.0)).updated == 3
    assert len(table.read(version=0)) == len(table.read()) == 3
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_memory_store_holds_no_tables():
    with pytest.raises(ValueError, match="objects, not tables"):
        open_store("memory://").table_url("prices")


def test_artifacts_live_in_a_bucket_as_they_do_in_a_folder(serve):
    listing = serve("conditional")
    store = open_store("s3://bucket/some/prefix/", writable=True)
    assert store.url == "s3://bucket/some/prefix"
    assert store.table_url("prices") == "s3://bucket/some/prefix/prices"
    assert store.table_options["AWS_ALLOW_HTTP"] == "true"
    assert "secret" not in repr(store)
    assert "<Key>" not in listing()

    artifacts = ArtifactStore(store)
    provenance = Provenance(code_version="abc", packages={}, flow_run_id=None, seed=None)
    names = ["tutorial.BF.B", "tutorial.BRK-B", "tutorial.EURUSD=X", "tutorial.^GSPC"]
    for name in names:
        for content in (b"a", b"b", b"b"):
            artifacts.put(Draft(kind="model", name=name, files={"f": content}, provenance=provenance))
    assert artifacts.names("model") == names
    assert artifacts.versions("model", "tutorial.^GSPC") == [1, 2]
    assert artifacts.read(artifacts.get("model", "tutorial.^GSPC", 2), "f") == b"b"


def test_thirty_manifests_cost_one_listing_and_a_version_that_is_named_none(serve):
    serve("conditional")
    artifacts = ArtifactStore(open_store("s3://bucket", writable=True))
    provenance = Provenance(code_version="abc", packages={}, flow_run_id=None, seed=None)
    for number in range(30):
        artifacts.put(Draft(kind="model", name="m", files={}, facts={"n": number}, provenance=provenance))

    def listings() -> int:
        requests = urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/requests").read().decode().splitlines()
        return sum("list-type" in request for request in requests)

    before = listings()
    assert [artifacts.get("model", "m", version).facts["n"] for version in range(1, 31)] == list(range(30))
    assert listings() == before
    for read in (artifacts.get, artifacts.newest):
        newest = read("model", "m")
        assert newest is not None
        assert newest.version == 30
    assert listings() == before + 2
    with pytest.raises(NotStored, match=r"model m has no version 31; stored versions: \[1, 2"):
        artifacts.get("model", "m", 31)


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_who_reads_what_is_replaced_meets_the_old_or_the_new_whole(serve, tmp_path, where):
    if where == "bucket":
        serve("conditional")
    store = open_store(str(tmp_path) if where == "folder" else "s3://bucket/kept", writable=True)
    contents = [bytes([letter]) * 2_000_000 for letter in b"ab"]
    put(store, "reports/volume/latest.csv", contents[0], replace=True)

    def replace_often():
        for turn in range(20):
            assert put(store, "reports/volume/latest.csv", contents[turn % 2], replace=True)

    with ThreadPoolExecutor(1) as pool:
        writer, met = pool.submit(replace_often), set()
        while not writer.done():
            met.add(get(store, "reports/volume/latest.csv"))
        writer.result()
    assert met <= set(contents)
    assert get(store, "reports/volume/latest.csv") == contents[1]


def test_prices_live_in_a_bucket_as_they_do_in_a_folder(serve):
    listing = serve("conditional")
    table = PriceTable(open_store("s3://bucket/some/prefix", writable=True))
    bars = pd.DataFrame({"ticker": ["^GSPC", "SBUX"], "session": pd.Timestamp("2024-01-02"), "volume": [1, 2]})
    bars = bars.assign(open=1.0, high=1.0, low=1.0, close=1.0, dividend=0.0, split=0.0, later_adjustment=1.0)
    table.upsert(bars)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda volume: table.upsert(bars.assign(volume=volume)), range(3, 7)))
    assert table.version() == 4
    assert list(table.read(version=0)["volume"]) == [2, 1]
    assert set(table.read()["volume"]) <= {3, 4, 5, 6}
    assert "<Key>some/prefix/prices/_delta_log/00000000000000000004.json</Key>" in listing()


def test_a_bucket_without_conditional_puts_is_unsafe(serve):
    listing = serve("overwriting")
    with pytest.raises(StoreUnsafe, match="If-None-Match"):
        open_store("s3://bucket/prefix", writable=True)
    assert "<Key>" not in listing()


def test_a_bucket_that_does_not_answer_is_not_writable(serve, monkeypatch):
    serve("conditional")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("volcast.storage.store.MAX_RETRIES", 0)
    with pytest.raises(StoreNotWritable, match="credentials, region and endpoint"):
        open_store("s3://bucket/prefix", writable=True)
