"""The program as a person starts it: a command that starts a server, runs flows on it, and ends it."""

import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.programs import ENDLESS, QUICK, VOLCAST, environment, options, processes_of, run_volcast, wait_until

pytestmark = pytest.mark.service

RUN = ["run", "--source", "simulated", "--tickers", "SBUX", "--as-of", "2004-06-28", "--out", "f.csv"]


def test_an_interrupt_ends_the_server_and_the_next_run_starts_one_goes_on_stores_all_states_and_stops_it(
    tmp_path: Path,
) -> None:
    command = [*VOLCAST, *RUN, *options(ENDLESS)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stderr is not None
        assert any("Training:" in line for line in started.stderr)
        started.send_signal(signal.SIGINT)
        rest = started.stderr.read()
    assert started.returncode == 130
    assert "Interrupted. What was committed before is kept" in rest
    assert processes_of(tmp_path) == {}

    done = run_volcast(tmp_path, *RUN, "--point", "ale", *options(QUICK))
    assert done.returncode == 0, done.stderr
    assert "nothing new, still prices v0" in done.stderr
    assert "Simulated data" in done.stdout
    assert "Training  Kept volume v1: MASE " in done.stdout  # so few steps do not beat har
    assert "UI" in done.stdout
    assert "Traceback" not in done.stderr
    assert "Quantile 1/3 (ale) and 80 % interval, million shares" in done.stdout
    written = pd.read_csv(tmp_path / "f.csv")
    assert written["point"].tolist() == ["ale"] * 10  # sessions ahead
    assert all(written["volcast"] < written["volcast-median"])
    for name, sessions in {"forecast": 10, "sums": 3}.items():
        (reported,) = tmp_path.glob(f"data/simulated-0/reports/volume/v1/{name}.csv")
        assert pd.read_csv(reported)["point"].tolist() == ["ale"] * sessions
    assert processes_of(tmp_path) == {}

    newest = "select id, name, state_type from flow_run order by created desc limit 5"
    with closing(sqlite3.connect(tmp_path / "home" / "prefect.db")) as database:
        flows = {name.split()[0]: state for _, name, state in database.execute(newest).fetchall()}
        of_newest = f"from task_run where flow_run_id in (select id from ({newest}))"
        states = {state for (state,) in database.execute(f"select distinct state_type {of_newest}").fetchall()}
        names = {name for (name,) in database.execute(f"select name {of_newest}").fetchall()}
    assert flows == dict.fromkeys(["pipeline", "ingest", "retrain", "forecast", "report"], "COMPLETED")
    assert states == {"COMPLETED"}
    assert {"fetch and validate SBUX", "evaluate model volume v1"} <= names


@pytest.mark.crash
def test_a_command_that_is_killed_takes_its_server_along_and_its_runs_end_as_crashed(tmp_path: Path) -> None:
    command = [*VOLCAST, "run", "--tickers", "SBUX", "--as-of", "2004-06-28", "--set", "steps=1000000"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stderr is not None
        assert any("Training:" in line for line in started.stderr)
        started.kill()
    wait_until(lambda: not processes_of(tmp_path), what="the server has ended")
    again = run_volcast(tmp_path, "ingest", "--tickers", "SBUX", "--as-of", "2004-06-28")
    assert again.returncode == 0, again.stderr
    with closing(sqlite3.connect(tmp_path / "home" / "prefect.db")) as database:
        states = database.execute("select name, state_type from flow_run order by created").fetchall()
    assert [(name.split()[0], state) for name, state in states] == [
        ("pipeline", "CRASHED"),
        ("ingest", "COMPLETED"),
        ("retrain", "CRASHED"),
        ("ingest", "COMPLETED"),
    ]
