"""Let the new model forecast, if it earned the place."""

from prefect import get_run_logger, task

from storage.artifacts import ArtifactStore
from storage.records import Scorecard
from storage.store import open_store
from tasks.stored import CHAMPION, champion_version


@task(task_run_name="decide on {scorecard.model.artifact}")
def promote_model(scorecard: Scorecard) -> Scorecard:
    """Moves the champion's alias when the scorecard says so; a present champion stays without a new entry."""
    model = scorecard.model.artifact
    artifacts = ArtifactStore(open_store(scorecard.model.scaler.features.snapshot.store))
    if scorecard.promote and champion_version(artifacts, model.name) != model.version:
        artifacts.set_alias("model", model.name, CHAMPION, model.version, scorecard.verdict)
    get_run_logger().info("%s: %s", model, scorecard.verdict)
    return scorecard
