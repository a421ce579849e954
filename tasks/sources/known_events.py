"""What a source says of announced dates, as it was known at a close.

1. a date without first_seen counts as known ten sessions ahead; one to come, when the source is asked today, as of now
2. what was not known yet at that close is left out
3. of two dates of earnings less than ten sessions apart the later seen one holds, where the source says when each
   was seen
"""

from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd

from volcast.models.calendar_names import NEW_YORK
from volcast.models.panel import EARNINGS
from volcast.models.sessions import market_calendar
from volcast.tasks.sources.source import EVENT_COLUMNS, Announced, Outcome

KNOWN_AHEAD = 10  # sessions: a history without first_seen must be no better than a calendar that is asked each session


def known_events(answers: Sequence[Announced], *, as_of: date, is_now: bool, calendar: str = NEW_YORK) -> pd.DataFrame:
    """What `EventTable.record` takes: EVENT_COLUMNS, kind, first_seen_assumed, withdrawn_seen; nothing of later."""
    frames = [answer.events for answer in answers if answer.outcome == Outcome.OK and len(answer.events)]
    events = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=EVENT_COLUMNS)
    events = events.reindex(columns=[*EVENT_COLUMNS, "kind"]).astype({"kind": object})
    events["kind"] = events["kind"].fillna(EARNINGS)
    events = events.astype({"announced_for": "datetime64[s]", "first_seen": "datetime64[s]"})
    sessions, now = market_calendar(calendar).sessions.as_unit("s"), pd.Timestamp(as_of).as_unit("s")
    place = sessions.searchsorted(pd.DatetimeIndex(events["announced_for"]))
    is_unsaid = events["first_seen"].isna()
    is_seen_now = is_unsaid & is_now & (events["announced_for"] > now)
    ahead = pd.Series(sessions[np.maximum(place - KNOWN_AHEAD, 0)], index=events.index)
    first_seen = events["first_seen"].mask(is_unsaid, ahead).mask(is_seen_now, now)
    events = events.assign(first_seen=first_seen, first_seen_assumed=is_unsaid & ~is_seen_now, place=place)
    events = events.loc[events["first_seen"] <= now]
    can_move = ~events["first_seen_assumed"] & (events["kind"] == EARNINGS)
    withdrawn = [_superseded(rows) for _, rows in events.loc[can_move].groupby("ticker")]
    seen = pd.concat(withdrawn) if withdrawn else pd.Series(dtype="datetime64[s]")
    return events.assign(withdrawn_seen=seen.reindex(events.index)).drop(columns="place")


def _superseded(rows: pd.DataFrame) -> pd.Series:
    """Since when another date of the ticker holds instead of each: one close to it, seen later and before it passed."""
    place, first_seen = rows["place"].to_numpy(), rows["first_seen"].to_numpy()
    is_close = np.abs(place[:, None] - place) < KNOWN_AHEAD
    is_later = (first_seen > first_seen[:, None]) & (first_seen <= rows["announced_for"].to_numpy()[:, None])
    candidates = np.where(is_close & is_later, first_seen, np.datetime64("NaT"))
    return pd.Series(pd.DataFrame(candidates).min(axis=1).to_numpy(), index=rows.index)
