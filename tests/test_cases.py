"""Files as people really have them, one folder each: read right, or refused in one line, with nothing taken."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from volcast.tasks.sources.files import FilesSource
from volcast.tasks.sources.source import Outcome, SourceError
from volcast.tasks.validate_prices import split_by_rules

CASES = Path(__file__).parents[2] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"the files as people have them are not at {CASES}")
LAST = date(2024, 6, 28)
PRICES = ["session", "open", "high", "low", "close"]
SEEN_ELSEWHERE = {  # splits of prices as traded: test_as_traded.py; markets and halts: test_other_markets.py
    *("alphavantage_pandas_split", "alphavantage_split", "alphavantage_split_date", "tiingo_split"),
    *("tiingo_reverse_split", "raw_split_ones", "yahoo_split_not_applied", "btc", "vix", "halted"),
}


def good_rows(location: Path, ticker: str) -> pd.DataFrame:
    """What passes the rules of one ticker."""
    fetch = FilesSource(str(location)).fetch(ticker, first=None, last=LAST)
    assert fetch.outcome == Outcome.OK, fetch.known
    return split_by_rules(fetch.bars)[0]


def base_rows() -> pd.DataFrame:
    """The series that most folders have, in one layout or another."""
    return good_rows(CASES / "parquet_types" / "AAPL_date32.parquet", "AAPL")


def refusal(location: Path) -> str:
    """Why nothing was taken of a source of one ticker."""
    with pytest.raises(SourceError) as error:
        _ = [good_rows(location, ticker) for ticker in FilesSource(str(location)).tickers()]
    assert "\n" not in str(error.value)
    return str(error.value)


BASE = {
    "bse/500325.csv": "500325",
    "comment/AAPL.csv": "AAPL",
    "dmy/VOD.csv": "VOD",
    "dollar/AAPL.csv": "AAPL",
    "european/SAP.csv": "SAP",
    "footer/AAPL.csv": "AAPL",
    "gz/AAPL.csv.gz": "AAPL",
    "gz/AAPL.zip": "AAPL",
    "kaggle_us_txt/aapl.us.txt": "AAPL",
    "latin1/AAPL.csv": "AAPL",
    "nasdaq/HistoricalData_1700000000000.csv#ticker=AAPL": "AAPL",
    "names/1_AAPL.csv": "AAPL",
    "names/AAPL.US.csv": "AAPL",
    "names/aapl-2024.csv": "AAPL",
    "names/table_aapl.csv": "AAPL",
    "names/Download Data - STOCK_US_XNAS_AAPL.csv": "AAPL",
    "names/MSFT (1).csv": "MSFT",
    "names/BRK.B.csv": "BRK.B",
    "names/BRK_B.csv": "BRK.B",
    "names/NIFTY 50.csv": "NIFTY",
    "odd_tickers/cn.csv": "000001 600000",
    "odd_tickers/panel.csv": "1E5 BRK-B BRK.B INF NA NAN TRUE",
    "odd_tickers/panel.parquet": "1E5 BRK-B BRK.B INF NA NAN TRUE",
    "odd_tickers/tse_float.parquet": "6758 7203",
    "odd_tickers/tse_int.parquet": "6758 7203",
    "parquet_types/AAPL_date64.parquet": "AAPL",
    "parquet_types/AAPL_datedict.parquet": "AAPL",
    "parquet_types/AAPL_datestr.parquet": "AAPL",
    "parquet_types/AAPL_decimal.parquet": "AAPL",
    "parquet_types/AAPL_int32.parquet": "AAPL",
    "parquet_types/AAPL_ms_utc.parquet": "AAPL",
    "parquet_types/AAPL_ns.parquet": "AAPL",
    "parquet_types/AAPL_uint64.parquet": "AAPL",
    "parquet_types/AAPL_us_tz.parquet": "AAPL",
    "parquet_types/AAPL_voldict.parquet": "AAPL",
    "polygon/flat.csv": "AAPL",
    "sepline/AAPL.csv": "AAPL",
    "tab/AAPL.csv": "AAPL",
    "trailing_comma/AAPL.csv": "AAPL",
    "utc_ny/SPY.csv": "SPY",
    "utc_ny/SPY_pq.parquet": "SPY",
    "utf16/AAPL.csv": "AAPL",
    "yf_multiheader/MSFT.csv": "MSFT",
    "yf_multiheader/MSFT_pq.parquet": "MSFT",
    "yyyymmdd/AAPL.csv": "AAPL",
    "yyyymmdd/AAPL_pq.parquet": "AAPL",
}


@pytest.mark.parametrize("case", BASE)
def test_the_same_series_is_read_in_each_layout(case):
    files = FilesSource(str(CASES / case))
    assert files.tickers() == BASE[case].split()
    for ticker in files.tickers():
        found = good_rows(CASES / case, ticker)
        columns = [*PRICES, "volume"]
        pd.testing.assert_frame_equal(found.loc[:, columns], base_rows().loc[:, columns])


@pytest.mark.parametrize("case", ["investing/Apple Stock Price History.csv", "investing_renamed/AAPL.csv"])
def test_volumes_in_millions_with_a_suffix_are_read(case):
    files = FilesSource(str(CASES / case))
    (ticker,) = files.tickers()
    found, base = good_rows(CASES / case, ticker), base_rows()
    pd.testing.assert_frame_equal(found.loc[:, PRICES], base.loc[:, PRICES])
    assert np.abs(found["volume"].to_numpy() - base["volume"].to_numpy()).max() <= 5_000


PANELS = [
    *(f"panel_other_name/panel_{name}.csv" for name in ("Name", "Stock", "asset", "code", "instrument", "sym", "tic")),
    *("panel_other_name/panel_unique_id.csv", "yf_stack/panel.parquet", "yf_stack/wide.csv", "yf_stack/wide.parquet"),
    *("spark_dir", "spark_dir/prices.parquet", "hive", "hive/ds"),
    *(f"parquet_types/panel_{kind}.parquet" for kind in ("binary", "dict", "large_string", "stringview")),
]


@pytest.mark.parametrize("case", PANELS)
def test_a_panel_is_two_tickers(case):
    assert FilesSource(str(CASES / case)).tickers() == ["AAPL", "MSFT"]
    aapl, msft = (good_rows(CASES / case, ticker) for ticker in ("AAPL", "MSFT"))
    assert (len(aapl), len(msft)) == (374, 374)
    assert (aapl["close"].iloc[0], msft["close"].iloc[0]) == (100.42, 100.23)
    assert (aapl["volume"].iloc[-1], msft["volume"].iloc[-1]) == (6_048_454, 25_311_753)


@pytest.mark.parametrize(
    ("case", "rows"),
    [
        ("panel_disjoint/all_stocks.csv", {"FB": 150, "SHOP": 224}),
        ("panel_ipo/all_stocks.csv", {"AAPL": 374, "IPO": 74}),
        ("ticker_change/panel.csv", {"FB": 250, "META": 124}),
        ("yf_stack/AAPL_flat.csv", {"AAPL": 374}),
        ("ipo30/IPO.csv", {"IPO": 30}),
        ("gspc/^GSPC.csv", {"^GSPC": 374}),
        ("special_dividend/SPEC.csv", {"SPEC": 374}),
        ("reverse_split/BCAN.csv", {"BCAN": 374}),
        ("parquet_types/AAPL_float32.parquet", {"AAPL": 374}),
        ("parquet_types/GSPC_float32vol.parquet", {"GSPC": 374}),
    ],
)
def test_all_rows_of_a_file_are_good(case, rows):
    files = FilesSource(str(CASES / case))
    assert {ticker: len(good_rows(CASES / case, ticker)) for ticker in files.tickers()} == rows


@pytest.mark.parametrize("case", ["fractional_3for2/SBUX.csv", "last_half/AAPL.csv"])
def test_fractional_volumes_are_rounded_and_said_once(case):
    files = FilesSource(str(CASES / case))
    (ticker,) = files.tickers()
    fetch = files.fetch(ticker, first=None, last=LAST)
    assert len(fetch.notes) == 1
    assert "volumes are fractions of a share" in fetch.notes[0]
    written = pd.read_csv(CASES / case)["Volume"].to_numpy()
    found = good_rows(CASES / case, ticker)["volume"].to_numpy()
    assert np.abs(found - written).max() == 0.5
    assert len(found) == 374


@pytest.mark.parametrize(
    ("case", "zone"),
    [
        ("utc_berlin/^GDAXI.csv", "Europe/Berlin"),
        ("utc_berlin/^GDAXI_pq.parquet", "Europe/Berlin"),
        ("utc_tokyo/7203.T.csv", "Asia/Tokyo"),
        ("utc_tokyo/7203.T_pq.parquet", "Asia/Tokyo"),
    ],
)
def test_midnights_in_utc_are_the_exchange_s_own_dates(case, zone):
    path = CASES / case
    written = (pd.read_csv if path.suffix == ".csv" else pd.read_parquet)(path)["Date"]
    own = pd.to_datetime(written, utc=True).dt.tz_convert(zone).dt.tz_localize(None)
    files = FilesSource(str(path))
    (ticker,) = files.tickers()
    fetch = files.fetch(ticker, first=None, last=LAST)
    assert list(fetch.bars["session"]) == list(own)
    assert any(zone in line for line in [*files.remarks, *fetch.notes])


REFUSED = {
    "dot_thousands_round/SAP.csv": ("may be a number with decimals, or thousands", "--columns 'Volume=volume*1000'"),
    "hourly_last/AAPL.csv": ("15:30 is no midnight, open or close", "--date-format"),
    "ibkr/AAPL.csv": ("perhaps lots of 100 shares", "--columns Volume=volume*100"),
    "monthly/AAPL.csv": ("a row every 31 days", "get the daily ones"),
    "nasdaq/HistoricalData_1700000000000.csv": ("its name is no ticker", "#ticker=AAPL"),
    "volume_in_millions/AAPL.csv": ("volumes such as 7.17 are no counts of shares", "--columns"),
    "volume_pct/AAPL.csv": ("the column Volume(%) is a percentage", "--columns 'Volume(%)=volume'"),
    "volume_usd/AAPL.csv": ("the column Volume ($) is an amount of money", "--columns 'Volume ($)=volume'"),
    "weekly/AAPL.csv": ("a row every 7 days", "get the daily ones"),
    "yyyymmdd/AAPL_epoch.parquet": ("numbers of which it is not known what they count", "--date-format"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_certain_is_refused_in_one_line_that_says_what_to_do(case):
    found, advice = REFUSED[case]
    said = refusal(CASES / case)
    assert found in said
    assert advice in said


def test_a_volume_that_is_too_large_costs_its_own_row_only():
    panel = CASES / "one_bad_volume_stops_all" / "panel.csv"
    bars = FilesSource(str(panel)).fetch("HUGE", first=None, last=LAST).bars
    good, bad, _ = split_by_rules(bars)
    assert (len(good), list(bad["rule"])) == (373, ["volume is too large to be exact"])
    assert len(good_rows(panel, "AAPL")) == 374


@pytest.mark.parametrize(
    ("case", "ticker"), [("vol_2p53/SHIB.csv", "SHIB"), ("parquet_types/AAPL_int64_nulls.parquet", "AAPL")]
)
def test_no_integer_is_rounded_silently(case, ticker):
    bars = FilesSource(str(CASES / case)).fetch(ticker, first=None, last=LAST).bars
    good, bad, _ = split_by_rules(bars)
    assert good.empty
    assert set(bad["rule"]) <= {"volume is too large to be exact", "a value is missing"}


def test_a_last_row_that_was_cut_is_in_quarantine():
    bars = FilesSource(str(CASES / "truncated" / "AAPL.csv")).fetch("AAPL", first=None, last=LAST).bars
    good, bad, _ = split_by_rules(bars)
    assert (len(good), list(bad["rule"])) == (373, ["the volume of a first or last row was cut"])
    assert bad["session"].iloc[0] > good["session"].max()


def test_two_files_that_stand_for_one_ticker_stop_only_that():
    files = FilesSource(str(CASES / "names"))
    outcomes = {ticker: files.fetch(ticker, first=None, last=LAST).outcome for ticker in files.tickers()}
    assert outcomes == {
        "AAPL": Outcome.BAD_SCHEMA,
        "BRK.B": Outcome.BAD_SCHEMA,
        "MSFT": Outcome.OK,
        "NIFTY": Outcome.OK,
    }


def test_every_folder_has_its_outcome():
    shown = {Path(case).parts[0] for case in [*BASE, *PANELS, *REFUSED]}
    shown |= {"investing", "investing_renamed", "panel_disjoint", "panel_ipo", "ticker_change", "yf_stack", "ipo30"}
    shown |= {"gspc", "special_dividend", "reverse_split", "fractional_3for2", "last_half", "utc_berlin", "utc_tokyo"}
    shown |= {"one_bad_volume_stops_all", "vol_2p53", "truncated", *SEEN_ELSEWHERE}
    assert shown == {folder.name for folder in CASES.iterdir() if folder.is_dir()}
