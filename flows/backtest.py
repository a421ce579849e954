"""Test the forecasters of volume on the past, as if each session of the test were the newest.

prices -> forecasts of each cutoff -> scores
"""

from prefect import flow

from flows.ingest import ingest
from storage.records import BacktestResult
from tasks.run_backtest import run_backtest
from tasks.settings import BacktestSettings, DataSettings


@flow(flow_run_name="backtest {data.label} {request.test_start} to {request.test_end}")
def backtest(data: DataSettings, request: BacktestSettings) -> BacktestResult:
    """Bring the prices up to `data.as_of`, then test every forecaster on them."""
    snapshot = ingest(data)
    return run_backtest(snapshot, request)
