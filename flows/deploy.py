"""Bring a Prefect server to what prefect.yaml says.

1. each deployment of the file that differs from the server's: created or replaced, its schedules with it
2. the triggers of the file and the alerts, as automations (flows/automations.py)
3. the store's deployments that the file has no more (a renamed one is such a one): deleted

What belongs to a store carries its label in name and tag; other stores on the server are left alone. Twice in a row
changes nothing.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.events.schemas.deployment_triggers import DeploymentTriggerTypes
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from pydantic import TypeAdapter

from flows.automations import TAG, alerts, deployment_name, store_label, store_tag, sync_automations
from flows.server import ServerError
from models.words import listed
from storage.store import open_store
from tasks.preflight import whole_path, whole_spec
from tasks.settings import DataSettings, TrainingSettings, root_of

PROJECT_FILE = Path(__file__).parents[1] / "prefect.yaml"
Entry = Mapping[str, Any]  # a deployment, as prefect.yaml has it
TRIGGER: TypeAdapter[Any] = TypeAdapter(DeploymentTriggerTypes)


@dataclass(frozen=True)
class Served:
    """What the deployments work on, and by which model."""

    data: DataSettings
    training: TrainingSettings

    def __post_init__(self) -> None:
        """Paths and announcements in full: a worker runs in another folder, and knows of no defaults."""
        whole = {
            "source": whole_spec(self.data.source),
            "events": whole_spec(self.data.event_source),
            "store": whole_path(self.data.store),
        }
        object.__setattr__(self, "data", self.data.model_copy(update=whole))

    @property
    def root(self) -> str:
        """The root of the store that they work on."""
        return root_of(self.data.store, self.data.source)

    @property
    def parameters(self) -> dict[str, Any]:
        """What prefect.yaml puts where it says so."""
        own = self.training.model_dump(mode="json", exclude_defaults=True)
        settings = {name: own[name] for name in ("cell",) if name in own} | own.get("settings", {})
        tested = {name: own[name] for name in ("seed", "device") if name in own}
        return {
            "VOLCAST_SOURCE": self.data.source,
            "VOLCAST_STORE": self.data.store,
            "VOLCAST_DATA": self.data.model_dump(mode="json", include={"source", "events", "tickers", "store"}),
            "VOLCAST_TRAINING": own | {"recipe": self.training.recipe},
            "VOLCAST_BACKTEST": tested | ({"settings": settings} if settings else {}),
        }

    @property
    def words(self) -> str:
        """Two lines for people."""
        data, given = self.data, self.training.model_dump(mode="json", exclude_defaults=True)
        settings = {name: value for name, value in given.items() if name not in ("recipe", "settings")}
        chosen = [f"{name}={value}" for name, value in (settings | given.get("settings", {})).items()]
        return (
            f"Prices of {data.source}, announcements of {data.event_source}, kept in {data.store}; "
            f"tickers: {listed(data.tickers) or 'all that are stored'}\n"
            f"Model: recipe {self.training.recipe}, {', '.join(chosen) or 'as it stands'}"
        )


@dataclass(frozen=True)
class Deployed:
    """What a deploy changed, by name."""

    tag: str  # of all that belongs to the store
    applied: tuple[str, ...]
    removed: tuple[str, ...]
    automations: tuple[str, ...]  # made, changed or deleted

    @property
    def words(self) -> str:
        """One line for people."""
        parts = {"applied": self.applied, "removed": self.removed, "automations": self.automations}
        changed = [f"{what} {', '.join(names)}" for what, names in parts.items() if names]
        return "; ".join(changed) or "nothing to change"


def deploy(served: Served, environment: Mapping[str, str], *, file: Path = PROJECT_FILE) -> Deployed:
    """Apply the file, with {{ $NAME }} from both, to the configured server. Raises ServerError."""
    if not file.is_file():
        raise ServerError(f"{file} is not there. Deployments need a checkout of the project.")
    root = open_store(served.root, writable=True).url
    known = {**environment, **served.parameters, "VOLCAST_ROOT": root}
    entries = _filled(yaml.safe_load(file.read_text()), known)["deployments"]
    with get_client(sync_client=True) as client:
        earlier = _of_0_1_0(client, [entry["name"] for entry in entries], served.root)
        present = [*_deployments(client, tags=[store_tag(root)]), *earlier]
        done = {entry["name"]: _apply(client, entry, root, present) for entry in entries}
        kept = {identity for identity, _ in done.values()}
        starts = [each for entry in entries for each in _starts(entry, done[entry["name"]][0], root)]
        told = alerts(client, environment.get("VOLCAST_ALERT_WEBHOOK"), root)
        automations = sync_automations(client, [*starts, *told], root, adopt=bool(earlier))
        removed = [deployment for deployment in present if deployment.id not in kept]
        for deployment in removed:
            client.delete_deployment(deployment.id)
    applied = tuple(name for name, (_, changed) in done.items() if changed)
    return Deployed(store_tag(root), applied, tuple(deployment.name for deployment in removed), automations)


def _deployments(
    client: SyncPrefectClient, *, tags: list[str], names: list[str] | None = None
) -> list[DeploymentResponse]:
    name = DeploymentFilterName(any_=names) if names else None
    wanted = DeploymentFilter(tags=DeploymentFilterTags(all_=tags), name=name)
    return client.read_deployments(deployment_filter=wanted, limit=200)


def _of_0_1_0(client: SyncPrefectClient, names: list[str], root: str) -> list[DeploymentResponse]:
    """What release 0.1.0, which knew one store a server, deployed for this store; drop with its last user."""
    found = _deployments(client, tags=[TAG], names=names)
    data = [each.parameters["data"] for each in found if "data" in each.parameters]
    roots = {root_of(each.get("store", ""), each.get("source", "")) for each in data}
    return found if root in roots else []


def _apply(client: SyncPrefectClient, entry: Entry, root: str, present: list[DeploymentResponse]) -> tuple[UUID, bool]:
    """The deployment's id, and whether it had to be changed."""
    loaded: Flow[Any, Any] = load_flow_from_entrypoint(entry["entrypoint"])
    flow_id = client.create_flow_from_name(loaded.name)
    wanted = _wanted(entry, loaded, root)
    for deployment in present:
        if (deployment.flow_id, deployment.name) == (flow_id, wanted["name"]) and _is_as(deployment, wanted):
            return deployment.id, False
    return client.create_deployment(flow_id=flow_id, **wanted), True


def _starts(entry: Entry, deployment_id: UUID, root: str) -> list[AutomationCore]:
    """The triggers of a deployment, which start it, as automations."""
    automations = []
    for each in entry.get("triggers", []):
        trigger = TRIGGER.validate_python(each)
        trigger.set_deployment_id(deployment_id)
        own = {"name": f"{trigger.name} ({store_label(root)})", "tags": [TAG, store_tag(root)]}
        automations.append(trigger.as_automation().model_copy(update=own))
    return automations


def _wanted(entry: Entry, loaded: Flow[Any, Any], root: str) -> dict[str, Any]:
    limit, pool = entry.get("concurrency_limit", {}), entry.get("work_pool", {})
    return {
        "name": deployment_name(entry["name"], root),
        "description": inspect.cleandoc(loaded.description or "").split("\n\nArgs:")[0],
        "entrypoint": entry["entrypoint"],
        "tags": sorted([*entry.get("tags", []), store_tag(root)]),
        "parameters": entry.get("parameters", {}),
        "parameter_openapi_schema": parameter_schema(loaded).model_dump_for_openapi(),
        "enforce_parameter_schema": True,
        "work_pool_name": pool.get("name"),
        "job_variables": pool.get("job_variables", {}),
        "concurrency_limit": limit.get("limit"),
        "concurrency_options": ConcurrencyOptions(collision_strategy=limit["collision_strategy"]) if limit else None,
        "schedules": [
            DeploymentScheduleCreate(
                schedule=CronSchedule(cron=each["cron"], timezone=each["timezone"]), slug=each["slug"]
            )
            for each in entry.get("schedules", [])
        ],
    }


def _is_as(deployment: DeploymentResponse, wanted: Mapping[str, Any]) -> bool:
    """Whether the server has what is wanted; a schedule that a person paused there stays paused."""
    limit = deployment.global_concurrency_limit
    special = {
        "tags": sorted(deployment.tags),
        "concurrency_limit": limit.limit if limit else None,
        "schedules": [(each.schedule, each.slug) for each in deployment.schedules],
    }
    for name, value in wanted.items():
        shaped = [(each.schedule, each.slug) for each in value] if name == "schedules" else value
        if (special[name] if name in special else getattr(deployment, name)) != shaped:
            return False
    return True


def _filled(value: Any, environment: Mapping[str, Any]) -> Any:
    """The document with each `{{ $NAME }}` replaced; an entry whose variable is not set goes."""
    if isinstance(value, dict):
        filled = {key: _filled(each, environment) for key, each in value.items()}
        return {key: each for key, each in filled.items() if each is not None}
    if isinstance(value, list):
        return [_filled(each, environment) for each in value]
    found = re.fullmatch(r"\{\{ \$(\w+) \}\}", value) if isinstance(value, str) else None
    given = environment.get(found[1]) if found else value
    return {"true": True, "false": False}.get(given, given) if isinstance(given, str) else given
