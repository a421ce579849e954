"""Retrain the model of one recipe; the new version forecasts only if it earned the place.

prices -> features -> scaler -> train -> evaluate -> report -> approval -> promote -> status
before the first version, and for a newer vintage of untrained weights that forecast:
prices -> features -> scaler -> pretrained weights -> evaluate -> report -> approval -> promote
"""

from prefect import flow

from volcast.storage.records import FeatureSet, Scorecard, Snapshot
from volcast.tasks.gate import (
    ask_approval,
    complete_training,
    find_trained,
    promote_model,
    promote_untested,
    skip_training,
)
from volcast.tasks.reports.publish import publish_models, publish_scorecard, refresh_status
from volcast.tasks.settings import DataSettings, RetrainSettings, TrainingSettings, as_asked
from volcast.tasks.snapshot import take_snapshot
from volcast.tasks.train import build_features, evaluate_model, fit_scaler, is_testable, train_model, untrained

BY_HAND = RetrainSettings()


@flow(flow_run_name="retrain {training.recipe} {data.label} {data.day}")
def retrain(data: DataSettings, training: TrainingSettings, why: RetrainSettings = BY_HAND) -> Scorecard:
    """Train on the stored prices; a version that beats har, and is not worse than the champion, forecasts then.

    Trained on before, or too soon after another training: Skipped, by name. With `require_approval` a version that
    passed waits for a person's yes; without `promote` it is an experiment. The artifact
    volcast-models compares the versions there are.
    """
    snapshot, training = take_snapshot(data), as_asked(training, data)
    if why.promote:
        adopt_pretrained(snapshot, training, why)
    features = build_features(snapshot, training)

    found = find_trained(features, training, why)
    if found.settled:
        return skip_training(found)

    scorecard = found.scorecard or train_challenger(features, training, why)

    answer = ask_approval(scorecard, why)
    outcome = promote_model(scorecard, answer, why)
    publish_models(snapshot.store)
    refresh_status(snapshot.store, data.session)
    return complete_training(scorecard, outcome)


def adopt_pretrained(snapshot: Snapshot, training: TrainingSettings, why: RetrainSettings | None = None) -> None:
    """Before the first version of a model let pretrained weights forecast as they are, where there are any.

    They have to beat har, as every version has, but where there are too few sessions to test them. A retraining, which
    says `why`, compares newer weights with those that forecast as they are, once, and by the whole gate.
    """
    as_they_are = untrained(snapshot, training, replace=why is not None)
    if as_they_are is None:
        return
    features = build_features(snapshot, as_they_are)
    if is_testable(features, as_they_are):
        scorecard = train_challenger(features, as_they_are, why or BY_HAND)
        gate = why if why and scorecard.champion else BY_HAND  # nobody is asked about the first champion
        promote_model(scorecard, ask_approval(scorecard, gate), gate)
    else:
        promote_untested(train_model(fit_scaler(features, as_they_are), as_they_are))


def train_challenger(features: FeatureSet, training: TrainingSettings, why: RetrainSettings) -> Scorecard:
    """A new version, scored beside the champion and the baselines on the same sessions, with its report."""
    scaler = fit_scaler(features, training)
    model = train_model(scaler, training)

    scorecard = evaluate_model(model, training, why)
    publish_scorecard(scorecard)
    return scorecard
