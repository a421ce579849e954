from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from volcast.models.sessions import sessions_between
from volcast.storage.adjustment import adjusted_close
from volcast.storage.schemas import BARS, QUARANTINE, conform
from volcast.storage.staging import stage, unstage
from volcast.storage.store import open_store
from volcast.tasks.sources.files import FilesSource
from volcast.tasks.sources.simulated import SimulatedSource
from volcast.tasks.sources.source import BAR_COLUMNS
from volcast.tasks.validate_prices import LOGGED, QUARANTINED, row_lines, split_by_rules

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real price files are not at {DATA}")
SESSIONS = sessions_between(date(2024, 1, 2), date(2024, 1, 12)).as_unit("s")  # nine
LATEST = date(2023, 1, 1)


def bars(count: int = 3, **changes) -> pd.DataFrame:
    """Good bars of SBUX from 2024-01-02."""
    columns = {
        "ticker": "SBUX",
        "session": SESSIONS[:count],
        "open": 10.0,
        "high": 12.0,
        "low": 9.0,
        "close": 11.0,
        "volume": 1000.0,
        "dividend": 0.0,
        "split": 0.0,
        "later_adjustment": 1.0,
    }
    return pd.DataFrame(columns | changes, columns=BAR_COLUMNS)


def spoilt(row: int = 1, count: int = 3, **values) -> pd.DataFrame:
    """Good bars but for `values` in one row."""
    frame = bars(count)
    for name, value in values.items():
        frame.loc[row, name] = value
    return frame


def test_good_bars_all_go_on_and_fit_the_table():
    good, bad, _ = split_by_rules(bars())
    pd.testing.assert_frame_equal(good, bars())
    assert bad.empty
    assert conform(good, BARS).num_rows == 3


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"volume": np.nan}, "a value is missing"),
        ({"close": np.nan}, "a value is missing"),
        (dict.fromkeys(["open", "high", "low", "close", "volume"], np.nan), "a value is missing"),
        ({"volume": 0.0}, "nothing was traded"),
        ({"volume": -5.0}, "volume is not positive"),
        ({"volume": np.inf}, "volume is not positive"),
        ({"volume": 1.5}, "volume is not whole"),
        ({"open": 0.0}, "a price is not positive"),
        ({"low": -9.0}, "a price is not positive"),
        ({"high": np.inf}, "a price is not positive"),
        ({"high": 10.5}, "high is below open, low or close"),
        ({"high": 8.0}, "high is below open, low or close"),
        ({"low": 10.5}, "low is above open or close"),
        ({"dividend": -0.01}, "a dividend is negative"),
        ({"split": -2.0}, "a split is negative"),
        ({"later_adjustment": -1.0}, "adj_close is not positive"),
        ({"session": pd.Timestamp("2024-01-06")}, "the market was closed on this date"),
        ({"session": pd.Timestamp("2024-01-01")}, "the market was closed on this date"),
        ({"session": pd.Timestamp("1969-12-31")}, "the market calendar begins in 1970"),
    ],
)
def test_a_row_that_breaks_a_rule_is_quarantined_and_the_others_go_on(values, rule):
    good, bad, _ = split_by_rules(spoilt(**values))
    assert list(bad["rule"]) == [rule]
    assert list(good["session"]) == [SESSIONS[0], SESSIONS[2]]


def test_a_session_beyond_the_calendar_is_told_apart():
    _, bad, _ = split_by_rules(spoilt(session=pd.Timestamp("2400-01-03")))
    assert bad["rule"].str.startswith("the market calendar ends on 20").tolist() == [True]


def test_a_row_that_breaks_several_rules_is_there_once_with_the_first():
    _, bad, _ = split_by_rules(spoilt(open=0.0, volume=0.0, low=11.5, dividend=-1.0))
    assert list(bad["rule"]) == ["a price is not positive"]


def test_the_quarantined_value_shows_what_came():
    _, bad, _ = split_by_rules(spoilt(volume=0.0, low=9.123457, dividend=0.25))
    assert list(bad["value"]) == ["open=10 high=12 low=9.123457 close=11 volume=0 dividend=0.25"]
    assert list(bad["ticker"]) == ["SBUX"]
    assert list(bad["session"]) == [SESSIONS[1]]
    assert bad["seen_at"].dtype == "datetime64[us, UTC]"


def test_quarantined_rows_fit_their_table():
    _, bad, _ = split_by_rules(spoilt(close=np.nan))
    assert conform(bad.assign(source="files:x"), QUARANTINE).num_rows == 1


@pytest.mark.parametrize("count", [1, 9])
def test_when_every_row_is_bad_none_goes_on(count):
    good, bad, _ = split_by_rules(bars(count, volume=0.0))
    assert good.empty
    assert list(good.columns) == BAR_COLUMNS
    assert len(bad) == count


def test_one_good_row_alone_goes_on():
    good, bad, _ = split_by_rules(bars(1))
    assert (len(good), len(bad)) == (1, 0)


def test_a_row_that_is_there_twice_alike_counts_once():
    good, bad, _ = split_by_rules(pd.concat([bars(), bars()]))
    assert (len(good), len(bad)) == (3, 0)
    good, bad, _ = split_by_rules(pd.concat([spoilt(volume=np.nan), spoilt(volume=np.nan)]))
    assert (len(good), len(bad)) == (2, 1)


def test_two_different_rows_of_one_session_are_both_quarantined():
    good, bad, _ = split_by_rules(pd.concat([bars(), bars(1, volume=7.0)]))
    assert list(bad["rule"]) == ["two different rows of one session"] * 2
    assert list(bad["session"]) == [SESSIONS[0]] * 2
    assert list(good["session"]) == list(SESSIONS[1:3])


def test_the_same_session_of_two_tickers_is_no_conflict_and_rows_come_out_sorted():
    good, bad, _ = split_by_rules(pd.concat([bars(), bars(ticker="AAPL")]).sample(frac=1, random_state=0))
    assert bad.empty
    assert list(good["ticker"]) == ["AAPL"] * 3 + ["SBUX"] * 3
    assert list(good["session"]) == list(SESSIONS[:3]) * 2


def test_a_high_a_float32_below_the_close_is_rounding_and_a_cent_is_not():
    close = 11.0
    rounded = float(np.nextafter(np.float32(close), np.float32(0)))
    assert split_by_rules(spoilt(high=rounded)).bad.empty
    assert len(split_by_rules(spoilt(high=close - 0.01)).bad) == 1


def test_the_adjustment_of_a_bad_last_row_stays_with_the_ticker():
    frame = pd.concat([spoilt(2, volume=0.0, later_adjustment=0.9), bars(ticker="AAPL")])
    good, bad, _ = split_by_rules(frame)
    assert list(bad["ticker"]) == ["SBUX"]
    assert list(good["later_adjustment"]) == [1.0, 1.0, 1.0, 1.0, 0.9]
    assert adjusted_close(good).tolist() == pytest.approx([11.0, 11.0, 11.0, 9.9, 9.9])


def test_bars_are_judged_alike_after_they_were_staged(tmp_path):
    store = open_store(str(tmp_path))
    good, bad, _ = split_by_rules(unstage(store, stage(store, spoilt(volume=0.0))))
    assert (len(good), len(bad)) == (2, 1)


def test_bars_of_another_shape_are_our_mistake_and_no_bad_rows():
    with pytest.raises(AssertionError, match="not as sources promise"):
        split_by_rules(bars().astype({"volume": "int64"}))


def test_the_log_has_a_line_a_ticker_and_rule_and_not_too_many():
    _, bad, _ = split_by_rules(pd.concat([bars(2, ticker=f"T{number:02}", volume=0.0) for number in range(30)]))
    lines = row_lines(bad, "rule", QUARANTINED)
    assert len(lines) == LOGGED + 1
    assert lines[0] == "T00: 2 rows quarantined (nothing was traded), the first of session 2024-01-02"
    assert lines[-1] == "and 40 rows more, of 20 other tickers and rules"
    assert row_lines(bad.iloc[:0], "rule", QUARANTINED) == []


def test_simulated_bars_are_good():
    fetch = SimulatedSource(3).fetch("SBUX", first=None, last=LATEST)
    good, bad, _ = split_by_rules(fetch.bars)
    assert len(good) > 5000
    assert bad.empty


@needs_data
@pytest.mark.parametrize("name", ["SBUX_tutorial.csv", "yahoo_csv/SBUX.csv", "yahoo_csv/AAPL.csv"])
def test_no_row_of_a_clean_real_file_is_thrown_away(name):
    source = FilesSource(str(DATA / name))
    fetch = source.fetch(source.tickers()[0], first=None, last=LATEST)
    good, bad, _ = split_by_rules(fetch.bars)
    assert bad.empty
    assert len(good) == len(pd.read_csv(DATA / name))


@needs_data
@pytest.mark.parametrize(
    ("ticker", "good_rows", "rules"),
    [
        ("ABVC", 911, {"nothing was traded": 3656}),
        ("CPG", 4123, {"a price is not positive": 603, "nothing was traded": 108}),
        ("VATE", 664, {"adj_close is not positive": 2729}),
        ("WHLRL", 82, {"a value is missing": 252}),
    ],
)
def test_a_dirty_real_file_gives_each_bad_row_once(ticker, good_rows, rules):
    fetch = FilesSource(str(DATA / "yahoo_csv")).fetch(ticker, first=None, last=LATEST)
    good, bad, _ = split_by_rules(fetch.bars)
    assert len(good) == good_rows
    assert bad["rule"].value_counts().to_dict() == rules
