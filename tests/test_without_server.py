"""Commands that need no server: none is started or asked, and what they leave is what they leave on a server."""

import json
import shutil
import signal
import subprocess
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_run_logger, task, unmapped
from prefect.runtime import flow_run
from programs import Volcast
from runs import artifacts_of, run_named

from benchmarks.programs import ENDLESS, QUICK, VOLCAST, environment, options, processes_of
from volcast.flows.ingest import ingest
from volcast.flows.prefect_processes import without_server
from volcast.flows.server import Server
from volcast.tasks.fetch_prices import SourceBusy, may_pass
from volcast.tasks.preflight import takes_turns
from volcast.tasks.run_tools import complete, has_server
from volcast.tasks.settings import DataSettings

LAST = date(2018, 6, 28)  # a year and a half after the first vintage of pretrained weights
TESTED = ["--train-through", "2017-12-29", "--test-start", "2018-01-02", "--test-end", str(LAST)]
# what a process starts, and whom it asks
LOOK = """
import sys

def look(event, given):
    if event == "subprocess.Popen" or event == "socket.connect":
        with open("seen.txt", "a") as file:
            print(event, given[1], file=file)

sys.addaudithook(look)
"""


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two tickers, which has forecast nothing yet."""
    folder = tmp_path_factory.mktemp("ingested")
    with without_server():
        ingest(DataSettings(source="simulated", tickers=("SBUX", "T1"), store=str(folder / "data"), as_of=LAST))
    return folder


def test_a_forecast_and_a_backtest_start_no_server_and_ask_none_and_an_interrupt_is_said(
    ingested: Path, tmp_path: Path
) -> None:
    shutil.copytree(ingested, tmp_path, dirs_exist_ok=True)
    (tmp_path / "sitecustomize.py").write_text(LOOK)
    own = environment(tmp_path)
    own["PYTHONPATH"] = f"{tmp_path}:{own['PYTHONPATH']}"
    made = subprocess.run([*VOLCAST, "forecast"], cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert "UI        No server was up to keep this run; one that keeps the next: volcast up" in made.stdout
    assert "Task run 'forecast by volume' - forecast volume v1 by model volume v1" in made.stderr

    command = [*VOLCAST, "backtest", "--source", "simulated", *TESTED, "--out", "f.csv", *options(ENDLESS)]
    with subprocess.Popen(command, cwd=tmp_path, env=own, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        assert any(f"sessions up to {LAST}" in line for line in started.stderr)
        assert [*processes_of(tmp_path)] == [started.pid]
        started.send_signal(signal.SIGINT)
        assert "Interrupted. What was committed before is kept" in started.stderr.read()
    assert started.returncode == 130

    asked = (tmp_path / "seen.txt").read_text().splitlines()
    assert [line for line in asked if "'git', '-C'" not in line] == []
    assert not list(tmp_path.glob("**/*.db"))
    assert not (tmp_path / "home").exists()


def left(folder: Path) -> dict[str, Any]:
    """The versions of a store by their digests, and what lies in its reports; not by which run they were made."""
    manifests = [json.loads(path.read_text())["record"] for path in folder.glob("*/artifacts/**/*.json")]
    found = {f"{each['kind']} {each['name']} v{each['version']}": each["digest"] for each in manifests}
    assert {kind.split()[0] for kind in found} >= {"model", "scorecard", "forecast", "backtest"}
    return found | {path.name: path.read_bytes() for path in folder.glob("*/reports/**/latest*.csv")}


@pytest.mark.usefixtures("prefect_api")
def test_with_a_server_the_runs_are_kept_and_the_bits_are_the_same(
    ingested: Path, tmp_path: Path, volcast: Volcast
) -> None:
    found = []
    for server, seen in ((without_server, "volcast up"), (nullcontext, "/v2/runs")):
        store = shutil.copytree(ingested / "data", tmp_path / server.__name__)
        where = ("--source", "simulated", "--store", store)
        with server():
            commands = ("forecast", "--as-of", LAST), ("backtest", *TESTED, *options(QUICK), "--out", "f.csv")
            for name, *more in commands:
                said = volcast(name, *where, *more)
                assert said.out.rstrip().endswith(seen), said.errors
        found.append(left(store))
    assert found[0] == found[1]
    assert run_named(f"forecast volume SBUX, T1 {LAST}").state_name == "Completed"
    kept = run_named(f"backtest all of simulated {LAST}")
    assert list(artifacts_of(kept, str(store / "simulated-0"))) == ["backtest"]


@pytest.mark.usefixtures("no_server")
def test_a_step_is_tried_again_as_its_task_says_logs_under_its_name_and_leaves_nothing_for_a_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries: list[str] = []

    @task(task_run_name="ask {what}", retries=2, retry_delay_seconds=[0, 0], retry_condition_fn=may_pass)
    def ask(what: str, error: type[Exception], fails: int = 2) -> str:
        tries.append(what)
        get_run_logger().info("asked")
        if tries.count(what) <= fails:
            raise error(what)
        return what.upper()

    @flow(flow_run_name="part of {what}")
    def part(what: list[str]) -> str:
        answers = ask.map(what, unmapped(SourceBusy)).result()
        return complete(" ".join(answers), "all have answered", "answered")

    @flow(flow_run_name="whole")
    def whole() -> tuple[str, str | None, bool]:
        return part(["a", "b"]), flow_run.id, has_server()

    assert whole() == ("A B", None, False)
    assert tries == ["a", "a", "a", "b", "b", "b"]
    assert {getattr(line, "task_run_name", "") for line in caplog.records} >= {"ask a", "ask b"}
    with pytest.raises(SourceBusy):
        ask("c", SourceBusy, fails=3)
    with pytest.raises(KeyError):
        ask("d", KeyError)
    assert (tries.count("c"), tries.count("d")) == (3, 1)


def test_after_it_flows_ask_a_server_again(prefect_api: Server) -> None:
    @flow
    def known() -> str | None:
        return flow_run.id

    with without_server():
        assert (known(), has_server()) == (None, False)
    assert prefect_api.own
    assert (known() is not None, has_server()) == (True, True)


@pytest.mark.parametrize(
    ("source", "events", "expected"),
    [
        ("simulated", None, False),
        ("files:SBUX.csv", None, False),
        ("yahoo", "none", True),
        ("files:SBUX.csv", "yahoo", True),
    ],
)
def test_only_a_source_that_is_asked_in_turns_needs_a_server(
    source: str, events: str | None, expected: bool, sbux_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sbux_csv.parent)
    assert takes_turns(DataSettings(source=source, events=events)) == expected
