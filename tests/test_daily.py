"""A service over some sessions of the simulated exchange: no forecast is missing, and each is scored in its time."""

import shutil
from datetime import date, datetime
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from days import DAYS, HOLIDAY, TICKERS, TRAINED, TRAINING, Served, data_in, store_in
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from rich.console import Console
from runs import log_lines, message_of, run_named

from benchmarks.programs import wait_until
from benchmarks.webhooks import Webhook
from volcast.flows.alerts import WEBHOOK, Alerting, save_channels
from volcast.flows.champion import promote, rollback
from volcast.flows.daily import daily
from volcast.flows.deploy import alerts, sync_automations
from volcast.flows.forecast import forecast
from volcast.flows.ingest import ingest
from volcast.flows.monitor import monitor
from volcast.flows.retrain import retrain
from volcast.models.errors import UnknownRecipe
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.integrity import verify
from volcast.storage.ledger import Ledger
from volcast.storage.records import Daily, ForecastBatch, Health
from volcast.storage.store import open_store
from volcast.tasks.monitor import present_health
from volcast.tasks.reports.render import health_markdown
from volcast.tasks.run_tools import artifact_key, store_label
from volcast.tasks.settings import DataSettings, RetrainSettings, TrainingSettings, WatchSettings
from volcast.tasks.stored_models import FORECAST_FILE, read_frame

pytestmark = pytest.mark.usefixtures("prefect_api")

AT_ONCE = 1e-9  # hours; a source that is asked for nothing any more stands for one that is down


def codes(result: Daily) -> list[str]:
    assert result.health is not None
    return [finding.code for finding in result.health.findings]


def test_every_session_has_a_forecast_of_every_ticker_by_the_champion(served: Served) -> None:
    rows = Ledger(store_in(served[0])).forecasts("volume", first=TRAINED)
    assert sorted(rows["cutoff"].dt.date.unique()) == DAYS
    assert set(rows.groupby(["cutoff", "ticker", "model"]).size()) == {10}
    assert set(rows["ticker"]) == set(TICKERS)
    assert set(rows.loc[rows["published"], "model"]) == {"volcast"}
    assert set(rows.loc[~rows["published"], "model"]) == {"har", "naive"}
    assert set(rows.loc[rows["published"], "model_version"]) == {1}
    assert set(rows.loc[~rows["published"], "model_version"].isna()) == {True}
    assert rows["scale"].to_numpy().min() > 0
    assert (np.diff(rows[["lo_95", "lo_80", "hi_80", "hi_95"]].to_numpy(), axis=1) >= 0).all()


def test_a_holiday_is_a_named_no_op(served: Served) -> None:
    result = served[1][HOLIDAY]
    assert result.skipped.startswith("2004-07-05 is no session. No session or price is new since 2004-07-02")
    assert (result.batch, result.health) == (None, None)
    assert message_of(run_named("daily volume 2004-07-05: skipped")) == f"Skipped: {result.skipped}"


def test_every_forecast_whose_day_has_come_is_scored_beside_har_and_naive(
    served: Served,
) -> None:
    scores = Ledger(store_in(served[0])).scores("volume", first=TRAINED)
    # of six cutoffs 5 + 4 + 3 + 2 + 1 targets have come, of 3 tickers and by 3 models
    assert len(scores) == 15 * 3 * 3
    assert scores["ds"].max().date() == DAYS[-1]
    own = scores.loc[(scores["ticker"] == "SBUX") & (scores["h"] == 1) & (scores["model"] == "naive")]
    volumes = own.set_index("cutoff")["actual"]
    # naive one session ahead says the volume before
    error = (own["actual"].iloc[1] - volumes.iloc[0], own["absolute_error"].iloc[1])
    assert abs(error[0]) == error[1]


def test_health_has_live_skill_and_the_status_shows_it(served: Served) -> None:
    result = served[1][DAYS[-1]]
    assert result.health is not None
    assert (result.health.behind, result.health.model_age, result.health.by) == (0, 6, "volcast")
    assert not result.health.needs_person
    whole = result.health.skill[0]
    assert (whole.ticker, whole.rows) == ("all", 45)
    assert whole.mase_har is not None
    assert 0.3 < whole.mase_har < 3
    assert result.health.drift is not None
    assert len(result.health.drift.features) > 15
    words = health_markdown(result.health)
    assert "Simulated data" in words
    assert "| all | 5 | 45 |" in words
    assert run_named("monitor volume 2004-07-07").name == "monitor volume 2004-07-07"  # it needs nobody
    assert result.health.model_dump(mode="json") == ArtifactStore(store_in(served[0])).get("health", "volume").facts


def frame_of(batch: ForecastBatch) -> pd.DataFrame:
    return read_frame(ArtifactStore(open_store(batch.snapshot.store)), batch.artifact, FORECAST_FILE)


def of_ticker(batch: ForecastBatch, ticker: str) -> pd.DataFrame:
    frame = frame_of(batch)
    return frame.loc[frame["unique_id"] == ticker].reset_index(drop=True)


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize("watch", [None, WatchSettings(max_model_age=1)], ids=["champion", "har"])
def test_a_forecast_is_the_same_whichever_tickers_are_asked_for(
    served: Served, tmp_path: Path, watch: WatchSettings | None
) -> None:
    folder = shutil.copytree(served[0], tmp_path / "asked")
    whole = forecast(data_in(folder, DAYS[-1]), TRAINING, watch)
    alone = forecast(data_in(folder, DAYS[-1], tickers=("T1",)), TRAINING, watch)
    assert alone.by == whole.by == ("volcast" if watch is None else "har")
    assert set(frame_of(alone)["unique_id"]) == {"T1"}
    pd.testing.assert_frame_equal(frame_of(alone), of_ticker(whole, "T1"))
    rows = Ledger(store_in(folder)).forecasts("volume", first=DAYS[-1])
    values = ["h", "model", "median", "mean", "lo_95", "lo_80", "hi_80", "hi_95", "scale", "published"]
    first, second = (
        rows.loc[(rows["version"] == version) & (rows["ticker"] == "T1"), values].reset_index(drop=True)
        for version in (whole.artifact.version, alone.artifact.version)
    )
    pd.testing.assert_frame_equal(first, second)


def test_a_ticker_that_the_model_was_not_trained_on_changes_no_other_ones_forecast(
    served: Served, tmp_path: Path
) -> None:
    folder = shutil.copytree(served[0], tmp_path / "newcomer")
    before = forecast(data_in(folder, DAYS[-1]), TRAINING)
    ingest(data_in(folder, DAYS[-1], tickers=("T7", "T8")))
    after = forecast(data_in(folder, DAYS[-1]), TRAINING)
    assert set(frame_of(after)["unique_id"]) == {*TICKERS, "T7", "T8"}
    for ticker in TICKERS:
        pd.testing.assert_frame_equal(of_ticker(after, ticker), of_ticker(before, ticker))
    alone = forecast(data_in(folder, DAYS[-1], tickers=("T7", "SBUX")), TRAINING)
    for ticker in ("T7", "SBUX"):
        pd.testing.assert_frame_equal(of_ticker(alone, ticker), of_ticker(after, ticker))
    said = log_lines(run_named(f"forecast volume T7, SBUX {DAYS[-1]}"))
    assert any("model volume v1 was not trained on T7, which are forecast from" in line for line in said)


@pytest.mark.usefixtures("no_server")
def test_drift_is_of_the_tickers_that_the_champion_was_trained_on(served: Served, tmp_path: Path) -> None:
    folder = shutil.copytree(served[0], tmp_path / "drift")
    whole = monitor(data_in(folder, DAYS[-1]), TRAINING)
    assert whole.drift is not None
    assert monitor(data_in(folder, DAYS[-1], tickers=("T1",)), TRAINING).drift == whole.drift
    ingest(data_in(folder, DAYS[-1], tickers=("T7",)))
    assert monitor(data_in(folder, DAYS[-1], tickers=("T7",)), TRAINING).drift == whole.drift


@pytest.mark.usefixtures("no_server")
def test_the_same_day_again_adds_nothing(served: Served, tmp_path: Path) -> None:
    folder, last = shutil.copytree(served[0], tmp_path / "again"), DAYS[-1]
    ledger = Ledger(store_in(folder))
    before = ledger.forecasts("volume", first=TRAINED), ledger.scores("volume", first=TRAINED)
    assert daily(data_in(folder, last), TRAINING).skipped
    assert monitor(data_in(folder, last), TRAINING).skill
    after = ledger.forecasts("volume", first=TRAINED), ledger.scores("volume", first=TRAINED)
    for old, new in zip(before, after, strict=True):
        pd.testing.assert_frame_equal(old, new)
    assert list(verify(store_in(folder))) == []


@pytest.mark.usefixtures("no_server")
def test_a_day_is_skipped_for_the_tickers_that_were_forecast_and_for_no_others(served: Served, tmp_path: Path) -> None:
    folder, day = shutil.copytree(served[0], tmp_path / "parts"), date(2004, 7, 8)
    ingest(data_in(folder, day, tickers=TICKERS))
    one, other = (data_in(folder, day, tickers=(ticker,)) for ticker in ("SBUX", "T1"))
    assert not daily(one, TRAINING).skipped
    assert daily(one, TRAINING).skipped
    second = daily(other, TRAINING)
    assert second.batch is not None
    assert set(frame_of(second.batch)["unique_id"]) == {"T1"}
    assert daily(data_in(folder, day, tickers=("SBUX", "T1")), TRAINING).skipped
    assert not daily(data_in(folder, day), TRAINING).skipped  # T2 lacks
    assert daily(other, TRAINING).skipped
    without = other.model_copy(update={"events": "none"})
    assert not daily(without, TRAINING).skipped
    assert daily(without, TRAINING).skipped


def test_missed_days_are_caught_up_then_a_source_that_is_down_lets_har_forecast(served: Served, tmp_path: Path) -> None:
    folder = shutil.copytree(served[0], tmp_path / "later")
    caught_up = daily(data_in(folder, date(2004, 7, 12)), TRAINING)
    assert caught_up.batch is not None
    assert caught_up.batch.by == "volcast"
    scores = Ledger(store_in(folder)).scores("volume", first=date(2004, 7, 8))
    assert sorted(scores["ds"].dt.day.unique()) == [8, 9, 12]

    stale = daily(data_in(folder, date(2004, 7, 15), deadline_hours=AT_ONCE), TRAINING)
    assert stale.batch is not None
    assert (stale.batch.by, stale.batch.model) == ("har", None)
    assert stale.batch.why == "its input is stale: the prices end on 2004-07-12, 3 sessions behind the market"
    assert codes(stale)[:2] == ["STALE_PRICES", "FALLBACK_IN_USE"]
    assert stale.batch.why in message_of(run_named("daily volume 2004-07-15: needs a person"))
    rows = Ledger(store_in(folder)).forecasts("volume", first=date(2004, 7, 12))
    first, second = (rows.loc[rows["version"] == version] for version in sorted(rows["version"].unique()))
    assert set(first.loc[first["published"], "model"]) == {"volcast"}
    assert set(second.loc[second["published"], "model"]) == {"har"}
    assert set(second["model"]) == {"har", "naive", "volcast"}  # the champion is still compared

    health = present_health(data_in(folder, date(2004, 7, 15)))
    assert health is not None
    assert health.needs_person
    assert health.drift is not None

    back = daily(data_in(folder, date(2004, 7, 15)), TRAINING)
    assert back.batch is not None
    assert back.batch.by == "volcast"
    assert not back.health or not back.health.needs_person
    pending = Ledger(store_in(folder)).scores("volume", first=date(2004, 7, 13))
    assert set(pending.loc[pending["published"], "model"]) == {"volcast"}  # what was published first was scored


def test_a_missed_deadline_is_a_finding_and_an_alert_though_no_daily_ran_and_is_resolved_by_one(
    served: Served, tmp_path: Path
) -> None:
    folder, watch = shutil.copytree(served[0], tmp_path / "due"), WatchSettings(forecast_by="18:15")
    root = store_in(folder).url

    def at(day: int, hour: int, minute: int) -> DataSettings:
        now = datetime(2004, 7, day, hour, minute, tzinfo=ZoneInfo("America/New_York"))
        return DataSettings(source="simulated", store=str(folder), now=now)

    def found(health: Health) -> list[str]:
        return [finding.code for finding in health.findings]

    with (
        Webhook() as webhook,
        get_client(sync_client=True) as client,
        Alerting(tmp_path, Console(file=StringIO())) as on,
    ):
        sync_automations(client, alerts(root), root)
        save_channels(client, {WEBHOOK: webhook.url}, store_label(root))
        on.collect(client)
        try:
            assert "DEADLINE_MISSED" not in found(monitor(at(8, 18, 14), TRAINING, watch))
            assert "DEADLINE_MISSED" not in found(monitor(at(8, 18, 16), TRAINING))  # nobody asked for one
            late = monitor(at(8, 18, 16), TRAINING, watch)
            assert "DEADLINE_MISSED" in found(late)
            assert late.needs_person
            assert "DEADLINE_MISSED" in found(present_health(at(8, 18, 17)))  # volcast status
            done = daily(at(8, 18, 40), TRAINING, watch)
            assert done.health is not None
            assert found(done.health) == []
            holiday = monitor(at(10, 18, 16), TRAINING, watch)  # a Saturday
            assert "DEADLINE_MISSED" in found(holiday)  # Friday's was missed, and no other

            def told() -> list[str]:
                on.collect(client)
                return [text for text in webhook.texts if "DEADLINE_MISSED" in text or "deadline-missed" in text]

            missed, resolved, again = wait_until(lambda: told() if len(told()) == 3 else None, what="all are told")
        finally:
            sync_automations(client, [], root)
            save_channels(client, {}, store_label(root))
    assert missed.startswith("CRITICAL volcast alert deadline-missed: no forecast by the time that was asked for")
    assert "No forecast from 2004-07-08 was there by 18:15, the market's time." in missed
    assert resolved.startswith("INFO volcast alert resolved: what was found is gone")
    assert "DEADLINE_MISSED is no longer so. It was: No forecast from 2004-07-08" in resolved
    assert "/runs/flow-run/" in resolved
    assert "No forecast from 2004-07-09 was there" in again


@pytest.mark.usefixtures("no_server")
def test_without_a_champion_har_forecasts_and_an_old_one_is_replaced(tmp_path: Path) -> None:
    first = daily(data_in(tmp_path, TRAINED, tickers=("SBUX", "T2")), TRAINING)
    assert first.batch is not None
    assert first.batch.author == "har, a fallback: no version of volume has passed the gate yet"
    assert codes(first) == ["FALLBACK_IN_USE", "NO_CHAMPION"]
    retrain(data_in(tmp_path, TRAINED), TRAINING)
    trained = daily(data_in(tmp_path, TRAINED), TRAINING)  # nothing is new but the champion
    assert trained.batch is not None
    assert trained.batch.by == "volcast"
    old = daily(data_in(tmp_path, date(2004, 7, 1)), TRAINING, WatchSettings(max_model_age=2))
    assert old.batch is not None
    assert old.batch.why == "model volume v1 is 3 sessions old, more than 2"
    assert codes(old) == ["FALLBACK_IN_USE", "MODEL_TOO_OLD"]


@pytest.mark.usefixtures("no_server")
def test_a_forecast_of_some_of_the_stored_tickers_is_found_until_all_are_forecast(
    served: Served, tmp_path: Path
) -> None:
    folder, day = shutil.copytree(served[0], tmp_path / "partial"), date(2004, 7, 8)
    ingest(data_in(folder, day))
    forecast(data_in(folder, day, tickers=("SBUX",)), TRAINING)
    partial = present_health(data_in(folder, day))
    assert [finding.code for finding in partial.findings] == ["PARTIAL_FORECAST"]
    assert partial.findings[0].words == (
        "The forecast from 2004-07-08 was not asked for 2 of 3 stored tickers: T1, T2."
    )
    result = daily(data_in(folder, day), TRAINING)
    assert result.health is not None
    assert not result.health.needs_person


def shown_status(root: str) -> Any:
    """The newest artifact of the status of the store at `root`."""
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[artifact_key("status", root)]))
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC, limit=1)[0]


def test_the_status_in_the_ui_is_true_after_each_flow_that_changes_it(served: Served, tmp_path: Path) -> None:
    folder, day = shutil.copytree(served[0], tmp_path / "shown"), date(2004, 7, 15)
    data, root = data_in(folder, day), store_in(folder).url
    of_another_store = shown_status(store_in(served[0]).url)
    daily(data_in(folder, day, deadline_hours=AT_ONCE), TRAINING)
    assert "; STALE_PRICES, FALLBACK_IN_USE" in shown_status(root).description
    ingest(data)
    assert "from 2004-07-07 by har; NO_FORECAST, FALLBACK_IN_USE" in shown_status(root).description
    forecast(data, TRAINING)
    fine = shown_status(root)
    assert "volume from 2004-07-15 by volcast; " in fine.description
    assert "FALLBACK_IN_USE" not in fine.description

    retrain(data_in(folder, DAYS[-1]), TRAINING, RetrainSettings(promote=False))
    promote("volume", 2, "for the test", store=root)
    assert "* model volume v2, 6 sessions old" in shown_status(root).data
    assert "STALE_PRICES" in shown_status(root).description  # by the clock: a promotion has no other date
    rollback("volume", "for the test", store=root)
    assert "* model volume v1, " in shown_status(root).data
    assert daily(data, TRAINING).skipped
    assert shown_status(root).description == fine.description
    assert shown_status(store_in(served[0]).url).id == of_another_store.id


@pytest.mark.usefixtures("no_server")
def test_a_forecast_of_the_past_and_a_nowcast_stay_out_of_the_ledger(served: Served, tmp_path: Path) -> None:
    folder = shutil.copytree(served[0], tmp_path / "past")
    before = len(Ledger(store_in(folder)).forecasts("volume", first=date(2004, 1, 2)))
    forecast(data_in(folder, date(2004, 6, 24)), TRAINING)
    assert len(Ledger(store_in(folder)).forecasts("volume", first=date(2004, 1, 2))) == before
    with pytest.raises(UnknownRecipe, match="is a nowcast"):
        daily(data_in(folder, DAYS[-1]), TrainingSettings(recipe="tutorial"))
