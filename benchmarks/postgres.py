"""A PostgreSQL of one's own: Debian's programs, or those of the path, in a temporary folder, on a free port."""

import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.programs import free_port, wait_until

USER, PASSWORD = "volcast", "p:w/1 %"
IN_URL = "p%3Aw%2F1%20%25"
HOW_TO_INSTALL = "apt-get install postgresql"


def postgres_programs() -> Path | None:
    """The folder with PostgreSQL's programs; None where it is not installed."""
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    folders += [Path(found).parent] if (found := shutil.which("initdb")) else []
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


@contextmanager
def empty_database(programs: Path) -> Iterator[str]:
    """The URL of an empty database, on a server that is there until the end."""
    owner = pwd.getpwnam("postgres" if getpass.getuser() == "root" else getpass.getuser())  # initdb refuses root
    port, as_owner = free_port(), {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="volcast-postgres-") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        setup = [programs / "initdb", "--pgdata", folder / "data", "--username", USER, "--pwfile", folder / "password"]
        subprocess.run([*setup, "--auth", "scram-sha-256", "--no-sync"], check=True, capture_output=True, **as_owner)
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": name, "fsync": "off"}
        command = [programs / "postgres", "-D", folder / "data", "-p", str(port)]
        command += [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, **as_owner) as server:
            try:
                ready = [programs / "pg_isready", "--host", "127.0.0.1", "--port", str(port)]
                wait_until(lambda: subprocess.run(ready, capture_output=True).returncode == 0, what="it answers")
                yield f"postgresql+asyncpg://{USER}:{IN_URL}@127.0.0.1:{port}/postgres"
            finally:
                server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
