from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prefect import Flow
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate

from flows.automations import PREFIX, alerts
from flows.deploy import PROJECT_FILE, TRIGGER, _filled, deploy
from flows.server import Server
from tasks.events import Event

ROOT = Path(__file__).parents[1]
APPROVAL = {"VOLCAST_REQUIRE_APPROVAL": "true"}
ALLOWED_AT_TOP = {name.replace("_", "-") for name in PrefectYamlModel.model_fields} | {"definitions"}


def project() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "prefect.yaml").read_text())


def unknown_keys(document: dict[str, Any]) -> set[str]:
    """Keys that Prefect would ignore without a word."""
    found = set(document) - ALLOWED_AT_TOP
    for deployment in document["deployments"]:
        found |= set(deployment) - set(DeploymentConfig.model_fields)
        for schedule in deployment.get("schedules", []):
            found |= set(schedule) - set(RawScheduleConfig.model_fields)
        for trigger in deployment.get("triggers", []):
            found |= set(trigger) - set(DeploymentEventTrigger.model_fields)
        found |= set(deployment.get("concurrency_limit", {})) - set(ConcurrencyLimitSpec.model_fields)
        found |= set(deployment["work_pool"]) - set(WorkPoolConfig.model_fields)
    return found


def test_prefect_yaml_has_no_key_that_prefect_ignores() -> None:
    assert unknown_keys(project()) == set()


def test_a_misspelt_key_is_found() -> None:
    document = project()
    document["deployments"][0]["scheduls"] = []
    document["deployments"][0]["schedules"][0]["time_zone"] = "UTC"
    document["deployments"][1]["triggers"][0]["expects"] = []
    assert unknown_keys(document) == {"scheduls", "time_zone", "expects"}


@pytest.mark.parametrize("deployment", project()["deployments"], ids=lambda deployment: deployment["name"])
def test_each_entry_point_is_a_module_path_of_a_flow_that_takes_the_parameters(deployment: dict[str, Any]) -> None:
    assert "/" not in deployment["entrypoint"]
    loaded = load_flow_from_entrypoint(deployment["entrypoint"])
    assert isinstance(loaded, Flow)
    schema = parameter_schema(loaded).model_dump_for_openapi()
    given = [deployment["parameters"], *(each.get("parameters", {}) for each in deployment.get("triggers", []))]
    for parameters in given:
        filled = _filled(parameters, {"VOLCAST_SOURCE": "yahoo", "VOLCAST_STORE": "s3://b", **APPROVAL})
        validate(filled, schema, raise_on_error=True, ignore_required=True)
        assert set(filled) <= set(schema["properties"])
    assert loaded.description


@pytest.mark.parametrize("deployment", project()["deployments"], ids=lambda deployment: deployment["name"])
def test_each_parameter_has_a_help_text_in_the_form(deployment: dict[str, Any]) -> None:
    schema = parameter_schema(load_flow_from_entrypoint(deployment["entrypoint"])).model_dump_for_openapi()
    models = [model for name, model in schema["definitions"].items() if name.endswith("Settings")]
    inner = [text for model in models for text in model["properties"].values()]
    plain = [each for each in schema["properties"].values() if "$ref" not in str(each)]
    assert [each for each in [*inner, *plain] if not each.get("description")] == []


def test_each_trigger_listens_to_an_event_that_volcast_sends_of_its_own_store() -> None:
    triggers = [each for deployment in project()["deployments"] for each in deployment.get("triggers", [])]
    assert len({each["name"] for each in triggers}) == len(triggers) == 5
    for each in triggers:
        parsed = TRIGGER.validate_python(each)
        assert parsed.name.startswith(PREFIX)
        assert parsed.expect <= set(get_args(Event))
        assert parsed.match["volcast.root"] == ["{{ $VOLCAST_ROOT }}"]


def test_each_alert_has_a_name_of_its_own_and_a_section_in_the_operators_guide(prefect_api: Server) -> None:
    assert prefect_api.api_url
    with get_client(sync_client=True) as client:
        names = [each.name for each in alerts(client, None, "file:///data")]
    assert len(set(names)) == len(names)
    guide = (ROOT / "docs" / "operate.md").read_text()
    codes = [name.removeprefix(f"{PREFIX}alert ").split(":")[0] for name in names]
    assert [code for code in codes if f"### {code}" not in guide] == []


def test_each_schedule_is_a_cron_with_a_time_zone_and_a_name_of_its_own() -> None:
    found = {item["name"]: item["schedules"] for item in project()["deployments"] if "schedules" in item}
    for schedules in found.values():
        for schedule in schedules:
            CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
            assert schedule["slug"]
    assert set(found) == {"daily", "retrain", "verify", "backtest"}
    assert found["daily"][0]["cron"] == "30 17 * * 1-5"


def test_deploying_twice_changes_nothing_and_what_the_file_drops_goes(prefect_api: Server, tmp_path: Path) -> None:
    assert prefect_api.api_url
    environment = {"VOLCAST_POOL": "volcast", "VOLCAST_SOURCE": "simulated", "VOLCAST_STORE": str(tmp_path)}
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="volcast", type="process"), overwrite=True)
        first = deploy(environment)
        assert set(first.applied) == {item["name"] for item in project()["deployments"]}
        assert len(first.automations) == 5 + 12
        before = {item.id: (item.updated, item.schedules) for item in client.read_deployments()}
        again = deploy(environment)
        assert again.words == "nothing to change"
        assert {item.id: (item.updated, item.schedules) for item in client.read_deployments()} == before

        shorter = yaml.safe_load(PROJECT_FILE.read_text())
        shorter["deployments"] = [item for item in shorter["deployments"] if item["name"] != "forecast"]
        del shorter["deployments"][0]["schedules"]
        file = tmp_path / "prefect.yaml"
        file.write_text(yaml.safe_dump(shorter))
        changed = deploy(environment, file=file)
        assert (changed.applied, changed.removed) == (("daily",), ("forecast",))
        (daily,) = (item for item in client.read_deployments() if item.name == "daily")
        assert daily.schedules == []
