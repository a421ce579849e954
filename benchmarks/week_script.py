"""The operator's week on a real service, and what was seen of it; benchmarks/week.py tells it.

Monday      a first day; a model is trained by itself, waits for a yes, and gets it
Tuesday     runs by hand with nothing filled in; a run is killed, another is cancelled after its worker died; a schedule
            is paused and automations are muted before `volcast up` starts again with other deployments
Wednesday   a forecast of one ticker; the champion's weights and the price files are damaged
Thursday    the webhook is down for more than a minute, a deadline is missed, and a disk fills up during a training
Friday      a promotion and a rollback by hand, a no to a model, and a look at everything in the UI
Weekend     `volcast up` and its server are killed, it is ended, and its history moves to PostgreSQL

The clock of the exchange, and of every deployment, is the week's: their setting `now`. Whatever a check of
benchmarks/week_checks.py asks for is noted as a fact, a value that JSON has, under the name that the check knows.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pyarrow.parquet as pq
from playwright.sync_api import Page, expect

from benchmarks import browser as ui
from benchmarks.faults import flip_a_bit
from benchmarks.programs import (
    BEATS_HAR,
    ENDLESS,
    PARTS,
    VOLCAST,
    Up,
    environment,
    free_port,
    options,
    processes_of,
    wait_for_exit,
    wait_until,
)
from benchmarks.webhooks import Webhook
from benchmarks.week_service import EVENING, NAME, SOURCE, Week
from volcast.storage.append_tables import RestatementTable
from volcast.storage.artifacts import blob_key
from volcast.storage.ledger import Ledger
from volcast.tasks.stored_models import MODEL_FILE, scorecards

TICKERS = ["AAPL", "JPM", "KO", "MSFT", "SBUX"]
DAYS = ("2004-07-12", "2004-07-13", "2004-07-14", "2004-07-15", "2004-07-16", "2004-07-19")
MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY, NEXT_MONDAY = DAYS
DUE, AFTER_DUE = "18:15", "18:16"  # of New York: by when there is a forecast
OPTIONS = ["--source", SOURCE, "--device", "cpu", *options(BEATS_HAR)]
DOWN_SECONDS = 65  # of the webhook: an alert was lost after a minute
MUTED = ("volcast alert run-long-1h:", "volcast starts forecast: new prices")  # how their names begin
DISK_BYTES = 64 << 20


def monday(week: Week) -> None:
    """Prices of five tickers, a first day by har, and a model that is trained by itself and waits for a yes."""
    week.set_clock(MONDAY)
    week.run("ingest", data={"tickers": TICKERS})
    week.up.ended_runs("forecast", 1)
    week.run("daily")
    week.see(status_before_a_model=week.shown("status"))
    week.up.wait(lambda: week.up.runs("retrain"), "enough sessions start a retraining")
    held = week.up.runs("retrain")[0]["id"]
    week.wait_for_question(held)
    week.see(champion_before_the_yes=week.champion())
    week.see(approval_wanted=week.told("approval-wanted"), approval_form=_say_yes(week, held))
    week.see(champion_moved=week.told("champion-moved"))
    week.up.ended_runs("forecast", 2)
    week.see(status_after_the_yes=week.shown("status"))


def _say_yes(week: Week, run: str) -> str:
    """Answer in the UI, or where there is no browser by its API; gives the words of the form in the UI."""
    with week.window() as page:
        if page is None:
            week.up.answer(run, "yes", "the scorecard is good")
            return ""
        page.goto(f"{week.up.ui}/runs/flow-run/{run}")
        expect(ui.main(page).get_by_text("Suspended", exact=True)).to_be_visible()
        form = ui.approval_form(page)
        expect(form).to_contain_text("waits for a yes")
        week.photograph(page, "approval")
        words = form.inner_text()
        ui.fill_approval(page, form, "yes", "the scorecard is good")
        ui.answer(page, form.get_by_role("button", name="Resume"), "resume")
        return words


def tuesday(week: Week) -> None:
    """Runs with nothing filled in; a kill, a cancel, and a restart with other deployments."""
    week.set_clock(TUESDAY)
    _run_with_defaults(week)
    week.run("daily")
    skipped = week.run("daily")
    week.see(skipped=skipped["run"], status_after_a_skipped_day=week.shown("status"))
    _kill_and_cancel(week)
    _restart(week)


def _run_with_defaults(week: Week) -> None:
    before = week.champion()
    week.run("pipeline")
    trained = next(scorecards(week.artifacts, NAME)).model.snapshot.tickers
    week.see(pipeline_trained=sorted(trained), pipeline_published=week.authors())
    steps = {"flow_runs": {"id": {"any_": [week.run("ingest")["id"]]}}}
    names = [step["name"] for step in week.up.api.post("/task_runs/filter", json=steps).json()]
    fetched = sorted(name.split()[-1] for name in names if name.startswith("fetch and validate "))
    week.run("backtest")
    tested = [ticker for ticker in TICKERS if ticker in week.shown("backtest")]
    week.see(ingest_fetched=fetched, backtest_shown=tested)
    held = week.run("pipeline", training={"name": "second"})
    week.see(pipeline_held=held["message"], second_champion=week.champion("second"))
    week.see(champion_moved_by_pipeline=week.champion() != before)


def _kill_and_cancel(week: Week) -> None:
    up = week.up
    killed = up.train(ENDLESS)
    os.kill(up.wait_for_training(killed), signal.SIGKILL)
    began = time.monotonic()
    state = up.ended(killed)
    text = week.told("run-failed", up.flow_run(killed)["name"])
    week.see(killed=[state["type"], state["message"]], killed_told=text, killed_seconds=round(time.monotonic() - began))
    cancelled = up.train(ENDLESS)
    pid, worker = up.wait_for_training(cancelled), up.part("worker")
    os.kill(worker, signal.SIGKILL)
    up.wait(lambda: processes_of(up.folder, PARTS["worker"]).keys() - {worker}, "another worker is there")
    up.api.post(f"/flow_runs/{cancelled}/set_state", json={"state": {"type": "CANCELLING"}})  # as the UI's Cancel does
    began = time.monotonic()
    state = up.ended(cancelled)
    up.wait(lambda: pid not in processes_of(up.folder), "its process ends")
    week.see(cancelled=[state["type"], state["message"]], cancel_seconds=round(time.monotonic() - began))
    week.see(champion_after_the_cancel=week.champion())


def _restart(week: Week) -> None:
    """Pause and mute, and start `volcast up` with a deadline, which changes what is deployed."""
    up = week.up
    daily = up.deployments["daily"]
    up.api.patch(f"/deployments/{daily['id']}/schedules/{daily['schedules'][0]['id']}", json={"active": False})
    for automation in _automations(up):
        if automation["name"].startswith(MUTED):
            up.api.patch(f"/automations/{automation['id']}", json={"enabled": False})
    week.see(switched_off=_switched_off(up), ended_with=up.end(), left_after_the_end=list(processes_of(up.folder)))
    up.options = (*up.options, "--forecast-by", DUE)
    up.start()
    week.see(changed_by_the_restart=up.said.partition("new or changed: ")[2].partition(",")[0])
    week.see(switched_off_after_the_restart=_switched_off(up), up_stopped=week.told("up-stopped"))


def _automations(up: Up) -> list[dict[str, Any]]:
    return up.api.post("/automations/filter", json={}).json()


def _switched_off(up: Up) -> list[str]:
    """Schedules and automations that are off, without the store's label."""
    slugs = [each["slug"] for own in up.deployments.values() for each in own["schedules"] if not each["active"]]
    return sorted([*slugs, *(each["name"].rpartition(" (")[0] for each in _automations(up) if not each["enabled"])])


def wednesday(week: Week) -> None:
    """A forecast that lacks tickers, a champion that cannot be read, and prices that are not as they were written."""
    week.set_clock(WEDNESDAY)
    forecasts = len(week.up.runs("forecast"))
    week.run("ingest")
    week.run("forecast", data={"tickers": ["SBUX"]})
    looked = week.run("monitor")
    week.see(partial=looked["message"], partial_told=week.told("forecast-missing"))
    week.turn_the_page()
    week.see(forecasts_started_by_a_muted_one=len(week.up.runs("forecast")) - forecasts - 1)
    _damage_the_champion(week)
    _damage_the_prices(week)


def _damage_the_champion(week: Week) -> None:
    version = week.champion()
    assert version is not None
    weights = week.data / "simulated-0" / blob_key(week.artifacts.get("model", NAME, version).files[MODEL_FILE])
    flip_a_bit(weights)
    daily = week.run("daily")
    week.see(daily_without_a_champion=[daily["type"], daily["run"]], authors_without_a_champion=week.authors())
    week.see(
        fallback_told=week.told("fallback-used", "cannot be used"),
        partial_resolved=week.told("resolved", "PARTIAL_FORECAST"),
    )
    status = week.command("status")
    line = next((line for line in status.stdout.splitlines() if line.startswith("UNUSABLE_CHAMPION")), "")
    week.see(status_without_a_champion=[status.returncode, line])
    week.turn_the_page()
    healing = week.up.run("retrain", data={"as_of": MONDAY})  # a new version, for others came between, of equal weights
    week.wait_for_question(healing)
    week.up.answer(healing, "no", "they are the champion's own weights")
    week.up.ended(healing)
    again, trained = week.artifacts.get("model", NAME), week.artifacts.get("model", NAME, version)
    week.see(healed_same=again.digest == trained.digest and again.version != version)
    week.see(verify_after_healing=week.run("verify")["type"])
    week.run("daily")
    week.see(authors_after_healing=week.authors(), fallback_resolved=week.told("resolved", "FALLBACK_IN_USE"))


def _damage_the_prices(week: Week) -> None:
    """A bit of `low` in each price file of the year; the exchange then says other values for the newest session."""
    other = {"source": f"{SOURCE}?faults=partial"}
    files = list((week.data / "simulated-0" / "prices").rglob("year=2004/*.parquet"))
    whole = {file: file.read_bytes() for file in files}
    restatements = len(RestatementTable(week.store).read())
    for file in files:
        flip_a_bit(file, _place_of_lows(file))
    week.see(damage_found=_verified(week))
    into = week.run("ingest", data=other)
    week.see(restated_into_damage=[into["type"], into["message"]], damage_found_again=_verified(week))
    attempts = [week.run("retrain", training={"force": True}), week.run("forecast")]
    week.see(made_of_damaged_prices=[[each["type"], each["message"]] for each in attempts])
    for file, content in whole.items():
        file.write_bytes(content)
    week.see(found_after_the_backup=_verified(week), restated_after_the_backup=week.run("ingest", data=other)["type"])
    week.see(new_restatements=len(RestatementTable(week.store).read()) - restatements)
    week.run("ingest")


def _place_of_lows(path: Path) -> int:
    """Of a byte in the middle of the page with the lows of a Parquet file."""
    group = pq.read_metadata(path).row_group(0)
    (lows,) = (own for own in map(group.column, range(group.num_columns)) if own.path_in_schema == "low")
    return lows.data_page_offset + lows.total_compressed_size // 2


def _verified(week: Week) -> list[str]:
    """How a run of `verify` ended, and what it says."""
    state = week.run("verify")
    return [state["type"], state["message"]]


def thursday(week: Week) -> None:
    """The webhook is down while a run fails, a deadline is missed and met, and a disk fills up."""
    week.set_clock(THURSDAY, AFTER_DUE)
    week.turn_the_page()
    had, began = len(week.webhook.posts), time.monotonic()
    week.webhook.stop()
    week.run("ingest", data={"source": "files:/not/there.csv"})
    week.told("run-failed", "/not/there.csv", week.second)
    late = week.run("monitor")
    week.see(deadline_found=late["message"], deadline_told=week.told("deadline-missed", receiver=week.second))
    pings = len(week.webhook.pings)
    daily = week.run("daily")
    week.see(deadline_resolved=week.told("resolved", "DEADLINE_MISSED", week.second), daily_not_pinged=daily["type"])
    _mistype_the_store(week)
    if week.can_mount:
        _fill_the_disk(week)
    time.sleep(max(0, DOWN_SECONDS - (time.monotonic() - began)))
    week.see(down_seconds=round(time.monotonic() - began), came_while_down=len(week.webhook.posts) - had)
    missed = week.second.codes()[had:]
    week.webhook.start()
    week.up.wait(lambda: len(week.webhook.posts) >= had + len(missed), "what was kept is sent")
    week.see(missed=missed, sent_late=week.webhook.codes()[had : had + len(missed)])
    week.see(words_of_a_late_one=week.texts("run-failed")[-1])
    week.run("daily")
    week.up.wait(lambda: len(week.webhook.pings) > pings, "the monitor outside is told")
    failed = week.run("daily", data={"source": "files:/not/there.csv"})
    week.see(failed_daily=failed["type"], pings=sorted(set(week.webhook.pings)))


def _mistype_the_store(week: Week) -> None:
    mistyped = week.up.folder / "typo"
    status = week.command("status", "--store", str(mistyped))
    week.see(mistyped=[status.returncode, _error_of(status.stderr)], mistyped_is_made=mistyped.exists())


def _error_of(text: str) -> str:
    """The line of a command's error; empty without one."""
    return next((line for line in text.splitlines() if line.startswith("Error:")), "")


def _fill_the_disk(week: Week) -> None:
    """A copy of the store on a small disk, which is filled when a training has taken some steps."""
    disk = week.up.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)], check=True)
    shutil.copytree(week.data, disk / "data")
    settings = {"steps": 400, "members": 1, "hidden_size": 16, "validate_every_steps": 10}
    retrain = ["retrain", "--store", str(disk / "data"), "--seed", "7", "--device", "cpu", *options(settings)]
    log, filling = week.up.folder / "disk.log", disk / "filling"
    with log.open("w") as out:
        command = subprocess.Popen([*VOLCAST, *retrain], cwd=week.up.folder, env=week.up.environment, stderr=out)
        wait_until(lambda: "Step 20 of 400" in log.read_text(), what="it trains", lives=lambda: command.poll() is None)
        with filling.open("wb", buffering=0) as file:
            while not _is_full(lambda: file.write(b"x" * 4096)):
                pass
        code = wait_for_exit(command, week.up.folder)
    said = log.read_text()
    week.see(full_disk=[code, _error_of(said)], checkpoints_told=said.count("no checkpoint can be saved"))
    filling.unlink()
    again = week.command(*retrain)
    week.see(after_the_full_disk=[again.returncode, "resumes from its checkpoint" in again.stderr])
    subprocess.run(["umount", str(disk)], check=True)


def _is_full(write: Callable[[], object]) -> bool:
    try:
        write()
    except OSError:
        return True
    return False


def friday(week: Week) -> None:
    """Another version forecasts by a person's will and back, a model is refused, and everything is looked at."""
    week.set_clock(FRIDAY)
    week.turn_the_page()
    week.run("daily")
    first = week.champion()
    week.run("retrain", training={"seed": 1}, why={"promote": False})
    tried, before = week.artifacts.versions("model", NAME)[-1], week.published()
    week.see(first_champion=first, tried_version=tried)
    week.see(promoted_by_hand=_move(week, "promote", version=tried))
    by_promoted = _versions(week)
    week.see(rolled_back=_move(week, "rollback"), versions_that_forecast=[by_promoted, _versions(week)])
    week.see(same_after_the_rollback=_medians(week.published()) == _medians(before))
    week.see(moves_told=[week.told("champion-moved", "by hand"), week.told("champion-moved", "Rolled back")])
    refused = week.up.run("retrain", training={"name": "refused"})
    week.wait_for_question(refused)
    week.up.answer(refused, "no", "it is not needed")
    week.see(refusal_told=week.told("approval-refused"))
    week.see(severities=_severities(week), status=_status(week))
    with week.window() as page:
        if page is not None:
            _look(week, page)


def _move(week: Week, deployment: str, **parameters: Any) -> list[str]:
    """Move the champion by a deployment, and wait for the forecast that follows; its end, and the status then."""
    forecasts = len(week.up.runs("forecast"))
    state = week.run(deployment, reason="tried on a Friday", **parameters)
    status = week.shown("status")
    week.up.ended_runs("forecast", forecasts + 1)
    return [state["type"], status, week.shown("status")]


def _versions(week: Week) -> list[int]:
    """The versions of the model in the newest published forecast."""
    return [int(version) for version in week.published()["model_version"].unique()]


def _medians(forecasts: pd.DataFrame) -> list[tuple[Any, ...]]:
    return sorted(zip(forecasts["ticker"], forecasts["h"], forecasts["median"], strict=True))


def _severities(week: Week) -> dict[str, list[str]]:
    """Code of an alert -> the severities with which it came."""
    found: dict[str, set[str]] = {}
    for text in week.webhook.texts:
        severity, code = re.findall(r"^([A-Z]+) volcast alert ([\w-]+):", text)[0]
        found.setdefault(code, set()).add(severity)
    return {code: sorted(each) for code, each in sorted(found.items())}


def _status(week: Week) -> list[Any]:
    """The exit status of `volcast status`, and what it says."""
    status = week.command("status")
    return [status.returncode, status.stdout]


FORMS = ("daily", "retrain", "pipeline", "backtest", "ingest", "promote", "rollback")
SHOWN = ("status", "latest", "models", "scorecard", "backtest")


def _look(week: Week, page: Page) -> None:
    """At the lists, the forms, the artifacts, a run, and the page of the morning."""
    page.set_viewport_size({"width": 1280, "height": 1600})
    unexplained, too_wide = [], []
    for name in ("dashboard", "deployments?limit=100", "automations", "artifacts", "runs"):
        page.goto(f"{week.up.ui}/{name}")
        expect(ui.main(page)).to_be_visible()
        page.wait_for_load_state("networkidle")
        week.photograph(page, name.partition("?")[0])
    for name in FORMS:
        deployment = week.up.deployments[name]
        page.goto(f"{week.up.ui}/deployments/deployment/{deployment['id']}/run")
        expect(page.get_by_role("button", name="Submit")).to_be_visible()
        texts = ui.help_texts(deployment["parameter_openapi_schema"])
        expect(ui.main(page).get_by_text(next(filter(None, texts.values())), exact=True).first).to_be_visible()
        shown = " ".join(ui.main(page).inner_text().split())
        unexplained += [f"{name}: {field}" for field, text in texts.items() if not text or text not in shown]
        too_wide += [f"{name}: {each}" for each in ui.overflowing(ui.main(page))]
        page.wait_for_load_state("networkidle")  # the editors of settings come last
        week.photograph(page, f"form-{name}", whole=True)
    for name in SHOWN:
        shown = ui.open_newest(page, week.up, name)
        too_wide += [f"volcast-{name}: {each}" for each in ui.overflowing(shown)]
        week.photograph(page, f"volcast-{name}", whole=True)
    run = next(run for run in week.up.runs("daily") if run["state"]["type"] == "COMPLETED")
    page.goto(f"{week.up.ui}/runs/flow-run/{run['id']}")
    expect(page.get_by_role("log")).to_be_visible()
    week.photograph(page, "run")
    page.goto((week.data / "simulated-0" / "reports" / NAME / "latest.html").as_uri())
    week.photograph(page, "morning", whole=True)
    week.see(unexplained_fields=unexplained, too_wide=too_wide, morning=page.locator("body").inner_text()[:4000])


def weekend(week: Week) -> None:
    """Deaths of `volcast up` and its server, its end, and a move to PostgreSQL."""
    up = week.up
    week.turn_the_page()
    lost = up.train(ENDLESS)
    up.wait_for_training(lost)
    name = up.flow_run(lost)["name"]
    up.kill("up")
    week.see(lost=up.flow_run(lost)["state"]["name"], up_again=[name, week.told("up-again")])
    os.kill(up.part("server"), signal.SIGKILL)
    code = wait_for_exit(up.process, up.folder)
    week.see(dead_server=[code, week.texts("up-died")], status_of_the_dead=_status(week))
    up.start()
    waiting = up.run("retrain", data={"now": f"{FRIDAY}T{EVENING}:00-04:00"}, training={"name": "waiting"})
    week.wait_for_question(waiting)
    up.end()
    if week.database is not None:
        _move_to_postgres(week, week.database)


def _move_to_postgres(week: Week, database: str) -> None:
    up = week.up
    kept = _stored(week)
    old_runs = _runs_of_a_copy(up)  # while nothing else uses the database
    up.options = (*up.options, "--database", database)
    up.start()
    week.see(runs_after_the_move=len(up.api.post("/flow_runs/filter", json={"flow_runs": ENDED}).json()))
    week.see(switched_off_after_the_move=_switched_off(up), stored_after_the_move=_stored(week) == kept)
    yes = week.command("models", "promote", "waiting", "--version", "1", "--reason", "the yes after the move")
    week.see(yes_after_the_move=[yes.returncode, week.champion("waiting")], old_runs_after_the_move=old_runs)
    week.set_clock(NEXT_MONDAY)
    daily = week.run("daily")
    week.see(daily_after_the_move=[daily["type"], daily["message"]], authors_after_the_move=week.authors())
    up.end()


ENDED = {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}}


def _stored(week: Week) -> dict[str, Any]:
    """What a move must not touch: the forecasts, the versions and who forecasts."""
    rows = len(Ledger(week.store).forecasts(NAME, first=date.fromisoformat(MONDAY)))
    versions = sorted([kind, name, version] for kind, name, version in week.artifacts.all_versions())
    return {"forecasts": rows, "versions": versions, "champion": week.champion()}


def _runs_of_a_copy(up: Up) -> int:
    """How many ended runs Prefect's own server shows of a copy of the SQLite database, without any worker."""
    folder, port = up.folder / "copy", free_port()
    folder.mkdir()
    database = Path(shutil.copy(up.folder / "home" / "prefect.db", folder))
    own = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (
        (folder / "server.log").open("w") as log,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/api", trust_env=False) as client,
    ):
        server = subprocess.Popen(command, cwd=folder, env=environment(folder) | own, stdout=log, stderr=log)
        with server:
            wait_until(lambda: _answers(client), what="it answers", lives=lambda: server.poll() is None)
            found = client.post("/flow_runs/filter", json={"flow_runs": ENDED}).json()
            server.send_signal(signal.SIGINT)
    return len(found)


def _answers(client: httpx.Client) -> bool:
    with suppress(httpx.HTTPError):
        return client.get("/health").is_success
    return False


DAYS_OF_THE_WEEK: dict[str, Callable[[Week], None]] = {
    "Monday": monday,
    "Tuesday": tuesday,
    "Wednesday": wednesday,
    "Thursday": thursday,
    "Friday": friday,
    "the weekend": weekend,
}


def variables(webhook: Webhook, second: Webhook) -> dict[str, str]:
    """The environment of `volcast up`: channels, a monitor outside, and a yes for each model."""
    return {
        "VOLCAST_ALERT_WEBHOOK": webhook.url,
        "VOLCAST_ALERT_URLS": second.apprise_url,
        "VOLCAST_PING_URL": f"{webhook.host}/ping",
        "VOLCAST_REQUIRE_APPROVAL": "true",
    }
