from datetime import date

import pandas as pd
import pytest

from volcast.tasks.settings import Supposition, supposition_of
from volcast.tasks.what_if import NothingToSuppose, supposing

CUTOFF = date(2026, 11, 25)
KNOWN = pd.DataFrame(
    {
        "ticker": ["KO", "SBUX", "SBUX"],
        "announced_for": pd.to_datetime(["2026-12-03", "2026-09-02", "2026-12-03"]).astype("datetime64[s]"),
        "when": ["bmo", "amc", "amc"],
        "first_seen": pd.to_datetime(["2026-11-01", "2026-08-01", "2026-11-02"]).astype("datetime64[s]"),
        "first_seen_assumed": [False, False, True],
        "source": "simulated",
    }
)


def days_of(frame: pd.DataFrame) -> list[tuple[str, str, str]]:
    return [(row["ticker"], f"{row['announced_for']:%m-%d}", row["when"]) for row in frame.to_dict("records")]


@pytest.mark.parametrize(
    ("words", "gone", "new", "when"),
    [
        ("SBUX earnings 2026-12-03", None, date(2026, 12, 3), ""),
        ("sbux earnings 2026-12-03 AMC", None, date(2026, 12, 3), "amc"),
        ("SBUX earnings 2026-12-03 withdrawn", date(2026, 12, 3), None, ""),
        ("SBUX earnings 2026-12-03 to 2026-12-08", date(2026, 12, 3), date(2026, 12, 8), ""),
    ],
)
def test_words_suppose_a_date_more_one_less_or_another(words: str, gone: date, new: date, when: str) -> None:
    assert supposition_of(words) == Supposition(ticker="SBUX", gone=gone, new=new, when=when)


@pytest.mark.parametrize("words", ["", "SBUX 2026-12-03", "SBUX earnings soon", "SBUX earnings 2026-02-30"])
def test_other_words_suppose_nothing(words: str) -> None:
    with pytest.raises(ValueError, match=r"Expected|day is out of range"):
        supposition_of(words)


def test_a_supposition_changes_the_dates_of_its_ticker_alone() -> None:
    more = supposing(KNOWN, supposition_of("SBUX earnings 2026-12-09 bmo"), cutoff=CUTOFF)
    assert days_of(more) == [*days_of(KNOWN), ("SBUX", "12-09", "bmo")]
    assert more.dtypes.to_dict() == KNOWN.dtypes.to_dict()
    assert more["first_seen"].iloc[-1].date() == CUTOFF
    less = supposing(KNOWN, supposition_of("SBUX earnings 2026-12-03 withdrawn"), cutoff=CUTOFF)
    assert days_of(less) == [("KO", "12-03", "bmo"), ("SBUX", "09-02", "amc")]
    moved = supposing(KNOWN, supposition_of("SBUX earnings 2026-12-03 to 2026-12-08"), cutoff=CUTOFF)
    assert days_of(moved) == [("KO", "12-03", "bmo"), ("SBUX", "09-02", "amc"), ("SBUX", "12-08", "")]


def test_beside_events_of_other_kinds_a_supposition_is_of_earnings() -> None:
    added = KNOWN.tail(1).assign(kind="sp500_addition", when="")
    known = pd.concat([KNOWN.assign(kind="earnings"), added], ignore_index=True)
    more = supposing(known, supposition_of("SBUX earnings 2026-12-09 bmo"), cutoff=CUTOFF)
    assert more["kind"].tolist() == [*known["kind"], "earnings"]
    less = supposing(known, supposition_of("SBUX earnings 2026-12-03 withdrawn"), cutoff=CUTOFF)
    assert days_of(less) == [("KO", "12-03", "bmo"), ("SBUX", "09-02", "amc"), ("SBUX", "12-03", "")]
    with pytest.raises(NothingToSuppose, match="no earnings of KO"):
        supposing(
            known.assign(kind="sp500_addition"), supposition_of("KO earnings 2026-12-03 withdrawn"), cutoff=CUTOFF
        )


def test_what_cannot_be_supposed_is_named() -> None:
    with pytest.raises(NothingToSuppose, match=r"no earnings of SBUX .* 2026-12-04\. Known to come: 2026-12-03\."):
        supposing(KNOWN, supposition_of("SBUX earnings 2026-12-04 withdrawn"), cutoff=CUTOFF)
    with pytest.raises(NothingToSuppose, match=r"of JPM .* No date to come is known\."):
        supposing(KNOWN, supposition_of("JPM earnings 2026-12-04 to 2026-12-08"), cutoff=CUTOFF)
    with pytest.raises(NothingToSuppose, match="2026-11-25 must be after the cutoff 2026-11-25"):
        supposing(KNOWN, supposition_of("SBUX earnings 2026-11-25"), cutoff=CUTOFF)
