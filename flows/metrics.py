"""What Prometheus may watch: how each store of a server stood when `monitor` looked last, and how runs have ended.

`volcast up` keeps them in a file of its folder, METRICS, which its server sends for /metrics (flows/server_access.py):
a scrape asks neither a store nor Prefect.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterParentTaskRunId,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.types import DateTime
from prometheus_client import CollectorRegistry, Counter, disable_created_metrics, write_to_textfile
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from volcast.flows.deploy import deployments_of
from volcast.flows.server_access import METRICS
from volcast.storage.errors import StoreError
from volcast.storage.locations import shown
from volcast.tasks.reports.metrics import gauges
from volcast.tasks.run_tools import TAG
from volcast.tasks.settings import DataSettings

RUNS = ("volcast_runs", "Runs of deployments that have ended", ("store", "deployment", "outcome"))
OUTCOMES = ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut")  # are 0 from the start, so that none is missed
OVERLAP = timedelta(minutes=10)  # by which the server may record the end of a run later than it was
PAGE = 200  # the most runs that the API gives at once

disable_created_metrics()  # a second series for each count, of when it began


class Metrics:
    """The metrics of a server, with the runs that have ended since this was made."""

    def __init__(self, client: SyncPrefectClient, folder: Path) -> None:
        self._client, self._path, self._registry = client, folder / METRICS, CollectorRegistry()
        self._path.unlink(missing_ok=True)  # what is left of an earlier server
        self._runs = Counter(*RUNS, registry=self._registry)
        self._stores = _Stores()
        self._registry.register(self._stores)
        self._began = self._looked = datetime.now(UTC)
        self._counted: set[UUID] = set()
        self._has_failed = False

    def refresh(self) -> str:
        """Write the file anew; gives why that cannot be done, once until it can again, and else an empty text."""
        try:
            self._refresh()
        except (httpx.HTTPError, StoreError, OSError, ValueError) as error:  # the last: parameters of another release
            is_known, self._has_failed = self._has_failed, True
            return "" if is_known else f"The metrics stay as they were: {shown(str(error))}"
        self._has_failed = False
        return ""

    def _refresh(self) -> None:
        found = deployments_of(self._client, tags=[TAG])
        self._count({each.id: each.name for each in found})
        try:
            self._stores.metrics = gauges(filter(None, map(_root_of, found)))
        finally:
            write_to_textfile(str(self._path), self._registry)  # runs are counted while a store is away, too

    def _count(self, deployments: Mapping[UUID | None, str]) -> None:
        """Count the runs that have ended since the last time, of deployments with these names."""
        for name in deployments.values():
            for outcome in OUTCOMES:
                self._run(name, outcome)
        now, ended = datetime.now(UTC), set[UUID]()
        for run in self._ended(self._looked - OVERLAP):
            ended.add(run.id)
            is_new = run.id not in self._counted and run.end_time is not None and run.end_time >= self._began
            self._counted.add(run.id)
            if is_new and run.deployment_id in deployments:
                self._run(deployments[run.deployment_id], str(run.state_name)).inc()
        self._counted, self._looked = ended, now

    def _run(self, deployment: str, outcome: str) -> Counter:
        name, _, store = deployment.partition(".")
        return self._runs.labels(store, name, outcome)

    def _ended(self, after: datetime) -> Iterator[FlowRun]:
        wanted = FlowRunFilter(
            tags=FlowRunFilterTags(all_=[TAG]),
            end_time=FlowRunFilterEndTime(after_=DateTime.instance(after)),
            parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=True),
        )
        for offset in count(0, PAGE):
            sort = FlowRunSort.END_TIME_DESC
            page = self._client.read_flow_runs(flow_run_filter=wanted, sort=sort, limit=PAGE, offset=offset)
            yield from page
            if len(page) < PAGE:
                return


class _Stores(Collector):
    """The gauges of all stores, as they were read last."""

    metrics: Sequence[Metric] = ()

    def collect(self) -> Sequence[Metric]:
        return self.metrics


def _root_of(deployment: DeploymentResponse) -> str | None:
    """The root of the store that a deployment works on, which each `monitor` names."""
    if not deployment.name.startswith("monitor.") or "data" not in deployment.parameters:
        return None
    return DataSettings.model_validate(deployment.parameters["data"]).root
