"""Score a new model, the present champion and the baselines on the same held-out rows, and decide."""

import json

from prefect import get_run_logger, task

from storage.artifacts import ArtifactStore, Draft
from storage.records import ModelVersion, Scorecard
from storage.store import open_store
from tasks.find_trained import inputs_digest
from tasks.prepared import read_prepared
from tasks.provenance import provenance
from tasks.settings import TrainingSettings
from tasks.stored import SCORES_FILE, champion_version, read_model


@task(task_run_name="evaluate {model.artifact}")
def evaluate_model(model: ModelVersion, training: TrainingSettings) -> Scorecard:
    """The scorecard as a version, with the decision about promotion in it."""
    features, name, method = model.scaler.features, model.artifact.name, training.method()
    artifacts = ArtifactStore(open_store(features.snapshot.store, writable=True))
    present = champion_version(artifacts, name)
    champion = None if present in (None, model.artifact.version) else read_model(artifacts, name, present)[1]
    own = read_model(artifacts, name, model.artifact.version)[1]
    evaluated = method.evaluate(read_prepared(features, method), own, champion)
    draft = Draft(
        kind="scorecard",
        name=name,
        files={SCORES_FILE: json.dumps(evaluated.scores, indent=1).encode(), **evaluated.files},
        parents=(model.artifact,),
        facts={
            "inputs": inputs_digest(features, training),
            "champion": present,
            "words": list(evaluated.words),
            "promote": evaluated.decision.promote,
            "verdict": evaluated.decision.reason,
        },
        provenance=provenance(source=features.snapshot.source, seed=training.seed),
    )
    ref = artifacts.put(draft).ref
    get_run_logger().info("%s: %s", ref, evaluated.words[1])
    return Scorecard(
        artifact=ref,
        model=model,
        scores=evaluated.scores,
        words=evaluated.words,
        promote=evaluated.decision.promote,
        verdict=evaluated.decision.reason,
    )
