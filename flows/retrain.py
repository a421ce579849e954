"""Retrain the model of one recipe; the new version forecasts only if it earned the place.

prices -> features -> scaler -> train -> evaluate -> promote -> report
"""

from prefect import flow

from storage.records import Scorecard
from tasks.build_features import build_features
from tasks.evaluate_model import evaluate_model
from tasks.find_trained import find_trained, skipped
from tasks.fit_scaler import fit_scaler
from tasks.promote_model import promote_model
from tasks.report import publish_report
from tasks.settings import DataSettings, TrainingSettings
from tasks.take_snapshot import take_snapshot
from tasks.train_model import train_model


@flow(flow_run_name="retrain {training.recipe} {data.label}")
def retrain(data: DataSettings, training: TrainingSettings) -> Scorecard:
    """Train on the stored prices that `data` names, score against champion and baselines, promote if not worse."""
    snapshot = take_snapshot(data)
    features = build_features(snapshot, training)

    if known := find_trained(features, training):
        return skipped(known)

    scaler = fit_scaler(features, training)
    model = train_model(scaler, training)

    scorecard = evaluate_model(model, training)
    promote_model(scorecard)
    publish_report(scorecard)
    return scorecard
