"""Turn the prices of a snapshot into what the recipe looks at."""

from prefect import get_run_logger, task

from models.features import build_features as features_of
from models.features import rows
from models.recipes import TutorialRecipe
from storage.artifacts import ArtifactStore, Draft
from storage.records import FeatureSet, Snapshot
from storage.store import open_store
from tasks.provenance import provenance
from tasks.settings import TrainingSettings
from tasks.stored import FEATURES_FILE, to_parquet
from tasks.take_snapshot import read_prices


def model_name(recipe: TutorialRecipe, tickers: tuple[str, ...]) -> str:
    """The registered name of a recipe's model of one ticker: `tutorial.SBUX`."""
    if len(tickers) != 1:
        raise ValueError(
            f"The {recipe.name} recipe trains one ticker a model; {', '.join(tickers)} came. Start one run for each."
        )
    return f"{recipe.name}.{tickers[0]}"


@task(task_run_name="build {training.recipe} features")
def build_features(snapshot: Snapshot, training: TrainingSettings) -> FeatureSet:
    """Features of the snapshot as a version. Raises NotEnoughSessions, IncompletePrices."""
    store, recipe = open_store(snapshot.store), training.make()
    frame = features_of(read_prices(store, snapshot), recipe)
    train_rows, first, last = (
        len(rows(frame, "train")),
        frame["session"].iloc[0].date(),
        frame["session"].iloc[-1].date(),
    )
    draft = Draft(
        kind="features",
        name=model_name(recipe, snapshot.tickers),
        files={FEATURES_FILE: to_parquet(frame)},
        parents=(snapshot.prices,),
        facts={
            "tickers": list(snapshot.tickers),
            "first_session": str(snapshot.first_session),
            "cutoff": str(snapshot.cutoff),
            "snapshot_rows": snapshot.rows,
            "rows": len(frame),
            "train_rows": train_rows,
        },
        provenance=provenance(source=snapshot.source),
    )
    ref = ArtifactStore(store).put(draft).ref
    get_run_logger().info(
        "%s: %d sessions %s to %s, %d train and %d test",
        ref,
        len(frame),
        first,
        last,
        train_rows,
        len(frame) - train_rows,
    )
    return FeatureSet(artifact=ref, snapshot=snapshot, rows=len(frame), train_rows=train_rows)
