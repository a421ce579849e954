"""The day's work, after the close.

ingest -> forecast -> monitor -> page
"""

from prefect import flow

from volcast.flows.forecast import forecast
from volcast.flows.ingest import ingest
from volcast.flows.monitor import monitor
from volcast.storage.records import Daily
from volcast.tasks.monitor import WATCH
from volcast.tasks.reports.page import publish_page
from volcast.tasks.reports.publish import refresh_status
from volcast.tasks.run_tools import attempt
from volcast.tasks.runs import complete_day, find_nothing_new, ping, skip_day, stored_only, with_stored_tickers
from volcast.tasks.settings import DataSettings, TrainingSettings, WatchSettings


@flow(
    flow_run_name="daily {training.recipe} {data.day}",
    on_completion=[ping],
    on_failure=[ping],
    on_crashed=[ping],
)
def daily(data: DataSettings, training: TrainingSettings, watch: WatchSettings = WATCH) -> Daily:
    """Catch up on prices, forecast from the newest session, score and watch; an hour and a half after each close.

    A day without news is skipped, by name; what missed days left out is caught up.
    A forecast is published whatever happens to source and champion: har stands in where they cannot be trusted.
    A monitor outside (VOLCAST_PING_URL) is told when it is done, and when it fails.
    """
    ingested = attempt(ingest, with_stored_tickers(data))
    stored = stored_only(data, ingested)

    if nothing_new := find_nothing_new(stored, training):
        refresh_status(data.root, data.session)
        return skip_day(stored, nothing_new)

    batch = forecast(stored, training, watch)
    health = monitor(stored, training, watch)
    publish_page(stored, batch, health, training)
    return complete_day(stored, batch, health)
