"""The checks of `make week`, asked of a week that was recorded, and of a service that does wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.week_checks import CHECKS, Check

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "week.json").read_text())
WHOLE = ["COMPLETED", "everything is as it was written"]
UNTOLD = ["COMPLETED", "* model volume v99, 1 session old", "FALLBACK_IN_USE"]

# A fact -> what it is where the service does wrong; where the first week had shown it, as it was then.
WRONG: dict[str, Any] = {
    # Monday
    "status_before_a_model": "volume from 2004-07-12 by har; FALLBACK_IN_USE",
    "champion_before_the_yes": 1,
    "approval_wanted": "WARNING volcast alert approval-wanted: a model waits for a yes\nA run waits.",
    "approval_form": "Approve?",
    "champion_moved": "",
    "status_after_the_yes": "volume from 2004-07-12 by har; FALLBACK_IN_USE, NO_CHAMPION",  # an hour later
    # Tuesday
    "pipeline_trained": ["SBUX"],
    "pipeline_published": {"volcast": ["SBUX"]},  # 10 rows instead of 50
    "ingest_fetched": ["SBUX"],
    "backtest_shown": ["SBUX"],
    "pipeline_held": "Promoted second v1: MASE 0.5",
    "second_champion": 1,
    "champion_moved_by_pipeline": True,
    "skipped": "daily volume 2004-07-13",
    "status_after_a_skipped_day": "volume from 2004-07-12 by har; FALLBACK_IN_USE, NO_CHAMPION",
    "killed": ["RUNNING", ""],
    "killed_told": "",
    "killed_seconds": 300,
    "cancelled": ["CRASHED", "The run's process was killed"],  # after it had trained to its end
    "cancel_seconds": 300,
    "champion_after_the_cancel": 3,
    "switched_off": [],
    "changed_by_the_restart": "0",
    "switched_off_after_the_restart": [],
    "ended_with": 1,
    "left_after_the_end": [4711],
    "up_stopped": "CRITICAL volcast alert up-died: volcast up has died",
    # Wednesday
    "partial": "volume from 2004-07-14 by volcast; nothing to report",
    "partial_told": "",
    "partial_resolved": "",
    "forecasts_started_by_a_muted_one": 1,
    "daily_without_a_champion": ["FAILED", "daily volume 2004-07-14"],
    "authors_without_a_champion": {"volcast": ["AAPL"]},
    "fallback_told": "",
    "status_without_a_champion": [1, "UNUSABLE_CHAMPION Its weights are damaged. volcast retrain, or delete the file."],
    "healed_same": False,
    "verify_after_healing": "FAILED",
    "authors_after_healing": {"har": ["SBUX"]},
    "fallback_resolved": "",
    "damage_found": WHOLE,
    "restated_into_damage": ["COMPLETED", "5 tickers"],
    "damage_found_again": WHOLE,  # for good
    "made_of_damaged_prices": [["COMPLETED", "Kept volume v4: 7e290"]],
    "found_after_the_backup": ["FAILED", "sha256"],
    "restated_after_the_backup": "FAILED",
    "new_restatements": 0,
    # Thursday
    "deadline_found": "volume from 2004-07-14 by volcast; nothing to report",
    "deadline_told": "",
    "deadline_resolved": "",
    "daily_not_pinged": "FAILED",
    "mistyped": [0, ""],
    "mistyped_is_made": True,
    "full_disk": [1, "Error: GenericError: … (this was not foreseen; volcast --debug … shows where it happened)"],
    "checkpoints_told": 0,
    "after_the_full_disk": [0, False],
    "down_seconds": 10,
    "came_while_down": 1,
    "missed": [],
    "sent_late": [],
    "words_of_a_late_one": "CRITICAL volcast alert run-failed: a run failed",
    "failed_daily": "COMPLETED",
    "pings": ["/ping"],
    # Friday
    "first_champion": 98,
    "tried_version": 98,
    "promoted_by_hand": UNTOLD,
    "rolled_back": UNTOLD,
    "versions_that_forecast": [[1], [1]],
    "same_after_the_rollback": False,
    "moves_told": ["", ""],
    "refusal_told": "",
    "severities": {},
    "status": [0, "Service   no server is configured"],
    "unexplained_fields": ["retrain: seed"],
    "too_wide": ["volcast-status: TABLE"],
    "morning": "",
    # the weekend
    "lost": "Running",
    "up_again": ["pipeline volume", ""],
    "dead_server": [1, []],
    "status_of_the_dead": [0, "Service   no server is configured"],
    "runs_after_the_move": 40,
    "switched_off_after_the_move": ["weekdays-after-the-close"],
    "stored_after_the_move": False,
    "old_runs_after_the_move": 0,
    "yes_after_the_move": [1, None],
    "daily_after_the_move": ["FAILED", ""],
    "authors_after_the_move": {},
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.line} {check.name}")
def test_a_check_is_kept_by_the_week_that_was_recorded_and_fails_by_each_of_its_facts(check: Check) -> None:
    assert check.result(RECORDED, {}) == ("kept", "")
    for fact in check.facts:
        result, why = check.result(RECORDED | {fact: WRONG[fact]}, {})
        assert (result, fact in why) == ("failed", True), f"{fact} may be {WRONG[fact]}"


def test_a_week_that_did_not_come_so_far_has_kept_nothing() -> None:
    assert {check.result({}, {})[0] for check in CHECKS} == {"failed"}


def test_what_the_machine_lacks_is_not_run() -> None:
    lacking: Any = {"browser": "no browser: install it"}
    found = {check.needs: check.result(RECORDED, lacking) for check in CHECKS}
    assert found["browser"] == ("not run", "no browser: install it")
    assert found[""] == ("kept", "")


def test_every_fact_that_is_noted_is_asked_for() -> None:
    assert set(RECORDED) == {fact for check in CHECKS for fact in check.facts} == set(WRONG)
