import io
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from golden import Opened
from pydantic import ValidationError
from rich.console import Console

from volcast.flows.cli import number_of
from volcast.models.forecast_columns import mean_column, scored_columns
from volcast.models.forecasters import MODEL
from volcast.models.participation import HIGHLY, ILLIQUID, LESS, MODERATELY, bucket, order_progress, sessions_needed
from volcast.models.sessions import sessions_between
from volcast.storage.errors import NotStored
from volcast.storage.ledger import Ledger
from volcast.storage.store import open_store
from volcast.tasks.monitor import present_health
from volcast.tasks.participation import (
    bucket_rows,
    order_words,
    participation_of,
    portfolio_rows,
    progress_rows,
    read_portfolio,
)
from volcast.tasks.reports.page import _live_sums
from volcast.tasks.reports.render import show_participation
from volcast.tasks.settings import OrderSettings

STORE = Opened(
    folder=Path(__file__).parent / "data" / "golden" / "0.1.0" / "store"
)  # of an earlier release: sums follow from what its ledger has


def forecast_of(cutoff: str, shares: float = 1000.0, low: float = 1.0) -> pd.DataFrame:
    """Ten sessions of one ticker whose volume is known, or, with `low` below 1, may be so much less or more."""
    sessions = sessions_between(date.fromisoformat(cutoff), date(2026, 12, 31))[:11]
    factors = (low**1.5, low, 1.0, 1 / low, 1 / low**1.5)
    columns = {name: shares * factor for name, factor in zip(scored_columns(MODEL), factors, strict=True)}
    keys = {"unique_id": "A", "cutoff": sessions[0], "ds": sessions[1:], "h": range(1, 11)}
    return pd.DataFrame(keys | columns | {mean_column(MODEL): shares})


def test_an_order_of_a_known_volume_takes_as_many_sessions_as_it_must() -> None:
    progress = order_progress(forecast_of("2024-06-03"), {"A": 250.0}, rate=0.1)
    assert progress["sessions"].tolist() == list(range(1, 11))
    assert progress["chance"].tolist() == [0, 0, *[1] * 8]  # 100 shares a session
    assert progress["shares_80"].tolist() == pytest.approx([100.0 * each for each in range(1, 11)])
    assert sessions_needed(progress, 0.95) == 3
    assert sessions_needed(order_progress(forecast_of("2024-06-03"), {"A": 1001.0}, rate=0.1), 0.8) is None


def test_more_certainty_takes_longer_and_promises_less() -> None:
    progress = order_progress(forecast_of("2024-06-03", low=0.6), {"A": 500.0}, rate=0.1)
    assert progress["chance"].tolist() == sorted(progress["chance"])
    assert 0.5 < progress["chance"].iloc[4] < 0.6, "the sum of five is above five medians a little more often than not"
    certain = {level: sessions_needed(progress, level) for level in (0.5, 0.8, 0.95)}
    assert certain == {0.5: 5, 0.8: 7, 0.95: 8}
    assert np.all(progress["shares_95"].to_numpy() < progress["shares_80"].to_numpy())
    assert progress["shares_80"].iloc[6] >= 500 > progress["shares_80"].iloc[5]


@pytest.mark.parametrize(
    ("cutoff", "needed", "settlement", "expected"),
    [
        ("2024-06-03", 2, 1, HIGHLY),  # a Monday; sold on Wednesday, cash on Thursday, the third session
        ("2024-06-03", 3, 1, MODERATELY),  # cash on Friday
        ("2024-06-03", 2, 2, MODERATELY),
        ("2024-06-07", 4, 1, MODERATELY),  # a Friday; sold on Thursday, cash a week later
        ("2024-06-07", 5, 1, LESS),  # sold on Friday, cash on Monday after
        ("2024-06-07", 6, 1, ILLIQUID),
        ("2024-06-14", 4, 1, LESS),  # Juneteenth lies between: sold on Friday
        ("2024-06-03", None, 1, ILLIQUID),
        ("2024-06-03", 10, 5, ILLIQUID),
    ],
)
def test_buckets_are_those_of_rule_22e_4(cutoff: str, needed: int | None, settlement: int, expected: str) -> None:
    assert bucket(order_progress(forecast_of(cutoff), {"A": 1.0}, rate=1), needed, settlement) == expected


def test_an_order_is_answered_from_the_ledger_of_an_earlier_release() -> None:
    order = OrderSettings(ticker="SBUX", shares=2e6, rate=0.1)
    found = participation_of(STORE.data, order)
    assert (found.cutoff, found.by) == (date(2002, 2, 1), "v23 by volcast")
    rows = progress_rows(found, "SBUX")
    assert len(rows) == 10
    sure = [float(row["80% sure"]) for row in rows]
    needed = 1 + next(place for place, shares in enumerate(sure) if shares >= 2)
    assert order_words(found, "SBUX")[0].startswith(f"80% sure to be done within {needed} sessions, by ")
    assert portfolio_rows(found)[0]["sessions, 80%"] == str(needed)


def test_the_page_counts_how_often_published_sums_were_inside_of_their_intervals() -> None:
    store, health = open_store(STORE.data.root), present_health(STORE.data)
    scores = Ledger(store).scores(health.name, first=date(2001, 1, 1))
    rows = _live_sums(store, health, sorted(set(scores["ticker"])))
    for row in rows:
        known = scores.loc[scores["published"] & (scores["h"] <= int(row["sessions"]))]
        whole = known.groupby(["ticker", "cutoff"]).size() == int(row["sessions"])  # a session that lacks has no score
        assert int(row["sums"]) == whole.sum() > 0
    assert [row["sessions"] for row in rows] == ["2", "5", "10"]
    shares = [float(row[name].rstrip("%")) for row in rows for name in ("in 80%", "in 95%")]
    assert all(0 <= share <= 100 for share in shares)
    assert all(one <= other for one, other in zip(shares[::2], shares[1::2], strict=True))


def test_a_portfolio_has_its_slowest_position_first_and_its_buckets(tmp_path: Path) -> None:
    path = tmp_path / "held.csv"
    path.write_text("Ticker;Shares\nsbux;1,000\nT1;-3.5M\nSBUX;500\nMSFT;0\n")
    assert read_portfolio(path) == {"SBUX": 1500, "T1": 3.5e6}
    found = participation_of(STORE.data, OrderSettings(portfolio=path))
    assert [(row["ticker"], row["bucket"]) for row in portfolio_rows(found)] == [("T1", ILLIQUID), ("SBUX", HIGHLY)]
    console = Console(file=io.StringIO(), width=80, highlight=False, soft_wrap=True)
    show_participation(console, found)
    show_participation(console, participation_of(STORE.data, OrderSettings(ticker="SBUX", shares=2e6, rate=0.025)))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("Simulated data from volcast's own simulated exchange")
    assert "Order     SBUX, 2,000,000 shares at 2.5 % of the volume" in lines
    assert "          80% sure only after more than the 10 sessions that are forecast" in lines
    assert {row["bucket"]: row["positions"] for row in bucket_rows(found)} == {
        HIGHLY: "1",
        MODERATELY: "0",
        LESS: "0",
        ILLIQUID: "1",
    }


@pytest.mark.parametrize(
    ("word", "number"), [("2,000,000", 2e6), ("10%", 0.1), (" 2.5 %", 0.025), ("1e6", 1e6), ("many", "many"), ("", "")]
)
def test_numbers_are_read_as_people_write_them(word: str, number: float | str) -> None:
    assert number_of(word) == number


def test_what_cannot_be_answered_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotStored, match=r"NONE: no forecast of volume from the close of 2002-02-01.*volcast ingest"):
        participation_of(STORE.data, OrderSettings(ticker="NONE", shares=1))
    with pytest.raises(NotStored, match="Nothing has been forecast of other yet"):
        participation_of(STORE.data, OrderSettings(ticker="SBUX", shares=1, name="other"))
    path = tmp_path / "held.csv"
    with pytest.raises(ValueError, match="there is no such file"):
        read_portfolio(path)
    for text, expected in {
        "": "expected .csv or .parquet; Could not determine delimiter",
        "ticker,count\nA,1\n": "expected the columns ticker and shares; shares lacks",
        "ticker,shares\nA,1\nB,many\n": "row 2 has no ticker or no number of shares: B, many",
        "ticker,shares\nA,1\nA,-1\n": "it holds no shares",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=expected):
            read_portfolio(path)
    for asked in ({}, {"ticker": "A"}, {"shares": 1}, {"ticker": "A", "shares": 1, "portfolio": path}):
        with pytest.raises(ValidationError, match="Name --ticker and --shares, or a file by --portfolio"):
            OrderSettings.model_validate(asked)
