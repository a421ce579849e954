"""`volcast daily`, `monitor` and `status`, from the command line."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from programs import Volcast
from runs import log_lines, run_named

from benchmarks.programs import wait_until
from benchmarks.webhooks import Webhook
from volcast.flows import service
from volcast.flows.daily import daily
from volcast.tasks import runs
from volcast.tasks.settings import DataSettings, TrainingSettings
from volcast.tasks.sources.source import SourceMissing

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """What waits for the pings of `daily`."""
    monkeypatch.setattr(runs, "PING_WAITS", (0, 0))
    with Webhook() as receiver:
        monkeypatch.setenv("VOLCAST_PING_URL", f"{receiver.host}/s3cr3t/{{store}}/?rid=1")
        yield receiver


def test_daily_monitor_and_status_say_how_it_stands_and_status_exits_1_when_it_needs_a_person(
    volcast: Volcast, monitor: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = ("--as-of", "2002-06-28")
    said = volcast("daily", "--tickers", "SBUX", *day)
    assert said.code == 0
    assert "har, a fallback: no version of volume has passed the gate yet" in said.out
    assert "Median and 80 % interval, million shares" in said.out
    assert "needs a person" in said.out
    assert "NO_CHAMPION" in said.out

    assert "Skipped   No session or price is new since 2002-06-28" in volcast("daily", *day).out
    assert [re.sub("-[0-9a-f]{6}/", "-…/", ping) for ping in monitor.pings] == ["/s3cr3t/simulated-0-…/?rid=1"] * 2

    later = volcast("daily", "--as-of", "2002-07-02").out
    assert "Live skill, last target sessions: below 1, better than the rival" in later
    looked = volcast("monitor", "--as-of", "2002-07-02")
    assert looked.code == 0
    assert "Live skill, last target sessions: below 1, better than the rival" in looked.out

    status = volcast("status")
    assert status.code == 1
    assert "Prices    v" in status.out
    assert "Health    volume" in status.out
    assert "STALE_PRICES The prices end on 2002-07-02" in status.out
    assert re.search(r"Service   http://127\S+/v2 answers, and has no deployments of this store\n", status.out)
    assert "DISK_FULL" not in status.out
    monkeypatch.setattr(service, "LEAST_FREE", 10**18)
    assert "DISK_FULL Less than 1 GB is free for " in volcast("status").out


def test_a_daily_that_fails_is_told_to_the_monitor_and_a_monitor_that_is_down_fails_no_daily(
    volcast: Volcast, monitor: Webhook, tmp_path: Path
) -> None:
    broken = DataSettings(source=f"files:{tmp_path}/none.csv", store=str(tmp_path / "data"), as_of=date(2002, 6, 28))
    with pytest.raises(SourceMissing):
        daily(broken, TrainingSettings())
    assert [re.sub("-[0-9a-f]{6}/", "-…/", ping) for ping in monitor.pings] == ["/s3cr3t/data-…/fail?rid=1"]

    monitor.stop()
    assert volcast("daily", "--tickers", "SBUX", "--as-of", "2002-06-27").code == 0
    run = run_named("daily volume 2002-06-27")
    (line,) = wait_until(lambda: [each for each in log_lines(run) if "VOLCAST_PING_URL" in each], what="it is logged")
    assert line == "the monitor at VOLCAST_PING_URL was not told: URLError"
    assert not any("s3cr3t" in each for each in log_lines(run))


def test_a_nowcast_is_refused_in_one_line(volcast: Volcast) -> None:
    said = volcast("daily", "--recipe", "tutorial")
    assert said.code == 2
    assert "Recipe tutorial is a nowcast" in said.errors[0]
