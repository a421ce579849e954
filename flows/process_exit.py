"""The end of a process, without Python's finalization.

Before Python 3.14 a thread of a Rust library (Delta, obstore) that asks for the interpreter while that is finalized
aborts the process, though its work is done: exit 134 instead of 0, once in a few hundred commands. Drop this when 3.14
is the oldest Python that volcast runs on: tests/test_workarounds.py says so, and when a private name used here is gone.
"""

import atexit
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def leaving() -> Iterator[None]:
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
