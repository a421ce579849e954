"""What an operator finds in Prefect's UI, in a real browser: `volcast up`, a day, a retraining and the day after.

The browser reaches the local server and nothing else. VOLCAST_SCREENSHOTS=1 takes the README's two pictures anew.
"""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from test_deployments import ROOT, project
from test_end_to_end import kept_up, wait_for_end

from flows.up import POOL

TICKERS = ["SBUX", "AAPL", "JPM"]
QUICK = {"settings": {"steps": 20, "members": 1, "hidden_size": 8}}
CHROMIUM = shutil.which("chromium")
PATIENCE = 30_000  # milliseconds; the machine may be busy
SCHEDULER_PATIENCE = 90_000  # it looks once a minute
IMAGES = ROOT / "docs" / "images"

expect.set_options(timeout=PATIENCE)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: install Debian's package `chromium`")


@dataclass(frozen=True)
class Site:
    """What `volcast up` serves, and the runs that have ended on it."""

    api: httpx.Client
    deployments: dict[str, dict[str, Any]]
    runs: dict[str, dict[str, Any]]

    @property
    def ui(self) -> str:
        return str(self.api.base_url).removesuffix("/api/") + "/v2"

    def deployment(self, name: str) -> str:
        return f"{self.ui}/deployments/deployment/{self.deployments[name]['id']}"

    def artifact(self, key: str) -> str:
        return f"{self.ui}/artifacts/key/{key}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("operator")
    with kept_up(folder) as api_url, httpx.Client(base_url=api_url, trust_env=False, timeout=60) as api:
        deployments = {item["name"]: item for item in api.post("/deployments/filter", json={}).json()}
        daily, retrain = deployments["daily"], deployments["retrain"]
        runs = {
            "daily": ended(api, daily, as_of="2004-06-28"),
            "retrain": ended(api, retrain, as_of="2004-06-28"),
            "daily after": ended(api, daily, as_of="2004-06-29"),
        }
        yield Site(api, deployments, runs)


def ended(api: httpx.Client, deployment: dict[str, Any], *, as_of: str) -> dict[str, Any]:
    """A run of the deployment on three tickers, small and quick, which must complete."""
    given = deployment["parameters"]
    parameters = given | {
        "data": given["data"] | {"as_of": as_of, "tickers": TICKERS},
        "training": given["training"] | QUICK,
    }
    made = api.post(
        f"/deployments/{deployment['id']}/create_flow_run",
        json={"state": {"type": "SCHEDULED"}, "parameters": parameters},
    ).json()
    state = wait_for_end(api, made["id"])
    assert state["type"] == "COMPLETED", state
    return api.get(f"/flow_runs/{made['id']}").json()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    flags = ["--disable-gpu", "--disable-quic"]
    with sync_playwright() as play, play.chromium.launch(executable_path=CHROMIUM, args=flags) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """A new window, for which the world is the local server; a script's error in it fails the test."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, locale="en-US", timezone_id="America/New_York"
    )
    host, outside, errors = urlsplit(site.ui).netloc, set[str](), list[str]()
    with context:
        context.set_default_timeout(PATIENCE)
        context.route(lambda url: urlsplit(url).netloc not in ("", host), lambda route: route.abort())
        page = context.new_page()
        page.on("requestfailed", lambda request: outside.add(urlsplit(request.url).netloc))
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
    assert errors == []
    assert outside - {host} <= {"sr-client-cfg.amplitude.com"}  # Prefect's UI asks it at each page, whatever is set


def main(page: Page) -> Locator:
    return page.get_by_role("main")


def photograph(page: Page, folder: Path, name: str) -> None:
    """The window as it stands, in the folder; in docs/images as well where the README shows it and it is asked for."""
    page.screenshot(path=folder / f"{name}.png")
    if os.environ.get("VOLCAST_SCREENSHOTS") and name in ("ui-run", "ui-report"):
        shutil.copy(folder / f"{name}.png", IMAGES)


def overflowing(area: Locator) -> list[str]:
    """Elements whose content is wider than they are, by their first words."""
    return area.evaluate(
        """area => [area, ...area.querySelectorAll('*')]
            .filter(each => each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 1)
            .map(each => each.tagName + ' ' + each.innerText.slice(0, 60))"""
    )


def open_newest(page: Page, site: Site, key: str) -> Locator:
    """The newest version of an artifact, by way of its history; gives its own part of the page."""
    page.goto(site.artifact(key))
    main(page).locator("a[href*='/artifacts/artifact/']").first.click()
    shown = main(page).get_by_role("tabpanel", name="Artifact")
    expect(shown).to_be_visible()
    return shown


def test_the_address_of_the_server_opens_the_dashboard_with_the_completed_runs(
    site: Site, page: Page, tmp_path: Path
) -> None:
    page.goto(site.ui.removesuffix("/v2"))
    expect(page).to_have_url(re.compile(f"^{site.ui}/dashboard"))
    expect(page.get_by_role("tab", name="failed-crashed runs")).to_have_text("0")
    page.get_by_role("tab", name="completed runs").click()
    for name in ("daily", "retrain"):
        expect(main(page).get_by_role("heading", name=name)).to_be_visible()
    expect(main(page).get_by_role("link", name=POOL, exact=True)).to_be_visible()
    photograph(page, tmp_path, "ui-dashboard")


def test_every_deployment_is_listed_and_the_scheduled_ones_say_so(site: Site, page: Page, tmp_path: Path) -> None:
    page.goto(f"{site.ui}/deployments?limit=100")
    for deployment in project()["deployments"]:
        row = main(page).get_by_role("row").filter(has=page.get_by_role("link", name=deployment["name"], exact=True))
        expect(row).to_contain_text("Ready")
        if "schedules" in deployment:
            expect(row).to_contain_text(re.compile("Active|schedules"))  # their number where the words are too wide
    photograph(page, tmp_path, "ui-deployments")


def test_the_page_of_daily_says_what_it_does_and_when_it_runs_next(site: Site, page: Page, tmp_path: Path) -> None:
    page.goto(site.deployment("daily"))
    expect(page.get_by_role("switch", name="toggle At 05:30 PM, Monday through Friday")).to_be_checked()
    expect(main(page).get_by_text("Next Run")).to_be_visible(timeout=SCHEDULER_PATIENCE)
    expect(main(page).get_by_text(re.compile("05:30:00 PM"))).to_be_visible()
    expect(main(page).get_by_text("auto-scheduled")).to_be_visible()
    expect(main(page).get_by_role("link", name=site.runs["daily"]["name"])).to_be_visible()
    photograph(page, tmp_path, "ui-daily")

    page.get_by_role("tab", name="Description").click()
    expect(page.get_by_role("tabpanel")).to_contain_text(site.deployments["daily"]["description"])


@pytest.mark.parametrize("name", ["retrain", "rollback"])
def test_the_form_of_a_run_explains_every_field(site: Site, page: Page, tmp_path: Path, name: str) -> None:
    page.goto(f"{site.deployment(name)}/run")
    fields = help_texts(site.deployments[name]["parameter_openapi_schema"])
    assert fields
    for field, text in fields.items():
        assert text, f"{field} has no help text"
        expect(main(page).get_by_text(text, exact=True).first).to_be_visible()
    assert overflowing(main(page)) == []
    photograph(page, tmp_path, f"ui-form-{name}")


def help_texts(schema: dict[str, Any]) -> dict[str, str | None]:
    """The description of every field that a form has, those of its groups among them."""
    groups = schema["definitions"]
    return {
        field: groups[facts["$ref"].rpartition("/")[2]]["description"] if "$ref" in facts else facts.get("description")
        for group in (schema, *groups.values())
        for field, facts in group.get("properties", {}).items()
    }


def test_a_rollback_needs_a_reason_and_says_in_the_ui_why_it_could_not_go_back(
    site: Site, page: Page, tmp_path: Path
) -> None:
    page.goto(f"{site.deployment('rollback')}/run")
    page.get_by_label("model").fill("volume")
    page.get_by_role("button", name="Submit").click()
    missing = main(page).get_by_text("'reason' is a required property", exact=True)
    expect(missing).to_be_visible()
    photograph(page, tmp_path, "ui-rollback-refused")

    page.get_by_label("reason").fill("SBUX is forecast too high")
    expect(missing).not_to_be_visible()
    with page.expect_response(re.compile("create_flow_run$")) as response:
        page.get_by_role("button", name="Submit").click()
    made = response.value.json()
    assert made["parameters"]["reason"] == "SBUX is forecast too high"
    assert wait_for_end(site.api, made["id"])["type"] == "FAILED"

    page.goto(f"{site.ui}/runs/flow-run/{made['id']}")
    expect(main(page).get_by_text("no version before the current champion to go back to").first).to_be_visible()
    photograph(page, tmp_path, "ui-rollback-failed")


def test_a_retrain_run_shows_its_outcome_its_steps_and_its_scorecard(site: Site, page: Page, tmp_path: Path) -> None:
    run = site.runs["retrain"]
    page.goto(f"{site.ui}/runs/flow-run/{run['id']}")
    expect(main(page).get_by_text("Completed", exact=True)).to_be_visible()
    page.get_by_role("combobox", name="log sort order").click()
    page.get_by_role("option", name="Newest to oldest").click()
    expect(page.get_by_role("log")).to_contain_text(run["state"]["message"])
    photograph(page, tmp_path, "ui-run")

    page.get_by_role("tab", name="Task Runs").click()
    for step in site.api.post("/task_runs/filter", json={"flow_runs": {"id": {"any_": [run["id"]]}}}).json():
        expect(page.get_by_role("tabpanel").get_by_role("link", name=step["name"])).to_be_visible()

    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_role("link", name="volcast-scorecard").click()
    expect(page).to_have_url(site.artifact("volcast-scorecard"))


def test_the_scorecard_shows_its_plots_beside_nothing_that_they_cover(site: Site, page: Page, tmp_path: Path) -> None:
    shown = open_newest(page, site, "volcast-scorecard")
    plots = shown.get_by_role("img")
    expect(plots.first).to_be_visible()
    for plot in plots.all():
        assert plot.evaluate("image => image.complete && image.naturalWidth") > 0
    assert overflowing(shown) == []
    photograph(page, tmp_path, "ui-report")


@pytest.mark.parametrize("key", ["volcast-status", "volcast-forecast-sbux"])
def test_what_is_published_each_day_has_a_history(site: Site, page: Page, tmp_path: Path, key: str) -> None:
    page.goto(f"{site.ui}/artifacts")
    main(page).get_by_role("link", name=re.compile(key)).click()
    for run in ("daily", "daily after"):
        day = site.runs[run]["parameters"]["data"]["as_of"]
        expect(main(page).get_by_role("link", name=day).first).to_be_visible()
    photograph(page, tmp_path, f"ui-{key}-history")

    shown = open_newest(page, site, key)
    expect(shown).to_contain_text("2004-06-29")
    assert overflowing(shown) == []
    photograph(page, tmp_path, f"ui-{key}")


def test_every_alert_is_listed_by_its_name(site: Site, page: Page, tmp_path: Path) -> None:
    page.goto(f"{site.ui}/automations")
    alerts = [each["name"] for each in site.api.post("/automations/filter", json={}).json()]
    assert alerts
    for name in alerts:
        expect(main(page).get_by_role("link", name=name)).to_be_visible()
    photograph(page, tmp_path, "ui-automations")
