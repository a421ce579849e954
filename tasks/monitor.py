"""What became of the forecasts, and how prices, champion and forecasts stand.

* every forecast in the ledger whose target session has come is scored
* the newest features are compared with those that the champion was trained on
* the health of each day is stored as a version: what an operator must know, as findings with a sentence and a remedy
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import pandas as pd
from prefect import get_run_logger, task

from volcast.models.drift import CHANCE, FeatureDrift, interval_drift
from volcast.models.forecasters import FALLBACK, MODEL
from volcast.models.recipes import DEFAULT_RECIPE
from volcast.models.scores import ALL, SKILL_SPAN, WINDOWS, live_skill
from volcast.models.scores import score_forecasts as scores_of
from volcast.models.sessions import session_before, sessions_after
from volcast.models.text import counted, listed
from volcast.storage.append_tables import QuarantineTable, RestatementTable
from volcast.storage.artifacts import ArtifactStore, Draft
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.storage.records import (
    FeatureIndex,
    Finding,
    Health,
    InputDrift,
    Intervals,
    Manifest,
    ModelVersion,
    Skill,
    Snapshot,
)
from volcast.storage.schemas import SCORES
from volcast.storage.store import Store, open_store
from volcast.tasks.forecast import HELD_BACK, trust_in
from volcast.tasks.preflight import require_prices, retirements, tickers_in_use
from volcast.tasks.run_tools import Event, emit, provenance
from volcast.tasks.settings import DataSettings, TrainingSettings, WatchSettings, calendar_of, is_simulated
from volcast.tasks.snapshot import of_tickers, prepare
from volcast.tasks.stored_models import find_champion, read_or_fault, reader, scorecards, stored_method

WATCH = WatchSettings()
LOOK_BACK = 63  # sessions: an actual that comes later than a quarter is not waited for


@task(task_run_name="score the forecasts of sessions up to {snapshot.cutoff}")
def score_forecasts(snapshot: Snapshot) -> int:
    """How many scores are new. The volume is the one known now; a later restatement does not change a score."""
    store = open_store(snapshot.store, writable=True)
    ledger = Ledger(store)
    first = session_before(snapshot.cutoff, LOOK_BACK, calendar_of(store.url))
    pending = ledger.pending(first=first, last=snapshot.cutoff)
    added = 0
    if len(pending):
        prices = PriceTable(store).read(
            list(pending["ticker"].unique()),
            first=pending["cutoff"].min().date(),
            last=snapshot.cutoff,
            version=snapshot.prices.version,
        )
        rows = scores_of(pending, prices).assign(
            prices_version=snapshot.prices.version, scored_at=pd.Timestamp(datetime.now(UTC))
        )
        added = ledger.record_scores(rows.loc[:, SCORES.names])
    get_run_logger().info(
        "%s new, of %s of sessions up to %s",
        counted(added, "score"),
        counted(len(pending), "forecast"),
        snapshot.cutoff,
    )
    return added


@task(task_run_name="measure drift up to {snapshot.cutoff}")
def measure_drift(snapshot: Snapshot, training: TrainingSettings, watch: WatchSettings) -> InputDrift | None:
    """The drift of each feature of the tickers that the champion was trained on; None without a champion.

    None as well where champion or features are damaged, which the log says.
    """
    artifacts, name = ArtifactStore(open_store(snapshot.store)), training.method().model_name(snapshot.tickers)
    champion = find_champion(artifacts, name)
    model, fault = champion.model, champion.fault
    found = None
    if model is not None:
        found, fault = read_or_fault(partial(_drift, artifacts, snapshot, model, watch.drift_sessions))
    if fault:
        get_run_logger().warning("drift is not measured: %s", fault)
    if model is None or found is None:
        return None
    drift = InputDrift(
        model=str(model.artifact),
        cutoff=snapshot.cutoff,
        sessions=watch.drift_sessions,
        features=tuple(FeatureIndex(name=name, index=own.index, limit=own.limit) for name, own in found.items()),
    )
    worst = ", ".join(f"{own.name} {own.index:.2f} of {own.limit:.2f}" for own in drift.features[:3])
    get_run_logger().info("drift from %s, %d sessions: %s", drift.model, drift.sessions, worst or "not measured")
    return drift


def _drift(artifacts: ArtifactStore, snapshot: Snapshot, model: ModelVersion, sessions: int) -> dict[str, FeatureDrift]:
    method = stored_method(artifacts, model.artifact.name, model.artifact.version)
    read, rows = reader(artifacts, model.features.artifact), of_tickers(snapshot, model.snapshot.tickers)
    return method.drift(prepare(rows, method), read, sessions)


EVENTS: dict[str, Event] = {
    "STALE_PRICES": "volcast.prices.stale",
    "BAD_PRICES": "volcast.prices.broken",
    "NO_FORECAST": "volcast.forecast.missing",
    "DEADLINE_MISSED": "volcast.deadline.missed",
    "PARTIAL_FORECAST": "volcast.forecast.missing",
    "FALLBACK_IN_USE": "volcast.fallback.used",
    "HELD_BACK": "volcast.fallback.used",
    "ERROR_BREACH": "volcast.quality.breached",
    "MISCALIBRATED": "volcast.intervals.broken",
    "DRIFT": "volcast.drift.detected",
}  # code of a finding -> what is told to the automations
UNALERTED = "DRIFT"  # whose event starts a retraining alone
SHOWN = 20  # tickers


@task(task_run_name="check health on {data.day}")
def check_health(
    data: DataSettings, training: TrainingSettings, watch: WatchSettings, drift: InputDrift | None
) -> Health:
    """How things stand, as a version of the artifact `health`.

    It is stored when its events have been sent: a run that dies before leaves them to the next one.
    """
    store = open_store(data.root, writable=True)
    name = training.name or training.recipe
    found = health_of(store, name, data.session, drift, watch, data.tickers)
    health = _judged(found, watch, data.due(watch.forecast_by))
    draft = Draft(
        kind="health",
        name=health.name,
        files={},
        facts=health.model_dump(mode="json"),
        provenance=provenance(source=data.source),
    )
    artifacts = ArtifactStore(store)
    before, _ = read_or_fault(partial(artifacts.newest, "health", name))
    log = get_run_logger()
    log.info("%s", health.words)
    for finding in health.findings:
        (log.warning if finding.needs_person else log.info)("%s: %s %s", finding.code, finding.words, finding.remedy)
    _tell(store, health, before, watch)
    artifacts.put(draft)
    return health


def _tell(store: Store, health: Health, before: Manifest | None, watch: WatchSettings) -> None:
    """Events of what was found, each once a session, and of what was found before and is gone."""
    facts: Any = before.facts if before is not None else {"session": "", "findings": ()}
    earlier = {each["code"]: each["words"] for each in facts["findings"]}
    known = earlier if facts["session"] == str(health.session) else {}
    gone = earlier.keys() & EVENTS.keys() - {UNALERTED} - {finding.code for finding in health.findings}
    for code in sorted(gone) if facts["session"] <= str(health.session) else ():
        words = f"{code} is no longer so. It was: {earlier[code]}"
        emit("volcast.finding.resolved", store.url, words=words, code=code, session=str(health.session))
    for finding in health.findings:
        if finding.code in EVENTS and finding.code not in known:
            words = f"{finding.words} {finding.remedy}"
            emit(EVENTS[finding.code], store.url, words=words, code=finding.code, session=str(health.session))
    if health.untrained is None or health.untrained >= watch.retrain_sessions:
        words = (
            "No version was trained yet."
            if health.untrained is None
            else f"{counted(health.untrained, 'new session')}."
        )
        emit("volcast.sessions.enough", store.url, words=words, session=str(health.session))


def present_health(data: DataSettings, name: str | None = None) -> Health:
    """How things stand now, of the model of that name or the one that `monitor` watches, from the store alone.

    The drift is the one that was measured last: measuring takes a while. Raises NotStored before any prices are.
    """
    store = open_store(data.root)
    before = _newest_health(store, name) if name else last_health(store)
    due = data.due(deadline_of(before))
    name = name or (before.name if before else DEFAULT_RECIPE)
    return health_since(store, name, before, data.session, data.tickers, due)


def health_since(
    store: Store,
    name: str,
    before: Manifest | None,
    session: date,
    tickers: Collection[str] = (),
    due: date | None = None,
) -> Health:
    """How things stand at a session, with the drift and the deadline of when `monitor` looked before."""
    facts: Any = before.facts if before else {}
    drift = InputDrift.model_validate(facts["drift"]) if facts.get("drift") else None
    watch = WatchSettings(forecast_by=deadline_of(before))
    return _judged(health_of(store, name, session, drift, watch, tickers), watch, due)


def deadline_of(before: Manifest | None) -> str | None:
    """The time of the market's day by which that look wanted a forecast."""
    facts: Any = before.facts if before else {}
    return facts.get("forecast_by")


def last_health(store: Store) -> Manifest | None:
    """What `monitor` found when it looked last, whichever model it watched; None before."""
    newest = [_newest_health(store, name) for name in ArtifactStore(store).names("health")]
    return max(filter(None, newest), key=lambda manifest: manifest.created_at, default=None)


def _newest_health(store: Store, name: str) -> Manifest | None:
    return read_or_fault(partial(ArtifactStore(store).newest, "health", name))[0]


def health_of(
    store: Store,
    name: str,
    session: date,
    drift: InputDrift | None,
    watch: WatchSettings = WATCH,
    tickers: Collection[str] = (),
) -> Health:
    """How things stand of the tickers (none: all in use) at a session, from the store alone, but for the findings.

    Raises NotStored before any prices are.
    """
    require_prices(store, tickers)
    asked = set(tickers or tickers_in_use(store, session))
    last, calendar = PriceTable(store).coverage()["last"], calendar_of(store.url)
    ends = {str(ticker): end.date() for ticker, end in last.items() if ticker in asked}
    cutoff = min(max(ends.values()), session)
    first = session_before(cutoff, RECENT, calendar)
    champion = find_champion(ArtifactStore(store), name)
    trust = trust_in(store, name, champion, cutoff, session)
    scores = Ledger(store).scores(name, first=session_before(cutoff, SKILL_SPAN, calendar))
    intervals = interval_drift(scores.loc[scores["ds"] <= pd.Timestamp(cutoff)])
    own = f"model {name} v{champion.version}" if champion.version else ""
    return Health(
        name=name,
        simulated=is_simulated(store.url),
        session=session,
        cutoff=cutoff,
        behind=trust.behind,
        forecast_by=watch.forecast_by,
        tickers=len(ends),
        late=tuple(ticker for ticker, end in ends.items() if end < cutoff),
        retired=tuple(retirements(store, session).values()),
        quarantined=_broken(store, list(ends), first),
        restated=len(_recent(RestatementTable(store).read(), list(ends), first)),
        champion=own,
        champion_fault=champion.fault,
        model_age=trust.model_age,
        untrained=_sessions_since_training(store, name, cutoff),
        **_newest_published(store, name, ends),
        errors=trust.errors,
        intervals=None if intervals is None else Intervals(**asdict(intervals)),
        drift=drift if drift and drift.model == own else None,
        skill=_skill(scores),
        findings=(),
    )


def _judged(health: Health, watch: WatchSettings, due: date | None) -> Health:
    """With the session from which a forecast is due by now, and what there is to be found."""
    health = health.model_copy(update={"due": due})
    return health.model_copy(update={"findings": findings_of(health, watch)})


def _sessions_since_training(store: Store, name: str, cutoff: date) -> int | None:
    """From the newest session that the newest scored version was trained on; None before the first."""
    newest = next(scorecards(ArtifactStore(store), name), None)
    return None if newest is None else sessions_after(newest.model.snapshot.cutoff, cutoff, calendar_of(store.url))


def _newest_published(store: Store, name: str, ends: Mapping[str, date]) -> dict[str, Any]:
    """forecast_cutoff, by, why, held_back, not_asked of the newest forecast; one is by who was asked for most rows."""
    ledger = Ledger(store)
    cutoff = ledger.newest_cutoff(name)
    if cutoff is None:
        return {"forecast_cutoff": None, "by": "", "why": ""}
    of_cutoff = ledger.forecasts(name, first=cutoff)
    rows = of_cutoff.loc[of_cutoff["published"] & (of_cutoff["version"] == of_cutoff["version"].max())]
    by = next(model for model in (MODEL, FALLBACK, *rows["model"]) if model in set(rows["model"]))
    why, held_back = rows.loc[rows["model"] == by, "why"].iloc[0], int(rows["why"].str.startswith(HELD_BACK).sum())
    asked = set(of_cutoff["ticker"]).union(*(_asked(store, name, *each) for each in _versions(of_cutoff)))
    not_asked = tuple(ticker for ticker, end in ends.items() if end >= cutoff and ticker not in asked)
    return {"forecast_cutoff": cutoff, "by": by, "why": why, "held_back": held_back, "not_asked": not_asked}


def _versions(forecasts: pd.DataFrame) -> set[tuple[int, int]]:
    """The versions of the forecast, each with that of the prices that it was made of."""
    return set(forecasts[["version", "prices_version"]].itertuples(index=False, name=None))


def _asked(store: Store, name: str, version: int, prices_version: int) -> Collection[str]:
    """The tickers that a forecast was asked for, whether or not it could be made of them; none where it is damaged."""
    manifest, _ = read_or_fault(partial(ArtifactStore(store).get, "forecast", name, version))
    facts: Any = manifest.facts if manifest else {"asked_for": ()}
    if "asked_for" in facts:
        return facts["asked_for"]
    return read_or_fault(partial(PriceTable(store).tickers, prices_version))[0] or ()


def _recent(rows: pd.DataFrame, tickers: list[str], first: date) -> pd.MultiIndex:
    """The sessions of the tickers that are in the rows, from `first` on: ticker and session, each once."""
    own = rows.loc[rows["ticker"].isin(tickers) & (rows["session"] >= pd.Timestamp(first))]
    return pd.MultiIndex.from_frame(own[["ticker", "session"]].astype({"session": "datetime64[s]"}).drop_duplicates())


def _broken(store: Store, tickers: list[str], first: date) -> int:
    """The sessions of the tickers, from `first` on, of which there are only rows that broke a rule."""
    broken = _recent(QuarantineTable(store).read(), tickers, first)
    stored = PriceTable(store).raw(broken.unique("ticker"), first=first)
    return len(broken.difference(_recent(stored, tickers, first)))


def _skill(scores: pd.DataFrame) -> tuple[Skill, ...]:
    """Of all tickers over each window, and of those over the longest that fare worst against har."""
    rows = live_skill(scores)
    if rows.empty:
        return ()
    is_whole = rows["ticker"] == ALL
    worst = rows.loc[~is_whole & (rows["sessions"] == max(WINDOWS))].sort_values("mase_har", ascending=False)
    chosen = pd.concat([rows.loc[is_whole], worst.head(SHOWN)]).astype(object)
    records = chosen.where(chosen.notna(), None).to_dict("records")
    return tuple(Skill.model_validate(record) for record in records)


RECENT = 20  # sessions of each ticker in which the quarantined and restated ones are counted
BROKEN_SHARE = 0.05  # of these sessions; a source that breaks more of them is broken itself
DRIFTED_SHARE = 0.1  # of the features, more than that: one look in a hundred finds any single one by chance


def findings_of(health: Health, watch: WatchSettings) -> tuple[Finding, ...]:
    """The findings, those that need a person first."""
    found = [*_of_prices(health, watch), *_of_forecasts(health), *_of_champion(health, watch)]
    return tuple(sorted(found, key=lambda finding: not finding.needs_person))


def _of_prices(health: Health, watch: WatchSettings) -> list[Finding]:
    found, last = [], f"The prices end on {health.cutoff}; the market's last closed session is {health.session}"
    if health.behind > watch.max_behind:
        remedy = "See why the last ingest failed, or brought nothing newer; then run: volcast daily"
        found.append(Finding.alarm("STALE_PRICES", f"{last}, {counted(health.behind, 'session')} later.", remedy))
    elif health.behind:
        found.append(Finding.notice("LATE_PRICES", f"{last}.", "Nothing: the next ingest brings what is missing."))
    if health.late:
        words = f"{len(health.late):,} of {counted(health.tickers, 'ticker')} lack a price of {health.cutoff}"
        shown = listed(health.late, 5)
        found.append(
            Finding.notice(
                "GAPS", f"{words}, and get no forecast: {shown}.", "See: volcast status, volcast quarantine."
            )
        )
    if health.quarantined:
        looked_at = f"{RECENT * health.tickers:,} sessions, the last {RECENT} of each ticker"
        words = f"{health.quarantined:,} of {looked_at}, have only rows that broke a rule."
        if health.quarantined > BROKEN_SHARE * RECENT * health.tickers:
            remedy = "See which rule: volcast quarantine. Mend the source, or use another; then: volcast daily"
            found.append(Finding.alarm("BAD_PRICES", words, remedy))
        else:
            remedy = "Look at them: volcast quarantine. They heal when the source does."
            found.append(Finding.notice("QUARANTINE", words, remedy))
    return found


def _of_forecasts(health: Health) -> list[Finding]:
    found = []
    if health.forecast_cutoff is None or health.forecast_cutoff < health.cutoff:
        words = f"No forecast was published from {health.cutoff}; the newest is from {health.forecast_cutoff}."
        if health.forecast_cutoff is None:
            words = "Nothing has been forecast ahead yet."
        found.append(Finding.alarm("NO_FORECAST", words, "Run: volcast daily"))
    elif health.not_asked:
        words = f"The forecast from {health.forecast_cutoff} was not asked for {len(health.not_asked):,} of"
        words = f"{words} {counted(health.tickers, 'stored ticker')}: {listed(health.not_asked, 5)}."
        found.append(Finding.alarm("PARTIAL_FORECAST", words, "Run, without --tickers: volcast daily"))
    if health.due and (health.forecast_cutoff is None or health.forecast_cutoff < health.due):
        words = f"No forecast from {health.due} was there by {health.forecast_by}, the market's time."
        remedy = "See whether daily ran, and why it failed; run: volcast daily"
        found.append(Finding.alarm("DEADLINE_MISSED", words, remedy))
    if health.by == FALLBACK:
        words = f"{FALLBACK} forecast from {health.forecast_cutoff}: {health.why}."
        remedy = "The forecast is safe to use, at har's accuracy. Mend the reason; then: volcast daily"
        found.append(Finding.alarm("FALLBACK_IN_USE", words, remedy))
    if health.held_back:
        words = (
            f"{counted(health.held_back, 'row')} of the forecast from {health.forecast_cutoff} could not be believed."
        )
        remedy = "Others are published in their place. Its log names them; retrain, or go back: volcast models rollback"
        found.append(Finding.alarm("HELD_BACK", words, remedy))
    if health.intervals is not None and health.intervals.broken:
        words = f"{health.intervals.words}. Chance alone would say so once in {CHANCE:,.0f} sessions."
        kind = "narrow" if health.intervals.covered < health.intervals.expected else "wide"
        remedy = f"Take intervals as too {kind} until this is gone"
        remedy = f"{remedy}; see what the retraining came to, or: volcast retrain"
        found.append(Finding.alarm("MISCALIBRATED", f"Intervals do not hold: {words}", remedy))
    return found


def _of_champion(health: Health, watch: WatchSettings) -> list[Finding]:
    found, errors, drift = [], health.errors, health.drift
    if health.champion_fault:
        remedy = f"har forecasts in its place. Train anew: volcast retrain; or: volcast models rollback {health.name}"
        words = health.champion_fault[0].upper() + health.champion_fault[1:]
        return [Finding.alarm("UNUSABLE_CHAMPION", f"{words}.", remedy)]
    if health.champion and health.model_age is None:
        remedy = f"See older ones: volcast models list. Or train one: volcast retrain --as-of {health.cutoff}"
        words = f"{health.champion} was made of sessions after {health.cutoff}, which are not to be known."
        return [Finding.alarm("FUTURE_MODEL", words, remedy)]
    if health.model_age is None:
        remedy = "Train one with: volcast retrain. Its scorecard says why, if it does not pass."
        return [Finding.alarm("NO_CHAMPION", f"No version of {health.name} has passed the gate yet.", remedy)]
    if health.model_age > watch.max_model_age:
        words = f"{health.champion} is {counted(health.model_age, 'session')} old, more than {watch.max_model_age}."
        found.append(
            Finding.alarm("MODEL_TOO_OLD", words, "Retrain: volcast retrain. See why the scheduled retraining did not.")
        )
    if errors is not None and errors.breached:
        remedy = "Retrain: volcast retrain, or go back: volcast models rollback"
        found.append(Finding.alarm("ERROR_BREACH", f"{health.champion} errs too much: {errors.words}.", remedy))
    elif errors is not None and errors.grown:
        words = f"Errors have grown, and har's as well, the market is harder: {errors.words}."
        found.append(Finding.notice("ERROR_DRIFT", words, "A retraining may help: volcast retrain"))
    if drift is not None and len(drift.drifted) > DRIFTED_SHARE * len(drift.features):
        words = f"{len(drift.drifted)} of {len(drift.features)} features have drifted since {drift.model} was trained"
        listed = ", ".join(f"{own.name} {own.index:.2f} (limit {own.limit:.2f})" for own in drift.drifted[:3])
        found.append(Finding.notice("DRIFT", f"{words}: {listed}.", "Retrain: volcast retrain"))
    return found
