"""Writers that are killed, that race, and that run out of room; whole commands are hurt by benchmarks/torture.py."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from rows import bars, yahoo_frame

from volcast.flows.ingest import ingest
from volcast.flows.server import Server
from volcast.storage.append_tables import RestatementTable
from volcast.storage.integrity import verify
from volcast.storage.price_rows import bucket_of
from volcast.storage.prices import PriceTable
from volcast.storage.store import open_store
from volcast.tasks.settings import DataSettings

pytestmark = pytest.mark.crash

TICKERS = [f"T{number:02}" for number in range(40)]
SESSIONS = 12

# Upserts session after session of its tickers, and says after each commit how many it has done.
WRITER = """
import sys
import pandas as pd
from volcast.storage.prices import PriceTable
from volcast.storage.store import open_store
from rows import bars

table = PriceTable(open_store(sys.argv[1], writable=True))
for count in range(1, int(sys.argv[2]) + 1):
    table.upsert(pd.concat([bars(ticker, sessions=count) for ticker in sys.argv[3:]]))
    print(count, flush=True)
"""


IMPORTS = """
import os, signal, sys
from deltalake import DeltaTable
from volcast.storage.prices import PriceTable
from volcast.storage.append_tables import RestatementTable
from volcast.storage.store import open_store
from rows import bars
"""
PATHS = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])}


def writer(root: Path, tickers: list[str], sessions: int = SESSIONS, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(root), str(sessions), *tickers]
    return subprocess.Popen(command, env=PATHS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def damage(root: Path) -> list[str]:
    return [finding.words for finding in verify(open_store(str(root))) if finding.damage]


def whole(tickers: list[str], sessions: int) -> pd.DataFrame:
    return pd.concat([bars(ticker, sessions=sessions) for ticker in tickers])


@pytest.mark.parametrize("attempt", range(3))
def test_a_writer_killed_at_any_moment_loses_nothing_that_it_committed(tmp_path: Path, attempt: int) -> None:
    with writer(tmp_path, TICKERS) as victim:
        assert victim.stdout is not None
        first = victim.stdout.readline()
        time.sleep(random.Random(attempt).uniform(0, 0.5))
        victim.send_signal(signal.SIGKILL)
        committed = int((first + victim.stdout.read()).split()[-1])
    table = PriceTable(open_store(str(tmp_path)))
    found = table.read().groupby("ticker").size().to_dict()
    sessions = set(found.values())
    assert len(sessions) == 1  # a commit is there for all tickers or for none
    assert sessions <= {committed, committed + 1}  # killed after a commit, before it could say so
    assert list(found) == TICKERS
    assert damage(tmp_path) == []
    table.upsert(whole(TICKERS, SESSIONS))
    assert set(table.read().groupby("ticker").size()) == {SESSIONS}


@pytest.mark.parametrize("moment", ["RestatementTable.complete", "DeltaTable.create_write_transaction"])
def test_a_writer_killed_between_prices_and_restatements_loses_none_of_them(tmp_path: Path, moment: str) -> None:
    store = open_store(str(tmp_path))
    table, restatements = PriceTable(store), RestatementTable(store)
    table.upsert(bars(close=10.0), source="first")
    die = f"{moment} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)"
    upsert = "PriceTable(open_store(sys.argv[1])).upsert(bars(close=11.0), source='killed')"
    command = [sys.executable, "-c", f"{IMPORTS}\n{die}\n{upsert}", str(tmp_path)]
    assert subprocess.run(command, env=PATHS, capture_output=True).returncode == -signal.SIGKILL
    is_committed = moment.startswith("Restatement")
    assert table.version() == int(is_committed)
    assert restatements.read().empty
    (left,) = verify(store)
    assert not left.damage
    assert "The next ingest settles them" in left.words

    table.upsert(bars(close=11.0), source="next")
    found = restatements.read()
    assert found["column"].tolist() == ["close"] * 3
    facts = found[["old", "new", "version_before", "version_after"]].drop_duplicates()
    assert facts.values.tolist() == [[10, 11, 0, 1]]
    assert set(found["source"]) == {"killed" if is_committed else "next"}
    assert list(verify(store)) == []


@pytest.mark.parametrize("shared", [True, False], ids=["the same buckets", "buckets of their own"])
def test_four_writers_at_once_lose_nothing(tmp_path: Path, shared: bool) -> None:
    groups = [[ticker for ticker in TICKERS if bucket_of(ticker) % 4 == number] for number in range(4)]
    groups = [TICKERS[number::4] for number in range(4)] if shared else groups
    writers = [writer(tmp_path, tickers, sessions=3) for tickers in groups]
    for each in writers:
        _, errors = each.communicate(timeout=180)
        assert each.returncode == 0, errors
    found = PriceTable(open_store(str(tmp_path))).read()
    assert not found.duplicated(["ticker", "session"]).any()
    assert found.groupby("ticker").size().to_dict() == dict.fromkeys(TICKERS, 3)
    assert damage(tmp_path) == []


@pytest.mark.parametrize("room", [500, 5_000])  # too little for a data file, and for the log entry of 40 tickers
def test_a_full_disk_is_named_and_commits_nothing_torn(tmp_path: Path, room: int) -> None:
    table = PriceTable(open_store(str(tmp_path)))
    table.upsert(whole(TICKERS, 2))
    with writer(
        tmp_path, TICKERS, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    ) as victim:
        _, errors = victim.communicate(timeout=60)
    assert victim.returncode == 1
    assert "volcast.storage.errors.StoreNotWritable" in errors.splitlines()[-1]
    assert "could not be written: " in errors.splitlines()[-1]
    assert set(table.read().groupby("ticker").size()) == {2}
    assert damage(tmp_path) == []
    assert table.upsert(whole(TICKERS, 3)).inserted == len(TICKERS)


def test_a_read_only_mount_is_named(tmp_path: Path) -> None:
    PriceTable(open_store(str(tmp_path))).upsert(whole(TICKERS, 2))
    mount = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path}"
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no right to mount here")
    code = f"from volcast.storage.store import open_store; open_store({str(tmp_path)!r}, writable=True)"
    command = ["unshare", "--mount", "sh", "-c", f'{mount} && {sys.executable} -c "{code}"']
    found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    last = found.stderr.splitlines()[-1]
    assert "StoreNotWritable" in last
    assert "Read-only file system" in last


def test_an_ingest_killed_at_any_moment_is_completed_by_the_next(prefect_api: Server, tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    for seed, ticker in enumerate(TICKERS):
        yahoo_frame(seed=seed).to_csv(tmp_path / "csv" / f"{ticker}.csv", index=False)
    store = tmp_path / "data"
    data = DataSettings(source=f"files:{tmp_path / 'csv'}", store=str(store), as_of=date(2020, 12, 10))
    command = [sys.executable, "-m", "volcast", "ingest", "--source", data.source, "--store", data.store]
    known = {"PREFECT_API_URL": prefect_api.api_url, "PREFECT_API_AUTH_STRING": str(prefect_api.auth)}
    with subprocess.Popen(
        command, env=os.environ | known, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as victim:
        while not (store / "staging").exists() and victim.poll() is None:
            time.sleep(0.02)
        time.sleep(random.uniform(0, 3))
        victim.kill()
    table = PriceTable(open_store(str(store)))
    if table.version() is not None:  # it was killed after its only commit
        assert len(table.read()) == 253 * len(TICKERS)
    assert damage(store) == []
    assert ingest(data).rows == 253 * len(TICKERS)
    assert table.version() == 0
    assert damage(store) == []
