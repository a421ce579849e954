"""The ledger: every forecast that was published, and, when the actual volume has come, how good it was.

Both tables, `forecasts` and `scores`, only ever grow. A new version of a cutoff's forecast is new rows; the version
that was published first is the one that is scored. Beside what was published stand har and naive, and a champion that a
fallback stood in for, from the same cutoff: what one was worth against the other follows from `scores` alone.
"""

from collections.abc import Sequence
from datetime import date

import pandas as pd
import pyarrow as pa
from deltalake import QueryBuilder

from storage.append_tables import Additions
from storage.price_files import among, literal
from storage.schemas import FORECASTS, SCORES
from storage.store import Store

FORECAST_TABLE, SCORE_TABLE = "forecasts", "scores"
FORECAST_KEY = ["name", "version", "ticker", "cutoff", "h", "model"]
QUANTILES = ("lo_95", "lo_80", "median", "hi_80", "hi_95")
SCORE_KEY = ["name", "ticker", "cutoff", "h", "model"]
FIRST_PUBLISHED = """
    SELECT f.* FROM forecasts f
    JOIN (SELECT name AS its_name, ticker AS its_ticker, cutoff AS its_cutoff, min(version) AS first_version
          FROM forecasts WHERE published AND {between} GROUP BY name, ticker, cutoff)
    ON name = its_name AND ticker = its_ticker AND cutoff = its_cutoff AND version = first_version
    WHERE {between}"""
NOT_SCORED = """ AND NOT EXISTS (SELECT 1 FROM scores s WHERE s.name = f.name AND s.ticker = f.ticker
    AND s.cutoff = f.cutoff AND s.h = f.h)"""


class Ledger:
    """The tables `forecasts` and `scores` of a store."""

    def __init__(self, store: Store) -> None:
        self._forecasts = Additions(store, FORECAST_TABLE, FORECASTS)
        self._scores = Additions(store, SCORE_TABLE, SCORES)

    def record_forecasts(self, rows: pd.DataFrame) -> int:
        """Keep the rows (the columns of FORECASTS) that are not there yet; returns how many. Raises ValueError."""
        return self._forecasts.add_new(rows, FORECAST_KEY, among=_cutoffs_of(rows)) if len(rows) else 0

    def record_scores(self, rows: pd.DataFrame) -> int:
        """Keep the rows (the columns of SCORES) that are not there yet; returns how many. Raises ValueError."""
        return self._scores.add_new(rows, SCORE_KEY, among=_cutoffs_of(rows)) if len(rows) else 0

    def pending(self, *, first: date, last: date) -> pd.DataFrame:
        """The forecasts, as first published, of targets from `first` to `last` that have no score yet.

        The columns of FORECASTS; by name, ticker, cutoff, h and model.
        """
        forecasts, scores = self._forecasts.open(), self._scores.open()
        if forecasts is None:
            return FORECASTS.empty_table().to_pandas(date_as_object=False)
        sql = FIRST_PUBLISHED.format(between=f"ds >= {literal(first)} AND ds <= {literal(last)}")
        tables = QueryBuilder().register(FORECAST_TABLE, forecasts)
        if scores is not None:
            tables, sql = tables.register(SCORE_TABLE, scores), sql + NOT_SCORED
        rows = pa.table(tables.execute(sql)).select(FORECASTS.names).cast(FORECASTS).to_pandas(date_as_object=False)
        return rows.sort_values(SCORE_KEY, ignore_index=True)

    def forecasts(self, name: str, *, first: date) -> pd.DataFrame:
        """Every row of the forecast `name` with a cutoff from `first` on: FORECASTS, by cutoff, version, ticker, h."""
        rows = self._forecasts.rows(f"name = {literal(name)} AND cutoff >= {literal(first)}")
        return rows.sort_values(["cutoff", "version", "ticker", "h", "model"], ignore_index=True)

    def newest_cutoff(self, name: str) -> date | None:
        """The last session from which `name` was forecast; None before the first forecast."""
        found = self._forecasts.query("max(cutoff) AS cutoff", f"name = {literal(name)}")["cutoff"].to_pylist()
        return found[0] if found else None

    def scores(self, name: str, *, first: date, tickers: Sequence[str] | None = None) -> pd.DataFrame:
        """The scores of the forecast `name` of targets from `first` on: SCORES, by target, ticker, cutoff, model.

        `tickers`: only theirs; by default all.
        """
        only = "" if tickers is None else f" AND {among('ticker', tickers)}"
        rows = self._scores.rows(f"name = {literal(name)} AND ds >= {literal(first)}{only}")
        return rows.sort_values(["ds", "ticker", "cutoff", "model"], ignore_index=True)

    def errors(self, name: str, *, first: date) -> pd.DataFrame:
        """Errors of the forecast `name` in units of the scale, of targets from `first` on: ds (datetime64[s]), model,
        published, rows, mase (the sum over these rows); by target and model. Empty before any is scored.
        """
        sql = f"""SELECT ds, model, published, count(*) AS rows, sum(absolute_error / scale) AS mase FROM scores
            WHERE name = {literal(name)} AND ds >= {literal(first)} AND scale IS NOT NULL
            GROUP BY ds, model, published ORDER BY ds, model"""
        return self._counted(sql)

    def shares_below(self, name: str, *, first: date) -> pd.DataFrame:
        """How many volumes, of targets from `first` on, were at or below each quantile that was published: h, rows,
        lo_95, lo_80, median, hi_80, hi_95; by h. Empty before any is scored.
        """
        below = ", ".join(f"sum(CASE WHEN s.actual <= f.{each} THEN 1 ELSE 0 END) AS {each}" for each in QUANTILES)
        same = " AND ".join(f"s.{column} = f.{column}" for column in FORECAST_KEY)
        sql = f"""SELECT s.h, count(*) AS rows, {below} FROM scores s JOIN forecasts f ON {same}
            WHERE s.published AND s.name = {literal(name)} AND s.ds >= {literal(first)} GROUP BY s.h ORDER BY s.h"""
        return self._counted(sql)

    def _counted(self, sql: str) -> pd.DataFrame:
        """What a query of both tables gives; an empty frame before there is anything in them."""
        forecasts, scores = self._forecasts.open(), self._scores.open()
        if forecasts is None or scores is None:
            return pd.DataFrame()
        tables = QueryBuilder().register(FORECAST_TABLE, forecasts).register(SCORE_TABLE, scores)
        return pa.table(tables.execute(sql)).to_pandas(date_as_object=False)


def _cutoffs_of(rows: pd.DataFrame) -> str:
    """Only the files of these cutoffs need be opened."""
    first, last = pd.to_datetime(rows["cutoff"]).agg(["min", "max"])
    return f"cutoff >= {literal(first.date())} AND cutoff <= {literal(last.date())}"
