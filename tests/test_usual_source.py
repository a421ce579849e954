"""An ingest that names no source goes on with the one before it."""

import shutil
from pathlib import Path

import pytest
from programs import Volcast
from rows import yahoo_frame

from volcast.storage.announced_dates import EventTable
from volcast.storage.store import open_store

pytestmark = pytest.mark.usefixtures("prefect_api")
AS_OF = ("--as-of", "2003-06-30")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The options of an ingest from two files, with a store beside them."""
    yahoo_frame().to_csv(tmp_path / "SBUX.csv", index=False)
    (tmp_path / "earnings.csv").write_text("Ticker,Earnings_Date\nSBUX,2020-10-29\n")
    return ["--source", "files:SBUX.csv", "--events", "files:earnings.csv"]


def test_ingest_and_daily_follow_source_and_announcements_of_the_store_from_any_folder(
    files: list[str], volcast: Volcast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert volcast("ingest", *files).code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for command in ("ingest", "daily"):
        said = volcast(command, "--store", tmp_path / "data")
        assert said.code == 0, said.errors
        assert f"files:{tmp_path}/SBUX.csv, announcements of files:{tmp_path}/earnings.csv" in said.out
        assert "as they last did" in said.out
        assert "imulated" not in said.out
    assert set(EventTable(open_store(str(tmp_path / "data"))).history()["source"]) == {"files:earnings.csv"}


def test_announcements_stay_where_only_the_source_is_named_again(files: list[str], volcast: Volcast) -> None:
    not_used = "announced ones are not used"
    assert not_used not in volcast("ingest", *files).out
    assert not_used not in volcast("ingest", *files[:2]).out
    assert not_used in volcast("ingest", *files[:2], "--events", "none").out
    assert not_used in volcast("ingest").out


def test_where_no_announcements_were_ever_named_the_stored_ones_stay_in_use(files: list[str], volcast: Volcast) -> None:
    assert volcast("ingest", *files).code == 0
    for options in (files[:2], []):  # a file of prices names none by itself
        shutil.rmtree("data/artifacts/ingest")
        assert volcast("ingest", *files[:2]).code == 0
        assert "announced ones are not used" not in volcast("ingest", *options).out


def test_simulated_is_for_an_empty_store_and_said_and_its_tickers_are_asked_for_again(volcast: Volcast) -> None:
    said = volcast("ingest", "--tickers", "SBUX,KO", *AS_OF)
    assert "simulated, announcements of simulated, for ./data: the store is empty; another by --source" in said.out
    again = volcast("ingest", *AS_OF)
    assert "simulated:0, announcements of simulated, for ./data: as they last did" in again.out
    assert "rows of KO, SBUX" in again.out
    shifted = ["--source", "simulated:2?shift=2003-05-01", "--store", "shifted"]
    assert volcast("ingest", *shifted, *AS_OF).code == 0
    assert "simulated:2?shift=2003-05-01, announcements" in volcast("ingest", *shifted[2:], *AS_OF).out
    assert "of 1 ticker," in volcast("status", *shifted[2:]).out


def test_a_store_of_release_0_1_0_is_asked_about_once(files: list[str], volcast: Volcast, tmp_path: Path) -> None:
    assert volcast("ingest", *files).code == 0
    shutil.rmtree(tmp_path / "data" / "artifacts" / "ingest")
    for command in ("ingest", "daily", "deploy", "up"):
        said = volcast(command)
        assert said.code == 1
        assert "./data does not know where its prices came from" in said.errors[0]
    assert volcast("ingest", *files).code == 0
    assert volcast("ingest").code == 0


def test_a_first_ingest_of_broken_rows_leaves_them_to_be_looked_at_and_the_store_empty(volcast: Volcast) -> None:
    yahoo_frame().assign(High=1.0).to_csv("SBUX.csv", index=False)
    said = volcast("ingest", "--source", "files:SBUX.csv")
    assert said.code == 1
    assert "SBUX: broken: 253 of 253 rows break a rule (253: high is below open, low or close)" in said.errors[-1]
    assert "1 of 253 rows" in volcast("quarantine", "SBUX", "--limit", "1").out
    assert volcast("status").code == 1
    said = volcast("ingest", *AS_OF)
    assert said.code == 0
    assert "imulated" in said.out
