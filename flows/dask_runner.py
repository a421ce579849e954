"""The mapped steps of a flow on the workers of a Dask cluster, by prefect-dask.

A cluster of this machine is made of worker processes that nobody else reaches: it listens on 127.0.0.1, and lets in
who has the certificate that is made for it alone and lies in no file. Of a cluster that is there Dask's own
configuration says by which certificates it is reached.

Before the first step each worker is asked by what it computes, and whether it reaches Prefect's server: results are
the same bit for bit only where all compute by the same versions, and who cannot reach the server cannot say how a step
went.
"""

import logging
import os
import platform
from collections.abc import Awaitable
from typing import Any, cast

import dask.config
import httpx
from distributed import Client, LocalCluster
from prefect import get_run_logger
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL
from prefect_dask.client import PrefectDaskClient
from prefect_dask.task_runners import DaskTaskRunner

from volcast.flows.prefect_processes import filter_console
from volcast.flows.server_options import LOOPBACK, ServerError
from volcast.models.text import counted, listed
from volcast.tasks.run_tools import provenance

REACH_SECONDS = 15
logging.getLogger("distributed").setLevel(logging.WARNING)  # else each worker that comes and goes is a line


class DaskRunner(DaskTaskRunner):
    """prefect-dask's, which connects, or starts a cluster, when the first step is mapped."""

    @property
    def client(self) -> PrefectDaskClient:
        """Connected to workers that can do the steps. Raises ServerError, OSError."""
        if self._client is None:
            self.logger.setLevel(logging.WARNING)  # it names a dashboard, whether there is one or not
            workers = require_able(super().client)
            if self.address is None and not os.environ.get("VOLCAST_DEBUG"):
                super().client.run(_filter_lines)
            where = f"the Dask cluster at {self.address}" if self.address else "this machine"
            get_run_logger().info(
                "steps are done by %s of %s", counted(workers, "worker process", "worker processes"), where
            )
        return super().client

    def __exit__(self, *error: Any) -> None:
        """Leave, and end a cluster of its own, when the workers have sent how their steps went, and their lines."""
        if self._client is not None:
            self._client.run(_send_all, on_error="ignore")
            logging.getLogger("distributed.nanny").setLevel(logging.ERROR)  # it may end workers that are slow to go
        super().__exit__(*error)


def dask_runner(address: str | None) -> DaskRunner:
    """Of the cluster whose scheduler is there, or of worker processes of this machine."""
    return DaskRunner(address=address) if address else DaskRunner(cluster_class=local_cluster)


def local_cluster() -> LocalCluster:
    """A worker process a core; beside their own connections scheduler and workers answer no request."""
    routes = ("distributed.scheduler.http.routes", "distributed.worker.http.routes")  # logs and stacks, for anybody
    with dask.config.set({key: [] for key in routes}):
        return LocalCluster(
            host=LOOPBACK,
            protocol="tls://",
            security=True,  # certificates for this cluster alone, in memory
            threads_per_worker=1,
            dashboard_address=cast(str, None),  # which it takes for none at all
            env={"TTY_COMPATIBLE": "0"},  # the terminal is the command's: no bar of a worker's progress
        )


def require_able(client: Client) -> int:
    """How many workers there are. Raises ServerError where there is none, or one that cannot do what is asked."""
    own, url = versions(), PREFECT_API_URL.value()
    found: Any = client.run(_look, url)
    if not found:
        raise ServerError("The Dask cluster has no worker. Start some: dask worker …, with the scheduler's address.")
    for worker, (its, fault) in found.items():
        if other := sorted(name for name in own.keys() | its.keys() if its.get(name) != own.get(name)):
            there, here = (listed([f"{name} {each.get(name)}" for name in other]) for each in (its, own))
            raise ServerError(
                f"The Dask worker {worker} computes by {there}, and this process by {here}: the results would not be "
                "the same. Install the same versions."
            )
        if fault:
            raise ServerError(
                f"The Dask worker {worker} does not reach Prefect's server at {url} ({fault}). Name the server as the "
                "workers can reach it: PREFECT_API_URL=http://host:4200/api, of volcast up --host … --known-as host."
            )
    return len(found)


def _look(url: str) -> tuple[dict[str, str], str]:
    """On a worker: by what it computes, and why it does not reach the server; empty where it does."""
    try:
        answer = httpx.get(f"{url}/health", timeout=REACH_SECONDS)
    except httpx.HTTPError as error:
        return versions(), f"{type(error).__name__}: {error}".rstrip(": ")
    return versions(), "" if answer.is_success else f"{answer.status_code} {answer.text.strip()[:200]}"


def versions() -> dict[str, str]:
    """What the numbers of a process depend on, but for its processor."""
    found = provenance(source="")
    return {"volcast": found.code_version, "Python": platform.python_version(), **found.packages}


async def _send_all() -> None:
    """On a worker: return when Prefect's server has what its steps have said so far."""
    for service in (EventsWorker, APILogWorker):
        await cast(Awaitable[Any], service.drain_all())


def _filter_lines() -> None:
    """On a worker of this machine, whose lines come to the command's terminal: as those of the command."""
    import prefect.main  # noqa: F401 (which sets up the handlers that are filtered)

    filter_console()
