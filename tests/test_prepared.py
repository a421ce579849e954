"""What is made of a snapshot is made once, and anew for any other rows, announcements or settings."""

from datetime import date

import pandas as pd
import pytest
from panels import tiny_recipe
from prefect.logging import disable_run_logger

from volcast.models.volume_evaluation import fallback_frame
from volcast.models.volume_inputs import VolumeData, sha256_of
from volcast.storage.adjustment import adjusted_close
from volcast.storage.announced_dates import EventTable
from volcast.storage.prices import PriceTable
from volcast.storage.records import Snapshot
from volcast.storage.store import Store, open_store
from volcast.tasks.forecast import panel_frame
from volcast.tasks.methods.method import Rows
from volcast.tasks.methods.volume import VolumeMethod
from volcast.tasks.settings import DataSettings
from volcast.tasks.snapshot import prepare, read_panel, take_snapshot
from volcast.tasks.sources.exchange import Exchange

TICKERS = ("SBUX", "T1")
CUTOFF, LATER = date(2001, 12, 14), date(2001, 12, 21)
METHOD = VolumeMethod(tiny_recipe())


def bars(last: date) -> pd.DataFrame:
    exchange = Exchange(seed=3, last=last)
    return pd.concat([exchange.bars(ticker) for ticker in TICKERS], ignore_index=True).astype({"volume": "int64"})


@pytest.fixture
def store(tmp_path) -> Store:
    store = open_store(str(tmp_path))
    PriceTable(store).upsert(bars(CUTOFF))
    return store


def snapshot_of(store: Store, last: date = CUTOFF, tickers: tuple[str, ...] = TICKERS) -> Snapshot:
    with disable_run_logger():
        return take_snapshot.fn(DataSettings(source="stored", store=store.url, tickers=tickers, as_of=last))


def test_the_same_rows_are_prepared_once_whenever_the_snapshot_was_taken(store: Store) -> None:
    first = prepare(snapshot_of(store), METHOD)
    assert read_panel(snapshot_of(store)) is first.inputs.panel
    PriceTable(store).upsert(bars(LATER))
    assert prepare(snapshot_of(store), METHOD) is first
    later = prepare(snapshot_of(store, LATER), METHOD)
    assert later.inputs.panel.cutoff == LATER


def test_a_changed_row_a_new_announcement_and_another_recipe_are_prepared_anew(store: Store) -> None:
    before: VolumeData = prepare(snapshot_of(store), METHOD)
    other = prepare(snapshot_of(store), VolumeMethod(tiny_recipe(use_earnings=False)))
    assert (before.recipe.use_earnings, other.recipe.use_earnings) == (True, False)
    assert other.inputs.panel is before.inputs.panel

    dates = {
        "ticker": "T1",
        "announced_for": pd.Timestamp("2001-12-18"),
        "when": "amc",
        "first_seen": pd.Timestamp(CUTOFF),
    }
    EventTable(store).record(pd.DataFrame([dates]), as_of=CUTOFF, source="a test")
    announced: VolumeData = prepare(snapshot_of(store), METHOD)
    assert (len(before.announcements), len(announced.announcements)) == (0, 1)

    changed = bars(CUTOFF).assign(volume=lambda rows: rows["volume"].mask(rows.index == 400, 7))
    PriceTable(store).upsert(changed)
    restated: VolumeData = prepare(snapshot_of(store), METHOD)
    assert len({sha256_of(each.inputs) for each in (before, announced, restated)}) == 3


def test_what_is_kept_is_what_is_made_from_the_rows_themselves(store: Store) -> None:
    kept: VolumeData = prepare(snapshot_of(store), METHOD)
    prices = bars(CUTOFF).assign(adj_close=lambda rows: adjusted_close(rows))
    made = METHOD.prepare(Rows(read_parts=lambda: [prices], announcements=kept.announcements))
    assert sha256_of(kept.inputs) == sha256_of(made.inputs)


def test_har_fits_a_short_history_with_all_that_is_stored_whichever_tickers_are_asked_for(store: Store) -> None:
    whole = panel_frame(snapshot_of(store), None, fallback_frame)  # fewer than har.LEAST_ROWS rows: one fit of all
    alone = panel_frame(snapshot_of(store, tickers=("T1",)), None, fallback_frame)
    own = whole.loc[whole["unique_id"] == "T1"].reset_index(drop=True)
    assert len(own) == 10
    pd.testing.assert_frame_equal(alone, own)
