from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

import tasks.monitor
from models.text import counted
from storage.prices import PriceTable
from storage.records import (
    ArtifactRef,
    Errors,
    FeatureIndex,
    FeatureSet,
    FittedScaler,
    Health,
    InputDrift,
    ModelVersion,
    Snapshot,
)
from storage.store import open_store
from tasks.forecast import Trust
from tasks.monitor import check_health, findings_of
from tasks.reports.render import health_markdown
from tasks.reports.views import health_lines
from tasks.settings import DataSettings, TrainingSettings, WatchSettings
from tasks.sources.exchange import Exchange

CUTOFF, WATCH = date(2024, 3, 8), WatchSettings()
ERRORS = {"sessions": 20, "recent": 0.7, "expected": 0.6, "har": 0.65, "p_value": 0.001}
FINE = {
    "name": "volume",
    "simulated": False,
    "session": CUTOFF,
    "cutoff": CUTOFF,
    "behind": 0,
    "tickers": 2,
    "late": (),
    "quarantined": 0,
    "restated": 0,
    "champion": "model volume v3",
    "model_age": 5,
    "forecast_cutoff": CUTOFF,
    "by": "volcast",
    "why": "",
    "errors": None,
    "drift": None,
    "skill": (),
    "findings": (),
}


def errors(*, breached: bool) -> Errors:
    return Errors.model_validate({**ERRORS, "grown": True, "breached": breached})


def drift(drifted: int) -> InputDrift:
    features = [FeatureIndex(name=f"f{n}", index=2.0 if n < drifted else 0.1, limit=0.6) for n in range(20)]
    return InputDrift(model="model volume v3", cutoff=CUTOFF, sessions=63, features=tuple(features))


CASES = [
    ({}, [], False),
    ({"behind": 1}, ["LATE_PRICES"], False),
    ({"behind": 2}, ["STALE_PRICES"], True),
    ({"late": ("AAPL",)}, ["GAPS"], False),
    ({"quarantined": 2}, ["QUARANTINE"], False),
    ({"quarantined": 3}, ["BAD_PRICES"], True),  # more than 5 % of 2 tickers x 20 sessions
    ({"forecast_cutoff": date(2024, 3, 7)}, ["NO_FORECAST"], True),
    ({"forecast_cutoff": None, "by": ""}, ["NO_FORECAST"], True),
    ({"by": "har", "why": "its input is stale"}, ["FALLBACK_IN_USE"], True),
    ({"champion": "", "model_age": None}, ["NO_CHAMPION"], True),
    ({"model_age": 63}, [], False),
    ({"model_age": 64, "quarantined": 1}, ["MODEL_TOO_OLD", "QUARANTINE"], True),
    ({"errors": errors(breached=True)}, ["ERROR_BREACH"], True),
    ({"errors": errors(breached=False)}, ["ERROR_DRIFT"], False),
    ({"drift": drift(2)}, [], False),
    ({"drift": drift(3)}, ["DRIFT"], False),
]


@pytest.mark.parametrize(("changes", "codes", "needs_person"), CASES)
def test_each_finding_has_a_code_a_sentence_and_what_to_do(
    changes: dict[str, object], codes: list[str], needs_person: bool
) -> None:
    health = Health.model_validate(FINE | changes)
    found = findings_of(health, WATCH)
    assert [finding.code for finding in found] == codes
    assert all(finding.words.endswith(".") and finding.remedy for finding in found)
    whole = health.model_copy(update={"findings": found})
    assert whole.needs_person is needs_person
    assert all(f"**{code}**" in health_markdown(whole) for code in codes)


class Killed(BaseException):
    """A process that ends while it tells."""


def test_a_run_that_dies_before_its_events_are_sent_leaves_them_to_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = Exchange(seed=3, last=date(2001, 12, 14)).bars("SBUX").astype({"volume": "int64"})
    PriceTable(open_store(str(tmp_path))).upsert(bars)
    data = DataSettings(source="stored", store=str(tmp_path), as_of=date(2002, 1, 31))
    sent: list[str] = []

    def look(emit: Callable[..., None]) -> Health:
        monkeypatch.setattr(tasks.monitor, "emit", emit)
        with disable_run_logger():
            return check_health.fn(data, TrainingSettings(), WATCH, None)

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        look(kill)
    health = look(lambda event, *_, **__: sent.append(event))
    assert {finding.code for finding in health.findings} >= {"STALE_PRICES", "NO_FORECAST"}
    assert sent == ["volcast.prices.stale", "volcast.forecast.missing", "volcast.sessions.enough"]
    sent.clear()
    look(lambda event, *_, **__: sent.append(event))
    assert sent == ["volcast.sessions.enough"]  # what was found is told once a session


def champion() -> ModelVersion:
    def ref(kind: str) -> ArtifactRef:
        return ArtifactRef(kind=kind, name="volume", version=3, digest="d")

    snapshot = Snapshot(
        store="s", prices=ref("prices"), source="yahoo", simulated=False, tickers=("SBUX",),
        first_session=CUTOFF, cutoff=CUTOFF, rows=1,
    )  # fmt: skip
    features = FeatureSet(artifact=ref("features"), snapshot=snapshot, rows=1, train_rows=1)
    scaler = FittedScaler(artifact=ref("scaler"), features=features, fitted_on="train")
    return ModelVersion(artifact=ref("model"), scaler=scaler, recipe="volume", device="cpu", final_loss=0.0)


TRUSTS = [
    ({}, ""),
    ({"champion": None, "model_age": None}, "no version of volume has passed the gate yet"),
    ({"behind": 1}, ""),
    ({"behind": 2}, "its input is stale: the prices end on 2024-03-08, 2 sessions behind the market"),
    ({"model_age": 64}, "model volume v3 is 64 sessions old, more than 63"),
    ({"errors": errors(breached=False)}, ""),
    (
        {"errors": errors(breached=True)},
        "model volume v3 errs too much: MASE 0.700 over 20 sessions, 0.600 in its test, har 0.650 (p 0.001)",
    ),
]


@pytest.mark.parametrize(("changes", "why"), TRUSTS)
def test_a_champion_is_trusted_unless_there_is_a_reason(changes: dict[str, object], why: str) -> None:
    facts = {"name": "volume", "champion": champion(), "cutoff": CUTOFF, "behind": 0, "model_age": 5, "errors": None}
    assert Trust(**facts | changes).why_not(WATCH) == why  # pyright: ignore[reportArgumentType]


def test_one_is_one_and_a_chance_that_rounds_to_nothing_is_not_none() -> None:
    assert [counted(0, "fault"), counted(1, "fault"), counted(1250, "fault")] == ["0 faults", "1 fault", "1,250 faults"]
    health = Health.model_validate({**FINE, "tickers": 1, "model_age": 1, "held_back": 1, "forecast_cutoff": CUTOFF})
    prices, forecast, champion = health_lines(health)
    assert prices.startswith("prices of 1 ticker to ")
    assert forecast.endswith("1 of its rows was held back")
    assert champion.startswith("model volume v3, 1 session old")
    assert errors(breached=True).words.endswith("(p 0.001)")
    assert errors(breached=True).model_copy(update={"p_value": 4e-4}).words.endswith("(p < 0.001)")
