"""The ledger: every forecast that was published, and, when the actual volume has come, how good it was.

Both tables, `forecasts` and `scores`, only ever grow. A new version of a cutoff's forecast is new rows; the version
that was published first is the one that is scored. Beside what was published stand har and naive, and a champion that a
fallback stood in for, from the same cutoff: what one was worth against the other follows from `scores` alone.
"""

from collections.abc import Sequence
from datetime import date

import pandas as pd
from deltalake import DeltaTable

from volcast.storage.append_tables import AppendTable, among, literal, query
from volcast.storage.schemas import FORECASTS, SCORES
from volcast.storage.store import Store

FORECAST_KEY = ["name", "version", "ticker", "cutoff", "h", "model"]
SCORE_KEY = ["name", "ticker", "cutoff", "h", "model"]
QUANTILES = ("lo_95", "lo_80", "median", "hi_80", "hi_95")
FIRST_PUBLISHED = """
    SELECT f.* FROM forecasts f
    JOIN (SELECT name AS its_name, ticker AS its_ticker, cutoff AS its_cutoff, min(version) AS first_version
          FROM forecasts WHERE published AND {between} GROUP BY name, ticker, cutoff)
    ON name = its_name AND ticker = its_ticker AND cutoff = its_cutoff AND version = first_version
    WHERE {between}"""
NOT_SCORED = """ AND NOT EXISTS (SELECT 1 FROM scores s WHERE s.name = f.name AND s.ticker = f.ticker
    AND s.cutoff = f.cutoff AND s.h = f.h)"""


class ForecastTable(AppendTable):
    """The table `forecasts` of a store."""

    name, schema = "forecasts", FORECASTS
    order = ("cutoff", "version", "ticker", "h", "model")
    key, near = FORECAST_KEY, "cutoff"


class ScoreTable(AppendTable):
    """The table `scores` of a store."""

    name, schema = "scores", SCORES
    order = ("ds", "ticker", "cutoff", "model")
    key, near = SCORE_KEY, "cutoff"


class Ledger:
    """The tables `forecasts` and `scores` of a store."""

    def __init__(self, store: Store) -> None:
        self._forecasts, self._scores = ForecastTable(store), ScoreTable(store)

    def record_forecasts(self, rows: pd.DataFrame) -> int:
        """Add the rows (the columns of FORECASTS) that are not stored yet; returns how many. Raises ValueError."""
        return self._forecasts.add(rows)

    def record_scores(self, rows: pd.DataFrame) -> int:
        """Add the rows (the columns of SCORES) that are not stored yet; returns how many. Raises ValueError."""
        return self._scores.add(rows)

    def pending(self, *, first: date, last: date) -> pd.DataFrame:
        """The forecasts, as first published, of targets from `first` to `last` that have no score yet.

        The columns of FORECASTS; by name, ticker, cutoff, h and model.
        """
        between = f"ds >= {literal(first)} AND ds <= {literal(last)}"
        tables = self._open(between)
        if "forecasts" not in tables:
            return self._forecasts.frame(FORECASTS.empty_table())
        sql = FIRST_PUBLISHED.format(between=between)
        rows = query(sql + NOT_SCORED if "scores" in tables else sql, **tables)
        return self._forecasts.frame(rows).sort_values(SCORE_KEY, ignore_index=True)

    def forecasts(self, name: str, *, first: date) -> pd.DataFrame:
        """Every row of the forecast `name` with a cutoff from `first` on: FORECASTS, by cutoff, version, ticker, h."""
        return self._forecasts.read(f"name = {literal(name)} AND cutoff >= {literal(first)}")

    def newest_cutoff(self, name: str) -> date | None:
        """The last session from which `name` was forecast; None before the first forecast."""
        found = self._forecasts.select("max(cutoff) AS cutoff", f"name = {literal(name)}")["cutoff"].to_pylist()
        return found[0] if found else None

    def scores(self, name: str, *, first: date, tickers: Sequence[str] | None = None) -> pd.DataFrame:
        """The scores of the forecast `name` of targets from `first` on: SCORES, by target, ticker, cutoff, model.

        `tickers`: only theirs; by default all.
        """
        only = "" if tickers is None else f" AND {among('ticker', tickers)}"
        return self._scores.read(f"name = {literal(name)} AND ds >= {literal(first)}{only}")

    def errors(self, name: str, *, first: date) -> pd.DataFrame:
        """Errors of the forecast `name` in units of the scale, of targets from `first` on: ds (datetime64[s]), model,
        published, rows, mase (the sum over these rows); by target and model. Empty before any is scored.
        """
        return self._aggregate(
            first,
            f"""
            SELECT ds, model, published, count(*) AS rows, sum(absolute_error / scale) AS mase FROM scores
            WHERE name = {literal(name)} AND ds >= {literal(first)} AND scale IS NOT NULL
            GROUP BY ds, model, published ORDER BY ds, model""",
        )

    def shares_below(self, name: str, *, first: date) -> pd.DataFrame:
        """How many volumes, of targets from `first` on, were at or below each quantile that was published: h, rows,
        lo_95, lo_80, median, hi_80, hi_95; by h. Empty before any is scored.
        """
        below = ", ".join(f"sum(CASE WHEN s.actual <= f.{each} THEN 1 ELSE 0 END) AS {each}" for each in QUANTILES)
        same = " AND ".join(f"s.{column} = f.{column}" for column in FORECAST_KEY)
        return self._aggregate(
            first,
            f"""
            SELECT s.h, count(*) AS rows, {below} FROM scores s JOIN forecasts f ON {same}
            WHERE s.published AND s.name = {literal(name)} AND s.ds >= {literal(first)} GROUP BY s.h ORDER BY s.h""",
        )

    def _aggregate(self, first: date, sql: str) -> pd.DataFrame:
        tables = self._open(f"ds >= {literal(first)}")
        return query(sql, **tables).to_pandas(date_as_object=False) if len(tables) == 2 else pd.DataFrame()

    def _open(self, condition: str) -> dict[str, DeltaTable]:
        """Those of the two tables that there are, by name; for rows that meet the condition. Raises StoreError."""
        opened = {table.name: table.open(condition) for table in (self._forecasts, self._scores)}
        return {name: table for name, table in opened.items() if table is not None}
