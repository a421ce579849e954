"""How long work shows where it is: a line in the log each time, and on a terminal a bar below the lines."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class Advance(Protocol):
    """Call it after a step."""

    def __call__(self, line: str, *, completed: int, total: int, words: str = "") -> None:
        """`line` goes to the log; `completed` of `total` steps are done; `words` stand beside the bar."""
        ...


@contextmanager
def progress(title: str, log: Log) -> Iterator[Advance]:
    """What to call with a line for the log, the steps done, and how many there are in all."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
    bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
    steps, is_shown = bar.add_task("", total=None, words=""), bar.console.is_terminal

    def advance(line: str, *, completed: int, total: int, words: str = "") -> None:
        if is_shown:
            bar.stop()  # or the line would be written into the bar
        log.info("%s", line)
        bar.update(steps, completed=completed, total=total, words=words)
        if is_shown:
            bar.start()

    try:
        yield advance
    finally:
        if is_shown:  # where it is not, stopping would write an empty line
            bar.stop()
