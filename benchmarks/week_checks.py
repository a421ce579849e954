"""What the operator's week must have shown (benchmarks/week.py): each check by name, a question to facts of the week.

A check's parameters are the names of the facts that it looks at (benchmarks/week_script.py notes them). It is kept
where it says so of them, failed where it does not or where one of them was never seen, and not run where the machine
lacks what it needs.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.week_script import DOWN_SECONDS, DUE, FRIDAY, MONDAY, NEXT_MONDAY, THURSDAY, TICKERS, TUESDAY

Need = Literal["", "browser", "postgres", "mounts"]
Result = Literal["kept", "failed", "not run"]
LONGEST = 200  # characters of each fact, where a check has failed
BY_MODEL, BY_HAR = {"volcast": TICKERS}, {"har": TICKERS}
SEVERITIES = {
    "run-failed": ["CRITICAL"],
    "forecast-missing": ["CRITICAL"],
    "deadline-missed": ["CRITICAL"],
    "fallback-used": ["WARNING"],
    "approval-wanted": ["WARNING"],
    "champion-moved": ["INFO"],
    "approval-refused": ["INFO"],
    "resolved": ["INFO"],
    "up-stopped": ["INFO"],
}
SOON = 120  # seconds, on a busy machine; it was at the end of a training


@dataclass(frozen=True)
class Check:
    """A question to some facts of the week."""

    line: str  # of the list of what went wrong in the first week
    name: str
    is_kept: Callable[..., bool]
    needs: Need = ""

    @property
    def facts(self) -> list[str]:
        """The names of the facts that it looks at."""
        return list(inspect.signature(self.is_kept).parameters)

    def result(self, facts: Mapping[str, Any], lacking: Mapping[Need, str]) -> tuple[Result, str]:
        """How it ended, and why where it was not kept."""
        if self.needs in lacking:
            return "not run", lacking[self.needs]
        seen = {name: facts[name] for name in self.facts if name in facts}
        if len(seen) < len(self.facts):
            return "failed", "the week did not come so far"
        if self.is_kept(**seen):
            return "kept", ""
        words = {name: str(value) for name, value in seen.items()}
        shown = {name: each if len(each) <= LONGEST else f"{each[:LONGEST]}…" for name, each in words.items()}
        return "failed", "; ".join(f"{name}: {each}" for name, each in shown.items())


def results(facts: Mapping[str, Any], lacking: Mapping[Need, str]) -> Iterator[tuple[Check, Result, str]]:
    """Each check with how it ended."""
    for check in CHECKS:
        yield check, *check.result(facts, lacking)


CHECKS = [
    Check(
        "A1",
        "a pipeline with nothing filled in trains on, and forecasts, all that is stored",
        lambda pipeline_trained, pipeline_published: pipeline_trained == TICKERS and pipeline_published == BY_MODEL,
    ),
    Check(
        "A1",
        "an ingest with nothing filled in asks for all that is stored",
        lambda ingest_fetched: ingest_fetched == TICKERS,
    ),
    Check(
        "A1",
        "a backtest with nothing filled in tests all that is stored",
        lambda backtest_shown: backtest_shown == TICKERS,
    ),
    Check(
        "A1",
        "a forecast that lacks stored tickers is found, told and, once it is mended, resolved",
        lambda partial, partial_told, partial_resolved: (
            "PARTIAL_FORECAST" in partial
            and "was not asked for 4 of 5 stored tickers" in partial_told
            and "PARTIAL_FORECAST is no longer so" in partial_resolved
        ),
    ),
    Check(
        "A2",
        "a pipeline holds a model that passed for a person's yes, and moves no champion by itself",
        lambda pipeline_held, second_champion, champion_moved_by_pipeline: (
            "Held second v1" in pipeline_held and second_champion is None and not champion_moved_by_pipeline
        ),
    ),
    Check(
        "A3",
        "a flipped bit in a price file is found",
        lambda damage_found: damage_found[0] == "FAILED" and "sha256" in damage_found[1],
    ),
    Check(
        "A3",
        "a restatement into a damaged file fails, and verify finds the damage after it as before",
        lambda restated_into_damage, damage_found, damage_found_again: (
            restated_into_damage[0] == "FAILED"
            and "sha256" in restated_into_damage[1]
            and damage_found_again == damage_found
        ),
    ),
    Check(
        "A3",
        "no model and no forecast is made of damaged prices",
        lambda made_of_damaged_prices: all(
            state == "FAILED" and "sha256" in message for state, message in made_of_damaged_prices
        ),
    ),
    Check(
        "A3",
        "with the files of the backup all is whole, and the restatement is recorded",
        lambda found_after_the_backup, restated_after_the_backup, new_restatements: (
            found_after_the_backup[0] == restated_after_the_backup == "COMPLETED" and new_restatements >= len(TICKERS)
        ),
    ),
    Check(
        "A4",
        "where the champion's weights are damaged, har publishes every ticker, and a person is told",
        lambda daily_without_a_champion, authors_without_a_champion, fallback_told: (
            daily_without_a_champion[0] == "COMPLETED"
            and daily_without_a_champion[1].endswith("needs a person")
            and authors_without_a_champion == BY_HAR
            and "model volume v1 cannot be used" in fallback_told
        ),
    ),
    Check(
        "A4",
        "status names the champion's damage and what to do, which is not to delete it",
        lambda status_without_a_champion: (
            status_without_a_champion[0] == 1
            and "volcast retrain" in status_without_a_champion[1]
            and "delete" not in status_without_a_champion[1]
        ),
    ),
    Check(
        "A4",
        "a retraining on the same prices gives the same weights back, and the champion forecasts again",
        lambda healed_same, verify_after_healing, authors_after_healing, fallback_resolved: (
            healed_same
            and verify_after_healing == "COMPLETED"
            and authors_after_healing == BY_MODEL
            and "FALLBACK_IN_USE is no longer so" in fallback_resolved
        ),
    ),
    Check(
        "A5",
        "a run that is killed is Crashed, and told, within two minutes",
        lambda killed, killed_told, killed_seconds: (
            killed[0] == "CRASHED" and killed_told.startswith("CRITICAL") and killed_seconds <= SOON
        ),
    ),
    Check(
        "A5",
        "a run whose worker has died is cancelled within two minutes, called cancelled, and promotes nothing",
        lambda cancelled, cancel_seconds, champion_after_the_cancel: (
            cancelled[0] == "CANCELLED"
            and "was cancelled" in cancelled[1]
            and cancel_seconds <= SOON
            and champion_after_the_cancel == 1
        ),
    ),
    Check(
        "A6",
        "what a person paused or muted is off after a restart that changes what is deployed",
        lambda switched_off, changed_by_the_restart, switched_off_after_the_restart: (
            len(switched_off) == 3
            and int(changed_by_the_restart) > 0
            and switched_off_after_the_restart == switched_off
        ),
    ),
    Check(
        "A6",
        "an automation that was muted starts nothing after that",
        lambda forecasts_started_by_a_muted_one: forecasts_started_by_a_muted_one == 0,
    ),
    Check(
        "A7",
        "volcast-status tells of a first model as soon as it forecasts",
        lambda status_before_a_model, status_after_the_yes: (
            "NO_CHAMPION" in status_before_a_model
            and f"volume from {MONDAY} by volcast; nothing to report" in status_after_the_yes
        ),
    ),
    Check(
        "A7",
        "volcast-status is of the day after a daily with nothing to do",
        lambda skipped, status_after_a_skipped_day: (
            skipped.endswith("skipped")
            and f"volume from {TUESDAY} by volcast; nothing to report" in status_after_a_skipped_day
        ),
    ),
    Check(
        "A7",
        "volcast-status names another version at once after a promotion, and after the forecast by it",
        lambda promoted_by_hand, tried_version: _names_version(promoted_by_hand, tried_version),
    ),
    Check(
        "A7",
        "volcast-status names the earlier version at once after a rollback, and after the forecast by it",
        lambda rolled_back, first_champion: _names_version(rolled_back, first_champion),
    ),
    Check(
        "A8",
        "a disk that fills up while a model is trained is named in one line, and the checkpoints' loss is told once",
        lambda full_disk, checkpoints_told: (
            full_disk[0] == 1
            and "No space left on device" in full_disk[1]
            and "not foreseen" not in full_disk[1]
            and checkpoints_told == 1
        ),
        needs="mounts",
    ),
    Check(
        "A8",
        "with room again the training goes on from its last checkpoint",
        lambda after_the_full_disk: after_the_full_disk == [0, True],
        needs="mounts",
    ),
    Check(
        "A8",
        "status of a mistyped store says so, and makes no folder",
        lambda mistyped, mistyped_is_made: (
            mistyped[0] == 1 and "there is no store" in mistyped[1] and not mistyped_is_made
        ),
    ),
    Check(
        "B1",
        "volcast up tells of its server's death by itself, and ends with 1",
        lambda dead_server: dead_server[0] == 1 and "Prefect's server ended with -9" in " ".join(dead_server[1]),
    ),
    Check(
        "B1",
        "after its own death volcast up tells of it at its start, and of the run that it found dead",
        lambda lost, up_again: lost == "Crashed" and up_again[0] in up_again[1].partition("are Crashed: ")[2],
    ),
    Check(
        "B1",
        "volcast up tells that a person ended it, with 0, and leaves no process",
        lambda ended_with, left_after_the_end, up_stopped: (
            ended_with == 0 and left_after_the_end == [] and up_stopped.startswith("INFO")
        ),
    ),
    Check(
        "B1",
        "a daily that did its work pings the monitor outside, one that failed pings its /fail",
        lambda failed_daily, pings: failed_daily == "FAILED" and pings == ["/ping", "/ping/fail"],
    ),
    Check(
        "B1",
        "a daily does its work while nobody answers its ping",
        lambda daily_not_pinged, came_while_down: daily_not_pinged == "COMPLETED" and came_while_down == 0,
    ),
    Check(
        "B1",
        "status knows server, worker, the room on the disk, the last runs with verify's result, and what is off",
        lambda status: all(
            words in status[1]
            for words in (
                "/v2 answers",
                "workers online: volcast-",
                "GB free for",
                "Completed: everything",
                "SWITCHED_OFF Off, by a person: ",
                "weekdays-after-the-close",
            )
        ),
    ),
    Check(
        "B1",
        "status exits with 1 where the service is dead, and says so",
        lambda status_of_the_dead: status_of_the_dead[0] == 1 and "SERVER_DOWN" in status_of_the_dead[1],
    ),
    Check(
        "B2",
        "what a webhook missed for more than a minute comes once it is back, in order, and says of when it is",
        lambda down_seconds, came_while_down, missed, sent_late, words_of_a_late_one: (
            down_seconds >= DOWN_SECONDS
            and came_while_down == 0
            and sent_late == missed
            and "Sent late: it is of " in words_of_a_late_one
        ),
    ),
    Check(
        "B2",
        "a second channel has all of it meanwhile",
        lambda missed: {"run-failed", "deadline-missed", "resolved"} <= set(missed),
    ),
    Check(
        "B2",
        "a model that waits for a yes is told, with version, score and cause, and forecasts nothing before",
        lambda approval_wanted, champion_before_the_yes: (
            "model volume v1 waits for a yes" in approval_wanted
            and "MASE" in approval_wanted
            and "Trained because: enough new sessions." in approval_wanted
            and champion_before_the_yes is None
        ),
    ),
    Check(
        "B2",
        "a promotion by the gate, one by hand, a rollback and a no are told",
        lambda champion_moved, moves_told, refusal_told: (
            "Promoted: model volume v1" in champion_moved
            and "Promoted by hand: volume v" in moves_told[0]
            and "Rolled back: volume v1" in moves_told[1]
            and "Refused: model refused v1 does not forecast. it is not needed. The gate had said: " in refusal_told
        ),
    ),
    Check(
        "B2",
        "each alert has the severity that it is to have",
        lambda severities: {code: severities.get(code) for code in SEVERITIES} == SEVERITIES,
    ),
    Check(
        "B3",
        "a deadline that was missed is found and told, and resolved by the forecast",
        lambda deadline_found, deadline_told, deadline_resolved: (
            "DEADLINE_MISSED" in deadline_found
            and f"No forecast from {THURSDAY} was there by {DUE}" in deadline_told
            and "DEADLINE_MISSED is no longer so" in deadline_resolved
        ),
    ),
    Check(
        "C1",
        "the form of an approval names version, score and cause",
        lambda approval_form: (
            "model volume v1 waits for a yes" in approval_form
            and "Trained because: enough new sessions." in approval_form
        ),
        needs="browser",
    ),
    Check(
        "C1",
        "each field of each form has its text",
        lambda unexplained_fields: unexplained_fields == [],
        needs="browser",
    ),
    Check(
        "C1", "nothing in forms and artifacts is wider than its place", lambda too_wide: too_wide == [], needs="browser"
    ),
    Check(
        "C3",
        "the page of the morning is of the newest session, and names the runs that failed",
        lambda morning: FRIDAY in morning and "failed" in morning,
        needs="browser",
    ),
    Check(
        "C4",
        "a promotion publishes a forecast by that version, and a rollback the earlier one, number by number",
        lambda tried_version, first_champion, versions_that_forecast, same_after_the_rollback: (
            versions_that_forecast == [[tried_version], [first_champion]] and same_after_the_rollback
        ),
    ),
    Check(
        "C5",
        "a move to PostgreSQL leaves runs and switches behind, as the guide says, and touches nothing in the store",
        lambda runs_after_the_move, switched_off_after_the_move, stored_after_the_move: (
            runs_after_the_move == 0 and switched_off_after_the_move == [] and stored_after_the_move
        ),
        needs="postgres",
    ),
    Check(
        "C5",
        "Prefect's own server shows the runs of before the move, from a copy of the database",
        lambda old_runs_after_the_move: old_runs_after_the_move > 40,
        needs="postgres",
    ),
    Check(
        "C5",
        "after the move a model that waited gets its yes by the command line, and the next daily goes on",
        lambda yes_after_the_move, daily_after_the_move, authors_after_the_move: (
            yes_after_the_move == [0, 1]
            and daily_after_the_move[0] == "COMPLETED"
            and NEXT_MONDAY in daily_after_the_move[1]
            and authors_after_the_move == BY_MODEL
        ),
        needs="postgres",
    ),
]


def _names_version(move: list[str], version: int) -> bool:
    """Whether a move went well, and the status named the version right after it and after its forecast."""
    state, at_once, after_the_forecast = move
    named = [f"model volume v{version}," in status for status in (at_once, after_the_forecast)]
    return state == "COMPLETED" and all(named) and f"volume from {FRIDAY} by volcast" in after_the_forecast
