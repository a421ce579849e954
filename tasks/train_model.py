"""Train the recipe's network, as a version that carries its scaler."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pandas as pd
from prefect import get_run_logger, task
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from models.devices import choose_device, describe_device
from models.features import rows, tensors
from models.lstm import as_sequences, summary
from models.recipes import TutorialRecipe, settings
from models.training import fit
from models.weights import to_bytes
from storage.artifacts import ArtifactStore, Draft
from storage.records import FittedScaler, ModelVersion
from storage.store import open_store
from tasks.provenance import provenance
from tasks.settings import TrainingSettings
from tasks.stored import FEATURES_FILE, MODEL_FILE, read_frame, read_scaler

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


@task(
    task_run_name="train {training.recipe} on {scaler.features.train_rows} rows",
    tags=["gpu"],  # for a concurrency limit of that name on the server, where trainings share a GPU
)
def train_model(scaler: FittedScaler, training: TrainingSettings) -> ModelVersion:
    """The trained network as a version. Raises DeviceUnavailable, TrainingDiverged."""
    log, recipe, device = get_run_logger(), training.make(), choose_device(training.device)
    artifacts = ArtifactStore(open_store(scaler.features.snapshot.store))
    frame = read_frame(artifacts, scaler.features.artifact, FEATURES_FILE)
    _log_shapes(frame, recipe, log)
    with _progress(recipe, log) as on_epoch:
        fitted = fit(
            frame,
            recipe,
            scaler=read_scaler(artifacts, scaler, recipe),
            seed=training.seed,
            device=device,
            on_epoch=on_epoch,
        )
    log.info("%s", summary(fitted.nowcaster.network))
    draft = Draft(
        kind="model",
        name=scaler.artifact.name,
        files={MODEL_FILE: to_bytes(fitted.nowcaster)},
        parents=(scaler.artifact,),
        facts={
            "recipe": settings(recipe),
            "seed": training.seed,
            "device": describe_device(device),
            "losses": [[epoch, loss] for epoch, loss in fitted.losses],
            "final_loss": fitted.final_loss,
        },
        provenance=provenance(source=scaler.features.snapshot.source, seed=training.seed),
    )
    known = len(artifacts.versions("model", draft.name))
    ref = artifacts.put(draft).ref
    reused = len(artifacts.versions("model", draft.name)) == known
    log.info(
        "%s: final loss %.5f after %.1f s on %s%s",
        *(ref, fitted.final_loss, fitted.seconds, describe_device(device)),
        " (the weights that it had before, bit for bit)" if reused else "",
    )
    return ModelVersion(
        artifact=ref,
        scaler=scaler,
        recipe=recipe.name,
        device=describe_device(device),
        final_loss=fitted.final_loss,
        reused=reused,
    )


def _log_shapes(frame: pd.DataFrame, recipe: TutorialRecipe, log: Log) -> None:
    """The shapes of inputs and target of both parts, as (rows, steps, features) and (rows, 1)."""
    for role, title in (("train", "Training"), ("test", "Testing")):
        x_NF, y_N1 = tensors(rows(frame, role), recipe)
        log.info("%s shape: %s %s", title, tuple(as_sequences(x_NF).shape), tuple(y_N1.shape))


@contextmanager
def _progress(recipe: TutorialRecipe, log: Log) -> Iterator[Callable[[int, float], None]]:
    """What to call with epoch and loss: a line each time, and on a terminal a bar below the lines."""
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
    bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
    epochs = bar.add_task("", total=recipe.epochs, words="")

    def on_epoch(epoch: int, loss: float) -> None:
        bar.stop()  # or the line would be written into the bar
        log.info("Epoch: %d, loss: %.5f", epoch, loss)
        bar.update(epochs, completed=epoch + 1, words=f"loss {loss:.5f}")
        if bar.console.is_terminal:
            bar.start()

    try:
        yield on_epoch
    finally:
        bar.stop()
