from collections.abc import Callable
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from prefect.logging import disable_run_logger

from volcast.models.text import counted
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.storage.records import (
    ArtifactRef,
    Errors,
    FeatureIndex,
    FeatureSet,
    FittedScaler,
    Health,
    InputDrift,
    Intervals,
    ModelVersion,
    Snapshot,
)
from volcast.storage.schemas import SCORES
from volcast.storage.store import open_store
from volcast.tasks import monitor
from volcast.tasks.forecast import Trust
from volcast.tasks.monitor import check_health, findings_of
from volcast.tasks.reports.render import health_markdown
from volcast.tasks.reports.views import health_lines
from volcast.tasks.settings import DataSettings, TrainingSettings, WatchSettings
from volcast.tasks.sources.exchange import Exchange

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


def intervals(covered: float, *, broken: bool = True) -> Intervals:
    span = {"first": date(2024, 2, 26), "last": CUTOFF, "sessions": 10}
    return Intervals(**span, covered=covered, expected=0.8, evidence=1234.5, broken=broken)


CASES = [
    ({}, [], False),
    ({"behind": 1}, ["LATE_PRICES"], False),
    ({"behind": 2}, ["STALE_PRICES"], True),
    ({"late": ("AAPL",)}, ["GAPS"], False),
    ({"quarantined": 2}, ["QUARANTINE"], False),
    ({"quarantined": 3}, ["BAD_PRICES"], True),  # more than 5 % of 2 tickers x 20 sessions
    ({"forecast_cutoff": date(2024, 3, 7)}, ["NO_FORECAST"], True),
    ({"forecast_cutoff": None, "by": ""}, ["NO_FORECAST"], True),
    ({"forecast_by": "18:15", "due": CUTOFF}, [], False),
    ({"forecast_by": "18:15", "due": date(2024, 3, 11)}, ["DEADLINE_MISSED"], True),
    ({"not_asked": ("AAPL",)}, ["PARTIAL_FORECAST"], True),
    ({"champion_fault": "model volume v3 cannot be used: it is not there"}, ["UNUSABLE_CHAMPION"], True),
    ({"by": "har", "why": "its input is stale"}, ["FALLBACK_IN_USE"], True),
    ({"champion": "", "model_age": None}, ["NO_CHAMPION"], True),
    ({"model_age": 63}, [], False),
    ({"model_age": 64, "quarantined": 1}, ["MODEL_TOO_OLD", "QUARANTINE"], True),
    ({"errors": errors(breached=True)}, ["ERROR_BREACH"], True),
    ({"errors": errors(breached=False)}, ["ERROR_DRIFT"], False),
    ({"intervals": intervals(0.45)}, ["MISCALIBRATED"], True),
    ({"intervals": intervals(0.45, broken=False)}, [], False),
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


def test_intervals_that_do_not_hold_are_named_with_what_was_covered_and_over_which_sessions() -> None:
    for covered, word in ((0.45, "narrow"), (0.99, "wide")):
        (found,) = findings_of(Health.model_validate(FINE | {"intervals": intervals(covered)}), WATCH)
        assert found.words == (
            f"Intervals do not hold: of the volumes of 10 sessions, 2024-02-26 to 2024-03-08, {covered:.0%} lie inside "
            "of the 80% interval of the session before. Chance alone would say so once in 500 sessions."
        )
        assert found.remedy.startswith(f"Take intervals as too {word} until this is gone")


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
        monkeypatch.setattr(monitor, "emit", emit)
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

    gone: list[str] = []
    PriceTable(open_store(str(tmp_path))).upsert(
        Exchange(seed=3, last=date(2002, 1, 31)).bars("SBUX").astype({"volume": "int64"})
    )
    look(lambda event, *_, words, **__: gone.append(f"{event}: {words}"))
    assert gone[0].startswith("volcast.finding.resolved: STALE_PRICES is no longer so. It was: The prices end on 2001-")
    assert [each for each in gone if "resolved" in each] == gone[:1]
    look(lambda event, *_, words, **__: gone.append(f"{event}: {words}"))
    assert len([each for each in gone if "resolved" in each]) == 1  # told once


def scores_of(sessions: pd.DatetimeIndex, inside: list[int]) -> pd.DataFrame:
    """Published forecasts of five tickers, each of the session after its cutoff, of which so many hold."""
    days = pd.DataFrame({"ds": sessions[1:], "cutoff": sessions[:-1], "inside": inside})
    rows = days.merge(pd.DataFrame({"ticker": list("ABCDE"), "place": range(5)}), how="cross")
    rows = rows.assign(in_80=rows["place"] < rows["inside"])
    facts = {"name": "volume", "version": 1, "h": 1, "model": "har", "published": True, "model_version": None}
    losses = {"scale": 10.0, "actual": 100, "absolute_error": 5.0, "pinball": 2.0, "in_95": True, "over": False}
    stamps = {"prices_version": 1, "why": "", "scored_at": pd.Timestamp("2002-02-01", tz="UTC")}
    return rows.assign(**facts, **losses, **stamps).astype({"model_version": "Int64"}).loc[:, SCORES.names]


@pytest.mark.parametrize(("inside", "is_found"), [(4, False), (2, True)])
def test_published_intervals_that_stop_to_hold_are_found_in_the_ledger_and_told(
    inside: int, is_found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = Exchange(seed=3, last=date(2001, 12, 14)).bars("SBUX").astype({"volume": "int64"})
    store = open_store(str(tmp_path), writable=True)
    PriceTable(store).upsert(bars)
    sessions = pd.DatetimeIndex(bars["session"].tail(41))
    Ledger(store).record_scores(scores_of(sessions, [3, 4, 5] * 10 + [inside] * 10))
    sent: list[str] = []
    monkeypatch.setattr(monitor, "emit", lambda event, *_, **__: sent.append(event))
    data = DataSettings(source="stored", store=str(tmp_path), as_of=date(2001, 12, 14))
    with disable_run_logger():
        health = check_health.fn(data, TrainingSettings(), WATCH, None)
    assert ("MISCALIBRATED" in {finding.code for finding in health.findings}) is is_found
    assert ("volcast.intervals.broken" in sent) is is_found
    assert health.intervals is not None
    if is_found:
        assert (health.intervals.first, health.intervals.sessions) == (sessions.date[31], 10)
        assert health.intervals.covered == 0.4


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


OLD_AND_WORSE = "model volume v3 is 64 sessions old, more than 63"
TRUSTS = [
    ({}, ""),
    ({"champion": None, "model_age": None}, "no version of volume has passed the gate yet"),
    ({"behind": 1}, ""),
    ({"behind": 2}, "its input is stale: the prices end on 2024-03-08, 2 sessions behind the market"),
    ({"model_age": 64}, OLD_AND_WORSE),
    ({"errors": errors(breached=False)}, ""),
    ({"model_age": 64, "errors": errors(breached=False)}, OLD_AND_WORSE),
    ({"model_age": 64, "errors": errors(breached=False).model_copy(update={"har": 0.75})}, ""),
    (
        {"errors": errors(breached=True)},
        "model volume v3 errs too much: MASE 0.700 over 20 sessions, 0.600 in its test, har 0.650 (p 0.001)",
    ),
]


@pytest.mark.parametrize(("changes", "why"), TRUSTS)
def test_a_champion_is_trusted_unless_there_is_a_reason(changes: dict[str, object], why: str) -> None:
    facts = {"name": "volume", "champion": champion(), "cutoff": CUTOFF, "behind": 0, "model_age": 5, "errors": None}
    trust = Trust(**facts | changes)  # pyright: ignore[reportArgumentType]
    assert trust.why_not(WATCH) == why
    assert trust.too_old(WATCH) == (OLD_AND_WORSE if trust.model_age == 64 else "")


def test_one_is_one_and_a_chance_that_rounds_to_nothing_is_not_none() -> None:
    assert [counted(0, "fault"), counted(1, "fault"), counted(1250, "fault")] == ["0 faults", "1 fault", "1,250 faults"]
    health = Health.model_validate({**FINE, "tickers": 1, "model_age": 1, "held_back": 1, "forecast_cutoff": CUTOFF})
    prices, forecast, champion = health_lines(health)
    assert prices.startswith("prices of 1 ticker to ")
    assert forecast.endswith("1 of its rows was held back")
    assert champion.startswith("model volume v3, 1 session old")
    assert errors(breached=True).words.endswith("(p 0.001)")
    assert errors(breached=True).model_copy(update={"p_value": 4e-4}).words.endswith("(p < 0.001)")
