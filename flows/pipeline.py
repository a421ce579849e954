"""The whole pipeline, once.

ingest -> retrain -> forecast -> report        (the last three for each model)
"""

from prefect import flow

from volcast.flows.forecast import forecast
from volcast.flows.ingest import ingest
from volcast.flows.retrain import BY_HAND, retrain
from volcast.models.point_names import USUAL_POINT
from volcast.storage.records import ForecastBatch, PipelineResult, Report
from volcast.tasks.gate import find_scorecard
from volcast.tasks.reports.publish import write_report
from volcast.tasks.run_tools import attempt, complete
from volcast.tasks.runs import complete_pipeline, data_of_models, outcomes, with_forecaster
from volcast.tasks.settings import DataSettings, Point, RetrainSettings, TrainingSettings


@flow(flow_run_name="pipeline {training.recipe} {data.label} {data.day}")
def pipeline(
    data: DataSettings, training: TrainingSettings, why: RetrainSettings = BY_HAND, point: Point = USUAL_POINT
) -> PipelineResult:
    """Bring the prices up to date, retrain, forecast and report; a model that fails stops no other.

    Args:
        point: The number that the forecast's files are read as: median, mean, quantile:0.4, or ale, the quantile 1/3
    """
    snapshot = ingest(data)
    models = data_of_models(data, training, snapshot)

    retrained = [attempt(retrain, each, training, why) for each in models]

    batches = [forecast(each, training) for each in with_forecaster(models, training, snapshot)]
    reports = [report(batch, point) for batch in batches]
    return complete_pipeline(snapshot, reports, outcomes(models, retrained, training))


@flow(flow_run_name="report on {batch.artifact}")
def report(batch: ForecastBatch, point: Point = USUAL_POINT) -> Report:
    """Files under `reports/` of the store, for the forecast and the model that made it."""
    scorecard = find_scorecard(batch)
    written = write_report(batch, scorecard, point)
    return complete(written, written.words)
