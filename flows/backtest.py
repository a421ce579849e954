"""Test the forecasters of volume on the past, as if each session of the test were the newest.

prices -> forecasts of each cutoff -> scores
"""

from prefect import flow

from volcast.flows.ingest import ingest
from volcast.storage.records import BacktestResult
from volcast.tasks.backtest import complete_backtest, run_backtest
from volcast.tasks.settings import BacktestSettings, DataSettings, as_asked


@flow(flow_run_name="backtest {data.label} {data.day}")
def backtest(data: DataSettings, request: BacktestSettings) -> BacktestResult:
    """Bring the prices up to date, then test every forecaster on them, each session with what was known before it."""
    snapshot = ingest(data)
    result = run_backtest(snapshot, as_asked(request, data))
    return complete_backtest(result)
