"""The process of the command `volcast`, also `python -m flows`: one that is interrupted never shows a traceback."""

import signal

from flows.process_exit import without_finalization


def process() -> None:
    """Run the command line as all that this process does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while it imports there is nothing to keep, and nothing to say
    with without_finalization():
        from flows.cli import main

        main()


if __name__ == "__main__":
    process()
