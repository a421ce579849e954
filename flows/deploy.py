"""Bring a Prefect server to what prefect.yaml says.

1. each deployment of the file that differs from the server's: created or replaced, its schedules with it
2. automations, by name: the triggers of the file, which start deployments, and the alerts, which tell a person
3. the store's deployments that the file has no more (a renamed one is such a one): deleted

What belongs to a store carries its label in name and tag; other stores on the server are left alone. Twice in a row
changes nothing, and what a person has switched off (a schedule, a deployment, an automation) stays off. Automations
are changed in place, and removed only once what is wanted is there, so that a deploy that is cut off leaves no gap.
That an alert's automation has fired is recorded by the server, and flows/alerts.py sends it. Its code has a section in
docs/operate.md.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyOptions, DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import DoNothing
from prefect.events.filters import AutomationFilter, AutomationFilterTags
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.schemas.deployment_triggers import DeploymentTriggerTypes
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from pydantic import TypeAdapter

from volcast.flows.alerts import Severity, guide_to, save_channels, subject_of
from volcast.models.calendar_names import NEW_YORK
from volcast.models.text import listed
from volcast.storage.store import open_store
from volcast.tasks.preflight import deadline_cron, market_schedule, named_events, whole_path, whole_spec
from volcast.tasks.run_tools import TAG, Event, artifact_key, code_version, store_label, store_tag
from volcast.tasks.settings import DataSettings, TrainingSettings, WatchSettings, calendar_of, root_of

PROJECT_FILE = Path(__file__).parents[1] / "prefect.yaml"
Entry = Mapping[str, Any]  # a deployment, as prefect.yaml has it
TRIGGER: TypeAdapter[Any] = TypeAdapter(DeploymentTriggerTypes)
PREFIX = "volcast "
NEW_YORK_ZONE, AFTER_CLOSE = "America/New_York", "weekdays-after-the-close"  # of prefect.yaml
PENDING_LIMIT = timedelta(minutes=10)
TIME_LIMITS = {
    timedelta(hours=1): ("daily", "ingest", "forecast", "monitor", "rollback", "promote"),
    timedelta(hours=6): ("retrain", "pipeline", "backtest", "verify"),
}  # of a run -> the deployments
ONCE_WITHIN = timedelta(minutes=10)  # the same state of the same run is told once
SIGN_OF_LIFE = timedelta(hours=80)  # from Friday's daily to Monday's, and eight hours
ENDED = ("Completed", "Failed", "Crashed", "TimedOut", "Cancelled", "Cancelling", "Suspended")
EVENTS: dict[str, tuple[Severity, str, Event]] = {
    "prices-stale": ("critical", "no new prices", "volcast.prices.stale"),
    "prices-broken": ("critical", "many rows break a rule", "volcast.prices.broken"),
    "forecast-missing": ("critical", "no forecast of the newest session", "volcast.forecast.missing"),
    "deadline-missed": ("critical", "no forecast by the time that was asked for", "volcast.deadline.missed"),
    "fallback-used": ("warning", "har forecasts in place of the model", "volcast.fallback.used"),
    "quality-breached": ("warning", "the model errs too much", "volcast.quality.breached"),
    "intervals-broken": ("warning", "intervals do not hold", "volcast.intervals.broken"),
    "approval-wanted": ("warning", "a model waits for a yes", "volcast.approval.wanted"),
    "approval-refused": ("info", "a person said no to a model", "volcast.approval.refused"),
    "champion-moved": ("info", "another version forecasts", "volcast.champion.moved"),
    "resolved": ("info", "what was found is gone", "volcast.finding.resolved"),
}  # code of an alert -> how severe it is, what it says, and the event that it waits for


@dataclass(frozen=True)
class Served:
    """What the deployments work on, and by which model."""

    data: DataSettings
    training: TrainingSettings
    watch: WatchSettings = field(default_factory=WatchSettings)

    def __post_init__(self) -> None:
        """Paths and announcements in full: a worker runs in another folder, and knows of no defaults."""
        whole = {
            "source": whole_spec(self.data.source),
            "events": named_events(self.data),
            "store": whole_path(self.data.store),
        }
        object.__setattr__(self, "data", self.data.model_copy(update=whole))

    @property
    def root(self) -> str:
        """The root of the store that they work on."""
        return self.data.root

    @property
    def parameters(self) -> dict[str, Any]:
        """What prefect.yaml puts where it says so."""
        own = self.training.model_dump(mode="json", exclude_defaults=True)
        settings, tested = self.training.backtested, {name: own[name] for name in ("seed", "device") if name in own}
        by = self.watch.forecast_by
        return {
            "VOLCAST_STORE": self.data.store,
            "VOLCAST_WATCH": self.watch.model_dump(mode="json", exclude_defaults=True),
            **({"VOLCAST_DEADLINE": deadline_cron(by, self.data.calendar)} if by else {}),
            "VOLCAST_DATA": self.data.model_dump(
                mode="json", include={"source", "events", "tickers", "store"}, exclude_none=True
            )
            | self.data.model_dump(include={"max_failed_share", "max_broken_share"}, exclude_defaults=True)
            | ({} if self.data.calendar == NEW_YORK else {"calendar": self.data.calendar}),
            "VOLCAST_TRAINING": own | {"recipe": self.training.recipe},
            "VOLCAST_MODEL": self.training.name or self.training.recipe,
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
            f"tickers: {listed(data.tickers) or 'all that are stored'}; calendar {data.calendar}\n"
            f"Model: recipe {self.training.recipe}, {', '.join(chosen) or 'as it stands'}"
            + (f"; a forecast is due by {self.watch.forecast_by}, the market's time" if self.watch.forecast_by else "")
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
    root = open_store(served.root, writable=True).url
    known = {**environment, **served.parameters, "VOLCAST_ROOT": root}
    entries = _filled(yaml.safe_load(file.read_text()), known)["deployments"]
    with get_client(sync_client=True) as client:
        earlier = _of_0_1_0(client, [entry["name"] for entry in entries], served.root)
        present = [*deployments_of(client, tags=[store_tag(root)]), *earlier]
        done = {entry["name"]: _apply(client, entry, root, present) for entry in entries}
        kept = {identity for identity, _ in done.values()}
        starts = [each for entry in entries for each in _starts(entry, done[entry["name"]][0], root)]
        automations = sync_automations(client, [*starts, *alerts(root)], root, adopt=bool(earlier))
        save_channels(client, environment, store_label(root))
        removed = [deployment for deployment in present if deployment.id not in kept]
        for deployment in removed:
            client.delete_deployment(deployment.id)
    applied = tuple(name for name, (_, changed) in done.items() if changed)
    return Deployed(store_tag(root), applied, tuple(deployment.name for deployment in removed), automations)


def deployments_of(
    client: SyncPrefectClient, *, tags: list[str], names: list[str] | None = None
) -> list[DeploymentResponse]:
    """The deployments with all of the tags, and of the names if there are any."""
    name = DeploymentFilterName(any_=names) if names else None
    wanted = DeploymentFilter(tags=DeploymentFilterTags(all_=tags), name=name)
    return client.read_deployments(deployment_filter=wanted, limit=200)


def _of_0_1_0(client: SyncPrefectClient, names: list[str], root: str) -> list[DeploymentResponse]:
    """What release 0.1.0, which knew one store a server, deployed for this store; drop with its last user."""
    found = deployments_of(client, tags=[TAG], names=names)
    data = [each.parameters["data"] for each in found if "data" in each.parameters]
    roots = {root_of(each.get("store", ""), each.get("source", "")) for each in data}
    return found if root in roots else []


def _apply(client: SyncPrefectClient, entry: Entry, root: str, present: list[DeploymentResponse]) -> tuple[UUID, bool]:
    """The deployment's id, and whether it had to be changed."""
    loaded: Flow[Any, Any] = load_flow_from_entrypoint(entry["entrypoint"])
    flow_id = client.create_flow_from_name(loaded.name)
    earlier = next(
        (each for each in present if each.flow_id == flow_id and each.name.split(".")[0] == entry["name"]), None
    )
    wanted = _wanted(entry, loaded, root, earlier)
    if earlier and _is_as(earlier, wanted):
        return earlier.id, False
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


def _wanted(entry: Entry, loaded: Flow[Any, Any], root: str, earlier: DeploymentResponse | None) -> dict[str, Any]:
    """The deployment of the entry; it and its schedules are on or off as those of the earlier one are."""
    is_active: dict[str | None, Any] = {each.slug: each.active for each in earlier.schedules} if earlier else {}
    limit, pool = entry.get("concurrency_limit", {}), entry.get("work_pool", {})
    schedules = [
        DeploymentScheduleCreate(
            schedule=_schedule(each, calendar_of(root)),
            slug=each["slug"],
            parameters=each.get("parameters", {}),
            active=is_active.get(each["slug"], each["active"]),
        )
        for each in entry.get("schedules", [])
        if "cron" in each  # of a deadline there is one only where it was asked for
    ]
    return {
        "name": deployment_name(entry["name"], root),
        "description": _description(loaded, schedules, root),
        "version": code_version(),
        "entrypoint": entry["entrypoint"],
        "tags": sorted([*entry.get("tags", []), store_tag(root)]),
        "parameters": entry.get("parameters", {}),
        "parameter_openapi_schema": parameter_schema(loaded).model_dump_for_openapi(),
        "enforce_parameter_schema": True,
        "work_pool_name": pool.get("name"),
        "job_variables": pool.get("job_variables", {}),
        "concurrency_limit": limit.get("limit"),
        "concurrency_options": ConcurrencyOptions(collision_strategy=limit["collision_strategy"]) if limit else None,
        "schedules": schedules,
    } | ({"paused": earlier.paused} if earlier else {})


def _description(loaded: Flow[Any, Any], schedules: Sequence[DeploymentScheduleCreate], root: str) -> str:
    """The flow's docstring without its arguments, and the schedules with the time zones that the UI hides.

    Where it names the artifact of the models, it leads to that of this store.
    """
    words, key = inspect.cleandoc(loaded.description or "").split("\n\nArgs:")[0], artifact_key("models", root)
    words = re.sub(r"artifact\s+volcast-models", f"artifact [{key}](/v2/artifacts/key/{key})", words)
    crons = [(each.slug, each.schedule) for each in schedules if isinstance(each.schedule, CronSchedule)]
    lines = [f"* {slug}: cron {own.cron} in the time zone {own.timezone}" for slug, own in crons]
    return "\n".join([words, *(["", "Schedules:", "", *lines] if lines else [])])


def _schedule(given: Entry, calendar: str) -> CronSchedule:
    """A schedule of the file; one in New York's time is moved to the market of another calendar.

    That is its time zone, and for AFTER_CLOSE the hour and the weekdays, too.
    """
    cron, zone = given["cron"], given["timezone"]
    if calendar != NEW_YORK and zone == NEW_YORK_ZONE:
        after_close, zone = market_schedule(calendar)
        cron = after_close if given["slug"] == AFTER_CLOSE else cron
    return CronSchedule(cron=cron, timezone=zone)


def _is_as(deployment: DeploymentResponse, wanted: Mapping[str, Any]) -> bool:
    """Whether the server has what is wanted."""
    limit = deployment.global_concurrency_limit
    special = {
        "tags": sorted(deployment.tags),
        "concurrency_limit": limit.limit if limit else None,
        "schedules": [_shape(each) for each in deployment.schedules],
    }
    for name, value in wanted.items():
        shaped = [_shape(each) for each in value] if name == "schedules" else value
        if (special[name] if name in special else getattr(deployment, name)) != shaped:
            return False
    return True


def _shape(schedule: DeploymentSchedule | DeploymentScheduleCreate) -> tuple[Any, ...]:
    """What prefect.yaml says of a schedule; whether it is paused is a person's."""
    return schedule.schedule, schedule.slug, schedule.parameters


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


@dataclass(frozen=True, kw_only=True)
class Alert:
    """What a person is told of, and when."""

    code: str  # its section in docs/operate.md
    severity: Severity
    what: str
    trigger: EventTrigger
    words: str = ""  # where neither a run nor an event says it

    @property
    def guide(self) -> str:
        """The last lines of the message."""
        return f"{self.words}\n{guide_to(self.code)}".lstrip()


def sync_automations(
    client: SyncPrefectClient, wanted: Sequence[AutomationCore], root: str, *, adopt: bool = False
) -> tuple[str, ...]:
    """Make, change and delete the store's automations until they are as wanted; gives the names touched.

    One that a person has disabled stays so. With `adopt` those of release 0.1.0, which knew one store a server, are the
    store's, too.
    """
    present = [*automations_of(client, store_tag(root)), *(automations_of(client, TAG, alone=True) if adopt else ())]
    by_name = {each.name: each for each in reversed(present)}
    wanted = [
        each.model_copy(update={"enabled": by_name[each.name].enabled}) if each.name in by_name else each
        for each in wanted
    ]
    touched = {
        each.name for each in wanted if each.name not in by_name or _content(by_name[each.name]) != _content(each)
    }
    for each in wanted:
        whole = AutomationCore.model_validate(each.model_dump(exclude={"owner_resource"}))  # an update sends set fields
        if each.name not in by_name:
            client.create_automation(whole)
        elif each.name in touched:
            client.update_automation(by_name[each.name].id, whole)
    kept = {by_name[each.name].id for each in wanted if each.name in by_name}
    gone = [each for each in present if each.id not in kept]
    for each in gone:
        client.delete_automation(each.id)
    return tuple(sorted(touched | {each.name for each in gone}))


def alerts(root: str) -> list[AutomationCore]:
    """The alerts as automations, about the runs of the store's deployments and the events of the store at `root`."""
    return [
        AutomationCore(
            name=subject_of(alert.code, alert.what, store_label(root)),
            description=f"Is sent to every channel that was given.\n{alert.guide}",
            trigger=alert.trigger,
            actions=[DoNothing()],
            tags=[TAG, store_tag(root), alert.severity],
        )
        for alert in [*_of_runs(root), *_of_events(root)]
    ]


def deployment_name(name: str, root: str) -> str:
    """The name on the server of a deployment of prefect.yaml."""
    return f"{name}.{store_label(root)}"


def automations_of(client: SyncPrefectClient, tag: str, *, alone: bool = False) -> list[Automation]:
    """The automations with the tag; `alone`: and with no other."""
    tags = AutomationFilter(tags=AutomationFilterTags(all_=[tag]))
    return [each for each in client.read_automations(automations=tags) if not alone or each.tags == [tag]]


def _of_runs(root: str) -> list[Alert]:
    own: Any = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{store_tag(root)}"}
    ended_badly = _reacts_to(own, "Failed", "Crashed", "TimedOut")
    return [
        Alert(code="run-failed", severity="critical", what="a run failed, crashed or timed out", trigger=ended_badly),
        Alert(
            code="run-late",
            severity="critical",
            what="a scheduled run has not started",
            trigger=_reacts_to(own, "Late"),
        ),
        Alert(
            code="deadline-missed",
            severity="critical",
            what="nobody could look whether there is a forecast",
            trigger=_reacts_to(own, "Late", names=[deployment_name("monitor", root)]),
        ),
        Alert(
            code="run-pending",
            severity="warning",
            what="a run is pending for 10 minutes",
            trigger=_misses(own, "Pending", ("Running", *ENDED), PENDING_LIMIT),
        ),
        *(
            Alert(
                code=f"run-long-{limit.seconds // 3600}h",
                severity="warning",
                what=f"a run of {', '.join(names)} takes longer",
                trigger=_misses(own, "Running", ENDED, limit, [deployment_name(name, root) for name in names]),
            )
            for limit, names in TIME_LIMITS.items()
        ),
    ]


def _of_events(root: str) -> list[Alert]:
    own: Any = {"volcast.root": root}
    no_sign = EventTrigger(
        expect={"volcast.day.ended"}, match=own, posture=Posture.Proactive, within=SIGN_OF_LIFE, threshold=1
    )
    return [
        *(
            Alert(code=code, severity=severity, what=what, trigger=EventTrigger(expect={event}, match=own))
            for code, (severity, what, event) in EVENTS.items()
        ),
        Alert(
            code="daily-silent",
            severity="critical",
            what="no daily run has ended for 80 hours",
            trigger=no_sign,
            words="Nothing was ingested, forecast or looked at. See whether server and worker are up: volcast status",
        ),
    ]


def _reacts_to(own: Any, *states: str, names: Sequence[str] = ()) -> EventTrigger:
    """Fires once for each of the store's `own` runs: Prefect 3.8 may tell a state three times."""
    return EventTrigger(
        expect=_states(*states),
        for_each={"prefect.resource.id"},
        within=ONCE_WITHIN,
        match_related=_of_deployments(own, names),
    )


def _misses(
    own: Any, after: str, expected: Sequence[str], within: timedelta, names: Sequence[str] = ()
) -> EventTrigger:
    """Fires for each of the store's `own` runs that none of the states follows in time."""
    return EventTrigger(
        after=_states(after),
        expect=_states(*expected),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        within=within,
        match_related=_of_deployments(own, names),
    )


def _of_deployments(own: Any, names: Sequence[str] = ()) -> Any:
    """Runs of the store's deployments, not the subflows in them: a failure is told once."""
    return [{"prefect.resource.role": "deployment"} | ({"prefect.resource.name": list(names)} if names else {}), own]


def _states(*names: str) -> set[str]:
    return {f"prefect.flow-run.{name}" for name in names}


def _content(automation: AutomationCore | Automation) -> dict[str, Any]:
    """All that matters of an automation; sets and lists in one order."""
    core = AutomationCore.model_validate(automation.model_dump(include=set(AutomationCore.model_fields)))
    dumped = core.model_dump(mode="json", exclude={"owner_resource"})
    trigger = dumped["trigger"]
    return dumped | {"trigger": {k: sorted(v) if k in ("after", "expect") else v for k, v in trigger.items()}}
