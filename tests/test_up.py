"""`volcast up` with a password: one start for all tests of this file."""

import asyncio
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect.server.api.server import SubprocessASGIServer
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker
from rich.console import Console

from benchmarks.programs import CODE, ENDLESS, QUICK, Up, processes_of, run_volcast, wait_until
from benchmarks.webhooks import Webhook
from volcast.flows import up as up_module
from volcast.flows.alerts import WEBHOOK, Alerting, channels_of
from volcast.flows.deploy import PROJECT_FILE
from volcast.flows.up import MANY_DEATHS, POOL, TEMPLATE, OwnAlerts, Worker

pytestmark = pytest.mark.service

PASSWORD = "s3cr3t, with a space"


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with Webhook() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def up(webhook: Webhook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        taken.listen()
        options = ["--host", "127.0.0.2", "--port", str(taken.getsockname()[1])]
        variables = {"VOLCAST_AUTH": f"operator:{PASSWORD}", "VOLCAST_ALERT_WEBHOOK": webhook.url}
        with Up(tmp_path_factory.mktemp("up"), *options, **variables) as started:
            yield started


def test_up_says_what_is_there_and_how_long_it_took(up: Up) -> None:
    names = {item["name"] for item in yaml.safe_load(PROJECT_FILE.read_text())["deployments"]}
    assert set(up.deployments) == names
    assert f"Server: {str(up.api.base_url).rstrip('/')} answers, on SQLite; it asks for user" in up.said
    assert re.search(r"Worker: volcast-\S+ is online", up.said)
    assert f"Deployments: {len(names)} with 4 schedules; new or changed: {len(names)}, and " in up.said
    assert f"Prefect's UI: {str(up.api.base_url).removesuffix('/api/')}/v2\nTo log in: volcast ui\n" in up.said
    assert int(re.findall(r"Ready after (\d+) s", up.said)[0]) > 0


def test_up_says_what_it_does_before_it_is_done(up: Up) -> None:
    firsts = [line.split()[0] for line in up.said.splitlines() if not line.startswith(("Source", "Waiting"))]
    assert firsts[:5] == ["Starting", "Server:", "Starting", "Deployments:", "Worker:"]


def test_a_port_that_is_taken_is_left_alone(up: Up) -> None:
    assert up.options[-1] != str(up.api.base_url.port)
    assert up.api.base_url.host == "127.0.0.2"


def test_nobody_gets_in_without_the_password_nor_past_a_foreign_page(up: Up) -> None:
    url = str(up.api.base_url).rstrip("/")
    assert httpx.get(f"{url}/admin/version", trust_env=False).status_code == 401
    assert httpx.get(f"{url}/admin/version", trust_env=False, auth=("operator", "guess")).status_code == 401
    assert up.api.get("/admin/version").status_code == 200
    assert httpx.post(f"{url}/flow_runs/filter", json={}, trust_env=False, auth=up.api.auth).status_code == 403
    assert up.api.post("/flow_runs/filter", json={}).status_code == 200


def test_the_password_is_nowhere_but_in_a_file_of_the_users_own(up: Up) -> None:
    commands = processes_of(up.folder)
    assert {word for command in commands.values() for word in ("server", "worker", "up") if f" {word} " in command}
    assert not any(PASSWORD in command for command in commands.values())
    assert not any(PASSWORD.encode() in log.read_bytes() for log in up.folder.glob("**/*.log"))
    assert stat.S_IMODE((up.folder / "home" / "server.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((up.folder / "home").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "variables", [{"command": "touch /tmp/pwned"}, {"env": {"PYTHONPATH": "/tmp"}}, {"env.X": "1"}]
)
def test_nobody_changes_what_a_run_of_the_pool_executes_not_even_with_the_password(
    up: Up, variables: dict[str, Any]
) -> None:
    deployment = up.deployments["verify"]
    path = f"/deployments/{deployment['id']}"
    run = {"state": {"type": "SCHEDULED"}, "job_variables": variables}
    action = {"type": "run-deployment", "source": "selected", "deployment_id": deployment["id"]}
    automation = {
        "name": "forged",
        "trigger": {"type": "event", "posture": "Reactive", "expect": ["x"], "threshold": 1, "within": 0},
        "actions": [action | {"job_variables": variables}],
    }
    new = {"name": "forged", "flow_id": deployment["flow_id"], "work_pool_name": POOL, "job_variables": variables}
    attempts = {
        ("post", f"{path}/create_flow_run"): run,
        ("post", "/deployments/"): new,
        ("post", "/automations/"): automation,
    }
    for (method, where), body in attempts.items():
        with pytest.raises(httpx.HTTPStatusError, match=r"4(09|22)"):
            up.api.request(method, where, json=body)
    assert {item["name"] for item in up.api.post("/automations/filter", json={}).json()}.isdisjoint({"forged"})
    up.api.patch(path, json={"job_variables": variables})  # Prefect stores it: the worker must not follow it
    stored = up.deployments["verify"]["job_variables"]
    up.api.patch(path, json={"job_variables": {}})
    configuration = asyncio.run(ProcessJobConfiguration.from_template_and_values(TEMPLATE, stored))
    assert stored == variables
    assert (configuration.command, configuration.env) == (TEMPLATE["job_configuration"]["command"], {})


def test_a_pool_of_an_earlier_release_is_brought_to_one_command(up: Up) -> None:
    pool = up.api.get(f"/work_pools/{POOL}").json()
    earlier = ProcessWorker.get_default_base_job_template()
    up.api.patch(f"/work_pools/{POOL}", json={"base_job_template": earlier, "concurrency_limit": 3})
    said = run_volcast(up.folder, "deploy")
    assert said.returncode == 0, said.stderr
    mended = up.api.get(f"/work_pools/{POOL}").json()
    assert mended["base_job_template"] == pool["base_job_template"] == TEMPLATE
    assert mended["concurrency_limit"] == 3  # by hand, and left


def test_what_the_server_stores_holds_no_password(up: Up) -> None:
    stored = [up.api.post(f"/{what}/filter", json={}).text for what in ("deployments", "work_pools", "flow_runs")]
    assert not any(PASSWORD in each for each in stored)


def test_the_browser_finds_the_api_where_it_found_the_ui(up: Up) -> None:
    settings = httpx.get(str(up.api.base_url).replace("/api/", "/ui-settings"), trust_env=False).json()
    assert (settings["api_url"], settings["auth"], settings["csrf_enabled"]) == ("/api", "BASIC", True)


def test_cron_schedules_create_runs(up: Up) -> None:
    assert all(re.search(r"T(21|22):30:00", start) for start in up.scheduled("daily"))  # 17:30 in New York


def test_a_run_of_a_deployment_completes_and_a_command_of_the_folder_uses_the_server(up: Up) -> None:
    run = up.train(QUICK)
    assert up.ended(run)["type"] == "COMPLETED"
    assert (up.folder / "data" / "simulated-0" / "forecasts").is_dir()
    used = run_volcast(up.folder, "ingest", "--tickers", "SBUX", "--as-of", "2004-06-28")
    assert used.returncode == 0, used.stderr
    assert str(up.api.base_url).removesuffix("/api/") in used.stdout


def test_ctrl_c_ends_everything_also_a_run_and_the_webhook_is_told_that_it_was_meant(up: Up, webhook: Webhook) -> None:
    pid = up.wait_for_training(up.train(ENDLESS))
    assert pid in processes_of(up.folder, "flow_process")
    assert up.end() == 0
    assert [text.split(":")[0] for text in webhook.texts if " up-" in text] == ["INFO volcast alert up-stopped"]
    assert processes_of(up.folder) == {}
    assert not (up.folder / "home" / "server.json").exists()


@pytest.fixture
def own_alerts(webhook: Webhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[OwnAlerts]:
    monkeypatch.setenv("VOLCAST_HOME", str(tmp_path))
    webhook.posts.clear()
    with Alerting(tmp_path, Console(), channels_of({WEBHOOK: webhook.url}, "data-1")):
        yield OwnAlerts(Console(), "data-1")


def test_a_worker_that_keeps_dying_is_told_once(
    own_alerts: OwnAlerts, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(up_module, "LONGEST_WAIT", 0)
    worker = Worker({"PYTHONHOME": "/not/there"}, tmp_path / "worker.log")  # Python itself does not start so
    for deaths in range(1, MANY_DEATHS + 3):
        wait_until(lambda: worker.has_died, what="the worker has died")
        worker.tend(Console(), own_alerts)
        worker.tend(Console(), own_alerts)
        assert deaths >= MANY_DEATHS or webhook.codes() == []
    worker.end()
    wait_until(webhook.codes, what="it is told")
    assert webhook.codes() == ["worker-dying"]


def test_a_server_that_is_silent_for_long_is_told_once_and_again_after_an_answer(
    own_alerts: OwnAlerts, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_alerts.note_answer(httpx.ConnectError("refused"))
    assert webhook.codes() == []
    servers = dict(SubprocessASGIServer._instances)
    monkeypatch.setattr(up_module, "SILENT_SECONDS", -1)
    for _ in range(2):
        own_alerts.note_answer(httpx.ConnectError("refused"))
        own_alerts.note_answer(httpx.ConnectError("refused"))
        own_alerts.note_answer(None)
    wait_until(lambda: len(webhook.codes()) >= 2, what="it is told")
    assert webhook.codes() == ["server-silent"] * 2
    assert servers == SubprocessASGIServer._instances  # none was started to hear of it


def test_what_up_tells_itself_and_what_status_finds_of_it_is_in_the_operators_guide() -> None:
    code = (CODE / "flows" / "up.py").read_text()
    codes = set(re.findall(r'tell\(\s*"([a-z-]+)"', code))
    assert codes == {"up-stopped", "up-died", "up-again", "worker-dying", "server-silent"}
    guide = (CODE / "docs" / "operate.md").read_text()
    assert [each for each in codes if f"### {each}\n" not in guide] == []
    found = set(re.findall(r'"([A-Z]+_[A-Z]+)"', (CODE / "flows" / "service.py").read_text()))
    assert {"SERVER_DOWN", "RUN_FAILED"} <= found
    assert [each for each in found if f"\n| {each} | " not in guide] == []
