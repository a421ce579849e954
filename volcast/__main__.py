"""The process of the command `volcast`, also `python -m volcast`: one that is interrupted never shows a traceback."""

import signal
import sys

from volcast.flows.process_exit import without_finalization


def process() -> None:
    """Run the command line as all that this process does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while it imports there is nothing to keep, and nothing to say
    with without_finalization():
        try:
            from volcast.flows.cli import main

            main()
        except MemoryError:  # also of what would have described another error
            sys.stderr.write(
                "Error: there is not enough memory. What was committed before is kept; free some, run it again.\n"
            )
            sys.exit(1)


if __name__ == "__main__":
    process()
