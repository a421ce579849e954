"""The service as it runs: events start flows, a person approves, alerts reach a webhook once, and a rollback undoes.

The tests are one story in their order: each starts from what the one before it left, and none passes alone.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

import httpx
import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.programs import BEATS_HAR, CODE, Up, run_volcast
from benchmarks.webhooks import Webhook
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.ledger import Ledger
from volcast.storage.store import open_store
from volcast.tasks.run_tools import store_label
from volcast.tasks.stored_models import CHAMPION, HELD

pytestmark = pytest.mark.service

TRAINING = {"recipe": "volume", "device": "cpu", "settings": BEATS_HAR}
FIRST, LATER = "2004-06-28", "2004-07-13"  # ten sessions later


class Service:
    """`volcast up` with a webhook: runs of its deployments, by API."""

    def __init__(self, up: Up, webhook: Webhook) -> None:
        self.up, self.api, self.folder, self.webhook = up, up.api, up.folder, webhook
        self.deployments = up.deployments

    @property
    def root(self) -> str:
        return str(self.folder / "data" / "simulated-0")

    def use(self, as_of: str) -> None:
        """Let every deployment train quickly, on few tickers, as of a date."""
        data = {"source": "simulated", "store": str(self.folder / "data"), "as_of": as_of, "tickers": ["SBUX", "T2"]}
        for name in ("ingest", "daily", "retrain", "forecast"):
            item = self.deployments[name]
            parameters = item["parameters"] | {"data": data} | ({} if name == "ingest" else {"training": TRAINING})
            self.api.patch(f"/deployments/{item['id']}", json={"parameters": parameters})

    @property
    def root_url(self) -> str:
        return open_store(self.root).url

    def send(self, event: str, root: str) -> None:
        """An event, as a run of a store would send it."""
        resource = {"prefect.resource.id": f"{event}.{root}", "volcast.root": root}
        sent = {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": event, "resource": resource}
        self.api.post("/events", json=[{**sent, "payload": {"words": "Sent by a test."}}])

    def start(self, name: str, **parameters: object) -> str:
        """Start a run by hand; gives its id."""
        path = f"/deployments/{self.deployments[name]['id']}/create_flow_run"
        return self.api.post(path, json={"state": {"type": "SCHEDULED"}, "parameters": parameters}).json()["id"]

    def state(self, run_id: str) -> dict[str, Any]:
        return self.up.flow_run(run_id)["state"]

    def ended(self, run_id: str) -> dict[str, Any]:
        """The run's final state."""
        return self.up.ended(run_id)

    def form(self, run_id: str) -> str:
        """What the form asks with which a run waits for an approval; Prefect keeps it after the state."""
        path, asked = f"/flow_runs/{run_id}/input/filter", {"prefix": "suspended-approve-1-description"}
        self.up.wait(lambda: self.api.post(path, json=asked).json(), "the form")
        return self.api.post(path, json=asked).json()[0]["value"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`volcast up` with a webhook and approvals, and its deployments on a small exchange."""
    with Webhook() as webhook:
        variables = {
            "VOLCAST_ALERT_WEBHOOK": webhook.url,
            "VOLCAST_ALERT_URLS": webhook.apprise_url,
            "VOLCAST_REQUIRE_APPROVAL": "true",
        }
        with Up(tmp_path_factory.mktemp("service"), **variables) as up:
            service = Service(up, webhook)
            service.use(FIRST)
            yield service


def test_the_whole_loop_from_new_prices_to_an_approved_model_and_back(service: Service) -> None:
    """One story, for each of its steps is what the next one starts from."""
    # prices are published: a forecast starts by itself, by har as long as there is no model
    assert service.ended(service.start("ingest"))["type"] == "COMPLETED"
    (by_har,) = service.up.ended_runs("forecast", 1)
    assert by_har["state"]["type"] == "COMPLETED"
    assert set(published(service)["model"]) == {"har"}
    assert service.webhook.texts == []

    # a daily finds that har stands in and that nothing was ever trained: an alert, and a retraining that is held
    assert service.ended(service.start("daily"))["type"] == "COMPLETED"
    service.up.wait(lambda: len(service.up.runs("retrain")) == 1, "the retraining")
    (held,) = service.up.runs("retrain")
    assert held["parameters"]["why"] == {"cause": "sessions", "require_approval": True}
    service.up.wait(lambda: service.state(held["id"])["type"] in ("PAUSED", "COMPLETED", "FAILED"), "the question")
    assert service.state(held["id"])["name"] == "Suspended", service.state(held["id"])
    service.up.wait(lambda: "approval-wanted" in service.webhook.codes(), "the alert")
    service.up.wait(lambda: len(service.webhook.codes()) == 4, "the alerts on both channels")
    assert sorted(service.webhook.codes()) == ["approval-wanted"] * 2 + ["fallback-used"] * 2
    status = run_volcast(service.folder, "status")
    assert (status.returncode, "APPROVAL_WANTED The run retrain volume" in status.stdout) == (1, True), status.stdout
    assert "no version of volume has passed the gate yet" in " ".join(service.webhook.texts)
    by_webhook, by_apprise = (text for text in service.webhook.texts if "approval-wanted" in text)
    assert by_webhook == by_apprise
    title, asked, link, guide = by_webhook.splitlines()
    assert title.startswith("WARNING volcast alert approval-wanted: a model waits for a yes (simulated-0-")
    assert asked.startswith("model volume v1 waits for a yes to forecast as the first champion. Passed the gate: MASE ")
    assert asked.endswith("Trained because: enough new sessions.")
    assert link.endswith(f"/v2/runs/flow-run/{held['id']}")
    assert guide == "What to do: docs/operate.md, approval-wanted"
    artifacts = ArtifactStore(open_store(service.root))
    assert artifacts.alias("model", "volume", CHAMPION) is None
    assert artifacts.alias("model", "volume", HELD) is not None
    assert asked in service.form(held["id"])

    # the answer starts the same run again, which promotes the version that it held, and a forecast by it
    service.up.answer(held["id"], "yes", "the scorecard is good")
    service.up.wait(lambda: service.state(held["id"])["type"] == "COMPLETED", "the promotion")
    promoted = service.state(held["id"])
    assert promoted["message"].startswith("Promoted volume v1: MASE ")
    assert promoted["message"].endswith("Approved: the scorecard is good")
    assert service.up.flow_run(held["id"])["name"].endswith(": promoted v1")
    assert artifacts.versions("model", "volume") == [1]
    service.up.wait(lambda: "champion-moved" in service.webhook.codes(), "the alert")
    (text, *_) = (text for text in service.webhook.texts if "champion-moved" in text)
    assert text.splitlines()[1].startswith("Promoted: model volume v1 forecasts as the first champion. MASE ")
    service.up.ended_runs("forecast", 2)
    assert set(published(service)["model"]) == {"volcast"}


def test_a_pipeline_that_was_started_by_hand_holds_what_passed_for_a_persons_yes(service: Service) -> None:
    data = service.deployments["ingest"]["parameters"]["data"] | {"as_of": FIRST, "store": str(service.folder / "data")}
    state = service.ended(service.start("pipeline", data=data, training=TRAINING | {"name": "other"}))
    assert state["type"] == "COMPLETED"
    assert "; Held other v1: model other v1 waits: volcast models promote other --version 1 " in state["message"]
    assert "forecast other v1 by har, a fallback: no version of other has passed the gate yet" in state["message"]
    service.up.wait(lambda: "model other v1 waits" in " ".join(service.webhook.texts), "the alert")
    (asked, *_) = (text for text in service.webhook.texts if "model other v1 waits" in text)
    assert asked.startswith("WARNING volcast alert approval-wanted: ")
    assert "Its run cannot wait; to say yes: volcast models promote other --version 1 --reason …" in asked
    artifacts = ArtifactStore(open_store(service.root))
    assert artifacts.alias("model", "other", CHAMPION) is None
    assert artifacts.alias("model", "other", HELD) is not None


def test_three_missed_days_are_caught_up_by_one_run_and_enough_sessions_retrain(service: Service) -> None:
    service.use(LATER)
    state = service.ended(service.start("daily"))
    assert state["type"] == "COMPLETED"
    scores = Ledger(open_store(service.root)).scores("volume", first=date.fromisoformat(FIRST))
    assert len(set(scores["ds"])) == 10
    service.up.wait(lambda: len(service.up.runs("retrain")) == 2, "the retraining after ten sessions")
    second = service.up.runs("retrain")[1]
    assert second["parameters"]["why"]["cause"] == "sessions"
    service.up.wait(lambda: service.state(second["id"])["type"] in ("PAUSED", "COMPLETED"), "its gate")
    if service.state(second["id"])["type"] == "PAUSED":
        service.up.answer(second["id"], "no", "not before the holiday")
        assert service.ended(second["id"])["message"].startswith(
            "Refused volume v2: not before the holiday. The gate had said: "
        )
        service.up.wait(lambda: "approval-refused" in service.webhook.codes(), "the alert")
    else:
        assert service.state(second["id"])["message"].startswith("Kept volume v2: ")
    entry = ArtifactStore(open_store(service.root)).alias("model", "volume", CHAMPION)
    assert entry is not None
    assert entry.version == 1


def test_a_breach_starts_one_retraining_and_no_other_until_it_has_cooled_down(service: Service) -> None:
    before = len(service.up.runs("retrain"))
    versions = ArtifactStore(open_store(service.root)).versions("model", "volume")
    service.send("volcast.quality.breached", service.root_url)
    (*_, first) = service.up.ended_runs("retrain", before + 1)
    assert first["parameters"]["why"]["cause"] == "quality"
    assert first["state"]["message"].startswith("Skipped: ")  # trained on the same data a moment ago
    service.send("volcast.quality.breached", "file:///another/store")
    service.send("volcast.quality.breached", service.root_url)  # what the one before it started would be there first
    service.up.ended_runs("retrain", before + 2)
    assert len(service.up.runs("retrain")) == before + 2
    assert ArtifactStore(open_store(service.root)).versions("model", "volume") == versions


def test_a_failed_run_is_told_once_and_a_healthy_one_is_silent(service: Service) -> None:
    assert service.ended(service.start("verify"))["type"] == "COMPLETED"
    service.webhook.posts.clear()
    bad = {"source": "files:/not/there.csv", "store": str(service.folder / "data")}
    assert service.ended(service.start("ingest", data=bad))["type"] == "FAILED"
    service.up.wait(lambda: len(service.webhook.texts) >= 2, "the alert on both channels")
    assert service.ended(service.start("ingest", data=bad | {"tickers": ["T9"]}))["type"] == "FAILED"
    service.up.wait(lambda: len(service.webhook.texts) >= 4, "another alert; one that came twice is there first")
    texts = [text for text in service.webhook.texts if "T9" not in text]
    text, same = texts
    assert text == same
    assert text.startswith("CRITICAL volcast alert run-failed: a run failed, crashed or timed out")
    assert "/not/there.csv" in text
    assert "What to do: docs/operate.md, run-failed" in text


def test_a_rollback_and_forward_again_by_the_ui_and_by_the_command_line_stand_in_the_history(service: Service) -> None:
    artifacts = ArtifactStore(open_store(service.root))
    versions = artifacts.versions("model", "volume")
    if len(versions) < 2:
        pytest.fail("the second retraining left no version")
    forecasts = len(service.up.runs("forecast"))
    state = service.ended(service.start("promote", model="volume", version=versions[-1], reason="a trial"))
    assert state["type"] == "COMPLETED"
    service.up.ended_runs("forecast", forecasts + 1)
    assert set(published(service)["model_version"]) == {versions[-1]}
    said = run_volcast(service.folder, "models", "rollback", "volume", "--reason", "the trial is over")
    assert said.returncode == 0, said.stderr
    assert "volume v1 forecasts since" in said.stdout
    listed = run_volcast(service.folder, "models", "list")
    assert "a trial" in listed.stdout
    assert "the trial is over" in listed.stdout
    assert "was told" in said.stdout
    service.up.ended_runs("forecast", forecasts + 2)
    assert set(published(service)["model_version"]) == {1}
    service.up.wait(lambda: "Rolled back: volume v1" in " ".join(service.webhook.texts), "the alert")
    assert "Promoted by hand: volume v2" in " ".join(service.webhook.texts)


def test_status_knows_the_runs_what_is_switched_off_and_the_worker(service: Service) -> None:
    daily = service.deployments["daily"]
    path = f"/deployments/{daily['id']}/schedules/{daily['schedules'][0]['id']}"
    service.api.patch(path, json={"active": False})
    assert service.ended(service.start("verify", store=str(service.folder / "nothing")))["type"] == "FAILED"
    status = run_volcast(service.folder, "status")
    assert status.returncode == 1
    assert re.search(r"workers online: volcast-\S+", status.stdout)
    assert "RUN_FAILED The last run verify" in status.stdout
    assert "SWITCHED_OFF Off, by a person: daily's schedule weekdays-after-the-close." in status.stdout
    ends = {line.split()[0]: line for line in status.stdout.splitlines() if re.search(r"20\d\d-\d\d-\d\d \d\d:", line)}
    assert set(ends) == {"backtest", "daily", "retrain", "verify"}
    assert re.search(r"E[SD]T .*Completed: ", ends["daily"])
    assert "Failed: " in ends["verify"]


def test_prometheus_finds_how_the_store_stands_and_every_run_that_has_ended(service: Service) -> None:
    url, auth = service.up.access.url, httpx.BasicAuth(*service.up.access.auth.split(":"))
    assert httpx.get(f"{url}/metrics", trust_env=False).status_code == 401

    def scraped() -> dict[tuple[str, ...], float]:
        """Name and the values of the labels, without the store's -> the value."""
        answer = httpx.get(f"{url}/metrics", trust_env=False, auth=auth)
        families = list(text_string_to_metric_families(answer.text))
        assert {sample.labels["store"] for each in families for sample in each.samples} == {
            store_label(service.root_url)
        }
        return {
            (
                sample.name,
                *(value for name, value in sample.labels.items() if name not in ("store", "model")),
            ): sample.value
            for each in families
            for sample in each.samples
            if sample.labels.get("model", "volume") == "volume"
        }

    failed = sum(run["state"]["type"] == "FAILED" for run in service.up.ended_runs("verify", 2))
    service.up.wait(lambda: scraped()["volcast_runs_total", "verify", "Failed"] >= failed, "every run is counted")
    found = scraped()
    assert found["volcast_runs_total", "verify", "Completed"] >= 1
    assert found["volcast_runs_total", "backtest", "Crashed"] == 0  # from the start, so that the first is seen
    health = ArtifactStore(open_store(service.root)).get("health", "volume")
    facts: Any = health.facts
    assert found["volcast_monitored_timestamp_seconds",] == pytest.approx(health.created_at.timestamp())
    assert found["volcast_prices_sessions_behind",] == facts["behind"]
    assert found["volcast_model_age_sessions",] == facts["model_age"]
    assert found["volcast_fallback_in_use",] == (facts["by"] == "har")
    skill = next(row for row in facts["skill"] if (row["ticker"], row["sessions"]) == ("all", 5))
    assert found["volcast_live_mase", "5"] == pytest.approx(skill["mase"])
    assert found["volcast_live_coverage", "80", "5"] == pytest.approx(skill["coverage_80"])
    codes = {name[1] for name in found if name[0] == "volcast_finding"}
    assert codes == {finding["code"] for finding in facts["findings"]}
    guide = (CODE / "docs" / "operate.md").read_text()
    assert [name for name, *_ in found if f"`{name}`" not in guide] == []


def published(service: Service) -> pd.DataFrame:
    """The rows of the newest published forecast."""
    ledger = Ledger(open_store(service.root))
    cutoff = ledger.newest_cutoff("volume")
    assert cutoff is not None
    rows = ledger.forecasts("volume", first=cutoff)
    newest = rows.loc[rows["published"]]
    return newest.loc[newest["version"] == newest["version"].max()]
