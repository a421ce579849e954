"""Alerts on real channels that are down, slow, or answer with an error, and from a real server's automations."""

import io
import logging
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args
from uuid import uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Scheduled
from rich.console import Console

from benchmarks.programs import VOLCAST, environment, run_volcast, wait_for_exit, wait_until
from benchmarks.webhooks import Webhook
from volcast.flows.alerts import (
    URLS,
    WEBHOOK,
    Alerting,
    Message,
    Outbox,
    Severity,
    channels_of,
    save_channels,
    saved_channels,
    tell,
)
from volcast.flows.deploy import Served, alerts, deploy, sync_automations
from volcast.flows.server import Server
from volcast.flows.server_options import ServerError
from volcast.flows.service import service_of
from volcast.flows.up import _environment
from volcast.storage.store import open_store
from volcast.tasks.run_tools import store_label
from volcast.tasks.settings import DataSettings, TrainingSettings, WatchSettings

STORE = "data-1a2b3c"
SECRET = "T0k3nT0k3n"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as receiver:
        yield receiver


@contextmanager
def alerting(folder: Path, *receivers: Webhook, said: io.StringIO | None = None) -> Iterator[Alerting]:
    """An outbox in the folder, with a webhook and Apprise's channels after it."""
    urls = " ".join(each.apprise_url for each in receivers[1:])
    with Alerting(folder, Console(file=said or io.StringIO(), width=200)) as opened:
        opened.use(channels_of({WEBHOOK: receivers[0].url, URLS: urls}, STORE))
        yield opened


def post(folder: Path, *codes: str, severity: Severity = "critical", body: str = "It is only a test.") -> None:
    for code in codes:
        tell(code, "a test", body, STORE, severity=severity, folder=folder)


def arrived(webhook: Webhook, *codes: str) -> bool:
    return webhook.codes() == list(codes)


def test_what_a_channel_that_is_down_could_not_be_sent_is_sent_in_order_once_it_is_back(
    tmp_path: Path, webhook: Webhook
) -> None:
    said = io.StringIO()
    with Webhook() as other, alerting(tmp_path, webhook, other, said=said):
        post(tmp_path, "first")
        wait_until(lambda: arrived(webhook, "first") and arrived(other, "first"), what="both have it")
        webhook.stop()
        post(tmp_path, "second", "third")
        wait_until(lambda: arrived(other, "first", "second", "third"), what="the other channel has all")
        wait_until(lambda: "VOLCAST_ALERT_WEBHOOK fails: it does not answer (ConnectError)" in said.getvalue(), what="")
        assert webhook.codes() == ["first"]
        webhook.start()
        wait_until(lambda: arrived(webhook, "first", "second", "third"), what="the webhook has all")
    assert said.getvalue().count("fails") == 1
    assert len({each["id"] for each in webhook.posts}) == 3


def test_what_was_kept_when_it_ended_is_sent_by_the_next_one_to_the_url_of_then(
    tmp_path: Path, webhook: Webhook
) -> None:
    with alerting(tmp_path, webhook):
        post(tmp_path, "first")
        wait_until(lambda: arrived(webhook, "first"), what="it has the first")
        webhook.stop()
        post(tmp_path, "second")
    with Webhook() as mended:
        with alerting(tmp_path, mended):
            wait_until(lambda: arrived(mended, "second"), what="the mended one has the second, and only that")
            post(tmp_path, "third")  # at the end each channel is tried once more
        assert arrived(mended, "second", "third")
        with alerting(tmp_path, mended):
            assert Outbox(tmp_path).next(channels_of({WEBHOOK: mended.url}, STORE)[0], after=3) is None
        assert arrived(mended, "second", "third")
    webhook.start()


def test_an_error_is_tried_again_and_a_slow_answer_is_waited_for(tmp_path: Path, webhook: Webhook) -> None:
    webhook.refusals, webhook.answer_seconds = [500, 302], 4  # longer than several looks into the outbox
    with alerting(tmp_path, webhook):
        post(tmp_path, "first", "second")
        wait_until(lambda: arrived(webhook, "first", "second"), what="both are there")
        channel = channels_of({WEBHOOK: webhook.url}, STORE)[0]
        wait_until(lambda: Outbox(tmp_path).begin(channel.key, 0) == 2, what="the answer has come")
    assert arrived(webhook, "first", "second")


def test_a_new_channel_is_not_told_of_the_past(tmp_path: Path, webhook: Webhook) -> None:
    with alerting(tmp_path, webhook) as opened, Webhook() as new:
        post(tmp_path, "first")
        opened.use(channels_of({WEBHOOK: webhook.url, URLS: new.apprise_url}, STORE))
        post(tmp_path, "second")
        wait_until(lambda: arrived(new, "second"), what="the new channel has the second")


def test_the_severity_is_in_the_words_and_in_the_json(tmp_path: Path, webhook: Webhook) -> None:
    kinds = {"info": "info", "warning": "warning", "critical": "failure"}  # Apprise's own names of them
    with Webhook() as other, alerting(tmp_path, webhook, other):
        for severity in get_args(Severity):
            post(tmp_path, "drill", severity=severity)
        wait_until(lambda: len(webhook.posts) == len(other.posts) == 3, what="all are there")
    assert [post["severity"] for post in webhook.posts] == list(kinds)
    assert [post["type"] for post in other.posts] == list(kinds.values())
    titles = [f"{severity.upper()} volcast alert drill: a test ({STORE})" for severity in kinds]
    assert [text.splitlines()[0] for text in webhook.texts] == titles == [post["title"] for post in other.posts]
    assert other.posts[0]["message"] == "It is only a test.\nWhat to do: docs/operate.md, drill"


def test_a_message_that_is_late_says_of_when_it_is() -> None:
    at = datetime(2026, 3, 9, 22, 15, tzinfo=UTC).isoformat()
    message = Message(code="drill", severity="info", subject="s", body="b", store=STORE, at=at)
    assert message.words == "b\nSent late: it is of 2026-03-09 22:15 UTC."


@pytest.mark.parametrize("given", [{WEBHOOK: f"hooks.example/{SECRET}"}, {URLS: f"slakc://{SECRET}/b/c"}])
def test_a_url_that_can_be_no_channel_is_refused_by_its_variable(given: dict[str, str]) -> None:
    with pytest.raises(ServerError, match="VOLCAST_ALERT_") as refused:
        channels_of(given, STORE)
    assert SECRET not in str(refused.value)


def test_no_line_and_no_message_has_a_channel_s_secret(
    tmp_path: Path, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    said = io.StringIO()
    given = {WEBHOOK: f"{webhook.url}/{SECRET}", URLS: f"json://me:{SECRET}@127.0.0.1:{webhook.port}/{SECRET}"}
    webhook.refusals = [500] * 2
    with caplog.at_level(logging.INFO), Alerting(tmp_path, Console(file=said)) as opened:
        channels = channels_of(given, STORE)
        opened.use(channels)
        post(tmp_path, "drill", body=f"from http://u:{SECRET}@h/x")
        wait_until(lambda: len(webhook.posts) == 2, what="both are there")
    written = said.getvalue() + caplog.text + repr(channels) + str(webhook.posts)
    written += "".join(path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*"))
    assert "fails" in said.getvalue()
    assert SECRET not in written


@pytest.fixture
def client(prefect_api: Server) -> Iterator[SyncPrefectClient]:
    assert prefect_api.own
    with get_client(sync_client=True) as client:
        yield client
        for automation in client.read_automations():
            client.delete_automation(automation.id)


def send(client: SyncPrefectClient, event: str, root: str, words: str) -> None:
    """An event, as a run of a store would send it."""
    resource = {"prefect.resource.id": f"{event}.{root}", "volcast.root": root}
    sent = {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": event, "resource": resource}
    client._client.post("/events", json=[{**sent, "payload": {"words": words}}])


def test_what_an_automation_tells_reaches_the_channels_of_its_own_store_once(
    client: SyncPrefectClient, tmp_path: Path, webhook: Webhook
) -> None:
    roots, said = ("file:///one", "file:///other"), io.StringIO()
    with Webhook() as other, Alerting(tmp_path, Console(file=said)) as opened:
        for root, receiver in zip(roots, (webhook, other), strict=True):
            sync_automations(client, alerts(root), root)
            save_channels(client, {WEBHOOK: receiver.url}, store_label(root))
        opened.collect(client)

        def told() -> bool:
            opened.collect(client)
            return bool(webhook.posts and other.posts)

        for root in roots:
            send(client, "volcast.prices.stale", root, f"The prices end early, see http://u:{SECRET}@h/x.")
            send(client, "volcast.no.alert", root, "Nobody waits for this.")
        wait_until(told, what="both are told")
        sync_automations(client, [], roots[0])
        opened.collect(client)
    with Alerting(tmp_path, Console(file=said)) as opened:
        opened.collect(client)
    for root in roots:
        save_channels(client, {}, store_label(root))
    (text,) = webhook.texts
    first = f"CRITICAL volcast alert prices-stale: no new prices ({store_label(roots[0])})"
    assert text == (f"{first}\nThe prices end early, see http://…@h/x.\nWhat to do: docs/operate.md, prices-stale")
    assert other.codes() == ["prices-stale"]
    assert other.posts[0]["store"] == store_label(roots[1])
    assert said.getvalue() == ""


def test_the_command_sends_the_alerts_of_the_configured_server_until_it_is_interrupted(
    client: SyncPrefectClient, prefect_api: Server, tmp_path: Path, webhook: Webhook
) -> None:
    root, known = "file:///commanded", {"PREFECT_API_URL": prefect_api.api_url}
    known |= {"PREFECT_API_AUTH_STRING": prefect_api.auth} if prefect_api.auth else {}
    assert "set PREFECT_API_URL" in run_volcast(tmp_path, "alerts").stderr
    sync_automations(client, alerts(root), root)
    save_channels(client, {WEBHOOK: webhook.url}, store_label(root))
    log = tmp_path / "alerts.log"
    with log.open("w") as out:
        command = subprocess.Popen([*VOLCAST, "alerts"], env=environment(tmp_path) | known, stdout=out, stderr=out)
        wait_until(lambda: "are sent until" in log.read_text(), what="it runs", lives=lambda: command.poll() is None)
        send(client, "volcast.champion.moved", root, "Promoted: a test.")
        wait_until(lambda: webhook.posts, what="it sends", lives=lambda: command.poll() is None)
        command.send_signal(signal.SIGINT)
        assert wait_for_exit(command, tmp_path) == 0
    save_channels(client, {}, store_label(root))
    assert webhook.texts[0].startswith("INFO volcast alert champion-moved: another version forecasts")
    assert "Promoted: a test." in webhook.texts[0]


def test_a_late_run_a_deadline_that_nobody_looks_at_and_no_worker_are_told_and_found(
    client: SyncPrefectClient, tmp_path: Path
) -> None:
    data, watch = DataSettings(source="simulated", store=str(tmp_path)), WatchSettings(forecast_by="18:15")
    with Webhook() as webhook, Alerting(tmp_path, Console(file=io.StringIO())) as opened:
        client.create_work_pool(WorkPoolCreate(name="volcast", type="process"), overwrite=True)
        deploy(Served(data, TrainingSettings(), watch), {"VOLCAST_POOL": "volcast", WEBHOOK: webhook.url})
        opened.collect(client)
        (monitor,) = (each for each in client.read_deployments() if each.name.startswith("monitor."))
        ago = Scheduled(scheduled_time=datetime.now(UTC) - timedelta(minutes=1))
        client.create_flow_run_from_deployment(monitor.id, state=ago)  # and there is no worker

        def told() -> bool:
            opened.collect(client)
            return len(webhook.posts) == 2

        wait_until(told, what="the server has seen that the run is late")
        found = {finding.code: finding for finding in service_of(data.root).findings}
        for deployment in client.read_deployments():
            client.delete_deployment(deployment.id)
        save_channels(client, {}, store_label(open_store(data.root).url))
    assert sorted(webhook.codes()) == ["deadline-missed", "run-late"]
    (text,) = (text for text in webhook.texts if "deadline-missed" in text)
    assert "nobody could look whether there is a forecast" in text
    assert " is Late." in text
    assert found["RUN_LATE"].words.endswith(" of monitor has not started.")
    assert found["WORKER_DOWN"].words == "No worker is online: no run starts."
    assert all(found[code].needs_person for code in ("RUN_LATE", "WORKER_DOWN"))


def test_the_channels_are_kept_on_the_server_as_a_secret_and_go_when_there_are_none(client: SyncPrefectClient) -> None:
    given = {WEBHOOK: f"https://hooks.example/{SECRET}", URLS: f"json://me:{SECRET}@127.0.0.1/x"}
    save_channels(client, given, STORE)
    assert saved_channels(client) == channels_of(given, STORE)
    listed = client._client.post("/block_documents/filter", json={}).text
    assert f"volcast-alert-{STORE}" in listed
    assert SECRET not in listed
    save_channels(client, {}, STORE)
    assert saved_channels(client) == []


def test_worker_and_runs_are_not_given_the_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEBHOOK, f"https://hooks.example/{SECRET}")
    monkeypatch.setenv(URLS, f"json://me:{SECRET}@127.0.0.1/x")
    served = Served(DataSettings(source="simulated", store=str(tmp_path)), TrainingSettings())
    assert SECRET not in str(_environment(Server("http://127.0.0.1:1/api"), served))


def test_messages_older_than_a_month_are_not_sent_any_more(tmp_path: Path) -> None:
    outbox, (channel,) = Outbox(tmp_path), channels_of({WEBHOOK: "http://127.0.0.1:9/x"}, STORE)
    old = Message(code="old", severity="info", subject="s", body="b", store=STORE)
    outbox.keep(Message(**{**vars(old), "at": (datetime.now(UTC) - timedelta(days=31)).isoformat()}))
    outbox.keep(Message(code="new", severity="info", subject="s", body="b", store=STORE))
    found = outbox.next(channel, after=0)
    assert found is not None
    assert found[1].code == "new"
