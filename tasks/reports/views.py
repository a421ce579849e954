"""What people are shown, as data: rows of a table, lines of text, the forecast of a ticker.

A row is a dictionary from heading to text, rounded for a reader; the rows of one table have the same headings. The
terminal, the Prefect artifacts and the page show the same rows, each in its own form (`render.py`).

Nothing here imports torch or matplotlib before something is drawn.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial
from typing import Any

import pandas as pd

from volcast.models.comparisons import BEST
from volcast.models.forecast_columns import (
    LEDGER_COLUMNS,
    NORMAL,
    WHY,
    has_reasons,
    mean_column,
    parts_of,
    reason_column,
    row_of,
)
from volcast.models.forecasters import FALLBACK, MODEL
from volcast.models.market_calendar import special_days
from volcast.models.point_names import ALE, USUAL_POINT, level_of
from volcast.models.points import with_point
from volcast.models.recipes import DEFAULT_RECIPE, Recipe, TutorialRecipe, make_recipe, settings
from volcast.models.scores import FIRST_TICKER, GATE_METRIC, SKILL_SPAN, live_skill
from volcast.models.sessions import session_before, sessions_after
from volcast.models.sums import sums_of
from volcast.models.text import brief, counted, format_millions, format_p, format_shares, listed, meant
from volcast.storage.announced_dates import EARNINGS, MARKET, EventTable
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.errors import NotStored
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.storage.records import (
    AliasEntry,
    ArtifactRef,
    BacktestResult,
    ForecastBatch,
    ForecasterScore,
    Health,
    HeldBack,
    Manifest,
    PriceCounts,
    Scorecard,
    Skill,
)
from volcast.storage.store import Store, open_store
from volcast.tasks.methods.method import Marks, Method, Plot, Scores, method_of
from volcast.tasks.reports.plots import SHOWN_SESSIONS
from volcast.tasks.settings import calendar_of
from volcast.tasks.stored_models import (
    CHAMPION,
    FORECAST_FILE,
    HELD,
    REFUSED,
    SCORES_FILE,
    champion_version,
    features_of,
    read_frame,
    read_or_fault,
    recipe_of,
    stored_method,
    trained_through,
)

Rows = list[dict[str, str]]

NOT_SCORED = "not scored"
DRIFT_ROWS = 8  # features
INTERVALS = {f"{share} %": (f"{MODEL}-lo-{share}", f"{MODEL}-hi-{share}") for share in (80, 95)}
MEAN_SESSIONS = 20
WHEN = {"bmo": " before the open", "amc": " after the close"}
LEGEND = (
    "Median, 80 % and 95 % interval in million shares; of mean: the median as a share of the mean volume of the last "
    f"{MEAN_SESSIONS} sessions. Reasons: factors of the median against normal, the geometric mean of these sessions."
)
SHOWN_VERSIONS = 30  # of a model, where they are compared; the command `volcast models list` has them all
LATEST_COLUMNS = [
    *("ticker", "session", "h", "cutoff", "median", "mean", "lo_80", "hi_80", "lo_95", "hi_95"),
    *("model", "why", "version", "model_version", "prices_version", "published_at"),
]
PART_HEADINGS = {
    "recent": "recent",
    "weekday": "day",
    "calendar": "calendar",
    "earnings": "earnings",
    "others-earnings": "others",
    "market": "market",
    "year": "year",
    "events": "events",
    "rest": "rest",
}  # part of the reasons -> heading
SHORT_SESSIONS = 5  # of a forecast, in the short form
SKILL_COLUMNS = {
    "mase": ("MASE", ".3f"),
    "mase_har": ("/ har", ".3f"),
    "mase_naive": ("/ naive", ".3f"),
    "pinball_har": ("pinball / har", ".3f"),
    "coverage_80": ("in 80%", ".0%"),
    "coverage_95": ("in 95%", ".0%"),
    "over_share": ("over", ".0%"),
    "bias": ("bias", "+.1%"),
}  # of models/scores.py -> heading and format; the UI has room for 584 pixels
SUMS_LEGEND = "/ added: the pinball loss over that of the sessions' own quantiles, added up."
LOSSES = {"mase": "MASE", "rmsse_mean": "RMSSE", "smape": "sMAPE", "qlike_mean": "QLIKE", "pinball": "pinball"}
SHARES = {
    "coverage_80": "in 80%",
    "coverage_95": "in 95%",
    "over_share": "over",
    "bias": "bias",
}  # of a backtest -> heading, as LOSSES


# --- how things stand ------------------------------------------------------------------------------------------------


def health_lines(health: Health) -> list[str]:
    """Prices, forecast and champion in a line each, and each ticker that is retired."""
    behind = f"{counted(health.behind, 'session')} behind the market" if health.behind else "up to date"
    prices = f"prices of {counted(health.tickers, 'ticker')} to {health.cutoff}, {behind}"
    made = f"forecast from {health.forecast_cutoff} by {health.by}" if health.forecast_cutoff else "no forecast yet"
    age = f"{health.champion}, {_age(health.model_age)}" if health.champion else "no champion"
    age = health.champion_fault or age
    kind = "a fallback" if health.by == FALLBACK else "marked"
    why = f", {kind}: {health.why}" if health.why else ""
    held_back = (
        f"; {counted(health.held_back, 'of its rows was', 'of its rows were')} held back" if health.held_back else ""
    )
    counts = f"{health.quarantined:,} quarantined and {health.restated:,} restated"
    return [
        f"{prices}; {counts} of each ticker's last 20 sessions",
        made + why + held_back,
        age + (f"; {health.errors.words}" if health.errors else "; too few scores to judge its errors by"),
        *(retired.words for retired in health.retired),
    ]


def _age(sessions: int | None) -> str:
    return "made of later sessions" if sessions is None else f"{counted(sessions, 'session')} old"


def count_rows(counts: PriceCounts, *, outcome: bool = False) -> Rows:
    """A row a ticker, the worst first, and the total last; with `outcome`, that of asking for each."""
    return [
        {
            "ticker": row.ticker,
            "stored": f"{row.stored:,}",
            "first": str(row.first or ""),
            "last": str(row.last or ""),
            "quarantine": f"{row.quarantined:,}",
            "missing": f"{row.missing:,}",
            "restated": f"{row.restated:,}",
            **({"outcome": row.outcome} if outcome else {"behind": f"{row.behind:,}"}),
        }
        for row in (*counts.worst, counts.total)
    ]


def skill_rows(skill: Iterable[Skill | Mapping[str, Any]]) -> Rows:
    """Live skill (models/scores.py: live_skill), a row a window and ticker."""
    rows = []
    for each in skill:
        own: Mapping[str, Any] = each.model_dump() if isinstance(each, Skill) else each
        numbers = {heading: _number(own[name], form) for name, (heading, form) in SKILL_COLUMNS.items()}
        rows.append({"of": own["ticker"], "last": str(own["sessions"]), "rows": f"{own['rows']:,}", **numbers})
    return rows


def drift_rows(health: Health) -> Rows:
    """The features that moved most."""
    features = health.drift.features[:DRIFT_ROWS] if health.drift else ()
    return [{"feature": own.name, "PSI": f"{own.index:.2f}", "limit": f"{own.limit:.2f}"} for own in features]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None or value != value else f"{value:{form}}"  # NaN: there was no rival


# --- scores ----------------------------------------------------------------------------------------------------------


def score_rows(scorecard: Scorecard) -> Rows:
    """A row a forecaster of the scorecard."""
    model = scorecard.model
    artifacts = ArtifactStore(open_store(model.snapshot.store))
    return stored_method(artifacts, model.artifact.name, model.artifact.version).score_rows(scorecard.scores)


def loss_rows(scores: Iterable[ForecasterScore]) -> Rows:
    """A row a band of horizons and forecaster of a backtest."""
    return [
        {
            "h": score.band,
            "forecaster": score.forecaster,
            **{heading: f"{score.losses[name]:.3f}" for name, heading in LOSSES.items()},
            **{heading: f"{score.losses[name]:.1%}" for name, heading in SHARES.items()},
        }
        for score in scores
    ]


def sum_score_rows(scores: Iterable[ForecasterScore]) -> Rows:
    """A row a number of sessions and forecaster of a backtest: how good its quantiles of the sum are."""
    return [
        {
            "sessions": score.band,
            "forecaster": score.forecaster,
            "pinball": f"{score.losses['pinball']:.3f}",
            "/ added": f"{score.losses['of_added']:.3f}",
            **{heading: f"{score.losses[name]:.1%}" for name, heading in SHARES.items()},
        }
        for score in scores
    ]


def point_score_rows(result: BacktestResult) -> Rows:
    """A row a band of horizons and forecaster of a backtest: what the point that was asked for is worth."""
    return [
        {
            "h": score.band,
            "forecaster": score.forecaster,
            "loss": f"{score.losses['loss']:.3f}",
            "/ median": f"{score.losses['of_median']:.3f}",
            "over": f"{score.losses['over_share']:.1%}",
            "bias": f"{score.losses['bias']:.1%}",
        }
        for score in result.points
    ]


def point_legend(point: str) -> str:
    """What the loss of `point_score_rows` is."""
    level = level_of(point)
    loss = "pinball at its level" if level else "RMSSE"
    loss = "ALE, |log forecast - log volume|, twice where the forecast is above" if point == ALE else loss
    return f"Loss: {loss};\n/ median: over that of the median. Over: the share of volumes below the point."


def backtest_extent(result: BacktestResult) -> str:
    """How much was tested, in a line."""
    made = f"{counted(result.rows, 'forecast')} from {counted(result.cutoffs, 'cutoff')}"
    return f"{made}, {counted(result.tickers, 'ticker')} with a score"


def duel_rows(result: BacktestResult) -> Rows:
    """A row a band of horizons and rival of the leading forecaster."""
    return [
        {
            "h": duel.band,
            "against": duel.rival,
            "MASE ratio": f"{duel.mase_ratio:.3f}",
            "pinball ratio": f"{duel.pinball_ratio:.3f}",
            "tickers won": f"{duel.ticker_share:.0%}",
            "p": "too few sessions" if duel.p_value is None else format_p(duel.p_value),
        }
        for duel in result.duels
    ]


# --- models ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class VersionLine:
    """One version of a model."""

    model: str
    version: int
    trained: date
    cutoff: date  # of what it was trained on; the last session of its test
    test_sessions: int
    tickers: tuple[str, ...]  # that it was made of, and scored on
    recipe: Recipe
    seed: int
    size: str  # cell, members and steps
    scores: Scores  # of it and of the forecasters beside it, by the newest scorecard; empty where it was never scored
    score: str  # the number that decides, rounded for a reader, by the newest scorecard
    verdict: str  # of that scorecard; empty where it was never scored
    is_champion: bool

    @property
    def words(self) -> str:
        """Its name."""
        return f"{self.model} v{self.version}"

    @property
    def test(self) -> str:
        """What it was tested on, but for the tickers."""
        return f"{counted(self.test_sessions, 'session')} to {self.cutoff}"


@dataclass(frozen=True, kw_only=True)
class History:
    """All versions of a model, and what was decided of them, both oldest first."""

    name: str
    versions: tuple[VersionLine, ...]
    moves: tuple[AliasEntry, ...]  # of champion, held and refused
    faults: tuple[str, ...] = ()  # of what is damaged, and stands in neither

    @property
    def not_passed(self) -> list[VersionLine]:
        """The versions whose verdict is not among the reasons of what was decided of them."""
        return [line for line in self.versions if line.verdict and not self._decided_by(line)]

    def _decided_by(self, line: VersionLine) -> bool:
        return any(move.version == line.version and line.verdict in move.reason for move in self.moves)


def history_of(artifacts: ArtifactStore, name: str) -> History:
    """The history of the model of that name, as far as it can be read. Raises StoreUnreachable."""
    aliases = [read_or_fault(partial(artifacts.history, "model", name, alias)) for alias in (CHAMPION, HELD, REFUSED)]
    numbers = artifacts.versions("scorecard", name)
    scorecards = [read_or_fault(partial(artifacts.get, "scorecard", name, number))[0] for number in numbers]
    newest = {manifest.parent.version: manifest for manifest in scorecards if manifest}  # version of the model -> its
    present, _ = read_or_fault(partial(champion_version, artifacts, name))
    lines = [
        read_or_fault(partial(_version_line, artifacts, name, version, newest.get(version), version == present))
        for version in artifacts.versions("model", name)
    ]
    moves = [entry for entries, _ in aliases for entry in entries or ()]
    return History(
        name=name,
        versions=tuple(line for line, _ in lines if line),
        moves=tuple(sorted(moves, key=lambda move: move.set_at)),
        faults=tuple(fault for _, fault in (*lines, *aliases) if fault),
    )


def histories(store_url: str) -> list[History]:
    """Of every model in the store. Raises StoreUnreachable."""
    artifacts = ArtifactStore(open_store(store_url))
    return [history_of(artifacts, name) for name in artifacts.names("model")]


def _version_line(
    artifacts: ArtifactStore, name: str, version: int, scorecard: Manifest | None, is_champion: bool
) -> VersionLine:
    """Raises NotStored, Corrupt."""
    manifest, features = artifacts.get("model", name, version), features_of(artifacts, name, version)
    cutoff, recipe = date.fromisoformat(features.fact("cutoff")), recipe_of(artifacts, name, version)
    scores: Scores = json.loads(artifacts.read(scorecard, SCORES_FILE)) if scorecard else {}
    return VersionLine(
        model=name,
        version=version,
        trained=manifest.created_at.date(),
        cutoff=cutoff,
        test_sessions=_tested(artifacts, features, cutoff),
        tickers=tuple(features.fact("tickers")),
        recipe=recipe,
        seed=manifest.fact("seed"),
        size=_size(recipe, pretrained=bool(features.facts.get("pretrained"))),
        scores=scores,
        score=_decisive_score(recipe, scores[MODEL]) if scorecard else NOT_SCORED,
        verdict=scorecard.fact("verdict") if scorecard else "",
        is_champion=is_champion,
    )


def _tested(artifacts: ArtifactStore, features: Manifest, cutoff: date) -> int:
    """How many sessions a model was held back from that was made of these features."""
    calendar = calendar_of(artifacts.url)
    if "test_start" in features.facts:  # the weights may have been trained on sessions that ended long before
        return sessions_after(date.fromisoformat(features.fact("test_start")), cutoff, calendar) + 1
    return sessions_after(trained_through(artifacts, features), cutoff, calendar)


def _size(recipe: Recipe, *, pretrained: bool) -> str:
    """The cell, how many networks, and how many steps each was trained."""
    if isinstance(recipe, TutorialRecipe):
        return f"lstm 1x{recipe.epochs}"
    if pretrained:
        return f"pretrained {recipe.members}x{recipe.tuning_steps}"
    return f"{recipe.cell} {recipe.members}x{recipe.steps}"


def _decisive_score(recipe: Recipe, own: Mapping[str, float]) -> str:
    """Of a version's own scores, the one that the gate decides by."""
    score = own[_decisive(recipe)]
    return f"RMSE {format_shares(score)}" if isinstance(recipe, TutorialRecipe) else f"MASE 1-5 {score:.3f}"


def _decisive(recipe: Recipe) -> str:
    """The score that the gate decides by."""
    return "rmse_shares" if isinstance(recipe, TutorialRecipe) else GATE_METRIC


def model_rows(histories: Iterable[History]) -> Rows:
    """A row a version of every model."""
    return [
        {
            "model": f"{history.name} v{line.version}",
            "tickers": f"{len(line.tickers)}",
            "recipe": line.size,
            "test sessions": f"{line.test_sessions} to {line.cutoff}",
            "score": line.score,
            "now": CHAMPION if line.is_champion else "",
        }
        for history in histories
        for line in history.versions
    ]


def version_rows(history: History) -> Rows:
    """A row a version of one model with its verdict, newest first, the newest SHOWN_VERSIONS and the champion."""
    return [
        {
            "version": f"v{line.version}",
            "trained": str(line.trained),
            "tickers": f"{len(line.tickers)}",
            "test sessions": f"{line.test_sessions} to {line.cutoff}",
            "score": line.score,
            "now": CHAMPION if line.is_champion else "",
            "verdict": line.verdict,
        }
        for place, line in enumerate(reversed(history.versions))
        if place < SHOWN_VERSIONS or line.is_champion
    ]


def move_rows(history: History) -> Rows:
    """A row a decision, the newest SHOWN_VERSIONS, newest first; a verdict of `version_rows` is not repeated."""
    verdicts = {line.version: line.verdict or NOT_SCORED for line in history.versions}
    return [
        {
            "version": f"v{move.version}",
            "is": move.alias,
            "since": f"{move.set_at:%Y-%m-%d %H:%M} UTC",
            "reason": move.reason.replace(verdicts.get(move.version, NOT_SCORED), "Its verdict, above."),
        }
        for move in history.moves[: -SHOWN_VERSIONS - 1 : -1]
    ]


@dataclass(frozen=True, kw_only=True)
class SameTest:
    """Versions of one recipe, of any name, that were scored on the same rows, the best first."""

    versions: tuple[VersionLine, ...]

    @cached_property
    def others(self) -> Scores:
        """The forecasters that were scored beside them."""
        newest = max(self.versions, key=lambda line: line.trained)
        return {name: own for name, own in newest.scores.items() if name not in (MODEL, CHAMPION, BEST)}

    @property
    def words(self) -> str:
        """What the rows are of."""
        first = self.versions[0]
        return f"Test of {first.test}, {counted(len(first.tickers), 'ticker')}: {listed(first.tickers)}"


def same_tests(histories: Iterable[History]) -> list[SameTest]:
    """The scored versions by what they were tested on, the newest test first."""
    groups: dict[tuple[object, ...], list[VersionLine]] = {}
    for line in (line for history in histories for line in history.versions if line.scores):
        groups.setdefault(_rows_tested(line), []).append(line)
    tests = [sorted(lines, key=lambda line: line.scores[MODEL][_decisive(line.recipe)]) for lines in groups.values()]
    return [SameTest(versions=tuple(lines)) for lines in sorted(tests, key=lambda lines: lines[0].cutoff, reverse=True)]


def _rows_tested(line: VersionLine) -> tuple[object, ...]:
    """What two tests have alike whose rows are the same: also how well those did that are not fitted, to the digit.

    So a volume that was restated in between tells them apart. har is left out, which a later release fits better.
    """
    decisive, fitted = _decisive(line.recipe), (MODEL, CHAMPION, BEST, FALLBACK)
    plain = {name: round(own[decisive], 9) for name, own in line.scores.items() if name not in fitted}
    return (line.recipe.name, line.tickers, line.cutoff, line.test_sessions, *sorted(plain.items()))


def same_test_rows(test: SameTest) -> Rows:
    """A row a version, with the settings that tell it from the others; then the forecasters beside them."""
    recipe = test.versions[0].recipe
    chosen = [settings(line.recipe) | {"seed": line.seed} for line in test.versions]
    differing = [name for name in chosen[0] if len({str(own[name]) for own in chosen}) > 1]
    own = {f"{line.words}{', champion' * line.is_champion}": line.scores[MODEL] for line in test.versions}
    texts = [", ".join(f"{name} {each[name]}" for name in differing) for each in chosen]
    rows = method_of(recipe).score_rows(own | test.others)
    told = [name for name in rows[0] if all(name in row for row in rows)]  # those of earlier releases have fewer
    texts += [""] * len(test.others)
    return [{name: row[name] for name in told} | {"settings": text} for row, text in zip(rows, texts, strict=True)]


# --- lineage ---------------------------------------------------------------------------------------------------------

STEPS = ("forecast", "scorecard", "model", "scaler", "features", "prices")  # each was made from the ones after it
STEP_FACTS = ("cutoff", "rows", "horizon", "fitted_on", "seed", "final_loss", "device", "verdict")


def lineage_of(artifacts: ArtifactStore, name: str) -> list[Manifest | ArtifactRef]:
    """From the newest forecast of a model back to its prices. Raises NotStored."""
    newest = artifacts.newest("forecast", name) or artifacts.get("model", name)
    return sorted(artifacts.walk(newest), key=lambda step: STEPS.index(step.kind))


def step_facts(step: Manifest) -> str:
    """What is known of a step of the lineage, in a line."""
    known = {key.replace("_", " "): step.facts[key] for key in STEP_FACTS if key in step.facts}
    return ", ".join(f"{key} {fact:.5f}" if isinstance(fact, float) else f"{key} {fact}" for key, fact in known.items())


# --- forecasts -------------------------------------------------------------------------------------------------------


def forecast_method(batch: ForecastBatch) -> Method:
    """The method of the recipe whose form the forecast has."""
    if batch.model is None:
        return method_of(make_recipe(DEFAULT_RECIPE))  # a fallback's has the form of the volume recipe's
    artifacts = ArtifactStore(open_store(batch.snapshot.store))
    return stored_method(artifacts, batch.model.artifact.name, batch.model.artifact.version)


def forecast_frame(batch: ForecastBatch, point: str = USUAL_POINT) -> pd.DataFrame:
    """The stored rows of a forecast, with the point that is asked for. Raises NotStored, Corrupt, UnknownPoint."""
    frame = read_frame(ArtifactStore(open_store(batch.snapshot.store)), batch.artifact, FORECAST_FILE)
    return with_point(frame, point)


def forecast_rows(batch: ForecastBatch, point: str = USUAL_POINT) -> Rows:
    """The coming sessions of the first tickers, a row a session; none for a nowcast."""
    return forecast_method(batch).forecast_rows(forecast_frame(batch, point))


def leading_reason(batch: ForecastBatch) -> str:
    """Why the next session of the leading ticker is as it is, in a line; empty where the forecast does not say."""
    frame = forecast_frame(batch)
    own = frame.loc[frame["unique_id"] == FIRST_TICKER]
    row = (frame if own.empty else own).iloc[0].to_dict()
    return f"{row['unique_id']}, {row['ds']:%a %Y-%m-%d}: {row[WHY]}" if has_reasons(row) else ""


@dataclass(frozen=True, kw_only=True)
class StoredForecast:
    """A forecast as it is stored, with what its version says of it."""

    ref: ArtifactRef
    cutoff: date
    author: str  # the model's version, or the fallback and why
    prices_version: int
    simulated: bool
    frame: pd.DataFrame  # volcast.models.volume_evaluation: forecast_frame
    held_back: tuple[HeldBack, ...] = ()

    @property
    def made(self) -> str:
        """Who made it and from what, in a line."""
        return f"{self.ref} by {self.author}; from the close of {self.cutoff}, prices v{self.prices_version}"

    def held_back_of(self, ticker: str) -> list[str]:
        """Which rows of a ticker could not be believed, and why, a line each."""
        return [each.words for each in self.held_back if each.ticker == ticker]

    @cached_property
    def by_ticker(self) -> dict[str, pd.DataFrame]:
        """The rows of each ticker, by h."""
        return {str(ticker): own for ticker, own in self.frame.groupby("unique_id")}

    def prices(self, store: Store, tickers: Sequence[str], sessions: int) -> pd.DataFrame:
        """The last sessions of the tickers that it knew."""
        return prices_before(store, tickers, cutoff=self.cutoff, version=self.prices_version, sessions=sessions)


@dataclass(frozen=True, kw_only=True)
class TickerForecast:
    """The coming sessions of one ticker."""

    ticker: str
    plot: Plot
    rows: Rows  # one a session, in million shares
    sums: Rows  # of several sessions together
    reasons: list[str]  # why the next session, and each with a note, is as it is; none of a fallback's
    skill: list[dict[str, Any]]  # live skill, one a window (models/scores.py: live_skill); empty before any is scored

    @property
    def summary(self) -> str:
        """The next session in a line."""
        coming = self.rows[0]
        return f"{self.ticker}, {coming['session']}: {coming['median']} M shares ({coming['80 %']})"


@dataclass(frozen=True, kw_only=True)
class Explained:
    """Why a session's median is what it is."""

    ticker: str
    session: date
    median: float  # shares
    normal: float  # shares
    parts: dict[str, float]  # what made it more or less than normal -> factor, the strongest first

    @property
    def summary(self) -> str:
        """The median against normal in a line."""
        shares = f"{format_millions(self.median)} M shares, {self.median / self.normal:.2f} times normal"
        return f"{self.ticker}, {self.session:%a %Y-%m-%d}: {shares}, which is {format_millions(self.normal)} M"


def read_forecast(store: Store, name: str, version: int) -> StoredForecast:
    """A version of a forecast that looks ahead. Raises NotStored, Corrupt."""
    artifacts = ArtifactStore(store)
    manifest = artifacts.get("forecast", name, version)
    *models, prices = manifest.parents  # a fallback's has no model
    author = str(models[0]) if models else f"{manifest.fact('by')}, a fallback: {manifest.fact('why')}"
    held_back: Any = manifest.facts.get("held_back", [])
    if future := manifest.facts.get("from_future"):
        author += f", not as of then: {future}"
    return StoredForecast(
        ref=manifest.ref,
        cutoff=date.fromisoformat(manifest.fact("cutoff")),
        author=author,
        prices_version=prices.version,
        simulated=manifest.provenance.source.startswith("simulated"),
        frame=read_frame(artifacts, manifest.ref, FORECAST_FILE),
        held_back=tuple(HeldBack.model_validate(each) for each in held_back),
    )


def ticker_forecasts(store: Store, forecast: StoredForecast, tickers: Sequence[str]) -> list[TickerForecast]:
    """Of each of the tickers, which have a forecast, in this order."""
    method = method_of(make_recipe(DEFAULT_RECIPE))  # a fallback's has the same form
    prices = forecast.prices(store, tickers, SHOWN_SESSIONS)
    first = session_before(forecast.cutoff, SKILL_SPAN, calendar_of(store.url))
    skill = live_skill(Ledger(store).scores(forecast.ref.name, first=first, tickers=tickers))
    scored: list[dict[str, Any]] = skill.to_dict("records")
    found, notes = [], session_notes(store, forecast.frame, forecast.cutoff)
    for ticker in tickers:
        own = forecast.by_ticker[ticker]
        (plot,) = method.forecast_plots(prices, own, simulated_note(forecast.simulated), notes)
        coming = TickerForecast(
            ticker=ticker,
            plot=plot,
            rows=_session_rows(own, prices, notes),
            sums=_sum_rows(sums_of(own)),
            reasons=_reasons(own, notes),
            skill=[row for row in scored if row["ticker"] == ticker],
        )
        found.append(coming)
    return found


def latest_frame(ledger: Ledger, name: str) -> pd.DataFrame:
    """What is published from the newest session, of each ticker by its newest version; one row a ticker and session.

    ticker, session, h, cutoff, median, mean, lo_80, hi_80, lo_95, hi_95 (shares), model (who made it), why (empty for
    the champion), version, model_version, prices_version, published_at. Raises NotStored before the first.
    """
    cutoff = ledger.newest_cutoff(name)
    if cutoff is None:
        raise NotStored(f"Nothing has been forecast of {name} yet. Run: volcast daily")
    rows = ledger.forecasts(name, first=cutoff)
    rows = rows.loc[rows["published"]]
    newest = rows.loc[rows["version"] == rows.groupby("ticker")["version"].transform("max")]
    return newest.rename(columns={"ds": "session"})[LATEST_COLUMNS].sort_values(["ticker", "h"], ignore_index=True)


def latest_sums(latest: pd.DataFrame) -> pd.DataFrame:
    """The sums of sessions of a `latest_frame`: its columns up to the intervals, with `sessions`, how many, for h."""
    sums = sums_of(as_forecasts(latest)).rename(columns={"unique_id": "ticker", "ds": "session", **LEDGER_COLUMNS})
    columns = [{"h": "sessions"}.get(column, column) for column in LATEST_COLUMNS]
    return pd.DataFrame(sums, columns=[column for column in columns if column in sums])


def as_forecasts(latest: pd.DataFrame) -> pd.DataFrame:
    """A `latest_frame` with the columns of a published forecast."""
    own_names = {column: name for name, column in LEDGER_COLUMNS.items()}
    return latest.rename(columns={"ticker": "unique_id", "session": "ds", **own_names})


def explained(store: Store, name: str, ticker: str) -> StoredForecast:
    """The forecast in which a ticker was published last. Raises NotStored where there is none."""
    latest = latest_frame(Ledger(store), name)
    versions = latest.loc[latest["ticker"] == ticker, "version"]
    if versions.empty:
        tickers = sorted(set(latest["ticker"]))
        known = f"It is of {listed(tickers)}.{meant([ticker], tickers)}"
        raise NotStored(f"The newest forecast has no {brief(ticker)}. {known} See: volcast forecast --help")
    return read_forecast(store, name, int(versions.iloc[0]))


def explained_row(store: Store, forecast: StoredForecast, ticker: str, session: date | None) -> Explained:
    """Why one session of a ticker, by default the next one, is as it is.

    Raises NotStored where the forecast has no such session, or says nothing of reasons.
    """
    own = forecast.by_ticker[ticker]
    row = row_of(own, session)
    if row is None:
        first, last = own["ds"].iloc[[0, -1]].dt.date
        raise NotStored(f"{forecast.ref} has no session {session} of {ticker}. Its sessions are {first} to {last}.")
    if not has_reasons(row):
        raise NotStored(
            f"{forecast.ref} by {forecast.author} gives no reasons for {ticker}: only a network's forecast has them, "
            "and none that an earlier release stored."
        )
    return Explained(
        ticker=ticker,
        session=row["ds"].date(),
        median=row[MODEL],
        normal=row[NORMAL],
        parts=parts_of(row, calendar_of(store.url)),
    )


def reason_rows(own: pd.DataFrame) -> Rows:
    """The factors of each session of one ticker's forecast that has any; of dated events where one counts."""
    events = reason_column("events")
    is_told = events in own and bool(set(own[events]) - {1.0})
    parts = [part for part in PART_HEADINGS if is_told or part != "events"]
    return [
        {
            "session": f"{row['ds']:%a %m-%d}",
            "median": format_millions(row[MODEL]),
            "times": f"{row[MODEL] / row[NORMAL]:.2f}",
            **{PART_HEADINGS[part]: f"{row[reason_column(part)]:.2f}" for part in parts},
        }
        for row in own.to_dict("records")
        if has_reasons(row)
    ]


def short_rows(store: Store, forecast: StoredForecast, tickers: Sequence[str]) -> Rows:
    """A row a ticker: the next session as in a TickerForecast, and the medians of the ones after it."""
    prices = forecast.prices(store, tickers, MEAN_SESSIONS)
    notes = session_notes(store, forecast.frame, forecast.cutoff)
    rows = []
    for ticker in tickers:
        own = _session_rows(forecast.by_ticker[ticker].head(SHORT_SESSIONS), prices, notes)
        noted = {f"{row['session'][:3]}: {note}": None for row in own if (note := row.pop("note", ""))}
        first, *later = own
        session, median = first.pop("session"), first.pop("median")
        medians = {f"{row['session'][:3]} {row['session'][-5:]}": row["median"] for row in later}  # Tue 06-29
        rows.append({"ticker": ticker, session: median, **first, **medians, "note": ", ".join(noted)})
    return rows


def prices_before(store: Store, tickers: Iterable[str], *, cutoff: date, version: int, sessions: int) -> pd.DataFrame:
    """The last sessions up to a cutoff, as `PriceTable.read` gives them: what is drawn of a history."""
    first = session_before(cutoff, sessions - 1, calendar_of(store.url))
    return PriceTable(store).read(tickers, first=first, last=cutoff, version=version)


def simulated_note(simulated: bool) -> str:
    """What the title of a picture ends with, wherever its prices come from no market."""
    return " (simulated)" if simulated else ""


def session_notes(store: Store, forecasts: pd.DataFrame, cutoff: date) -> Marks:
    """What is known ahead of a forecast's sessions: special days of the market, announced earnings, other events."""
    special = special_days(pd.DatetimeIndex(forecasts["ds"]).sort_values(), calendar_of(store.url), weeks=False)
    tickers = [str(ticker) for ticker in forecasts["unique_id"].unique()]
    found = {(ticker, session): [words] for session, words in special.items() if words for ticker in tickers}
    events = EventTable(store).events(tickers, as_of=cutoff)
    for each in events.loc[events["announced_for"].isin(list(special))].to_dict("records"):
        for ticker in [each["ticker"]] if each["ticker"] != MARKET else tickers:
            what = each.get("kind", EARNINGS).replace("_", " ")
            found.setdefault((ticker, each["announced_for"]), []).append(f"{what}{WHEN.get(each['when'], '')}")
    return {key: ", ".join(notes) for key, notes in found.items()}


def _sum_rows(sums: pd.DataFrame) -> Rows:
    """The sums of one ticker's sessions, in million shares."""
    return [
        {
            "the next": f"{row['sessions']} sessions",
            "median": format_millions(row[MODEL]),
            "mean": format_millions(row[mean_column(MODEL)]),
            **{name: "-".join(format_millions(row[end]) for end in ends) for name, ends in INTERVALS.items()},
        }
        for row in sums.to_dict("records")
    ]


def _reasons(own: pd.DataFrame, notes: Marks) -> list[str]:
    """Why the next session of a ticker, and each one with a note, is as it is, a line each."""
    return [
        f"{row['ds']:%a %Y-%m-%d}: {row[WHY]}"
        for row in own.to_dict("records")
        if has_reasons(row) and (row["h"] == 1 or (row["unique_id"], row["ds"]) in notes)
    ]


def _session_rows(own: pd.DataFrame, prices: pd.DataFrame, notes: Marks) -> Rows:
    """The sessions of one ticker's forecast, in million shares, with a column of notes where there is any."""
    ticker = own["unique_id"].iloc[0]
    volumes = prices.loc[prices["ticker"] == ticker, "volume"]
    usual, has_notes = volumes.tail(MEAN_SESSIONS).mean(), any((ticker, session) in notes for session in own["ds"])
    return [
        {
            "session": f"{row['ds']:%a %Y-%m-%d}",
            "median": format_millions(row[MODEL]),
            **{name: "-".join(format_millions(row[end]) for end in ends) for name, ends in INTERVALS.items()},
            "of mean": f"{row[MODEL] / usual:.0%}",
            **({"by": row["by"]} if "by" in row else {}),  # there where rows were held back
            **({"note": notes.get((ticker, row["ds"]), "")} if has_notes else {}),
        }
        for row in own.to_dict("records")
    ]
