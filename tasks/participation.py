"""How long orders take at a share of the volume, by the newest forecast of a store, and how liquid positions are."""

import csv
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from volcast.models.panel import HORIZONS
from volcast.models.participation import BUCKETS, CERTAINTIES, bucket, order_progress, sessions_needed
from volcast.models.text import counted, format_millions, listed, meant
from volcast.storage.errors import UNREADABLE, NotStored, first_line
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.storage.store import open_store
from volcast.tasks.reports.views import Rows, as_forecasts, latest_frame
from volcast.tasks.settings import DataSettings, OrderSettings, is_simulated
from volcast.tasks.sources.numerals import numbers_of
from volcast.tasks.sources.reading import FileReader

NOT_JUDGED = (
    "By volume alone, 80 % sure, counted from the forecast's cutoff. Not judged: what",
    "trading does to the price, and the limits that a fund sets itself.",
)


@dataclass(frozen=True, kw_only=True)
class Participation:
    """How far orders get at a share of the volume."""

    name: str  # of the forecast
    cutoff: date
    simulated: bool
    by: str  # the versions and makers of the forecasts
    rate: float
    settlement: int  # sessions
    is_portfolio: bool
    shares: dict[str, float]  # of each ticker
    progress: dict[str, pd.DataFrame]  # ticker -> its rows of volcast.models.participation: order_progress
    closes: dict[str, float]  # of the cutoff

    def needed(self, ticker: str) -> dict[float, int | None]:
        """Certainty -> the sessions that the order takes; None for more than are forecast."""
        return {certainty: sessions_needed(self.progress[ticker], certainty) for certainty in CERTAINTIES}

    @property
    def facts(self) -> dict[str, Any]:
        """For a program: of each order what it takes by certainty, and how far it gets by each session."""
        orders = {
            ticker: {
                "shares": shares,
                "sessions_needed": self.needed(ticker),
                "progress": self.progress[ticker].to_dict("records"),
            }
            for ticker, shares in self.shares.items()
        }
        made = {"forecast": self.name, "by": self.by, "cutoff": self.cutoff, "simulated": self.simulated}
        return made | {"rate": self.rate, "orders": orders}


def participation_of(data: DataSettings, order: OrderSettings) -> Participation:
    """By the newest forecast of the order's name. Raises NotStored, which names what has none, and ValueError."""
    shares = {str(order.ticker): order.shares} if order.shares else read_portfolio(order.portfolio)
    store = open_store(data.root)
    latest = latest_frame(Ledger(store), order.name)
    sessions, cutoff = latest["ticker"].value_counts().to_dict(), latest["cutoff"].iloc[0].date()
    there = [str(ticker) for ticker, count in sessions.items() if count == HORIZONS]
    if lacking := sorted(set(shares) - set(there)):
        remedy = f"Bring in the prices (volcast ingest --tickers {','.join(lacking[:8])}), then run: volcast forecast"
        raise NotStored(
            f"{listed(lacking)}: no forecast of {order.name} from the close of {cutoff}, the newest; it has "
            f"{listed(sorted(there))}.{meant(lacking, there)} {remedy}"
        )
    rows = latest.loc[latest["ticker"].isin(list(shares))]
    progress = order_progress(as_forecasts(rows), shares, order.rate)
    made = [
        f"v{version} by {model}" for version, model in dict.fromkeys(zip(rows["version"], rows["model"], strict=True))
    ]
    prices = PriceTable(store).read(sorted(shares), first=cutoff, last=cutoff)
    return Participation(
        name=order.name,
        cutoff=cutoff,
        simulated=is_simulated(data.root),
        by=listed(made, 3),
        rate=order.rate,
        settlement=order.settlement,
        is_portfolio=order.portfolio is not None,
        shares=shares,
        progress={str(ticker): own for ticker, own in progress.groupby("unique_id")},
        closes=dict(zip(prices["ticker"], prices["close"], strict=True)),
    )


def read_portfolio(path: Path | None) -> dict[str, float]:
    """Ticker -> shares of a .csv or .parquet file; of a ticker that is there twice the sum, short or long alike.

    Raises ValueError for a file without them.
    """
    assert path is not None
    if not path.is_file():
        raise ValueError(f"--portfolio {path}: there is no such file.")
    is_parquet = path.suffix.lower() == ".parquet"
    try:
        cells = pd.read_parquet(path) if is_parquet else pd.read_csv(path, sep=None, engine="python", dtype=str)
    except (csv.Error, ValueError, *UNREADABLE) as error:
        raise ValueError(f"--portfolio {path}: expected .csv or .parquet; {first_line(error)}.") from error
    cells.columns = [str(name).strip().lower() for name in cells.columns]
    if lacking := {"ticker", "shares"} - set(cells.columns):
        raise ValueError(
            f"--portfolio {path}: expected the columns ticker and shares; {listed(sorted(lacking))} lacks."
        )
    counts = numbers_of({"shares": pd.Series(cells["shares"])}, FileReader(file=str(path)))["shares"].to_numpy()
    held: dict[str, float] = {}
    for row, (ticker, count) in enumerate(zip(cells["ticker"], counts, strict=True)):
        if not (isinstance(ticker, str) and ticker.strip() and np.isfinite(count)):
            shares = cells["shares"].iloc[row]
            raise ValueError(
                f"--portfolio {path}: row {row + 1} has no ticker or no number of shares: {ticker}, {shares}."
            )
        held[ticker.strip().upper()] = held.get(ticker.strip().upper(), 0) + float(count)
    if not any(held.values()):
        raise ValueError(f"--portfolio {path}: it holds no shares.")
    return {ticker: abs(count) for ticker, count in held.items() if count}


def order_words(found: Participation, ticker: str) -> list[str]:
    """What one order takes, a line a certainty."""
    sessions = found.progress[ticker]["ds"].tolist()
    return [
        f"{certainty:.0%} sure to be done within {counted(needed, 'session')}, by {sessions[needed - 1]:%a %Y-%m-%d}"
        if needed
        else f"{certainty:.0%} sure only after more than the {HORIZONS} sessions that are forecast"
        for certainty, needed in found.needed(ticker).items()
    ]


def progress_rows(found: Participation, ticker: str) -> Rows:
    """How far one order gets, a row a session; what can be traded, in million shares."""
    return [
        {
            "by the close of": f"{row['ds']:%a %Y-%m-%d}",
            "all is done": f"{row['chance']:.0%}",
            **{
                f"{certainty:.0%} sure": format_millions(row[f"shares_{certainty * 100:.0f}"])
                for certainty in CERTAINTIES
            },
        }
        for row in found.progress[ticker].to_dict("records")
    ]


def portfolio_rows(found: Participation) -> Rows:
    """A row a position, the slowest first."""
    rows, more = [], f"> {HORIZONS}"
    for ticker in found.shares:
        needed = found.needed(ticker)
        taken = {f"sessions, {certainty:.0%}": str(count or more) for certainty, count in needed.items()}
        value = f"{found.shares[ticker] * found.closes[ticker] / 1e6:,.2f}"
        rows.append({"ticker": ticker, "shares": f"{found.shares[ticker]:,.0f}", "value, M": value, **taken})
        rows[-1]["bucket"] = _bucket(found, ticker)
    chances = {ticker: own["chance"].sum() for ticker, own in found.progress.items()}  # the less, the slower
    return sorted(rows, key=lambda row: chances[row["ticker"]])


def bucket_rows(found: Participation) -> Rows:
    """A row a bucket of the rule: its positions, and their share of the value."""
    buckets = {ticker: _bucket(found, ticker) for ticker in found.shares}
    values = {ticker: found.shares[ticker] * found.closes[ticker] for ticker in found.shares}
    return [
        {
            "bucket": each,
            "positions": f"{sum(own == each for own in buckets.values()):,}",
            "of value": f"{sum(values[own] for own in buckets if buckets[own] == each) / sum(values.values()):.1%}",
        }
        for each in BUCKETS
    ]


def _bucket(found: Participation, ticker: str) -> str:
    return bucket(found.progress[ticker], found.needed(ticker)[CERTAINTIES[0]], found.settlement)
