"""The program as a person starts it: a command that starts a server, runs flows on it, and ends it."""

import signal
import sqlite3
import subprocess
from pathlib import Path

from conftest import yahoo_frame
from programs import END_SECONDS, QUICK, VOLCAST, environment, processes_of, run_volcast, wait_until

OPTIONS = [option for name, value in QUICK.items() for option in ("--set", f"{name}={value}")]


def test_run_starts_a_server_runs_the_flows_stores_their_states_and_stops_it(tmp_path: Path) -> None:
    command = ["run", "--source", "simulated", "--tickers", "SBUX", "--as-of", "2004-06-28", "--out", "f.csv", *OPTIONS]
    done = run_volcast(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "Simulated data" in done.stdout
    assert "Training  Promoted volume v1: MASE " in done.stdout
    assert "UI" in done.stdout
    assert "Traceback" not in done.stderr
    assert len((tmp_path / "f.csv").read_text().splitlines()) == 11  # 10 sessions ahead
    assert processes_of(tmp_path) == {}

    with sqlite3.connect(tmp_path / "home" / "prefect.db") as database:
        flows = dict(database.execute("select name, state_type from flow_run").fetchall())
        states = {state for (state,) in database.execute("select distinct state_type from task_run").fetchall()}
        names = {name for (name,) in database.execute("select name from task_run").fetchall()}
    database.close()
    assert set(flows.values()) == {"COMPLETED"}
    assert {name.split()[0] for name in flows} == {"pipeline", "ingest", "retrain", "forecast", "report"}
    assert states == {"COMPLETED"}
    assert {"fetch and validate SBUX", "evaluate model volume v1"} <= names


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
    assert processes_of(tmp_path) == {}
    again = run_volcast(tmp_path, *command)
    assert again.returncode == 0, again.stderr
    assert "nothing new, still prices v0" in again.stderr


def test_a_command_that_is_killed_takes_its_server_along_and_its_runs_end_as_crashed(tmp_path: Path) -> None:
    command = [*VOLCAST, "run", "--tickers", "SBUX", "--as-of", "2004-06-28", "--set", "steps=1000000"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stderr is not None
        assert any("Training:" in line for line in started.stderr)
        started.kill()
    wait_until(lambda: not processes_of(tmp_path), END_SECONDS, what="the server has ended")
    again = run_volcast(tmp_path, "ingest", "--tickers", "SBUX", "--as-of", "2004-06-28")
    assert again.returncode == 0, again.stderr
    with sqlite3.connect(tmp_path / "home" / "prefect.db") as database:
        states = database.execute("select name, state_type from flow_run order by created").fetchall()
    database.close()
    assert [(name.split()[0], state) for name, state in states] == [
        ("pipeline", "CRASHED"),
        ("ingest", "COMPLETED"),
        ("retrain", "CRASHED"),
        ("ingest", "COMPLETED"),
    ]
