"""What a flow run shows of itself, and leaves behind.

* its final state, for the caller and for whoever looks at a list of runs
* the store's label, by which its things on the server, its artifacts too, are told from those of another store
* volcast's own events, which start flows and send alerts by the automations of prefect.yaml and flows/deploy.py
* the progress of a long step: a line in the log each time and, on a terminal, a bar below the lines
* the provenance of a version: code, packages, seed, flow run
* events of OpenLineage, of what each version was made from, where a person has configured a place for them

A run's value goes to its caller as a value, and an error as an error. Of a result that the server points to, which
whoever writes to its database can forge, nothing but plain JSON is ever read.
"""

import json
import logging
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from threading import Event as Flag
from time import monotonic
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.serializers import JSONSerializer, Serializer, UnknownSerializer
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed
from prefect.utilities.dispatch import get_registry_for_type
from pydantic import JsonValue
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from volcast.models.plugins import adding_packages
from volcast.storage.locations import shown
from volcast.storage.records import ArtifactRef, Provenance

Result = TypeVar("Result")
Given = ParamSpec("Given")


def _read_plain_json_only() -> None:
    """Works around Prefect's serializers, which run code that a result names.

    A pickle does, and so does Prefect's JSON: it imports what `__class__` names, and calls it. Drop when Prefect reads
    results as data alone; tests/test_results.py says when.
    """
    kinds: dict[str, Any] = get_registry_for_type(Serializer) or {}
    for name, kind in kinds.items():
        kind.loads = UnknownSerializer.loads  # refuses, by name
        kinds[name] = UnknownSerializer  # and imports nothing that a state's data name
    kinds["json"] = JSONSerializer
    plain: Any = JSONSerializer
    plain.loads = lambda _, blob: json.loads(blob)


_read_plain_json_only()


def attempt(step: Callable[Given, Result], *given: Given.args, **more: Given.kwargs) -> Result | Exception:
    """What a flow or a task gives, or the error with which it fails, for a caller that goes on all the same."""
    try:
        return step(*given, **more)
    except Exception as error:  # noqa: BLE001 (the caller says what comes of it)
        return error


def has_server() -> bool:
    """Whether a Prefect server keeps runs, events and artifacts; else what is only for it need not be made."""
    return bool(PREFECT_API_URL.value()) or flow_run.id is not None


def complete(result: Result, message: str, outcome: str = "") -> Result:
    """The final state Completed with a message, where a server keeps it; the caller of the flow is given `result`.

    An outcome (`promoted v12`, `skipped`) goes behind the run's name, which is all that a list of runs shows. It is not
    the state's name: Prefect's UI leaves names that are not its own out of a deployment's runs.
    """
    if not has_server():
        return result
    if outcome:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(str(flow_run.id)), name=f"{flow_run.name}: {outcome}")
    return cast(Result, Completed(message=message, data=result))  # Prefect unpacks a state


Event = Literal[
    "volcast.prices.published",  # a new version of the prices
    "volcast.prices.stale",  # they are too far behind the market
    "volcast.prices.broken",  # too many rows broke a rule
    "volcast.sessions.enough",  # since the newest training, for another one
    "volcast.drift.detected",  # of the inputs
    "volcast.quality.breached",  # the champion errs too much
    "volcast.intervals.broken",  # volumes come inside of them too rarely, or too often
    "volcast.fallback.used",  # har published
    "volcast.forecast.missing",  # none was published from the newest session
    "volcast.champion.moved",  # another version forecasts from now on
    "volcast.approval.wanted",  # a version that passed the gate waits for a person's yes
    "volcast.approval.refused",  # a person said no
    "volcast.deadline.missed",  # a forecast was not there when it had to be
    "volcast.finding.resolved",  # what one of the alerts told is so no longer
    "volcast.day.ended",  # a daily run has done its work, or found none
]


def emit(event: Event, root: str, *, words: str, labels: dict[str, str] | None = None, **facts: JsonValue) -> None:
    """Send the event to Prefect's server; `words` is a sentence for people, `facts` more in its payload.

    It is about a thing of one store: its resource is `volcast.<thing>.<root>`, with the root as a label, so that an
    automation listens to its own store only. Without a server it is lost, and nothing depends on it.
    """
    if not has_server():
        return
    thing = event.split(".")[1]
    resource = {"prefect.resource.id": f"volcast.{thing}.{root}", "volcast.root": root, **(labels or {})}
    emit_event(event, resource, payload={"words": words, **facts})


TAG = "volcast"


def store_label(root: str) -> str:
    """A short name of a store's root, which no other root has: `data-1a2b3c`."""
    folder = re.sub("[^a-z0-9]+", "-", root.rstrip("/").rsplit("/", 1)[-1].lower()).strip("-")
    return f"{folder}-{sha256(root.encode()).hexdigest()[:6]}"


def store_tag(root: str) -> str:
    """The tag of everything on the server that belongs to the store at `root`."""
    return f"{TAG}-{store_label(root)}"


def artifact_key(name: str, root: str) -> str:
    """The key of an artifact that belongs to the store at `root`: `volcast-status-data-1a2b3c`."""
    return f"{TAG}-{name}-{store_label(root)}"


def publish_artifact(name: str, root: str, *, markdown: str, description: str) -> str:
    """Add a version of an artifact of the store to the calling flow run, where a server keeps it; gives its key."""
    key = artifact_key(name, root)
    if has_server():
        create_markdown_artifact(key=key, markdown=markdown, description=description)
    return key


Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class Advance(Protocol):
    """Call it after a step."""

    def __call__(self, line: str, *, completed: int, total: int, words: str = "") -> None:
        """`line` goes to the log; `completed` of `total` steps are done; `words` stand beside the bar."""
        ...


@contextmanager
def progress(title: str, log: Log) -> Iterator[Advance]:
    """What to call with a line for the log, the steps done, and how many there are in all."""
    console = Console(stderr=True)
    if not console.is_terminal:  # a bar that is not shown would still leave an empty line
        yield lambda line, **_: log.info("%s", line)
        return

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
    bar = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
    steps = bar.add_task("", total=None, words="")

    def advance(line: str, *, completed: int, total: int, words: str = "") -> None:
        bar.stop()  # or the line would be written into the bar
        log.info("%s", line)
        bar.update(steps, completed=completed, total=total, words=words)
        bar.start()

    try:
        yield advance
    finally:
        bar.stop()


class TimeLeft:
    """How long the rest of some steps takes, each as long as those before it."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """`clock`: seconds."""
        self._clock, self._first = clock, (0.0, 0)

    def words(self, completed: int, total: int) -> str:
        """Behind a line, such as ", about 3 min left"; empty the first time, and where it is less than a minute."""
        if not self._first[1]:
            self._first = self._clock(), completed  # what went before may have been done by an earlier run
            return ""
        began, before = self._first
        minutes = (self._clock() - began) / (completed - before) * (total - completed) / 60
        return f", about {minutes:.0f} min left" if minutes >= 1 else ""


PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "deltalake", "safetensors", "prefect")


@lru_cache(maxsize=1)
def code_version() -> str:
    """The package's version and, in a checkout, the commit; `+changed` where files differ from it."""
    version = metadata.version("volcast")
    root = Path(__file__).resolve().parents[1]  # the checkout's top; in a wheel volcast's own folder
    if not (root / ".git").exists():
        return version
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+changed", "--abbrev=12"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version} ({described})"


def provenance(*, source: str, seed: int | None = None) -> Provenance:
    """The record that goes into every manifest written by the flow run that asks."""
    packages = {name: metadata.version(name) for name in PACKAGES} | adding_packages()
    return Provenance(code_version=code_version(), packages=packages, flow_run_id=flow_run.id, seed=seed, source=source)


_has_failed = Flag()


def emit_lineage(root: str, output: ArtifactRef, *, inputs: Sequence[ArtifactRef | str], made: datetime) -> None:
    """Send to OpenLineage what a version of the store at `root` was made from: versions, or the source of the prices.

    Only where variables OPENLINEAGE_… are set, which say where to (docs/operate.md). No run fails by it: one that
    cannot be sent is a warning, and the last that this process tries, for a silent place takes nine seconds. The same
    version is the same run of OpenLineage, whenever it is sent.
    """
    if _has_failed.is_set() or not any(name.startswith("OPENLINEAGE_") for name in os.environ):
        return
    answer = attempt(_send_lineage, root, output, inputs, made)
    if isinstance(answer, Exception):
        _has_failed.set()
        get_run_logger().warning("OpenLineage has no event of %s, nor of what follows: %s", output, shown(str(answer)))


def _send_lineage(root: str, output: ArtifactRef, inputs: Sequence[ArtifactRef | str], made: datetime) -> None:
    # of the extra `openlineage`
    from openlineage.client import OpenLineageClient  # pyright: ignore[reportMissingImports]
    from openlineage.client import event_v2 as ol  # pyright: ignore[reportMissingImports]
    from openlineage.client.facet_v2 import dataset_version_dataset, parent_run  # pyright: ignore[reportMissingImports]
    from openlineage.client.uuid import generate_static_uuid  # pyright: ignore[reportMissingImports]

    def dataset(kind: Any, ref: ArtifactRef | str) -> Any:
        if isinstance(ref, str):
            return kind(namespace=f"{TAG}.source", name=shown(ref))
        version = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(ref.version))
        return kind(namespace=shown(root), name=_dataset_name(ref), facets={"version": version})

    parent = {}
    if flow_run.id is not None:
        of_flow = parent_run.Job(namespace=TAG, name=str(flow_run.flow_name))
        parent["parent"] = parent_run.ParentRunFacet(run=parent_run.Run(runId=str(flow_run.id)), job=of_flow)
    run_id = str(generate_static_uuid(made, f"{root} {output} {output.digest}".encode()))
    client = OpenLineageClient()
    for state in (ol.RunState.START, ol.RunState.COMPLETE):
        client.emit(
            ol.RunEvent(
                eventType=state,
                eventTime=made.isoformat(),
                producer=f"urn:volcast:{metadata.version('volcast')}",
                run=ol.Run(runId=run_id, facets=parent),
                job=ol.Job(namespace=TAG, name=_dataset_name(output)),
                inputs=[dataset(ol.InputDataset, ref) for ref in inputs],
                outputs=[dataset(ol.OutputDataset, output)],
            )
        )


def _dataset_name(ref: ArtifactRef) -> str:
    return ref.kind if ref.kind == ref.name else f"{ref.kind}.{ref.name}"
