"""The versions of a model for a reader: what each is worth, and which of them forecast when, and why."""

import json
from dataclasses import dataclass
from datetime import date

from models.evaluation import MODEL
from models.sessions import sessions_after
from storage.artifacts import ArtifactStore
from storage.records import AliasEntry, Manifest
from tasks.stored import (
    CHAMPION,
    HELD,
    REFUSED,
    SCORES_FILE,
    champion_version,
    model_version,
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
    return f"{method.metric_name} {method.metric(own)}", scorecard.fact("verdict")
