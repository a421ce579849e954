"""`volcast up` on a PostgreSQL of the tests' own (benchmarks/postgres.py)."""

import os
import re
import signal
from collections.abc import Iterator

import pytest

from benchmarks.postgres import HOW_TO_INSTALL, IN_URL, empty_database, postgres_programs
from benchmarks.programs import ENDLESS, QUICK, Up, free_port, processes_of
from volcast.flows.server_options import ServerError, ServerOptions, require_database

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of an empty database."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip(f"no initdb: {HOW_TO_INSTALL}")
    with empty_database(programs) as url:
        yield url


@pytest.fixture(scope="module")
def up(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(tmp_path_factory.mktemp("up"), "--database", database) as started:
        yield started


def test_the_password_of_the_database_is_neither_printed_nor_in_a_command_line(up: Up) -> None:
    assert re.search(
        r"answers, on postgresql\+asyncpg://volcast:\*\*\*@127\.0\.0\.1:\d+/postgres; it asks for", up.said
    )
    assert not list((up.folder / "home").glob("prefect*.db"))
    commands = processes_of(up.folder)
    assert len(commands) == 3
    assert not any(IN_URL in command for command in commands.values())
    assert not any(IN_URL.encode() in log.read_bytes() for log in up.folder.glob("**/*.log"))


def test_cron_schedules_create_runs_and_a_started_one_completes_on_postgres(up: Up) -> None:
    assert up.scheduled("daily")
    run = up.train(QUICK)
    assert up.ended(run)["type"] == "COMPLETED"


def test_a_killed_run_ends_as_crashed_and_the_next_one_starts_on_postgres(up: Up) -> None:
    run = up.train(ENDLESS)
    os.kill(up.wait_for_training(run), signal.SIGKILL)
    assert "status code: -9" in up.ended(run)["message"]
    assert up.wait_for_start(up.train(ENDLESS)) == "Running"


def test_a_database_that_cannot_be_used_is_named_without_its_password(database: str) -> None:
    known = database.replace(IN_URL, "***")
    for url, why in {
        database.replace(IN_URL, "guessed"): 'password authentication failed for user "volcast"',
        database.replace("/postgres", "/nowhere"): 'database "nowhere" does not exist',
        re.sub(r":\d+/", f":{free_port()}/", database): "Connect call failed",
    }.items():
        with pytest.raises(ServerError) as refused:
            require_database(ServerOptions(database=url))
        assert why in str(refused.value)
        assert "guessed" not in str(refused.value)
        assert IN_URL not in str(refused.value)
    require_database(ServerOptions(database=database))
    assert known == ServerOptions(database=database).database_words
