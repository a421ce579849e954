"""`volcast up` on a PostgreSQL of the tests' own: Debian's programs, in a temporary folder, on a free port."""

import getpass
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import ENDLESS, QUICK, Up, free_port, processes_of, wait_until

from flows.server_options import ServerError, ServerOptions, require_database

pytestmark = pytest.mark.service

USER, PASSWORD = "volcast", "p:w/1 %"
IN_URL = "p%3Aw%2F1%20%25"


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of an empty database."""
    programs = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        Path(shutil.which("initdb") or "").parent,
    ]
    binaries = next((folder for folder in programs if (folder / "initdb").is_file()), None)
    if binaries is None:
        pytest.skip("no initdb: apt-get install postgresql")
    owner = pwd.getpwnam("postgres" if getpass.getuser() == "root" else getpass.getuser())  # initdb refuses root
    port, as_owner = free_port(), {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="volcast-postgres-") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        setup = [binaries / "initdb", "--pgdata", folder / "data", "--username", USER, "--pwfile", folder / "password"]
        subprocess.run([*setup, "--auth", "scram-sha-256", "--no-sync"], check=True, capture_output=True, **as_owner)
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": name, "fsync": "off"}
        command = [binaries / "postgres", "-D", folder / "data", "-p", str(port)]
        command += [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, **as_owner) as server:
            try:
                ready = [binaries / "pg_isready", "--host", "127.0.0.1", "--port", str(port)]
                wait_until(lambda: subprocess.run(ready, capture_output=True).returncode == 0, what="it answers")
                yield f"postgresql+asyncpg://{USER}:{IN_URL}@127.0.0.1:{port}/postgres"
            finally:
                server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown


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
