"""Automations, by name: the triggers of prefect.yaml, which start deployments, and the alerts, which tell a person.

An alert goes to a Slack-compatible webhook; without one it is seen in Prefect's event feed alone. Its code has a
section in docs/operate.md. Names begin with `volcast `; what begins so and is not wanted any more is deleted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import DoNothing, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from pydantic import SecretStr

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
    def name(self) -> str:
        """Of the automation, and the first line of the message."""
        return f"{PREFIX}alert {self.code}: {self.what}"

    @property
    def guide(self) -> str:
        """Where to read on."""
        return f"What to do: docs/operate.md, {self.code}"


def sync_automations(client: SyncPrefectClient, wanted: Sequence[AutomationCore]) -> tuple[str, ...]:
    """Make, change and delete volcast's automations until they are as wanted; gives the names touched."""
    by_name = {each.name: each for each in wanted}
    present = {each.name: each for each in client.read_automations() if each.name.startswith(PREFIX)}
    touched = {
        name for name, each in by_name.items() if name not in present or _content(present[name]) != _content(each)
    }
    gone = present.keys() - by_name.keys()
    for name in (touched & present.keys()) | gone:
        client.delete_automation(present[name].id)
    for name in sorted(touched):
        client.create_automation(by_name[name])
    return tuple(sorted(touched | gone))


def alerts(client: SyncPrefectClient, webhook: str | None, root: str) -> list[AutomationCore]:
    """The alerts as automations, about the runs of volcast's deployments and the events of the store at `root`."""
    block = _block(client, webhook) if webhook else None
    return [
        AutomationCore(
            name=alert.name,
            description=alert.guide,
            trigger=alert.trigger,
            actions=[_action(block, alert)],
            tags=["volcast"],
        )
        for alert in [*_of_runs(), *_of_events(root)]
    ]


def _of_runs() -> list[Alert]:
    ended_badly = _reacts_to(_states("Failed", "Crashed", "TimedOut"))
    return [
        Alert(code="run-failed", what="a run failed, crashed or timed out", trigger=ended_badly),
        Alert(code="run-late", what="a scheduled run has not started", trigger=_reacts_to(_states("Late"))),
        Alert(code="approval-wanted", what="a model waits for a yes", trigger=_reacts_to(_states("Suspended"))),
        Alert(
            code="run-pending",
            what="a run is pending for 10 minutes",
            trigger=_misses("Pending", ("Running", *ENDED), PENDING_LIMIT),
        ),
        *(
            Alert(
                code=f"run-long-{limit.seconds // 3600}h",
                what=f"a run of {', '.join(names)} takes longer",
                trigger=_misses("Running", ENDED, limit, names),
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


def _reacts_to(states: set[str]) -> EventTrigger:
    """Fires once for each run: of one Suspended Prefect 3.8 may tell three times."""
    return EventTrigger(
        expect=states, for_each={"prefect.resource.id"}, within=ONCE_WITHIN, match_related=_of_deployments()
    )


def _misses(after: str, expected: Sequence[str], within: timedelta, names: Sequence[str] = ()) -> EventTrigger:
    """Fires for each run that none of the states follows in time."""
    return EventTrigger(
        after=_states(after),
        expect=_states(*expected),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        within=within,
        match_related=_of_deployments(names),
    )


def _of_deployments(names: Sequence[str] = ()) -> Any:
    """Runs of volcast's deployments, not the subflows in them: a failure is told once."""
    deployment = {"prefect.resource.role": "deployment"} | ({"prefect.resource.name": list(names)} if names else {})
    return [deployment, {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.volcast"}]


def _states(*names: str) -> set[str]:
    return {f"prefect.flow-run.{name}" for name in names}


def _block(client: SyncPrefectClient, webhook: str) -> Any:
    """The id of the block that sends to the webhook."""
    block = CustomWebhookNotificationBlock(
        name="volcast",
        url="{{url}}",
        json_data={"text": "{{subject}}\n{{body}}"},
        secrets={"url": SecretStr(webhook)},  # type: ignore[arg-type]  # a secret, so that the UI masks it
    )
    block.save(BLOCK, overwrite=True)
    return client.read_block_document_by_name(BLOCK, "custom-webhook").id


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
