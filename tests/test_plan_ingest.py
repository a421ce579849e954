import time
from datetime import date

import pandas as pd
import pytest
from prefect.concurrency.sync import rate_limit
from prefect.logging import disable_run_logger

from volcast.storage.price_rows import bucket_of
from volcast.storage.prices import PriceTable
from volcast.storage.store import open_store
from volcast.tasks.fetch_prices import fetch_prices
from volcast.tasks.plan_ingest import IngestPlan, _share, plan_ingest
from volcast.tasks.settings import DataSettings, root_of
from volcast.tasks.sources.exchange import Exchange
from volcast.tasks.sources.source import Pace


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


@pytest.mark.usefixtures("prefect_api")  # which keeps the limit of calls to Yahoo
def test_no_tickers_are_those_that_are_stored_whoever_brought_them(tmp_path):
    assert plan_of("simulated:7", str(tmp_path)).tickers == ("SBUX",)
    exchange = Exchange(seed=7, last=date(2001, 12, 14))
    bars = pd.concat([exchange.bars(ticker).astype({"volume": "int64"}) for ticker in ("KO", "T1")])
    for root, source in (("simulated-7", "simulated:7"), ("", "yahoo")):
        PriceTable(open_store(str(tmp_path / root), writable=True)).upsert(bars)
        assert plan_of(source, str(tmp_path)).tickers == ("KO", "T1")


@pytest.mark.usefixtures("prefect_api")
def test_all_workers_share_one_limit_and_none_waits_for_a_limit_that_is_not_there() -> None:
    rate_limit("volcast-none", timeout_seconds=5)
    pace = Pace(limit="volcast-test", calls_per_second=2.0, pause_seconds=0.0)
    _share(pace)
    _share(pace)  # it is there already
    start = time.monotonic()
    for _ in range(4):
        rate_limit(pace.limit, timeout_seconds=30)
    assert 1.0 < time.monotonic() - start < 15


def test_each_simulated_exchange_has_a_root_of_its_own():
    assert root_of("/data", "yahoo") == "/data"
    assert root_of("/data/", "simulated") == "/data/simulated-0"
    assert root_of("/data", "simulated:07?universe=20&faults=gap") == "/data/simulated-7"
    assert root_of("/data", "simulated:7?faults=gap&shift=2011-06-01") == "/data/simulated-7-shift-2011-06-01"


@pytest.mark.usefixtures("no_server")
def test_only_a_row_that_has_changed_makes_an_ingest_ask_for_a_whole_history(tmp_path):
    source, last = "simulated:7", date(2001, 12, 14)
    bars = Exchange(seed=7, last=last).bars("SBUX").astype({"volume": "int64"}).iloc[:-1]
    table = PriceTable(open_store(root_of(str(tmp_path), source), writable=True))
    rows = []
    for restated in (0, -5):  # as the exchange has them; then one row of the last ten sessions as it does not
        bars.iloc[restated, bars.columns.get_loc("volume")] += min(-restated, 1)
        table.upsert(bars)
        with disable_run_logger():
            plan = plan_ingest.fn(DataSettings(source=source, store=str(tmp_path), as_of=last))
            fetched = fetch_prices.fn(plan, plan.batches[0])
        assert fetched.good is not None
        rows.append(fetched.good.rows)
    assert rows == [plan.recheck_sessions + 2, len(bars) + 1]
