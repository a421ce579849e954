from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel, RawScheduleConfig
from prefect.flows import load_flow_from_entrypoint

ROOT = Path(__file__).parents[1]
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
    return found


def test_prefect_yaml_has_no_key_that_prefect_ignores() -> None:
    assert unknown_keys(project()) == set()


def test_a_misspelt_key_is_found() -> None:
    document = project()
    document["deployments"][0]["scheduls"] = []
    document["deployments"][0]["schedules"][0]["time_zone"] = "UTC"
    assert unknown_keys(document) == {"scheduls", "time_zone"}


@pytest.mark.parametrize("deployment", project()["deployments"], ids=lambda deployment: deployment["name"])
def test_each_entry_point_is_a_module_path_of_a_flow_that_takes_the_parameters(deployment: dict[str, Any]) -> None:
    assert "/" not in deployment["entrypoint"]
    loaded = load_flow_from_entrypoint(deployment["entrypoint"])
    assert isinstance(loaded, Flow)
    parameters = loaded.validate_parameters(deployment["parameters"])
    assert set(deployment["parameters"]) <= set(parameters)  # the others have defaults
    assert deployment["description"]


def test_the_pipeline_runs_on_weekdays_after_the_close_in_new_york() -> None:
    (pipeline,) = (item for item in project()["deployments"] if item["name"] == "pipeline")
    assert pipeline["schedules"] == [{"cron": "30 17 * * 1-5", "timezone": "America/New_York", "active": True}]
