"""Test the forecasters of volume on the past, as if each session of the test were the newest.

prices -> plan -> forecasts of each fit -> scores
"""

from prefect import flow, unmapped

from volcast.flows.ingest import ingest
from volcast.flows.task_runner import runner
from volcast.storage.records import BacktestResult
from volcast.tasks.backtest import backtest_fit, complete_backtest, plan_backtest, score_backtest
from volcast.tasks.settings import BacktestSettings, DataSettings, as_asked


@flow(flow_run_name="backtest {data.label} {data.day}", task_runner=runner(at_once=1))  # a fit uses every core
def backtest(data: DataSettings, request: BacktestSettings) -> BacktestResult:
    """Bring the prices up to date, then test every forecaster on them, each session with what was known before it."""
    snapshot, request = ingest(data), as_asked(request, data)

    plan = plan_backtest(snapshot, request)
    fits = backtest_fit.map(unmapped(snapshot), unmapped(request), plan).result()
    result = score_backtest(snapshot, request, fits)
    return complete_backtest(result)
