"""A month of the year that `make year` lives through: a shift, outages, a poor model, and what the checks find."""

import shutil
from datetime import date

import pytest

from benchmarks.year_checks import failures, noticed, takeover
from benchmarks.year_script import NAME, Diary, Script, live
from flows.server import Server
from models.sessions import sessions_after
from storage.artifacts import ArtifactStore
from storage.ledger import Ledger
from tasks.settings import WatchSettings

Month = tuple[Script, Diary]

SHIFT, POOR = date(2002, 9, 16), date(2002, 9, 21)
ON_SATURDAYS = WatchSettings(retrain_sessions=60)  # and when the model errs, but not for new sessions alone


@pytest.fixture(scope="module")
def month(prefect_api: Server, tmp_path_factory: pytest.TempPathFactory) -> Month:
    assert prefect_api.own
    script = Script(
        folder=tmp_path_factory.mktemp("year"),
        eve=date(2002, 9, 13),
        end=date(2002, 10, 15),
        shift=SHIFT,
        tickers=("SBUX", "T1", "T2", "T3"),
        poor=(POOR,),
        watch=ON_SATURDAYS,
    )
    diary = Diary()
    live(script, diary, lambda _: None)
    return script, diary


def test_a_month_keeps_what_a_year_must_keep(month: Month) -> None:
    script, diary = month
    assert len(diary.sessions) == 22
    assert [check for check, wrong in failures(script, diary).items() if wrong] == []


def test_outages_are_caught_up_by_the_next_run_that_gets_an_answer(month: Month) -> None:
    behind = {f"{day:%m-%d}": health.behind for day, health in month[1].healths.items() if health.behind}
    assert behind == {"09-23": 1, "09-24": 2, "09-25": 3, "10-07": 1, "10-08": 2, "10-14": 1}
    stale = [f"{day:%m-%d}" for day, health in month[1].healths.items() if "stale" in health.why]
    assert stale == ["09-24", "09-25", "10-08"]  # then har forecasts


def test_the_poor_model_is_kept_and_does_not_forecast(month: Month) -> None:
    script, diary = month
    poor = next(each for each in diary.trainings if each.is_poor)
    assert (poor.day, poor.state) == (POOR, "Kept")
    assert "does not beat har" in poor.words
    used = Ledger(script.store).forecasts(NAME, first=script.eve)["model_version"].dropna()
    assert poor.version not in set(used)


def test_the_shift_is_noticed_by_the_errors_and_retrained_on_once_until_it_has_cooled_down(month: Month) -> None:
    script, diary = month
    found = noticed(script, diary)
    assert found is not None
    assert found[1] == "ERROR_BREACH"
    assert sessions_after(SHIFT, found[0]) <= 20
    by_event = [each for each in diary.trainings if each.cause == "quality"]
    trained = [each.day for each in by_event if each.version is not None]
    assert trained
    assert any(each.version is None and "an event (quality) starts another training" in each.words for each in by_event)


def test_what_a_month_cannot_show_is_not_claimed(month: Month) -> None:
    assert takeover(month[0]) is None


def test_the_checks_find_what_they_look_for(month: Month, tmp_path_factory: pytest.TempPathFactory) -> None:
    script, diary = month
    folder = tmp_path_factory.mktemp("spoilt")
    spoilt = Script(**{**vars(script), "folder": folder})
    shutil.copytree(script.folder, folder, dirs_exist_ok=True)
    poor = next(each for each in diary.trainings if each.is_poor)
    assert poor.version is not None
    ArtifactStore(spoilt.store).set_alias("model", NAME, "champion", poor.version, "a mistake")
    assert spoilt.store.folder is not None
    next(iter(sorted((spoilt.store.folder / "scores").glob("*.parquet")))).write_bytes(b"damaged")
    shutil.rmtree(spoilt.store.folder / "scores")
    assert {check for check, wrong in failures(spoilt, diary).items() if wrong} == {
        "no poor model was promoted",
        "every forecast whose session has come is scored",
    }
