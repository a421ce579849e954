"""How things stood when `monitor` looked last, as gauges for Prometheus; docs/operate.md has a line on each."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from prometheus_client.core import GaugeMetricFamily

from volcast.models.forecasters import FALLBACK
from volcast.models.scores import ALL
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.records import Manifest
from volcast.storage.store import open_store
from volcast.tasks.run_tools import store_label
from volcast.tasks.stored_models import read_or_fault

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "monitored_timestamp_seconds": ("When monitor looked last: the other gauges are of then", ()),
    "prices_sessions_behind": ("Sessions from the newest stored one to the last closed one of the market", ()),
    "tickers": ("Tickers in use", ()),
    "tickers_late": ("Tickers without a row of the newest stored session", ()),
    "quarantined_sessions": ("Of the last 20 sessions of each ticker those with only rows that broke a rule", ()),
    "restated_sessions": ("Of the last 20 sessions of each ticker those with a value that has changed", ()),
    "fallback_in_use": ("1 where har made the newest forecast in place of a model, else 0", ()),
    "held_back_rows": ("Rows of the newest forecast that could not be believed", ()),
    "model_age_sessions": ("Sessions since the newest one that the champion was made of", ()),
    "live_mase": ("Live MASE over the last target sessions", ("sessions",)),
    "live_mase_to_har": ("Live MASE over the last target sessions, as a share of that of har", ("sessions",)),
    "live_coverage": ("Share of the volumes inside of an interval, last target sessions", ("sessions", "interval")),
    "finding": ("1 for each finding of docs/operate.md that there is", ("code", "needs_person")),
}  # name, behind volcast_ -> what it is, and its labels beside store and model


def gauges(roots: Iterable[str]) -> list[GaugeMetricFamily]:
    """Those of the stores at these roots, of each model that is watched. Raises StoreUnreachable."""
    found = {
        name: GaugeMetricFamily(f"volcast_{name}", words, labels=("store", "model", *labels))
        for name, (words, labels) in GAUGES.items()
    }
    for store in filter(None, (read_or_fault(partial(open_store, root))[0] for root in roots)):
        artifacts = ArtifactStore(store)
        for model in read_or_fault(partial(artifacts.names, "health"))[0] or ():
            health, _ = read_or_fault(partial(artifacts.newest, "health", model))
            for name, labels, value in _values(health) if health else ():
                found[name].add_metric((store_label(store.url), model, *labels), value)
    return list(found.values())


def _values(health: Manifest) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Name, labels and value of each gauge; what an earlier release did not know is left out."""
    facts: Any = health.facts
    yield "monitored_timestamp_seconds", (), health.created_at.timestamp()
    numbers = {
        "prices_sessions_behind": facts.get("behind"),
        "tickers": facts.get("tickers"),
        "tickers_late": len(facts.get("late", ())),
        "quarantined_sessions": facts.get("quarantined"),
        "restated_sessions": facts.get("restated"),
        "fallback_in_use": facts.get("by") == FALLBACK,
        "held_back_rows": facts.get("held_back"),
        "model_age_sessions": facts.get("model_age"),
    }
    yield from ((name, (), float(number)) for name, number in numbers.items() if number is not None)
    for row in facts.get("skill", ()):
        if row["ticker"] == ALL:
            sessions = str(row["sessions"])
            yield "live_mase", (sessions,), row["mase"]
            if row["mase_har"] is not None:
                yield "live_mase_to_har", (sessions,), row["mase_har"]
            yield "live_coverage", (sessions, "80"), row["coverage_80"]
            yield "live_coverage", (sessions, "95"), row["coverage_95"]
    for finding in facts.get("findings", ()):
        yield "finding", (finding["code"], str(finding["needs_person"]).lower()), 1
