from datetime import date

from prefect.logging import disable_run_logger

from storage.price_rows import bucket_of
from tasks.plan_ingest import IngestPlan, plan_ingest
from tasks.settings import DataSettings, root_of


def plan_of(source: str, store: str) -> IngestPlan:
    with disable_run_logger():
        return plan_ingest.fn(DataSettings(source=source, store=store, as_of=date(2023, 12, 29)))


def test_few_tickers_are_fetched_each_alone_and_many_by_bucket(tmp_path):
    few = plan_of("simulated:7?universe=20", str(tmp_path))
    assert [len(batch.tickers) for batch in few.batches] == [1] * 20
    many = plan_of("simulated:7?universe=500", str(tmp_path))
    assert len(many.batches) == 16
    assert all(len({bucket_of(ticker) for ticker in batch.tickers}) == 1 for batch in many.batches)
    assert len(set(many.tickers)) == 500


def test_each_simulated_exchange_has_a_root_of_its_own():
    assert root_of("/data", "yahoo") == "/data"
    assert root_of("/data/", "simulated") == "/data/simulated-0"
    assert root_of("/data", "simulated:07?universe=20&faults=gap") == "/data/simulated-7"
    assert root_of("/data", "simulated:7?faults=gap&shift=2011-06-01") == "/data/simulated-7-shift-2011-06-01"
