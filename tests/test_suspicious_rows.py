from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from volcast.models.sessions import sessions_between
from volcast.tasks.sources.files import FilesSource
from volcast.tasks.sources.source import BAR_COLUMNS
from volcast.tasks.suspicious_rows import CUT, DIVIDEND_NOT_SHOWN, DIVIDEND_TOO_LARGE, OTHER_SHARES
from volcast.tasks.validate_prices import split_by_rules

DATA = Path(__file__).parents[2] / "shared" / "data"
ROWS = 150
SESSIONS = sessions_between(date(2023, 1, 3), date(2023, 8, 8)).as_unit("s")[:ROWS]
PRICES = ["open", "high", "low", "close"]


def bars(ticker: str = "SBUX") -> pd.DataFrame:
    """150 good bars, close about 100, volume about 1,000,000."""
    draws = np.random.default_rng(3)
    close = 100 * np.exp(np.cumsum(draws.normal(0, 0.01, ROWS)))
    frame = {"ticker": ticker, "session": SESSIONS, "open": close, "high": close * 1.01, "low": close * 0.99}
    volume = np.round(1e6 * np.exp(draws.normal(0, 0.3, ROWS)))
    others = {"dividend": 0.0, "split": 0.0, "later_adjustment": 1.0}
    return pd.DataFrame({**frame, "close": close, "volume": volume, **others}, columns=BAR_COLUMNS)


def scaled(rows: slice, price: float, volume: float) -> pd.DataFrame:
    """The bars with prices and volumes of some rows (both ends included) multiplied."""
    frame = bars()
    frame.loc[rows, PRICES] *= price
    frame.loc[rows, "volume"] = np.round(frame.loc[rows, "volume"] * volume)
    return frame


def broken(frame: pd.DataFrame) -> dict[str, list[int]]:
    """Which rows break which rule."""
    bad = split_by_rules(frame).bad
    places = SESSIONS.get_indexer(pd.DatetimeIndex(bad["session"]))
    return {str(rule): places[bad["rule"] == rule].tolist() for rule in bad["rule"].unique()}


def doubts(frame: pd.DataFrame) -> list[str]:
    return [line for lines in split_by_rules(frame).doubts.values() for line in lines]


def test_ordinary_bars_are_beyond_doubt() -> None:
    assert (broken(bars()), doubts(bars())) == ({}, [])


def test_a_dividend_at_or_above_the_close_before_it_breaks_a_rule() -> None:
    frame = bars()
    frame.loc[[40, 60], "dividend"] = [frame.loc[39, "close"], 294.72]
    assert broken(frame) == {DIVIDEND_TOO_LARGE: [40, 60]}
    assert set(split_by_rules(frame).good["dividend"]) == {0.0}


def test_a_large_dividend_that_the_close_does_not_show_breaks_a_rule_and_a_true_one_is_told() -> None:
    frame = bars()
    frame.loc[40, "dividend"] = 50.0
    assert broken(frame) == {DIVIDEND_NOT_SHOWN: [40]}
    frame.loc[40:, PRICES] *= 0.5
    assert broken(frame) == {}
    (line,) = doubts(frame)
    assert line.startswith("SBUX 2023-03-02: a dividend of 50 at a close of ")


@pytest.mark.parametrize("ratio", [6.0, 20.0, 1 / 6, 1 / 190])
@pytest.mark.parametrize("rows", [slice(0, 9), slice(140, 149), slice(70, 70), slice(70, 73)], ids=str)
def test_rows_in_other_shares_break_a_rule(rows: slice, ratio: float) -> None:
    assert broken(scaled(rows, ratio, 1 / ratio)) == {OTHER_SHARES: list(range(rows.start, rows.stop + 1))}


def test_a_split_explains_a_jump() -> None:
    frame = scaled(slice(0, 99), 20.0, 1 / 20)
    frame.loc[100, "split"] = 20.0
    assert broken(frame) == {}
    assert doubts(frame) == []


@pytest.mark.parametrize(("price", "volume"), [(1 / 6, 3.0), (1 / 6, 6.0), (1 / 30, 1.0), (6.0, 1.0), (8.0, 20.0)])
def test_a_crash_and_a_squeeze_are_stored_and_told(price: float, volume: float) -> None:
    frame = scaled(slice(100, 149), price, volume)
    if price < 1:
        frame.loc[100, "volume"] *= 10  # everybody sells
    assert broken(frame) == {}
    (line,) = doubts(frame)
    assert line.startswith("SBUX 2023-05-26: the close is")


def test_a_crash_on_the_last_session_is_stored_and_told() -> None:
    frame = scaled(slice(149, 149), 1 / 6, 6.0)
    assert broken(frame) == {}
    assert len(doubts(frame)) == 1


@pytest.mark.parametrize("row", [0, 149])
@pytest.mark.parametrize("left", [1e-3, 1e-5])
def test_a_first_or_last_volume_that_was_cut_breaks_a_rule(row: int, left: float) -> None:
    assert broken(scaled(slice(row, row), 1.0, left)) == {CUT: [row]}


def test_a_quiet_last_session_is_stored_and_one_that_is_much_too_quiet_is_told() -> None:
    assert (broken(scaled(slice(149, 149), 1.0, 0.3)), doubts(scaled(slice(149, 149), 1.0, 0.3))) == ({}, [])
    quiet = scaled(slice(149, 149), 1.0, 0.12)
    assert broken(quiet) == {}
    assert "and" in doubts(quiet)[0]
    halted = scaled(slice(149, 149), 1.0, 1e-4)
    halted.loc[149, PRICES] = halted.loc[148, "close"]  # one trade, and then a halt
    assert (broken(halted), len(doubts(halted))) == ({}, 1)
    assert broken(bars().iloc[:10].assign(volume=[1e6] * 9 + [5.0])) == {}  # too few to tell what is usual


def test_a_ticker_is_held_against_its_own_rows_alone() -> None:
    other = bars("AAPL")
    other[PRICES] *= 1000
    other["volume"] = np.round(other["volume"] / 1000)
    both = pd.concat([bars(), other])
    assert (broken(both), doubts(both)) == ({}, [])


def test_of_many_doubts_of_a_ticker_the_first_are_told() -> None:
    frame = bars()
    frame.loc[20:120:10, PRICES] *= 8
    lines = doubts(frame)
    assert len(lines) == 4
    assert lines[-1] == "SBUX: 19 rows more look wrong"


@pytest.mark.parametrize("event", ["dividend", "split"])
def test_the_dividend_and_the_split_of_a_bad_row_go_to_the_next_good_one(event: str) -> None:
    frame = bars()
    frame.loc[[50, 51, 149], "volume"] = [0.0, np.nan, 0.0]
    frame.loc[[50, 149], event] = 2.0
    good = split_by_rules(frame).good
    assert good.loc[good[event] != 0, event].to_dict() == {50: 2.0}  # row 50 and 51 are gone; nothing comes after 149
    assert good.at[50, "session"] == SESSIONS[52]
    assert set(split_by_rules(frame, stored={"SBUX": SESSIONS}).good[event]) == {0.0}  # the stored row has it
    frame.loc[52, event] = 3.0
    assert split_by_rules(frame).good.at[50, event] == {"dividend": 5.0, "split": 6.0}[event]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real price files are not at {DATA}")
def test_two_companies_under_one_ticker_are_seen() -> None:
    fetch = FilesSource(str(DATA / "yahoo_csv")).fetch("EMP", first=None, last=date(2024, 1, 1))
    judged = split_by_rules(fetch.bars)
    assert list(judged.bad["rule"]).count(OTHER_SHARES) > 400
    assert judged.doubts["EMP"][-1].endswith("rows more look wrong")
