"""Forecast from the stored prices with the champion of a recipe, or with har where it is watched and not trusted.

prices -> pretrained, before the first version -> choice -> forecast -> ledger, charts, latest, status
"""

from prefect import flow

from volcast.flows.retrain import adopt_pretrained
from volcast.storage.records import ForecastBatch
from volcast.tasks.forecast import choose_forecaster, forecast_volume, publish_charts, publish_forecast
from volcast.tasks.reports.page import publish_latest
from volcast.tasks.reports.publish import refresh_status
from volcast.tasks.run_tools import complete
from volcast.tasks.settings import DataSettings, ForecasterSettings, TrainingSettings, WatchSettings, as_asked
from volcast.tasks.snapshot import take_snapshot

CHAMPION = ForecasterSettings()


@flow(flow_run_name="forecast {training.recipe} {data.label} {data.day}")
def forecast(
    data: DataSettings,
    training: TrainingSettings,
    watch: WatchSettings | None = None,
    chosen: ForecasterSettings = CHAMPION,
) -> ForecastBatch:
    """A new version of the forecast, or the present one when neither champion nor prices have changed.

    As of a past session a model that was made of later ones is refused, unless `chosen` allows it.
    """
    snapshot = take_snapshot(data)

    if chosen.version is None:
        adopt_pretrained(snapshot, as_asked(training, data))
    choice = choose_forecaster(snapshot, data, training, watch, chosen)
    batch = forecast_volume(snapshot, training, choice)
    published = publish_forecast(batch, training, choice)
    publish_charts(published, training)
    publish_latest(published, data, training)
    refresh_status(snapshot.store, data.session)
    return complete(published, published.words)
