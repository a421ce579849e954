"""Works around a pipe; drop when a run outlives its worker without this (tests/test_crashed_runs.py kills one).

A flow run's process is Prefect's engine, with its output in the worker's log by itself. By default the worker passes
the output on through a pipe, and when the worker is killed, the next line that is printed ends the run.
"""

import os
import runpy
import sys
from pathlib import Path

from volcast.flows.prefect_processes import FOLDER
from volcast.flows.process_exit import without_finalization


def main() -> None:
    """Run the flow run that the environment names."""
    if folder := os.environ.get(FOLDER):
        with (Path(folder) / "worker.log").open("ab") as log:
            os.dup2(log.fileno(), sys.stdout.fileno())
            os.dup2(log.fileno(), sys.stderr.fileno())
    runpy.run_module("prefect.engine", run_name="__main__")


if __name__ == "__main__":
    with without_finalization():
        main()
