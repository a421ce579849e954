"""The views of `views.py` as a person sees them: on a terminal, as markdown, and as an HTML page.

Terminal: how a command ends. Markdown: the Prefect artifacts, and the scorecard's file. HTML: the page of
`volcast report`.
"""

import base64
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise, zip_longest
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.box import SIMPLE
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from volcast.models.calendar_names import NEW_YORK, market
from volcast.models.forecast_columns import MODEL, reason_column
from volcast.models.point_names import USUAL_POINT, point_words
from volcast.models.text import counted, format_millions, line_starts, listed
from volcast.storage.records import (
    ArtifactRef,
    BacktestResult,
    Check,
    Daily,
    Finding,
    ForecastBatch,
    Health,
    Manifest,
    PipelineResult,
    PriceCounts,
    Scorecard,
    Snapshot,
)
from volcast.storage.store import Store
from volcast.tasks.methods.method import Plot
from volcast.tasks.participation import (
    NOT_JUDGED,
    Participation,
    bucket_rows,
    order_words,
    portfolio_rows,
    progress_rows,
)
from volcast.tasks.reports.views import (
    INTERVALS,
    LEGEND,
    SUMS_LEGEND,
    Explained,
    History,
    SameTest,
    StoredForecast,
    TickerForecast,
    backtest_extent,
    count_rows,
    drift_rows,
    duel_rows,
    forecast_rows,
    health_lines,
    leading_reason,
    loss_rows,
    model_rows,
    move_rows,
    point_legend,
    point_score_rows,
    reason_rows,
    same_test_rows,
    score_rows,
    session_notes,
    skill_rows,
    step_facts,
    sum_score_rows,
    version_rows,
)
from volcast.tasks.settings import calendar_of

if TYPE_CHECKING:
    from volcast.tasks.what_if import WhatIf

SIMULATED = "Simulated data"
SIMULATED_NOTE = (
    f"**{SIMULATED}**: these prices and volumes come from volcast's own simulated exchange, not from a market."
)
FAILED_TEXT = ("ended", "state", "why")
WIDE_LOSSES = ("RMSSE", "sMAPE")  # for which the UI has no room beside the others; the terminal shows them
MOVE_TEXT = ("is", "since", "reason")  # headings of columns of text
COMPARABLE = "Scores can be compared where the tickers and the test are the same."
NARROW: dict[str, Any] = {"box": SIMPLE, "pad_edge": False, "padding": (0, 1, 0, 0)}  # fits 80 columns
INDENT = " " * 10
EARNINGS = reason_column("earnings")
BAR = 15  # letters of the longest bar
WIDEST = 10_000  # columns, in which any table has room
SHOWN_HELD = 10  # rows of a forecast that were held back
QUARANTINED = ("ticker", "session", "rule", "value", "source", "seen at, UTC")


# --- on a terminal ---------------------------------------------------------------------------------------------------


def show_prices(console: Console, snapshot: Snapshot) -> None:
    """Which rows there are, and what is known of the earnings calendar."""
    _show_simulated(console, snapshot.simulated)
    rows = f"{counted(snapshot.rows, 'row')} of {listed(snapshot.tickers)}"
    _show(console, "Prices", f"v{snapshot.prices.version} of {snapshot.source}: {rows}")
    sessions = f"{snapshot.first_session} to {snapshot.cutoff}"
    if (calendar := calendar_of(snapshot.store)) != NEW_YORK:
        sessions = f"of {calendar}, {sessions}"
    _show(console, "", f"sessions {sessions}, kept in {nice_path(snapshot.store)}")
    _show_caveat(console, snapshot)
    for row in snapshot.counts.worst if snapshot.counts else ():
        if row.ticker not in snapshot.tickers:
            _show(console, "", f"[bold yellow]left out[/] {escape(row.ticker)}: {escape(row.outcome)}")
    if not snapshot.uses_earnings:
        _show(console, "Earnings", "announced ones are not used: --events none")
    if snapshot.announcements is not None:
        _show(console, "Earnings", snapshot.announcements.words)
        if snapshot.announcements.failed:
            _show(console, "", f"[yellow]not complete:[/] {escape(snapshot.announcements.failed)}")


def _show_simulated(console: Console, simulated: bool) -> None:
    """That nothing of this comes from a market, where it is so."""
    if simulated:
        console.print(f"[bold yellow]{SIMULATED}[/] from volcast's own simulated exchange, not from a market.")


def _show_caveat(console: Console, snapshot: Snapshot) -> None:
    """What is not as it was known at the cutoff."""
    if snapshot.caveat:
        _show(console, "", f"[bold yellow]not as known on {snapshot.cutoff}:[/] {escape(snapshot.caveat)}")


def show_counts(console: Console, counts: PriceCounts | None, *, ingested: bool) -> None:
    """A row a ticker, the worst first, and the total; nothing before anything is stored."""
    if counts is None:
        return
    rows = count_rows(counts, outcome=ingested)
    console.print(_table(rows, text=("ticker", "outcome"), ends=[len(rows) - 2], wrap=("outcome",)))
    if counts.tickers > len(counts.worst):
        _show(console, "", f"the worst {len(counts.worst)} of {counts.tickers:,} tickers; the total is of all")
    for row in counts.worst:
        if row.gaps:
            _show(console, "", f"{row.ticker} lacks {row.gaps}")
    for note in counts.notes:
        _show(console, "", f"[yellow]{escape(note)}[/]")


def show_status(console: Console, store_url: str, counts: PriceCounts) -> None:
    """What the store holds, and how far behind the market it is."""
    total = counts.total
    held = (
        f"{counted(total.stored, 'row')} of {counted(counts.tickers, 'ticker')}, sessions {total.first} to {total.last}"
    )
    _show(console, "Prices", f"v{counts.version} in {nice_path(store_url)}: {held}")
    behind = f"{counted(total.behind, 'session')} behind" if total.behind else "up to date with"
    _show(console, "", f"{behind} {market(calendar_of(store_url))}'s last closed session, {counts.last_closed}")
    show_counts(console, counts, ingested=False)


def show_quarantine(console: Console, store_url: str, rows: list[tuple[str, ...]], total: int) -> None:
    """The rows (QUARANTINED), and how many there are in all."""
    if not rows:
        console.print(f"No row is in quarantine in {nice_path(store_url)}.")
        return
    named: list[dict[str, str]] = [dict(zip(QUARANTINED, row, strict=True)) for row in rows]
    console.print(_table(named, text=QUARANTINED, wrap=QUARANTINED))
    more = ", the newest; more by --limit" if len(rows) < total else ""
    _show(console, "", f"{len(rows):,} of {counted(total, 'row')}{more}")


def show_scorecard(console: Console, scorecard: Scorecard, outcome: str = "") -> None:
    """How good the model is, and the verdict, unless the `outcome` that was shown before has it."""
    model, features = scorecard.model, scorecard.model.features
    _show(console, "Model", f"{model.artifact}: final loss {model.final_loss:.5f} on {model.device};")
    sessions = f"{features.train_rows:,} train and {features.rows - features.train_rows:,} test sessions"
    _show(console, "", f"{sessions}, {features.pretrained or f'scalers fitted on {model.scaler.fitted_on} rows'}\n")
    console.print(_table(score_rows(scorecard), str(scorecard.artifact)))
    for sentence in scorecard.words:
        console.print(f"  {escape(sentence)}")
    if scorecard.verdict not in outcome:
        console.print(f"  [bold]{escape(scorecard.judgement)}[/]")


def show_forecast(console: Console, batch: ForecastBatch, point: str = USUAL_POINT) -> None:
    """What was forecast, and by which model or, first of all, by what in its place and why."""
    if batch.model is None:
        in_place = f"{batch.by} forecasts in place of {batch.artifact.name}: {escape(batch.why)}."
        console.print(f"[bold yellow]Fallback[/]  {in_place}")
    rows = f"{counted(batch.rows, 'row')}, sessions {batch.first_session} to {batch.last_session}"
    unused = "" if batch.snapshot.uses_earnings else ", without announced earnings"
    events = f", dated events: {escape(', '.join(batch.dated))}" if batch.dated else ""
    _show(
        console,
        "Forecast",
        f"{batch.artifact} by {batch.model.artifact if batch.model else batch.by}: {rows}{unused}{events}",
    )
    _show_caveat(console, batch.snapshot)
    if batch.from_future:
        _show(console, "", f"[bold yellow]not as of then:[/] {escape(batch.from_future)}")
    for each in batch.held_back[:SHOWN_HELD]:
        _show(console, "", f"[bold yellow]held back[/] {escape(each.words)}")
    if len(batch.held_back) > SHOWN_HELD:
        _show(console, "", f"{len(batch.held_back):,} rows were held back in all")
    if batch.left_out:
        _show(console, "", f"[yellow]no forecast of[/] {listed(batch.left_out)}: no price, or too few")
    if sessions := forecast_rows(batch, point):
        heading = f"{point_words(point)} and 80 % interval, million shares"
        console.print(_table(sessions, heading[:1].upper() + heading[1:]))
    if reason := leading_reason(batch):
        _show(console, "Why", f"{escape(reason)}; more by: volcast explain")


def show_reasons(console: Console, store: Store, forecast: StoredForecast, row: Explained) -> None:
    """Why a session of a ticker's forecast is as it is, as bars, and all of its sessions."""
    _show_simulated(console, forecast.simulated)
    _show(console, "Forecast", escape(forecast.made))
    widest = max((abs(log(factor)) for factor in row.parts.values()), default=0.0)
    bars = [
        {"because of": part, "factor": f"{factor:.2f}", "less than normal | more": _bar(log(factor) / (widest or 1))}
        for part, factor in row.parts.items()
    ]
    if bars:
        console.print(_table(bars, row.summary, text=("less than normal | more",), wrap=("because of",)))
    own = forecast.by_ticker[row.ticker]
    title = "Million shares; times normal, and the factors that multiply to it"
    console.print(_table(reason_rows(own), title, padding=0))
    notes = session_notes(store, own, forecast.cutoff)
    for (_, day), words in notes.items():
        _show(console, "", f"{day:%a %m-%d}: {escape(words)}")


def show_what_if(console: Console, found: "WhatIf") -> None:
    """What a ticker's forecast would be, beside what it is."""
    pairs = list(zip(found.real.to_dict("records"), found.supposed.to_dict("records"), strict=True))
    rows = [
        {
            "session": f"{real['ds']:%a %Y-%m-%d}",
            "median": format_millions(real[MODEL]),
            "if so": format_millions(supposed[MODEL]),
            "change": f"{supposed[MODEL] / real[MODEL] - 1:+.0%}",
            "80 % if so": "-".join(format_millions(supposed[end]) for end in INTERVALS["80 %"]),
            "earnings": f"{real[EARNINGS]:.2f}" if EARNINGS in real else "",
            "earnings if so": f"{supposed[EARNINGS]:.2f}",
        }
        for real, supposed in pairs
    ]
    console.print()
    _show(console, "What if", f"{escape(found.supposition.words)}: [bold]hypothetical[/], and stored nowhere")
    console.print(_table(rows, "Million shares, and the factor of announced earnings"))


def _bar(share: float) -> str:
    """A bar to the left (below 0) or to the right of a line; `share` is -1 to 1 of the longest."""
    length = "█" * max(round(abs(share) * BAR), 1)
    return f"{length if share < 0 else '':>{BAR}}│{length if share > 0 else ''}"


def show_participation(console: Console, found: Participation) -> None:
    """How long an order takes, or each of a portfolio's; and whose forecast says so."""
    _show_simulated(console, found.simulated)
    _show(console, "Forecast", f"{found.name} from the close of {found.cutoff}, {found.by}")
    at_rate = f"at {found.rate * 100:g} % of the volume"
    if found.is_portfolio:
        console.print(_table(portfolio_rows(found), f"Sessions until all is traded {at_rate}", text=("bucket",)))
        settled = f"cash {counted(found.settlement, 'session')} after the last trade"
        console.print(_table(bucket_rows(found), f"Buckets of SEC rule 22e-4, {settled}"))
        console.print("\n".join(NOT_JUDGED))
        return
    ((ticker, shares),) = found.shares.items()
    _show(console, "Order", f"{escape(ticker)}, {shares:,.0f} shares {at_rate}")
    for line in order_words(found, ticker):
        _show(console, "", line)
    console.print(_table(progress_rows(found, ticker), "How likely all is done, and what is done for sure, M shares"))


def show_daily(console: Console, result: Daily) -> None:
    """What a day's work came to."""
    console.print()
    if result.skipped:
        _show(console, "Skipped", result.skipped)
    if result.batch is not None:
        show_prices(console, result.batch.snapshot)
        show_forecast(console, result.batch)
    if result.health is not None:
        show_health(console, result.health)


def show_health(console: Console, health: Health) -> None:
    """How things stand, what an operator must do, and the live skill."""
    state = "[bold red]needs a person[/]" if health.needs_person else "[bold green]runs by itself[/]"
    console.print()
    _show(console, "Health", f"{health.name}, session {health.session}: {state}")
    for line in health_lines(health):
        _show(console, "", escape(line))
    _show_findings(console, health.findings)
    if skill := skill_rows(health.skill):
        title = "Live skill, last target sessions: below 1, better than the rival"
        console.print(_table(skill, title, padding=0))
    if drift := drift_rows(health):
        console.print(_table(drift, "Drift of the inputs, population stability index"))


def show_service(
    console: Console, lines: Sequence[str], runs: Sequence[dict[str, str]], findings: Sequence[Finding]
) -> None:
    """What runs and what is to come of it, and what an operator must do."""
    console.print()
    for label, line in zip_longest(["Service"], lines, fillvalue=""):
        _show(console, label, escape(line))
    if runs:
        console.print(_table(runs, text=tuple(runs[0]), wrap=("ended as",)))
    _show_findings(console, findings)


def show_checks(console: Console, checks: Sequence[Check]) -> None:
    """A line for each thing that was looked at, and below it what a person has to do."""
    width = max(len(check.of) for check in checks)
    for check in checks:
        state = "[bold red]to do[/]" if check.remedy else "[bold green]OK[/]   "
        console.print(f"{state} {check.of:{width}}  {escape(check.found)}")
        if check.remedy:
            console.print(f"{' ' * (width + 8)}{escape(check.remedy)}")


def _show_findings(console: Console, findings: Sequence[Finding]) -> None:
    for finding in findings:
        colour = "red" if finding.needs_person else "yellow"
        console.print(f"[{colour}]{finding.code}[/] {escape(finding.words)} {escape(finding.remedy)}")


def show_result(console: Console, result: PipelineResult, point: str = USUAL_POINT) -> None:
    """What the whole pipeline gave: prices, and for each model its training, scorecard, forecast and files."""
    console.print()
    show_prices(console, result.snapshot)
    for report in result.reports:
        training = result.trainings[report.batch.artifact.name]
        console.print()
        _show(console, "Training", escape(training))
        if report.scorecard is not None:
            show_scorecard(console, report.scorecard, outcome=training)
        show_forecast(console, report.batch, point)
        for path in report.files.values():
            _show(console, "", nice_path(path))
    console.print()


def show_backtest(console: Console, result: BacktestResult) -> None:
    """The scores of every forecaster, of the panel and of its first ticker, and the leading one against the others."""
    console.print()
    show_prices(console, result.snapshot)
    first, *others = result.ticker_scores
    _show(console, "Test", result.span)
    _show(console, "", f"{backtest_extent(result)}\n")
    tables = {f"Mean over {counted(result.tickers, 'ticker')}" if others else first: result.scores}
    tables |= {first: result.ticker_scores[first]} if others else {}
    for title, scores in tables.items():
        ends = [place for place, (one, next_one) in enumerate(pairwise(scores)) if one.band != next_one.band]
        console.print(_table(loss_rows(scores), title, text=("h", "forecaster"), ends=ends, wrap=(), padding=0))
    own = dict.fromkeys(score.mean_of for score in result.scores if score.mean_of != score.forecaster)
    console.print(f"RMSSE and QLIKE: of the mean forecast ({', '.join(own) or 'none has one'})")
    console.print("where there is one, else of the point.")
    console.print("MASE, RMSSE and pinball: in units of the seasonal naive's train errors.\n")
    if result.sums:
        console.print(_table(sum_score_rows(result.sums), "Sums of sessions", text=("forecaster",), padding=0))
        console.print(f"{SUMS_LEGEND}\n")
    if result.points:
        title = f"Point: {point_words(result.point)}"
        console.print(_table(point_score_rows(result), title, text=("h", "forecaster"), padding=0))
        console.print(f"{point_legend(result.point)}\n")
    leading = result.scores[0].forecaster
    console.print(_table(duel_rows(result), f"{leading} against the others", text=("h", "against"), wrap=()))
    console.print(f"[bold]{result.verdict}[/]\n")
    _show(console, "", result.path)


def show_models(console: Console, store_url: str, histories: Sequence[History]) -> None:
    """A table of every version of every model; then whose volume they know, why some did not pass, and each move."""
    rows = model_rows(histories)
    if not histories:
        console.print(f"No model has been trained in {nice_path(store_url)}. Train one with: volcast run")
        return
    if rows:  # there are none where all are damaged
        console.print(_table(rows, f"Models in {nice_path(store_url)}", padding=0))
        console.print(f"{COMPARABLE}\n")
    for history in histories:
        _show_history(console, history)


def show_comparison(console: Console, tests: Sequence[SameTest], histories: Sequence[History]) -> None:
    """A table of the versions that were tested on the same rows; then those that are comparable with no other."""
    for test in (each for each in tests if len(each.versions) > 1):
        console.print(f"{test.words}, the best first", markup=False)
        console.print(_table(same_test_rows(test), text=("settings",), wrap=("settings",), padding=0))
    alone = [test.versions[0] for test in tests if len(test.versions) == 1]
    alone += [line for history in histories for line in history.versions if not line.scores]
    if alone:
        console.print("Comparable with no other:")
    for line in alone:
        tickers = f"{counted(len(line.tickers), 'ticker')}: {listed(line.tickers)}"
        console.print(f"  {line.words}, {line.size}: {line.score}; {line.test}, {tickers}", markup=False)


def show_lineage(console: Console, lineage: Sequence[Manifest | ArtifactRef], history: History) -> None:
    """From the newest forecast of a model back to its prices, and every move of its champion."""
    first, *others = map(_step, lineage)
    tree = branch = Tree(first)
    for step in others:
        branch = branch.add(step)
    console.print(tree)
    _show_history(console, history)


def nice_path(url_or_path: str) -> str:
    """A local path as seen from here, anything else as it is."""
    parts = urlsplit(url_or_path)
    if parts.scheme not in ("", "file"):
        return url_or_path
    path = Path(unquote(parts.path))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _show(console: Console, label: str, text: str) -> None:
    """A line behind its label, or below such a line."""
    console.print(f"[bold]{label}[/]{INDENT[len(label) :]}{text}" if label else f"{INDENT}{text}")


def _table(
    rows: Sequence[Mapping[str, str]],
    title: str | None = None,
    *,
    text: Collection[str] = (),
    wrap: Collection[str] = (),
    ends: Collection[int] = (),
    **style: Any,
) -> "_Fitting":
    """A table of a view.

    Columns of numbers stand to the right; those of `text`, and the first one, to the left. Only those of `wrap` may be
    broken. There is a line after each row of `ends`.
    """
    table = Table(title=title, title_justify="left", title_style="bold", **NARROW | style)
    for place, heading in enumerate(rows[0]):
        left, whole = heading in text or not place, heading not in wrap
        table.add_column(heading, justify="left" if left else "right", no_wrap=whole, overflow="fold")
    for place, row in enumerate(rows):
        table.add_row(*map(escape, row.values()), end_section=place in ends)
    cells = {heading: [heading, *(row[heading] for row in rows)] for heading in wrap if heading in rows[0]}
    spare = {
        heading: max(map(len, own)) - max(len(w) for c in own for w in c.split()) for heading, own in cells.items()
    }
    return _Fitting(table, rows, sum(spare.values()))


class _Fitting:
    """A table where there is room for it, else its rows as lines; no cell is cut, and no word is broken."""

    def __init__(self, table: Table, rows: Sequence[Mapping[str, str]], spare: int) -> None:
        self._table, self._rows, self._spare = table, rows, spare  # columns by which it can be narrower than it is

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = Measurement.get(console, options.update(max_width=WIDEST), self._table).maximum
        if whole - self._spare <= options.max_width:
            yield self._table
            return
        title = Text(str(self._table.title or ""), style="bold")
        yield from title.divide(line_starts(title.plain, options.max_width)) if title else ()
        for row in self._rows:
            first, *others = [f"{heading} {cell}" for heading, cell in row.items() if cell]
            line = Text.assemble((first, "bold"), *(f", {cell}" for cell in others))
            yield from line.divide(line_starts(line.plain, options.max_width))


def _show_history(console: Console, history: History) -> None:
    """Of which tickers the versions were made; why some did not pass; then what was decided when, and why."""
    for tickers in dict.fromkeys(line.tickers for line in history.versions):
        versions = [f"v{line.version}" for line in history.versions if line.tickers == tickers]
        console.print(f"{history.name} of {listed(tickers, 12)}: {listed(versions, 12)}")
    for line in history.not_passed:
        console.print(f"{history.name} v{line.version}: {escape(line.verdict)}")
    for fault in history.faults:
        console.print(f"{history.name}: {escape(fault)}")
    for entry in history.moves:
        since = f"{entry.set_at:%Y-%m-%d %H:%M}"
        console.print(f"{history.name}: {entry.alias} since {since} UTC: v{entry.version}. {escape(entry.reason)}")


def _step(step: Manifest | ArtifactRef) -> str:
    """A step of the lineage; the prices have no manifest."""
    if isinstance(step, ArtifactRef):
        return f"[bold]{step.kind}[/] v{step.version}  {step.digest[:12]}"
    made = f"{step.created_at:%Y-%m-%d %H:%M} UTC by {step.provenance.code_version}"
    return f"[bold]{step.kind}[/] {step.name} v{step.version}  {step.digest[:12]}\n{step_facts(step)}\n[dim]{made}[/]"


# --- as markdown -----------------------------------------------------------------------------------------------------


def health_markdown(health: Health) -> str:
    """How things stand."""
    findings = [f"* **{finding.code}** {finding.words} {finding.remedy}" for finding in health.findings]
    skill, drift = skill_rows(health.skill), drift_rows(health)
    return _paragraphs(
        f"# {health.name}, close of {health.session}",
        SIMULATED_NOTE if health.simulated else "",
        "\n".join(findings) or "Nothing to report.",
        "\n".join(f"* {line}" for line in health_lines(health)),
        f"## Live skill\n\n{markdown_table(skill)}" if skill else "",
        f"## Drift of the inputs\n\n{markdown_table(drift)}" if drift else "",
    )


def scorecard_markdown(scorecard: Scorecard, plots: Sequence[Plot] = ()) -> str:
    """How good a model is: verdict, scores, lineage, and pictures."""
    model = scorecard.model
    features, snapshot = model.features, model.snapshot
    rows = f"{snapshot.source}, {counted(snapshot.rows, 'row')}, cutoff {snapshot.cutoff}"
    return _paragraphs(
        f"# {model.artifact}",
        SIMULATED_NOTE if snapshot.simulated else "",
        scorecard.words[0],
        f"**{scorecard.judgement}**",
        markdown_table(score_rows(scorecard)),
        *scorecard.words[1:],
        f"Final training loss {model.final_loss:.5f} on {model.device}; scalers fitted on: {model.scaler.fitted_on}.",
        f"Lineage: {scorecard.artifact} ← {model.artifact} ← {model.scaler.artifact} ← {features.artifact} "
        f"← prices v{snapshot.prices.version} ({rows}).",
        *map(_image, plots),
    )


def backtest_markdown(result: BacktestResult, plot: Plot) -> str:
    """What a backtest came to: what was tested, the verdict, the errors over time, the scores and the duels."""
    snapshot = result.snapshot
    prices = f"prices v{snapshot.prices.version} of {snapshot.source}, cutoff {snapshot.cutoff}"
    losses = [{name: own[name] for name in own if name not in WIDE_LOSSES} for own in loss_rows(result.scores)]
    return _paragraphs(
        f"# Backtest, sessions {result.test_start} to {result.test_end}",
        SIMULATED_NOTE if snapshot.simulated else "",
        f"**{result.verdict}**",
        f"* {result.span}\n* {listed(snapshot.tickers, 12)}: {prices}\n* {backtest_extent(result)}",
        _image(plot),
        f"## Mean over {result.tickers:,} tickers" if result.tickers > 1 else "",
        markdown_table(losses, text=("forecaster",)),
        *(
            ("## Sums of sessions", SUMS_LEGEND, markdown_table(sum_score_rows(result.sums), text=("forecaster",)))
            if result.sums
            else ()
        ),
        *(
            (
                f"## Point: {point_words(result.point)}",
                point_legend(result.point),
                markdown_table(point_score_rows(result), text=("forecaster",)),
            )
            if result.points
            else ()
        ),
        f"## {result.scores[0].forecaster} against the others",
        markdown_table(duel_rows(result), text=("against",)),
    )


def models_markdown(histories: Sequence[History], *, simulated: bool) -> str:
    """The versions of each model side by side, and what was decided of them."""
    texts = ["# Versions of the models", SIMULATED_NOTE if simulated else "", COMPARABLE]
    for history in histories:
        moves = move_rows(history)
        rows = version_rows(history)
        texts += [f"## {history.name}", markdown_table(rows, text=("verdict",)) if rows else "None can be read."]
        texts += ["Decided so far, the newest first:", markdown_table(moves, text=MOVE_TEXT)] if moves else []
    return _paragraphs(*texts)


def latest_markdown(health: Health, facts: Mapping[str, Any], where: str, others: Sequence[str]) -> str:
    """The day's page in short, and where it is, with the forecast itself beside it; `where`: without the ending.

    `others` are the keys of the artifacts that it leads to.
    """
    failed = facts["failed"]
    return _paragraphs(
        f"# {health.name}, close of {health.session}",
        SIMULATED_NOTE if health.simulated else "",
        f"The page of the day is `{where}html`; the forecast is `{where}csv` and `{where}parquet`.",
        f"See also {', '.join(f'[{key}](/v2/artifacts/key/{key})' for key in others)}.",
        "## The forecast against what came",
        facts["actual"] or "No forecast of this session was published.",
        markdown_table(facts["actual_rows"], text=("inside of",)) if facts["actual_rows"] else "",
        f"## Since {facts['since_session']}" if facts["since_session"] else "",
        "\n".join(f"* {line}" for line in facts["changes"]) or "Nothing has changed.",
        "## Runs that failed" if failed is not None else "",
        markdown_table(failed, text=FAILED_TEXT) if failed else "",
        "None." if failed == [] else "",
    )


def forecast_markdown(coming: TickerForecast, forecast: StoredForecast) -> str:
    """The coming sessions of a ticker."""
    skill = skill_rows(coming.skill)
    return _paragraphs(
        f"# {coming.ticker}: volume of the next {counted(len(coming.rows), 'session')}",
        SIMULATED_NOTE if forecast.simulated else "",
        f"{forecast.made}.",
        "\n".join(f"* Held back: {words}." for words in forecast.held_back_of(coming.ticker)),
        _image(coming.plot),
        LEGEND,
        markdown_table(coming.rows),
        *(("## Several sessions together", markdown_table(coming.sums)) if coming.sums else ()),
        "\n".join(f"* {line}" for line in coming.reasons),
        "## Live skill",
        markdown_table(skill) if skill else "None of its forecasts has been scored yet.",
    )


def markdown_table(rows: Sequence[Mapping[str, str]], text: Collection[str] = ()) -> str:
    """The rows, which have the same keys, under these as headings; numbers stand to the right, `text` to the left."""
    lines = ["---" if heading in text or not place else "---:" for place, heading in enumerate(rows[0])]
    cells = [[" ".join(cell.replace("|", r"\|").split()) for cell in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (list(rows[0]), lines, *cells))


def slug(name: str) -> str:
    """A name as Prefect's artifact keys allow it: `tutorial.BRK-B` -> `tutorial-brk-b`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _image(plot: Plot) -> str:
    return f"![{plot.title}]({_data_uri(plot)})"


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)


# --- as HTML ---------------------------------------------------------------------------------------------------------


def page_html(facts: Mapping[str, Any]) -> str:
    """The page of `page.html`, which names what it needs."""
    loader = PackageLoader("volcast.tasks.reports", ".")
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    pages.filters |= {"data_uri": _data_uri, "skill_rows": skill_rows}
    return pages.get_template("page.html").render(facts)


def _data_uri(plot: Plot) -> str:
    """The picture as text, to stand inside of a page."""
    return f"data:image/png;base64,{base64.b64encode(plot.png).decode()}"
