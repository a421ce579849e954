"""An earnings calendar from a file: `files:PATH-or-URL`, CSV or Parquet with Ticker, Earnings_Date[, When, First_Seen].

Tickers are looked up whether they are written with a dot or a dash: BRK.B here is BRK-B of Yahoo's prices.
"""

from datetime import date

import pandas as pd

from tasks.sources.columns import tidy_events
from tasks.sources.files import find_files
from tasks.sources.protocol import Announced, Outcome, Pace, SourceUnusable
from tasks.sources.tables import Unreachable, read_cells


class FileEvents:
    """Announcements out of one file, which is read at once: SourceMissing, SourceUnusable where that cannot be."""

    pace: Pace | None = None

    def __init__(self, location: str) -> None:
        self.location = location
        self.spec = f"files:{location}"
        self._down = ""
        try:
            events = _read(location)
            self._rows_of = {str(name): rows for name, rows in events.groupby(events["ticker"].map(_alike))}
        except Unreachable as error:  # a server that is down is no mistake of the request
            self._rows_of, self._down = {}, str(error)

    def announced(self, ticker: str, *, as_of: date) -> Announced:
        """The rows of `ticker`, those that the file itself says were first seen after `as_of` left out."""
        if self._down:
            return Announced(ticker=ticker, outcome=Outcome.DOWN, known=self._down)
        rows = self._rows_of.get(_alike(ticker))
        if rows is not None:
            rows = rows.loc[~(rows["first_seen"] > pd.Timestamp(as_of))]
        if rows is None or rows.empty:
            known = f"{self.location} names no date of {ticker}"
            return Announced(ticker=ticker, outcome=Outcome.EMPTY, known=known)
        events = rows.assign(ticker=ticker).reset_index(drop=True)
        return Announced(ticker=ticker, outcome=Outcome.OK, events=events)


def _read(location: str) -> pd.DataFrame:
    system, paths, is_folder = find_files(location)
    if is_folder:
        raise SourceUnusable(f"{location}: a folder. Expected one CSV or Parquet file with Ticker and Earnings_Date.")
    return tidy_events(read_cells(location, system, paths[0]), location)


def _alike(ticker: str) -> str:
    return ticker.replace(".", "-")
