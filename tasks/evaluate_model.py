"""Score a new model, the present champion and the baselines on the same held-out rows, and decide."""

import json

import numpy as np
import pandas as pd
from prefect import get_run_logger, task

from models.evaluation import evaluate
from models.features import tensors
from models.promotion import decide
from storage.artifacts import ArtifactStore, Draft
from storage.records import ModelVersion, Scorecard
from storage.store import open_store
from tasks.find_trained import inputs_digest
from tasks.provenance import provenance
from tasks.settings import TrainingSettings
from tasks.stored import FEATURES_FILE, SCORES_FILE, champion_version, read_frame, read_nowcaster


@task(task_run_name="evaluate {model.artifact}")
def evaluate_model(model: ModelVersion, training: TrainingSettings) -> Scorecard:
    """The scorecard as a version, with the decision about promotion in it."""
    snapshot, name = model.scaler.features.snapshot, model.artifact.name
    artifacts = ArtifactStore(open_store(snapshot.store))
    frame = read_frame(artifacts, model.scaler.features.artifact, FEATURES_FILE)
    present = champion_version(artifacts, name)
    rival = {} if present in (None, model.artifact.version) else {"champion": predict(artifacts, name, present, frame)}
    evaluation = evaluate(frame, predict(artifacts, name, model.artifact.version, frame), training.make(), rivals=rival)
    decision = decide(
        evaluation.rmse_shares,
        evaluation.table["rmse_shares"].to_dict().get("champion"),
        baselines=evaluation.baseline_rmse_shares,
    )
    scores = {str(method): errors for method, errors in evaluation.table.to_dict("index").items()}
    draft = Draft(
        kind="scorecard",
        name=name,
        files={SCORES_FILE: json.dumps(scores, indent=1).encode()},
        parents=(model.artifact,),
        facts={
            "inputs": inputs_digest(model.scaler.features, training),
            "champion": present,
            "words": list(evaluation.words),
            "promote": decision.promote,
            "verdict": decision.reason,
        },
        provenance=provenance(source=snapshot.source, seed=training.seed),
    )
    ref = artifacts.put(draft).ref
    get_run_logger().info("%s: %s", ref, evaluation.words[1])
    return Scorecard(
        artifact=ref,
        model=model,
        scores=scores,
        words=evaluation.words,
        promote=decision.promote,
        verdict=decision.reason,
    )


def predict(artifacts: ArtifactStore, name: str, version: int, frame: pd.DataFrame) -> np.ndarray:
    """What a stored model says of each row of a features frame, in shares (N,)."""
    nowcaster, recipe = read_nowcaster(artifacts, name, version)
    return nowcaster.predict(tensors(frame, recipe)[0])
