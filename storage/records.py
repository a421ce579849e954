"""The small frozen records that pass between steps, and that are kept as JSON.

    Snapshot <- FeatureSet <- FittedScaler <- ModelVersion <- Scorecard
                                              ModelVersion <- ForecastBatch <- Report <- PipelineResult

Each holds the one before it, so that any forecast walks back to the rows that it came from. A `Health` is the record of
how things stand at the close of a session: what an operator is told, and what is kept of each day.
"""

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, JsonValue, StringConstraints

from volcast.storage.errors import Corrupt
from volcast.storage.locations import shown

# Letters, digits and . _ = ^ -, so that BRK-B, ^GSPC, BF.B and EURUSD=X fit; never only dots ("..", a folder above).
NAME_PATTERN = r"^[A-Za-z0-9._=^-]*[A-Za-z0-9_=^-][A-Za-z0-9._=^-]*$"
PRICES_KNOWN = "prices_known"  # fact: the version whose values count, where it is not the one that was read
REMAKE = "Another program wrote it; run the step that makes it again."
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Shown = Annotated[str, AfterValidator(shown)]  # release 0.1.0 kept the credentials in a URL


class Record(BaseModel):
    """A frozen record; an unknown field is refused, so that a misspelt one cannot be lost."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ArtifactRef(Record):
    """One version of one artifact (or of the prices table), and the digest of its content."""

    kind: Name
    name: Name
    version: int
    digest: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} v{self.version}"


class FileRef(Record):
    """A blob: its content's sha256 (hex) and its size."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: int


class Provenance(Record):
    """What produced an artifact. It is not part of the digest."""

    code_version: str
    packages: dict[str, str]  # name -> version
    flow_run_id: str | None
    seed: int | None
    source: Shown = ""  # of the prices, as the run was given it


class Manifest(Record):
    """One version of one artifact: its files, what it was made from, and what is known of it."""

    kind: Name
    name: Name
    version: int
    digest: str  # of kind, name, files, the parents' digests and facts; no times
    created_at: AwareDatetime  # UTC
    files: dict[str, FileRef]
    parents: tuple[ArtifactRef, ...]
    facts: dict[str, JsonValue]
    provenance: Provenance

    def fact(self, name: str) -> Any:
        """A fact that this kind of artifact always has. Raises Corrupt where it lacks."""
        if name not in self.facts:
            raise Corrupt(
                f"{self.ref}: expected the fact {name}, found {', '.join(sorted(self.facts)) or 'none'}. {REMAKE}"
            )
        return self.facts[name]

    @property
    def parent(self) -> ArtifactRef:
        """What it was made from, in the first place. Raises Corrupt where nothing is named."""
        if not self.parents:
            raise Corrupt(f"{self.ref}: expected what it was made from, found none. {REMAKE}")
        return self.parents[0]

    @property
    def ref(self) -> ArtifactRef:
        """The short form that others keep as their parent."""
        return ArtifactRef(kind=self.kind, name=self.name, version=self.version, digest=self.digest)


class AliasEntry(Record):
    """One move of an alias; the entry with the highest number is current."""

    kind: Name
    name: Name
    alias: Name
    number: int
    version: int
    reason: str
    set_at: AwareDatetime  # UTC


class TickerCount(Record):
    """What is stored of one ticker, and what is wrong with it."""

    ticker: str
    stored: int  # rows
    first: date | None
    last: date | None
    behind: int  # sessions from the last stored to the last closed one
    quarantined: int
    missing: int  # sessions between first and last without a row
    restated: int  # sessions
    gaps: str  # the missing sessions, with the reason where it is known
    outcome: str  # of asking for it: ok, or why not


class PriceCounts(Record):
    """The counts of all tickers together, and of the worst ones each."""

    version: int
    last_closed: date  # the market's last closed session
    tickers: int
    total: TickerCount
    worst: tuple[TickerCount, ...]
    notes: tuple[str, ...] = ()  # lines on what an ingest changed of the rows that came, or what looks wrong in them


class Retirement(Record):
    """Whether a ticker is in use from the close of a session on; of several, the newest of then counts."""

    ticker: str
    is_retired: bool
    since: date
    by: str  # the user who said so
    reason: str

    @property
    def words(self) -> str:
        """One line for logs and people."""
        state = "retired" if self.is_retired else "in use again"
        return f"{self.ticker} is {state} since {self.since}, by {self.by}: {self.reason}"


class Announcements(Record):
    """What an ingest learnt of its tickers' earnings dates."""

    source: str
    known: int  # dates of earnings that stand at the close of the last session
    dated: dict[str, int] = {}  # other kinds of events -> how many of them stand
    new: int
    moved: int
    withdrawn: int
    coming: dict[str, date]  # ticker -> the next announced date, where there is one
    failed: str  # what kept the source from answering for all tickers; empty when nothing did

    @property
    def words(self) -> str:
        """One line for logs and people."""
        changes = f"{self.new:,} new, {self.moved:,} moved, {self.withdrawn:,} withdrawn"
        soonest = sorted((day, ticker) for ticker, day in self.coming.items())[:3]
        shown = ", ".join(f"{ticker} {day}" for day, ticker in soonest)
        others = "".join(f", {count:,} of {kind}" for kind, count in self.dated.items())
        known = f"{self.known:,} announced dates{others}"
        return f"{known} of {self.source}: {changes}" + (f"; next {shown}" if shown else "")


class Snapshot(Record):
    """The rows that a run starts from: some tickers of one version of the prices, up to the cutoff."""

    store: str  # URL of the root
    prices: ArtifactRef  # kind and name "prices"; the version is the table's, the digest that of these rows
    source: Shown
    simulated: bool
    tickers: tuple[str, ...]
    first_session: date
    cutoff: date  # last known session
    rows: int
    uses_earnings: bool = True  # False: the run is asked to use no announced earnings, whatever is stored
    prices_known: int | None = None  # the version whose values count, where it is another one: PriceTable.as_of
    caveat: str = ""  # what is not as it was known at the cutoff; empty where nothing is
    counts: PriceCounts | None = None  # of the ingest that took it
    announcements: Announcements | None = None  # of the ingest that took it; None without a source of them


class FeatureSet(Record):
    """Features of a snapshot."""

    artifact: ArtifactRef
    snapshot: Snapshot
    rows: int
    train_rows: int
    pretrained: str = ""  # the weights that a training on them starts from, and whether there is one; empty for none


class FittedScaler(Record):
    """A scaler, and which of the rows it has seen (`train` or `all`)."""

    artifact: ArtifactRef
    features: FeatureSet
    fitted_on: str


class ModelVersion(Record):
    """A trained model; `reused` when the same content was already stored and nothing was trained."""

    artifact: ArtifactRef
    scaler: FittedScaler
    recipe: str
    device: str
    final_loss: float
    reused: bool = False

    @property
    def features(self) -> FeatureSet:
        """What it was trained on."""
        return self.scaler.features

    @property
    def snapshot(self) -> Snapshot:
        """The rows that it was made from."""
        return self.features.snapshot


class Scorecard(Record):
    """The scores of a model and its baselines on the same sessions."""

    artifact: ArtifactRef
    model: ModelVersion
    scores: dict[str, dict[str, float]]  # forecaster -> metric -> value
    words: tuple[str, ...]  # what the numbers mean, a sentence each
    promote: bool
    verdict: str  # why, or why not
    champion: int | None = None  # the version that forecast when it was made
    champion_move: int | None = None  # the number of the alias's entry then, 0 before the first; None: by release 0.1.0
    outcome: str = ""  # how the retraining ended that gives it, in words

    @property
    def judgement(self) -> str:
        """Whether it passed, and why."""
        return f"{'Passed' if self.promote else 'Did not pass'} the gate: {self.verdict}"


class Answer(Record):
    """A person's answer about a version that passed the gate."""

    approved: bool | None = None  # None: nobody was asked
    reason: str = ""
    waits: str = ""  # how to give the answer, where the run cannot wait for it


class Outcome(Record):
    """What became of a version: Promoted, Kept (as a version), Refused (by a person) or Held (for a person)."""

    name: Literal["Promoted", "Kept", "Refused", "Held"]
    words: str


class Choice(Record):
    """Who forecasts: the champion, or a fallback, with the reason; a champion that is not trusted is still compared."""

    name: Name  # of the model and of its forecasts
    champion: ModelVersion | None  # or the version that was asked for
    why: str = ""  # why not the champion; empty when it forecasts
    from_future: str = ""  # what it knows of after the cutoff; empty for nothing


class HeldBack(Record):
    """A row of a forecast that cannot be believed, and was not published."""

    ticker: str
    session: date  # the target
    h: int
    reason: str
    by: str  # who is published in its place; empty where nobody can be: there is no forecast of it

    @property
    def words(self) -> str:
        """One line for logs and people."""
        instead = f"{self.by} is published" if self.by else "there is no forecast of it"
        return f"{self.ticker} {self.session}, horizon {self.h}: {self.reason}; {instead}"


class ForecastBatch(Record):
    """Forecasts from one snapshot, by one model or, where it could not be trusted, by a fallback."""

    artifact: ArtifactRef
    model: ModelVersion | None  # None: a fallback's
    snapshot: Snapshot
    rows: int
    first_session: date  # of the targets
    last_session: date
    left_out: tuple[str, ...] = ()  # tickers of the snapshot without a forecast
    by: str = "volcast"  # or the name of the fallback
    why: str = ""  # why a fallback; empty for the champion
    from_future: str = ""  # what the model knows of after the cutoff; empty for nothing
    held_back: tuple[HeldBack, ...] = ()  # rows that could not be believed
    dated: tuple[str, ...] = ()  # the kinds of events on the sessions that are forecast, earnings aside

    @property
    def author(self) -> str:
        """The model, or the fallback and why."""
        if self.model is None:
            return f"{self.by}, a fallback: {self.why}"
        origin = self.model.features.pretrained
        return f"{self.model.artifact} ({origin})" if origin else str(self.model.artifact)

    @property
    def marked(self) -> str:
        """What must be said of each row: why a fallback's, or what its model knew too early; empty for nothing."""
        return self.why or (f"not as of then: {self.from_future}" if self.from_future else "")

    @property
    def words(self) -> str:
        """One line for logs and people."""
        marks = [f"not as of then: {self.from_future}"] if self.from_future else []
        marks += [f"held back: {len(self.held_back):,}"] if self.held_back else []
        marks += [f"dated events: {', '.join(self.dated)}"] if self.dated else []
        made = f"{self.artifact} by {self.author}, from {self.snapshot.cutoff}, {self.rows:,} rows"
        return "; ".join([made, *marks])


class Report(Record):
    """The files that a person reads: name -> path or URL."""

    batch: ForecastBatch
    scorecard: Scorecard | None  # beside a fallback's forecast: of a model that did not make it
    files: dict[str, str]

    @property
    def words(self) -> str:
        """One line for logs and people."""
        return f"report on {self.batch.artifact}: {', '.join(self.files)}"


class PipelineResult(Record):
    """What one run of the whole pipeline gave."""

    snapshot: Snapshot
    reports: tuple[Report, ...]
    trainings: dict[str, str]  # model's name -> how its retraining ended, in words


class DuelScore(Record):
    """A forecaster against another one, on the horizons of a band."""

    band: str  # horizons: 1, 1-5 or 1-10
    rival: str
    mase_ratio: float  # below 1: the forecaster is better than the rival
    pinball_ratio: float
    ticker_share: float  # of the tickers, those on which its MASE is the smaller one
    p_value: float | None  # Diebold and Mariano; None where the test has no answer


class ForecasterScore(Record):
    """The losses of a forecaster on the horizons of a band."""

    band: str
    forecaster: str
    mean_of: str  # the column that rmsse_mean and qlike_mean are of
    losses: dict[str, float]


class BacktestResult(Record):
    """What a backtest came to."""

    snapshot: Snapshot
    path: str  # of the forecasts
    rows: int
    cutoffs: int
    tickers: int  # with a score
    scores: tuple[ForecasterScore, ...]  # the mean over the tickers
    ticker_scores: dict[str, tuple[ForecasterScore, ...]]  # ticker -> its own, SBUX first
    duels: tuple[DuelScore, ...]  # of the leading forecaster
    verdict: str  # in a sentence: what beats what
    train_through: date
    test_start: date
    test_end: date
    refit: str
    start: str  # what the first training of volcast's own forecaster started from
    sums: tuple[ForecasterScore, ...] = ()  # of sums of sessions, how many is the band (models/sums.py: score_sums)
    points: tuple[ForecasterScore, ...] = ()  # of another point than the median (models/points.py: score_points)
    point: str = "median"  # which one

    @property
    def span(self) -> str:
        """Which sessions were trained on and tested, in a line."""
        refit = "" if self.refit == "never" else f", fitted again {self.refit}"
        fits = f"by fits on those to {self.train_through}{refit}; volcast: {self.start}"
        return f"sessions {self.test_start} to {self.test_end}, {fits}"


class Finding(Record):
    """Something that is not as it should be. docs/operate.md has a page for each code."""

    code: str  # STALE_PRICES, MODEL_TOO_OLD, …
    words: str  # what is so, a sentence
    remedy: str  # what to do
    needs_person: bool  # False: it heals itself, or is only to be known

    @classmethod
    def alarm(cls, code: str, words: str, remedy: str) -> Self:
        """One that needs a person."""
        return cls(code=code, words=words, remedy=remedy, needs_person=True)

    @classmethod
    def notice(cls, code: str, words: str, remedy: str) -> Self:
        """One that is only to be known."""
        return cls(code=code, words=words, remedy=remedy, needs_person=False)


class Check(Record):
    """One thing that volcast needs: what was found of it, and what a person has to do; nothing where it is OK."""

    of: str
    found: str
    remedy: str = ""


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
            f"har {self.har:.3f} (p {'< 0.001' if self.p_value < 0.001 else f'{self.p_value:.3f}'})"
        )


class Intervals(Record):
    """How often published 80 % intervals held, and whether it can be chance (models/drift.py: IntervalDrift)."""

    first: date
    last: date
    sessions: int
    covered: float
    expected: float
    evidence: float
    broken: bool

    @property
    def words(self) -> str:
        """One line for logs and people."""
        return (
            f"of the volumes of {self.sessions} sessions, {self.first} to {self.last}, {self.covered:.0%} lie inside "
            f"of the {self.expected:.0%} interval of the session before"
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
    """Live skill over some target sessions (models/scores.py: live_skill)."""

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
    forecast_by: str | None = None  # the market's time by which a forecast must be there, such as 18:15
    due: date | None = None  # the newest session from which one had to be there by then
    tickers: int
    late: tuple[str, ...]  # those without a row of the cutoff
    retired: tuple[Retirement, ...] = ()  # tickers that are stored and not in use
    quarantined: int  # of the last 20 sessions of each ticker, those whose row broke a rule, and that have no good one
    restated: int  # of the same, those with a value that has changed
    champion: str  # `model volume v3`; empty without one
    champion_fault: str = ""  # why it cannot be used: a file that is gone or damaged; empty where it can
    model_age: int | None  # sessions; None without a champion, or where it has seen later sessions than the cutoff
    untrained: int | None = None  # sessions since those that the newest version was trained on, promoted or not
    forecast_cutoff: date | None  # of the newest published forecast
    by: str  # who made it; empty without one
    why: str  # why a fallback, or what its model knew too early
    held_back: int = 0  # rows of that forecast that could not be believed
    not_asked: tuple[str, ...] = ()  # stored tickers with a price of its cutoff that it was not asked for
    errors: Errors | None
    intervals: Intervals | None = None  # None before any forecast is scored
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
