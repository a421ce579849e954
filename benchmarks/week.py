"""The operator's week in minutes: the real service, with its webhook, its UI in a browser, and PostgreSQL at the end.

python -m benchmarks.week [--keep FOLDER] [--database postgresql+asyncpg://…]        `make week`

What happens is in benchmarks/week_script.py. Ends with the checks of benchmarks/week_checks.py, each kept, failed or
not run, and with 1 where one failed. The folder that is kept has the service as it was left, its screenshots
(screenshots/) and what was seen (week.json). Without --database an empty PostgreSQL is started, if it is installed.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks import browser, postgres
from benchmarks.faults import in_a_mount_namespace, needs_mounts
from benchmarks.programs import Up
from benchmarks.webhooks import Webhook
from benchmarks.week_checks import Need, Result, results
from benchmarks.week_script import DAYS_OF_THE_WEEK, OPTIONS, variables
from benchmarks.week_service import Week

COLOURS: dict[Result, str] = {"kept": "green", "failed": "red", "not run": "yellow"}


def main() -> int:
    """Live the week, and say what was kept of it."""
    asked = _arguments()
    in_a_mount_namespace()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    console = Console(soft_wrap=True, highlight=False)
    with TemporaryDirectory() as temporary:
        folder = (asked.keep or Path(temporary)).resolve()
        with _week(folder, asked.database) as week:
            finished = _live(console, week)
        (folder / "week.json").write_text(json.dumps(week.facts, indent=1))
        return _show(console, week) or int(not finished)


@contextmanager
def _week(folder: Path, database: str | None) -> Iterator[Week]:
    """A service on an empty store, with all that the machine has."""
    service, pictures = folder / "service", folder / "screenshots"
    service.mkdir(parents=True)
    pictures.mkdir()
    programs = postgres.postgres_programs()
    with ExitStack() as stack:
        webhook, second = (stack.enter_context(Webhook()) for _ in range(2))
        if database is None and programs is not None:
            database = stack.enter_context(postgres.empty_database(programs))
        up = stack.enter_context(Up(service, *OPTIONS, **variables(webhook, second)))
        yield Week(up, webhook, second, pictures, browser.CHROMIUM is not None, database, not needs_mounts())


def _live(console: Console, week: Week) -> bool:
    """Whether the week came to its end; a line a day."""
    began = time.monotonic()
    try:
        for name, day in DAYS_OF_THE_WEEK.items():
            day(week)
            console.print(f"{(time.monotonic() - began) / 60:4.1f} min  {name} is over", style="dim")
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return False
    except Exception as error:  # noqa: BLE001 (what was seen so far is told)
        console.print(f"The week ended early: {type(error).__name__}: {error}", style="red", markup=False)
        return False
    return True


def _show(console: Console, week: Week) -> int:
    """The checks in order; 1 where one failed."""
    lacking = _lacking(week)
    found = list(results(week.facts, lacking))
    for check, result, why in found:
        reason = f": {why}" if why else ""
        console.print(f"[{COLOURS[result]}]{result:7}[/]  {check.line}  {check.name}", end="")
        console.print(reason, markup=False)
    console.print("[dim]elsewhere[/] A9  intervals and models after a shift of the regime: make year")
    counts = [f"{sum(result == each for _, result, _ in found)} {each}" for each in COLOURS]
    console.print(", ".join(counts))
    return int(any(result == "failed" for _, result, _ in found))


def _lacking(week: Week) -> dict[Need, str]:
    """What the machine has not, and how to get it."""
    lacking: dict[Need, str] = {}
    if not week.has_browser:
        lacking["browser"] = f"no browser: {browser.HOW_TO_INSTALL}"
    if week.database is None:
        lacking["postgres"] = f"no PostgreSQL, the week was lived on SQLite: {postgres.HOW_TO_INSTALL}"
    if not week.can_mount:
        lacking["mounts"] = needs_mounts()
    return lacking


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where all of it is kept afterwards")
    parser.add_argument("--database", metavar="URL", help="an empty PostgreSQL to move to at the weekend")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
