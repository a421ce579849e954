"""The alerts, as code: Prefect automations by name, sent to a Slack-compatible webhook.

Without a webhook they exist all the same, and their firings are seen in Prefect's event feed alone.
"""

from datetime import timedelta
from typing import Any

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from pydantic import SecretStr

PREFIX = "volcast alert "
BLOCK = "volcast-alert"
PENDING_LIMIT = timedelta(minutes=10)
OF_VOLCAST: Any = [
    {"prefect.resource.role": "deployment"},  # a run of its own: a failed subflow is not told twice
    {"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.volcast"},
]
AFTER_PENDING = ("Running", "Completed", "Skipped", "Failed", "Crashed", "TimedOut", "Cancelled", "Cancelling")


def sync_automations(client: SyncPrefectClient, webhook: str | None) -> tuple[str, ...]:
    """Make, change and delete volcast's automations until they are as wanted; gives the names touched."""
    wanted = {each.name: each for each in _alerts(_action(client, webhook))}
    present = {each.name: each for each in client.read_automations() if each.name.startswith(PREFIX)}
    touched = {
        name
        for name, each in wanted.items()
        if name not in present or _content(AutomationCore.model_validate(present[name].model_dump())) != _content(each)
    }
    for name in touched | (present.keys() - wanted.keys()):
        if name in present:
            client.delete_automation(present[name].id)
    for name in touched:
        client.create_automation(wanted[name])
    return tuple(sorted(touched | (present.keys() - wanted.keys())))


def _alerts(action: Any) -> list[AutomationCore]:
    ended_badly = EventTrigger(expect=_states("Failed", "Crashed", "TimedOut"), match_related=OF_VOLCAST)
    late = EventTrigger(expect=_states("Late"), match_related=OF_VOLCAST)
    pending = EventTrigger(
        after=_states("Pending"),
        expect=_states(*AFTER_PENDING),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        within=PENDING_LIMIT,
        match_related=OF_VOLCAST,
    )
    triggers = {
        "run-failed: a run failed, crashed or timed out": ended_badly,
        "run-late: a scheduled run has not started": late,
        "run-pending: a run is pending for 10 minutes": pending,
    }
    return [
        AutomationCore(name=PREFIX + name, trigger=trigger, actions=[action], tags=["volcast"])
        for name, trigger in triggers.items()
    ]


def _action(client: SyncPrefectClient, webhook: str | None) -> SendNotification | DoNothing:
    if not webhook:
        return DoNothing()
    block = CustomWebhookNotificationBlock(
        name="volcast",
        url="{{url}}",
        json_data={"text": "{{subject}}\n{{body}}"},
        secrets={"url": SecretStr(webhook)},  # type: ignore[arg-type]  # a secret, so that the UI masks it
    )
    block.save(BLOCK, overwrite=True)
    document = client.read_block_document_by_name(BLOCK, "custom-webhook")
    return SendNotification(
        block_document_id=document.id,
        subject="{{ automation.name }}",
        body="{{ flow_run.name }} is {{ flow_run.state.name }}. {{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
    )


def _states(*names: str) -> set[str]:
    return {f"prefect.flow-run.{name}" for name in names}


def _content(automation: AutomationCore) -> dict[str, Any]:
    """All that matters of an automation; sets and lists in one order."""
    dumped = automation.model_dump(mode="json", exclude={"owner_resource", "description"})
    trigger = dumped["trigger"]
    return dumped | {"trigger": {k: sorted(v) if k in ("after", "expect") else v for k, v in trigger.items()}}
