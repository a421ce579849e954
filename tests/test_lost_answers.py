"""A bucket that does the work and loses the answer, resets, answers 503, is slow: nothing is done twice, or half."""

import re
from collections import Counter
from collections.abc import Callable
from datetime import date

import pytest
from rows import MADE_BY, announced, bars, quarantined

from benchmarks.fake_s3 import Fault, requests_so_far, set_faults
from volcast.storage.announced_dates import Changes, EventTable
from volcast.storage.append_tables import QuarantineTable, RestatementTable
from volcast.storage.artifacts import ArtifactStore, Draft, blob_key, put_blob
from volcast.storage.errors import StoreUnreachable
from volcast.storage.integrity import find_garbage, remove, verify
from volcast.storage.prices import Commit, PriceTable
from volcast.storage.staging import stage
from volcast.storage.store import Store, exists, open_store

WRITES = "^(PUT|POST|DELETE) "
EXPECTED = [
    Commit(version=0, inserted=3, updated=0, unchanged=0),
    Commit(version=1, inserted=0, updated=3, unchanged=0),
    *(2, 2),  # rows quarantined
    Changes(new=1),
    *(1, 2, 2, 3),  # versions of the model
    *(1, 2, 3),  # numbers of its alias's entries
    2,  # that it was rolled back to
    {},  # garbage
    [False, False],  # what was removed is there
    [(1, 1), (2, 2), (3, 3), (4, 2)],  # the alias's entries
    [3, 4, 3],  # rows of the prices, quarantined, restated
    [],  # findings
]
Serve = Callable[[str], Callable[[], str]]


def draft(content: bytes) -> Draft:
    return Draft(kind="model", name="m", files={"weights": content}, provenance=MADE_BY)


def work() -> list[object]:
    """A bit of all that is written to a store; what each step said, and what is there in the end."""
    store = open_store("s3://bucket/x", writable=True)
    prices, artifacts = PriceTable(store), ArtifactStore(store)
    said: list[object] = [prices.upsert(bars()), prices.upsert(bars(close=7.0))]
    said += [QuarantineTable(store).add(quarantined()), QuarantineTable(store).add(quarantined("AAPL"))]
    said += [EventTable(store).record(announced("2024-01-30"), as_of=date(2024, 1, 5), source="yahoo")]
    said += [artifacts.put(draft(content)).version for content in (b"1", b"2", b"2", b"3")]
    said += [artifacts.set_alias("model", "m", "champion", version, "better").number for version in (1, 2, 3)]
    said += [artifacts.roll_back("model", "m", "champion", "worse").version]
    orphan, frame = blob_key(put_blob(store, b"of no manifest")), stage(store, bars()).key
    remove(store, {orphan: 0, frame: 0})
    said += [find_garbage(store, keep_versions=1), [exists(store, key) for key in (orphan, frame)]]
    moves = [(entry.number, entry.version) for entry in artifacts.history("model", "m", "champion")]
    rows = [len(table.read()) for table in (prices, QuarantineTable(store), RestatementTable(store))]
    return [*said, moves, rows, [finding.words for finding in verify(store)]]


@pytest.mark.parametrize("kind", ["lost", "reset", "refused"])
def test_each_write_may_fail_once_or_lose_its_answer_and_all_is_as_without(serve: Serve, kind) -> None:
    serve("conditional")
    set_faults(Fault(kind=kind, requests=WRITES, once_each=True, times=None))
    assert work() == EXPECTED
    asked = [request for request in requests_so_far() if re.match(WRITES, request)]
    assert max(Counter(asked).values()) > 1


def test_without_a_fault_the_work_is_what_the_others_are_held_to(serve: Serve) -> None:
    serve("conditional")
    assert work() == EXPECTED


def test_a_bucket_that_fails_a_third_of_the_time_is_slow_and_no_worse(serve: Serve) -> None:
    serve("conditional")
    by_chance = [
        Fault(kind=kind, share=0.1, seed=seed, times=None) for seed, kind in enumerate(("lost", "refused", "reset"))
    ]
    set_faults(*by_chance, Fault(kind="slow", seconds=0.02, times=50))
    assert work() == EXPECTED


@pytest.fixture
def store(serve: Serve) -> Store:
    """In a bucket, with prices, a model and its alias."""
    serve("conditional")
    store = open_store("s3://bucket/x", writable=True)
    PriceTable(store).upsert(bars())
    artifacts = ArtifactStore(store)
    artifacts.put(draft(b"1"))
    artifacts.set_alias("model", "m", "champion", 1, "the first")
    return store


@pytest.mark.parametrize("requests", ["", "_delta_log", "blobs", "aliases", "parquet", "staging"])
@pytest.mark.parametrize("status", [503, 403])
def test_during_an_outage_verify_says_that_nothing_is_known_and_advises_to_restore_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, requests: str, status: int
) -> None:
    monkeypatch.setitem(store.table_options, "max_retries", "0")
    set_faults(Fault(kind="refused", requests=requests, status=status, times=None))
    found: list[str] = []
    with pytest.raises(StoreUnreachable, match="says nothing of what is stored") as caught:
        found += [finding.words for finding in verify(store)]
    assert found == []
    assert "estore it" not in str(caught.value)
    set_faults()
    assert list(verify(store)) == []


@pytest.mark.parametrize(
    "step",
    [
        lambda store: PriceTable(store).read(),
        lambda store: PriceTable(store).upsert(bars(close=7.0)),
        lambda store: QuarantineTable(store).add(quarantined()),
        lambda store: ArtifactStore(store).put(draft(b"2")),
        lambda store: ArtifactStore(store).newest("model", "m"),
        lambda store: ArtifactStore(store).roll_back("model", "m", "champion", "worse"),
        lambda store: find_garbage(store, keep_versions=1),
        lambda store: remove(store, {"blobs/sha256/00/00": 0}),
    ],
)
def test_during_an_outage_each_step_says_that_the_bucket_cannot_be_reached(store: Store, step) -> None:
    set_faults(Fault(kind="refused", times=None))
    with pytest.raises(StoreUnreachable, match="cannot be reached"):
        step(store)
