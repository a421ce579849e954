"""Let Prefect's server ask for SQLite's one place for a writer when a transaction begins, and not in its middle.

In SQLite a transaction that has read fails at once, whatever its time-out, when it wants to write and another one has
written meanwhile. Prefect begins most of its transactions so that they can: a busy server then loses events, and with
them alerts and the runs that events start. Drop this when tests/test_sqlite_writes.py says that Prefect does it itself;
tests/test_workarounds.py says when what is replaced here, no public part of Prefect, has changed.
"""

from typing import Any

from prefect.server.database.configurations import AioSqliteConfiguration

_begin = AioSqliteConfiguration.begin_transaction


def write_from_the_beginning() -> None:
    """For every transaction on SQLite that this process begins from now on."""
    patched: Any = AioSqliteConfiguration
    patched.begin_transaction = lambda self, session, **_: _begin(self, session, with_for_update=True)
