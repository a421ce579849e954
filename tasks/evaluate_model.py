"""Score a new model, its predecessors and the baselines on the same held-out rows, and decide.

A version forecasts under a name only if it serves every ticker that the champion of that name serves. The best version
that ever took the place stands in the scorecard of the one that took it last, and is compared with as well.
"""

import json
from typing import Any

from prefect import get_run_logger, task

from models.evaluation import MODEL
from models.promotion import BEST, CHAMPION, Contest, Predecessor
from models.words import listed
from storage.artifacts import ArtifactStore, Draft
from storage.records import ModelVersion, Scorecard
from storage.store import Store, open_store
from tasks.choose_forecaster import trust_in
from tasks.find_trained import inputs_digest
from tasks.prepared import read_prepared
from tasks.provenance import provenance
from tasks.settings import RetrainSettings, TrainingSettings, WatchSettings
from tasks.stored import (
    SCORES_FILE,
    newest_scorecard,
    read_model,
    stored_method,
    trained_through,
    universe,
)

LAST_CALLS = 10  # sessions, two weekly retrainings: before it is too old to forecast, a champion gives way


@task(task_run_name="evaluate {model.artifact}")
def evaluate_model(model: ModelVersion, training: TrainingSettings, why: RetrainSettings) -> Scorecard:
    """The scorecard as a version, with the decision about promotion in it."""
    features, name, method = model.scaler.features, model.artifact.name, training.method()
    store = open_store(features.snapshot.store, writable=True)
    artifacts = ArtifactStore(store)
    entry = artifacts.alias("model", name, CHAMPION)
    present = entry.version if entry else None
    versions = _versions(artifacts, model, present)
    own = read_model(artifacts, name, model.artifact.version)[1]
    evaluated = method.evaluate(read_prepared(features, method), own, _contest(store, model, versions, why))
    best = versions[evaluated.decision.best or MODEL]
    draft = Draft(
        kind="scorecard",
        name=name,
        files={SCORES_FILE: json.dumps(evaluated.scores, indent=1).encode(), **evaluated.files},
        parents=(model.artifact,),
        facts={
            "inputs": inputs_digest(features, training),
            "champion": present,
            "champion_move": entry.number if entry else 0,
            "best": best,
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
        champion=present,
        champion_move=entry.number if entry else 0,
    )


def _versions(artifacts: ArtifactStore, model: ModelVersion, champion: int | None) -> dict[str, int]:
    """MODEL, and CHAMPION and BEST where these are other versions.

    The champion, scored again, counts as the version that it was measured by: it must not become its own measure.
    """
    name, own = model.artifact.name, model.artifact.version
    if champion is None:
        return {MODEL: own}
    scorecard = newest_scorecard(artifacts, name, champion)
    best: Any = scorecard.facts.get("best", champion) if scorecard else champion
    if own == champion:
        return {MODEL: best}
    return {MODEL: own, CHAMPION: champion} | ({} if best in (own, champion) else {BEST: best})


def _contest(store: Store, model: ModelVersion, versions: dict[str, int], why: RetrainSettings) -> Contest:
    """What a challenger is held against; nothing where there is no champion."""
    if CHAMPION not in versions:
        return Contest(margin=why.margin)
    artifacts, name, snapshot = ArtifactStore(store), model.artifact.name, model.scaler.features.snapshot
    universes = {rival: universe(artifacts, name, versions[rival]) for rival in (CHAMPION, BEST) if rival in versions}
    lacking = sorted(set(universes[CHAMPION]) - set(snapshot.tickers))
    if lacking:
        bar = (
            f"it was not made of {listed(lacking)}, which the champion v{versions[CHAMPION]} serves; a model of fewer "
            "tickers needs a name of its own: --name"
        )
        return Contest(bar=bar)
    predecessors = {
        rival: Predecessor(
            predictor=read_model(artifacts, name, versions[rival])[1],
            tickers=tickers,
            trained_through=trained_through(artifacts, name, versions[rival]),
        )
        for rival, tickers in universes.items()
        if set(tickers) <= set(snapshot.tickers)
    }
    return Contest(predecessors=predecessors, margin=why.margin, gives_way=_gives_way(store, model))


def _gives_way(store: Store, model: ModelVersion) -> str:
    """Why har forecasts in the champion's place, or soon will; empty where it does not, or the recipe has no har."""
    name, cutoff = model.artifact.name, model.scaler.features.snapshot.cutoff
    if not stored_method(ArtifactStore(store), name, model.artifact.version).horizon:
        return ""
    watch = WatchSettings()
    soon = watch.model_copy(update={"max_model_age": watch.max_model_age - LAST_CALLS})
    return trust_in(store, name, cutoff, cutoff).why_not(soon)
