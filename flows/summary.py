"""How a command ends: what there is now, in a few lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from flows.server import Server
from models.text import listed
from storage.artifacts import ArtifactStore
from storage.records import (
    ArtifactRef,
    BacktestResult,
    Daily,
    ForecastBatch,
    ForecasterScore,
    Health,
    Manifest,
    PipelineResult,
    PriceCounts,
    Scorecard,
    Snapshot,
)
from storage.store import open_store
from tasks.count_prices import count_rows
from tasks.reports.render import drift_rows, forecast_rows, lines, score_rows, skill_rows
from tasks.reports.views import History, history_of
from tasks.stored_models import CHAMPION

SIMULATED = "[bold yellow]Simulated data[/] from volcast's own simulated exchange, not from a market."
NARROW: dict[str, Any] = {"box": SIMPLE, "pad_edge": False, "padding": (0, 1, 0, 0)}  # fits 80 columns
LOSSES = {
    "mase": ("MASE", ".3f"),
    "rmsse_mean": ("RMSSE", ".3f"),
    "smape": ("sMAPE", ".3f"),
    "qlike_mean": ("QLIKE", ".3f"),
    "pinball": ("pinball", ".3f"),
    "coverage_80": ("in 80%", ".1%"),
    "coverage_95": ("in 95%", ".1%"),
    "bias": ("bias", ".1%"),
}  # loss -> heading and format
STEPS = ("forecast", "scorecard", "model", "scaler", "features", "prices")  # each was made from the ones after it


def show_prices(console: Console, snapshot: Snapshot) -> None:
    """Which rows there are."""
    if snapshot.simulated:
        console.print(SIMULATED)
    console.print(
        f"[bold]Prices[/]    v{snapshot.prices.version} of {snapshot.source}: {snapshot.rows:,} rows of "
        f"{listed(snapshot.tickers)}"
    )
    console.print(
        f"          sessions {snapshot.first_session} to {snapshot.cutoff}, kept in {nice_path(snapshot.store)}"
    )
    for row in snapshot.counts.worst if snapshot.counts else ():
        if row.ticker not in snapshot.tickers:
            console.print(f"          [bold yellow]left out[/] {escape(row.ticker)}: {escape(row.outcome)}")
    show_announcements(console, snapshot)


def show_announcements(console: Console, snapshot: Snapshot) -> None:
    """What is known of the earnings calendar, and what kept its source from answering; or that it is not used."""
    announcements = snapshot.announcements
    if not snapshot.uses_earnings:
        console.print("[bold]Earnings[/]  announced ones are not used: --events none")
    if announcements is not None:
        console.print(f"[bold]Earnings[/]  {announcements.words}")
        if announcements.failed:
            console.print(f"          [yellow]not complete:[/] {escape(announcements.failed)}")


def show_counts(console: Console, counts: PriceCounts | None, *, ingested: bool) -> None:
    """A row a ticker, the worst first, and the total; nothing before anything is stored."""
    if counts is None:
        return
    *_, total = rows = count_rows(counts, outcome=ingested)
    table = Table(**NARROW)
    for heading in rows[0]:
        left = heading in ("ticker", "outcome")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading != "outcome", overflow="fold")
    for row in rows[:-1]:
        table.add_row(*map(escape, row.values()))
    table.add_section()
    table.add_row(*total.values())
    console.print(table)
    if counts.tickers > len(counts.worst):
        console.print(f"          the worst {len(counts.worst)} of {counts.tickers:,} tickers; the total is of all")
    for row in counts.worst:
        if row.gaps:
            console.print(f"          {row.ticker} lacks {row.gaps}")


def show_status(console: Console, store_url: str, counts: PriceCounts) -> None:
    """What the store holds, and how far behind the market it is."""
    total = counts.total
    console.print(
        f"[bold]Prices[/]    v{counts.version} in {nice_path(store_url)}: {total.stored:,} rows "
        f"of {counts.tickers:,} tickers, sessions {total.first} to {total.last}"
    )
    behind = f"{total.behind:,} sessions behind" if total.behind else "up to date with"
    console.print(f"          {behind} the market's last closed session, {counts.last_closed}")
    show_counts(console, counts, ingested=False)


def show_quarantine(console: Console, store_url: str, rows: list[tuple[str, ...]], total: int) -> None:
    """The rows (ticker, session, rule, value, source, seen at), and how many there are in all."""
    if not rows:
        console.print(f"No row is in quarantine in {nice_path(store_url)}.")
        return
    table = Table("ticker", "session", "rule", "value", "source", "seen at, UTC", **NARROW)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    console.print(
        f"          {len(rows):,} of {total:,} rows" + (", the newest; more by --limit" * (len(rows) < total))
    )


def show_scorecard(console: Console, scorecard: Scorecard, said: str = "") -> None:
    """How good the model is, and the verdict, unless that was `said` before."""
    model, features = scorecard.model, scorecard.model.scaler.features
    console.print(
        f"[bold]Model[/]     {model.artifact}: final loss {model.final_loss:.5f} on {model.device};\n"
        f"          {features.train_rows:,} train and {features.rows - features.train_rows:,} test sessions, "
        f"scalers fitted on {model.scaler.fitted_on} rows\n"
    )
    console.print(_table(score_rows(scorecard), title=str(scorecard.artifact)))
    for sentence in scorecard.words:
        console.print(f"  {escape(sentence)}")
    if scorecard.verdict not in said:
        console.print(f"  [bold]{escape(scorecard.judgement)}[/]")


def show_forecast(console: Console, batch: ForecastBatch) -> None:
    """What was forecast, and by which model or, said first, by what in its place and why."""
    if batch.model is None:
        console.print(
            f"[bold yellow]Fallback[/]  {batch.by} forecasts in place of {batch.artifact.name}: {escape(batch.why)}."
        )
    console.print(
        f"[bold]Forecast[/]  {batch.artifact} by {batch.model.artifact if batch.model else batch.by}: "
        f"{batch.rows:,} rows, sessions {batch.first_session} to {batch.last_session}"
        + (", without announced earnings" * (not batch.snapshot.uses_earnings))
    )
    if batch.left_out:
        console.print(f"          [yellow]no forecast of[/] {listed(batch.left_out)}: no price, or too few")
    rows = forecast_rows(batch)
    if rows:
        console.print(_table(rows, title="Median and 80 % interval, million shares"))


def show_daily(console: Console, result: Daily) -> None:
    """What a day's work came to."""
    console.print()
    if result.skipped:
        console.print(f"[bold]Skipped[/]   {result.skipped}")
    if result.batch is not None:
        show_prices(console, result.batch.snapshot)
        show_forecast(console, result.batch)
    show_health(console, result.health)


def show_health(console: Console, health: Health | None) -> None:
    """How things stand, what an operator must do, and the live skill."""
    if health is None:
        return
    state = "[bold red]needs a person[/]" if health.needs_person else "[bold green]runs by itself[/]"
    console.print(f"\n[bold]Health[/]    {health.name}, session {health.session}: {state}")
    for line in lines(health):
        console.print(f"          {escape(line)}")
    for finding in health.findings:
        colour = "red" if finding.needs_person else "yellow"
        console.print(f"[{colour}]{finding.code}[/] {escape(finding.words)} {escape(finding.remedy)}")
    if skill := skill_rows(map(dict, health.skill)):
        title = "Live skill, last target sessions: below 1, better than the rival"
        console.print(_table(skill, title=title, padding=0))
    if rows := drift_rows(health):
        console.print(_table(rows, title="Drift of the inputs, population stability index"))


def show_result(console: Console, result: PipelineResult) -> None:
    """What the whole pipeline gave: prices, and for each model its training, scorecard, forecast and files."""
    console.print()
    show_prices(console, result.snapshot)
    for report in result.reports:
        training = result.trainings[report.batch.artifact.name]
        console.print(f"\n[bold]Training[/]  {escape(training)}")
        if report.scorecard is not None:
            show_scorecard(console, report.scorecard, said=training)
        show_forecast(console, report.batch)
        for path in report.files.values():
            console.print(f"          {nice_path(path)}")
    console.print()


def show_backtest(console: Console, result: BacktestResult) -> None:
    """The scores of every forecaster, of the panel and of its first ticker, and the leading one against the others."""
    console.print()
    show_prices(console, result.snapshot)
    first, *others = result.ticker_scores
    console.print(
        f"[bold]Test[/]      {result.rows:,} forecasts from {result.cutoffs:,} cutoffs, "
        f"{result.tickers:,} tickers with a score\n"
    )
    console.print(_loss_table(f"Mean over {result.tickers:,} tickers" if others else first, result.scores))
    if others:
        console.print(_loss_table(first, result.ticker_scores[first]))
    own = {score.mean_of: None for score in result.scores if score.mean_of != score.forecaster}
    console.print(f"RMSSE and QLIKE: of the mean forecast ({', '.join(own) or 'none has one'})")
    console.print("where there is one, else of the point.")
    console.print("MASE, RMSSE and pinball: in units of the seasonal naive's train errors.\n")
    console.print(_duel_table(result))
    console.print(f"[bold]{result.verdict}[/]\n")
    console.print(f"          {result.path}")


def show_server(console: Console, server: Server) -> None:
    """Where to look at the runs."""
    if server.own:
        console.print("[bold]UI[/]        Prefect keeps this run; to look at it: volcast up")
    else:
        console.print(f"[bold]UI[/]        {server.ui_url}/runs")


def show_models(console: Console, store_url: str) -> None:
    """A table of every version of every model; then whose volume they know, why some did not pass, and each move."""
    artifacts = ArtifactStore(open_store(store_url))
    histories = [history_of(artifacts, store_url, name) for name in artifacts.names("model")]
    if not any(history.versions for history in histories):
        console.print(f"No model has been trained in {nice_path(store_url)}. Train one with: volcast run")
        return
    rows = [
        {
            "model": f"{history.name} v{line.version}",
            "tickers": f"{len(line.tickers)}",
            "recipe": line.size,
            "test sessions": f"{line.test_sessions} to {line.cutoff}",
            "score": line.score,
            "now": CHAMPION if line.is_champion else "",
        }
        for history in histories
        for line in history.versions
    ]
    console.print(_table(rows, title=f"Models in {nice_path(store_url)}", padding=0))
    console.print("Scores can be compared where the tickers and the test are the same.\n")
    for history in histories:
        _show_history(console, history)


def show_lineage(console: Console, store_url: str, name: str) -> None:
    """From the newest forecast of a model back to its prices, and every move of its champion. Raises NotStored."""
    artifacts = ArtifactStore(open_store(store_url))
    newest = artifacts.newest("forecast", name) or artifacts.get("model", name)
    chain = sorted(artifacts.walk(newest), key=lambda step: STEPS.index(step.kind))
    tree = branch = Tree(_line(chain[0]))
    for step in chain[1:]:
        branch = branch.add(_line(step))
    console.print(tree)
    _show_history(console, history_of(artifacts, store_url, name))


def nice_path(url_or_path: str) -> str:
    """A local path as seen from here, anything else as it is."""
    parts = urlsplit(url_or_path)
    if parts.scheme not in ("", "file"):
        return url_or_path
    path = Path(unquote(parts.path))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _table(rows: Sequence[Mapping[str, str]], *, title: str, **style: Any) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", **NARROW | style)
    for place, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row.values())
    return table


def _show_history(console: Console, history: History) -> None:
    """Of which tickers the versions were made; why some did not pass; then what was decided when, and why."""
    for tickers in dict.fromkeys(line.tickers for line in history.versions):
        versions = [f"v{line.version}" for line in history.versions if line.tickers == tickers]
        console.print(f"{history.name} of {listed(tickers, 12)}: {listed(versions, 12)}")
    for line in history.kept:
        console.print(f"{history.name} v{line.version}: {escape(line.verdict)}")
    for entry in history.moves:
        since = f"{entry.set_at:%Y-%m-%d %H:%M}"
        console.print(f"{history.name}: {entry.alias} since {since} UTC: v{entry.version}. {escape(entry.reason)}")


def _loss_table(title: str, scores: Sequence[ForecasterScore]) -> Table:
    """A row a band and forecaster, a section a band."""
    table = Table(title=title, title_justify="left", title_style="bold", **{**NARROW, "padding": 0})
    for heading in ("h", "forecaster", *(heading for heading, _ in LOSSES.values())):
        table.add_column(heading, no_wrap=True)
    for place, score in enumerate(scores):
        if place and score.band != scores[place - 1].band:
            table.add_section()
        table.add_row(
            score.band, score.forecaster, *(f"{score.losses[name]:{form}}" for name, (_, form) in LOSSES.items())
        )
    return table


def _duel_table(result: BacktestResult) -> Table:
    leading = result.scores[0].forecaster
    table = Table(title=f"{leading} against the others", title_justify="left", title_style="bold", **NARROW)
    for heading in ("h", "against", "MASE ratio", "pinball ratio", "tickers won", "p"):
        table.add_column(heading, no_wrap=True)
    for duel in result.duels:
        p_value = "too few sessions" if duel.p_value is None else f"{duel.p_value:.3f}"
        ratios = (f"{duel.mase_ratio:.3f}", f"{duel.pinball_ratio:.3f}")
        table.add_row(duel.band, duel.rival, *ratios, f"{duel.ticker_share:.0%}", p_value)
    return table


def _line(step: Manifest | ArtifactRef) -> str:
    if isinstance(step, ArtifactRef):
        return f"[bold]{step.kind}[/] v{step.version}  {step.digest[:12]}"
    shown = ("cutoff", "rows", "horizon", "fitted_on", "seed", "final_loss", "device", "verdict")
    facts = ", ".join(f"{key.replace('_', ' ')} {_shown(step.facts[key])}" for key in shown if key in step.facts)
    made = f"{step.created_at:%Y-%m-%d %H:%M} UTC by {step.provenance.code_version}"
    return f"[bold]{step.kind}[/] {step.name} v{step.version}  {step.digest[:12]}\n{facts}\n[dim]{made}[/]"


def _shown(fact: object) -> str:
    return f"{fact:.5f}" if isinstance(fact, float) else str(fact)
