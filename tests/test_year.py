"""A month of the year that `make year` lives through: a shift, outages, a poor model, and what the checks find."""

import shutil
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.year_checks import failures, noticed, shift_failures
from benchmarks.year_script import NAME, SETTINGS, Diary, Script, live
from volcast.flows.prefect_processes import without_server
from volcast.models.sessions import sessions_after
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.ledger import Ledger
from volcast.tasks.settings import TrainingSettings, WatchSettings

pytestmark = pytest.mark.flow

Month = tuple[Script, Diary]

SHIFT = date(2002, 3, 25)
POOR = (date(2002, 3, 30), date(2002, 4, 6))
ON_SATURDAYS = WatchSettings(retrain_sessions=60)  # and when the model errs, but not for new sessions alone

# It follows a shift too slowly to be trusted for long; a model that follows it well breaches nothing within a month.
ONE_RATE = TrainingSettings(
    device="cpu", settings={**SETTINGS, "adaptation": "one rate", "linear_share": 0.0, "rare_dates": 1.0}
)


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Month:
    script = Script(
        folder=tmp_path_factory.mktemp("year"),
        eve=date(2002, 3, 22),
        end=date(2002, 4, 23),
        shift=SHIFT,
        tickers=("SBUX", "T1", "T2", "T3"),
        poor=POOR,
        watch=ON_SATURDAYS,
        good=ONE_RATE,
    )
    diary = Diary()
    with without_server():
        live(script, diary, lambda _: None)
    return script, diary


def test_a_month_keeps_what_a_year_must_keep(month: Month) -> None:
    script, diary = month
    assert len(diary.sessions) == 21
    assert [check for check, wrong in failures(script, diary).items() if wrong] == []


def test_an_outage_lets_har_forecast_and_is_caught_up_by_the_next_run_that_gets_an_answer(month: Month) -> None:
    healths = {f"{day:%m-%d}": health for day, health in month[1].healths.items()}
    behind = {day: health.behind for day, health in healths.items() if health.behind}
    first = {"03-28": 1, "03-29": 1, "04-01": 2, "04-02": 3, "04-03": 4, "04-04": 5}  # Good Friday is the second
    assert behind == {**first, "04-08": 1, "04-16": 1}
    stale = [day for day, health in healths.items() if "its input is stale" in health.why]
    assert stale == ["04-01", "04-02", "04-03", "04-04"]


def test_poor_models_are_kept_and_do_not_forecast(month: Month) -> None:
    script, diary = month
    poor = [each for each in diary.trainings if each.is_poor]
    assert [(each.day, each.outcome) for each in poor] == [(day, "Kept") for day in POOR]
    assert all("does not beat har" in each.words for each in poor)
    used = Ledger(script.store).forecasts(NAME, first=script.eve)["model_version"].dropna()
    assert not {each.version for each in poor} & set(used)


def test_the_shift_is_noticed_by_the_intervals_and_retrained_on_when_the_last_training_has_cooled_down(
    month: Month,
) -> None:
    """In spite of an outage of four sessions right after it; by the errors too, later."""
    script, diary = month
    found = noticed(script, diary)
    assert found is not None
    assert found[1] == "MISCALIBRATED"
    assert sessions_after(SHIFT, found[0]) <= 10
    codes = {finding.code for health in diary.healths.values() for finding in health.findings}
    assert "ERROR_BREACH" in codes
    by_event = [each for each in diary.trainings if each.cause == "quality"]
    asked = [each.version is not None for each in by_event]
    assert asked.index(True) > 0  # too soon at first
    assert "an event (quality) starts another training after 5" in by_event[0].words
    gaps = [sessions_after(a.day, b.day) for a, b in pairwise(each for each in by_event if each.version is not None)]
    assert all(gap >= 5 for gap in gaps)


def test_what_a_model_of_one_rate_does_not_come_to_within_a_month_is_not_claimed(month: Month) -> None:
    """It does not learn the shift, its intervals do not hold, and none took over."""
    noticed_in_time, *others = shift_failures(*month).values()
    assert noticed_in_time == ""
    assert len(others) == 3
    assert all(others)


def test_the_checks_find_what_they_look_for(month: Month, tmp_path: Path) -> None:
    script, diary = month
    spoilt = replace(script, folder=shutil.copytree(script.folder, tmp_path / "spoilt"))
    poor = next(each.version for each in diary.trainings if each.is_poor)
    assert poor is not None
    ArtifactStore(spoilt.store).set_alias("model", NAME, "champion", poor, "a mistake")
    assert spoilt.store.folder is not None
    shutil.rmtree(spoilt.store.folder / "scores")
    assert [check for check, wrong in failures(spoilt, diary).items() if wrong] == [
        "no poor model was promoted",
        "every forecast whose session has come is scored",
    ]
