"""A year of the service in minutes: the real flows, server and store, on the clock of the simulated exchange.

python -m benchmarks.year [--keep FOLDER]        `make year`

What happens is in benchmarks/year_script.py. Ends with a summary and the checks of benchmarks/year_checks.py, and 1
where one fails; Ctrl-C ends it with a summary of what has been.
"""

import argparse
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from rich.console import Console
from rich.table import Table

from benchmarks.year_checks import (
    COVERED,
    LEARNT,
    Takeover,
    failures,
    first_since,
    noticed,
    shift_failures,
    since_shift,
    takeover,
)
from benchmarks.year_script import FRIDAY, NAME, Diary, Script, live
from volcast.flows.server import own_server
from volcast.models.comparisons import CHAMPION
from volcast.models.forecasters import MODEL
from volcast.models.scores import BANDS, GATE_BAND, scaled
from volcast.models.sessions import sessions_after
from volcast.storage.append_tables import QuarantineTable, RestatementTable
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.tasks.reports.render import NARROW

REASONS = {
    "no version": "no version had passed yet",
    "stale": "its input was stale",
    "sessions old": "the champion was too old",
    "errs too much": "the champion erred too much",
}  # words of why har published -> short


def main() -> int:
    """Live the year, say what happened, and check it."""
    asked = _arguments()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    logging.disable(logging.ERROR)  # thousands of lines; what matters is in the store
    console, diary = Console(width=80), Diary()
    with TemporaryDirectory() as temporary:
        script = Script(folder=asked.keep or Path(temporary))
        finished = _live(console, script, diary)
        if not diary.dailies:
            return 130
        _show(console, script, diary)
        if not finished:
            console.print("Interrupted: nothing was checked.")
            return 130
        found = failures(script, diary) | shift_failures(script, diary)
        for check, wrong in found.items():
            console.print(f"[red]failed[/]  {check}: {wrong}" if wrong else f"[green]kept[/]    {check}")
    return int(any(found.values()))


def _live(console: Console, script: Script, diary: Diary) -> bool:
    """Whether the year came to its end; a line a week, for a training has a bar of its own."""

    def on_day(day: date) -> None:
        health = diary.healths.get(day)
        if health is not None and (day.weekday() == FRIDAY or day == script.days[-1]):
            codes = ", ".join(finding.code for finding in health.findings) or "nothing to report"
            done = f"{len(diary.dailies) / len(script.days):4.0%} {diary.seconds / 60:4.1f} min  {day}"
            console.print(f"{done}  {health.by}  {codes}", style="dim", no_wrap=True, overflow="ellipsis")

    try:
        with _server(script.folder):
            live(script, diary, on_day)
    except KeyboardInterrupt:
        return False
    return True


@contextmanager
def _server(folder: Path) -> Iterator[None]:
    """A Prefect server of its own, with all that it knows in the folder."""
    os.environ["VOLCAST_HOME"] = str(folder / "prefect")
    no_heartbeat: dict[Any, Any] = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with own_server() as server, temporary_settings(server.client_settings() | no_heartbeat):
        yield


def _show(console: Console, script: Script, diary: Diary) -> None:
    """What happened, in 80 columns."""
    took_over, trained = takeover(script), diary.trainings
    span = f"{diary.sessions[0]:%Y-%m-%d} to {diary.sessions[-1]:%Y-%m-%d}, of {', '.join(script.tickers)}, simulated"
    table = Table(show_header=False, **NARROW)
    for name, words in (
        ("sessions", f"{len(diary.sessions)}, {span}"),
        ("forecasts", _forecasts(script)),
        ("versions", _versions(diary)),
        ("poor models", "; ".join(f"{each.day}: {each.words}" for each in trained if each.is_poor) or "none yet"),
        ("shift", _shift(script, diary, took_over)),
        ("outages", _outages(diary)),
        ("rows", _rows(script, diary)),
        (
            "took",
            f"{diary.seconds / 60:.1f} minutes, {sum(each.seconds for each in trained) / 60:.1f} of them to train",
        ),
    ):
        table.add_row(name, words)
    console.print(table)
    console.print(_errors(script, took_over))


def _forecasts(script: Script) -> str:
    """How many there are, a ticker and version each, by whom and why."""
    rows = Ledger(script.store).forecasts(NAME, first=script.eve)
    rows = rows.loc[rows["published"]].drop_duplicates(["version", "ticker"])
    why = rows["why"].map(lambda words: next((short for part, short in REASONS.items() if part in words), ""))
    counts = ", ".join(f"{count:,} as {reason}" for reason, count in Counter(why[why != ""]).most_common())
    by_model = int((rows["model"] == MODEL).sum())
    return f"{len(rows):,} published: {by_model:,} by a champion, {len(rows) - by_model:,} by har ({counts or 'none'})"


def _versions(diary: Diary) -> str:
    trained = [each for each in diary.trainings if each.version is not None]
    states = Counter("promoted" if each.outcome == "Promoted" else _refusal(each.words) for each in trained)
    causes = Counter(each.cause for each in trained)
    asked = len(diary.trainings) - len(trained)
    return (
        f"{len(trained)} trained ({', '.join(f'{count} by {cause}' for cause, count in causes.most_common())}): "
        f"{', '.join(f'{count} {state}' for state, count in states.most_common())}; "
        f"{asked} more were asked for and skipped, too soon or on the same data"
    )


def _refusal(words: str) -> str:
    return "kept, not better than har" if "does not beat" in words else "kept, worse than the champion"


def _shift(script: Script, diary: Diary, took_over: Takeover | None) -> str:
    if max(diary.dailies) < script.shift:
        return "not yet"
    found = noticed(script, diary)
    words = f"{script.shift}; "
    words += f"noticed on {found[0]} ({found[1]})" if found else "not noticed yet"
    since = since_shift(script)
    learnt, covered = first_since(since["ratio"] <= LEARNT), first_since(since["covered"].between(*COVERED))
    words += f"; published {LEARNT} of har's error after {learnt} sessions, intervals held after {covered}"
    if took_over is None:
        return f"{words}; no model that was trained on it took over yet"
    scores, after = took_over.scores(script), sessions_after(script.shift, took_over.cutoff)
    return (
        f"{words}; v{took_over.version}, made on {took_over.cutoff}, {after} sessions later, is the first that was "
        f"trained on it and took over: since then MASE {scores[MODEL]:.3f}, that of v{took_over.before} before it "
        f"{scores[CHAMPION]:.3f}, of har {scores['har']:.3f}"
    )


def _outages(diary: Diary) -> str:
    """Days after whose daily the newest session was not there, and how long it took."""
    lengths, days = Counter[int](), 0
    for health in diary.healths.values():
        if health.behind == 0 and days:
            lengths[days] += 1
        days = days + 1 if health.behind else 0
    each = ", ".join(f"{count} of {length}" for length, count in sorted(lengths.items()))
    return f"{lengths.total()} ({each} sessions), each caught up by the next run that got an answer" if each else "none"


def _rows(script: Script, diary: Diary) -> str:
    known = PriceTable(script.store).sessions(script.tickers)
    missing = sum(len(diary.sessions.difference(sessions)) for sessions in known.values())
    restated, bad = (table(script.store).read() for table in (RestatementTable, QuarantineTable))
    begin = pd.Timestamp(script.eve)
    restated, bad = (
        len(rows.loc[rows["session"] > begin, ["ticker", "session"]].drop_duplicates()) for rows in (restated, bad)
    )
    return f"{restated} restated, {bad} in quarantine, {missing} still missing"


def _errors(script: Script, took_over: Takeover | None) -> Table:
    """Live MASE of one to five sessions ahead: what was published, the champion, and the rivals."""
    table = Table("live MASE, 1 to 5 sessions ahead", "sessions", "published", "champion", "har", "naive", **NARROW)
    scores = Ledger(script.store).scores(NAME, first=script.eve)
    scores = scores.loc[scores["h"].between(*BANDS[GATE_BAND])]
    scores = scores.assign(mase=scaled(scores["absolute_error"], scores["scale"]))
    ends = [script.eve, script.shift, *([took_over.cutoff] if took_over else []), script.end + timedelta(days=1)]
    names = ("before the shift", "since the shift", "since the takeover")
    for name, first, end in zip(names, ends[:-1], ends[1:], strict=False):
        own = scores.loc[(scores["ds"] > pd.Timestamp(first)) & (scores["ds"] <= pd.Timestamp(end))]
        if len(own):
            by_model = own.groupby("model")["mase"].mean().to_dict()
            values = [
                own.loc[own["published"], "mase"].mean(),
                *(by_model.get(m, float("nan")) for m in (MODEL, "har", "naive")),
            ]
            table.add_row(name, f"{own['ds'].nunique()}", *(f"{value:.3f}" for value in values))
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where store and server are kept afterwards")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
