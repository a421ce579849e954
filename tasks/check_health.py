"""Say how prices, champion and forecasts stand; keep it, a version a day, and show it."""

from datetime import date
from typing import Any

import pandas as pd
from prefect import get_run_logger, task

from models.sessions import session_before, sessions_after
from models.skill import ALL, WINDOWS, live_skill
from storage.artifacts import ArtifactStore, Draft
from storage.health import Health, InputDrift, Skill
from storage.ledger import Ledger
from storage.prices import PriceTable
from storage.quarantine import QuarantineTable
from storage.records import Manifest
from storage.restatements import RestatementTable
from storage.store import Store, open_store
from tasks.choose_forecaster import trust_in
from tasks.events import Event, emit
from tasks.findings import RECENT, findings_of
from tasks.provenance import provenance
from tasks.settings import DataSettings, TrainingSettings, WatchSettings, last_session, root_of
from tasks.stored import scorecard_of

EVENTS: dict[str, Event] = {
    "STALE_PRICES": "volcast.prices.stale",
    "BAD_PRICES": "volcast.prices.broken",
    "NO_FORECAST": "volcast.forecast.missing",
    "FALLBACK_IN_USE": "volcast.fallback.used",
    "ERROR_BREACH": "volcast.quality.breached",
    "DRIFT": "volcast.drift.detected",
}  # code of a finding -> what is told to the automations
SHOWN = 20  # tickers
SKILL_SPAN = 2 * max(WINDOWS)  # sessions in which the largest window is looked for


@task(task_run_name="check health on {data.day}")
def check_health(
    data: DataSettings, training: TrainingSettings, watch: WatchSettings, drift: InputDrift | None
) -> Health:
    """How things stand, as a version of the artifact `health`.

    It is stored when its events have been sent: a run that dies before leaves them to the next one.
    """
    store = open_store(root_of(data.store, data.source), writable=True)
    health = health_of(store, data, training, watch, drift)
    draft = Draft(
        kind="health",
        name=health.name,
        files={},
        facts=health.model_dump(mode="json"),
        provenance=provenance(source=data.source),
    )
    artifacts = ArtifactStore(store)
    before = artifacts.newest("health", health.name)
    log = get_run_logger()
    log.info("%s", health.words)
    for finding in health.findings:
        (log.warning if finding.needs_person else log.info)("%s: %s %s", finding.code, finding.words, finding.remedy)
    _tell(store, health, before, watch)
    artifacts.put(draft)
    return health


def _tell(store: Store, health: Health, before: Manifest | None, watch: WatchSettings) -> None:
    """Events of what was found, each once a session."""
    facts: Any = before.facts if before is not None else {}
    known = {each["code"] for each in facts["findings"]} if facts.get("session") == str(health.session) else set()
    for finding in health.findings:
        if finding.code in EVENTS and finding.code not in known:
            words = f"{finding.words} {finding.remedy}"
            emit(EVENTS[finding.code], store.url, words=words, code=finding.code, session=str(health.session))
    if health.untrained is None or health.untrained >= watch.retrain_sessions:
        words = "No version was trained yet." if health.untrained is None else f"{health.untrained} new sessions."
        emit("volcast.sessions.enough", store.url, words=words, session=str(health.session))


def present_health(data: DataSettings) -> Health:
    """How things stand now, from the store alone.

    The drift is the one that was measured last: measuring takes a while. Raises NotStored before any prices are.
    """
    store, training = open_store(root_of(data.store, data.source)), TrainingSettings()
    newest = ArtifactStore(store).newest("health", training.recipe)
    facts: Any = newest.fact("drift") if newest else None
    drift = None if facts is None else InputDrift.model_validate(facts)
    return health_of(store, data, training, WatchSettings(), drift)


def health_of(
    store: Store, data: DataSettings, training: TrainingSettings, watch: WatchSettings, drift: InputDrift | None
) -> Health:
    """How things stand, from the store alone. Raises NotStored before any prices are."""
    last = PriceTable(store).coverage()["last"]
    ends = {str(t): end.date() for t, end in last.items() if not data.tickers or t in data.tickers}
    session, tickers = last_session(data.as_of, data.now), list(ends)
    cutoff, name = min(max(ends.values()), session), training.method().model_name(tickers)
    first = session_before(cutoff, RECENT)
    trust, ledger = trust_in(store, name, cutoff, session), Ledger(store)
    published = _newest_published(ledger, name)
    health = Health(
        name=name,
        simulated=data.source.startswith("simulated"),
        session=session,
        cutoff=cutoff,
        behind=trust.behind,
        tickers=len(tickers),
        late=tuple(ticker for ticker, end in ends.items() if end < cutoff),
        quarantined=_broken(store, tickers, first),
        restated=len(_recent(RestatementTable(store).read(), tickers, first)),
        champion=str(trust.champion.artifact) if trust.champion else "",
        model_age=trust.model_age,
        untrained=_sessions_since_training(store, name, cutoff),
        **published,
        errors=trust.errors,
        drift=drift,
        skill=_skill(ledger, name, session_before(cutoff, SKILL_SPAN)),
        findings=(),
    )
    return health.model_copy(update={"findings": findings_of(health, watch)})


def _sessions_since_training(store: Store, name: str, cutoff: date) -> int | None:
    """From the newest session that the newest scored version was trained on; None before the first."""
    artifacts = ArtifactStore(store)
    newest = artifacts.newest("scorecard", name)
    if newest is None:
        return None
    trained = scorecard_of(artifacts, store.url, newest).model.scaler.features.snapshot.cutoff
    return sessions_after(trained, cutoff)


def _newest_published(ledger: Ledger, name: str) -> dict[str, Any]:
    """forecast_cutoff, by and why of the newest forecast."""
    cutoff = ledger.newest_cutoff(name)
    if cutoff is None:
        return {"forecast_cutoff": None, "by": "", "why": ""}
    rows = ledger.forecasts(name, first=cutoff)
    newest = rows.loc[rows["published"]].iloc[-1]
    return {"forecast_cutoff": cutoff, "by": newest["model"], "why": newest["why"]}


def _recent(rows: pd.DataFrame, tickers: list[str], first: date) -> pd.MultiIndex:
    """The sessions of the tickers that are in the rows, from `first` on: ticker and session, each once."""
    own = rows.loc[rows["ticker"].isin(tickers) & (rows["session"] >= pd.Timestamp(first))]
    return pd.MultiIndex.from_frame(own[["ticker", "session"]].astype({"session": "datetime64[s]"}).drop_duplicates())


def _broken(store: Store, tickers: list[str], first: date) -> int:
    """The sessions of the tickers, from `first` on, of which there are only rows that broke a rule."""
    broken = _recent(QuarantineTable(store).read(), tickers, first)
    stored = PriceTable(store).raw(broken.unique("ticker"), first=first)
    return len(broken.difference(_recent(stored, tickers, first)))


def _skill(ledger: Ledger, name: str, first: date) -> tuple[Skill, ...]:
    """Of all tickers over each window, and of those over the longest that fare worst against har."""
    rows = live_skill(ledger.scores(name, first=first))
    if rows.empty:
        return ()
    is_whole = rows["ticker"] == ALL
    worst = rows.loc[~is_whole & (rows["sessions"] == max(WINDOWS))].sort_values("mase_har", ascending=False)
    chosen = pd.concat([rows.loc[is_whole], worst.head(SHOWN)]).astype(object)
    records = chosen.where(chosen.notna(), None).to_dict("records")
    return tuple(Skill.model_validate(record) for record in records)
