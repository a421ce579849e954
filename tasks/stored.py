"""Read back what the steps stored: frames, scalers, models, scorecards, and the records that lead to them."""

import io
import json
from datetime import date
from typing import Any

import pandas as pd

from models.evaluation import MODEL
from models.lstm import Nowcaster, from_bytes
from models.metrics import format_shares
from models.recipes import TutorialRecipe, make_recipe
from models.scaling import Scaler
from models.weights import load_exactly
from storage.artifacts import ArtifactStore
from storage.errors import NotStored
from storage.records import ArtifactRef, FeatureSet, FittedScaler, Manifest, ModelVersion, Scorecard, Snapshot

CHAMPION = "champion"
FEATURES_FILE = "features.parquet"
SCALER_FILE = "scaler.safetensors"
MODEL_FILE = "model.safetensors"
SCORES_FILE = "scores.json"
FORECAST_FILE = "forecast.parquet"


def read_frame(artifacts: ArtifactStore, ref: ArtifactRef, file_name: str) -> pd.DataFrame:
    """A Parquet file of a version, checked. Raises NotStored, Corrupt."""
    return pd.read_parquet(io.BytesIO(artifacts.read(artifacts.get(ref.kind, ref.name, ref.version), file_name)))


def to_parquet(frame: pd.DataFrame) -> bytes:
    """A frame as Parquet bytes; the same frame gives the same bytes."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def read_scaler(artifacts: ArtifactStore, scaler: FittedScaler, recipe: TutorialRecipe) -> Scaler:
    """A stored scaler, checked. Raises NotStored, Corrupt, WrongWeights."""
    ref = scaler.artifact
    return load_exactly(
        Scaler(len(recipe.features)), artifacts.read(artifacts.get(ref.kind, ref.name, ref.version), SCALER_FILE)
    )


def read_nowcaster(artifacts: ArtifactStore, name: str, version: int) -> tuple[Nowcaster, TutorialRecipe]:
    """A stored model, checked, and the recipe that it was made by. Raises NotStored, Corrupt, WrongWeights."""
    manifest = artifacts.get("model", name, version)
    facts: dict[str, Any] = manifest.facts
    recipe = make_recipe(**facts["recipe"])
    return from_bytes(artifacts.read(manifest, MODEL_FILE), recipe), recipe


def champion_version(artifacts: ArtifactStore, name: str) -> int | None:
    """The version that forecasts, or None before the first."""
    entry = artifacts.alias("model", name, CHAMPION)
    return entry.version if entry else None


def champion(artifacts: ArtifactStore, store_url: str, name: str) -> ModelVersion:
    """The model that forecasts under this name. Raises NotStored when there is none."""
    version = champion_version(artifacts, name)
    if version is None:
        raise NotStored(
            f"No model {name} has been trained in {store_url}. Train one with: volcast run, or volcast retrain"
        )
    return model_version(artifacts, store_url, artifacts.get("model", name, version))


def model_version(artifacts: ArtifactStore, store_url: str, manifest: Manifest) -> ModelVersion:
    """The record of a stored model, with those before it down to the prices."""
    scaler = _parent(artifacts, manifest)
    features = _parent(artifacts, scaler)
    facts: dict[str, Any] = features.facts
    source = features.provenance.source
    snapshot = Snapshot(
        store=store_url,
        prices=features.parents[0],
        source=source,
        simulated=source.startswith("simulated"),
        tickers=facts["tickers"],
        first_session=date.fromisoformat(facts["first_session"]),
        cutoff=date.fromisoformat(facts["cutoff"]),
        rows=facts["snapshot_rows"],
    )
    feature_set = FeatureSet(
        artifact=features.ref, snapshot=snapshot, rows=facts["rows"], train_rows=facts["train_rows"]
    )
    fitted = FittedScaler(artifact=scaler.ref, features=feature_set, fitted_on=str(scaler.facts["fitted_on"]))
    model_facts: dict[str, Any] = manifest.facts
    return ModelVersion(
        artifact=manifest.ref,
        scaler=fitted,
        recipe=model_facts["recipe"]["name"],
        device=model_facts["device"],
        final_loss=model_facts["final_loss"],
    )


def scorecard_of(artifacts: ArtifactStore, store_url: str, manifest: Manifest) -> Scorecard:
    """The record of a stored scorecard, with those before it."""
    facts: dict[str, Any] = manifest.facts
    return Scorecard(
        artifact=manifest.ref,
        model=model_version(artifacts, store_url, _parent(artifacts, manifest)),
        scores=json.loads(artifacts.read(manifest, SCORES_FILE)),
        words=facts["words"],
        promote=facts["promote"],
        verdict=facts["verdict"],
    )


def read_scores(artifacts: ArtifactStore, name: str) -> dict[int, str]:
    """Version of a model -> its RMSE for a reader, from the newest scorecard of each."""
    found: dict[int, str] = {}
    for version in artifacts.versions("scorecard", name):
        manifest = artifacts.get("scorecard", name, version)
        scores = json.loads(artifacts.read(manifest, SCORES_FILE))
        found[manifest.parents[0].version] = format_shares(scores[MODEL]["rmse_shares"])
    return found


def _parent(artifacts: ArtifactStore, manifest: Manifest) -> Manifest:
    ref = manifest.parents[0]
    return artifacts.get(ref.kind, ref.name, ref.version)
