"""A ticker that is no longer traded is taken out of what runs by itself, and brought back."""

import shutil
from datetime import date
from pathlib import Path

import pytest
from days import TRAINING, data_in, store_in
from programs import Volcast

from volcast.flows.daily import daily
from volcast.flows.forecast import forecast
from volcast.flows.retrain import retrain
from volcast.storage.prices import PriceTable
from volcast.tasks.monitor import present_health
from volcast.tasks.preflight import retirements, tickers_in_use

BEFORE, LAST, NEXT, AFTER = date(2004, 7, 6), date(2004, 7, 7), date(2004, 7, 8), date(2004, 7, 9)


@pytest.mark.usefixtures("no_server")
def test_a_retired_ticker_is_left_out_until_it_is_brought_back_and_its_history_stays(
    served: tuple, tmp_path: Path, volcast: Volcast
) -> None:
    folder = Path(shutil.copytree(served[0], tmp_path / "data"))
    words = ("retire", "T2", "--reason", "delisted", "--store", folder, "--as-of", LAST)
    line = volcast(*words).out.strip()
    assert line.startswith("T2 is retired since 2004-07-07, by ")
    assert line.endswith(": delisted")
    assert "are retired already" in volcast(*words).errors[0]
    assert "holds no prices of NONE" in volcast(*("retire", "NONE", *words[2:])).errors[0]

    day = daily(data_in(folder, NEXT), TRAINING)
    table = PriceTable(store_in(folder))
    assert day.batch is not None
    assert day.health is not None
    assert day.batch.snapshot.tickers == ("SBUX", "T1")
    assert day.batch.by == "volcast"  # the champion that was trained with it goes on
    assert table.last_sessions() == {"SBUX": NEXT, "T1": NEXT, "T2": LAST}
    assert (day.health.tickers, day.health.late) == (2, ())
    assert [each.ticker for each in day.health.retired] == ["T2"]
    assert line in volcast("status", "--store", folder).out

    scorecard = retrain(data_in(folder, NEXT), TRAINING)
    assert scorecard.model.snapshot.tickers == ("SBUX", "T1")
    assert {"volcast", "champion"} <= set(scorecard.scores)
    assert "T2" not in scorecard.verdict

    named = forecast(data_in(folder, NEXT, tickers=("T2",)), TRAINING)
    assert (named.snapshot.tickers, named.snapshot.cutoff) == (("T2",), LAST)
    assert tickers_in_use(store_in(folder), BEFORE) == ["SBUX", "T1", "T2"]  # and so a run as of then has it

    assert volcast("retire", "T2", "--undo", "--reason", "listed again", "--store", folder, "--as-of", NEXT).code == 0
    assert tickers_in_use(store_in(folder), LAST) == ["SBUX", "T1"]
    daily(data_in(folder, AFTER), TRAINING)
    assert (
        table.coverage().loc["T2", ["last", "rows"]].tolist() == table.coverage().loc["T1", ["last", "rows"]].tolist()
    )
    assert retirements(store_in(folder)) == {}
    assert present_health(data_in(folder, AFTER)).retired == ()
