"""What volcast uses of others that they do not promise, and the faults that it works around: somebody must look when
either is gone. tests/test_sqlite_writes.py has the fault of Prefect's transactions, tests/test_yahoo.py yfinance's."""

import atexit
import inspect
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow, Task, flow
from prefect.context import TaskRunContext
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED, temporary_settings
from yfinance.data import YfData

from volcast.tasks.run_tools import attempt


@contextmanager
def noticed(said: str) -> Iterator[None]:
    """What fails in here fails as `said`."""
    try:
        yield
    except (AssertionError, AttributeError, TypeError) as error:
        pytest.fail(f"{said} ({type(error).__name__}: {error})")


def test_the_oldest_python_still_aborts_in_its_finalization() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    oldest = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    with noticed("every Python that volcast runs on ends without aborting: drop flows/process_exit.py"):
        assert oldest < (3, 14)


def test_python_has_what_a_process_is_left_by() -> None:
    with noticed("Python ends its threads otherwise: look at flows/process_exit.py"):
        assert not inspect.signature(threading._shutdown).parameters  # type: ignore[attr-defined]
    with noticed("Python runs its exit functions otherwise: look at flows/process_exit.py"):
        assert callable(atexit._run_exitfuncs)


def test_prefect_begins_a_transaction_on_sqlite_by_what_is_replaced() -> None:
    with noticed("Prefect begins transactions on SQLite otherwise: look at flows/prefect_processes.py"):
        parameters = inspect.signature(AioSqliteConfiguration.begin_transaction).parameters
        assert list(parameters) == ["self", "session", "with_for_update"]
        assert parameters["with_for_update"].default is False


def test_prefect_runs_no_flow_without_an_api_and_calls_flows_and_tasks_by_what_is_replaced() -> None:
    with noticed("Prefect calls flows and tasks otherwise: look at flows/prefect_processes.py"):
        for call in (Flow.__call__, Task.__call__, Task.map):
            parameters = list(inspect.signature(call).parameters.values())
            assert [str(parameters[0]).split(":")[0], str(parameters[1]).split(":")[0]] == ["self", "*args"]
        assert TaskRunContext.model_fields.keys() >= {"task", "task_run", "parameters"}
    with noticed("Prefect runs a flow without an API: drop without_server of flows/prefect_processes.py"):

        @flow
        def nothing() -> None:
            """It would be done at once."""

        settings: dict[Any, Any] = {PREFECT_SERVER_EPHEMERAL_ENABLED: False}
        with temporary_settings(settings, restore_defaults={PREFECT_API_URL}):
            assert "No Prefect API URL" in str(attempt(nothing))


def test_yfinance_has_a_cache_that_can_be_cleared() -> None:
    with noticed("yfinance caches its answers otherwise: look at tasks/sources/yahoo.py"):
        YfData.cache_get.cache_clear()
