"""Store what the steps make, and read it back: frames, models, scorecards, and the records that lead to them."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, TypeVar, cast

import pandas as pd
from pydantic import JsonValue

from volcast.models.errors import ModelError, UnknownRecipe
from volcast.models.plugins import is_installed
from volcast.models.recipes import Recipe, stored_recipe
from volcast.models.text import listed
from volcast.storage.artifacts import ArtifactStore, Draft, from_parquet
from volcast.storage.errors import Corrupt, NotStored, StoreError, StoreUnreachable
from volcast.storage.records import (
    PRICES_KNOWN,
    ArtifactRef,
    FeatureSet,
    FittedScaler,
    Manifest,
    ModelVersion,
    Scorecard,
    Snapshot,
)
from volcast.storage.store import open_store
from volcast.tasks.methods.method import Method, ReadFile, method_of

CHAMPION, HELD, REFUSED = "champion", "held", "refused"  # aliases of models: forecasts; waits for a person's answer
FEATURES_FILE = "features.parquet"
SCALER_FILE = "scaler.safetensors"
MODEL_FILE = "model.safetensors"
SCORES_FILE = "scores.json"
FORECAST_FILE = "forecast.parquet"

Result = TypeVar("Result")


def store_version(
    snapshot: Snapshot,
    place: tuple[str, str],
    *,
    files: Mapping[str, bytes],
    parents: tuple[ArtifactRef, ...],
    facts: Mapping[str, JsonValue],
    seed: int | None = None,
) -> Manifest:
    """A step's result, of a kind and name, as the next version in the snapshot's store; the newest, if it is the same.

    Raises Corrupt, VersionConflict.
    """
    from volcast.tasks.run_tools import emit_lineage, provenance  # with prefect, which what only reads does without

    kind, name = place
    made_by = provenance(source=snapshot.source, seed=seed)
    known = {} if snapshot.prices_known is None else {PRICES_KNOWN: snapshot.prices_known}
    draft = Draft(kind=kind, name=name, files=files, parents=parents, facts={**facts, **known}, provenance=made_by)
    stored = ArtifactStore(open_store(snapshot.store, writable=True)).put(draft)
    emit_lineage(snapshot.store, stored.ref, inputs=parents, made=stored.created_at)
    return stored


def read_or_fault(read: Callable[[], Result]) -> tuple[Result | None, str]:
    """What is read of the store, or else why it cannot be used. Raises StoreUnreachable, which says nothing of that."""
    try:
        return read(), ""
    except StoreUnreachable:
        raise
    except (StoreError, ModelError) as error:
        return None, str(error)


def reader(artifacts: ArtifactStore, ref: ArtifactRef) -> ReadFile:
    """What reads a file of a version, checked. Raises NotStored, Corrupt."""
    manifest = artifacts.get(ref.kind, ref.name, ref.version)
    return lambda file_name: artifacts.read(manifest, file_name)


def read_frame(artifacts: ArtifactStore, ref: ArtifactRef, file_name: str) -> pd.DataFrame:
    """A Parquet file of a version, checked. Raises NotStored, Corrupt."""
    return from_parquet(reader(artifacts, ref)(file_name))


def stored_method(artifacts: ArtifactStore, name: str, version: int | None = None) -> Method:
    """The method of `recipe_of`. Raises NotStored, Corrupt, UnknownRecipe."""
    return method_of(recipe_of(artifacts, name, version))


def recipe_of(artifacts: ArtifactStore, name: str, version: int | None = None) -> Recipe:
    """The recipe that a model was made by, by default the newest version's.

    Raises NotStored, Corrupt, and UnknownRecipe, which names the packages that it was made with and that are gone.
    """
    manifest = artifacts.get("model", name, version)
    try:
        return stored_recipe(manifest.fact("recipe"))
    except UnknownRecipe as error:
        gone = [package for package in manifest.provenance.packages if not is_installed(package)]
        made_with = f" {name} v{manifest.version} was made with {listed(gone)}." if gone else ""
        raise UnknownRecipe(f"{error}{made_with}") from error


def require_own_name(artifacts: ArtifactStore, name: str, method: Method) -> None:
    """Raises UnknownRecipe where models of another recipe go by that name."""
    stored, _ = read_or_fault(partial(stored_method, artifacts, name))
    if stored and stored.recipe.name != method.recipe.name:
        known = f"{name} is the name of models of the recipe {stored.recipe.name}"
        raise UnknownRecipe(f"{known}; those of {method.recipe.name} need another: --name")


def read_model(artifacts: ArtifactStore, name: str, version: int | None) -> tuple[Method, Any]:
    """A stored model, checked, and the method that asks it. Raises NotStored, Corrupt, WrongWeights."""
    method = stored_method(artifacts, name, version)
    return method, method.load(_weights(artifacts, name, version))


def _recipe_and_weights(artifacts: ArtifactStore, name: str, version: int | None) -> tuple[Recipe, bytes]:
    return recipe_of(artifacts, name, version), _weights(artifacts, name, version)


def _weights(artifacts: ArtifactStore, name: str, version: int | None) -> bytes:
    return artifacts.read(artifacts.get("model", name, version), MODEL_FILE)


def universe(artifacts: ArtifactStore, name: str, version: int | None = None) -> tuple[str, ...]:
    """The tickers that a stored model was made of, by default the newest version. Raises NotStored, Corrupt."""
    return tuple(features_of(artifacts, name, version).fact("tickers"))


def trained_through(artifacts: ArtifactStore, features: Manifest) -> date:
    """The last session that a model made of these stored features has seen. Raises NotStored, Corrupt."""
    if "train_through" in features.facts:
        return date.fromisoformat(features.fact("train_through"))
    rows = read_frame(artifacts, features.ref, FEATURES_FILE)  # the tutorial's, whose frame says it
    return rows.loc[rows["role"] == "train", "session"].max().date()


def features_of(artifacts: ArtifactStore, name: str, version: int | None) -> Manifest:
    """The features that a stored model was made of. Raises NotStored, Corrupt."""
    return _parent(artifacts, _parent(artifacts, artifacts.get("model", name, version)))


def newest_scorecard(artifacts: ArtifactStore, name: str, version: int) -> Manifest | None:
    """The newest scorecard of a version of a model that can be read; None where there is none."""
    for number in reversed(artifacts.versions("scorecard", name)):
        manifest, _ = read_or_fault(partial(artifacts.get, "scorecard", name, number))
        if manifest and manifest.parent.version == version:
            return manifest
    return None


def champion_version(artifacts: ArtifactStore, name: str) -> int | None:
    """The version that forecasts, or None before the first. Raises Corrupt."""
    try:
        entry = artifacts.alias("model", name, CHAMPION)
    except Corrupt as error:
        raise Corrupt(
            f"It cannot be read which version of {name} forecasts. Restore the file from a backup, or say it anew: "
            f"volcast models promote {name} --version N --reason … ({error})"
        ) from error
    return entry.version if entry else None


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The version that forecasts, as far as it can be read."""

    version: int | None = None  # None before the first, and where it cannot be read which one it is
    model: ModelVersion | None = None  # None where it cannot forecast
    fault: str = ""  # why it cannot, in a clause; empty before the first


def find_champion(artifacts: ArtifactStore, name: str, *, load: bool = False) -> Champion:
    """The champion, its files checked; with `load` its weights must fit this release, too, which takes torch.

    Raises StoreUnreachable.
    """
    version, fault = read_or_fault(partial(champion_version, artifacts, name))
    if version is None:
        return Champion(fault=fault.rstrip("."))
    check = read_model if load else _recipe_and_weights
    _, fault = read_or_fault(partial(check, artifacts, name, version))
    model, unknown = read_or_fault(partial(forecasting_version, artifacts, artifacts.url, name, version))
    if fault := unknown or fault:
        return Champion(version=version, fault=f"model {name} v{version} cannot be used: {fault.rstrip('.')}")
    return Champion(version=version, model=model)


def champion_moved(artifacts: ArtifactStore, scorecard: Scorecard) -> str:
    """Why a scorecard says nothing of the present champion; empty where it does, or the version forecasts already."""
    model = scorecard.model.artifact
    entry = artifacts.alias("model", model.name, CHAMPION)
    number, present = (entry.number, entry.version) if entry else (0, None)
    is_same = present == scorecard.champion if scorecard.champion_move is None else number == scorecard.champion_move
    if entry is None or is_same or present == model.version:
        return ""
    then = f"the champion v{scorecard.champion}" if scorecard.champion else "no champion beside it"
    return (
        f"{model} was scored with {then}; since {entry.set_at:%Y-%m-%d %H:%M} UTC v{present} forecasts "
        f"({entry.reason}). Score it again with: volcast retrain --force; or decide by: "
        f"volcast models promote {model.name} --version {model.version} --reason …"
    )


def decided_versions(artifacts: ArtifactStore, name: str) -> set[int]:
    """The versions that were promoted, are held for an answer, or were refused."""
    return {entry.version for alias in (CHAMPION, HELD, REFUSED) for entry in artifacts.history("model", name, alias)}


def forecasting_version(
    artifacts: ArtifactStore, store_url: str, name: str, version: int | None = None
) -> ModelVersion:
    """A version of the model of this name, by default the one that forecasts. Raises NotStored when there is none."""
    version = version or champion_version(artifacts, name)
    if version is None:
        raise NotStored(
            f"No version of the model {name} forecasts in {store_url}. Train one with: volcast run, or volcast retrain"
        )
    return model_version(artifacts, store_url, artifacts.get("model", name, version))


def model_version(artifacts: ArtifactStore, store_url: str, manifest: Manifest) -> ModelVersion:
    """The record of a stored model, with those before it down to the prices."""
    scaler = _parent(artifacts, manifest)
    features = _parent(artifacts, scaler)
    source = features.provenance.source
    snapshot = Snapshot(
        store=store_url,
        prices=features.parent,
        source=source,
        simulated=source.startswith("simulated"),
        tickers=features.fact("tickers"),
        first_session=date.fromisoformat(features.fact("first_session")),
        cutoff=date.fromisoformat(features.fact("cutoff")),
        rows=features.fact("snapshot_rows"),
        prices_known=cast(int | None, features.facts.get(PRICES_KNOWN)),
    )
    return model_record(manifest, scaler_record(scaler, features_record(features, snapshot)))


def features_record(manifest: Manifest, snapshot: Snapshot) -> FeatureSet:
    """The record of stored features of a snapshot."""
    counts = {name: manifest.fact(name) for name in ("rows", "train_rows")}
    pretrained = cast(str, manifest.facts.get("pretrained", ""))  # 0.1.0 has none
    return FeatureSet(artifact=manifest.ref, snapshot=snapshot, pretrained=pretrained, **counts)


def scaler_record(manifest: Manifest, features: FeatureSet) -> FittedScaler:
    """The record of a stored scaler of these features."""
    return FittedScaler(artifact=manifest.ref, features=features, fitted_on=manifest.fact("fitted_on"))


def model_record(manifest: Manifest, scaler: FittedScaler, *, reused: bool = False) -> ModelVersion:
    """The record of a stored model with this scaler."""
    facts = {name: manifest.fact(name) for name in ("device", "final_loss")}
    recipe = manifest.fact("recipe")["name"]
    return ModelVersion(artifact=manifest.ref, scaler=scaler, recipe=recipe, reused=reused, **facts)


def scorecards(artifacts: ArtifactStore, name: str) -> Iterator[Scorecard]:
    """Those of a model that can be read, newest first. Raises StoreUnreachable."""
    for version in reversed(artifacts.versions("scorecard", name)):
        scorecard, _ = read_or_fault(partial(scorecard_of, artifacts, name, version))
        if scorecard:
            yield scorecard


def scorecard_of(artifacts: ArtifactStore, name: str, version: int) -> Scorecard:
    """The record of a stored scorecard and of its model, whose file is checked. Raises NotStored, Corrupt."""
    manifest = artifacts.get("scorecard", name, version)
    model = _parent(artifacts, manifest)
    artifacts.read(model, MODEL_FILE)
    return scorecard_record(artifacts, manifest, model_version(artifacts, artifacts.url, model))


def scorecard_record(artifacts: ArtifactStore, manifest: Manifest, model: ModelVersion) -> Scorecard:
    """The record of a stored scorecard of this model."""
    facts = {name: manifest.fact(name) for name in ("words", "promote", "verdict", "champion")}
    return Scorecard(
        artifact=manifest.ref,
        model=model,
        scores=json.loads(artifacts.read(manifest, SCORES_FILE)),
        champion_move=cast(int | None, manifest.facts.get("champion_move")),  # 0.1.0 has none
        **facts,
    )


def _parent(artifacts: ArtifactStore, manifest: Manifest) -> Manifest:
    ref = manifest.parent
    return artifacts.get(ref.kind, ref.name, ref.version)
