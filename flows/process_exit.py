"""Works around Python's finalization at the end of a process; drop when 3.14 is the oldest Python that volcast runs on.

Before Python 3.14 a thread of a Rust library (Delta, obstore) that asks for the interpreter while that is finalized
aborts the process, though its work is done: exit 134 instead of 0, once in a few hundred commands. When to drop this
says tests/test_workarounds.py, and when a private name used here is gone. It stands apart from
flows/prefect_processes.py because the command line names a mistake without importing Prefect.
"""

import atexit
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_finalization() -> Iterator[None]:
    """What is done is all that the process does: after it threads are joined, exit functions run, and the process ends.

    Its exit status is that of a SystemExit, 1 after another exception (whose traceback is printed), else 0.
    """
    status: object = 1
    try:
        yield
        status = 0
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        _leave(status)


def _leave(status: object) -> None:
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # Prefect's last logs and events are sent in there
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status if isinstance(status, int) else int(status is not None))
