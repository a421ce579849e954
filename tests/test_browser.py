"""What an operator finds in Prefect's UI, in a real browser: `volcast up`, a day, a retraining and the day after.

The browser reaches the local server and nothing else. VOLCAST_SCREENSHOTS=1 takes the README's pictures anew.
"""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from programs import project

from benchmarks.browser import (
    CHROMIUM,
    HOW_TO_INSTALL,
    answer,
    approval_form,
    fill_approval,
    help_texts,
    log_in,
    main,
    open_browser,
    open_newest,
    overflowing,
    window,
)
from benchmarks.programs import CODE, QUICK, Up, free_port, wait_until
from volcast.flows.up import POOL

FIRST_DAY = {"as_of": "2004-06-28", "tickers": ["SBUX", "AAPL", "JPM"]}
DAY_AFTER = FIRST_DAY | {"as_of": "2004-06-29"}
IMAGES = CODE / "docs" / "images"
IN_README = ("ui-run", "ui-forecast")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason=f"no chromium: {HOW_TO_INSTALL}"),
]


@dataclass(frozen=True)
class Site:
    """What `volcast up` serves, and the runs that were started on it."""

    up: Up
    runs: dict[str, str] = field(default_factory=dict)  # name -> id

    def deployment(self, name: str) -> str:
        return f"{self.up.ui}/deployments/deployment/{self.up.deployments[name]['id']}"

    def run(self, name: str) -> str:
        return f"{self.up.ui}/runs/flow-run/{self.runs[name]}"

    def ended(self, name: str) -> dict[str, Any]:
        """The run, once it has ended well."""
        state = self.up.ended(self.runs[name])
        assert state["type"] == "COMPLETED", state
        return self.up.flow_run(self.runs[name])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Up(tmp_path_factory.mktemp("operator")) as up:
        pause_triggers(up)
        site, training = Site(up), {"settings": QUICK}
        site.runs["daily"] = up.run("daily", data=FIRST_DAY, training=training)
        site.ended("daily")
        site.runs["retrain"] = up.run("retrain", data=FIRST_DAY, training=training)
        site.ended("retrain")
        site.runs["day after"] = up.run("daily", data=DAY_AFTER, training=training)  # the last tests look at it
        yield site


def pause_triggers(up: Up) -> None:
    """What runs is what the tests start: no event starts a training of all steps beside it."""
    for each in up.api.post("/automations/filter", json={}).json():
        if each["name"].startswith("volcast starts "):
            up.api.patch(f"/automations/{each['id']}", json={"enabled": False})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def logged_in(browser: Browser, site: Site) -> Any:
    return log_in(browser, site.up)


@pytest.fixture
def page(browser: Browser, site: Site, logged_in: Any) -> Iterator[Page]:
    with window(browser, site.up, logged_in) as page:
        yield page


def photograph(page: Page, folder: Path, name: str) -> None:
    """The window as it stands, in the folder; in docs/images as well where the README shows it and it is asked for."""
    file = folder / f"{name}.png"
    page.screenshot(path=file)
    if os.environ.get("VOLCAST_SCREENSHOTS") and name in IN_README:
        with Image.open(file) as picture:
            picture.quantize().save(IMAGES / file.name, optimize=True)  # 256 colours: a third of the size


PLACES = """chart => {
    const [box, around, picture] = [chart, chart.parentElement, chart.querySelector('img')].map(
        each => each.getBoundingClientRect())
    return [Math.round(box.left - around.left), Math.round(picture.right - box.right)]
}"""  # of a chart on the page of the day: its left end from what is around it, its picture's right end from its own


def test_a_link_logs_in_once_and_a_page_that_waits_goes_on_to_where_it_was_asked_for(
    browser: Browser, site: Site, tmp_path: Path
) -> None:
    with browser.new_context() as context:
        waiting, wanted = context.new_page(), site.deployment("daily")
        waiting.goto(wanted)  # as from an alert's message
        expect(waiting.get_by_role("heading", name="volcast on 127.0.0.1")).to_be_visible()
        expect(waiting.get_by_text("volcast ui")).to_be_visible()
        photograph(waiting, tmp_path, "ui-login")
        waiting.get_by_label("Password").fill("volcast:guess")
        waiting.get_by_role("button", name="Log in").click()
        expect(waiting.get_by_role("alert")).to_have_text("That is not the password.")

        link = site.up.access.link()
        other = context.new_page()
        other.goto(link)
        expect(other).to_have_url(re.compile(f"^{site.up.ui}/dashboard"))
        expect(waiting).to_have_url(re.compile(f"^{wanted}"))
        expect(main(waiting).get_by_text("volcast.flows.daily.daily")).to_be_visible()
        assert "#" not in other.evaluate("performance.getEntriesByType('resource').map(each => each.name).join()")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(link)
        expect(page.get_by_role("alert")).to_have_text(re.compile("This link has been used, or is too old"))
        page.get_by_label("Password").fill(site.up.access.auth)
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_url(re.compile(f"^{site.up.ui}/dashboard"))


@pytest.mark.parametrize("wanted", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "/login?next=/x"])
def test_a_login_leads_to_no_foreign_page(page: Page, site: Site, wanted: str) -> None:
    page.goto(f"{site.up.ui.removesuffix('/v2')}/login?next={quote(wanted, safe='')}")
    expect(page).to_have_url(re.compile(f"^{site.up.ui}/dashboard"))


FOREIGN_PAGE = """
<iframe src="{api}/../v2/dashboard"></iframe>
<form method="post" action="{api}/deployments/{deployment}/create_flow_run" target="target"><input name="x"></form>
<iframe name="target"></iframe>
<script>
  const body = JSON.stringify({{state: {{type: "SCHEDULED"}}, job_variables: {{command: "touch /tmp/pwned"}}}})
  const run = "{api}/deployments/{deployment}/create_flow_run", tried = {{}}
  async function attempt(name, doing) {{
    tried[name] = await doing().then(answer => "got " + answer, error => error.name)
  }}
  async function attack() {{
    const json = {{"Content-Type": "application/json"}}
    await attempt("read", () => fetch("{api}/version").then(answer => answer.text()))
    await attempt("settings", () => fetch("{api}/../ui-settings").then(answer => answer.text()))
    await attempt("run", () => fetch(run, {{method: "POST", headers: json, body}}).then(answer => answer.text()))
    await attempt("blind run", () => fetch(run, {{method: "POST", mode: "no-cors", credentials: "include", body}})
      .then(answer => answer.type))
    await attempt("link", () => fetch("{api}/../login", {{method: "POST", body: "{{}}"}}).then(answer => answer.text()))
    await attempt("events", () => new Promise((resolve, reject) => {{
      const socket = new WebSocket("{api}/events/out".replace("http", "ws"), "prefect")
      socket.onopen = () => resolve("socket")
      socket.onerror = () => reject(new TypeError())
    }}))
    await attempt("stored", async () => localStorage.getItem("prefect-password"))
    return tried
  }}
  document.forms[0].submit()
</script>
"""


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])  # the same site on another port, and another site
def test_a_foreign_page_in_the_operators_browser_reads_nothing_and_starts_nothing(
    browser: Browser, site: Site, logged_in: Any, tmp_path: Path, name: str
) -> None:
    api, deployment = str(site.up.api.base_url).rstrip("/"), site.up.deployments["verify"]["id"]
    (tmp_path / "index.html").write_text(FOREIGN_PAGE.format(api=api, deployment=deployment))
    runs = {
        "deployments": {"id": {"any_": [deployment]}},
        "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED"]}}},
    }
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port := free_port())]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as listener:
        wait_until(lambda: is_open(port), what="the foreign page is served")
        with browser.new_context(storage_state=logged_in) as context:
            page = context.new_page()
            page.goto(f"http://{name}:{port}/index.html")
            tried = page.evaluate("attack()")
            frames = {frame.url for frame in page.frames[1:]}
            shown = [frame.evaluate("document.body?.innerText ?? ''") for frame in page.frames[1:]]
        listener.kill()
    assert tried == {
        "read": "TypeError",
        "settings": "TypeError",
        "run": "TypeError",
        "blind run": "got opaque",
        "link": "TypeError",
        "events": "TypeError",
        "stored": "got null",
    }
    assert not any("Dashboard" in each for each in shown), frames
    assert not [run for run in site.up.api.post("/flow_runs/filter", json=runs).json() if not run["auto_scheduled"]]
    assert not Path("/tmp/pwned").exists()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_every_deployment_is_listed_and_the_scheduled_ones_say_so(site: Site, page: Page, tmp_path: Path) -> None:
    page.goto(f"{site.up.ui}/deployments?limit=100")
    for deployment in project()["deployments"]:
        made = site.up.deployments[deployment["name"]]
        row = main(page).get_by_role("row").filter(has=page.get_by_role("link", name=made["name"], exact=True))
        expect(row).to_contain_text("Ready")
        if made["schedules"]:
            expect(row).to_contain_text(re.compile("Active|schedules"))  # their number where the words are too wide
    photograph(page, tmp_path, "ui-deployments")


def test_the_page_of_daily_says_what_it_does_and_when_it_runs_next(site: Site, page: Page, tmp_path: Path) -> None:
    page.goto(site.deployment("daily"))
    expect(page.get_by_role("switch", name="toggle At 05:30 PM, Monday through Friday")).to_be_checked()
    expect(main(page).get_by_text("Next Run")).to_be_visible()
    expect(main(page).get_by_text(re.compile("05:30:00 PM")).first).to_be_visible()  # the last run, too, after 17:30
    expect(main(page).get_by_text("auto-scheduled").first).to_be_visible()
    expect(main(page).get_by_role("link", name="daily volume 2004-06-28")).to_be_visible()
    photograph(page, tmp_path, "ui-daily")

    page.get_by_role("tab", name="Description").click()
    text = page.get_by_role("tabpanel")
    expect(text).to_contain_text(site.up.deployments["daily"]["description"].partition("\n\n")[0])
    expect(text).to_contain_text("weekdays-after-the-close: cron 30 17 * * 1-5 in the time zone America/New_York")


@pytest.mark.parametrize("deployment", ["retrain", "rollback"])
def test_the_form_of_a_run_explains_every_field(site: Site, page: Page, tmp_path: Path, deployment: str) -> None:
    page.goto(f"{site.deployment(deployment)}/run")
    fields = help_texts(site.up.deployments[deployment]["parameter_openapi_schema"])
    assert fields
    for name, text in fields.items():
        assert text, f"{name} has no help text"
        expect(main(page).get_by_text(text, exact=True).first).to_be_visible()
    assert overflowing(main(page)) == []
    photograph(page, tmp_path, f"ui-form-{deployment}")


def test_what_a_form_does_not_show_reaches_the_run_as_the_deployment_has_it(site: Site, page: Page) -> None:
    page.goto(f"{site.deployment('retrain')}/run")
    expect(main(page).get_by_text("Max Broken Share")).to_have_count(0)
    expect(main(page).get_by_text("Cause")).to_have_count(0)
    page.route("**/create_flow_run", lambda route: route.abort())  # it is not to run
    with page.expect_request("**/create_flow_run") as request:
        page.get_by_role("button", name="Submit").click()
    sent: Any = request.value.post_data_json
    sent, kept = sent["parameters"], site.up.deployments["retrain"]["parameters"]
    assert {name: sent["data"].get(name) for name in kept["data"]} == kept["data"]
    assert set(sent["why"]) <= {"promote", "require_approval"}  # so that a person is its cause


def test_a_rollback_needs_a_reason_and_says_in_the_ui_why_it_could_not_go_back(
    site: Site, page: Page, tmp_path: Path
) -> None:
    page.goto(f"{site.deployment('rollback')}?tab=Description")
    page.get_by_role("tab", name="Description").click()
    main(page).get_by_role("link", name="volcast-models").click()
    expect(page).to_have_url(f"{site.up.ui}/artifacts/key/{site.up.artifact_key('models')}")
    shown = open_newest(page, site.up, "models")
    expect(shown).to_contain_text(re.compile("v1.*MASE 1-5"))
    assert overflowing(shown) == []
    photograph(page, tmp_path, "ui-models")

    page.goto(f"{site.deployment('rollback')}/run")
    expect(page.get_by_label("model")).to_have_value("volume")
    submit = page.get_by_role("button", name="Submit")
    assert answer(page, submit, "create_flow_run").status == 409
    missing = main(page).get_by_text("'reason' is a required property", exact=True)
    expect(missing).to_be_visible()
    photograph(page, tmp_path, "ui-rollback-refused")

    page.get_by_label("reason").fill("SBUX is forecast too high")
    expect(missing).not_to_be_visible()  # until then, the form takes itself for faulty
    made = answer(page, submit, "create_flow_run").json()
    assert made["parameters"]["reason"] == "SBUX is forecast too high"
    site.runs["rollback"] = made["id"]
    assert site.up.ended(made["id"])["type"] == "FAILED"

    page.goto(site.run("rollback"))
    expect(main(page).get_by_text("no version before the current champion to go back to").first).to_be_visible()
    photograph(page, tmp_path, "ui-rollback-failed")


def test_a_retrain_run_shows_its_outcome_its_steps_and_its_scorecard(site: Site, page: Page, tmp_path: Path) -> None:
    run = site.ended("retrain")
    page.goto(site.deployment("retrain"))
    assert re.search("2004-06-28: (kept|promoted) v1$", run["name"])
    main(page).get_by_role("link", name=run["name"]).click()
    expect(page).to_have_url(re.compile(f"^{site.run('retrain')}"))
    expect(main(page).get_by_text(run["state"]["name"], exact=True)).to_be_visible()
    page.get_by_role("combobox", name="log sort order").click()
    page.get_by_role("option", name="Newest to oldest").click()
    expect(page.get_by_role("log")).to_contain_text(run["state"]["message"])
    photograph(page, tmp_path, "ui-run")

    page.get_by_role("tab", name="Task Runs").click()
    for step in site.up.api.post("/task_runs/filter", json={"flow_runs": {"id": {"any_": [run["id"]]}}}).json():
        expect(page.get_by_role("tabpanel").get_by_role("link", name=step["name"])).to_be_visible()

    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_role("link", name="volcast-scorecard").click()
    expect(page).to_have_url(f"{site.up.ui}/artifacts/key/{site.up.artifact_key('scorecard')}")


def test_the_scorecard_shows_its_plots_beside_nothing_that_they_cover(site: Site, page: Page, tmp_path: Path) -> None:
    shown = open_newest(page, site.up, "scorecard")
    plots = shown.get_by_role("img")
    expect(plots.first).to_be_visible()
    for plot in plots.all():
        assert plot.evaluate("image => image.complete && image.naturalWidth") > 0
    assert overflowing(shown) == []
    photograph(page, tmp_path, "ui-scorecard")


@pytest.mark.parametrize(("name", "picture"), [("status", "ui-status"), ("forecast-sbux", "ui-forecast")])
def test_what_is_published_each_day_has_a_history(
    site: Site, page: Page, tmp_path: Path, name: str, picture: str
) -> None:
    key = site.up.artifact_key(name)
    site.ended("day after")
    page.goto(f"{site.up.ui}/artifacts")
    main(page).get_by_role("link", name=re.compile(key)).click()
    expect(page).to_have_url(f"{site.up.ui}/artifacts/key/{key}")
    for day in ("2004-06-28", "2004-06-29"):
        expect(main(page).get_by_role("link", name=day).first).to_be_visible()
    photograph(page, tmp_path, f"{picture}-history")

    shown = open_newest(page, site.up, name)
    expect(shown).to_contain_text("2004-06-29")
    expect(page.get_by_role("complementary").get_by_role("link", name="2004-06-29")).to_be_visible()  # the run
    assert overflowing(shown) == []
    photograph(page, tmp_path, picture)


def test_the_page_of_the_day_is_named_in_the_ui_and_its_charts_stand_where_they_are_read(
    site: Site, page: Page, browser: Browser, tmp_path: Path
) -> None:
    site.ended("day after")
    shown = open_newest(page, site.up, "latest")
    expect(shown).to_contain_text("2004-06-29: of 3 tickers")
    expect(shown).to_contain_text("Runs that failed")
    assert overflowing(shown) == []
    photograph(page, tmp_path, "ui-latest")
    file = site.up.folder / "data" / "simulated-0" / "reports" / "volume" / "latest.html"
    expect(shown).to_contain_text(str(file))
    for width in (1280, 400):
        with browser.new_context(viewport={"width": width, "height": 900}) as context:
            own = context.new_page()
            own.goto(file.as_uri())
            assert own.evaluate("document.documentElement.scrollWidth") == width
            charts = own.locator(".chart").all()
            assert charts
            for chart in charts:  # to the left, as what stands above it, and the newest end in sight where it is narrow
                assert chart.evaluate(PLACES) == [0, 0]
            own.screenshot(path=tmp_path / f"page-{width}.png", full_page=True)


def test_a_person_sees_the_scorecard_of_a_held_version_and_lets_it_forecast(
    site: Site, page: Page, tmp_path: Path
) -> None:
    training = {"recipe": "tutorial", "settings": {"epochs": 50}}  # whose first version passes, with nothing beside it
    data = FIRST_DAY | {"tickers": ["SBUX"]}
    site.runs["held"] = site.up.run("retrain", data=data, training=training, why={"require_approval": True})
    page.goto(site.run("held"))
    expect(main(page).get_by_text("Suspended", exact=True)).to_be_visible()

    form = approval_form(page)
    expect(form).to_contain_text("Passed the gate: RMSE")
    photograph(page, tmp_path, "ui-approval")
    resume = form.get_by_role("button", name="Resume")
    answer(page, resume, "resume")
    expect(page.get_by_text("'answer' is a required property").first).to_be_visible()

    fill_approval(page, form, "yes", "It explains SBUX well")
    assert answer(page, resume, "resume").ok
    state = site.ended("held")["state"]
    assert state["message"].startswith("Promoted tutorial.SBUX v1: RMSE")
    assert state["message"].endswith("Approved: It explains SBUX well")


def test_every_alert_is_listed_by_its_name(site: Site, page: Page, tmp_path: Path) -> None:
    page.goto(f"{site.up.ui}/automations")
    alerts = [each["name"] for each in site.up.api.post("/automations/filter", json={}).json()]
    assert alerts
    for name in alerts:
        expect(main(page).get_by_role("link", name=name)).to_be_visible()
    photograph(page, tmp_path, "ui-automations")


def test_the_address_of_the_server_opens_the_dashboard_with_the_completed_runs(
    site: Site, page: Page, tmp_path: Path
) -> None:
    page.goto(site.up.ui.removesuffix("/v2"))
    expect(page).to_have_url(re.compile(f"^{site.up.ui}/dashboard"))
    page.get_by_role("tab", name="completed runs").click()
    for name in ("daily", "retrain"):
        expect(main(page).get_by_role("heading", name=name)).to_be_visible()
    expect(main(page).get_by_role("link", name=POOL, exact=True)).to_be_visible()
    expect(page.get_by_text("Ready to scale?")).to_have_count(0)
    photograph(page, tmp_path, "ui-dashboard")
