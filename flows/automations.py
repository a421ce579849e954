"""Automations, by name: the triggers of prefect.yaml, which start deployments, and the alerts, which tell a person.

An alert goes to a Slack-compatible webhook; without one it is seen in Prefect's event feed alone. Its code has a
section in docs/operate.md. Stores that share a server each have automations of their own, with the store's label in
name and tag. They are changed in place, and removed only once what is wanted is there, so that a deploy that is cut off
leaves no gap.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import DoNothing, SendNotification
from prefect.events.filters import AutomationFilter, AutomationFilterTags
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from pydantic import SecretStr

TAG = "volcast"
PREFIX = "volcast "
BLOCK = "volcast-alert"
PENDING_LIMIT = timedelta(minutes=10)
TIME_LIMITS = {
    timedelta(hours=1): ("daily", "ingest", "forecast", "rollback", "promote"),
    timedelta(hours=6): ("retrain", "pipeline", "backtest", "verify"),
}  # of a run -> the deployments
ONCE_WITHIN = timedelta(minutes=10)  # the same state of the same run is told once
SIGN_OF_LIFE = timedelta(hours=80)  # from Friday's daily to Monday's, and eight hours
ENDED = ("Completed", "Failed", "Crashed", "TimedOut", "Cancelled", "Cancelling", "Suspended")
ABOUT_RUN = "{{ flow_run.name }} is {{ flow_run.state.name }}. {{ flow_run.state.message }}\n{{ flow_run|ui_url }}"
ABOUT_EVENT = "{{ event.payload.words }}"


@dataclass(frozen=True, kw_only=True)
class Alert:
    """What a person is told of, and when."""

    code: str  # its section in docs/operate.md
    what: str
    trigger: EventTrigger
    body: str = ABOUT_RUN  # Jinja, as Prefect fills it in

    @property
    def guide(self) -> str:
        """Where to read on."""
        return f"What to do: docs/operate.md, {self.code}"


def store_label(root: str) -> str:
    """A short name of a store's root, which no other root has: `data-1a2b3c`."""
    folder = re.sub("[^a-z0-9]+", "-", root.rstrip("/").rsplit("/", 1)[-1].lower()).strip("-")
    return f"{folder}-{sha256(root.encode()).hexdigest()[:6]}"


def store_tag(root: str) -> str:
    """The tag of everything on the server that belongs to the store at `root`."""
    return f"{TAG}-{store_label(root)}"


def sync_automations(
    client: SyncPrefectClient, wanted: Sequence[AutomationCore], root: str, *, adopt: bool = False
) -> tuple[str, ...]:
    """Make, change and delete the store's automations until they are as wanted; gives the names touched.

    With `adopt` those of release 0.1.0, which knew one store a server, are the store's, too.
    """
    present = [*_tagged(client, store_tag(root)), *(_tagged(client, TAG, alone=True) if adopt else ())]
    by_name = {each.name: each for each in reversed(present)}
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


def alerts(client: SyncPrefectClient, webhook: str | None, root: str) -> list[AutomationCore]:
    """The alerts as automations, about the runs of the store's deployments and the events of the store at `root`."""
    label = store_label(root)
    block = _block(client, webhook, label) if webhook else None
    return [
        AutomationCore(
            name=f"{PREFIX}alert {alert.code}: {alert.what} ({label})",  # and the first line of the message
            description=alert.guide,
            trigger=alert.trigger,
            actions=[_action(block, alert)],
            tags=[TAG, store_tag(root)],
        )
        for alert in [*_of_runs(root), *_of_events(root)]
    ]


def deployment_name(name: str, root: str) -> str:
    """The name on the server of a deployment of prefect.yaml."""
    return f"{name}.{store_label(root)}"


def _tagged(client: SyncPrefectClient, tag: str, *, alone: bool = False) -> list[Automation]:
    """The automations with the tag; `alone`: and with no other."""
    tags = AutomationFilter(tags=AutomationFilterTags(all_=[tag]))
    return [each for each in client.read_automations(automations=tags) if not alone or each.tags == [tag]]


def _of_runs(root: str) -> list[Alert]:
    own: Any = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{store_tag(root)}"}
    ended_badly = _reacts_to(own, "Failed", "Crashed", "TimedOut")
    return [
        Alert(code="run-failed", what="a run failed, crashed or timed out", trigger=ended_badly),
        Alert(code="run-late", what="a scheduled run has not started", trigger=_reacts_to(own, "Late")),
        Alert(code="approval-wanted", what="a model waits for a yes", trigger=_reacts_to(own, "Suspended")),
        Alert(
            code="run-pending",
            what="a run is pending for 10 minutes",
            trigger=_misses(own, "Pending", ("Running", *ENDED), PENDING_LIMIT),
        ),
        *(
            Alert(
                code=f"run-long-{limit.seconds // 3600}h",
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
    events = {
        "prices-stale": ("no new prices", "volcast.prices.stale"),
        "prices-broken": ("many rows break a rule", "volcast.prices.broken"),
        "forecast-missing": ("no forecast of the newest session", "volcast.forecast.missing"),
        "fallback-used": ("har forecasts in place of the model", "volcast.fallback.used"),
        "quality-breached": ("the model errs too much", "volcast.quality.breached"),
    }
    return [
        *(
            Alert(code=code, what=what, trigger=EventTrigger(expect={event}, match=own), body=ABOUT_EVENT)
            for code, (what, event) in events.items()
        ),
        Alert(
            code="daily-silent",
            what="no daily run has ended for 80 hours",
            trigger=no_sign,
            body="Nothing was ingested, forecast or looked at. See whether server and worker are up: volcast status",
        ),
    ]


def _reacts_to(own: Any, *states: str) -> EventTrigger:
    """Fires once for each of the store's `own` runs: of one Suspended Prefect 3.8 may tell three times."""
    return EventTrigger(
        expect=_states(*states),
        for_each={"prefect.resource.id"},
        within=ONCE_WITHIN,
        match_related=_of_deployments(own),
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


def _block(client: SyncPrefectClient, webhook: str, label: str) -> Any:
    """The id of the store's block that sends to the webhook."""
    name = f"{BLOCK}-{label}"
    block = CustomWebhookNotificationBlock(
        name="volcast",
        url="{{url}}",
        json_data={"text": "{{subject}}\n{{body}}"},
        secrets={"url": SecretStr(webhook)},  # type: ignore[arg-type]  # a secret, so that the UI masks it
    )
    block.save(name, overwrite=True)
    return client.read_block_document_by_name(name, "custom-webhook").id


def _action(block: Any, alert: Alert) -> SendNotification | DoNothing:
    if block is None:
        return DoNothing()
    return SendNotification(
        block_document_id=block, subject="{{ automation.name }}", body=f"{alert.body}\n{alert.guide}"
    )


def _content(automation: AutomationCore | Automation) -> dict[str, Any]:
    """All that matters of an automation; sets and lists in one order."""
    core = AutomationCore.model_validate(automation.model_dump(include=set(AutomationCore.model_fields)))
    dumped = core.model_dump(mode="json", exclude={"owner_resource", "description"})
    trigger = dumped["trigger"]
    return dumped | {"trigger": {k: sorted(v) if k in ("after", "expect") else v for k, v in trigger.items()}}
