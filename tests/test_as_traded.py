from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from volcast.models.sessions import sessions_between
from volcast.storage.prices import PriceTable
from volcast.storage.store import open_store
from volcast.tasks.sources.as_traded import Contradiction, exact_ratio, in_todays_shares, shown_ratio
from volcast.tasks.sources.columns import bars_of, tidy
from volcast.tasks.sources.files import FilesSource
from volcast.tasks.sources.reading import FileReader
from volcast.tasks.sources.source import Outcome

CASES = Path(__file__).parents[2] / "shared" / "cases"
LATEST = date(2024, 12, 31)
SESSIONS = sessions_between(date(2023, 1, 3), date(2023, 10, 18)).as_unit("s")
ROWS, PRICES = 200, ["open", "high", "low", "close"]
AS_TRADED = [
    "tiingo_split",
    "tiingo_reverse_split",
    "alphavantage_split",
    "alphavantage_split_date",
    "alphavantage_pandas_split",
    "raw_split_ones",
    "yahoo_split_not_applied",
]


def todays(**columns: object) -> pd.DataFrame:
    """200 rows in today's shares, close about 100, volume about 1,000,000, a multiple of 1,000."""
    draws = np.random.default_rng(1)
    close = np.round(100 * np.exp(np.cumsum(draws.normal(0, 0.01, ROWS))), 2)
    volume = np.round(1e3 * np.exp(draws.normal(0, 0.3, ROWS))) * 1e3
    frame = {"session": SESSIONS[:ROWS], "open": close, "high": close + 1, "low": close - 1, "close": close}
    return pd.DataFrame({**frame, "volume": volume, **columns})


def traded(splits: dict[int, float], none: float = 1.0, **columns: object) -> pd.DataFrame:
    """The same rows as they were traded, with the splits (row -> ratio) and `none` on the others."""
    rows = todays(split=none, **columns)
    for at, ratio in splits.items():
        before = rows.index < at
        rows.loc[before, PRICES] *= ratio
        rows.loc[before, "volume"] /= ratio
        rows.loc[at, "split"] = ratio
        if "dividend" in rows:
            rows.loc[before, "dividend"] *= ratio
    return rows


def adj_close(dividends: dict[int, float]) -> pd.Series:
    """Of `todays`: the close times the factor of these dividends (row -> USD of today's shares)."""
    close, factor = todays()["close"], np.ones(ROWS)
    for at, dividend in dividends.items():
        factor[:at] *= 1 - dividend / close[at - 1]
    return pd.Series(close * factor)


def assert_todays(rows: pd.DataFrame) -> None:
    for name in [*PRICES, "volume"]:
        np.testing.assert_allclose(rows[name], todays()[name], rtol=2e-6)


def splits_of(rows: pd.DataFrame) -> dict[int, float]:
    return rows.loc[rows["split"] != 0, "split"].to_dict()


@pytest.mark.parametrize("none", [1.0, 0.0], ids=["1 is no split", "0 is no split"])
@pytest.mark.parametrize(
    "splits",
    [
        {120: 4.0},
        {120: 0.05},
        {120: 1.5},
        {40: 2.0, 120: 7.0},
        {40: 3.0, 120: 0.1},
        {199: 4.0},
        {1: 4.0},
        {9: 4.0, 10: 2.0},
    ],
    ids=str,
)
def test_prices_as_traded_come_out_in_todays_shares(splits: dict[int, float], none: float) -> None:
    rows, notes = in_todays_shares("ACME", traded(splits, none))
    assert_todays(rows)
    assert splits_of(rows) == splits
    assert len(notes) == 1
    assert notes[0].count(" on 2023-") == len(splits)


def test_dividends_are_divided_by_the_later_splits() -> None:
    dividend = np.zeros(ROWS)
    dividend[[50, 150]] = 0.5
    raw = traded({100: 4.0}, dividend=dividend)
    assert raw.at[50, "dividend"] == 2.0
    rows, _ = in_todays_shares("ACME", raw)
    assert rows["dividend"].tolist() == dividend.tolist()


@pytest.mark.parametrize("listed_as", [1.0, 4.0], ids=["in today's shares", "as paid"])
def test_the_adjusted_close_says_how_dividends_are_listed(listed_as: float) -> None:
    raw = traded({100: 4.0}).assign(adj_close=adj_close({50: 0.5}), dividend=0.0)
    raw.loc[50, "dividend"] = 0.5 * listed_as
    rows, _ = in_todays_shares("ACME", raw)
    assert rows.at[50, "dividend"] == 0.5


@pytest.mark.parametrize("splits", [{120: 4.0}, {120: 0.05}, {40: 2.0, 120: 7.0}, {0: 4.0}], ids=str)
def test_adjusted_prices_that_list_their_splits_stay_as_they_are(splits: dict[int, float]) -> None:
    for none in (0.0, 1.0):
        raw = todays(split=none)
        for at, ratio in splits.items():
            raw.loc[at, "split"] = ratio
        rows, notes = in_todays_shares("ACME", raw)
        assert all(rows[name].equals(todays()[name]) for name in [*PRICES, "volume"])
        assert (splits_of(rows), notes) == (splits, ())


def test_a_split_too_small_to_be_seen_is_as_the_others_or_as_the_file_writes_no_split() -> None:
    rows, _ = in_todays_shares("ACME", traded({40: 1.05, 120: 4.0}, none=0.0))
    assert_todays(rows)
    rows, _ = in_todays_shares("ACME", traded({40: 1.05}, none=1.0))
    np.testing.assert_allclose(rows["close"], todays()["close"])
    raw = todays(split=0.0)
    raw.loc[40, "split"] = 1.05
    assert in_todays_shares("ACME", raw)[0]["close"].equals(raw["close"])
    rows, _ = in_todays_shares("ACME", traded({40: 1.05}, none=0.0).assign(adj_close=adj_close({})))
    assert_todays(rows)  # the adjusted close has a step of 1.05


@pytest.mark.parametrize("splits", [{120: 4.0}, {120: 0.05}, {120: 1.5}, {40: 2.0, 120: 7.0}], ids=str)
@pytest.mark.parametrize("beside", ["adj_close", "adj_volume"])
def test_splits_that_only_the_adjusted_columns_know_are_found(splits: dict[int, float], beside: str) -> None:
    known = adj_close({150: 0.5}).round(6) if beside == "adj_close" else todays()["volume"]
    rows, _ = in_todays_shares("ACME", traded(splits).drop(columns="split").assign(**{beside: known}))
    assert_todays(rows)
    assert splits_of(rows) == pytest.approx(splits)
    bars, _ = bars_of("ACME", traded(splits).drop(columns="split").assign(**{beside: known}))
    paid = bars.loc[bars["dividend"] != 0, "dividend"]
    assert paid.to_dict() == (pytest.approx({150: 0.5}, abs=1e-3) if beside == "adj_close" else {})


def test_a_split_that_yahoo_failed_to_apply_is_applied_to_close_and_adjusted_close() -> None:
    raw = traded({120: 1 / 35}, none=0.0)
    raw["adj_close"] = raw["close"] * adj_close({150: 0.5}) / todays()["close"]
    rows, _ = in_todays_shares("ACME", raw)
    assert_todays(rows)
    np.testing.assert_allclose(rows["adj_close"], adj_close({150: 0.5}))


@pytest.mark.parametrize(("share", "row"), [(0.5, 100), (0.4, 100), (0.51, 100), (0.75, 100), (0.51, 199)])
def test_a_special_dividend_stays_a_dividend(share: float, row: int) -> None:
    close = todays()["close"].to_numpy().copy()
    close[row:] *= 1 - share
    factor = np.where(np.arange(ROWS) < row, 1 - share, 1.0)
    raw = todays(open=close, high=close + 1, low=close - 1, close=close, adj_close=(close * factor).round(6))
    bars, notes = bars_of("ACME", raw)
    paid = bars.loc[bars["dividend"] != 0, "dividend"].to_dict()
    assert paid == pytest.approx({row: share * close[row - 1]}, rel=1e-4)
    assert notes == ()
    np.testing.assert_allclose(bars["close"], close)


def test_a_split_on_a_session_without_prices_counts_from_the_next_one() -> None:
    raw = traded({120: 4.0})
    raw.loc[120, [*PRICES, "volume"]] = np.nan
    rows, _ = in_todays_shares("ACME", raw)
    kept = rows.index != 120
    np.testing.assert_allclose(rows["close"][kept], todays()["close"][kept])
    assert splits_of(rows) == {120: 4.0}


def test_volumes_of_thin_shares_stay_at_least_one_share() -> None:
    raw = traded({120: 1 / 190}, none=0.0)
    raw["volume"] = np.where(raw.index < 120, 50.0, 7.0)
    raw.loc[3, "volume"] = 0.0
    rows, _ = in_todays_shares("ACME", raw)
    assert rows["volume"][:5].tolist() == [1.0, 1.0, 1.0, 0.0, 1.0]


def inverse(raw: pd.DataFrame) -> None:
    raw.loc[120, "split"] = 0.25


def moved(raw: pd.DataFrame) -> None:
    raw.loc[[120, 122], "split"] = [1.0, 4.0]


def half(raw: pd.DataFrame) -> None:
    raw.loc[raw.index < 120, PRICES] /= 2


def other_volume(raw: pd.DataFrame) -> None:
    raw["adj_volume"] = todays()["volume"] * 1.2


def adjusted_twice(raw: pd.DataFrame) -> None:
    raw["adj_close"] = todays()["close"].where(raw.index >= 120, todays()["close"] / 4)
    raw[PRICES] = todays()[PRICES]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (inverse, r"ACME 2023-06-27: the file lists a split of 1:4; the close goes from \d+\S* to \d+\S*\. Expected"),
        (moved, r"a split of 4:1; .*, and by about that on 2023-06-27"),
        (half, r"a split of 4:1; .* Correct the split or the prices\."),
        (other_volume, r"by its adjusted volume\. Correct one"),
        (adjusted_twice, r"the adjusted columns are those of prices as traded"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(spoil: Callable[[pd.DataFrame], None], words: str) -> None:
    raw = traded({120: 4.0})
    spoil(raw)
    with pytest.raises(Contradiction, match=words) as caught:
        in_todays_shares("ACME", raw)
    assert "\n" not in str(caught.value)


def test_a_reverse_split_with_a_dividend_of_its_session_needs_their_columns() -> None:
    raw = traded({120: 0.05}).drop(columns="split").assign(adj_close=adj_close({120: 0.5}))
    with pytest.raises(Contradiction, match=r"no plain ratio of a split\. Add columns Stock Splits and Dividends"):
        in_todays_shares("ACME", raw)
    raw = traded({120: 4.0}).drop(columns="split").assign(adj_close=adj_close({120: 0.5}))
    with pytest.raises(Contradiction, match="no plain ratio"):
        in_todays_shares("ACME", raw)


@pytest.mark.parametrize("factor", [100.0, 10.0, 2.0, 0.1, 0.01, 1e12])
@pytest.mark.parametrize(
    ("rows", "wrong"),
    [([0], ["close"]), ([1], ["close"]), ([90], ["close"]), ([90], PRICES), ([90, 91, 92], PRICES), ([199], ["close"])],
)
def test_wrong_prices_of_single_rows_are_no_split(rows: list[int], wrong: list[str], factor: float) -> None:
    raw = todays(adj_close=todays()["close"])
    raw.loc[rows, wrong] *= factor
    adjusted, changes = in_todays_shares("ACME", raw)
    assert changes == ()
    pd.testing.assert_frame_equal(adjusted, raw)


def test_a_wrong_price_beside_a_split_leaves_the_split() -> None:
    raw = traded({120: 4.0}).drop(columns="split").assign(adj_close=adj_close({}))
    raw.loc[117, PRICES] *= 100
    adjusted, _ = in_todays_shares("ACME", raw)
    assert splits_of(adjusted) == {120: 4.0}
    assert_todays(
        adjusted.assign(**{name: adjusted[name].where(adjusted.index != 117, todays()[name]) for name in PRICES})
    )


def test_a_reverse_split_of_the_newest_row_alone_needs_its_column() -> None:
    raw = todays(adj_close=todays()["close"])
    raw.loc[ROWS - 1, PRICES] *= 100
    with pytest.raises(Contradiction, match=r"a split of 1:100, but the newest row alone says so"):
        in_todays_shares("ACME", raw)


def test_a_split_or_a_dividend_that_the_volume_does_not_tell_apart_is_refused() -> None:
    raw = traded({120: 4.0}).drop(columns="split").assign(adj_close=adj_close({}))
    raw.loc[raw.index < 120, "volume"] *= 2
    with pytest.raises(Contradiction, match=r"a split of 4:1, or a dividend of \S+ at a close of"):
        in_todays_shares("ACME", raw)


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("4:1", 4.0), ("1/20", 0.05), ("4/1", 4.0), ("3-for-2", 1.5), ("1 for 8", 0.125), ("2.0", 2.0), ("", 0.0)],
)
def test_a_split_may_be_written_as_a_ratio(text: str, ratio: float) -> None:
    cells = pd.DataFrame(
        {"Date": ["2023-01-03", "2023-01-04"], "Open": "1", "High": "1", "Low": "1", "Close": "1", "Volume": "5"}
    ).assign(**{"Split Ratio": [text, "1:1"]})
    assert tidy(cells, FileReader("x.csv")).frame["split"].fillna(0.0).tolist() == pytest.approx([ratio, 1.0])


def test_a_ratio_of_few_decimals_is_the_reverse_split_that_it_means() -> None:
    assert exact_ratio(0.005263) == 1 / 190
    assert exact_ratio(0.33) == 1 / 3
    assert [exact_ratio(ratio) for ratio in (0.05, 0.5, 4.0, 1.5, 0.6667)] == [0.05, 0.5, 4.0, 1.5, 0.6667]
    assert [shown_ratio(ratio) for ratio in (4.0, 0.05, 1.5, 1 / 35, 1.2345)] == [
        "4:1",
        "1:20",
        "3:2",
        "1:35",
        "1.2345:1",
    ]


def test_a_contradiction_stops_its_ticker_and_no_other_of_the_file(tmp_path: Path) -> None:
    bad = traded({120: 4.0})
    inverse(bad)
    pd.concat([bad.assign(ticker="BAD"), traded({120: 4.0}).assign(ticker="GOOD")]).to_csv(
        tmp_path / "all.csv", index=False
    )
    source = FilesSource(str(tmp_path / "all.csv"))
    fetched = {ticker: source.fetch(ticker, first=None, last=LATEST) for ticker in ("BAD", "GOOD")}
    assert fetched["BAD"].outcome is Outcome.BAD_SCHEMA
    assert_todays(fetched["GOOD"].bars)
    assert fetched["GOOD"].notes[0].startswith("GOOD: prices as they were traded, 120 rows")


@pytest.mark.skipif(not CASES.is_dir(), reason=f"the cases are not at {CASES}")
@pytest.mark.parametrize("name", AS_TRADED)
def test_a_vendors_file_gives_the_base_series_and_an_early_reader_what_was_traded(name: str, tmp_path: Path) -> None:
    base = FilesSource(str(CASES / "parquet_types" / "AAPL_date32.parquet")).fetch("AAPL", first=None, last=LATEST).bars
    source = FilesSource(str(CASES / name))
    (ticker,) = source.tickers()
    bars = source.fetch(ticker, first=None, last=LATEST).bars
    for column in [*PRICES, "volume"]:
        np.testing.assert_allclose(bars[column], base[column], rtol=2e-5)
    assert list(splits_of(bars)) == [250]
    paid = bars.loc[bars["dividend"] != 0, "dividend"].round(9).to_dict()
    assert paid == ({} if ticker == "BCANX" else {60: 0.5, 300: 0.5})
    table = PriceTable(open_store(str(tmp_path), writable=True))
    table.upsert(bars.astype({"volume": "int64"}))
    (file,) = (CASES / name).glob("*.csv")
    cells = pd.read_csv(file).rename(columns=lambda heading: heading.lower().split(". ")[-1])
    raw = cells.sort_values(cells.columns[0], ignore_index=True)[:250]
    then = table.read(last=date(2023, 12, 29))
    for column in [*PRICES, "volume"]:
        np.testing.assert_allclose(then[column], raw[column], rtol=2e-5)
