"""Train the recipe's network, as a version that carries its scaler."""

from prefect import get_run_logger, task

from models.devices import choose_device, describe_device
from models.recipes import settings
from models.weights import to_bytes
from storage.artifacts import ArtifactStore, Draft
from storage.checkpoints import StoredCheckpoint
from storage.records import FittedScaler, ModelVersion
from storage.store import open_store
from tasks.find_trained import inputs_digest
from tasks.methods.protocol import Hardware
from tasks.prepared import read_prepared
from tasks.progress import progress
from tasks.provenance import provenance
from tasks.settings import TrainingSettings
from tasks.stored import MODEL_FILE, SCALER_FILE, reader


@task(
    task_run_name="train {training.recipe} on {scaler.features.train_rows} rows",
    tags=["gpu"],  # for a concurrency limit of that name on the server, where trainings share a GPU
)
def train_model(scaler: FittedScaler, training: TrainingSettings) -> ModelVersion:
    """The trained network as a version; one that was stopped goes on from where it was.

    Raises DeviceUnavailable, TrainingDiverged.
    """
    log, method, device = get_run_logger(), training.method(), choose_device(training.device)
    features, store = scaler.features, open_store(scaler.features.snapshot.store, writable=True)
    artifacts, name = ArtifactStore(store), scaler.artifact.name
    prepared = read_prepared(features, method)
    for line in method.shapes(prepared):
        log.info("%s", line)
    with progress("training", log) as advance:

        def on_epoch(epoch: int, loss: float) -> None:
            done, line = min(epoch + 1, method.epochs), f"{method.epoch_name}: {epoch}, loss: {loss:.5f}"
            advance(line, completed=done, total=method.epochs, words=f"loss {loss:.5f}")

        checkpoint = StoredCheckpoint(store=store, name=name, inputs=inputs_digest(features, training))
        hardware = Hardware(seed=training.seed, device=device, on_epoch=on_epoch, checkpoint=checkpoint)
        fitted = method.train(prepared, method.load_scaler(reader(artifacts, scaler.artifact)(SCALER_FILE)), hardware)
    log.info("%s", fitted.summary)
    draft = Draft(
        kind="model",
        name=name,
        files={MODEL_FILE: to_bytes(fitted.module)},
        parents=(scaler.artifact,),
        facts={
            "recipe": settings(method.recipe),
            "seed": training.seed,
            "device": describe_device(device),
            "losses": [[epoch, loss] for epoch, loss in fitted.losses],
            "final_loss": fitted.final_loss,
        },
        provenance=provenance(source=features.snapshot.source, seed=training.seed),
    )
    known = len(artifacts.versions("model", name))
    ref = artifacts.put(draft).ref
    reused = len(artifacts.versions("model", name)) == known
    log.info(
        "%s: final loss %.5f after %.1f s on %s%s",
        *(ref, fitted.final_loss, fitted.seconds, describe_device(device)),
        " (the weights that it had before, bit for bit)" if reused else "",
    )
    return ModelVersion(
        artifact=ref,
        scaler=scaler,
        recipe=method.recipe.name,
        device=describe_device(device),
        final_loss=fitted.final_loss,
        reused=reused,
    )
