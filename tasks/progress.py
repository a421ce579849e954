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
    console = Console(stderr=True)
    if not console.is_terminal:  # a bar that is not shown would still leave an empty line
        yield lambda line, **_: log.info("%s", line)
        return

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
    bar = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
    steps = bar.add_task("", total=None, words="")

    def advance(line: str, *, completed: int, total: int, words: str = "") -> None:
        bar.stop()  # or the line would be written into the bar
        log.info("%s", line)
        bar.update(steps, completed=completed, total=total, words=words)
        bar.start()

    try:
        yield advance
    finally:
        bar.stop()
