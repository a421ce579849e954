"""Score what came true, and say how prices, champion and forecasts stand.

prices -> scores -> drift -> health -> status
"""

from prefect import flow

from storage.health import Health
from tasks.check_health import check_health
from tasks.daily_run import ended_look
from tasks.measure_drift import measure_drift
from tasks.publish_status import publish_status
from tasks.score_forecasts import score_forecasts
from tasks.settings import DataSettings, TrainingSettings, WatchSettings
from tasks.take_snapshot import take_snapshot

WATCH = WatchSettings()


@flow(flow_run_name="monitor {training.recipe} {data.day}")
def monitor(data: DataSettings, training: TrainingSettings, watch: WatchSettings = WATCH) -> Health:
    """Look at everything that an operator must know; the run's status artifact and final state say it."""
    snapshot = take_snapshot(data)

    score_forecasts(snapshot)
    drift = measure_drift(snapshot, training, watch)

    health = check_health(data, training, watch, drift)
    publish_status(health)
    return ended_look(health)
