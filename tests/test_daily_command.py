"""`volcast daily`, `monitor` and `status`, from the command line."""

import pytest
from programs import Volcast

pytestmark = pytest.mark.usefixtures("prefect_api")


def test_daily_monitor_and_status_say_how_it_stands_and_status_exits_1_when_it_needs_a_person(volcast: Volcast) -> None:
    day = ("--as-of", "2002-06-28")
    said = volcast("daily", "--tickers", "SBUX", *day)
    assert said.code == 0
    assert "har, a fallback: no version of volume has passed the gate yet" in said.out
    assert "Median and 80 % interval, million shares" in said.out
    assert "needs a person" in said.out
    assert "NO_CHAMPION" in said.out

    assert "Skipped   No session or price is new since 2002-06-28" in volcast("daily", *day).out

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


def test_a_nowcast_is_refused_in_one_line(volcast: Volcast) -> None:
    said = volcast("daily", "--recipe", "tutorial")
    assert said.code == 2
    assert "Recipe tutorial is a nowcast" in said.errors[0]
