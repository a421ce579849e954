"""Prefect's command line, in a process that ends when the command that started it is gone, however that ended.

Its standard input is a pipe that only that command holds open, and that closes even after kill -9. The process is then
interrupted as by Ctrl-C, and killed if that does not help.
"""

import os
import signal
import sys
import threading
import time

STOP_SECONDS = 20


def main() -> None:
    """Run Prefect's command of the arguments."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()

    from prefect.cli import app  # takes a second, in which the parent may go, too

    if sys.argv[1] == "server":
        from flows.sqlite_writes import write_from_the_beginning

        write_from_the_beginning()
    app()


def _end_with_the_parent() -> None:
    os.read(0, 1)  # nothing is ever written: it returns when the pipe closes
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(STOP_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
