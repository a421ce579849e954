import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, get_args
from uuid import UUID

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
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate
from programs import Volcast, project

from benchmarks.programs import CODE
from volcast.flows.alerts import Severity
from volcast.flows.deploy import PREFIX, PROJECT_FILE, TRIGGER, Served, _filled, alerts, deploy, sync_automations
from volcast.flows.server import Server
from volcast.tasks.preflight import market_schedule
from volcast.tasks.run_tools import Event, code_version
from volcast.tasks.settings import DataSettings, RetrainSettings, TrainingSettings, WatchSettings

APPROVAL = {"VOLCAST_REQUIRE_APPROVAL": "true"}
MANY_OPTIONS = Served(
    DataSettings(source="yahoo", events="none", tickers=("SBUX",), store="s3://b"),
    TrainingSettings(cell="gru", seed=3, device="cpu", settings={"steps": 20}),
)
FIELDS = ("properties", "patternProperties")  # of a group in a form: the shown ones, and the others
DUE = Served(DataSettings(), TrainingSettings(), WatchSettings(forecast_by="18:15"))
ALLOWED_AT_TOP = {name.replace("_", "-") for name in PrefectYamlModel.model_fields} | {"definitions"}


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


@pytest.fixture
def client(prefect_api: Server) -> Iterator[SyncPrefectClient]:
    """Of a server with the pool and nothing deployed on it."""
    assert prefect_api.api_url
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="volcast", type="process"), overwrite=True)
        yield client
        for deployment in client.read_deployments():
            client.delete_deployment(deployment.id)
        for automation in client.read_automations():
            client.delete_automation(automation.id)


def test_where_no_announcements_were_named_the_deployments_use_the_stored_ones(tmp_path: Path) -> None:
    served = Served(DataSettings(source=f"files:{tmp_path}/SBUX.csv", store=str(tmp_path)), TrainingSettings())
    assert DataSettings(**served.parameters["VOLCAST_DATA"]).uses_earnings
    unused = replace(served, data=served.data.model_copy(update={"events": "none"}))
    assert not DataSettings(**unused.parameters["VOLCAST_DATA"]).uses_earnings


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
    starts = [each for kind in ("triggers", "schedules") for each in deployment.get(kind, [])]
    for parameters in (deployment["parameters"], *(each.get("parameters", {}) for each in starts)):
        filled = _filled(parameters, {**MANY_OPTIONS.parameters, **APPROVAL})
        validate(filled, schema, raise_on_error=True, ignore_required=True)
        assert set(filled) <= set(schema["properties"])
    assert loaded.description


@pytest.mark.parametrize("deployment", project()["deployments"], ids=lambda deployment: deployment["name"])
def test_each_parameter_has_a_help_text_in_the_form(deployment: dict[str, Any]) -> None:
    schema = parameter_schema(load_flow_from_entrypoint(deployment["entrypoint"])).model_dump_for_openapi()
    models = [model for name, model in schema["definitions"].items() if name.endswith("Settings")]
    inner = [text for model in models for kind in FIELDS for text in model.get(kind, {}).values()]
    plain = [each for each in schema["properties"].values() if "$ref" not in str(each)]
    assert [each for each in [*inner, *plain] if not each.get("description")] == []


def test_a_form_shows_a_few_fields_and_the_others_are_checked_as_strictly() -> None:
    schema: Any = parameter_schema(load_flow_from_entrypoint("volcast.flows.retrain.retrain")).model_dump_for_openapi()
    groups = [schema["definitions"][name] for name in ("DataSettings", "TrainingSettings", "RetrainSettings")]
    assert [list(group["properties"]) for group in groups] == [
        ["source", "tickers", "as_of"],
        ["recipe", "seed", "force", "settings"],
        ["promote", "require_approval"],
    ]
    for settings, group in zip((DataSettings, TrainingSettings, RetrainSettings), groups, strict=True):
        hidden = set(settings.model_fields) - set(group["properties"])
        assert {name.strip("^$") for name in group["patternProperties"]} == hidden
        assert all(name in group["description"] for name in hidden)
    validate({"data": {"max_broken_share": 0.5}, "why": {"cause": "drift"}}, schema, True, ignore_required=True)
    for wrong in ({"data": {"max_broken_share": 2}}, {"why": {"cause": "whim"}}, {"data": {"max_broken_shares": 0.5}}):
        assert validate(wrong, schema, ignore_required=True) != []


def test_a_run_is_told_truly_what_started_it(client: SyncPrefectClient, tmp_path: Path) -> None:
    deploy(served(tmp_path), POOL | APPROVAL)
    found = {each.name.partition(".")[0]: each for each in client.read_deployments()}
    gate = {"require_approval": True}
    assert found["retrain"].parameters["why"] == gate
    assert RetrainSettings.model_validate(gate).cause == "person"
    assert found["retrain"].schedules[0].parameters == {"why": gate | {"cause": "schedule"}}
    starts = {each.name.partition(" (")[0]: each for each in client.read_automations()}
    causes = [getattr(each.actions[0], "parameters", None) for name, each in starts.items() if "starts retrain" in name]
    assert sorted(str((each or {})["why"]["cause"]) for each in causes) == ["drift", "intervals", "quality", "sessions"]
    assert {tag for each in found.values() for tag in each.tags} == {"volcast", deploy(served(tmp_path), POOL).tag}


def test_what_is_deployed_says_what_it_does_and_by_which_clock(client: SyncPrefectClient, tmp_path: Path) -> None:
    tag = deploy(served(tmp_path), POOL).tag
    found = {each.name.partition(".")[0]: str(each.description) for each in client.read_deployments()}
    clock = "* weekdays-after-the-close: cron 30 17 * * 1-5 in the time zone America/New_York"
    assert clock in found["daily"].splitlines()
    assert "Schedules" not in found["promote"]
    key = tag.replace("volcast-", "volcast-models-")
    assert all(f"[{key}](/v2/artifacts/key/{key})" in found[name] for name in ("retrain", "promote", "rollback"))
    for automation in client.read_automations():
        assert re.match(r"Starts \w+ |Is sent to every channel that was given\.", automation.description)


def test_each_trigger_listens_to_an_event_that_volcast_sends_of_its_own_store() -> None:
    triggers = [each for deployment in project()["deployments"] for each in deployment.get("triggers", [])]
    assert len({each["name"] for each in triggers}) == len(triggers) == 6
    for each in triggers:
        parsed = TRIGGER.validate_python(each)
        assert parsed.name.startswith(PREFIX)
        assert parsed.expect <= set(get_args(Event))
        assert parsed.match["volcast.root"] == ["{{ $VOLCAST_ROOT }}"]


def test_each_alert_has_a_name_of_its_own_a_severity_and_a_section_in_the_operators_guide() -> None:
    told = alerts("file:///data")
    names = [each.name for each in told]
    assert len(set(names)) == len(names)
    assert all(len(set(each.tags) & set(get_args(Severity))) == 1 for each in told)
    guide = (CODE / "docs" / "operate.md").read_text()
    codes = [name.removeprefix(f"{PREFIX}alert ").split(":")[0] for name in names]
    assert [code for code in codes if f"### {code}" not in guide] == []


def test_each_schedule_is_a_cron_with_a_time_zone_and_a_name_of_its_own() -> None:
    found = {item["name"]: item["schedules"] for item in project()["deployments"] if "schedules" in item}
    for schedules in found.values():
        for schedule in _filled(schedules, DUE.parameters):
            CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
            assert schedule["slug"]
    assert set(found) == {"daily", "retrain", "monitor", "verify", "backtest"}
    assert found["daily"][0]["cron"] == "30 17 * * 1-5"


@pytest.mark.parametrize(
    ("calendar", "cron", "zone"),
    [
        ("XNYS", "30 17 * * 1,2,3,4,5", "America/New_York"),  # as prefect.yaml has it
        ("XLON", "0 18 * * 1,2,3,4,5", "Europe/London"),
        ("XTKS", "0 17 * * 1,2,3,4,5", "Asia/Tokyo"),
        ("XSAU", "30 16 * * 0,1,2,3,4", "Asia/Riyadh"),
        ("24/7", "30 1 * * 0,1,2,3,4,5,6", "UTC"),
        ("24/5", "30 1 * * 2,3,4,5,6", "UTC"),  # Friday's session closes at Saturday's midnight
    ],
)
def test_the_daily_run_comes_an_hour_and_a_half_after_the_close_of_its_market(
    calendar: str, cron: str, zone: str
) -> None:
    assert market_schedule(calendar) == (cron, zone)


POOL = {"VOLCAST_POOL": "volcast"}


def served(store: Path) -> Served:
    return Served(DataSettings(source="simulated", store=str(store)), TrainingSettings())


def what_is_there(client: SyncPrefectClient) -> dict[str, tuple[UUID, object]]:
    """Deployments and automations by name: id, and of a deployment when it was last changed."""
    found: dict[str, tuple[UUID, object]] = {each.name: (each.id, None) for each in client.read_automations()}
    return found | {each.name: (each.id, each.updated) for each in client.read_deployments()}


def test_deploying_twice_changes_nothing_and_what_the_file_drops_goes(
    client: SyncPrefectClient, tmp_path: Path
) -> None:
    first = deploy(served(tmp_path), POOL)
    assert set(first.applied) == {item["name"] for item in project()["deployments"]}
    assert len(first.automations) == 6 + 18
    before = what_is_there(client)
    assert deploy(served(tmp_path), POOL).words == "nothing to change"
    assert what_is_there(client) == before

    shorter = yaml.safe_load(PROJECT_FILE.read_text())
    shorter["deployments"] = [item for item in shorter["deployments"] if item["name"] != "forecast"]
    del shorter["deployments"][0]["schedules"]
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump(shorter))
    changed = deploy(served(tmp_path), POOL, file=file)
    assert (changed.applied, [name.partition(".")[0] for name in changed.removed]) == (("daily",), ["forecast"])
    assert len(changed.automations) == 2  # that started forecast
    (daily,) = (item for item in client.read_deployments() if item.name.startswith("daily."))
    assert daily.schedules == []


def test_what_a_person_has_switched_off_stays_off_when_all_of_it_changes(
    client: SyncPrefectClient, tmp_path: Path
) -> None:
    def switches() -> dict[str, bool]:
        schedules = {f"{d.name}: {s.slug}": s.active for d in client.read_deployments() for s in d.schedules}
        paused = {d.name: not d.paused for d in client.read_deployments()}
        return schedules | paused | {each.name: each.enabled for each in client.read_automations()}

    tag = deploy(served(tmp_path), POOL).tag
    label = tag.removeprefix("volcast-")
    found = {each.name.partition(".")[0]: each for each in client.read_deployments()}
    client.update_deployment_schedule(found["daily"].id, found["daily"].schedules[0].id, active=False)
    client.pause_deployment(found["forecast"].id)
    muted = [each for each in client.read_automations() if "alert run-late:" in each.name or "drifted" in each.name]
    for each in muted:
        client.pause_automation(each.id)
    off = {f"daily.{label}: weekdays-after-the-close", f"forecast.{label}", *(each.name for each in muted)}
    assert {name for name, is_on in switches().items() if not is_on} == off
    assert deploy(served(tmp_path), POOL).words == "nothing to change"

    file, moved = tmp_path / "prefect.yaml", yaml.safe_load(PROJECT_FILE.read_text())
    moved["deployments"][0]["schedules"][0]["cron"] = "45 17 * * 1-5"
    moved["deployments"][0]["schedules"].append({**moved["deployments"][0]["schedules"][0], "slug": "new"})
    (drifted,) = (each for each in moved["deployments"][1]["triggers"] if "drifted" in each["name"])
    drifted["description"] = "Starts retrain, in other words"
    file.write_text(yaml.safe_dump(moved))
    other = replace(served(tmp_path), training=TrainingSettings(seed=3))
    changed = deploy(other, POOL, file=file)
    assert {"daily", "forecast"} <= set(changed.applied)
    assert {each.name for each in muted} & set(changed.automations)
    assert {name for name, is_on in switches().items() if not is_on} == off
    assert switches()[f"daily.{label}: new"]
    (daily,) = (each for each in client.read_deployments() if each.name.startswith("daily."))
    assert {each.schedule.cron for each in daily.schedules if isinstance(each.schedule, CronSchedule)} == {
        "45 17 * * 1-5"
    }


def test_a_deployment_and_each_of_its_runs_name_the_code_that_they_are_of(
    client: SyncPrefectClient, tmp_path: Path
) -> None:
    deploy(served(tmp_path), POOL)
    found = client.read_deployments()
    assert {each.version for each in found} == {code_version()}
    run = client.create_flow_run_from_deployment(found[0].id)
    assert run.deployment_version == code_version()
    client.delete_flow_run(run.id)


def test_stores_that_share_a_server_have_deployments_and_alerts_of_their_own(
    client: SyncPrefectClient, tmp_path: Path
) -> None:
    deploy(served(tmp_path / "one"), POOL)
    of_one = what_is_there(client)
    of_other = deploy(served(tmp_path / "other"), POOL)
    assert of_other.removed == ()
    both = what_is_there(client)
    assert len(both) == 2 * len(of_one)
    assert {name: both[name] for name in of_one} == of_one
    watched = [str(each.trigger.model_dump()) for each in client.read_automations() if of_other.tag in each.tags]
    assert len(watched) == 6 + 18
    assert not any("prefect.tag.volcast'" in trigger for trigger in watched)


def test_a_market_s_deployments_run_by_its_own_clock_beside_those_of_new_york(
    client: SyncPrefectClient, tmp_path: Path
) -> None:
    def schedules() -> dict[str, tuple[str, str | None]]:
        whole = {each.name: each.schedules for each in client.read_deployments()}
        crons = {name: [own.schedule for own in kept] for name, kept in whole.items()}
        return {
            name: (own.cron, own.timezone)
            for name, kept in crons.items()
            for own in kept
            if isinstance(own, CronSchedule)
        }

    source = f"files:{tmp_path}/BTC-USD.csv"
    deploy(Served(DataSettings(source=source, store=str(tmp_path)), TrainingSettings()), POOL)
    assert set(schedules().values()) >= {("30 17 * * 1-5", "America/New_York"), ("0 8 * * 6", "America/New_York")}
    before = what_is_there(client)
    of_bitcoin = Served(DataSettings(source=source, store=str(tmp_path), calendar="24/7"), TrainingSettings())
    assert of_bitcoin.words.splitlines()[0].endswith("calendar 24/7")
    assert deploy(of_bitcoin, POOL).removed == ()
    assert {name: what_is_there(client)[name] for name in before} == before
    added = {name.partition(".")[0]: own for name, own in schedules().items() if ".calendar-24-7-" in name}
    assert added["daily"] == ("30 1 * * 0,1,2,3,4,5,6", "UTC")
    assert added["retrain"] == ("0 8 * * 6", "UTC")
    (daily,) = (each for each in client.read_deployments() if each.name.startswith("daily.calendar-24-7"))
    assert DataSettings(**daily.parameters["data"]).root == of_bitcoin.root
    (rollback,) = (each for each in client.read_deployments() if each.name.startswith("rollback.calendar-24-7"))
    assert rollback.parameters == {
        "model": "volume",
        "store": of_bitcoin.root if "://" in of_bitcoin.root else f"file://{of_bitcoin.root}",
    }


def test_an_automation_is_changed_in_place(client: SyncPrefectClient, tmp_path: Path) -> None:
    deploy(served(tmp_path), POOL)
    before = {each.name: each.id for each in client.read_automations()}
    for each in client.read_automations():  # as an earlier release told it
        core = each.model_dump(include=set(AutomationCore.model_fields) - {"owner_resource"})
        earlier = AutomationCore.model_validate(core | {"description": "before"})
        client.update_automation(each.id, earlier)
    assert len(deploy(served(tmp_path), POOL).automations) == len(before)
    after = client.read_automations()
    assert {each.name: each.id for each in after} == before
    assert "before" not in {each.description for each in after}


def test_a_deadline_is_looked_at_by_the_market_s_clock_and_reaches_the_runs(
    client: SyncPrefectClient, tmp_path: Path
) -> None:
    def monitors(calendar: str, by: str | None) -> Any:
        data = DataSettings(source=f"files:{tmp_path}/X.csv", store=str(tmp_path), calendar=calendar)
        deployed = deploy(Served(data, TrainingSettings(), WatchSettings(forecast_by=by)), POOL)
        (monitor,) = (
            each for each in client.read_deployments() if each.name.startswith("monitor.") and deployed.tag in each.tags
        )
        (daily,) = (
            each for each in client.read_deployments() if each.name.startswith("daily.") and deployed.tag in each.tags
        )
        assert monitor.parameters["watch"] == daily.parameters["watch"] == ({"forecast_by": by} if by else {})
        clocks = [each.schedule for each in monitor.schedules if isinstance(each.schedule, CronSchedule)]
        return [(clock.cron, clock.timezone) for clock in clocks]

    assert monitors("XNYS", "18:15") == [("15 18 * * 1,2,3,4,5", "America/New_York")]
    assert monitors("XNYS", "09:00") == [("0 9 * * 2,3,4,5,6", "America/New_York")]  # of the next morning
    assert monitors("XNYS", None) == []
    assert monitors("24/7", "02:00") == [("0 2 * * 0,1,2,3,4,5,6", "UTC")]
    assert monitors("XSAU", "16:30") == [("30 16 * * 0,1,2,3,4", "Asia/Riyadh")]


def test_a_deploy_that_is_cut_off_loses_no_automation(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(_: object) -> NoReturn:
        raise ConnectionError("cut off")

    told = alerts("file:///data")
    sync_automations(client, told, "file:///data")
    before = what_is_there(client)
    other = told[0].model_copy(update={"name": f"{told[0].name}, renamed"})
    changed = told[1].model_copy(update={"actions": told[1].actions * 2})
    monkeypatch.setattr(client, "create_automation", cut_off)
    with pytest.raises(ConnectionError):
        sync_automations(client, [changed, other], "file:///data")
    assert set(what_is_there(client)) == set(before)


@pytest.mark.parametrize("is_own", [True, False])
def test_what_release_0_1_0_deployed_is_replaced_where_it_is_of_this_store(
    client: SyncPrefectClient, tmp_path: Path, is_own: bool
) -> None:
    data = {"source": "simulated", "store": str(tmp_path if is_own else tmp_path / "other")}
    flow_id = client.create_flow_from_name("daily")
    client.create_deployment(flow_id, name="daily", tags=["scheduled", "volcast"], parameters={"data": data})
    name = f"{PREFIX}alert run-late: a scheduled run has not started"
    alert = alerts("file:///data")[0].model_copy(update={"name": name, "tags": ["volcast"]})
    client.create_automation(alert)
    assert ("daily" in deploy(served(tmp_path), POOL).removed) == is_own
    assert {"daily", name} & set(what_is_there(client)) == (set() if is_own else {"daily", name})


def test_what_deploy_is_given_reaches_every_deployment_and_is_shown(
    client: SyncPrefectClient, volcast: Volcast, tmp_path: Path
) -> None:
    given = [
        "--forecast-by",
        "18:15",
        "--source",
        "files:SBUX.csv",
        "--events",
        "files:earnings.csv",
        "--tickers",
        "sbux,aapl",
        "--store",
        "kept",
    ]
    given += ["--max-broken-share", "0.2"]
    model = ["--cell", "gru", "--seed", "3", "--set", "steps=20", "--set", "members=2"]
    said = volcast("deploy", *given, *model)
    assert said.code == 0, said.errors
    files = {"source": f"files:{tmp_path}/SBUX.csv", "events": f"files:{tmp_path}/earnings.csv"}
    data = {**files, "tickers": ["SBUX", "AAPL"], "store": f"{tmp_path}/kept", "max_broken_share": 0.2}
    training = {"recipe": "volume", "cell": "gru", "seed": 3, "settings": {"steps": 20, "members": 2}}
    found = {each.name.partition(".")[0]: each.parameters for each in client.read_deployments()}
    takes_data = {"daily", "retrain", "forecast", "monitor", "backtest", "ingest", "pipeline"}
    assert {name: each["data"] for name, each in found.items() if "data" in each} == dict.fromkeys(takes_data, data)
    takes_training = takes_data - {"backtest", "ingest"}
    assert {name for name, each in found.items() if each.get("training") == training} == takes_training
    assert found["backtest"]["request"] == {"seed": 3, "settings": {"cell": "gru", "steps": 20, "members": 2}}
    assert found["promote"] == {"model": "volume", "store": f"file://{tmp_path}/kept"}
    for words in (*files.values(), "SBUX, AAPL", "recipe volume", "cell=gru, seed=3, steps=20, members=2", "by 18:15"):
        assert words in said.out


def test_a_nowcast_and_a_setting_that_there_is_not_are_refused_before_anything_is_deployed(
    client: SyncPrefectClient, volcast: Volcast
) -> None:
    for command in ("deploy", "up"):
        assert "Recipe tutorial is a nowcast" in volcast(command, "--recipe", "tutorial").errors[0]
        assert "has no setting stepz" in volcast(command, "--set", "stepz=20").errors[0]
        assert "--forecast-by" in volcast(command, "--forecast-by", "25:00").errors[0]
    assert volcast("up", "--recipe", "tutorial").out.startswith("Starting server, worker and deployments; ")  # at once
    assert client.read_deployments() == []
