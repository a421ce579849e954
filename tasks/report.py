"""What a person is shown: the scorecard in words, numbers and plots, as Prefect artifacts and as files."""

import base64
import re

import obstore
import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from models.metrics import format_shares
from storage.artifacts import ArtifactStore
from storage.records import ForecastBatch, ModelVersion, Report, Scorecard
from storage.store import open_store
from tasks.evaluate_model import predict
from tasks.plots import actual_against_predicted, volume_over_time
from tasks.stored import FEATURES_FILE, FORECAST_FILE, read_frame, to_parquet

SIMULATED_NOTE = (
    "**Simulated data**: these prices and volumes come from volcast's own simulated exchange, not from a market."
)


@task(task_run_name="publish the report on {scorecard.model.artifact}")
def publish_report(scorecard: Scorecard) -> None:
    """One markdown artifact with the plots in it, and one table artifact with the scores, on the calling flow run."""
    name = _slug(scorecard.model.artifact.name)
    model = scorecard.model
    plots = draw(model)
    images = [f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})" for title, png in plots.items()]
    verdict = scorecard.words[1]
    create_markdown_artifact(
        key=f"volcast-report-{name}", markdown="\n\n".join([markdown(scorecard), *images]), description=verdict
    )
    create_table_artifact(key=f"volcast-scorecard-{name}", table=score_rows(scorecard), description=verdict)
    get_run_logger().info("report and scorecard of %s are among this run's artifacts", model.artifact)


@task(task_run_name="write the report on {batch.artifact}")
def write_report(batch: ForecastBatch, scorecard: Scorecard) -> Report:
    """Plots, scorecard and forecast as plain files under `reports/` of the store."""
    store = open_store(batch.snapshot.store)
    forecasts = read_frame(ArtifactStore(store), batch.artifact, FORECAST_FILE)
    folder = f"reports/{batch.artifact.name}/v{batch.artifact.version}"
    plots = draw(batch.model)
    files = {
        "forecast.parquet": to_parquet(forecasts),
        "forecast.csv": forecasts.to_csv(index=False, date_format="%Y-%m-%d").encode(),
        "volume.png": plots["Volume over time"],
        "predicted.png": plots["Actual against predicted volume"],
        "scorecard.md": markdown(scorecard).encode(),
    }
    for name, data in files.items():
        obstore.put(store.objects, f"{folder}/{name}", data)
    where = {name: f"{store.folder or store.url}/{folder}/{name}" for name in files}
    get_run_logger().info("report in %s/%s", store.folder or store.url, folder)
    return Report(batch=batch, scorecard=scorecard, files=where)


def draw(model: ModelVersion) -> dict[str, bytes]:
    """Title -> PNG: the volume that the model was trained and tested on, and what the model says of it."""
    snapshot = model.scaler.features.snapshot
    artifacts = ArtifactStore(open_store(snapshot.store))
    features = read_frame(artifacts, model.scaler.features.artifact, FEATURES_FILE)
    predicted = predict(artifacts, model.artifact.name, model.artifact.version, features)
    what = f"{', '.join(snapshot.tickers)}{' (simulated)' if snapshot.simulated else ''}"
    return {
        "Volume over time": volume_over_time(features, title=f"{what}: daily volume"),
        "Actual against predicted volume": actual_against_predicted(
            features, predicted, title=f"{what}: same-session nowcast by {model.artifact}"
        ),
    }


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
        pd.DataFrame(score_rows(scorecard)).pipe(_markdown_table),
        *scorecard.words[1:],
        f"Final training loss {model.final_loss:.5f} on {model.device}; scalers fitted on: {model.scaler.fitted_on}.",
        f"Lineage: {scorecard.artifact} ← {model.artifact} ← {model.scaler.artifact} ← {features.artifact} "
        f"← prices v{snapshot.prices.version} ({snapshot.source}, {snapshot.rows:,} rows, cutoff {snapshot.cutoff}).",
    ]
    return "\n\n".join(lines)


def score_rows(scorecard: Scorecard) -> list[dict[str, str]]:
    """The scores, rounded for a reader, one dictionary a method."""
    return [
        {
            "method": method,
            "RMSE, shares": format_shares(errors["rmse_shares"]),
            "MAE, shares": format_shares(errors["mae_shares"]),
            "MAPE": f"{errors['mape']:.1%}",
            "sMAPE (0 to 1)": f"{errors['smape']:.3f}",
        }
        for method, errors in scorecard.scores.items()
    ]


def _markdown_table(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _slug(name: str) -> str:
    """A name as Prefect's artifact keys allow it: `tutorial.BRK-B` -> `tutorial-brk-b`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
