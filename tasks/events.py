"""volcast's own events, which start flows and send alerts by the automations of prefect.yaml and flows/automations.py.

Each concerns a thing of one store: its resource is `volcast.<thing>.<root>`, with the root as a label, so that an
automation listens to its own store only. An event outside of a Prefect server is lost, and nothing depends on it.
"""

from typing import Literal

from prefect.events import emit_event
from pydantic import JsonValue

Event = Literal[
    "volcast.prices.published",  # a new version of the prices
    "volcast.prices.stale",  # they are too far behind the market
    "volcast.prices.broken",  # too many rows broke a rule
    "volcast.sessions.enough",  # since the newest training, for another one
    "volcast.drift.detected",  # of the inputs
    "volcast.quality.breached",  # the champion errs too much
    "volcast.fallback.used",  # har published
    "volcast.forecast.missing",  # none was published from the newest session
    "volcast.champion.moved",  # another version forecasts from now on
    "volcast.day.ended",  # a daily run has done its work, or found none
]


def emit(event: Event, root: str, *, words: str, labels: dict[str, str] | None = None, **facts: JsonValue) -> None:
    """Send the event to Prefect's server; `words` is a sentence for people, `facts` more in its payload."""
    thing = event.split(".")[1]
    resource = {"prefect.resource.id": f"volcast.{thing}.{root}", "volcast.root": root, **(labels or {})}
    emit_event(event, resource, payload={"words": words, **facts})
