"""What only looks at a store writes nothing: it works on a read-only mount and on a full disk, when it is needed."""

import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest
from programs import Volcast
from rows import yahoo_frame

from volcast.flows.daily import daily
from volcast.flows.ingest import ingest
from volcast.flows.prefect_processes import without_server
from volcast.storage.errors import NotStored
from volcast.storage.staging import stage
from volcast.storage.store import open_store
from volcast.tasks.settings import DataSettings, TrainingSettings

LOOKS = ["status", "quarantine", "verify", "gc --dry-run", "models list", "models show", "report --out page.html"]
# Each command in turn; what it raised, if anything, and the end of what it printed.
RUNNER = """
import sys
from volcast.flows.cli import app, console

for command in sys.argv[2:]:
    try:
        with console.capture() as output:
            app([*command.split(), "--store", sys.argv[1]], exit_on_error=False)
        print(command, "ran:", output.get().splitlines()[-1])
    except Exception as error:
        print(command, "failed:", repr(error))
"""
READ_ONLY = "mount --bind {store} {store} && mount -o remount,ro,bind {store} && ! touch {store}/x 2> /dev/null"
FULL = "cp -a {store} {store}.copy && mount -t tmpfs -o size=64m none {store} && cp -a {store}.copy/. {store}/ && \
! dd if=/dev/zero of={store}/fill bs=64k 2> /dev/null"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a ledger, health and quarantine, and a frame that a stopped run left two days ago."""
    folder = tmp_path_factory.mktemp("watched")
    frame = yahoo_frame()
    frame.loc[3, "Volume"] = 0
    frame.to_csv(folder / "SBUX.csv", index=False)
    data = DataSettings(source=f"files:{folder / 'SBUX.csv'}", store=str(folder / "data"), as_of=date(2020, 12, 10))
    with without_server():
        daily(data, TrainingSettings(device="cpu"))
    left = folder / "data" / stage(open_store(data.store), frame).key
    two_days_ago = time.time() - 2 * 86_400
    os.utime(left, (two_days_ago, two_days_ago))
    return folder / "data"


def look(store: Path, folder: Path, mount: str, *commands: str) -> list[str]:
    """A line a command, run where the mount is made of the store."""
    mount = mount.format(store=store)
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no right to mount here")
    (folder / "runner.py").write_text(RUNNER)
    python = [sys.executable, str(folder / "runner.py"), str(store), *commands]
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh", *python],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@pytest.mark.parametrize("mount", [READ_ONLY, FULL], ids=["read-only", "full"])
def test_a_store_that_cannot_be_written_can_be_looked_at(watched: Path, tmp_path: Path, mount: str) -> None:
    lines = look(watched, tmp_path, mount, *LOOKS)
    assert [line for line in lines if " ran: " not in line] == []
    assert len(lines) == len(LOOKS)


def test_gc_makes_room_on_a_full_disk(watched: Path, tmp_path: Path) -> None:
    (line,) = look(watched, tmp_path, FULL, "gc")
    assert line.startswith("gc ran: Removed 1 file,")


def test_gc_on_a_read_only_mount_says_that_nothing_can_be_removed(watched: Path, tmp_path: Path) -> None:
    (line,) = look(watched, tmp_path, READ_ONLY, "gc")
    assert line.startswith("gc failed: StoreNotWritable(")
    assert "Read-only file system" in line


def test_a_look_at_a_mistyped_store_says_so_and_makes_nothing(volcast: Volcast, tmp_path: Path) -> None:
    commands = [*LOOKS, "gc", "forecast", "retrain --source simulated", "monitor --source files:x"]
    moves = ["models promote volume --version 1 --reason r", "models rollback volume --source simulated --reason r"]
    for command in [*commands, *moves]:
        began = time.monotonic()
        said = volcast(*command.split(" "), "--store", tmp_path / "typo")
        assert time.monotonic() - began < 1, command
        assert said.code == 1, command
        (error,) = said.errors
        assert "there is no store" in error, command
    assert not (tmp_path / "typo").exists()


def test_a_bucket_without_a_store_is_named_and_one_that_is_read_is_not_written(serve) -> None:
    listing = serve("conditional")
    with pytest.raises(NotStored, match=r"s3://bucket/typo: there is no store"):
        open_store("s3://bucket/typo")
    open_store("s3://bucket/real", writable=True).objects.put("key", b"value")
    puts = listing().count("<Key>")
    open_store("s3://bucket/real")
    assert listing().count("<Key>") == puts == 1


@pytest.mark.usefixtures("no_server")
def test_a_root_is_probed_once_a_process(sbux_csv: Path, tmp_path: Path, monkeypatch) -> None:
    probes: list[str] = []
    monkeypatch.setattr("volcast.storage.store._probe", lambda store: probes.append(store.url))
    ingest(DataSettings(source=f"files:{sbux_csv}", store=str(tmp_path / "data"), as_of=date(2020, 12, 10)))
    assert probes == [(tmp_path / "data").as_uri()]
