"""What an operator must know, from how things stand: each finding with a sentence, and what to do."""

from models.live_forecasts import FALLBACK
from models.words import listed
from storage.health import Finding, Health
from tasks.settings import WatchSettings

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
        found.append(_alarm("STALE_PRICES", f"{last}, {health.behind} sessions later.", remedy))
    elif health.behind:
        found.append(_notice("LATE_PRICES", f"{last}.", "Nothing: the next ingest brings what is missing."))
    if health.late:
        words = f"{len(health.late):,} of {health.tickers:,} tickers have no price of {health.cutoff}"
        shown = listed(health.late, 5)
        found.append(
            _notice("GAPS", f"{words}, and get no forecast: {shown}.", "See: volcast status, volcast quarantine.")
        )
    if health.quarantined:
        looked_at = f"{RECENT * health.tickers:,} sessions, the last {RECENT} of each ticker"
        words = f"{health.quarantined:,} of {looked_at}, have only rows that broke a rule."
        if health.quarantined > BROKEN_SHARE * RECENT * health.tickers:
            remedy = "See which rule: volcast quarantine. Mend the source, or use another; then: volcast daily"
            found.append(_alarm("BAD_PRICES", words, remedy))
        else:
            remedy = "Look at them: volcast quarantine. They heal when the source does."
            found.append(_notice("QUARANTINE", words, remedy))
    return found


def _of_forecasts(health: Health) -> list[Finding]:
    found = []
    if health.forecast_cutoff is None or health.forecast_cutoff < health.cutoff:
        words = f"No forecast was published from {health.cutoff}; the newest is from {health.forecast_cutoff}."
        if health.forecast_cutoff is None:
            words = "Nothing has been forecast ahead yet."
        found.append(_alarm("NO_FORECAST", words, "Run: volcast daily"))
    if health.by == FALLBACK:
        words = f"{FALLBACK} forecast from {health.forecast_cutoff}: {health.why}."
        remedy = "The forecast is safe to use, at har's accuracy. Mend the reason; then: volcast daily"
        found.append(_alarm("FALLBACK_IN_USE", words, remedy))
    return found


def _of_champion(health: Health, watch: WatchSettings) -> list[Finding]:
    found, errors, drift = [], health.errors, health.drift
    if health.model_age is None:
        remedy = "Train one with: volcast retrain. Its scorecard says why, if it does not pass."
        return [_alarm("NO_CHAMPION", f"No version of {health.name} has passed the gate yet.", remedy)]
    if health.model_age > watch.max_model_age:
        words = f"{health.champion} is {health.model_age} sessions old, more than {watch.max_model_age}."
        found.append(
            _alarm("MODEL_TOO_OLD", words, "Retrain: volcast retrain. See why the scheduled retraining did not.")
        )
    if errors is not None and errors.breached:
        remedy = "Retrain: volcast retrain, or go back: volcast models rollback"
        found.append(_alarm("ERROR_BREACH", f"{health.champion} errs too much: {errors.words}.", remedy))
    elif errors is not None and errors.grown:
        words = f"Errors have grown, and har's as well, the market is harder: {errors.words}."
        found.append(_notice("ERROR_DRIFT", words, "A retraining may help: volcast retrain"))
    if drift is not None and len(drift.drifted) > DRIFTED_SHARE * len(drift.features):
        words = f"{len(drift.drifted)} of {len(drift.features)} features have drifted since {drift.model} was trained"
        listed = ", ".join(f"{own.name} {own.index:.2f} (limit {own.limit:.2f})" for own in drift.drifted[:3])
        found.append(_notice("DRIFT", f"{words}: {listed}.", "Retrain: volcast retrain"))
    return found


def _alarm(code: str, words: str, remedy: str) -> Finding:
    return Finding(code=code, words=words, remedy=remedy, needs_person=True)


def _notice(code: str, words: str, remedy: str) -> Finding:
    return Finding(code=code, words=words, remedy=remedy, needs_person=False)
