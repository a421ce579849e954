"""Real yfinance against a local stand-in for Yahoo: yfinance's own proxy setting leads to it, and the environment's
REQUESTS_CA_BUNDLE makes its certificate trusted."""

import json
import shutil
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yfinance

from volcast.tasks.sources.source import BAR_COLUMNS, EVENT_COLUMNS, Fetch, Outcome
from volcast.tasks.sources.yahoo import YahooSource, _typed

FIRST, LAST = date(2024, 3, 7), date(2024, 3, 11)
# yfinance 1.7 sorts in place, which pandas 3.1 warns of; drop when a release of it no longer does
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the stand-in's certificate")


def history(**changes) -> pd.DataFrame:
    """A frame as yfinance gives it; New York's clocks change between its rows."""
    index = pd.DatetimeIndex(["2024-03-07", "2024-03-08", "2024-03-11"], tz="America/New_York", name="Date")
    columns = {
        "Open": 91.0,
        "High": 92.0,
        "Low": 90.0,
        "Close": 91.5,
        "Adj Close": 89.0,
        "Volume": [7_000_000, 0, 8_000_000],
        "Dividends": [0.0, 0.57, 0.0],
        "Stock Splits": [0.0, 0.0, 2.0],
    }
    return pd.DataFrame(columns | changes, index=index)


def test_a_frame_of_yfinance_becomes_bars():
    fetch = _typed("SBUX", history(), LAST)
    assert fetch.outcome == Outcome.OK
    bars = fetch.bars
    assert list(bars.columns) == BAR_COLUMNS
    assert bars["session"].dtype == "datetime64[s]"
    assert list(bars["session"].dt.strftime("%m-%d")) == ["03-07", "03-08", "03-11"]
    assert set(map(str, bars.dtypes.iloc[2:])) == {"float64"}
    assert bars["dividend"].tolist() == [0.0, 0.57, 0.0]
    assert bars["split"].tolist() == [0.0, 0.0, 2.0]
    assert set(bars["ticker"]) == {"SBUX"}


def test_a_volume_of_zero_is_a_missing_one():
    volume = _typed("SBUX", history(), LAST).bars["volume"]
    assert volume.isna().tolist() == [False, True, False]
    assert volume.tolist()[0] == 7_000_000.0


def test_missing_prices_stay_missing_and_their_row_stays():
    bars = _typed("SBUX", history(Close=[91.0, np.nan, 91.0], Volume=[1.0, np.nan, 1.0]), LAST).bars
    assert bars["close"].isna().tolist() == [False, True, False]


def test_rows_after_the_last_session_are_left_out():
    assert len(_typed("SBUX", history(), date(2024, 3, 8)).bars) == 2
    assert _typed("SBUX", history(), date(2024, 3, 6)).outcome == Outcome.EMPTY


def test_no_rows_are_empty_and_an_odd_frame_is_a_bad_schema():
    assert _typed("SBUX", history().iloc[:0], LAST).outcome == Outcome.EMPTY
    assert _typed("SBUX", pd.DataFrame(), LAST).outcome == Outcome.EMPTY
    lacking = _typed("SBUX", history().drop(columns=["Volume", "Open"]), LAST)
    assert (lacking.outcome, lacking.known) == (Outcome.BAD_SCHEMA, "no column Open, Volume in Yahoo's answer")
    assert _typed("SBUX", history().reset_index(drop=True), LAST).outcome == Outcome.BAD_SCHEMA


def chart(ticker: str) -> tuple[int, str]:
    """What Yahoo's chart answers for a ticker: status and body."""
    quote: dict[str, list[float | None]] = {
        "open": [91.0, 91.0],
        "high": [92.0, 92.0],
        "low": [90.0, 90.0],
        "close": [91.5, 91.5],
    }
    result = {
        "meta": {
            "currency": "USD",
            "symbol": ticker,
            "exchangeName": "NMS",
            "instrumentType": "EQUITY",
            "exchangeTimezoneName": "America/New_York",
            "timezone": "EST",
            "gmtoffset": -18000,
            "priceHint": 2,
            "dataGranularity": "1d",
            "validRanges": ["1d", "max"],
        },
        "timestamp": [1709821800, 1709908200],  # 2024-03-07 and 2024-03-08, 09:30 in New York
        "indicators": {"quote": [quote | {"volume": [7000000, None]}], "adjclose": [{"adjclose": [89.0, 89.0]}]},
        "events": {"dividends": {"1709908200": {"amount": 0.57, "date": 1709908200}}},
    }
    if ticker == "SPLITS":
        two_for_one = {"date": 1709908200, "numerator": 2, "denominator": 1, "splitRatio": "2:1"}
        result["events"] = {"splits": {"1709908200": two_for_one}}
    if ticker == "NULLS":
        quote["close"][1] = quote["open"][1] = None
    no_ticker = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
    no_rows = {"code": "Bad Request", "description": "Data doesn't exist for startDate = 1, endDate = 2"}
    bodies = {
        "GONE": (404, {"chart": {"result": None, "error": no_ticker}}),
        "BUSY": (429, {"finance": {"error": "Too Many Requests"}}),
        "ODD": (200, {"chart": {"result": [{"meta": {}}], "error": None}}),
        "LATE": (400, {"chart": {"result": None, "error": no_rows}}),
    }
    status, body = bodies.get(ticker, (200, {"chart": {"result": [result], "error": None}}))
    return status, "<html>Bad gateway</html>" if ticker == "BROKEN" else json.dumps(body)


asked: Counter[str] = Counter()  # questions that reached the stand-in: `SBUX bars`, and `SBUX` for its time zone


def earnings_page(query: str) -> tuple[int, str]:
    """Yahoo's calendar page, as yfinance reads it: one table, times with EST or EDT."""
    if "symbol=BUSY" in query:
        return 429, "Too Many Requests"
    times = ["April 30, 2024 at 4 PM EDT", "January 30, 2024 at 7 AM EST", "November 2, 2023 at 12 AM EDT"]
    numbers = [("0.79", "-", "-"), ("0.93", "0.90", "-3.51"), ("0.97", "1.06", "+9.17")]
    headings = ("Symbol", "Company", "Earnings Date", "EPS Estimate", "Reported EPS", "Surprise (%)")
    rows = [("SBUX", "Starbucks", time, *three) for time, three in zip(times, numbers, strict=True)]
    if "symbol=ODD" in query:
        headings = ("Symbol", "Company", "Date", *headings[3:])
    cells = ["".join(f"<th>{heading}</th>" for heading in headings)]
    cells += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    table = "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"
    return 200, f"<html><body>{'' if 'symbol=NONE' in query else table}</body></html>"


class StandIn(BaseHTTPRequestHandler):
    """A proxy that answers for every host itself, behind the certificate of its server's `tls`."""

    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)  # pyright: ignore[reportAttributeAccessIssue]
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
        self.close_connection = False

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        status, body = chart(path.split("/")[-1]) if "/chart/" in path else (200, "a-crumb")
        if "/quoteSummary/" in path:  # asked for a ticker whose chart is not there
            no_quote = {"code": "Not Found", "description": "Quote not found for symbol: GONE"}
            status, body = 404, json.dumps({"quoteSummary": {"result": None, "error": no_quote}})
        if path == "/calendar/earnings":
            status, body = earnings_page(query)
        if path.endswith("/LATE") and "range=1d" in query:  # the question for the time zone, which has no window
            status, body = chart("SBUX")
        ticker = path.split("/")[-1]
        asked.update([f"{ticker} bars" if "period1" in query else ticker])
        if ticker == "ONCE" and asked[ticker] <= 2:  # yfinance asks a second time itself
            status, body = 429, "Too Many Requests"
        if ticker == "SLOW":
            time.sleep(3)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body.encode()[: 100 if ticker == "TORN" else None])
        self.wfile.flush()
        self.close_connection = ticker == "TORN"

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def tls(tmp_path_factory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for Yahoo's hosts, and the server's side of it."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=yahoo.com", "-addext", "subjectAltName=DNS:*.yahoo.com,DNS:*.finance.yahoo.com"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


@pytest.fixture
def yahoo(tls, monkeypatch) -> Iterator[YahooSource]:
    certificate, context = tls
    asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.tls = context  # pyright: ignore[reportAttributeAccessIssue]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    yfinance.config.network.proxy = f"http://127.0.0.1:{server.server_port}"
    yield YahooSource()
    yfinance.config.network.proxy = None
    server.shutdown()
    thread.join()
    server.server_close()


def ask(source: YahooSource, ticker: str) -> Fetch:
    return source.fetch(ticker, first=FIRST, last=LAST)


@needs_openssl
def test_rows_of_yahoo_s_chart_become_bars(yahoo):
    fetch = ask(yahoo, "SBUX")
    assert (fetch.outcome, fetch.known) == (Outcome.OK, "")
    assert list(fetch.bars["session"].dt.strftime("%Y-%m-%d")) == ["2024-03-07", "2024-03-08"]
    assert fetch.bars["close"].tolist() == [91.5, 91.5]
    assert fetch.bars["dividend"].tolist() == [0.0, 0.57]
    assert fetch.bars["volume"].isna().tolist() == [False, True]


@needs_openssl
@pytest.mark.parametrize(
    ("ticker", "outcome"),
    [
        ("GONE", Outcome.NOT_FOUND),
        ("BUSY", Outcome.RATE_LIMITED),
        ("LATE", Outcome.EMPTY),
        ("BROKEN", Outcome.DOWN),
        ("TORN", Outcome.DOWN),
        ("SLOW", Outcome.DOWN),
        ("ODD", Outcome.BAD_SCHEMA),
    ],
)
def test_a_refusal_of_yahoo_has_its_outcome(yahoo, ticker, outcome, monkeypatch):
    monkeypatch.setattr("volcast.tasks.sources.yahoo.TIMEOUT_SECONDS", 1)
    fetch = ask(yahoo, ticker)
    assert (fetch.outcome, fetch.bars.empty) == (outcome, True), fetch.known
    assert fetch.known


@needs_openssl
def test_yahoo_s_earnings_page_gives_dates_and_hours(yahoo):
    announced = yahoo.announced("SBUX", as_of=LAST)
    assert (announced.outcome, announced.known) == (Outcome.OK, "")
    events = announced.events
    assert list(events.columns) == EVENT_COLUMNS
    assert events["announced_for"].dtype == "datetime64[s]"
    dates = events["announced_for"].dt.strftime("%Y-%m-%d")
    assert list(zip(dates, events["when"], strict=True)) == [
        ("2024-04-30", "amc"),
        ("2024-01-30", "bmo"),
        ("2023-11-02", ""),
    ]
    assert events["first_seen"].isna().all()
    in_tokyo = yahoo.announced("SBUX", as_of=LAST, calendar="XTKS").events["announced_for"].dt.strftime("%Y-%m-%d")
    assert in_tokyo.tolist() == ["2024-05-01", "2024-01-30", "2023-11-02"]  # an evening of New York's is its morning


@needs_openssl
@pytest.mark.parametrize(
    ("ticker", "outcome"),
    [("NONE", Outcome.NOT_FOUND), ("BUSY", Outcome.RATE_LIMITED), ("ODD", Outcome.BAD_SCHEMA)],
)
def test_a_page_without_dates_has_its_outcome(yahoo, ticker, outcome):
    announced = yahoo.announced(ticker, as_of=LAST)
    assert (announced.outcome, announced.events.empty) == (outcome, True), announced.known
    assert announced.known


@needs_openssl
def test_a_refused_ticker_is_answered_when_it_is_asked_for_again(yahoo):
    assert [ask(yahoo, "ONCE").outcome for _ in range(2)] == [Outcome.RATE_LIMITED, Outcome.OK]


@needs_openssl
def test_a_repeated_window_reaches_yahoo_again(yahoo):
    assert [ask(yahoo, "AGAIN").outcome for _ in range(3)] == [Outcome.OK] * 3
    assert asked["AGAIN bars"] == 3


@needs_openssl
def test_yfinance_by_itself_answers_a_repeated_window_without_asking_yahoo(yahoo):
    assert len(ask(yahoo, "AGAIN").bars) == 2
    for _ in range(2):
        yfinance.Ticker("AGAIN").history(interval="1d", start=FIRST, end=LAST, auto_adjust=False)
    assert asked["AGAIN bars"] == 2, "yfinance asks again by itself: drop cache_clear from tasks/sources/yahoo.py"


@needs_openssl
def test_earnings_dates_that_are_asked_for_again_come_from_yahoo_again(yahoo):
    assert [yahoo.announced("SBUX", as_of=LAST).outcome for _ in range(3)] == [Outcome.OK] * 3
    assert asked["earnings"] == 3


@needs_openssl
def test_splits_and_nulls_of_yahoo_come_through(yahoo):
    assert ask(yahoo, "SPLITS").bars["split"].tolist() == [0.0, 2.0]
    assert ask(yahoo, "NULLS").bars["close"].isna().tolist() == [False, True]


def test_no_way_to_yahoo_is_down():
    yfinance.config.network.proxy = "http://127.0.0.1:1"
    try:
        fetch, announced = ask(YahooSource(), "FAR"), YahooSource().announced("FAR", as_of=LAST)
    finally:
        yfinance.config.network.proxy = None
    assert fetch.outcome == announced.outcome == Outcome.DOWN
    assert "127.0.0.1" in fetch.known


def test_yahoo_offers_sbux_by_default():
    assert YahooSource().tickers() == ["SBUX"]
