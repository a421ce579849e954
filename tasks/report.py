"""What a person is shown: the scorecard in words, numbers and plots, as Prefect artifacts and as files."""

import base64
import re
from collections.abc import Mapping, Sequence

import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from models.recipes import DEFAULT_RECIPE
from models.words import listed
from storage.artifacts import ArtifactStore
from storage.records import ForecastBatch, Report, Scorecard, Snapshot
from storage.store import open_store, put
from tasks.frames import to_parquet
from tasks.methods.protocol import Method, Names, Plot
from tasks.methods.registry import method_from
from tasks.methods.volume import DRAWN_TICKERS, in_order
from tasks.plots import SHOWN_SESSIONS
from tasks.prepared import read_prepared
from tasks.stored import FORECAST_FILE, read_frame, read_model, reader, stored_method
from tasks.take_snapshot import prices_before

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
        key=key, markdown="\n\n".join([markdown(scorecard), *map(image, plots)]), description=scorecard.judgement
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
        files["scorecard.md"] = "\n\n".join([*by_another, markdown(scorecard)]).encode()
    for name, data in files.items():
        put(store, f"{folder}/{name}", data, replace=True)
    where = {name: f"{store.folder or store.url}/{folder}/{name}" for name in files}
    get_run_logger().info("report in %s/%s", store.folder or store.url, folder)
    return Report(batch=batch, scorecard=scorecard, files=where)


def markdown(scorecard: Scorecard) -> str:
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
