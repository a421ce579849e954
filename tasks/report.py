"""What a person is shown: the scorecard in words, numbers and plots, as Prefect artifacts and as files."""

import base64
import re
from collections.abc import Mapping, Sequence

import obstore
import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from models.recipes import DEFAULT_RECIPE
from models.words import listed
from storage.artifacts import ArtifactStore
from storage.records import ForecastBatch, ModelVersion, Report, Scorecard, Snapshot
from storage.store import open_store
from tasks.frames import to_parquet
from tasks.methods.protocol import Names, Plot
from tasks.methods.registry import method_from
from tasks.prepared import read_prepared
from tasks.stored import FORECAST_FILE, read_frame, read_model, reader, stored_method
from tasks.take_snapshot import read_prices

SIMULATED_NOTE = (
    "**Simulated data**: these prices and volumes come from volcast's own simulated exchange, not from a market."
)
MAX_PLOTS_BYTES = 200_000  # of the PNGs in a Prefect artifact; as text they grow by a third, and 300 kB is its limit


@task(task_run_name="publish the report on {scorecard.model.artifact}")
def publish_report(scorecard: Scorecard) -> None:
    """One markdown artifact with the plots in it, and one table artifact with the scores, on the calling flow run."""
    model = scorecard.model
    name, snapshot = _slug(model.artifact.name), model.scaler.features.snapshot
    method, predictor = read_model(_artifacts(snapshot), model.artifact.name, model.artifact.version)
    forecasts = method.forecast(read_prepared(model.scaler.features, method), predictor)
    plots = [*_forecast_plots(model, snapshot, forecasts), *_model_plots(scorecard)]
    verdict = scorecard.words[1]
    create_markdown_artifact(
        key=f"volcast-report-{name}",
        markdown="\n\n".join([markdown(scorecard), *map(_image, _small_enough(plots))]),
        description=verdict,
    )
    create_table_artifact(key=f"volcast-scorecard-{name}", table=score_rows(scorecard), description=verdict)
    get_run_logger().info("report and scorecard of %s are among this run's artifacts", model.artifact)


@task(task_run_name="write the report on {batch.artifact}")
def write_report(batch: ForecastBatch, scorecard: Scorecard) -> Report:
    """Plots, scorecard and forecast as plain files under `reports/` of the store."""
    store, forecasts = open_store(batch.snapshot.store), _forecasts(batch)
    folder = f"reports/{batch.artifact.name}/v{batch.artifact.version}"
    plots = [*_forecast_plots(scorecard.model, batch.snapshot, forecasts), *_model_plots(scorecard)]
    files = {
        "forecast.parquet": to_parquet(forecasts),
        "forecast.csv": forecasts.to_csv(index=False, date_format="%Y-%m-%d").encode(),
        **{plot.file: plot.png for plot in plots},
        "scorecard.md": markdown(scorecard).encode(),
    }
    for name, data in files.items():
        obstore.put(store.objects, f"{folder}/{name}", data)
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
        f"**{scorecard.verdict}**",
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
    if batch.model is None:  # a fallback's has the form of the volume recipe's
        return method_from({"name": DEFAULT_RECIPE}).forecast_rows(_forecasts(batch))
    model = batch.model.artifact
    return stored_method(_artifacts(batch.snapshot), model.name, model.version).forecast_rows(_forecasts(batch))


def _forecasts(batch: ForecastBatch) -> pd.DataFrame:
    return read_frame(_artifacts(batch.snapshot), batch.artifact, FORECAST_FILE)


def _artifacts(snapshot: Snapshot) -> ArtifactStore:
    return ArtifactStore(open_store(snapshot.store))


def _model_plots(scorecard: Scorecard) -> list[Plot]:
    """Of the model on the data that it was trained and tested on."""
    model, snapshot = scorecard.model, scorecard.model.scaler.features.snapshot
    artifacts = _artifacts(snapshot)
    method, predictor = read_model(artifacts, model.artifact.name, model.artifact.version)
    names = Names(tickers=listed(snapshot.tickers, 5), version=str(model.artifact), note=_note(snapshot))
    return method.model_plots(
        lambda: read_prepared(model.scaler.features, method), predictor, reader(artifacts, scorecard.artifact), names
    )


def _forecast_plots(model: ModelVersion, snapshot: Snapshot, forecasts: pd.DataFrame) -> list[Plot]:
    method = stored_method(_artifacts(snapshot), model.artifact.name, model.artifact.version)
    return method.forecast_plots(read_prices(open_store(snapshot.store), snapshot), forecasts, _note(snapshot))


def _note(snapshot: Snapshot) -> str:
    return " (simulated)" if snapshot.simulated else ""


def _small_enough(plots: Sequence[Plot]) -> list[Plot]:
    """The first ones and the last, as many as an artifact may hold."""
    *first, last = plots
    chosen, size = [], len(last.png)
    for plot in first:
        size += len(plot.png)
        if size > MAX_PLOTS_BYTES:
            break
        chosen.append(plot)
    return [*chosen, last]


def _image(plot: Plot) -> str:
    return f"![{plot.title}](data:image/png;base64,{base64.b64encode(plot.png).decode()})"


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows, which have the same keys, under these as headings."""
    whole = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in whole)


def _slug(name: str) -> str:
    """A name as Prefect's artifact keys allow it: `tutorial.BRK-B` -> `tutorial-brk-b`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
