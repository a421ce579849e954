"""The events table: announced earnings dates, point in time, each change kept for ever.

A row is a change: from the close of `seen` on, a source names a date, or (`withdrawn`) no longer names it. Rows are
only ever added. What was known at a close is what the rows seen until then say, so that a later change cannot reach it:
1. a date that the source did not name before: a row, seen when the source says, else at `as_of`;
2. a date to come that the source no longer names: withdrawn, seen at `as_of`; one that has passed is left alone;
3. a date of which another `when` is said, or that is named again: a row, seen at `as_of`;
4. a ticker of which the source has told something later than `as_of` already: nothing, for that past is closed.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import NamedTuple, cast

import pandas as pd
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from storage.append_tables import MAX_LOST_RACES, Additions
from storage.errors import VersionConflict
from storage.schemas import EVENTS, conform
from storage.store import Store

KEY = ["ticker", "announced_for"]
KNOWN_COLUMNS = [*KEY, "when", "first_seen", "first_seen_assumed", "source"]


Key = tuple[str, pd.Timestamp]  # ticker, announced_for


class Said(NamedTuple):
    """What a source says of one date."""

    when: str
    first_seen: pd.Timestamp
    assumed: bool
    withdrawn_seen: pd.Timestamp | None


class Change(NamedTuple):
    """A row of `EVENTS`, but for source and recorded_at; `is_new` for a date that the source did not name before."""

    ticker: str
    announced_for: pd.Timestamp
    when: str
    seen: pd.Timestamp
    seen_assumed: bool
    withdrawn: bool
    is_new: bool = False


@dataclass(frozen=True)
class Changes:
    """What a recording added; a date that was withdrawn while its ticker got another one was moved."""

    new: int = 0
    moved: int = 0
    withdrawn: int = 0
    other: int = 0  # another `when`, or named again


class EventTable:
    """The table `events` of a store."""

    def __init__(self, store: Store) -> None:
        self._table = Additions(store, "events", EVENTS)

    def record(
        self, announcements: pd.DataFrame, *, as_of: date, source: str, asked: Iterable[str] | None = None
    ) -> Changes:
        """Add what `source` says at the close of `as_of` and did not say before: one commit, or none.

        `announcements`: ticker, announced_for, when and, where the source has them, first_seen, withdrawn_seen (NaT
        where unknown) and first_seen_assumed (bool), none of them after `as_of`. An assumed first_seen holds for a
        ticker's first answer only: what a source adds later was first seen at `as_of`. `asked`: the tickers that the
        source answered for, also without a date; by default those of the rows. Raises ValueError, VersionConflict.
        """
        said = _said(announcements, as_of)
        tickers = {ticker for ticker, _ in said} | set(asked or ())
        for _ in range(MAX_LOST_RACES):
            table = self._table.open()
            stored = self._rows(table)
            added = _added(said, stored.loc[stored["source"] == source], tickers, as_of)
            if not added:
                return Changes()
            rows = pd.DataFrame(added).assign(source=source, recorded_at=pd.Timestamp(datetime.now(UTC)))
            try:
                self._table.commit(table, conform(rows.sort_values([*KEY, "seen"]).loc[:, EVENTS.names], EVENTS))
            except CommitFailedError:
                continue
            return _count(added)
        raise VersionConflict(
            f"{self._table.url}: lost the next version {MAX_LOST_RACES} times. See what else writes there."
        )

    def known(self, tickers: Iterable[str] | None = None, *, as_of: date) -> pd.DataFrame:
        """The dates that stood at the close of `as_of`, past ones included; all tickers by default.

        ticker str, announced_for datetime64[s], when str (bmo, amc or empty), first_seen datetime64[s],
        first_seen_assumed bool, source str; one row a ticker and date, in that order (of several sources the first to
        know it). No row where nothing is known, or there is no table.
        """
        rows = self._rows()
        rows = rows.loc[rows["seen"] <= _midnight(as_of)]
        if tickers is not None:
            rows = rows.loc[rows["ticker"].isin(list(tickers))]
        dates = _dates(rows)
        standing = dates.loc[~dates["withdrawn"]].sort_values([*KEY, "first_seen", "source"])
        return standing.drop_duplicates(KEY)[KNOWN_COLUMNS].reset_index(drop=True)

    def history(self, tickers: Iterable[str] | None = None) -> pd.DataFrame:
        """Every change, as `storage.schemas.EVENTS` has it, by ticker, date and when it was seen."""
        rows = self._rows()
        chosen = rows if tickers is None else rows.loc[rows["ticker"].isin(list(tickers))]
        return chosen.sort_values([*KEY, "seen", "recorded_at"]).reset_index(drop=True)

    def version(self) -> int | None:
        """The newest version, or None where there is no table."""
        table = self._table.open()
        return table.version() if table else None

    def _rows(self, table: DeltaTable | None = None) -> pd.DataFrame:
        """Of the version that is open, or of the newest."""
        rows = self._table.rows(table=table)
        return rows.astype({"announced_for": "datetime64[s]", "seen": "datetime64[s]"})


def _midnight(day: date) -> pd.Timestamp:
    return cast(pd.Timestamp, pd.Timestamp(day))


def _said(announcements: pd.DataFrame, as_of: date) -> dict[Key, Said]:
    """What a source says of each ticker and date; of a date that is there twice, the row that was seen first."""
    now, said = _midnight(as_of), {}
    for row in announcements.to_dict("records"):
        key: Key = (row["ticker"], row["announced_for"])
        first_seen, withdrawn_seen = row.get("first_seen"), row.get("withdrawn_seen")
        first_seen = now if first_seen is None or pd.isna(first_seen) else first_seen
        withdrawn_seen = None if withdrawn_seen is None or pd.isna(withdrawn_seen) else withdrawn_seen
        newest = max(first_seen, withdrawn_seen or first_seen)
        if newest > now:
            raise ValueError(
                f"{key[0]} {key[1]:%Y-%m-%d}: expected what was seen by {as_of}, got one seen on {newest:%Y-%m-%d}. "
                "Nothing was stored; leave out what came later."
            )
        if key not in said or first_seen < said[key].first_seen:
            said[key] = Said(row["when"], first_seen, bool(row.get("first_seen_assumed", False)), withdrawn_seen)
    return said


def _dates(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each ticker, date and source as one: its newest state, and since when it was known."""
    ordered = rows.sort_values(["seen", "recorded_at", "withdrawn"], kind="stable")
    first = pd.DataFrame(ordered.drop_duplicates([*KEY, "source"])[[*KEY, "source", "seen", "seen_assumed"]])
    first = first.rename(columns={"seen": "first_seen", "seen_assumed": "first_seen_assumed"})
    newest = ordered.drop_duplicates([*KEY, "source"], keep="last")[[*KEY, "source", "when", "withdrawn"]]
    return newest.merge(first, on=[*KEY, "source"])


def _added(said: dict[Key, Said], stored: pd.DataFrame, asked: set[str], as_of: date) -> list[Change]:
    """The changes that bring one source's `stored` rows to what it says."""
    now = _midnight(as_of)
    known, closed = set(stored["ticker"]), set(stored["ticker"][stored["seen"] > now])
    before = {(row["ticker"], row["announced_for"]): row for row in _dates(stored).to_dict("records")}
    added: list[Change] = []
    for key, told in said.items():
        old = before.get(key)
        if key[0] in closed:
            continue
        if old is None:
            seen = now if told.assumed and key[0] in known else told.first_seen
            added.append(Change(*key, told.when, seen, told.assumed, withdrawn=False, is_new=True))
        elif told.withdrawn_seen is None and (old["withdrawn"] or old["when"] != told.when):
            added.append(Change(*key, told.when, now, seen_assumed=False, withdrawn=False))
        if told.withdrawn_seen is not None and not (old and old["withdrawn"]):
            added.append(Change(*key, told.when, told.withdrawn_seen, seen_assumed=False, withdrawn=True))
    for key, old in before.items():
        is_gone = key not in said and key[0] in asked - closed and key[1] > now
        if is_gone and not old["withdrawn"]:
            added.append(Change(*key, old["when"], now, seen_assumed=False, withdrawn=True))
    return added


def _count(added: list[Change]) -> Changes:
    """A ticker's withdrawn dates count as moved as far as it has new ones to move to."""
    new = Counter(change.ticker for change in added if change.is_new)
    withdrawn = Counter(change.ticker for change in added if change.withdrawn)
    moved = (new & withdrawn).total()
    other = len(added) - new.total() - withdrawn.total()
    return Changes(new.total() - moved, moved, withdrawn.total() - moved, other)
