"""OpenTelemetry's own program before a command: each run is a trace, on a server and without one."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.programs import run_volcast

pytestmark = pytest.mark.service

INSTRUMENT = Path(sys.executable).with_name("opentelemetry-instrument")
CONSOLE = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
BLOCK = re.compile(r"^\{\n.*?^\}$", re.DOTALL | re.MULTILINE)


def traced(folder: Path, *arguments: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The span of the flow of a command, and those of its tasks."""
    program = [str(INSTRUMENT), sys.executable, "-m", "volcast"]
    done = run_volcast(folder, *arguments, "--tickers", "SBUX", "--as-of", "2004-06-29", program=program, **CONSOLE)
    assert done.returncode == 0, done.stderr
    *tasks, flow = [json.loads(block) for block in BLOCK.findall(done.stdout)]
    return flow, tasks


def test_a_run_is_one_trace_with_its_tasks_below_it_and_the_server_is_in_none(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="the extra otel installs it")
    if not INSTRUMENT.is_file():
        pytest.skip("opentelemetry-instrument is not installed beside this Python")
    for command, name, task in (
        ("ingest", "ingest SBUX 2004-06-29", "fetch and validate SBUX"),
        ("forecast", "forecast volume SBUX 2004-06-29", "forecast by volume"),
    ):
        flow, tasks = traced(tmp_path, command, "--source", "simulated")
        assert (flow["name"], flow["parent_id"]) == (name, None)
        assert task in [each["name"] for each in tasks]
        assert {each["parent_id"] for each in tasks} == {flow["context"]["span_id"]}
        assert {each["context"]["trace_id"] for each in tasks} == {flow["context"]["trace_id"]}
    assert not BLOCK.findall((tmp_path / "home" / "server.log").read_text())
