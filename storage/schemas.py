"""The exact Arrow schemas of the tables, and the one way in: `conform`.

Delta Lake itself turns 1.5 shares into 1 without a word, and moves a Tokyo midnight to the previous date; so a frame is
cast here, exactly, or refused.
"""

import datetime as dt

import pandas as pd
import pyarrow as pa

BAR_FIELDS = [  # what a source gives; every value is required
    pa.field("ticker", pa.string(), nullable=False),
    pa.field("session", pa.date32(), nullable=False),
    pa.field("open", pa.float64(), nullable=False),
    pa.field("high", pa.float64(), nullable=False),
    pa.field("low", pa.float64(), nullable=False),
    pa.field("close", pa.float64(), nullable=False),
    pa.field("volume", pa.int64(), nullable=False),  # shares
    pa.field("dividend", pa.float64(), nullable=False),  # per share, on its ex-session; 0.0 without one
    pa.field("split", pa.float64(), nullable=False),  # new shares per old one, on its session; 0.0 without one
    pa.field("later_adjustment", pa.float64(), nullable=False),  # see storage/adjustment.py; 1.0 where nothing is later
]
BARS = pa.schema(BAR_FIELDS)
PRICES = pa.schema(
    [pa.field("bucket", pa.int32(), nullable=False), pa.field("year", pa.int32(), nullable=False), *BAR_FIELDS]
)
QUARANTINE = pa.schema(
    [
        pa.field("ticker", pa.string(), nullable=False),
        pa.field("session", pa.date32()),  # null where the date itself could not be read
        pa.field("rule", pa.string(), nullable=False),
        pa.field("value", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("seen_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
EVENTS = pa.schema(  # a row is a change: from the close of `seen` on, the date is announced, or withdrawn
    [
        pa.field("ticker", pa.string(), nullable=False),  # empty for an event of the whole market
        pa.field("announced_for", pa.date32(), nullable=False),
        pa.field("when", pa.string(), nullable=False),  # bmo: before the open, amc: after the close, or empty
        pa.field("seen", pa.date32(), nullable=False),
        pa.field("seen_assumed", pa.bool_(), nullable=False),  # the source did not say since when it was known
        pa.field("withdrawn", pa.bool_(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("recorded_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("kind", pa.string()),  # of event; null in rows of release 0.1.0, which are of announced earnings
    ]
)
RESTATEMENTS = pa.schema(
    [
        pa.field("ticker", pa.string(), nullable=False),
        pa.field("session", pa.date32(), nullable=False),
        pa.field("column", pa.string(), nullable=False),
        pa.field("old", pa.float64(), nullable=False),
        pa.field("new", pa.float64(), nullable=False),
        pa.field("seen_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("version_before", pa.int64(), nullable=False),
        pa.field("version_after", pa.int64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)
FORECAST_KEYS = [
    pa.field("ticker", pa.string(), nullable=False),
    pa.field("cutoff", pa.date32(), nullable=False),
    pa.field("ds", pa.date32(), nullable=False),  # the target session
    pa.field("h", pa.int32(), nullable=False),  # sessions from cutoff to target, 1 or more
    pa.field("model", pa.string(), nullable=False),  # volcast, har or naive
    pa.field("published", pa.bool_(), nullable=False),  # what users were given; the others are there to be compared
    pa.field("name", pa.string(), nullable=False),  # of the forecast's artifact
    pa.field("version", pa.int64(), nullable=False),
    pa.field("model_version", pa.int64()),  # of the champion; null for har and naive, which are fitted at each cutoff
    pa.field("prices_version", pa.int64(), nullable=False),
    pa.field("why", pa.string(), nullable=False),  # why a fallback was published; empty for the champion
    pa.field("scale", pa.float64()),  # shares: the mean of |y(t) - y(t - 5)| up to the cutoff; null where there is none
]
FORECASTS = pa.schema(  # values in shares as they were at the cutoff
    [
        *FORECAST_KEYS,
        pa.field("median", pa.float64(), nullable=False),
        pa.field("mean", pa.float64(), nullable=False),
        pa.field("lo_80", pa.float64(), nullable=False),
        pa.field("hi_80", pa.float64(), nullable=False),
        pa.field("lo_95", pa.float64(), nullable=False),
        pa.field("hi_95", pa.float64(), nullable=False),
        pa.field("published_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
SCORES = pa.schema(
    [
        *FORECAST_KEYS,  # prices_version is the one that the actual is of
        pa.field("actual", pa.int64(), nullable=False),  # shares as they were at the cutoff
        pa.field("absolute_error", pa.float64(), nullable=False),  # of the median, shares
        pa.field("pinball", pa.float64(), nullable=False),  # shares, the mean of five levels
        pa.field("in_80", pa.bool_(), nullable=False),
        pa.field("in_95", pa.bool_(), nullable=False),
        pa.field("over", pa.bool_(), nullable=False),  # the median lies above the actual
        pa.field("scored_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)


def conform(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """Cast the frame to the schema without changing any value; columns come out in the schema's order.

    A session is a date, or a tz-naive midnight. Raises ValueError naming column, row, ticker and session for a missing
    or unknown column, a missing value where one is required, a fraction in an integer column, a time or a time zone
    on a session, and any other value that the type cannot hold.
    """
    if set(frame.columns) != set(schema.names) or len(frame.columns) != len(schema.names):
        raise ValueError(f"Expected the columns {schema.names}, got {list(frame.columns)}.")
    return pa.Table.from_arrays([_column(frame, field) for field in schema], schema=schema)


def _column(frame: pd.DataFrame, field: pa.Field) -> pa.Array:
    column = pd.Series(frame[field.name])
    if pa.types.is_date(field.type):
        _check_sessions(frame, column)
    elif pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
        _check_numbers(frame, column)
    try:
        array = _to_arrow(column, field.type)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        row = _first_refused(column, field.type)
        raise _refusal(frame, row, f"expected {field.name} as {field.type}, got {column.iloc[row]!r}") from error
    if array.null_count and not field.nullable:
        row = int(column.isna().to_numpy().argmax())
        raise _refusal(frame, row, f"expected a value for {field.name}, got none")
    return array


def _to_arrow(column: pd.Series, kind: pa.DataType) -> pa.Array:
    array = pa.Array.from_pandas(column, type=kind, safe=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _check_numbers(frame: pd.DataFrame, column: pd.Series) -> None:
    is_number = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
    if not is_number and len(column):  # Arrow would read "1" as 1
        raise _refusal(frame, 0, f"expected {column.name} as numbers, got {column.dtype}, such as {column.iloc[0]!r}")


def _check_sessions(frame: pd.DataFrame, column: pd.Series) -> None:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        fact = f"expected {column.name} without a time zone, got {column.dtype}; drop it with .dt.tz_localize(None)"
        raise _refusal(frame, 0, fact)
    if pd.api.types.is_datetime64_dtype(column.dtype):
        wrong = (column != column.dt.normalize()) & column.notna()
    else:
        wrong = pd.Series([not (value is None or value is pd.NaT or type(value) is dt.date) for value in column])
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise _refusal(frame, row, f"expected {column.name} as a date or a midnight, got {column.iloc[row]!r}")


def _first_refused(column: pd.Series, kind: pa.DataType) -> int:
    """The row of a value that does not convert, by bisection."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _to_arrow(column.iloc[low:middle], kind)
            low = middle
        except (pa.ArrowException, TypeError, OverflowError):
            high = middle
    return low


def _refusal(frame: pd.DataFrame, row: int, fact: str) -> ValueError:
    names = [name for name in ("ticker", "session", "announced_for", "cutoff") if name in frame.columns]
    key = [str(frame[name].iloc[row]) for name in names]
    return ValueError(
        f"{' '.join(key)}: {fact} (row {row} of {len(frame)}). Nothing was stored; correct the row first."
    )
