"""Put what a person reads where it is looked for: Prefect artifacts on the calling flow run, and files of the store."""

from datetime import date
from functools import partial

import pandas as pd
from prefect import get_run_logger, task

from volcast.models.points import with_point
from volcast.models.recipes import DEFAULT_RECIPE
from volcast.models.sums import sums_of
from volcast.models.text import listed
from volcast.storage.artifacts import ArtifactStore, to_parquet
from volcast.storage.prices import PriceTable
from volcast.storage.records import ForecastBatch, Health, Report, Scorecard, Snapshot
from volcast.storage.store import Store, open_store, put
from volcast.tasks.forecast import to_csv
from volcast.tasks.methods.method import Method, Names, Plot
from volcast.tasks.methods.volume import DRAWN_TICKERS, in_order
from volcast.tasks.monitor import deadline_of, health_since, last_health
from volcast.tasks.reports.plots import SHOWN_SESSIONS
from volcast.tasks.reports.render import health_markdown, models_markdown, scorecard_markdown, slug
from volcast.tasks.reports.views import (
    forecast_frame,
    forecast_method,
    histories,
    prices_before,
    session_notes,
    simulated_note,
)
from volcast.tasks.run_tools import has_server, publish_artifact
from volcast.tasks.settings import calendar_of, due_session_of, is_simulated, last_session
from volcast.tasks.snapshot import read_prepared
from volcast.tasks.stored_models import read_model, read_or_fault, reader

LEADING = 3  # tickers whose forecast a scorecard shows: an artifact holds 300 kB, and a chart takes 40 as text


@task(task_run_name="publish the status of {health.name}")
def publish_status(health: Health, root: str) -> None:
    """The store's artifact `volcast-status-…`; its description is the one line that says it all."""
    publish_artifact("status", open_store(root).url, markdown=health_markdown(health), description=health.words)


@task(task_run_name="publish the versions of the models")
def publish_models(store_url: str) -> None:
    """The store's artifact `volcast-models-…`, from which a person chooses what to promote.

    There is none before the first version.
    """
    root, found = open_store(store_url).url, histories(store_url)
    if not found:
        return
    forecasting = [f"{own.name} v{each.version}" for own in found for each in own.versions if each.is_champion]
    publish_artifact(
        "models",
        root,
        markdown=models_markdown(found, simulated=is_simulated(root)),
        description=f"Champions: {listed(forecasting, 5) or 'none yet'}",
    )


@task(task_run_name="bring the status up to date")
def refresh_status(root: str, session: date | None = None) -> None:
    """The artifact of the status at a session, by default the last closed one, once `monitor` has looked before.

    Each flow that changes what it tells of ends with it. What cannot be read is in the log and fails no flow.
    """
    if not has_server():
        return
    health, fault = read_or_fault(partial(_present, open_store(root), session))
    if fault:
        get_run_logger().warning("the artifact of the status stays as it was: %s", fault)
    if health:
        publish_status.fn(health, root)


def _present(store: Store, session: date | None) -> Health | None:
    """None before `monitor` has looked. A run that works as of the past changes what is told of the present."""
    before = last_health(store)
    if before is None:
        return None
    if session is None or session < max(PriceTable(store).last_sessions().values()):
        session = last_session(None, calendar=calendar_of(store.url))
    due = due_session_of(deadline_of(before), calendar_of(store.url))
    return health_since(store, before.name, before, session, due=due)


@task(task_run_name="publish the report on {scorecard.model.artifact}")
def publish_scorecard(scorecard: Scorecard) -> None:
    """One artifact: verdict, scores, plots of the model and of what it forecasts."""
    if not has_server():
        return
    model = scorecard.model
    snapshot, name = model.snapshot, model.artifact.name
    method, predictor = read_model(ArtifactStore(open_store(snapshot.store)), name, model.artifact.version)
    forecasts = method.forecast(read_prepared(model.features, method), predictor)
    leading = forecasts.loc[forecasts["unique_id"].isin(in_order(forecasts)[:LEADING])]
    plots = [*_forecast_plots(method, snapshot, leading), *model_plots(scorecard)]
    key = publish_artifact(
        "scorecard" + ("" if name == DEFAULT_RECIPE else f"-{slug(name)}"),
        snapshot.store,
        markdown=scorecard_markdown(scorecard, plots),
        description=scorecard.judgement,
    )
    get_run_logger().info("%s is this run's artifact %s", scorecard.artifact, key)


@task(task_run_name="write the report on {batch.artifact}")
def write_report(batch: ForecastBatch, scorecard: Scorecard | None, point: str) -> Report:
    """Plots, scorecard and forecast, whose point a person may choose, as plain files under `reports/` of the store.

    Beside a fallback's forecast the scorecard is that of a model which did not make it, and its plots are left out.
    """
    store, forecasts = open_store(batch.snapshot.store, writable=True), forecast_frame(batch, point)
    folder = f"reports/{batch.artifact.name}/v{batch.artifact.version}"
    method = forecast_method(batch)
    plots = _forecast_plots(method, batch.snapshot, forecasts)
    plots += model_plots(scorecard) if scorecard and batch.model else []
    frames = {"forecast": forecasts, **({"sums": with_point(sums_of(forecasts), point)} if method.horizon else {})}
    files = {
        **{f"{name}.parquet": to_parquet(frame) for name, frame in frames.items()},
        **{f"{name}.csv": to_csv(frame).encode() for name, frame in frames.items()},
        **{plot.file: plot.png for plot in plots},
    }
    if scorecard is not None:
        by_another = "" if batch.model else f"**The forecast is not by this model, but by {batch.author}.**\n\n"
        files["scorecard.md"] = f"{by_another}{scorecard_markdown(scorecard)}".encode()
    for name, data in files.items():
        put(store, f"{folder}/{name}", data, replace=True)
    where = {name: f"{store.folder or store.url}/{folder}/{name}" for name in files}
    get_run_logger().info("report in %s/%s", store.folder or store.url, folder)
    return Report(batch=batch, scorecard=scorecard, files=where)


def model_plots(scorecard: Scorecard) -> list[Plot]:
    """Pictures of the model on the data that it was trained and tested on."""
    model, snapshot = scorecard.model, scorecard.model.snapshot
    artifacts = ArtifactStore(open_store(snapshot.store))
    method, predictor = read_model(artifacts, model.artifact.name, model.artifact.version)
    note = simulated_note(snapshot.simulated)
    names = Names(tickers=listed(snapshot.tickers, 5), version=str(model.artifact), note=note)
    return method.model_plots(
        lambda: read_prepared(model.features, method), predictor, reader(artifacts, scorecard.artifact), names
    )


def _forecast_plots(method: Method, snapshot: Snapshot, forecasts: pd.DataFrame) -> list[Plot]:
    store, version = open_store(snapshot.store), snapshot.prices.version
    drawn = in_order(forecasts)[:DRAWN_TICKERS]
    prices = prices_before(store, drawn, cutoff=snapshot.cutoff, version=version, sessions=SHOWN_SESSIONS)
    marks = session_notes(store, forecasts, snapshot.cutoff) if method.horizon else {}
    return method.forecast_plots(prices, forecasts, simulated_note(snapshot.simulated), marks)
