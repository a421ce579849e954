"""How the service of a store stands: server, worker, last and next runs, what is switched off, room on the disk.

`volcast status` asks it. Where no server is configured, and no `volcast up` keeps one here or has died, nobody wants a
service, and only the disk is looked at.
"""

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from volcast.flows.deploy import automations_of, deployments_of
from volcast.flows.server import Server, home, named_errors, watched_server
from volcast.flows.server_options import ServerError
from volcast.models.text import listed
from volcast.storage.locations import shown
from volcast.storage.records import Check, Finding
from volcast.storage.store import open_store
from volcast.tasks.run_tools import store_tag

ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED]
LEAST_FREE = 10**9  # bytes; a checkpoint, a forecast and a night of Prefect's database take a tenth of it
PATIENCE_SECONDS = 30.0  # for each answer of the server
MESSAGE = 70  # characters of a run's message
WAITING = {
    "Late": ("RUN_LATE", "has not started", "See volcast up and its worker.log"),
    "Suspended": ("APPROVAL_WANTED", "waits for a yes", "Open it in the UI and answer"),
}
NO_WORKER = Finding.alarm("WORKER_DOWN", "No worker is online: no run starts.", "See: volcast up")


@dataclass(frozen=True)
class Service:
    """What there is, a row for each scheduled deployment, and what an operator must know."""

    lines: tuple[str, ...] = ()
    runs: tuple[dict[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()


def service_of(root: str) -> Service:
    """The service of the store at `root`, as far as it can be seen from this folder."""
    store = open_store(root)
    found = _found(store.url)
    free = {place: shutil.disk_usage(place).free for place in (str(store.folder or ""), _nearest(home())) if place}
    room = ", ".join(f"{size / 1e9:,.1f} GB free for {place}" for place, size in free.items())
    findings = list(found.findings)
    if full := [place for place, size in free.items() if size < LEAST_FREE]:
        words = f"Less than 1 GB is free for {listed(full)}."
        findings.append(Finding.alarm("DISK_FULL", words, "Make room: volcast gc"))
    return Service((*found.lines, room), found.runs, tuple(findings))


def service_checks(root: str) -> list[Check]:
    """The service of the store at `root`, a check for each thing that is wanted of it; none where nobody wants it."""
    service = service_of(root)
    *found, room = service.lines
    if service.runs:
        coming = (f"{row['deployment']} {row['next run']}" for row in service.runs)
        found.append(f"next run of {', '.join(coming)}")
    checks = [Check(of="service", found=line) for line in found] + [Check(of="disk", found=room)]
    named = [Check(of=each.code, found=each.words, remedy=each.remedy * each.needs_person) for each in service.findings]
    return checks + named


def _found(root: str) -> Service:
    try:
        if server := watched_server():
            with named_errors(server):
                return _served(server, root)
    except (ServerError, ObjectNotFound) as error:
        return Service(findings=(Finding.alarm("SERVER_DOWN", shown(str(error)), "See server.log; then: volcast up"),))
    return Service(("no server is configured, and no volcast up runs in this folder",))


def _nearest(folder: Path) -> str:
    return str(next(each for each in (folder, *folder.parents) if each.is_dir()))


def _served(server: Server, root: str) -> Service:
    settings = server.client_settings() | {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: PATIENCE_SECONDS}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        deployments = deployments_of(client, tags=[store_tag(root)])
        if not deployments:
            return Service((f"{server.ui_url} answers, and has no deployments of this store",))
        workers, stopped = _workers(client, deployments)
        lines = (f"{server.ui_url} answers", f"workers online: {listed(workers) or 'none'}")
        scheduled = sorted((each for each in deployments if each.schedules), key=lambda each: each.name)
        runs = {each.name: (each, _last(client, each), _next(client, each)) for each in scheduled}
        off = [*stopped, *_switched_off(client, deployments, root)]
        findings = [
            *(() if workers else [NO_WORKER]),
            *(_failed(last) for _, last, _ in runs.values() if last and not _completed(last)),
            *_waiting(client, {each.id: _short(each) for each in deployments}, root),
            *([_is_off(off)] if off else ()),
        ]
        return Service(lines, tuple(_row(*each) for each in runs.values()), tuple(findings))


def _workers(client: SyncPrefectClient, deployments: list[DeploymentResponse]) -> tuple[list[str], list[str]]:
    """The workers that are online for the deployments, and the pools that are paused."""
    pools = sorted({each.work_pool_name for each in deployments if each.work_pool_name})
    workers = [worker for pool in pools for worker in client.read_workers_for_work_pool(pool)]
    paused = [f"the work pool {pool}" for pool in pools if client.read_work_pool(pool).is_paused]
    return [worker.name for worker in workers if worker.status == WorkerStatus.ONLINE], paused


def _switched_off(client: SyncPrefectClient, deployments: list[DeploymentResponse], root: str) -> Iterator[str]:
    for deployment in deployments:
        if deployment.paused:
            yield _short(deployment)
        yield from (f"{_short(deployment)}'s schedule {each.slug}" for each in deployment.schedules if not each.active)
    yield from (each.name for each in automations_of(client, store_tag(root)) if not each.enabled)


def _is_off(names: list[str]) -> Finding:
    return Finding.notice("SWITCHED_OFF", f"Off, by a person: {', '.join(names)}.", "On again in the UI.")


def _short(deployment: DeploymentResponse) -> str:
    """Its name in prefect.yaml; the other part is the same for all of a store."""
    return deployment.name.partition(".")[0]


def _last(client: SyncPrefectClient, deployment: DeploymentResponse) -> FlowRun | None:
    return _first(client, deployment, ENDED, FlowRunSort.END_TIME_DESC)


def _next(client: SyncPrefectClient, deployment: DeploymentResponse) -> FlowRun | None:
    return _first(client, deployment, [StateType.SCHEDULED], FlowRunSort.EXPECTED_START_TIME_ASC)


def _first(
    client: SyncPrefectClient, deployment: DeploymentResponse, states: list[StateType], sort: FlowRunSort
) -> FlowRun | None:
    found = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
        sort=sort,
        limit=1,
    )
    return found[0] if found else None


def _row(deployment: DeploymentResponse, last: FlowRun | None, coming: FlowRun | None) -> dict[str, str]:
    zone = ZoneInfo(getattr(deployment.schedules[0].schedule, "timezone", None) or "UTC")
    return {
        "deployment": _short(deployment),
        "last run": _time(last.end_time, zone) if last else "none",
        "ended as": _ended(last) if last else "",
        "next run": _time(coming.expected_start_time, zone) if coming else "none",
    }


def _time(moment: datetime | None, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M %Z}" if moment else ""


def _completed(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_completed()


def _ended(run: FlowRun) -> str:
    assert run.state is not None
    message = shown(textwrap.shorten(run.state.message or "", MESSAGE, placeholder=" …"))
    return f"{run.state.name}: {message}" if message else str(run.state.name)


def _failed(run: FlowRun) -> Finding:
    remedy = "See its log in the UI, mend the cause, and start the deployment again."
    return Finding.alarm("RUN_FAILED", f"The last run {run.name} ended as {_ended(run)}.", remedy)


def _waiting(client: SyncPrefectClient, deployments: Mapping[UUID | None, str], root: str) -> Iterator[Finding]:
    """Runs of the deployments of these names; before its start a run has a name that says nothing."""
    state = FlowRunFilterState(name=FlowRunFilterStateName(any_=list(WAITING)))
    own = FlowRunFilter(state=state, tags=FlowRunFilterTags(all_=[store_tag(root)]))
    for run in client.read_flow_runs(flow_run_filter=own):
        code, words, remedy = WAITING[str(run.state_name)]
        of = deployments.get(run.deployment_id, "no deployment that there is")
        yield Finding.alarm(code, f"The run {run.name} of {of} {words}.", f"{remedy}.")
