"""The page: everything that an operator or a reader of forecasts asks, in one HTML file.

It is made from the store alone, without a server, and needs nothing when it is opened: no script, no other file.
`volcast report` writes it where it is told to. A daily run leaves it in the store each day under the same name, beside
the newest forecast as CSV and Parquet: `reports/<model>/latest.html`. Of runs that failed only a server knows, so that
the page names them where a deployment's run writes it.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from textwrap import shorten
from typing import Any

import pandas as pd
from prefect import get_run_logger, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterParentTaskRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.runtime import deployment, flow_run
from prefect.types import DateTime

from volcast.models.calendar_names import market
from volcast.models.forecasters import MODEL
from volcast.models.scores import ROLLING, live_calibration, rolling_errors
from volcast.models.sessions import session_before
from volcast.models.sums import sums_of
from volcast.storage.artifacts import ArtifactStore, to_parquet
from volcast.storage.ledger import FORECAST_KEY, Ledger
from volcast.storage.records import ForecastBatch, Health, Manifest
from volcast.storage.store import Store, open_store, put
from volcast.tasks.count_prices import status_of
from volcast.tasks.forecast import to_csv, why_not_live
from volcast.tasks.gate import scorecard_of_model
from volcast.tasks.methods.method import Plot
from volcast.tasks.methods.volume import DRAWN_TICKERS, in_order
from volcast.tasks.monitor import DRIFTED_SHARE, present_health
from volcast.tasks.reports.changes import changes_since, drift_shares, forecast_against_actual, health_history
from volcast.tasks.reports.plots import calibration_plot, drift_plot, errors_plot
from volcast.tasks.reports.publish import model_plots
from volcast.tasks.reports.render import latest_markdown, page_html
from volcast.tasks.reports.views import (
    LEGEND,
    History,
    Rows,
    as_forecasts,
    count_rows,
    drift_rows,
    health_lines,
    history_of,
    latest_frame,
    latest_sums,
    move_rows,
    read_forecast,
    short_rows,
    simulated_note,
    skill_rows,
    ticker_forecasts,
    version_rows,
)
from volcast.tasks.run_tools import artifact_key, publish_artifact, store_tag
from volcast.tasks.settings import DataSettings, TrainingSettings, calendar_of
from volcast.tasks.stored_models import find_champion, read_or_fault

SHORT_TICKERS = 500  # in the short table; with 6,700 nobody would find anything
DRIFT_SESSIONS = 60  # of the drift over time
FAILURES, FAILED_ROWS, MESSAGE = timedelta(days=1), 20, 200  # looked back at the first time; runs; letters of a message
LIVE_SESSIONS, ERROR_SESSIONS = 60, 250  # target sessions of the calibration, and of the errors over time
AHEAD = {"1": "1 ahead", "1-5": "1-5 ahead", "1-10": "1-10 ahead"}  # bands of models/scores.py


@task(task_run_name="publish {batch.artifact} as the latest")
def publish_latest(batch: ForecastBatch, data: DataSettings, training: TrainingSettings) -> None:
    """`latest` and `latest-sums` as CSV and Parquet, from the ledger.

    And the page, unless a daily run makes it after the scores.
    """
    if why := why_not_live(batch, training):
        get_run_logger().info("%s %s: the latest stays", batch.artifact, why)
        return
    store, name = open_store(batch.snapshot.store, writable=True), batch.artifact.name
    latest = latest_frame(Ledger(store), name)
    for what, frame in {"latest": latest, "latest-sums": latest_sums(latest)}.items():
        put(store, latest_file(name, "parquet", what), to_parquet(frame), replace=True)
        put(store, latest_file(name, "csv", what), to_csv(frame).encode(), replace=True)
    if flow_run.parent_flow_run_id is None:
        whole = data.model_copy(update={"tickers": ()})
        _publish_page(whole, present_health(whole, name))


@task(task_run_name="publish the page of {health.session}")
def publish_page(data: DataSettings, batch: ForecastBatch, health: Health, training: TrainingSettings) -> None:
    """`latest.html`, and the store's artifact `volcast-latest-…`; nothing for a run of the past."""
    if not why_not_live(batch, training):
        _publish_page(data, health)


def _publish_page(data: DataSettings, health: Health) -> None:
    store = open_store(data.root, writable=True)
    facts = page_facts(data, health)
    facts["failed"] = failed_rows(store.url, facts["since"])
    put(store, latest_file(health.name, "html"), page_html(facts).encode(), replace=True)
    where, line = f"{store.folder or store.url}/{latest_file(health.name, '')}", facts["actual"] or health.words
    others = [artifact_key(name, store.url) for name in ("status", "models")]
    publish_artifact("latest", store.url, markdown=latest_markdown(health, facts, where, others), description=line)
    get_run_logger().info("the page is %shtml", where)


def latest_file(name: str, ending: str, what: str = "latest") -> str:
    """The key of what is replaced each day."""
    return f"reports/{name}/{what}.{ending}"


def failed_rows(root: str, since: datetime | None) -> Rows | None:
    """The runs of the store at `root` that failed or crashed since then; None where this is no deployment's run."""
    if deployment.id is None:
        return None
    is_bad = FlowRunFilterStateType(any_=[StateType.FAILED, StateType.CRASHED])
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[store_tag(root)]),
        state=FlowRunFilterState(type=is_bad),
        end_time=FlowRunFilterEndTime(after_=DateTime.instance(since or datetime.now(UTC) - FAILURES)),
        parent_task_run_id=FlowRunFilterParentTaskRunId(is_null_=True),
    )
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.END_TIME_DESC, limit=FAILED_ROWS)
    return [
        {
            "run": run.name,
            "ended": f"{run.end_time:%Y-%m-%d %H:%M} UTC",
            "state": run.state.name or "",
            "why": shorten(run.state.message or "", MESSAGE, placeholder=" …"),
        }
        for run in runs
        if run.state
    ]


def page(data: DataSettings) -> str:
    """The page as HTML. Raises NotStored before any prices are stored, Corrupt."""
    return page_html(page_facts(data, present_health(data)))


def page_facts(data: DataSettings, health: Health) -> dict[str, Any]:
    """What the page shows; what of the models is damaged is named. Raises NotStored before any prices are, Corrupt."""
    root = data.root
    store, artifacts = open_store(root), ArtifactStore(open_store(root))
    counts = status_of(root, data.tickers, data.session)
    history, healths = history_of(artifacts, health.name), health_history(artifacts, health.name, DRIFT_SESSIONS)
    before = next((each for each in healths if each.fact("session") < str(health.session)), None)
    facts = {
        "name": health.name,
        "market": market(data.calendar),
        "simulated": data.source.startswith("simulated"),
        "made_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "counts": counts,
        "count_rows": count_rows(counts),
        "versions": version_rows(history),
        "moves": move_rows(history),
        "faults": history.faults,
        "health": health,
        "lines": health_lines(health),
        "since": before.created_at if before else None,
        "since_session": before.fact("session") if before else "",
        "failed": None,
        **_changed(store, health, history, before),
        "drift_plot": _drift_plot(drift_shares(healths), simulated_note(health.simulated)),
    }
    if health.forecast_cutoff:
        facts |= _forecast_facts(store, health, health.forecast_cutoff, data.tickers)
    return facts


def _forecast_facts(store: Store, health: Health, newest: date, tickers: Sequence[str]) -> dict[str, Any]:
    """What there is to tell once something was forecast, from `newest` last."""
    rows = Ledger(store).forecasts(health.name, first=newest)
    forecast = read_forecast(store, health.name, int(rows["version"].iloc[-1]))  # every version is published
    there = [ticker for ticker in in_order(forecast.frame) if not tickers or ticker in tickers]
    live, observed = _calibration(store, health)
    leading, others = there[:DRAWN_TICKERS], there[DRAWN_TICKERS:]
    return {
        "forecast": forecast,
        "legend": LEGEND,
        "leading": ticker_forecasts(store, forecast, leading),
        "others": short_rows(store, forecast, others[:SHORT_TICKERS]) if others else [],
        "left_out": len(others[SHORT_TICKERS:]),
        "skill": skill_rows(health.skill),
        "errors": _errors(store, health),
        "drift": drift_rows(health),
        "live": live,
        "observed": observed,
        "live_sums": _live_sums(store, health, leading),
        "tested": _tested(store, health.name),
    }


def _changed(store: Store, health: Health, models: History, before: Manifest | None) -> dict[str, Any]:
    """What came of the forecast of the newest session, and what is other than it was before that."""
    ledger = Ledger(store)
    actual, rows = forecast_against_actual(ledger, health.name, health.cutoff)
    changes = changes_since(before, health, models, ledger) if before else []
    return {"actual": actual, "actual_rows": rows, "changes": changes}


def _drift_plot(shares: pd.Series, note: str) -> Plot | None:
    """Drift over time; None before it was measured twice."""
    if len(shares) < 2:
        return None
    png = drift_plot(shares, DRIFTED_SHARE, title=f"Features that have drifted{note}")
    return Plot(file="drift.png", title="Drift of the inputs over time", png=png)


def _errors(store: Store, health: Health) -> Plot | None:
    """Live errors over time; None before enough is scored."""
    first = session_before(health.cutoff, ERROR_SESSIONS, calendar_of(store.url))
    errors = Ledger(store).errors(health.name, first=first)
    rolling = rolling_errors(errors) if len(errors) else errors
    if rolling.dropna(how="all").empty:
        return None
    png = errors_plot(
        rolling, title=f"MASE, mean over the last {ROLLING} target sessions{simulated_note(health.simulated)}"
    )
    return Plot(file="errors.png", title="Live errors over time, of what was published, har and naive", png=png)


def _calibration(store: Store, health: Health) -> tuple[Plot | None, Rows]:
    """How often volumes were at or below the published quantiles, drawn and as rows; nothing before any score."""
    first = session_before(health.cutoff, LIVE_SESSIONS, calendar_of(store.url))
    below = Ledger(store).shares_below(health.name, first=first)
    if below.empty:
        return None, []
    observed = live_calibration(below)
    title = f"{health.name}, live{simulated_note(health.simulated)}: calibration"
    png = calibration_plot(observed.dropna(axis="columns"), title=title)
    rows = [
        {"quantile": f"{level:.1%}", **{AHEAD[str(band)]: f"{share:.1%}" for band, share in shares.items()}}
        for level, shares in observed.iterrows()
    ]
    return Plot(file="live.png", title="Calibration of live forecasts", png=png), rows


def _live_sums(store: Store, health: Health, tickers: list[str]) -> Rows:
    """How often the sums of sessions, as first published of some tickers, were inside of their intervals."""
    first = session_before(health.cutoff, LIVE_SESSIONS, calendar_of(store.url))
    scores = Ledger(store).scores(health.name, first=first, tickers=tickers)
    actual = scores.loc[scores["published"], [*FORECAST_KEY, "actual"]].rename(columns={"actual": "y"})
    sums = sums_of(as_forecasts(Ledger(store).forecasts(health.name, first=first).merge(actual, on=FORECAST_KEY)))
    inside = {
        f"in {share}%": sums["y"].between(sums[f"{MODEL}-lo-{share}"], sums[f"{MODEL}-hi-{share}"])
        for share in (80, 95)
    }
    return [
        {
            "sessions": str(sessions),
            "sums": f"{len(own):,}",
            **{name: f"{found.loc[own.index].mean():.1%}" for name, found in inside.items()},
        }
        for sessions, own in sums.groupby("sessions")
    ]


def _tested(store: Store, name: str) -> list[Plot]:
    """How the champion was calibrated in its test; nothing without one that can be read, and was ever scored."""
    champion = find_champion(ArtifactStore(store), name).model
    if champion is None:
        return []
    return read_or_fault(lambda: model_plots(scorecard_of_model(store.url, champion.artifact)))[0] or []
