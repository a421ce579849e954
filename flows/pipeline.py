"""The whole pipeline, once.

ingest -> retrain -> forecast -> report        (the last three for each model)
"""

from prefect import flow

from flows.forecast import forecast
from flows.ingest import ingest
from flows.report import report
from flows.retrain import BY_HAND, retrain
from storage.records import PipelineResult
from tasks.parts import finish, model_parts, outcomes, with_forecaster
from tasks.settings import DataSettings, RetrainSettings, TrainingSettings


@flow(flow_run_name="pipeline {training.recipe} {data.label} {data.day}")
def pipeline(data: DataSettings, training: TrainingSettings, why: RetrainSettings = BY_HAND) -> PipelineResult:
    """Bring the prices up to date, retrain, forecast and report; a model that fails stops no other."""
    snapshot = ingest(data)
    parts = model_parts(data, training, snapshot)

    retrained = [retrain(part, training, why, return_state=True) for part in parts]

    batches = [forecast(part, training) for part in with_forecaster(parts, training, snapshot)]
    reports = [report(batch) for batch in batches]
    return finish(snapshot, reports, outcomes(parts, retrained, training))
