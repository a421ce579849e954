"""Keep a server, a worker and the deployments of prefect.yaml up.

1. a server: the configured one, or volcast's own
2. a worker, which runs what is scheduled or started by hand, and at the same time the deployments and automations
3. until Ctrl-C: a worker that dies is started again, after a wait that grows while it keeps dying; runs that died
   without a word end as Crashed, and those whose Cancel nobody follows as Cancelled; the alerts of the server are sent
   (flows/alerts.py), and its metrics written (flows/metrics.py)
4. then worker, flow runs and server are ended, in that order; so they are when the server dies
"""

import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from rich.console import Console
from rich.markup import escape

from volcast.flows.alerts import URLS, WEBHOOK, Alerting, Severity, channels_of, tell
from volcast.flows.deploy import Deployed, Served, deploy
from volcast.flows.metrics import Metrics
from volcast.flows.prefect_processes import (
    CANCELLED,
    LOST,
    WORKER,
    Process,
    cancel,
    end,
    end_all,
    find_cancelled,
    find_orphans,
    processes_in,
    settle,
    start,
    wait_while_alive,
)
from volcast.flows.server import (
    ANSWER_SECONDS,
    Server,
    alone_in,
    announce,
    announcement,
    configured_server,
    home,
    named_errors,
    own_server,
    prefect_server,
    require_answer,
    server_that_is_up,
    withdraw,
)
from volcast.flows.server_access import LINK_SECONDS
from volcast.flows.server_options import ServerError, ServerOptions
from volcast.models.text import counted, listed
from volcast.storage.store import open_store
from volcast.tasks.run_tools import store_label

POOL = "volcast"
LINK_WORDS = f"The link logs a browser in, once, in the next {LINK_SECONDS // 60} minutes"
NOTHING_UP = "No Prefect server is up. Start one with: volcast up, or set PREFECT_API_URL."
LONGEST_WAIT = 60  # seconds before it is started again: 1, 2, 4 … up to this
MANY_DEATHS = 5  # in a row, after half a minute of waits: then a person is told
LONG_LIFE = 120  # seconds; the death of a worker that lived so long counts as the first
# What a run of the pool is: one command, and no variable by which a deployment or a run could change it, or its
# environment. Prefect lays a run's `env` over an `env` of the template even where no variable is named.
TEMPLATE: dict[str, Any] = {
    "job_configuration": {"command": shlex.join([sys.executable, "-m", "volcast.flows.flow_process"])},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
QUERY_SECONDS = 5  # between two looks of the worker for runs to start; Prefect's own 10 are long for who waits
LOOK_SECONDS = 10  # between two looks for lost runs; both must find a run lost, so that a worker may report it first
COLLECT_SECONDS = 3  # between two looks for alerts
METRICS_SECONDS = 20  # between two times at which they are written
SILENT_SECONDS = 300  # in which the server gives no good answer; then a person is told
NOTHING_RUNS = "Nothing is ingested, forecast or watched until it is started again."
ONE_TRY: dict[Any, Any] = {PREFECT_CLIENT_MAX_RETRIES: 0}  # the next look is the second


def stay_up(console: Console, served: Served, options: ServerOptions, began: float) -> None:
    """Everything up until the process is interrupted. Raises ServerError."""
    label = store_label(open_store(served.root, writable=True).url)
    channels = channels_of(os.environ, label)  # before a server is started for what cannot be
    own_alerts, after_death = OwnAlerts(console, label), announcement() is not None
    with (
        Alerting(home(), console, channels) as alerting,
        _server(options) as server,
        own_alerts.on_the_end(),
        named_errors(server),
        temporary_settings(server.client_settings()),
        get_client(sync_client=True) as client,
    ):
        console.print(f"Server: {server.api_url} answers, on {_where(server, options)}", markup=False)
        metrics = Metrics(client, home())
        lost = find_orphans(client)
        _settle(console, client, lost)
        own_alerts.tell_restart(lost, after_death)
        environment = _environment(server, served)
        _make_pool(client)
        console.print("Starting a worker, and bringing the deployments to what prefect.yaml says …")
        with _worker(client, environment) as worker:
            deployed = deploy(served, environment | _channels())
            console.print(f"Deployments: {_deployments(client, deployed.tag)}; {_changed(deployed)}")
            worker.wait_until_online(client)
            console.print(f"Worker: {WORKER} is online, in the work pool {POOL}")
            console.print(f"{served.words}\nLogs in {home()}. Ctrl-C ends it all.", markup=False)
            console.print(f"Status, forecasts and scorecards: {server.ui_url}/artifacts")  # not in the UI's own menu
            with suppress(KeyboardInterrupt):
                seconds = time.monotonic() - began
                _show_way_in(console, server, f"Ready after {seconds:.0f} s. Prefect's UI: ")
                _watch(client, server, worker, alerting, own_alerts, metrics)
            console.print("Ending worker, flow runs and server …")


class OwnAlerts:
    """What `volcast up` tells itself of a store, as the server's automations cannot, or may not be there to."""

    def __init__(self, console: Console, label: str) -> None:
        self.console, self._label = console, label
        self._answered, self._is_silent = time.monotonic(), False

    def tell(self, code: str, what: str, body: str, severity: Severity = "critical") -> None:
        """Put it on the way to the channels."""
        tell(code, what, body, self._label, severity=severity, folder=home())

    @contextmanager
    def on_the_end(self) -> Iterator[None]:
        """Tell that `volcast up` has ended: of a death, which `volcast status` sees as well, or by will."""
        try:
            yield
        except KeyboardInterrupt:
            self._tell_stopped()
            raise
        except Exception as error:
            self.tell("up-died", "volcast up has died", f"{error}\n{NOTHING_RUNS}")
            raise
        self._tell_stopped()

    def _tell_stopped(self) -> None:
        withdraw()
        self.tell("up-stopped", "a person, or the system, has ended volcast up", NOTHING_RUNS, "info")

    def tell_restart(self, lost: Sequence[FlowRun], after_death: bool) -> None:
        """Tell of what the `volcast up` before this one could not: its own death, and that of its runs."""
        if lost or after_death:
            runs = f"Runs that were found dead, and are Crashed: {listed([run.name for run in lost], 10) or 'none'}."
            body = f"The volcast up before this one died, or its server did. {runs}"
            self.tell("up-again", "volcast up is up again after a death", body, "warning")

    def note_answer(self, error: Exception | None) -> None:
        """Tell, once, of a server that has given no good answer for long, and on the console each time."""
        if error is None:
            self._answered, self._is_silent = time.monotonic(), False
            return
        known = f"Prefect's server answers not as it should: {error}"
        self.console.print(f"[bold red]{escape(known)}[/]")
        if not self._is_silent and time.monotonic() > self._answered + SILENT_SECONDS:
            self._is_silent = True
            self.tell("server-silent", "Prefect's server does not answer", f"For {SILENT_SECONDS} s: {known}")


def show_ui(console: Console) -> None:
    """A link to the UI of the server that is up, which logs a browser in. Raises ServerError."""
    server = server_that_is_up()
    if server is None:
        raise ServerError(NOTHING_UP)
    console.print(f"{server.access.link()}\n{LINK_WORDS}." if server.access else server.ui_url, markup=False)


def deploy_to(console: Console, served: Served, *, pool: str, image: str | None) -> None:
    """Apply prefect.yaml to the configured server, or the one that `volcast up` keeps. Raises ServerError."""
    with prefect_server() as server:
        if server.own:
            raise ServerError(NOTHING_UP)
        if pool == POOL:
            if image:
                raise ServerError(f"--image is for a pool of containers, and {POOL} is none. Name one by --pool.")
            with get_client(sync_client=True) as client:
                _make_pool(client)
        chosen = {"VOLCAST_POOL": pool} | ({"VOLCAST_IMAGE": image} if image else {})
        deployed = deploy(served, _environment(server, served) | _channels() | chosen)
        console.print(f"{served.words}\n{deployed.words}", markup=False)


def send_alerts(console: Console) -> None:
    """Send the alerts of the configured server until the process is interrupted. Raises ServerError."""
    server = configured_server()
    if server is None:
        raise ServerError("volcast up sends the alerts of its own server. For another one set PREFECT_API_URL.")
    require_answer(server)
    with (
        alone_in(home()),
        temporary_settings(server.client_settings()),
        get_client(sync_client=True) as client,
        Alerting(home(), console) as alerting,
        suppress(KeyboardInterrupt),
    ):
        console.print(f"Alerts of {server.api_url} are sent until Ctrl-C.", markup=False)
        while True:
            alerting.collect(client)
            time.sleep(COLLECT_SECONDS)


class Worker:
    """A process worker of this machine; it runs from when this is made until `end`."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment, self._log, self._deaths = environment, log, 0
        self._start()

    def wait_until_online(self, client: SyncPrefectClient) -> None:
        """Wait until the server has heard from it. Raises ServerError."""
        is_online = wait_while_alive(
            lambda: self._process.poll() is None,
            lambda: any(
                worker.name == WORKER and worker.last_heartbeat_time and worker.last_heartbeat_time > self._began
                for worker in client.read_workers_for_work_pool(POOL)
            ),
            what=f"the worker to come online; its log: {self._log}",
        )
        if not is_online:
            raise ServerError(f"The worker ended with {self._process.returncode}. Its log: {self._log}")

    def tend(self, console: Console, own_alerts: OwnAlerts) -> None:
        """Start it again if it has died and its wait is over; loudly, and if it keeps dying, to the webhook."""
        if not self.has_died:
            return
        code = self._process.returncode
        if self._restart_at is None:
            self._deaths = self._deaths + 1 if self._lived < LONG_LIFE else 1
            wait = min(2 ** (self._deaths - 1), LONGEST_WAIT)
            self._restart_at = time.monotonic() + wait
            console.print(f"[bold red]The worker ended with {code}.[/] It is started again in {wait} s; runs that it")
            console.print(f"had started go on. Its log: {self._log}")
            if self._deaths == MANY_DEATHS:
                body = f"It ended {MANY_DEATHS} times in a row, with {code} at last. No run starts while it is down."
                own_alerts.tell("worker-dying", "the worker dies again and again", f"{body} Its log: {self._log}")
        elif time.monotonic() >= self._restart_at:
            end(self._process)
            self._start()
            console.print(f"[bold]The worker is started again[/], for the {self._deaths}. time.")

    @property
    def has_died(self) -> bool:
        """Whether its process has ended."""
        return self._process.poll() is not None

    def end(self) -> None:
        """End it, and with it the flow runs that it knows of."""
        end(self._process)

    def _start(self) -> None:
        arguments = ["worker", "start", "--pool", POOL, "--type", "process", "--name", WORKER]
        self._process = start(arguments, self._environment, self._log)
        self._began, self._restart_at = datetime.now(UTC), None

    @property
    def _lived(self) -> float:
        return (datetime.now(UTC) - self._began).total_seconds()


@contextmanager
def _server(options: ServerOptions) -> Iterator[Server]:
    configured = configured_server()
    if configured and options != ServerOptions(port=options.port, database=None, auth=None):
        raise ServerError(
            f"PREFECT_API_URL is set to {configured.api_url}, so that no server is started, which --host, --database, "
            "--known-as and VOLCAST_AUTH are for. Unset the one or the others."
        )
    if configured:
        require_answer(configured)
        with alone_in(home()):
            yield configured
        return
    with own_server(options) as server:
        announce(server)
        yield server


@contextmanager
def _worker(client: SyncPrefectClient, environment: Mapping[str, str]) -> Iterator[Worker]:
    """A worker; on the way out, it and all flow runs are ended, also those of a worker that died before."""
    worker = Worker(environment, home() / "worker.log")
    try:
        yield worker
    finally:
        worker.end()
        end_all([process for process, flow_run in processes_in(home()).items() if flow_run])
        with suppress(httpx.HTTPError), temporary_settings(ONE_TRY):  # the server may be what died
            settle(client, find_orphans(client))


def _environment(server: Server, served: Served) -> dict[str, str]:
    """What deployments and flow runs need to know; not what only the server needs."""
    settings = {
        "PREFECT_API_URL": server.api_url,
        "PREFECT_UI_URL": server.ui_url,
        "PREFECT_API_REQUEST_TIMEOUT": str(ANSWER_SECONDS),
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_WORKER_QUERY_SECONDS": str(QUERY_SECONDS),
        "PREFECT_HOME": str(home()),
        "DO_NOT_TRACK": "1",
        "VOLCAST_HOME": str(home()),
        "VOLCAST_POOL": POOL,
        "VOLCAST_STORE": served.data.store,
    }
    if server.auth:
        settings["PREFECT_API_AUTH_STRING"] = server.auth
    left_out = ("VOLCAST_DATABASE", "VOLCAST_AUTH", "VOLCAST_IMAGE", WEBHOOK, URLS)
    return {name: value for name, value in os.environ.items() if name not in left_out} | settings


def _channels() -> dict[str, str]:
    """Where alerts go: the variables that are for the server alone."""
    return {name: os.environ[name] for name in (WEBHOOK, URLS) if name in os.environ}


def _make_pool(client: SyncPrefectClient) -> None:
    """The process pool; of one that is there only what its runs are is brought to what it must be."""
    try:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=TEMPLATE))
    except ObjectAlreadyExists:
        if client.read_work_pool(POOL).type != "process":
            raise ServerError(
                f"The work pool {POOL} is there, and is not one of processes. Rename or remove it."
            ) from None
        client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=TEMPLATE))


def _show_way_in(console: Console, server: Server, before: str) -> None:
    """The UI's address; on a terminal as a link that logs in, which must not stay in a log."""
    if server.access and console.is_terminal:
        console.print(f"{before}{server.access.link()}\n{LINK_WORDS}; for another one: volcast ui", markup=False)
    else:
        console.print(f"{before}{server.ui_url}" + ("\nTo log in: volcast ui" if server.access else ""), markup=False)


def _where(server: Server, options: ServerOptions) -> str:
    if not server.own:
        return "PREFECT_API_URL"
    return f"{options.database_words}; it asks for {'user and password' if options.auth else 'a password of its own'}"


def _deployments(client: SyncPrefectClient, tag: str) -> str:
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[tag]))
    found = client.read_deployments(deployment_filter=tagged, limit=200)
    active = sum(schedule.active for deployment in found for schedule in deployment.schedules)
    return f"{len(found)} with {counted(active, 'schedule')}"


def _changed(deployed: Deployed) -> str:
    return f"new or changed: {len(deployed.applied)}, and {counted(len(deployed.automations), 'automation')}"


def _watch(
    client: SyncPrefectClient,
    server: Server,
    worker: Worker,
    alerting: Alerting,
    own_alerts: OwnAlerts,
    metrics: Metrics,
) -> None:
    """Look after worker, runs, alerts and metrics until the server dies. Raises ServerError."""
    suspects, console = set[UUID](), own_alerts.console
    next_look = next_collect = next_metrics = 0.0
    while server.process is None or server.process.poll() is None:
        worker.tend(console, own_alerts)
        if time.monotonic() >= next_look:
            suspects = _settle_orphans(console, client, suspects, own_alerts)
            next_look = time.monotonic() + LOOK_SECONDS
        if time.monotonic() >= next_collect:
            with temporary_settings(ONE_TRY):
                alerting.collect(client)
            next_collect = time.monotonic() + COLLECT_SECONDS
        if time.monotonic() >= next_metrics:
            with temporary_settings(ONE_TRY):
                if failed := metrics.refresh():
                    console.print(failed, style="bold red", markup=False)
            next_metrics = time.monotonic() + METRICS_SECONDS
        time.sleep(1)
    raise ServerError(
        f"Prefect's server ended with {server.process.returncode}, and everything else is ended with it. "
        f"The server's log: {home() / 'server.log'}. Start all of it again with: volcast up"
    )


def _settle_orphans(
    console: Console, client: SyncPrefectClient, suspects: set[UUID], own_alerts: OwnAlerts
) -> set[UUID]:
    """End the runs that were lost, or cancelled in vain, at the last look and still are; gives those that are now."""
    try:
        with temporary_settings(ONE_TRY):
            lost, cancelled = find_orphans(client), find_cancelled(client)
            _settle(console, client, [run for run in lost if run.id in suspects])
            _cancel(console, client, {run: processes for run, processes in cancelled.items() if run in suspects})
    except (httpx.HTTPError, ObjectNotFound) as error:
        own_alerts.note_answer(error)
        return suspects
    own_alerts.note_answer(None)
    return {*(run.id for run in lost), *cancelled}


def _settle(console: Console, client: SyncPrefectClient, lost: Sequence[FlowRun]) -> None:
    settle(client, lost)
    for run in lost:
        console.print(f"[bold red]Crashed:[/] {escape(run.name)}. {LOST}")


def _cancel(console: Console, client: SyncPrefectClient, found: Mapping[UUID, Sequence[Process]]) -> None:
    cancel(client, found)
    for run in found:
        console.print(f"[bold]Cancelled:[/] {escape(client.read_flow_run(run).name)}. {CANCELLED}")
