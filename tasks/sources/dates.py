"""The session of each row, from whatever a file has as its date.

1. dates of Arrow, numpy and pandas are what they are
2. text of one ISO form; in another, the one order of day and month that fits all rows
3. numbers: 20230103, or seconds, milli-, micro- or nanoseconds since 1970, or the days of Excel, by their magnitude
4. a date with a time zone is the exchange's own, as written, whatever the offset
5. stamps in UTC are labels of dates where all are midnights; else midnights of the zone in which all are midnights;
   else instants, whose dates are New York's
6. one time of day that is no midnight, open or close is that of bars within a day, which are refused

What is not certain is refused, with the option that settles it.
"""

import re
from typing import NoReturn, cast

import pandas as pd

from volcast.tasks.sources.reading import EPOCHS, FileReader

MARKET_TIME_ZONE = "America/New_York"
# A zone for each offset at which stock exchanges keep their clocks, and each rule for summer time.
ZONES = (
    MARKET_TIME_ZONE, "America/Chicago", "America/Los_Angeles", "America/Sao_Paulo", "America/Argentina/Buenos_Aires",
    "America/Santiago", "America/Mexico_City", "America/Bogota", "Europe/London", "Europe/Berlin", "Africa/Lagos",
    "Africa/Johannesburg", "Europe/Helsinki", "Africa/Cairo", "Asia/Jerusalem", "Asia/Riyadh", "Asia/Dubai",
    "Asia/Karachi", "Asia/Kolkata", "Asia/Colombo", "Asia/Dhaka", "Asia/Bangkok", "Asia/Hong_Kong", "Asia/Tokyo",
    "Australia/Brisbane", "Australia/Sydney", "Pacific/Auckland",
)  # fmt: skip
DAILY_TIMES = ("00:00", "09:30", "16:00")  # of a day's label, and of the market's open and close
FEWEST_STAMPS = 5  # of which one can say that they are all at one time of day
TIME = r"(?P<time>\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?[AaPp][Mm])?)"
ISO = rf"^(?P<date>\d{{4}}-\d{{2}}-\d{{2}})(?:[T ]{TIME} ?(?P<zone>Z|UTC|[+-]\d{{2}}:?\d{{2}})?)?$"
UTC_ZONE = r"Z|UTC|[+-]00:?00"
NUMERIC = rf"^(?P<a>\d{{1,4}})(?P<mark>[-/. ])(?P<b>\d{{1,2}})(?P=mark)(?P<c>\d{{4}}|\d{{1,2}})(?:[ T,]+{TIME})?$"
EAST_ASIAN = r"^(\d{4})\s*[年년]\s*(\d{1,2})\s*[月월]\s*(\d{1,2})\s*[日일]$"
WORDED = ("%b %d %Y", "%d %b %Y", "%d %b %y", "%B %d %Y", "%d %B %Y", "%a %b %d %Y", "%Y %b %d", "%d%b%Y")
WHOLE_NUMBER = r"^\d{5,19}(?:\.0*)?$"
DAYS_OF_EXCEL = (29_221, 73_050)  # 1980 to 2099; fewer may be days since 1970
SECONDS = (3e8, 1e10)  # 1979 to 2286; a thousand times as much is milliseconds, and so on
EXPECTED = "is not a date. Expected YYYY-MM-DD, such as 2019-12-11."


def sessions_of(column: pd.Series, reader: FileReader) -> pd.Series:
    """The dates (datetime64[s], midnight, NaT for what is none) of a column. Raises SourceUnusable, naming the file."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        local, utc = column.dt.tz_localize(None), column.dt.tz_convert("UTC").dt.tz_localize(None)
        stamps = _from_utc(utc, reader) if local.equals(utc) else _daily(local, reader)
    elif pd.api.types.is_datetime64_dtype(column.dtype):
        stamps = column.to_numpy()
        if ((days := stamps.astype("datetime64[D]")) == stamps).all():
            return pd.Series(days.astype("datetime64[s]"), column.index)
        stamps = _daily(column, reader)
    elif pd.api.types.is_numeric_dtype(column.dtype):
        stamps = _of_numbers(column.astype("float64"), reader)
    else:
        stamps = _of_text(column.astype(str).str.strip(), reader)
    return stamps.dt.normalize().astype("datetime64[s]")


def _of_text(texts: pd.Series, reader: FileReader) -> pd.Series:
    if reader.reading.date_format:
        return _as_told(texts, reader.reading.date_format)
    plain = _parsed(texts, "%Y-%m-%d")
    if plain.notna().all():
        return plain
    if (found := _groups(texts, ISO))["date"].notna().mean() > 0.5:
        return _of_iso(found, reader)
    texts = texts.str.replace(EAST_ASIAN, r"\1-\2-\3", regex=True)
    if texts.str.fullmatch(WHOLE_NUMBER).mean() > 0.5:
        return _of_numbers(cast(pd.Series, pd.to_numeric(texts, errors="coerce")), reader)
    if (found := _groups(texts, NUMERIC))["a"].notna().mean() > 0.5:
        return _of_parts(found, texts, reader)
    return _of_words(texts, plain, reader)


def _as_told(texts: pd.Series, date_format: str) -> pd.Series:
    if date_format in EPOCHS:
        return _of_unit(cast(pd.Series, pd.to_numeric(texts, errors="coerce")), date_format)
    parsed = pd.to_datetime(texts, format=date_format, errors="coerce", utc="%z" in date_format.lower())
    return cast(pd.Series, parsed.dt.tz_localize(None) if parsed.dt.tz else parsed)


def _of_iso(found: dict[str, pd.Series], reader: FileReader) -> pd.Series:
    """Naive datetimes, NaT for a text that is not a date."""
    dates = _parsed(found["date"], "%Y-%m-%d")
    if bool(found["time"].isna().all()):
        return dates
    stamps = _stamps(found["date"], found["time"])
    is_utc = found["zone"].str.fullmatch(UTC_ZONE).fillna(False).astype(bool) & dates.notna()
    local = _daily(stamps.loc[~is_utc], reader)
    return pd.concat([local, _from_utc(stamps.loc[is_utc], reader)]).reindex(dates.index)


def _of_numbers(numbers: pd.Series, reader: FileReader) -> pd.Series:
    if reader.reading.date_format in EPOCHS:
        return _of_unit(numbers, reader.reading.date_format)
    known = numbers.dropna()
    dated = _parsed(known.where(known.between(1e7, 1e8), 0).astype("int64").astype(str), "%Y%m%d")
    if len(known) and dated.notna().mean() > 0.5:
        return dated.reindex(numbers.index)
    if known.between(*DAYS_OF_EXCEL).mean() > 0.5:
        return _of_unit(numbers, "excel")
    for power, unit in enumerate(("s", "ms", "us", "ns")):
        if known.between(*(bound * 1000**power for bound in SECONDS)).mean() > 0.5:
            return _from_utc(_of_unit(numbers, unit), reader)
    return _refuse_dates(reader, known, "numbers of which it is not known what they count", ", ".join(EPOCHS))


def _of_unit(numbers: pd.Series, unit: str) -> pd.Series:
    """Of Excel, 1 is 1900-01-01; it takes 1900 for a leap year."""
    days = numbers - 25_569 if unit == "excel" else numbers
    return cast(pd.Series, pd.to_datetime(days, unit=EPOCHS[unit], errors="coerce")).astype("datetime64[us]")


def _of_parts(found: dict[str, pd.Series], texts: pd.Series, reader: FileReader) -> pd.Series:
    """Three numbers; which is the day and which the month, all rows together say, or their weekdays."""
    first = found["a"].dropna()
    year = "%Y" if found["c"].dropna().str.len().max() == 4 else "%y"
    dates = found["a"] + "-" + found["b"] + "-" + found["c"]
    if (first.str.len() == 4).mean() > 0.5:
        return _with_time(_parsed(dates, "%Y-%m-%d"), found["time"], reader)
    orders = {order: _parsed(dates, order.replace("/", "-")) for order in (f"%d/%m/{year}", f"%m/%d/{year}")}
    if year == "%y":
        orders["%y/%m/%d"] = _parsed(dates, "%y-%m-%d")
    if set(found["mark"].dropna()) == {"."}:  # nobody writes the month first, and dots
        orders.pop(f"%m/%d/{year}")
    whole = {name: read for name, read in orders.items() if read.loc[first.index].notna().all()}
    if len(whole) > 1:  # the wrong order puts two of seven trading days on a weekend
        whole = {name: read for name, read in whole.items() if not (read.dropna().dt.day_of_week >= 5).any()}
    if len(whole) == 1:
        return _with_time(next(iter(whole.values())), found["time"], reader)
    known = f"{texts.iloc[0]!r} may be a day and a month or a month and a day" if whole else "days and months change"
    return _refuse_dates(reader, texts, known, " or ".join(orders))


def _of_words(texts: pd.Series, plain: pd.Series, reader: FileReader) -> pd.Series:
    """Months by their names; what is no date at all is the first row's fault, not the column's."""
    parts = _groups(texts, rf"^(?P<date>.*?)(?:[ T,]+{TIME}(?: ?[A-Z]{{2,4}})?)?$")
    plainer = parts["date"].str.replace(r"[-.,/\s]+", " ", regex=True).str.strip()
    for written in WORDED:
        if (parsed := _parsed(plainer, written)).notna().mean() > 0.5:
            return _with_time(parsed, parts["time"], reader)
    return plain


def _with_time(dates: pd.Series, times: pd.Series, reader: FileReader) -> pd.Series:
    if times.notna().any():
        dates = _stamps(dates.dt.strftime("%Y-%m-%d"), times)
    return _daily(dates, reader)


def _groups(texts: pd.Series, pattern: str) -> dict[str, pd.Series]:
    """The named groups of a pattern, NaN where it does not fit."""
    return {str(name): column for name, column in texts.str.extract(pattern).items()}


def _stamps(dates: pd.Series, times: pd.Series) -> pd.Series:
    texts = dates + " " + times.fillna("00:00").str.upper().str.zfill(5)
    return _parsed(texts, "mixed" if texts.str.endswith("M").any() else "ISO8601")


def _parsed(texts: pd.Series, written: str) -> pd.Series:
    return cast(pd.Series, pd.to_datetime(texts, format=written, errors="coerce"))


def _from_utc(utc: pd.Series, reader: FileReader) -> pd.Series:
    """On the exchange's clock."""
    known = utc.dropna()
    if (known.dt.normalize() == known).all():
        return utc
    local = _wall(known, MARKET_TIME_ZONE)
    is_of_market = local.dt.strftime("%H:%M").isin(DAILY_TIMES[1:]).mean() > 0.9 and (local.dt.day_of_week < 5).all()
    for zone in () if is_of_market else ZONES:
        stamps = _wall(known, zone)
        if (stamps.dt.normalize() == stamps).all():
            if zone != MARKET_TIME_ZONE:
                reader.note(f"its dates are midnights of {zone} written in UTC; the dates there were taken")
            return stamps.reindex(utc.index)
    return _daily(local, reader).reindex(utc.index)


def _wall(utc: pd.Series, zone: str) -> pd.Series:
    return utc.dt.tz_localize("UTC").dt.tz_convert(zone).dt.tz_localize(None)


def _daily(stamps: pd.Series, reader: FileReader) -> pd.Series:
    """The same, unless they are of bars within a day. One time of day is that of all, but for days that end early."""
    known = stamps.dropna()
    if (known.dt.normalize() == known).all() or len(known) < FEWEST_STAMPS or reader.reading.date_format:
        return stamps
    times = known.dt.strftime("%H:%M").value_counts()
    if not times.loc[times.index.isin(DAILY_TIMES)].sum() > len(known) / 2:
        shown = f"{known.iloc[0]:%Y-%m-%d %H:%M}"
        reason = f"{times.index[0]} is no midnight, open or close: bars within a day, such as {shown}"
        reader.refuse(
            f"{reason}. Expected one bar a session, for the whole of it; nothing was taken. "
            "If they are that, say how they are written: --date-format '%Y-%m-%d %H:%M:%S'"
        )
    return stamps


def _refuse_dates(reader: FileReader, found: pd.Series, what: str, choices: str) -> NoReturn:
    shown = ", ".join(re.sub(r"\.0$", "", str(value))[:30] for value in found.iloc[:3])
    reader.refuse(f"dates are {what} ({shown}). Nothing was taken. Say it by: --date-format {choices}")
