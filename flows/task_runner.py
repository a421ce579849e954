"""Where the mapped steps of a flow run: in threads of its own process, or on the workers of a Dask cluster.

VOLCAST_RUNNER, or the option --runner, says it for every flow that maps a step:

    not set             threads of the flow's process
    dask                a worker process for each core of this machine, for as long as the flow runs
    dask:tls://host:1   the workers of the cluster whose scheduler is there

A mapped step takes and returns small plain values and leaves bars and forecasts in the store, so that any worker can do
it, and do it again where another one has died. A flow that maps nothing starts no cluster.
"""

import os
import re
from importlib.util import find_spec
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

VARIABLE = "VOLCAST_RUNNER"
PATTERN = re.compile(r"dask(?::((?:tcp|tls)://[^\s/]+:\d+))?")


class _ChosenRunner(ThreadPoolTaskRunner[Any]):
    def duplicate(self) -> Any:
        """The runner of a flow run that begins. Raises ValueError."""
        if not (chosen := os.environ.get(VARIABLE)):
            return super().duplicate()
        address = address_of(chosen)
        from volcast.flows.dask_runner import dask_runner  # a second, and an extra of the package

        return dask_runner(address)


def runner(*, at_once: int) -> Any:
    """What a flow names as its task runner; in its own process so many steps are done at once."""
    return _ChosenRunner(max_workers=at_once)  # Any: its type parameter is invariant


def address_of(chosen: str) -> str | None:
    """The scheduler's address in a choice of Dask; None for worker processes of this machine. Raises ValueError."""
    found = PATTERN.fullmatch(chosen)
    if found is None:
        raise ValueError(
            f"Expected dask, or dask: and the address of its scheduler, dask:tls://host:8786; {chosen} came."
        )
    if find_spec("prefect_dask") is None:
        raise ValueError("Dask is not installed. Install volcast with it: pip install 'volcast[dask]'.")
    return found[1]
