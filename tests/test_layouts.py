"""The same few rows in the layouts in which people have them: read alike, or refused in one line with what to do."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from volcast.storage.artifacts import ArtifactStore, Draft
from volcast.storage.store import open_store
from volcast.tasks.preflight import LAST_INGEST, LastIngest, known_reading
from volcast.tasks.run_tools import provenance
from volcast.tasks.settings import DataSettings
from volcast.tasks.sources.files import FilesSource
from volcast.tasks.sources.places import ticker_of
from volcast.tasks.sources.source import Outcome, SourceError, SourceUnusable, UnknownSource, open_source

LAST = date(2025, 1, 1)
DAYS = pd.bdate_range("2023-01-03", periods=20)  # with days above 12
FIELDS = ["Open", "High", "Low", "Close", "Volume"]


def rows_of(shift: float = 0.0) -> pd.DataFrame:
    """20 sessions; volumes of seven digits."""
    n = np.arange(len(DAYS))
    close = 99.5 + shift + n / 4
    rows = {"Open": close - 0.25, "High": close + 1, "Low": close - 1, "Close": close, "Volume": 6_269_858 + 1_001 * n}
    return pd.DataFrame(rows, index=DAYS.rename("Date"))


BASE, OTHER = rows_of(), rows_of(50)


def table(base: pd.DataFrame = BASE, heading: str = "Date,Open,High,Low,Close,Volume", **how: str) -> str:
    """The rows as CSV, under this heading."""
    sep = how.get("sep", ",")
    frame = base.assign(Volume=base["Volume"].map(how.get("volume", "{:.0f}").format))
    lines = frame.to_csv(
        header=False, date_format=how.get("date", "%Y-%m-%d"), sep=sep, decimal=how.get("decimal", ".")
    )
    return heading.replace(",", sep) + "\n" + lines


def fetched(path: Path, content: str | bytes | None = None, ticker: str | None = None, said: str = "") -> pd.DataFrame:
    """The bars of the only ticker, or of one."""
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    files = FilesSource(f"{path}{said}")
    fetch = files.fetch(ticker or files.tickers()[0], first=None, last=LAST)
    assert fetch.outcome == Outcome.OK, fetch.known
    return fetch.bars


def require_rows(bars: pd.DataFrame, base: pd.DataFrame = BASE, volume_within: float = 0.0) -> None:
    assert list(bars["session"]) == list(base.index)
    for name in FIELDS[:4]:
        assert bars[name.lower()].to_numpy() == pytest.approx(base[name].to_numpy(), abs=1e-9)
    assert bars["volume"].to_numpy() == pytest.approx(base["Volume"].to_numpy(), abs=volume_within)


def refusal(path: Path, content: str | bytes, said: str = "") -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError) as error:
        fetched(path, said=said)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- text: separators, encodings, compression, lines that are no rows


@pytest.mark.parametrize(
    "content",
    [
        table(sep=";"),
        table(sep="\t"),
        table(sep="|"),
        table(sep=";", decimal=","),
        table(sep="\t", decimal=","),
        "sep=;\n" + table(sep=";"),
        "# made by hand\n# twice\n" + table(),
        "Apple Inc.\nUSD\n\n" + table(),
        table() + "\nSource: a provider,,,,,\n",
        table() + "# end\n",
        table(heading="Date,Open,High,Low,Close,Volume,").replace("\n2", ",\n2")[:-1] + ",\n",
        table().replace("\n2", ",\n2").replace(",\n2", "\n2", 1),
        table() + table().splitlines()[0] + "\n",
        table().encode("utf-16"),
        table().encode("utf-16-le"),
        table().encode("utf-8-sig"),
        table(heading="Date,Open,High,Low,Close,Volume,Größe").replace("\n2", ",größer\n2").encode("cp1252"),
        table(heading="日付,始値,高値,安値,終値,出来高").encode("cp932"),
        table(volume="{:,.0f}"),
        table(volume="{:_.0f}").replace("_", " "),
        table(volume="{:_.0f}").replace("_", "'"),
        table(sep=";", volume="{:_.0f}").replace("_", "."),
        table(sep=";", decimal=",", volume="{:_.0f}").replace("_", "."),
        table(volume="{:.1f}"),
        table(volume="{:.6e}"),
    ],
)
def test_the_same_rows_are_the_same_bars_however_text_is_written(tmp_path, content):
    require_rows(fetched(tmp_path / "SBUX.csv", content))


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, table())
        archive.writestr("README.txt", "see our terms")
    return out.getvalue()


def tarred(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(table())
            archive.addfile(member, io.BytesIO(table().encode()))
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("SBUX.csv.gz", gzip.compress(table().encode())),
        ("SBUX.csv", gzip.compress(table().encode())),
        ("SBUX.csv.bz2", bz2.compress(table().encode())),
        ("SBUX.csv.xz", lzma.compress(table().encode())),
        ("SBUX.csv.zst", pa.compress(table().encode(), "zstd", asbytes=True)),
        ("SBUX.zip", zipped("x/whatever.csv")),
        ("SBUX.tar.gz", tarred("whatever.txt")),
        ("sbux.us.txt", table()),
        ("SBUX.tsv", table(sep="\t")),
    ],
)
def test_compression_and_suffix_do_not_matter(tmp_path, name, content):
    require_rows(fetched(tmp_path / name, content, ticker="SBUX"))


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_of_several_files_is_a_folder(tmp_path, pack):
    path = tmp_path / ("all.zip" if pack is zipped else "all.tar.gz")
    path.write_bytes(pack("d/AAPL.csv", "d/MSFT.csv"))
    assert FilesSource(str(path)).tickers() == ["AAPL", "MSFT"]
    require_rows(fetched(path, ticker="MSFT"))


def test_a_workbook_is_read(tmp_path):
    with pd.ExcelWriter(tmp_path / "SBUX.xlsx") as book:
        BASE.to_excel(book, sheet_name="Prices", startrow=2)
        pd.DataFrame({"a": ["read me"]}).to_excel(book, sheet_name="Notes")
    require_rows(fetched(tmp_path / "SBUX.xlsx"))


def test_dates_of_a_workbook_may_be_its_own_numbers(tmp_path):
    serial = BASE.set_axis(pd.Index([(day - pd.Timestamp("1899-12-30")).days for day in DAYS], name="Date"))
    serial.to_excel(tmp_path / "SBUX.xlsx")
    require_rows(fetched(tmp_path / "SBUX.xlsx"))


# ---- headings


@pytest.mark.parametrize(
    "heading",
    [
        "timestamp,open,high,low,close,volume",
        "t,o,h,l,c,v",
        "<DATE>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>",
        "Date,1. open,2. high,3. low,4. close,5. volume",
        "Date,Open,High,Low,Close/Last,Vol.",
        "Date,Open,High,Low,Price,Shares traded",
        "Date,Open Price,High Price,Low Price,Close Price,No.of Shares",
        "Date,OPEN,HIGH,LOW,LAST,TOTTRDQTY",
        "datetime,$open,$high,$low,$close,$volume",
        "Datum,Eröffnung,Hoch,Tief,Schluss,Stück",
        "Datum,Erster,Hoch,Tief,Schlusskurs,Stuecke",
        "Date,Ouverture,Plus Haut,Plus Bas,Dernier,Volume",
        "Fecha,Apertura,Máximo,Mínimo,Último,Vol.",
        "日付,始値,高値,安値,終値,出来高",
        "날짜,시가,고가,저가,종가,거래량",
        ",Open,High,Low,Close,Volume",
        "Unnamed: 0,Open,High,Low,Close,Volume",
        "Date,Open ($),High ($),Low ($),Close ($),Volume (shares)",
        "Date,Open,High,Low,Close*,Volume",
        "index,Open,High,Low,Close,volume",
    ],
)
def test_the_headings_of_vendors_and_languages_are_known(tmp_path, heading):
    require_rows(fetched(tmp_path / "SBUX.csv", table(heading=heading)))


@pytest.mark.parametrize(
    ("heading", "scale"),
    [
        ("Volume (000)", 1e3),
        ("Volume ('000s)", 1e3),
        ("Volume (thousands)", 1e3),
        ("Volume in thousands", 1e3),
        ("volume_in_millions", 1e6),
        ("Vol. (M)", 1e6),
        ("Volume [mn shares]", 1e6),
        ("Volume (x1000)", 1e3),
        ("Volume (lakhs)", 1e5),
        ("Volume (Tsd.)", 1e3),
        ("出来高(千株)", 1e3),
    ],
)
def test_a_stated_scale_is_undone_and_said(tmp_path, heading, scale):
    base = BASE.assign(Volume=BASE["Volume"].round(-6) / scale)
    text = table(base, f"Date,Open,High,Low,Close,{heading}", volume="{:.3f}")
    require_rows(fetched(tmp_path / "SBUX.csv", text), BASE.assign(Volume=BASE["Volume"].round(-6)))
    files = FilesSource(str(tmp_path / "SBUX.csv"))
    files.tickers()
    assert any(f"{heading} was taken times {scale:,.0f}" in remark for remark in files.remarks)


@pytest.mark.parametrize(
    ("heading", "fact"),
    [
        ("Volume ($)", "an amount of money"),
        ("Volume (USD)", "an amount of money"),
        ("Volume USDT", "an amount of money"),
        ("Dollar Volume", "an amount of money"),
        ("Volume (in Mio. EUR)", "an amount of money"),
        ("$ Volume", "an amount of money"),
        ("Volume(%)", "a percentage"),
        ("Volume Change %", "a percentage"),
        ("Volume (lots)", "an unknown unit"),
        ("Volume MA20", "an unknown unit"),
    ],
)
def test_a_volume_that_is_no_count_of_shares_is_refused(tmp_path, heading, fact):
    text = table(heading=f"Date,Open,High,Low,Close,{heading}")
    said = refusal(tmp_path / "SBUX.csv", text)
    assert fact in said
    assert f"--columns '{heading}=volume'" in said
    require_rows(fetched(tmp_path / "SBUX.csv", said=f"#columns={heading}=volume"))


def test_a_volume_in_shares_is_taken_beside_one_in_money(tmp_path):
    lines = table(heading="Date,Open,High,Low,Close,Volume").splitlines()
    text = "\n".join([lines[0] + ",Volume ($)", *(line + ",1" for line in lines[1:])])
    require_rows(fetched(tmp_path / "SBUX.csv", text))


def test_other_columns_that_are_called_alike_are_left_out(tmp_path):
    lines = table().splitlines()
    others = "Open Interest,Prev. Close,52W High,Close Time,Volume Weighted Average,High Date,Adj Factor,Trades"
    text = "\n".join([f"{lines[0]},{others}", *(line + ",1" * 8 for line in lines[1:])])
    require_rows(fetched(tmp_path / "SBUX.csv", text))


def test_a_line_of_units_below_the_heading_is_part_of_it(tmp_path):
    base = BASE.assign(Volume=BASE["Volume"].round(-6) / 1e3)
    head, rest = table(base).split("\n", 1)
    text = f"{head}\nYYYY-MM-DD,USD,USD,USD,USD,thousands\n{rest}"
    require_rows(fetched(tmp_path / "SBUX.csv", text), BASE.assign(Volume=BASE["Volume"].round(-6)))
    assert "an amount of money" in refusal(tmp_path / "SBUX.csv", f"{head}\n,USD,USD,USD,USD,USD\n{rest}")


def test_a_line_that_may_change_the_unit_is_not_passed_over(tmp_path):
    said = refusal(tmp_path / "SBUX.csv", "Volume in thousands of shares\n" + table())
    assert "'Volume in thousands of shares'" in said
    require_rows(fetched(tmp_path / "SBUX.csv", said="#columns=Volume=volume"))
    assert "in lots" in refusal(tmp_path / "SBUX.csv", table() + "volumes in lots,,,,,\n")


# ---- numbers


@pytest.mark.parametrize(
    ("volume", "within"),
    [("{:.2f}M", 5e3), ("{:.3f} Mio.", 5e2), ("{:.2f} m", 5e3), ("{:.4f}B", 5e4)],
)
def test_suffixes_of_volumes_are_factors(tmp_path, volume, within):
    scale = 1e9 if volume.endswith("B") else 1e6
    base = BASE.assign(Volume=BASE["Volume"] / scale)
    require_rows(fetched(tmp_path / "SBUX.csv", table(base, volume=volume)), volume_within=within)


def test_suffixes_follow_the_decimal_comma(tmp_path):
    base = BASE.assign(Volume=BASE["Volume"] / 1e6)
    text = table(base, sep=";", decimal=",", volume="{:.2f}M").replace("M", "M").replace("6.", "6,")
    require_rows(fetched(tmp_path / "SBUX.csv", text), volume_within=5e3)


def test_dollar_signs_of_prices_are_no_part_of_them_and_of_a_volume_are_no_shares(tmp_path):
    prices = BASE.assign(**{name: BASE[name].map("${:.2f}".format) for name in FIELDS[:4]})
    require_rows(fetched(tmp_path / "SBUX.csv", table(prices)))
    assert "is not a number" in refusal(tmp_path / "SBUX.csv", table(volume="${:.0f}"))


@pytest.mark.parametrize("word", ["NaN", "#N/A", "--", "n.a.", "NULL", "—", "<NA>"])
def test_words_for_nothing_are_missing_values(tmp_path, word):
    bars = fetched(tmp_path / "SBUX.csv", table().replace(str(BASE["Volume"].iloc[3]), word))
    assert np.isnan(bars["volume"].to_numpy()).sum() == 1


def test_thousands_with_a_dot_are_certain_beside_a_decimal_comma_and_refused_beside_a_dot(tmp_path):
    thousands = BASE.assign(Volume=(BASE["Volume"] // 10_000).astype(float))  # 626.000, 627.000, …
    base = BASE.assign(Volume=thousands["Volume"] * 1000)
    european = table(thousands, sep=";", decimal=",", volume="{:.3f}")
    require_rows(fetched(tmp_path / "SAP.csv", european), base)
    dotted = table(thousands, volume="{:.3f}")
    said = refusal(tmp_path / "SAP.csv", dotted)
    assert "'626.000' may be a number with decimals, or thousands set apart" in said
    require_rows(fetched(tmp_path / "SAP.csv", said="#columns=Volume=volume*1000"), base)


def test_the_decimal_sign_can_be_said(tmp_path):
    text = "Date;Open;High;Low;Close;Volume\n" + "".join(
        f"{day:%Y-%m-%d};1,234;1,250;1,200;1,240;5000\n" for day in DAYS
    )
    assert fetched(tmp_path / "SAP.csv", text, said="#decimal=,")["open"].tolist() == [1.234] * 20
    assert fetched(tmp_path / "SAP.csv", text, said="#decimal=.")["open"].tolist() == [1234] * 20


@pytest.mark.parametrize("parts", [[0.5], [0.25, 0.5, 0.75], [1 / 3, 2 / 3], [0.2, 0.4, 0.6, 0.8]])
def test_fractions_that_a_split_leaves_are_rounded_and_said_once(tmp_path, parts):
    fractions = np.resize([0, *parts], len(BASE))
    text = table(BASE.assign(Volume=BASE["Volume"] + fractions), volume="{:.10f}")
    (tmp_path / "SBUX.csv").write_text(text)
    fetch = FilesSource(str(tmp_path / "SBUX.csv")).fetch("SBUX", first=None, last=LAST)
    volume = fetch.bars["volume"].to_numpy()
    assert np.array_equal(volume, np.rint(volume))
    assert np.abs(volume - BASE["Volume"].to_numpy()).max() <= 1
    (note,) = fetch.notes
    assert "volumes are fractions of a share, such as 6" in note


@pytest.mark.parametrize(("unit", "digits"), [(100, 2), (1000, 3), (1e6, 2)])
def test_volumes_that_are_counted_in_lots_thousands_or_millions_are_refused(tmp_path, unit, digits):
    rng = np.random.default_rng(0)
    base = BASE.assign(Volume=rng.integers(5_000_000, 9_000_000, len(BASE)) / unit)
    said = refusal(tmp_path / "SBUX.csv", table(base, volume=f"{{:.{digits}f}}"))
    assert "are no counts of shares" in said
    told = fetched(tmp_path / "SBUX.csv", said=f"#columns=Volume=volume*{unit:.0f}")
    assert told["volume"].to_numpy() == pytest.approx(base["Volume"].to_numpy() * unit, rel=1e-2)


# ---- dates


@pytest.mark.parametrize(
    "written",
    [
        "%Y/%m/%d",
        "%Y%m%d",
        "%d.%m.%Y",
        "%d/%m/%Y",
        "%m/%d/%Y",
        "%d-%m-%Y",
        "%m/%d/%y",
        "%d.%m.%y",
        "%d-%b-%Y",
        "%d-%b-%y",
        "%d %B %Y",
        "%b %d, %Y",
        "%B %d, %Y",
        "%a %b %d %Y",
        "%Y年%m月%d日",
        "%Y-%m-%d 00:00:00",
        "%Y-%m-%dT00:00:00.000",
        "%Y-%m-%dT00:00:00-05:00",
        "%Y-%m-%dT05:00:00Z",
        "%Y-%m-%d 21:00:00+00:00",
        "%Y-%m-%d 14:30:00+00:00",
        "%m/%d/%Y 16:00:00",
        "%m/%d/%Y 4:00 PM",
    ],
)
def test_dates_are_read_in_whatever_form(tmp_path, written):
    require_rows(fetched(tmp_path / "SBUX.csv", table(date=written)))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo", "Europe/Berlin"])
def test_numbers_since_1970_are_stamps_by_their_size(tmp_path, unit, zone):
    stamps = DAYS.tz_localize(zone).tz_convert("UTC").tz_localize(None).as_unit("ns")
    numbers = stamps.astype("int64") // {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    base = BASE.set_axis(pd.Index(numbers, name="Date"))
    require_rows(fetched(tmp_path / "SBUX.csv", table(base)))
    base.reset_index().to_parquet(tmp_path / "SBUX.parquet")
    require_rows(fetched(tmp_path / "SBUX.parquet"))


ZONES = ("Europe/London", "Europe/Berlin", "Europe/Helsinki", "Europe/Istanbul", "Asia/Kolkata", "Asia/Hong_Kong")
ZONES += ("Asia/Tokyo", "Australia/Sydney", "Pacific/Auckland", "America/Sao_Paulo", "America/Toronto", "Asia/Dubai")


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("months", [1, 18])
def test_midnights_of_an_exchange_in_utc_are_its_own_dates(tmp_path, zone, months):
    days = pd.bdate_range("2023-01-03", periods=21 * months)
    stamps = days.tz_localize(zone).tz_convert("UTC")
    rows = pd.DataFrame(dict.fromkeys(FIELDS, 5), index=stamps.rename("Date"))
    rows.to_csv(tmp_path / "A.csv")
    rows.to_parquet(tmp_path / "A.parquet")
    for name in ("A.csv", "A.parquet"):
        assert list(fetched(tmp_path / name)["session"]) == list(days)


def test_a_day_and_a_month_that_may_be_either_are_refused_with_the_option(tmp_path):
    days = [day for day in pd.bdate_range("2023-01-02", "2023-12-31") if day.day <= 12 and day.month in (5, 7)]
    both_ways = [day for day in days if pd.Timestamp(day.year, day.day, day.month).day_of_week < 5]
    rows = pd.DataFrame(dict.fromkeys(FIELDS, 5), index=pd.DatetimeIndex(both_ways, name="Date"))
    text = rows.to_csv(date_format="%d/%m/%Y")
    said = refusal(tmp_path / "VOD.csv", text)
    assert "--date-format %d/%m/%Y or %m/%d/%Y" in said
    told = fetched(tmp_path / "VOD.csv", said="#date-format=%d/%m/%Y")
    assert list(told["session"]) == both_ways


def test_weekdays_tell_the_day_from_the_month(tmp_path):
    days = [day for day in pd.bdate_range("2023-01-02", "2023-12-31") if day.day <= 12]
    rows = pd.DataFrame(dict.fromkeys(FIELDS, 5), index=pd.DatetimeIndex(days, name="Date"))
    bars = fetched(tmp_path / "VOD.csv", rows.to_csv(date_format="%d/%m/%Y"))
    assert list(bars["session"]) == days


@pytest.mark.parametrize("number", [7, 202301, 1672704, 19_000])
def test_numbers_that_are_no_dates_are_refused_with_the_option(tmp_path, number):
    base = BASE.set_axis(pd.Index(number + np.arange(len(BASE)), name="Date"))
    base.reset_index().to_parquet(tmp_path / "SBUX.parquet")
    with pytest.raises(SourceUnusable, match="--date-format s, ms, us, ns, days, excel"):
        fetched(tmp_path / "SBUX.parquet")


# ---- what is no daily bar


@pytest.mark.parametrize("days", ["W-FRI", "MS", "QE", "W-MON"])
def test_bars_of_a_week_or_longer_are_refused(tmp_path, days):
    dates = pd.date_range("2020-01-01", periods=30, freq=days)
    rows = pd.DataFrame(dict.fromkeys(FIELDS, 5), index=dates.rename("Date"))
    assert "Expected one a session" in refusal(tmp_path / "A.csv", rows.to_csv())


@pytest.mark.parametrize("time", ["15:30:00-05:00", "15:30:00", "20:30:00+00:00", "10:30:00-05:00", "12:00:00"])
def test_one_bar_a_day_of_an_hour_within_it_is_refused(tmp_path, time):
    text = table(date=f"%Y-%m-%d {time}")
    assert "bars within a day" in refusal(tmp_path / "A.csv", text)


def test_many_bars_a_day_are_refused(tmp_path):
    stamps = pd.DatetimeIndex([day + pd.Timedelta(hours=hour) for day in DAYS for hour in (10, 11, 12, 13)])
    rows = pd.DataFrame({name: np.arange(len(stamps)) + 5 for name in FIELDS}, index=stamps.rename("Date"))
    assert "bars within a day" in refusal(tmp_path / "A.csv", rows.to_csv())
    apart = rows.assign(Time=stamps.strftime("%H:%M")).set_axis(stamps.normalize().rename("Date"))
    assert "column Time tells them apart" in refusal(tmp_path / "A.csv", apart.to_csv())


@pytest.mark.parametrize("grain", ["W", "60", "1Hour", "weekly"])
def test_a_column_that_says_the_grain_is_heard(tmp_path, grain):
    lines = table().splitlines()
    text = "\n".join(["<PER>," + lines[0], *(f"{grain},{line}" for line in lines[1:])])
    assert "Expected daily bars" in refusal(tmp_path / "A.csv", text)
    daily = "\n".join(["<PER>," + lines[0], *(f"D,{line}" for line in lines[1:])])
    require_rows(fetched(tmp_path / "A.csv", daily))


# ---- several tickers


def long(column: str, names: tuple[str, str] = ("AAPL", "MSFT")) -> pd.DataFrame:
    return pd.concat([BASE.assign(**{column: names[0]}), OTHER.assign(**{column: names[1]})])


TICKER_HEADINGS = [
    "Name",
    "tic",
    "unique_id",
    "instrument",
    "code",
    "asset",
    "Stock",
    "sym",
    "SYMBOL",
    "<TICKER>",
    "Company",
]


@pytest.mark.parametrize("heading", TICKER_HEADINGS)
def test_a_column_of_tickers_is_known_by_many_names(tmp_path, heading):
    long(heading).to_csv(tmp_path / "all.csv")
    long(heading).reset_index().to_parquet(tmp_path / "all.parquet")
    for name in ("all.csv", "all.parquet"):
        assert FilesSource(str(tmp_path / name)).tickers() == ["AAPL", "MSFT"]
        require_rows(fetched(tmp_path / name, ticker="AAPL"))
        require_rows(fetched(tmp_path / name, ticker="MSFT"), OTHER)


def test_a_ticker_column_wins_over_one_of_names(tmp_path):
    long("Symbol").assign(Name="Some Company").to_csv(tmp_path / "all.csv")
    assert FilesSource(str(tmp_path / "all.csv")).tickers() == ["AAPL", "MSFT"]


def test_one_name_in_all_rows_is_no_ticker_unless_it_looks_like_one(tmp_path):
    BASE.assign(Name="Apple Inc.").to_csv(tmp_path / "AAPL.csv")
    assert FilesSource(str(tmp_path / "AAPL.csv")).tickers() == ["AAPL"]
    BASE.assign(Name="MSFT").to_csv(tmp_path / "prices.csv")
    assert FilesSource(str(tmp_path / "prices.csv")).tickers() == ["MSFT"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_unknown_column_that_tells_companies_apart_is_named(tmp_path, suffix):
    path = tmp_path / f"all.{suffix}"
    frame = long("firm").reset_index()
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    with pytest.raises(SourceUnusable, match=r"column firm tells them apart \(AAPL, MSFT, …\).*--columns firm=ticker"):
        fetched(path)
    require_rows(fetched(path, ticker="MSFT", said="#columns=firm=ticker"), OTHER)


def wide(joint: str) -> str:
    """One heading a column, of a field and a ticker."""
    frames = [
        base.rename(columns=lambda name, t=t: joint.format(t=t, f=name)) for t, base in (("AAPL", BASE), ("M", OTHER))
    ]
    return pd.concat(frames, axis=1).to_csv()


@pytest.mark.parametrize("joint", ["{f}_{t}", "{t}_{f}", "{t} {f}", "{t}.{f}", "{f} {t}", "{f}|{t}", "('{f}', '{t}')"])
def test_a_wide_table_is_read_a_ticker_at_a_time(tmp_path, joint):
    (tmp_path / "wide.csv").write_text(wide(joint))
    assert FilesSource(str(tmp_path / "wide.csv")).tickers() == ["AAPL", "M"]
    require_rows(fetched(tmp_path / "wide.csv", ticker="AAPL"))
    require_rows(fetched(tmp_path / "wide.csv", ticker="M"), OTHER)


@pytest.mark.parametrize("tickers", [["AAPL"], ["AAPL", "M"], ["7203.T", "BRK-B"]])
@pytest.mark.parametrize("ticker_first", [True, False])
@pytest.mark.parametrize("names", [["Price", "Ticker"], [None, None]])
def test_headings_of_two_levels_are_read_either_way_round(tmp_path, tickers, ticker_first, names):
    frame = pd.concat(dict(zip(tickers, (BASE, OTHER), strict=False)), axis=1)
    frame = frame if ticker_first else frame.swaplevel(axis=1)
    frame.columns = frame.columns.set_names(names[::-1] if ticker_first else names)
    frame.to_csv(tmp_path / "wide.csv")
    frame.to_parquet(tmp_path / "wide.parquet")
    frame.reset_index().to_parquet(tmp_path / "reset.parquet")
    for name in ("wide.csv", "wide.parquet", "reset.parquet"):
        files = FilesSource(str(tmp_path / name))
        assert files.tickers() == sorted(tickers)
        require_rows(fetched(tmp_path / name, ticker=tickers[0]))


def test_a_wide_table_begins_where_its_ticker_does(tmp_path):
    late = OTHER.iloc[8:]
    frame = pd.concat({"AAPL": BASE, "IPO": late}, axis=1).swaplevel(axis=1)
    frame.to_csv(tmp_path / "wide.csv")
    require_rows(fetched(tmp_path / "wide.csv", ticker="IPO"), late)


def test_parts_of_a_data_set_are_one_table(tmp_path):
    whole = long("Ticker").reset_index()
    spark = tmp_path / "spark" / "prices.parquet"
    spark.mkdir(parents=True)
    (spark / "_SUCCESS").touch()
    for part in range(2):
        whole.iloc[part * 20 : part * 20 + 25 - 5 * part].to_parquet(spark / f"part-0000{part}-c000.snappy.parquet")
    pq.write_to_dataset(pa.Table.from_pandas(whole, preserve_index=False), tmp_path / "hive", partition_cols=["Ticker"])
    by_day = tmp_path / "flat"
    by_day.mkdir()
    for day, rows in whole.groupby("Date"):
        (by_day / f"{day:%Y-%m-%d}.csv.gz").write_bytes(gzip.compress(rows.to_csv(index=False).encode()))
    for folder in (tmp_path / "spark", spark, tmp_path / "hive", by_day):
        assert FilesSource(str(folder)).tickers() == ["AAPL", "MSFT"]
        require_rows(fetched(folder, ticker="MSFT"), OTHER)


def test_panels_in_a_folder_are_one_table(tmp_path):
    whole = long("Ticker")
    for name, rows in (("first_half", whole[whole.index < DAYS[10]]), ("second_half", whole[whole.index >= DAYS[10]])):
        rows.to_csv(tmp_path / f"{name}.csv")
    require_rows(fetched(tmp_path, ticker="AAPL"))


def test_a_delta_table_s_folder_is_no_folder_of_files(tmp_path):
    (tmp_path / "_delta_log").mkdir()
    BASE.reset_index().to_parquet(tmp_path / "part-00000.parquet")
    with pytest.raises(SourceError, match="a Delta table"):
        FilesSource(str(tmp_path)).tickers()


# ---- one value or one file stops one ticker


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_value_that_is_no_number_stops_its_own_ticker(tmp_path, suffix):
    path = tmp_path / f"all.{suffix}"
    frame = long("Ticker").reset_index().astype({"Volume": str})
    frame.loc[30, "Volume"] = "many"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    files = FilesSource(str(path))
    require_rows(files.fetch("AAPL", first=None, last=LAST).bars)
    failed = files.fetch("MSFT", first=None, last=LAST)
    assert failed.outcome == Outcome.BAD_SCHEMA
    assert "column Volume: 'many' is not a number" in failed.known


def test_a_damaged_page_stops_the_tickers_on_it(tmp_path):
    path = tmp_path / "all.parquet"
    pq.write_table(pa.Table.from_pandas(long("Ticker").reset_index()), path, row_group_size=20, compression="gzip")
    column = pq.ParquetFile(path).metadata.row_group(1).column(2)
    content = bytearray(path.read_bytes())
    start = column.data_page_offset
    content[start : start + column.total_compressed_size // 2] = b"\xff" * (column.total_compressed_size // 2)
    path.write_bytes(content)
    files = FilesSource(str(path))
    require_rows(files.fetch("AAPL", first=None, last=LAST).bars)
    failed = files.fetch("MSFT", first=None, last=LAST)
    assert failed.outcome == Outcome.BAD_SCHEMA
    assert "not readable" in failed.known


def test_dates_as_bytes_are_text(tmp_path):
    rows = BASE.reset_index().assign(Date=[f"{day:%Y-%m-%d}".encode() for day in DAYS])
    rows.to_parquet(tmp_path / "SBUX.parquet")
    require_rows(fetched(tmp_path / "SBUX.parquet"))


# ---- names


@pytest.mark.parametrize(
    ("name", "ticker"),
    [
        ("BRK_B.csv", "BRK.B"),
        ("BRK.B.csv", "BRK.B"),
        ("1_AAPL.csv", "AAPL"),
        ("MSFT (1).csv", "MSFT"),
        ("MSFT - Copy.csv", "MSFT"),
        ("AAPL.US.csv", "AAPL"),
        ("aapl.us.txt", "AAPL"),
        ("table_aapl.csv", "AAPL"),
        ("daily_adjusted_IBM.csv", "IBM"),
        ("aapl-2024.csv", "AAPL"),
        ("AAPL_2023-01-03.csv.gz", "AAPL"),
        ("Download Data - STOCK_US_XNAS_AAPL.csv", "AAPL"),
        ("500325.csv", "500325"),
        ("7203.T.csv", "7203.T"),
        ("BTC-USD.csv", "BTC-USD"),
        ("HistoricalData_1700000000000.csv", ""),
        ("prices.csv", ""),
    ],
)
def test_a_file_s_name_may_say_more_than_its_ticker(name, ticker):
    assert ticker_of(f"some/where/{name}") == ticker


def test_a_name_that_is_no_ticker_is_refused_until_the_ticker_is_said(tmp_path):
    path = tmp_path / "HistoricalData_1700000000000.csv"
    assert "#ticker=AAPL" in refusal(path, table())
    require_rows(fetched(path, ticker="SBUX", said="#ticker=sbux"))
    BASE.to_csv(tmp_path / "MSFT.csv")
    folder = FilesSource(str(tmp_path))
    require_rows(folder.fetch("MSFT", first=None, last=LAST).bars)
    assert "is no ticker" in folder.fetch(path.stem.upper(), first=None, last=LAST).known


def test_what_was_taken_for_a_ticker_is_said_before_anything_is_stored(tmp_path):
    for name in ("BRK_B.csv", "MSFT (1).csv", "SBUX.csv"):
        BASE.to_csv(tmp_path / name)
    files = FilesSource(str(tmp_path))
    assert files.tickers() == ["BRK.B", "MSFT", "SBUX"]
    assert files.remarks == [f"{tmp_path}: tickers were taken from names: BRK.B from BRK_B.csv, MSFT from MSFT (1).csv"]


@pytest.mark.parametrize(
    "codes", [[7203, 6758], [7203.0, 6758.0], ["000001", "600000"], ["NA", "1E5"], ["TRUE", "NAN"]]
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_codes_and_odd_tickers_stay_what_they_are(tmp_path, codes, suffix):
    path = tmp_path / f"all.{suffix}"
    frame = pd.concat([BASE.assign(Ticker=code) for code in codes]).reset_index()
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    assert FilesSource(str(path)).tickers() == sorted(str(code).removesuffix(".0") for code in codes)


# ---- what is said of a file is part of its source


def test_how_a_file_is_read_is_part_of_its_spec(tmp_path):
    spec = f"files:{tmp_path}/SAP.csv#date-format=%d/%m/%Y&decimal=,&columns=Kurs=close,Stück=volume*100"
    files = open_source(spec)
    assert files.spec == spec
    text = table(heading="Datum,Open,High,Low,Kurs,Stück", date="%d/%m/%Y", sep=";", decimal=",")
    (tmp_path / "SAP.csv").write_text(text)
    bars = files.fetch("SAP", first=None, last=LAST).bars
    require_rows(bars, BASE.assign(Volume=BASE["Volume"] * 100))


@pytest.mark.parametrize(
    ("said", "fact"),
    [
        ("#decimal=x", "--decimal must be"),
        ("#date-format=soon", "--date-format must be"),
        ("#columns=Volume", "--columns must be"),
        ("#columns=Volume=shares", "--columns must be"),
        ("#columns=Volume=volume*0", "--columns must be"),
    ],
)
def test_a_reading_that_means_nothing_is_refused(said, fact):
    with pytest.raises(UnknownSource, match=fact):
        open_source(f"files:a.csv{said}")


def test_the_options_of_a_request_become_part_of_its_source():
    data = DataSettings(source="files:a.csv#decimal=,", date_format="%d/%m/%Y", columns="Kurs=close")
    assert data.source == "files:a.csv#decimal=,&date-format=%d/%m/%Y&columns=Kurs=close"
    assert (data.date_format, data.columns) == (None, None)
    assert DataSettings(source=data.source, columns="").source == "files:a.csv#decimal=,&date-format=%d/%m/%Y"
    assert DataSettings(**data.model_dump()) == data
    with pytest.raises(ValidationError, match="--decimal is for files"):
        DataSettings(source="yahoo", decimal=",")


def test_a_source_that_was_read_in_a_way_before_is_read_in_that_way_again(tmp_path):
    root, path = str(tmp_path / "data"), tmp_path / "SAP.csv"
    path.write_text(table())
    facts = asdict(LastIngest(f"files:{path}#decimal=,", None, "none"))
    draft = Draft(kind=LAST_INGEST, name="prices", files={}, facts=facts, provenance=provenance(source="files"))
    ArtifactStore(open_store(root, writable=True)).put(draft)
    assert known_reading(f"files:{path}", root) == f"files:{path}#decimal=,"
    assert known_reading(f"files:{path}#decimal=.", root) == f"files:{path}#decimal=."
    assert known_reading(f"files:{tmp_path}/other.csv", root) == f"files:{tmp_path}/other.csv"
