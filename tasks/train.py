"""Train a challenger: features, scalers, network and scorecard, each as a version made from the one before.

    snapshot -> features -> scaler -> model -> scorecard, with the decision about promotion

A challenger, its predecessors and the baselines are scored on the same held-out rows. It forecasts under a name only if
it serves every ticker that the champion of that name serves. The best version that ever took the place stands in the
scorecard of the one that took it last, and is compared with as well.
"""

import json
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any

from prefect import get_run_logger, task
from pydantic import JsonValue

from volcast.models.comparisons import BEST, CHAMPION, Contest, Predecessor
from volcast.models.forecasters import MODEL
from volcast.models.recipes import settings
from volcast.models.text import listed
from volcast.models.weights import choose_device, describe_device, to_bytes
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.prices import PriceTable
from volcast.storage.records import FeatureSet, FittedScaler, ModelVersion, Scorecard, Snapshot
from volcast.storage.staging import StoredCheckpoint
from volcast.storage.store import Store, open_store
from volcast.tasks.forecast import trust_in
from volcast.tasks.gate import inputs_digest
from volcast.tasks.methods.method import Hardware
from volcast.tasks.preflight import retirements
from volcast.tasks.run_tools import TimeLeft, progress
from volcast.tasks.settings import RetrainSettings, TrainingSettings, WatchSettings
from volcast.tasks.snapshot import prepare, read_prepared, remember
from volcast.tasks.stored_models import (
    MODEL_FILE,
    SCALER_FILE,
    SCORES_FILE,
    champion_version,
    features_of,
    features_record,
    find_champion,
    model_record,
    newest_scorecard,
    read_model,
    read_or_fault,
    reader,
    require_own_name,
    scaler_record,
    scorecard_record,
    store_version,
    stored_method,
    trained_through,
    universe,
)


def untrained(snapshot: Snapshot, training: TrainingSettings, *, replace: bool) -> TrainingSettings | None:
    """The settings by which pretrained weights forecast as they are, before the first version of a model.

    With `replace` also where such weights are the champion, and newer ones were never tried. None where there are none
    for it, they have seen the sessions that they would be tested on, or are newer ones that cannot be tested.
    """
    method, artifacts = training.method(), ArtifactStore(open_store(snapshot.store))
    name, tried = method.model_name(snapshot.tickers), date.min
    if is_replacing := bool(artifacts.versions("model", name)):
        tried = _weights_tried(artifacts, name) if replace else date.max
    changed = method.untrained(snapshot.cutoff, newer_than=tried)
    if changed is None:
        return None
    found = training.model_copy(update={"settings": {**training.settings, **changed}, "force": False})
    method = found.method()
    prepared = prepare(snapshot, method)
    is_new = (method.pretrained_through(prepared) or date.min) > tried
    return found if is_new and (method.is_testable(prepared) or not is_replacing) else None


def _weights_tried(artifacts: ArtifactStore, name: str) -> date:
    """The last session that pretrained weights know of those that were tried as they are.

    That is date.max, which no weights know more than, where a model that was trained is the champion, or none is.
    """

    def known(version: int) -> date:
        if stored_method(artifacts, name, version).trains:
            return date.min
        return date.fromisoformat(features_of(artifacts, name, version).fact("pretrained_through"))

    champion, _ = read_or_fault(partial(champion_version, artifacts, name))
    if champion is None or (read_or_fault(partial(known, champion))[0] or date.min) == date.min:
        return date.max
    return max(read_or_fault(partial(known, each))[0] or date.min for each in artifacts.versions("model", name))


def is_testable(features: FeatureSet, training: TrainingSettings) -> bool:
    """Whether a model of these features can be scored on sessions that are held back."""
    method = training.method()
    return method.is_testable(read_prepared(features, method))


@task(task_run_name="build {training.recipe} features")
def build_features(snapshot: Snapshot, training: TrainingSettings) -> FeatureSet:
    """Features of the snapshot as a version. Raises NotEnoughSessions, IncompletePrices, UnknownRecipe."""
    method, artifacts = training.method(), ArtifactStore(open_store(snapshot.store))
    name = method.model_name(snapshot.tickers)
    require_own_name(artifacts, name, method)
    prepared = prepare(snapshot, method)
    files, described = method.describe(prepared)
    facts: dict[str, JsonValue] = {
        "tickers": list(snapshot.tickers),
        "first_session": str(snapshot.first_session),
        "cutoff": str(snapshot.cutoff),
        "snapshot_rows": snapshot.rows,
        **described,
    }
    stored = store_version(snapshot, ("features", name), files=files, parents=(snapshot.prices,), facts=facts)
    features = features_record(stored, snapshot)
    remember(features, prepared)
    counts = (features.rows, features.train_rows, features.rows - features.train_rows)
    get_run_logger().info("%s: %d rows, %d train and %d test, up to %s", stored.ref, *counts, snapshot.cutoff)
    return features


@task(task_run_name="fit scalers on {training.fit_scalers_on} rows")
def fit_scaler(features: FeatureSet, training: TrainingSettings) -> FittedScaler:
    """The recipe's scaler, as float64 buffers."""
    method = training.method()
    stored = store_version(
        features.snapshot,
        ("scaler", features.artifact.name),
        files={SCALER_FILE: to_bytes(method.scaler(read_prepared(features, method)))},
        parents=(features.artifact,),
        facts={"fitted_on": training.fit_scalers_on},
    )
    get_run_logger().info("%s: fitted on %s rows", stored.ref, training.fit_scalers_on)
    return scaler_record(stored, features)


@task(
    task_run_name="train {training.recipe} on {scaler.features.train_rows} rows",
    tags=["gpu"],  # for a concurrency limit of that name on the server, where trainings share a GPU
)
def train_model(scaler: FittedScaler, training: TrainingSettings) -> ModelVersion:
    """The trained network as a version; one that was stopped, or could not be stored, goes on from where it was.

    Raises DeviceUnavailable, TrainingDiverged, StoreNotWritable.
    """
    log, method, device = get_run_logger(), training.method(), choose_device(training.device)
    features, store = scaler.features, open_store(scaler.features.snapshot.store, writable=True)
    artifacts, name = ArtifactStore(store), scaler.artifact.name
    prepared = read_prepared(features, method)
    for line in method.shapes(prepared):
        log.info("%s", line)
    epochs = method.epochs(prepared)
    time_left = TimeLeft()
    with progress("training", log) as advance:

        def on_epoch(epoch: int, loss: float) -> None:
            done = method.done(epoch)
            left = time_left.words(done, epochs)
            line = f"{method.progress_words(epoch, epochs)}, loss: {loss:.5f}{left}"
            advance(line, completed=done, total=epochs, words=f"loss {loss:.5f}{left}")

        def on_resume(epoch: int) -> None:
            log.info(
                "This training was stopped before, and resumes from its checkpoint: %s",
                method.progress_words(epoch, epochs),
            )

        inputs = inputs_digest(features, training)
        checkpoint = StoredCheckpoint(store=store, name=name, inputs=inputs, warn=log.warning)
        hardware = Hardware(
            seed=training.seed, device=device, on_epoch=on_epoch, on_resume=on_resume, checkpoint=checkpoint
        )
        fitted = method.train(prepared, reader(artifacts, scaler.artifact)(SCALER_FILE), hardware)
    log.info("%s", fitted.summary)
    known = len(artifacts.versions("model", name))
    stored = store_version(
        features.snapshot,
        ("model", name),
        files={MODEL_FILE: to_bytes(fitted.module)},
        parents=(scaler.artifact,),
        facts={
            "recipe": settings(method.recipe),
            "seed": training.seed,
            "device": describe_device(device),
            "losses": [[epoch, loss] for epoch, loss in fitted.losses],
            "final_loss": fitted.final_loss,
        },
        seed=training.seed,
    )
    checkpoint.clear()
    reused = len(artifacts.versions("model", name)) == known
    log.info(
        "%s: final loss %.5f after %.1f s on %s%s",
        *(stored.ref, fitted.final_loss, fitted.seconds, describe_device(device)),
        " (the weights that it had before, bit for bit)" if reused else "",
    )
    return model_record(stored, scaler, reused=reused)


LAST_CALLS = 10  # sessions, two weekly retrainings: before it is too old to forecast, a champion gives way


@task(task_run_name="evaluate {model.artifact}")
def evaluate_model(model: ModelVersion, training: TrainingSettings, why: RetrainSettings) -> Scorecard:
    """The scorecard as a version, with the decision about promotion in it."""
    features, name, method = model.features, model.artifact.name, training.method()
    store = open_store(model.snapshot.store)
    artifacts = ArtifactStore(store)
    entry = artifacts.alias("model", name, CHAMPION)
    versions = _versions(artifacts, model, entry.version if entry else None)
    own = read_model(artifacts, name, model.artifact.version)[1]
    evaluated = method.evaluate(read_prepared(features, method), own, contest_of(store, model, versions, why))
    stored = store_version(
        model.snapshot,
        ("scorecard", name),
        files={SCORES_FILE: json.dumps(evaluated.scores, indent=1).encode(), **evaluated.files},
        parents=(model.artifact,),
        facts={
            "inputs": inputs_digest(features, training),
            "champion": entry.version if entry else None,
            "champion_move": entry.number if entry else 0,
            "best": versions[evaluated.decision.best or MODEL],
            "words": list(evaluated.words),
            "promote": evaluated.decision.promote,
            "verdict": evaluated.decision.reason,
        },
        seed=training.seed,
    )
    get_run_logger().info("%s: %s", stored.ref, evaluated.words[1])
    return scorecard_record(artifacts, stored, model)


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


def predecessor(artifacts: ArtifactStore, name: str, version: int) -> Predecessor:
    """A stored version, as a challenger meets it. Raises NotStored, Corrupt, WrongWeights."""
    features = features_of(artifacts, name, version)
    return Predecessor(
        predictor=read_model(artifacts, name, version)[1],
        tickers=tuple(features.fact("tickers")),
        trained_through=trained_through(artifacts, features),
    )


def contest_of(store: Store, model: ModelVersion, versions: dict[str, int], why: RetrainSettings) -> Contest:
    """What a challenger is held against, but for tickers that are retired; nothing where there is no champion."""
    if CHAMPION not in versions:
        return Contest(margin=why.margin)
    artifacts, name, snapshot = ArtifactStore(store), model.artifact.name, model.snapshot
    retired = retirements(store).keys() - set(snapshot.tickers)
    rivals = {rival: versions[rival] for rival in (CHAMPION, BEST) if rival in versions}
    served, _ = read_or_fault(partial(universe, artifacts, name, rivals[CHAMPION]))
    if served is None:
        served = PriceTable(store).tickers(snapshot.prices.version)
    lacking = sorted(set(served) - retired - set(snapshot.tickers))
    if lacking:
        bar = (
            f"it was not made of {listed(lacking)}, which the champion v{versions[CHAMPION]} serves; a model of fewer "
            "tickers needs a name of its own: --name"
        )
        return Contest(bar=bar)
    known = {rival: read_or_fault(partial(predecessor, artifacts, name, each))[0] for rival, each in rivals.items()}
    in_use = {
        rival: replace(each, tickers=tuple(ticker for ticker in each.tickers if ticker not in retired))
        for rival, each in known.items()
        if each
    }
    predecessors = {rival: each for rival, each in in_use.items() if set(each.tickers) <= set(snapshot.tickers)}
    return Contest(predecessors=predecessors, margin=why.margin, gives_way=_gives_way(store, model))


def _gives_way(store: Store, model: ModelVersion) -> str:
    """Why the champion does not forecast, or is too old, or soon will be; empty where it defends its place."""
    name, cutoff, artifacts = model.artifact.name, model.snapshot.cutoff, ArtifactStore(store)
    champion = find_champion(artifacts, name, load=True)
    if champion.fault or not stored_method(artifacts, name, model.artifact.version).horizon:
        return champion.fault
    watch = WatchSettings()
    soon = watch.model_copy(update={"max_model_age": watch.max_model_age - LAST_CALLS})
    trust = trust_in(store, name, champion, cutoff, cutoff)
    return trust.why_not(soon) or trust.too_old(soon)
