"""Write what a person reads: plots, scorecard and forecast, as files.

forecast + scorecard -> report
"""

from prefect import flow

from storage.records import ForecastBatch, Report
from tasks.ended import ended
from tasks.find_trained import find_scorecard
from tasks.report import write_report


@flow(flow_run_name="report on {batch.artifact}")
def report(batch: ForecastBatch) -> Report:
    """Files under `reports/` of the store, for the forecast and the model that made it."""
    scorecard = find_scorecard(batch)
    written = write_report(batch, scorecard)
    return ended(written, written.words)
