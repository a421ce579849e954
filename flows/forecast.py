"""Forecast with the champion of a recipe from the stored prices.

prices -> champion -> forecast
"""

from prefect import flow

from storage.records import ForecastBatch
from tasks.forecast_volume import forecast_volume
from tasks.settings import DataSettings, TrainingSettings
from tasks.take_snapshot import take_snapshot


@flow(flow_run_name="forecast {data.label} by {training.recipe}")
def forecast(data: DataSettings, training: TrainingSettings) -> ForecastBatch:
    """A new version of the forecast, or the present one when neither champion nor prices have changed."""
    snapshot = take_snapshot(data)
    return forecast_volume(snapshot, training)
