"""The record of how things stand: what an operator is told, and what is kept of each day."""

from datetime import date

from storage.records import ForecastBatch, Record


class Finding(Record):
    """Something that is not as it should be. docs/operate.md has a page for each code."""

    code: str  # STALE_PRICES, MODEL_TOO_OLD, …
    words: str  # what is so, a sentence
    remedy: str  # what to do
    needs_person: bool  # False: it heals itself, or is only to be known


class Errors(Record):
    """The champion's live errors against those of its test (models/drift.py: ErrorDrift)."""

    sessions: int
    recent: float
    expected: float
    har: float
    p_value: float
    grown: bool
    breached: bool

    @property
    def words(self) -> str:
        """One line for logs and people."""
        return (
            f"MASE {self.recent:.3f} over {self.sessions} sessions, {self.expected:.3f} in its test, "
            f"har {self.har:.3f} (p {self.p_value:.3f})"
        )


class FeatureIndex(Record):
    """How far one feature is from what it was (models/drift.py: FeatureDrift)."""

    name: str
    index: float  # population stability index
    limit: float


class InputDrift(Record):
    """How far the newest features are from those that the champion was trained on."""

    model: str
    cutoff: date
    sessions: int  # that were looked at
    features: tuple[FeatureIndex, ...]  # those farthest beyond their limit first

    @property
    def drifted(self) -> tuple[FeatureIndex, ...]:
        """The features at or beyond their limit."""
        return tuple(feature for feature in self.features if feature.index >= feature.limit)


class Skill(Record):
    """Live skill over some target sessions (models/skill.py: live_skill)."""

    sessions: int
    ticker: str
    rows: int
    mase: float
    mase_har: float | None
    mase_naive: float | None
    pinball_har: float | None
    pinball_naive: float | None
    coverage_80: float
    coverage_95: float
    over_share: float
    bias: float


class Health(Record):
    """How prices, champion and forecasts stand at the close of a session."""

    name: str  # of the model and of its forecasts
    simulated: bool
    session: date  # the last closed one
    cutoff: date  # the newest stored one
    behind: int  # sessions
    tickers: int
    late: tuple[str, ...]  # those without a row of the cutoff
    quarantined: int  # of the last 20 sessions of each ticker, those whose row broke a rule, and that have no good one
    restated: int  # of the same, those with a value that has changed
    champion: str  # `model volume v3`; empty without one
    model_age: int | None  # sessions
    untrained: int | None = None  # sessions since those that the newest version was trained on, promoted or not
    forecast_cutoff: date | None  # of the newest published forecast
    by: str  # who made it; empty without one
    why: str  # why a fallback
    errors: Errors | None
    drift: InputDrift | None
    skill: tuple[Skill, ...]
    findings: tuple[Finding, ...]

    @property
    def needs_person(self) -> bool:
        """Whether somebody has to do something."""
        return any(finding.needs_person for finding in self.findings)

    @property
    def words(self) -> str:
        """One line for logs and states."""
        shown = f"{self.name} from {self.forecast_cutoff or 'no session yet'} by {self.by or 'nobody'}"
        codes = ", ".join(finding.code for finding in self.findings)
        return f"{shown}; {codes or 'nothing to report'}"


class Daily(Record):
    """What a daily run came to; nothing but `skipped`, why, where nothing was new."""

    batch: ForecastBatch | None
    health: Health | None
    skipped: str = ""
