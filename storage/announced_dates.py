"""The events table: announced earnings and dated events of any other kind, point in time, each change kept for ever.

A row is a change: from the close of `seen` on, a source names a date, or (`withdrawn`) no longer names it. Rows are
only ever added. What was known at a close is what the rows seen until then say, so that a later change cannot reach it:
1. a date that the source did not name before: a row, seen when the source says, else at `as_of`;
2. a date to come that the source no longer names: withdrawn, seen at `as_of`; one that has passed is left alone;
3. a date with another `when`, or one that is named again: a row, seen at `as_of`;
4. a kind of event of a ticker with a change of this source that was seen after `as_of`: nothing, for that past is
   closed.

An event has a ticker, or MARKET where it is the whole market's. Its kind is EARNINGS or a word of the source's own.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import NamedTuple, cast

import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable

from volcast.storage.append_tables import AppendTable, among
from volcast.storage.schemas import EVENTS, conform

EARNINGS = "earnings"  # the kind of rows without one, too, which release 0.1.0 wrote
MARKET = ""  # the ticker of an event of the whole market
KEY = ["ticker", "announced_for", "kind"]
KNOWN_COLUMNS = ["ticker", "announced_for", "when", "first_seen", "first_seen_assumed", "source"]

Key = tuple[str, pd.Timestamp, str]  # ticker, announced_for, kind


class Announcement(NamedTuple):
    """What a source says of one date."""

    when: str
    first_seen: pd.Timestamp
    assumed: bool
    withdrawn_seen: pd.Timestamp | None


class Change(NamedTuple):
    """A row of `EVENTS`, but for source and recorded_at; `is_new` for a date that the source did not name before."""

    ticker: str
    announced_for: pd.Timestamp
    kind: str
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


class EventTable(AppendTable):
    """The table `events` of a store."""

    name, schema = "events", EVENTS
    order = (*KEY, "seen", "recorded_at")

    def record(
        self, announcements: pd.DataFrame, *, as_of: date, source: str, asked: Iterable[str] | None = None
    ) -> Changes:
        """Add what `source` says at the close of `as_of` and did not say before: one commit, or none.

        `announcements`: ticker, announced_for, when and, where the source has them, kind (by default EARNINGS),
        first_seen, withdrawn_seen (NaT where unknown) and first_seen_assumed (bool), none of them after `as_of`. An
        assumed first_seen holds for the first answer of a ticker or of a kind only: what a source adds later was first
        seen at `as_of`. `asked`: the tickers that the source answered for, also without a date; by default those of
        the rows. Raises ValueError, VersionConflict.
        """
        answers = _answers_of(announcements, as_of)
        tickers = {ticker for ticker, *_ in answers} | set(asked or ())
        changes: list[Change] = []

        def find_new(table: DeltaTable | None) -> pa.Table:
            stored = self.history(table=table)
            changes[:] = _changes(answers, stored.loc[stored["source"] == source], tickers, as_of)
            if not changes:
                return EVENTS.empty_table()
            rows = pd.DataFrame(changes).assign(source=source, recorded_at=pd.Timestamp(datetime.now(UTC)))
            return conform(rows.sort_values([*KEY, "seen"]).loc[:, EVENTS.names], EVENTS)

        self.append(find_new)
        return _count(changes)

    def known(self, tickers: Iterable[str] | None = None, *, as_of: date) -> pd.DataFrame:
        """The dates of earnings that stood at the close of `as_of`, past ones included; all tickers by default.

        ticker str, announced_for datetime64[s], when str (bmo, amc or empty), first_seen datetime64[s],
        first_seen_assumed bool, source str; one row a ticker and date, in that order (of several sources the first to
        know it). No row where nothing is known, or there is no table.
        """
        events = self._standing(tickers, as_of)
        return events.loc[events["kind"] == EARNINGS, KNOWN_COLUMNS].reset_index(drop=True)

    def dated(self, tickers: Iterable[str], *, as_of: date) -> pd.DataFrame:
        """The events of other kinds than earnings that stood at the close of `as_of`, those of the whole market too.

        The columns of `known` and kind str; one row a ticker (MARKET), date and kind, in that order.
        """
        events = self._standing([*tickers, MARKET], as_of)
        return events.loc[events["kind"] != EARNINGS, [*KNOWN_COLUMNS, "kind"]].reset_index(drop=True)

    def events(self, tickers: Iterable[str], *, as_of: date) -> pd.DataFrame:
        """`known`, with `dated` below it where there are any; only then it has a column `kind`."""
        tickers = list(tickers)
        known, dated = self.known(tickers, as_of=as_of), self.dated(tickers, as_of=as_of)
        return known if dated.empty else pd.concat([known.assign(kind=EARNINGS), dated], ignore_index=True)

    def _standing(self, tickers: Iterable[str] | None, as_of: date) -> pd.DataFrame:
        rows = self.history(tickers)
        dates = _states(rows.loc[rows["seen"] <= _midnight(as_of)])
        standing = dates.loc[~dates["withdrawn"]].sort_values([*KEY, "first_seen", "source"])
        return standing.drop_duplicates(KEY)

    def history(self, tickers: Iterable[str] | None = None, *, table: DeltaTable | None = None) -> pd.DataFrame:
        """Every change of the open `table` or of the newest version: EVENTS, by ticker, date and when it was seen."""
        rows = self.read("true" if tickers is None else among("ticker", tickers), table)
        rows["kind"] = rows["kind"].astype(object).fillna(EARNINGS).astype(str)
        return rows.astype({"announced_for": "datetime64[s]", "seen": "datetime64[s]"})

    def version(self) -> int | None:
        """The newest version, or None where there is no table."""
        table = self.open()
        return table.version() if table else None


def _midnight(day: date) -> pd.Timestamp:
    return cast(pd.Timestamp, pd.Timestamp(day))


def _answers_of(announcements: pd.DataFrame, as_of: date) -> dict[Key, Announcement]:
    """What a source says of each ticker and date; of a date that is there twice, the row that was seen first."""
    now, answers = _midnight(as_of), {}
    for row in announcements.to_dict("records"):
        key: Key = (row["ticker"], row["announced_for"], row.get("kind", EARNINGS))
        first_seen, withdrawn_seen = row.get("first_seen"), row.get("withdrawn_seen")
        first_seen = first_seen if isinstance(first_seen, pd.Timestamp) else now  # NaT is none
        withdrawn_seen = withdrawn_seen if isinstance(withdrawn_seen, pd.Timestamp) else None
        newest = max(first_seen, withdrawn_seen or first_seen)
        if newest > now:
            raise ValueError(
                f"{key[0]} {key[1]:%Y-%m-%d}: expected what was seen by {as_of}, got one seen on {newest:%Y-%m-%d}. "
                "Nothing was stored; leave out what came later."
            )
        if key not in answers or first_seen < answers[key].first_seen:
            is_assumed = bool(row.get("first_seen_assumed", False))
            answers[key] = Announcement(row["when"], first_seen, is_assumed, withdrawn_seen)
    return answers


def _states(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each ticker, date and source as one: its newest state, and since when it was known."""
    ordered = rows.sort_values(["seen", "recorded_at", "withdrawn"], kind="stable")
    first = pd.DataFrame(ordered.drop_duplicates([*KEY, "source"])[[*KEY, "source", "seen", "seen_assumed"]])
    first = first.rename(columns={"seen": "first_seen", "seen_assumed": "first_seen_assumed"})
    newest = ordered.drop_duplicates([*KEY, "source"], keep="last")[[*KEY, "source", "when", "withdrawn"]]
    return newest.merge(first, on=[*KEY, "source"])


def _changes(answers: dict[Key, Announcement], stored: pd.DataFrame, asked: set[str], as_of: date) -> list[Change]:
    """The changes that bring one source's `stored` rows to what it says."""
    now = _midnight(as_of)
    tickers, kinds, later = set(stored["ticker"]), set(stored["kind"]), stored.loc[stored["seen"] > now]
    closed = set(zip(later["ticker"], later["kind"], strict=True))
    before = {(row["ticker"], row["announced_for"], row["kind"]): row for row in _states(stored).to_dict("records")}
    changes: list[Change] = []
    for key, answer in answers.items():
        old, (ticker, _, kind) = before.get(key), key
        if (ticker, kind) in closed:
            continue
        if old is None:
            seen = now if answer.assumed and ticker in tickers and kind in kinds else answer.first_seen
            changes.append(Change(*key, answer.when, seen, answer.assumed, withdrawn=False, is_new=True))
        elif answer.withdrawn_seen is None and (old["withdrawn"] or old["when"] != answer.when):
            changes.append(Change(*key, answer.when, now, seen_assumed=False, withdrawn=False))
        if answer.withdrawn_seen is not None and not (old and old["withdrawn"]):
            changes.append(Change(*key, answer.when, answer.withdrawn_seen, seen_assumed=False, withdrawn=True))
    for key, old in before.items():
        ticker, announced_for, kind = key
        is_gone = key not in answers and ticker in asked and (ticker, kind) not in closed and announced_for > now
        if is_gone and not old["withdrawn"]:
            changes.append(Change(*key, old["when"], now, seen_assumed=False, withdrawn=True))
    return changes


def _count(changes: list[Change]) -> Changes:
    """A ticker's withdrawn dates count as moved as far as it has new ones to move to."""
    new = Counter(change.ticker for change in changes if change.is_new)
    withdrawn = Counter(change.ticker for change in changes if change.withdrawn)
    moved = (new & withdrawn).total()
    other = len(changes) - new.total() - withdrawn.total()
    return Changes(new.total() - moved, moved, withdrawn.total() - moved, other)
