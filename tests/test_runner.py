"""Steps on the workers of a real Dask cluster: the same store as by one process, also where a worker is killed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psutil
import pytest
from distributed import Client
from prefect.settings import PREFECT_API_URL, temporary_settings
from programs import Volcast
from runs import log_lines, run_named, task_run_names

from benchmarks.programs import free_port
from volcast.flows import dask_runner
from volcast.flows.dask_runner import local_cluster
from volcast.flows.ingest import ingest
from volcast.flows.server import Server
from volcast.flows.server_options import ServerError
from volcast.flows.task_runner import VARIABLE, address_of
from volcast.storage.announced_dates import EventTable
from volcast.storage.append_tables import QuarantineTable
from volcast.storage.store import open_store
from volcast.tasks.settings import DataSettings

LAST = date(2005, 12, 30)
SPLIT = "simulated:7?universe=40&faults=null,duplicate"  # into 16 batches
DATES = ["--train-through", "2020-03-31", "--test-start", "2020-04-01", "--test-end", "2020-07-31"]
QUICK = [option for each in ("steps=20", "members=1", "hidden_size=8") for option in ("--set", each)]


@dataclass(frozen=True)
class Cluster:
    """A scheduler on 127.0.0.1, and its workers by their addresses."""

    address: str
    client: Client
    workers: dict[str, subprocess.Popen[bytes]]

    def kill_one_at_work(self, has_ended: threading.Event) -> None:
        """A worker that has done steps, whose results are lost with it, and has been given others.

        It is stopped before, so that it cannot finish these meanwhile.
        """
        client: Any = self.client
        while not has_ended.wait(0.02):
            given, done = client.processing(), client.has_what()
            for victim in (worker for worker in self.workers if given[worker] and done[worker]):
                self.workers[victim].send_signal(signal.SIGSTOP)
                assert client.processing()[victim]
                self.workers[victim].kill()
                return


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder, started = tmp_path_factory.mktemp("dask"), list[subprocess.Popen[bytes]]()

    def start(program: str, *options: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.{program}",
            "--host",
            "127.0.0.1",
            "--no-dashboard",
            *options,
        ]
        started.append(subprocess.Popen(command, cwd=folder))
        return started[-1]

    scheduler = f"tcp://127.0.0.1:{free_port()}"
    try:
        start("dask_scheduler", "--port", scheduler.rpartition(":")[2])
        workers = [start("dask_worker", scheduler, "--no-nanny", "--nthreads", "1") for _ in range(2)]
        with Client(scheduler, timeout="120 s") as client:
            client.wait_for_workers(2, timeout=120)
            addresses = pids_of(client)
            yield Cluster(scheduler, client, {addresses[each.pid]: each for each in workers})
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.fixture
def on_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The flows of this process map their steps over it."""
    monkeypatch.setenv(VARIABLE, f"dask:{cluster.address}")
    return cluster


def stored(root: str) -> tuple[set[tuple[str, str]], list[pd.DataFrame]]:
    """The data files of the prices, each by folder and sha256, which stands in its name; and rows without their times.

    Those of the quarantine and of the announcements.
    """
    files = [path.relative_to(root) for path in Path(root).rglob("prices/**/*.parquet")]
    store = open_store(f"{root}/simulated-7")
    quarantine, events = QuarantineTable(store).read(), EventTable(store).history()
    timeless = [rows.drop(columns=rows.columns[rows.columns.str.endswith("_at")]) for rows in (quarantine, events)]
    return {(str(path.parent), path.stem.rpartition("-")[2]) for path in files}, timeless


def pids_of(client: Client) -> dict[int, str]:
    """The processes of the workers, and where they are reached."""
    found: Any = client.run(os.getpid)
    return {pid: worker for worker, pid in found.items()}


def listeners_of(pid: int) -> set[tuple[str, int]]:
    """The addresses at which a process, or one of its threads, waits for others."""
    found = psutil.Process(pid).net_connections("tcp")
    return {(each.laddr.ip, each.laddr.port) for each in found if each.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("chosen", ["", "dusk", "dask:", "dask:host", "dask:host:8786", "dask:http://host:8786"])
def test_what_is_no_runner_is_refused(chosen: str) -> None:
    with pytest.raises(ValueError, match="Expected dask, or dask: and the address of its scheduler"):
        address_of(chosen)


def test_a_runner_is_workers_of_this_machine_or_those_of_a_scheduler() -> None:
    assert address_of("dask") is None
    assert address_of("dask:tls://10.0.0.7:8786") == "tls://10.0.0.7:8786"


def test_a_cluster_of_this_machine_lets_nobody_else_in() -> None:
    own: Any = local_cluster()
    with own, Client(own) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        assert own.scheduler_address.startswith("tls://127.0.0.1:")
        pids = {os.getpid(), *pids_of(client)}
        listening = {address for pid in pids for address in listeners_of(pid)}
        assert len(listening) > 4
        assert {host for host, _ in listening} == {"127.0.0.1"}
        for _, port in listening:
            with suppress(httpx.TransportError):  # what speaks TLS
                assert not httpx.get(f"http://127.0.0.1:{port}/info/main/workers.html").is_success
        with pytest.raises((OSError, TypeError)):
            Client(own.scheduler_address, timeout="2 s")  # without the certificate


@pytest.mark.usefixtures("prefect_api")
def test_a_cluster_that_cannot_do_the_steps_is_refused_before_any(
    on_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = pytest.raises(ServerError)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}), refused as silent:
        dask_runner.require_able(on_cluster.client)
    assert "does not reach Prefect's server at http://127.0.0.1:" in str(silent.value)
    here = dask_runner.versions()
    monkeypatch.setattr(dask_runner, "versions", lambda: here | {"numpy": "1.0"})
    with refused as other:
        dask_runner.require_able(on_cluster.client)
    assert f"computes by numpy {here['numpy']}, and this process by numpy 1.0: the results would not" in str(
        other.value
    )


def test_an_ingest_whose_worker_is_killed_stores_the_same_as_one_process(
    prefect_api: Server, on_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prefect_api.own
    data = {"source": SPLIT, "as_of": LAST}
    has_ended = threading.Event()
    killer = threading.Thread(target=on_cluster.kill_one_at_work, args=[has_ended])
    killer.start()
    spread = ingest(DataSettings(**data, store=str(tmp_path / "spread")))
    has_ended.set()
    killer.join()
    assert len(pids_of(on_cluster.client)) == 1, "one was killed"

    run = run_named(f"ingest all of {SPLIT} {LAST}")
    names = task_run_names(run)
    assert len([name for name in names if name.startswith("fetch and validate")]) == 16
    assert any(
        "steps are done by 2 worker processes of the Dask cluster at tcp://127.0.0.1" in x for x in log_lines(run)
    )

    monkeypatch.delenv(VARIABLE)
    alone = ingest(DataSettings(**data, store=str(tmp_path / "alone")))
    assert spread.prices == alone.prices
    assert spread.counts == alone.counts
    (files, tables), (expected, others) = stored(f"{tmp_path}/spread"), stored(f"{tmp_path}/alone")
    assert files == expected
    assert min(map(len, [files, *tables])) > 40
    for rows, same in zip(tables, others, strict=True):
        pd.testing.assert_frame_equal(rows, same)


@pytest.mark.usefixtures("prefect_api", "on_cluster")
def test_a_backtest_over_the_cluster_gives_the_same_forecasts(
    volcast: Volcast, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["backtest", "--source", "simulated", "--tickers", "SBUX,T1", *DATES, *QUICK, "--refit", "quarterly"]
    spread = volcast(*command, "--store", "spread", "--out", "spread.parquet")
    assert spread.code == 0, spread.errors
    fits = [name for name in task_run_names(run_named("backtest SBUX, T1 2020-07-31")) if "backtest fit" in name]
    assert [name.split(",")[0] for name in fits] == [
        "backtest fit 1 of 3",
        "backtest fit 2 of 3",
        "backtest fit 3 of 3",
    ]

    monkeypatch.delenv(VARIABLE)
    alone = volcast(*command, "--store", "alone", "--out", "alone.parquet")
    assert alone.out.replace("alone", "spread") == spread.out
    assert Path("alone.parquet").read_bytes() == Path("spread.parquet").read_bytes()
