"""What a person is shown: the scorecard in words, numbers and plots, as Prefect artifacts and as files.

Show an operator how things stand: the artifact `volcast-status`, with its history, on the run.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from models.recipes import DEFAULT_RECIPE
from models.text import listed
from storage.artifacts import ArtifactStore, to_parquet
from storage.records import ForecastBatch, Health, Report, Scorecard, Snapshot
from storage.store import open_store, put
from tasks.methods.method import Method, Names, Plot, method_from
from tasks.methods.volume import DRAWN_TICKERS, in_order
from tasks.reports.plots import SHOWN_SESSIONS
from tasks.snapshot import prices_before, read_prepared
from tasks.stored_models import FORECAST_FILE, read_frame, read_model, reader, stored_method

SIMULATED_NOTE = (
    "**Simulated data**: these prices and volumes come from volcast's own simulated exchange, not from a market."
)
LEADING = 3  # tickers whose forecast a scorecard shows: an artifact holds 300 kB, and a chart takes 40 as text


@task(task_run_name="publish the report on {scorecard.model.artifact}")
def publish_report(scorecard: Scorecard) -> None:
    """One markdown artifact on the calling flow run: verdict, scores, plots of the model and of what it forecasts."""
    model = scorecard.model
    snapshot, name = model.scaler.features.snapshot, model.artifact.name
    method, predictor = read_model(_artifacts(snapshot), name, model.artifact.version)
    forecasts = method.forecast(read_prepared(model.scaler.features, method), predictor)
    leading = forecasts.loc[forecasts["unique_id"].isin(in_order(forecasts)[:LEADING])]
    plots = [*_forecast_plots(method, snapshot, leading), *model_plots(scorecard)]
    key = "volcast-scorecard" + ("" if name == DEFAULT_RECIPE else f"-{slug(name)}")
    create_markdown_artifact(
        key=key, markdown="\n\n".join([report_markdown(scorecard), *map(image, plots)]), description=scorecard.judgement
    )
    get_run_logger().info("%s is this run's artifact %s", scorecard.artifact, key)


@task(task_run_name="write the report on {batch.artifact}")
def write_report(batch: ForecastBatch, scorecard: Scorecard | None) -> Report:
    """Plots, scorecard and forecast as plain files under `reports/` of the store.

    Beside a fallback's forecast the scorecard is that of a model which did not make it, and its plots are left out.
    """
    store, forecasts = open_store(batch.snapshot.store, writable=True), _forecasts(batch)
    folder = f"reports/{batch.artifact.name}/v{batch.artifact.version}"
    plots = _forecast_plots(_method(batch), batch.snapshot, forecasts)
    plots += model_plots(scorecard) if scorecard and batch.model else []
    files = {
        "forecast.parquet": to_parquet(forecasts),
        "forecast.csv": forecasts.to_csv(index=False, date_format="%Y-%m-%d").encode(),
        **{plot.file: plot.png for plot in plots},
    }
    if scorecard is not None:
        by_another = [] if batch.model else [f"**The forecast is not by this model, but by {batch.author}.**"]
        files["scorecard.md"] = "\n\n".join([*by_another, report_markdown(scorecard)]).encode()
    for name, data in files.items():
        put(store, f"{folder}/{name}", data, replace=True)
    where = {name: f"{store.folder or store.url}/{folder}/{name}" for name in files}
    get_run_logger().info("report in %s/%s", store.folder or store.url, folder)
    return Report(batch=batch, scorecard=scorecard, files=where)


def report_markdown(scorecard: Scorecard) -> str:
    """The scorecard for a reader."""
    model = scorecard.model
    features = model.scaler.features
    snapshot = features.snapshot
    lines = [
        f"# {model.artifact}",
        *([SIMULATED_NOTE] if snapshot.simulated else []),
        scorecard.words[0],
        f"**{scorecard.judgement}**",
        markdown_table(score_rows(scorecard)),
        *scorecard.words[1:],
        f"Final training loss {model.final_loss:.5f} on {model.device}; scalers fitted on: {model.scaler.fitted_on}.",
        f"Lineage: {scorecard.artifact} ← {model.artifact} ← {model.scaler.artifact} ← {features.artifact} "
        f"← prices v{snapshot.prices.version} ({snapshot.source}, {snapshot.rows:,} rows, cutoff {snapshot.cutoff}).",
    ]
    return "\n\n".join(lines)


def score_rows(scorecard: Scorecard) -> list[dict[str, str]]:
    """The scores, rounded for a reader, one dictionary a method."""
    model = scorecard.model
    artifacts = _artifacts(model.scaler.features.snapshot)
    return stored_method(artifacts, model.artifact.name, model.artifact.version).score_rows(scorecard.scores)


def forecast_rows(batch: ForecastBatch) -> list[dict[str, str]]:
    """The coming sessions of the first tickers, rounded for a reader; none for a nowcast."""
    return _method(batch).forecast_rows(_forecasts(batch))


def _forecasts(batch: ForecastBatch) -> pd.DataFrame:
    return read_frame(_artifacts(batch.snapshot), batch.artifact, FORECAST_FILE)


def _method(batch: ForecastBatch) -> Method:
    if batch.model is None:
        return method_from({"name": DEFAULT_RECIPE})  # a fallback's has the form of the volume recipe's
    return stored_method(_artifacts(batch.snapshot), batch.model.artifact.name, batch.model.artifact.version)


def _artifacts(snapshot: Snapshot) -> ArtifactStore:
    return ArtifactStore(open_store(snapshot.store))


def model_plots(scorecard: Scorecard) -> list[Plot]:
    """Of the model on the data that it was trained and tested on."""
    model, snapshot = scorecard.model, scorecard.model.scaler.features.snapshot
    artifacts = _artifacts(snapshot)
    method, predictor = read_model(artifacts, model.artifact.name, model.artifact.version)
    names = Names(tickers=listed(snapshot.tickers, 5), version=str(model.artifact), note=simulated_note(snapshot))
    return method.model_plots(
        lambda: read_prepared(model.scaler.features, method), predictor, reader(artifacts, scorecard.artifact), names
    )


def _forecast_plots(method: Method, snapshot: Snapshot, forecasts: pd.DataFrame) -> list[Plot]:
    store, version = open_store(snapshot.store), snapshot.prices.version
    drawn = in_order(forecasts)[:DRAWN_TICKERS]
    prices = prices_before(store, drawn, cutoff=snapshot.cutoff, version=version, sessions=SHOWN_SESSIONS)
    return method.forecast_plots(prices, forecasts, simulated_note(snapshot))


def simulated_note(snapshot: Snapshot) -> str:
    return " (simulated)" if snapshot.simulated else ""


def data_uri(plot: Plot) -> str:
    """The picture as text, to stand inside of a page."""
    return f"data:image/png;base64,{base64.b64encode(plot.png).decode()}"


def image(plot: Plot) -> str:
    """The picture, inside of markdown."""
    return f"![{plot.title}]({data_uri(plot)})"


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows, which have the same keys, under these as headings."""
    lines = ["---", *["---:"] * (len(rows[0]) - 1)]  # numbers stand to the right
    whole = [list(rows[0]), lines, *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in whole)


def slug(name: str) -> str:
    """A name as Prefect's artifact keys allow it: `tutorial.BRK-B` -> `tutorial-brk-b`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


COLUMNS = {
    "mase": ("MASE", ".3f"),
    "mase_har": ("/ har", ".3f"),
    "mase_naive": ("/ naive", ".3f"),
    "pinball_har": ("pinball / har", ".3f"),
    "coverage_80": ("in 80%", ".0%"),
    "coverage_95": ("in 95%", ".0%"),
    "over_share": ("over", ".0%"),
    "bias": ("bias", "+.1%"),
}  # of models/scores.py -> heading and format; the UI has room for 584 pixels


@task(task_run_name="publish the status of {health.name}")
def publish_status(health: Health) -> None:
    """Markdown; its description is the one line that says it all."""
    create_markdown_artifact(key="volcast-status", markdown=health_markdown(health), description=health.words)


def health_markdown(health: Health) -> str:
    """How things stand, for a reader."""
    findings = [f"* **{each.code}** {each.words} {each.remedy}" for each in health.findings]
    skill = skill_rows(map(dict, health.skill))
    parts = [
        f"# {health.name}, close of {health.session}",
        *([SIMULATED_NOTE] if health.simulated else []),
        "\n".join(findings) or "Nothing to report.",
        "\n".join(f"* {line}" for line in lines(health)),
        *(["## Live skill", markdown_table(skill)] if skill else []),
        *(
            ["## Drift of the inputs", markdown_table(drift_rows(health))]
            if health.drift and health.drift.features
            else []
        ),
    ]
    return "\n\n".join(parts)


def lines(health: Health) -> list[str]:
    """Prices, forecast and champion in a line each."""
    behind = f"{health.behind:,} sessions behind the market" if health.behind else "up to date"
    prices = f"prices of {health.tickers:,} tickers to {health.cutoff}, {behind}"
    made = f"forecast from {health.forecast_cutoff} by {health.by}" if health.forecast_cutoff else "no forecast yet"
    age = f"{health.champion}, {health.model_age:,} sessions old" if health.champion else "no champion"
    counts = f"{health.quarantined:,} quarantined and {health.restated:,} restated"
    return [
        f"{prices}; {counts} of each ticker's last 20 sessions",
        made + (f", a fallback: {health.why}" if health.why else ""),
        age + (f"; {health.errors.words}" if health.errors else "; too few scores to judge its errors by"),
    ]


def skill_rows(skill: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Live skill (models/scores.py: live_skill), rounded for a reader, one dictionary a window and ticker."""
    rows = []
    for own in skill:
        numbers = {heading: _shown(own[name], form) for name, (heading, form) in COLUMNS.items()}
        rows.append({"of": own["ticker"], "last": str(own["sessions"]), "rows": f"{own['rows']:,}", **numbers})
    return rows


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None or value != value else f"{value:{form}}"  # NaN: there was no rival


def drift_rows(health: Health) -> list[dict[str, str]]:
    """The features that moved most, rounded for a reader."""
    if health.drift is None:
        return []
    found = health.drift.features[:8]
    return [{"feature": own.name, "PSI": f"{own.index:.2f}", "limit": f"{own.limit:.2f}"} for own in found]
