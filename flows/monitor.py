"""Score what came true, and say how prices, champion and forecasts stand.

prices -> scores -> drift -> health -> status
"""

from prefect import flow

from volcast.storage.records import Health
from volcast.tasks.monitor import WATCH, check_health, measure_drift, score_forecasts
from volcast.tasks.reports.publish import publish_models, publish_status
from volcast.tasks.runs import complete_monitoring
from volcast.tasks.settings import DataSettings, TrainingSettings, WatchSettings
from volcast.tasks.snapshot import take_snapshot


@flow(flow_run_name="monitor {training.recipe} {data.day}")
def monitor(data: DataSettings, training: TrainingSettings, watch: WatchSettings = WATCH) -> Health:
    """Look at everything that an operator must know; the run's status artifact and final state say it."""
    snapshot = take_snapshot(data)

    score_forecasts(snapshot)
    drift = measure_drift(snapshot, training, watch)

    health = check_health(data, training, watch, drift)
    publish_status(health, snapshot.store)
    publish_models(snapshot.store)
    return complete_monitoring(health)
