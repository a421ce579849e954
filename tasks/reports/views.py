"""The versions of a model for a reader: what each is worth, and which of them forecast when, and why.

What a reader is shown of a stored forecast: of each ticker a fan chart, a table, and what it was worth lately.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd

from models.recipes import DEFAULT_RECIPE
from models.scores import WINDOWS, format_millions, live_skill
from models.sessions import session_before, sessions_after
from models.tutorial import MODEL
from storage.artifacts import ArtifactStore
from storage.ledger import Ledger
from storage.records import AliasEntry, ArtifactRef, Manifest
from storage.store import Store
from tasks.methods.method import Plot, method_from
from tasks.reports.plots import SHOWN_SESSIONS
from tasks.snapshot import prices_before
from tasks.stored_models import (
    CHAMPION,
    FORECAST_FILE,
    HELD,
    REFUSED,
    SCORES_FILE,
    champion_version,
    model_version,
    read_frame,
    stored_method,
    trained_through,
)

NOT_SCORED = "not scored"


@dataclass(frozen=True, kw_only=True)
class VersionLine:
    """One version of a model."""

    version: int
    trained: date
    cutoff: date  # of what it was trained on; the last session of its test
    test_sessions: int
    tickers: tuple[str, ...]  # that it was made of, and scored on
    size: str  # cell, members and steps
    score: str  # the number that decides, rounded for a reader, by the newest scorecard
    verdict: str  # of that scorecard; empty where it was never scored
    is_champion: bool


@dataclass(frozen=True, kw_only=True)
class History:
    """All versions of a model, and what was decided of them, both oldest first."""

    name: str
    versions: tuple[VersionLine, ...]
    moves: tuple[AliasEntry, ...]  # of champion, held and refused

    @property
    def kept(self) -> list[VersionLine]:
        """The versions whose verdict is not among the reasons of what was decided of them: they did not pass."""
        return [line for line in self.versions if line.verdict and not self._is_said(line)]

    def _is_said(self, line: VersionLine) -> bool:
        return any(move.version == line.version and line.verdict in move.reason for move in self.moves)


def history_of(artifacts: ArtifactStore, store_url: str, name: str) -> History:
    """Raises Corrupt."""
    moves = [entry for alias in (CHAMPION, HELD, REFUSED) for entry in artifacts.history("model", name, alias)]
    champion, scorecards = champion_version(artifacts, name), _scorecards(artifacts, name)
    lines = []
    for version in artifacts.versions("model", name):
        manifest = artifacts.get("model", name, version)
        record = model_version(artifacts, store_url, manifest)
        cutoff = record.scaler.features.snapshot.cutoff
        score, verdict = _scored(artifacts, name, scorecards.get(version))
        line = VersionLine(
            version=version,
            trained=manifest.created_at.date(),
            cutoff=cutoff,
            test_sessions=sessions_after(trained_through(artifacts, name, version), cutoff),
            tickers=record.scaler.features.snapshot.tickers,
            size=stored_method(artifacts, name, version).size,
            score=score,
            verdict=verdict,
            is_champion=version == champion,
        )
        lines.append(line)
    return History(name=name, versions=tuple(lines), moves=tuple(sorted(moves, key=lambda move: move.set_at)))


def _scorecards(artifacts: ArtifactStore, name: str) -> dict[int, Manifest]:
    """Version of a model -> its newest scorecard."""
    found = [artifacts.get("scorecard", name, version) for version in artifacts.versions("scorecard", name)]
    return {manifest.parent.version: manifest for manifest in found}


def _scored(artifacts: ArtifactStore, name: str, scorecard: Manifest | None) -> tuple[str, str]:
    if scorecard is None:
        return NOT_SCORED, ""
    method = stored_method(artifacts, name, scorecard.parent.version)
    own = json.loads(artifacts.read(scorecard, SCORES_FILE))[MODEL]
    return method.metric(own), scorecard.fact("verdict")


MEAN_SESSIONS = 20
SKILL_SPAN = 2 * max(WINDOWS)  # sessions in which the largest window is looked for
ENDS = {f"{share} %": (f"{MODEL}-lo-{share}", f"{MODEL}-hi-{share}") for share in (80, 95)}
LEGEND = (
    "Median, 80 % and 95 % interval in million shares; of mean: the median as a share of the mean volume of the last "
    f"{MEAN_SESSIONS} sessions."
)
AHEAD = 5  # sessions in the short form


@dataclass(frozen=True, kw_only=True)
class StoredForecast:
    """A forecast as it is stored, with what its version says of it."""

    ref: ArtifactRef
    cutoff: date
    author: str  # the model's version, or the fallback and why
    prices_version: int
    simulated: bool
    frame: pd.DataFrame  # models.volume_evaluation: forecast_frame

    @property
    def made(self) -> str:
        """Who made it and from what, in a line."""
        return f"{self.ref} by {self.author}; from the close of {self.cutoff}, prices v{self.prices_version}"


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """The coming sessions of one ticker."""

    ticker: str
    plot: Plot
    rows: list[dict[str, str]]  # one a session, in million shares, rounded for a reader
    skill: list[dict[str, Any]]  # live skill, one a window (models/scores.py: live_skill); empty before any is scored

    @property
    def words(self) -> str:
        """The next session in a line."""
        coming = self.rows[0]
        return f"{self.ticker}, {coming['session']}: {coming['median']} M shares ({coming['80 %']})"


def read_forecast(store: Store, name: str, version: int) -> StoredForecast:
    """A version of a forecast that looks ahead. Raises NotStored, Corrupt."""
    artifacts = ArtifactStore(store)
    manifest = artifacts.get("forecast", name, version)
    *models, prices = manifest.parents  # a fallback's has no model
    return StoredForecast(
        ref=manifest.ref,
        cutoff=date.fromisoformat(manifest.fact("cutoff")),
        author=str(models[0]) if models else f"{manifest.fact('by')}, a fallback: {manifest.fact('why')}",
        prices_version=prices.version,
        simulated=manifest.provenance.source.startswith("simulated"),
        frame=read_frame(artifacts, manifest.ref, FORECAST_FILE),
    )


def outlooks(store: Store, forecast: StoredForecast, tickers: Sequence[str]) -> list[Outlook]:
    """Of each of the tickers, which have a forecast, in this order."""
    method = method_from({"name": DEFAULT_RECIPE})  # a fallback's has the same form
    prices = _prices_before(store, forecast, tickers, SHOWN_SESSIONS)
    first = session_before(forecast.cutoff, SKILL_SPAN)
    skill = live_skill(Ledger(store).scores(forecast.ref.name, first=first, tickers=tickers))
    scored: list[dict[str, Any]] = skill.to_dict("records")
    found = []
    for ticker, own in _by_ticker(forecast, tickers).items():
        (plot,) = method.forecast_plots(prices, own, " (simulated)" if forecast.simulated else "")
        of_ticker = [row for row in scored if row["ticker"] == ticker]
        found.append(Outlook(ticker=ticker, plot=plot, rows=_rows(own, prices), skill=of_ticker))
    return found


def short_rows(store: Store, forecast: StoredForecast, tickers: Sequence[str]) -> list[dict[str, str]]:
    """One dictionary a ticker: the next session as in an outlook, and the medians of the ones after it."""
    prices = _prices_before(store, forecast, tickers, MEAN_SESSIONS)
    rows = []
    for ticker, own in _by_ticker(forecast, tickers).items():
        first, *later = _rows(own.head(AHEAD), prices)
        session, median = first.pop("session"), first.pop("median")
        rows.append(
            {"ticker": ticker, session: median, **first, **{_short(row["session"]): row["median"] for row in later}}
        )
    return rows


def _short(session: str) -> str:
    """Weekday, month and day."""
    return f"{session[:3]} {session[-5:]}"


def _by_ticker(forecast: StoredForecast, tickers: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The rows of each ticker, by h, in the order of `tickers`."""
    own = dict(iter(forecast.frame.groupby("unique_id")))
    return {ticker: own[ticker] for ticker in tickers}


def _prices_before(store: Store, forecast: StoredForecast, tickers: Sequence[str], sessions: int) -> pd.DataFrame:
    """The last sessions that the forecast knew, as `PriceTable.read` gives them."""
    version = forecast.prices_version
    return prices_before(store, tickers, cutoff=forecast.cutoff, version=version, sessions=sessions)


def _rows(own: pd.DataFrame, prices: pd.DataFrame) -> list[dict[str, str]]:
    """The sessions of one ticker's forecast, in million shares."""
    volumes = prices.loc[prices["ticker"] == own["unique_id"].iloc[0], "volume"]
    usual = volumes.tail(MEAN_SESSIONS).mean()
    return [
        {
            "session": f"{row['ds']:%a %Y-%m-%d}",
            "median": format_millions(row[MODEL]),
            **{name: "-".join(format_millions(row[end]) for end in ends) for name, ends in ENDS.items()},
            "of mean": f"{row[MODEL] / usual:.0%}",
        }
        for row in own.to_dict("records")
    ]
