from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from rows import TARGETS, forecast_rows, score_rows

from volcast.models.scores import score_forecasts
from volcast.storage.integrity import find_garbage, verify
from volcast.storage.ledger import Ledger
from volcast.storage.schemas import FORECASTS
from volcast.storage.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def test_the_same_forecast_twice_adds_nothing_and_comes_back_as_it_was(store: Store) -> None:
    ledger = Ledger(store)
    assert ledger.newest_cutoff("volume") is None
    assert ledger.record_forecasts(forecast_rows()) == 6
    assert ledger.record_forecasts(forecast_rows(published_at=pd.Timestamp("2024-01-06", tz="UTC"))) == 0
    rows = ledger.forecasts("volume", first=date(2024, 1, 1))
    assert list(rows.columns) == FORECASTS.names
    assert len(rows) == 6
    assert (rows["published_at"].dt.day == 5).all()
    assert ledger.newest_cutoff("volume") == date(2024, 1, 5)
    assert ledger.newest_cutoff("another") is None


def test_the_version_that_was_published_first_is_the_one_that_is_scored(store: Store) -> None:
    ledger = Ledger(store)
    ledger.record_forecasts(forecast_rows(version=2))
    ledger.record_forecasts(forecast_rows(version=3, median=1.0))
    assert len(ledger.forecasts("volume", first=date(2024, 1, 1))) == 12
    pending = ledger.pending(first=date(2024, 1, 8), last=date(2024, 1, 9))
    assert list(pending["version"]) == [2] * 4
    assert list(pending["ds"].dt.day) == [8, 8, 9, 9]


def test_a_score_is_kept_once_and_what_is_scored_is_no_longer_pending(store: Store) -> None:
    ledger, span = Ledger(store), {"first": date(2024, 1, 1), "last": date(2024, 1, 31)}
    assert ledger.pending(**span).empty
    ledger.record_forecasts(forecast_rows())
    rows = score_rows(ledger.pending(**span))
    assert ledger.record_scores(rows.loc[rows["h"] < 3]) == 4
    assert list(ledger.pending(**span)["h"]) == [3, 3]
    assert ledger.record_scores(rows) == 2
    assert ledger.pending(**span).empty
    assert len(ledger.scores("volume", first=date(2024, 1, 9))) == 4


def test_of_many_writers_of_the_same_rows_one_adds_them(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(lambda _: Ledger(store).record_forecasts(forecast_rows()), range(4)))
    assert sorted(added) == [0, 0, 0, 6]


def test_a_missing_median_is_refused_and_nothing_is_stored(store: Store) -> None:
    with pytest.raises(ValueError, match=r"SBUX 2024-01-05.*expected a value for median, got none"):
        Ledger(store).record_forecasts(forecast_rows(median=float("nan")))
    assert Ledger(store).newest_cutoff("volume") is None


def test_verify_looks_into_the_ledger_and_gc_takes_only_what_no_version_names(store: Store, tmp_path: Path) -> None:
    Ledger(store).record_forecasts(forecast_rows())
    (tmp_path / "forecasts" / "lost.parquet").write_bytes(b"of a writer that died")
    assert list(verify(store)) == []
    later = datetime.now(UTC) + timedelta(days=2)
    assert list(find_garbage(store, keep_versions=1, now=later)) == ["forecasts/lost.parquet"]
    named = next(path for path in (tmp_path / "forecasts").glob("*.parquet") if path.name != "lost.parquet")
    named.write_bytes(named.read_bytes()[:-9])
    assert named.name in next(verify(store)).words


def test_a_score_can_be_checked_by_hand() -> None:
    row = score_rows(forecast_rows().head(1), volume=130).iloc[0]
    assert (row["actual"], row["absolute_error"], row["in_80"], row["in_95"], row["over"]) == (
        130,
        30,
        False,
        True,
        False,
    )
    # 0.025 * 70, 0.1 * 50, 0.5 * 30, 0.9 * 10 and 0.025 * 10 below the actual's upper end
    assert row["pinball"] == pytest.approx((1.75 + 5 + 15 + 9 + 0.25) / 5)


def test_a_split_between_cutoff_and_target_changes_the_unit_and_not_the_score() -> None:
    prices = pd.DataFrame({"ticker": "SBUX", "session": TARGETS, "volume": [210, 210, 210], "split": [0.0, 2.0, 0.0]})
    rows = score_forecasts(forecast_rows(), prices)
    assert set(rows["actual"]) == {105}
    after = score_forecasts(forecast_rows().assign(cutoff=TARGETS[1]).assign(ds=TARGETS[2]), prices)
    assert set(after["actual"]) == {210}


def test_a_forecast_without_an_actual_has_no_score() -> None:
    prices = pd.DataFrame({"ticker": "SBUX", "session": TARGETS[:1], "volume": 100, "split": 0.0})
    assert list(score_forecasts(forecast_rows(), prices)["h"]) == [1, 1]


def test_live_errors_and_shares_below_each_quantile_can_be_checked_by_hand(store: Store) -> None:
    ledger = Ledger(store)
    assert ledger.errors("volume", first=date(2024, 1, 1)).empty
    ledger.record_forecasts(forecast_rows())
    assert ledger.shares_below("volume", first=date(2024, 1, 1)).empty
    ledger.record_forecasts(forecast_rows(version=2, median=500.0))  # later, and not what was published first
    ledger.record_scores(score_rows(forecast_rows()))
    errors = ledger.errors("volume", first=date(2024, 1, 9))
    assert list(errors["model"]) == ["har", "volcast"] * 2
    assert list(errors["published"]) == [False, True] * 2
    assert list(errors["mase"]) == [5 / 50, 5 / 50, 15 / 50, 15 / 50]
    assert set(errors["rows"]) == {1}
    below = ledger.shares_below("volume", first=date(2024, 1, 1)).set_index("h")
    assert list(below["rows"]) == [1, 1, 1]
    # the volume was 105; the medians are 100, 110 and 120, the 80 % interval 20 to either side
    assert below.loc[1, "lo_95":].to_list() == [0, 0, 0, 1, 1]
    assert below.loc[2, "lo_95":].to_list() == [0, 0, 1, 1, 1]
    assert len(ledger.scores("volume", first=date(2024, 1, 1), tickers=["SBUX"])) == 6
    assert ledger.scores("volume", first=date(2024, 1, 1), tickers=["AAPL"]).empty
