"""The program as a person starts it: processes of their own, a server of their own, a worker."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import yahoo_frame

VOLCAST = [sys.executable, "-m", "flows.cli"]
QUICK = [option for each in ("steps=20", "members=1", "hidden_size=8") for option in ("--set", each)]
READY_SECONDS, RUN_SECONDS = 150, 240


def environment(folder: Path) -> dict[str, str]:
    """Of a person who has configured nothing, with the server's home in the folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "VOLCAST_"))}
    return inherited | {"VOLCAST_HOME": str(folder / "home"), "PREFECT_HOME": str(folder / "client")}


def run_volcast(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command, env = [*VOLCAST, *arguments], environment(folder)
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines and ids of the processes whose environment names the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"VOLCAST_HOME={folder / 'home'}".encode() in (process / "environ").read_bytes():
                found.append(f"{process.name} {(process / 'cmdline').read_text()}")
        except OSError:
            continue  # it ended while we looked, or is not ours
    return found


def test_run_starts_a_server_runs_the_flows_stores_their_states_and_stops_it(tmp_path: Path) -> None:
    command = ["run", "--source", "simulated", "--tickers", "SBUX", "--as-of", "2004-06-28", "--out", "f.csv", *QUICK]
    done = run_volcast(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "Simulated data" in done.stdout
    assert "Promoted: the first version" in done.stdout
    assert "UI" in done.stdout
    assert "Traceback" not in done.stderr
    assert len((tmp_path / "f.csv").read_text().splitlines()) == 11  # 10 sessions ahead
    assert processes_of(tmp_path) == []

    with sqlite3.connect(tmp_path / "home" / "prefect.db") as database:
        flows = dict(database.execute("select name, state_type from flow_run").fetchall())
        states = {state for (state,) in database.execute("select distinct state_type from task_run").fetchall()}
        names = {name for (name,) in database.execute("select name from task_run").fetchall()}
    database.close()
    assert set(flows.values()) == {"COMPLETED"}
    assert {name.split()[0] for name in flows} == {"pipeline", "ingest", "retrain", "forecast", "report"}
    assert states == {"COMPLETED"}
    assert {"fetch SBUX", "evaluate model volume v1"} <= names


def test_an_interrupt_ends_the_server_and_the_next_run_goes_on(tmp_path: Path) -> None:
    yahoo_frame().to_csv(tmp_path / "SBUX.csv", index=False)
    command = ["run", "--recipe", "tutorial", "--source", "files:SBUX.csv"]
    started = subprocess.Popen(
        [*VOLCAST, *command], cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    )
    assert started.stderr is not None
    with started:
        for line in started.stderr:
            if "Epoch: 100," in line:
                started.send_signal(signal.SIGINT)
                break
        rest = started.stderr.read()
    assert started.returncode == 130
    assert "Interrupted. What was committed before is kept" in rest
    assert processes_of(tmp_path) == []
    again = run_volcast(tmp_path, *command)
    assert again.returncode == 0, again.stderr
    assert "nothing new, still prices v0" in again.stderr


@contextmanager
def kept_up(folder: Path, **extra: str) -> Iterator[str]:
    """`volcast up` in the folder; yields the API's address once the worker and the deployments are there."""
    with (folder / "up.log").open("w") as log:
        env = environment(folder) | extra
        process = subprocess.Popen([*VOLCAST, "up", "--port", "0"], cwd=folder, env=env, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while "Prefect's UI" not in (folder / "up.log").read_text():
            assert process.poll() is None, (folder / "up.log").read_text()
            assert time.monotonic() < deadline, "volcast up was not ready in time"
            time.sleep(0.5)
        yield json.loads((folder / "home" / "server.json").read_text())["api_url"]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0


def wait_for_end(api: httpx.Client, flow_run_id: str) -> dict[str, str]:
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        state = api.get(f"/flow_runs/{flow_run_id}").json()["state"]
        if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return state
        time.sleep(1)
    pytest.fail("the worker did not finish the run in time")


def test_up_keeps_a_server_a_worker_and_scheduled_deployments_until_it_is_interrupted(tmp_path: Path) -> None:
    with kept_up(tmp_path) as api_url, httpx.Client(base_url=api_url, trust_env=False, timeout=30) as api:
        deployments = {item["name"]: item for item in api.post("/deployments/filter", json={}).json()}
        by_hand = {"pipeline", "ingest", "forecast", "rollback", "promote"}
        assert set(deployments) == {"daily", "retrain", "verify", *by_hand}

        scheduled: list[str] = []
        while not scheduled:  # the scheduler looks once a minute; the test's time-out is the deadline
            runs = api.post(
                "/flow_runs/filter", json={"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
            ).json()
            daily = [run for run in runs if run["deployment_id"] == deployments["daily"]["id"]]
            scheduled = [run["expected_start_time"] for run in daily]
            time.sleep(1)
        assert all(re.search(r"T(21|22):30:00", start) for start in scheduled)  # 17:30 in New York

        made = api.post(
            f"/deployments/{deployments['pipeline']['id']}/create_flow_run",
            json={"state": {"type": "SCHEDULED"}, "parameters": deployments["pipeline"]["parameters"]},
        ).json()
        state = wait_for_end(api, made["id"])
        assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state
        assert (tmp_path / "data" / "simulated-0" / "aliases" / "model" / "volume" / "champion").is_dir()

        used = run_volcast(tmp_path, "forecast")
        assert used.returncode == 0, used.stderr
        assert api_url.removesuffix("/api") in used.stdout  # it used the server that is up
    assert processes_of(tmp_path) == []
    assert not (tmp_path / "home" / "server.json").exists()
