"""Decide who forecasts: the champion, or har in its place.

1. no champion: no version has passed the gate yet
   and, where a run is told to watch:
2. its input is stale: the prices end more than `max_behind` sessions before the last closed one
3. it is too old: the newest session that it was trained on is more than `max_model_age` sessions ago
4. its errors breach: they have grown beyond noise since its test, and har would have been better (models/drift.py)
"""

from dataclasses import asdict, dataclass
from datetime import date

from prefect import get_run_logger, task

from models.drift import RECENT, error_drift
from models.evaluation import MODEL
from models.live_forecasts import FALLBACK
from models.sessions import session_before, sessions_after
from storage.artifacts import ArtifactStore
from storage.errors import NotStored
from storage.health import Errors
from storage.ledger import Ledger
from storage.records import Choice, ModelVersion, Snapshot
from storage.store import Store, open_store
from tasks.find_trained import scorecard_of_model
from tasks.preflight import require_ahead
from tasks.settings import DataSettings, TrainingSettings, WatchSettings, last_session
from tasks.stored import champion, champion_version

GATE = "mase_1_5"  # of a scorecard: the test's error on the horizons of models.drift.BAND
LOOK_BACK = 3 * RECENT  # sessions of scores, among which RECENT ones with a score are looked for


@task(task_run_name="choose who forecasts from {snapshot.cutoff}")
def choose_forecaster(
    snapshot: Snapshot, data: DataSettings, training: TrainingSettings, watch: WatchSettings | None
) -> Choice:
    """The champion, or har where there is none, or where with `watch` it cannot be trusted.

    Raises NotStored for a nowcast without a champion: har forecasts ahead and cannot stand in for it.
    """
    method, store = training.method(), open_store(snapshot.store)
    name, artifacts = method.model_name(snapshot.tickers), ArtifactStore(store)
    if watch is None and (champion_version(artifacts, name) is not None or not method.horizon):
        return Choice(name=name, champion=champion(artifacts, store.url, name))
    require_ahead(training)
    trust = trust_in(store, name, snapshot.cutoff, last_session(data.as_of, data.now))
    choice = Choice(name=name, champion=trust.champion, why=trust.why_not(watch or WatchSettings()))
    if choice.why:
        get_run_logger().warning("%s forecasts in place of %s: %s", FALLBACK, name, choice.why)
    return choice


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What speaks for or against a champion."""

    name: str
    champion: ModelVersion | None
    cutoff: date
    behind: int  # sessions
    model_age: int | None  # sessions from the newest one that the champion was made from to the cutoff
    errors: Errors | None

    def why_not(self, watch: WatchSettings) -> str:
        """Why it should not forecast; empty when it should."""
        if self.champion is None or self.model_age is None:
            return f"no version of {self.name} has passed the gate yet"
        if self.behind > watch.max_behind:
            return f"its input is stale: the prices end on {self.cutoff}, {self.behind} sessions behind the market"
        if self.model_age > watch.max_model_age:
            return f"{self.champion.artifact} is {self.model_age} sessions old, more than {watch.max_model_age}"
        if self.errors is not None and self.errors.breached:
            return f"{self.champion.artifact} errs too much: {self.errors.words}"
        return ""


def trust_in(store: Store, name: str, cutoff: date, session: date) -> Trust:
    """The trust in the champion of a name at a cutoff, when `session` is the market's last closed one."""
    artifacts = ArtifactStore(store)
    model = None if champion_version(artifacts, name) is None else champion(artifacts, store.url, name)
    return Trust(
        name=name,
        champion=model,
        cutoff=cutoff,
        behind=sessions_after(cutoff, session),
        model_age=sessions_after(model.scaler.features.snapshot.cutoff, cutoff) if model else None,
        errors=_errors_of(store, model, cutoff) if model else None,
    )


def _errors_of(store: Store, model: ModelVersion, cutoff: date) -> Errors | None:
    """The model's live errors against those of its test; None as long as too few are known, or it was never scored."""
    try:
        expected = scorecard_of_model(store.url, model.artifact).scores[MODEL][GATE]
    except NotStored:
        return None
    scores = Ledger(store).scores(model.artifact.name, first=session_before(cutoff, LOOK_BACK))
    own = scores.loc[(scores["model"] != MODEL) | (scores["model_version"] == model.artifact.version)]
    found = error_drift(own, expected=expected, model=MODEL)
    return None if found is None else Errors(**asdict(found))
