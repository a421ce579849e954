"""Forecast with whoever was chosen, and keep the forecast as a version."""

from collections.abc import Callable

import pandas as pd
from prefect import get_run_logger, task
from pydantic import JsonValue

from models.errors import NotEnoughSessions
from models.live_forecasts import FALLBACK, fallback_frame
from models.panel import Panel
from models.words import listed
from storage.artifacts import ArtifactStore, Draft
from storage.prices import PriceTable
from storage.records import Choice, ForecastBatch, ModelVersion, Snapshot
from storage.store import open_store
from tasks.frames import to_parquet
from tasks.methods.protocol import Method
from tasks.prepared import prepare, read_panel
from tasks.provenance import provenance
from tasks.settings import TrainingSettings
from tasks.stored import FORECAST_FILE, read_model
from tasks.take_snapshot import universes


@task(task_run_name="forecast by {training.recipe}")
def forecast_volume(snapshot: Snapshot, training: TrainingSettings, choice: Choice) -> ForecastBatch:
    """A row a ticker and target session: the champion's, by the settings that it was trained with, or the fallback's.

    Those of a ticker are the same whichever others are asked for. Raises NotEnoughSessions when none can be forecast.
    """
    artifacts, model = ArtifactStore(open_store(snapshot.store, writable=True)), None if choice.why else choice.champion
    if model is None:
        method, forecasts = training.method(), panel_frame(snapshot, choice.champion, fallback_frame)
    else:
        method, forecasts = model_frame(snapshot, model)
    universe = _widest(snapshot, choice.champion)
    left_out = sorted(set(snapshot.tickers) - set(forecasts["unique_id"]))
    if forecasts.empty:
        raise NotEnoughSessions(f"None of {listed(left_out)} has enough sessions before {snapshot.cutoff}.")
    by = {"by": FALLBACK, "why": choice.why} if model is None else {}
    asked = _asked(snapshot, method)
    draft = Draft(
        kind="forecast",
        name=choice.name,
        files={FORECAST_FILE: to_parquet(forecasts)},
        parents=(universe.prices,) if model is None else (model.artifact, universe.prices),
        facts={"cutoff": str(snapshot.cutoff), "rows": len(forecasts), "horizon": method.horizon, **by, **asked},
        provenance=provenance(source=snapshot.source),
    )
    batch = ForecastBatch(
        artifact=artifacts.put(draft).ref,
        model=model,
        snapshot=snapshot,
        rows=len(forecasts),
        first_session=forecasts["ds"].min().date(),
        last_session=forecasts["ds"].max().date(),
        left_out=tuple(left_out),
        **by,
    )
    get_run_logger().info(batch.words)
    return batch


def model_frame(snapshot: Snapshot, model: ModelVersion) -> tuple[Method, pd.DataFrame]:
    """What a stored model says of a snapshot, and the method that asked it. Raises NotStored, Corrupt, ModelError."""
    artifacts = ArtifactStore(open_store(snapshot.store))
    method, predictor = read_model(artifacts, model.artifact.name, model.artifact.version)
    return method, frame_of(snapshot, model, lambda rows: method.forecast(prepare(rows, method), predictor))


def panel_frame(
    snapshot: Snapshot, champion: ModelVersion | None, make: Callable[[Panel], pd.DataFrame]
) -> pd.DataFrame:
    """What a forecaster that needs no training says of a snapshot."""
    return frame_of(snapshot, champion, lambda rows: make(read_panel(rows)))


def frame_of(
    snapshot: Snapshot, champion: ModelVersion | None, make: Callable[[Snapshot], pd.DataFrame]
) -> pd.DataFrame:
    """What `make` says of the snapshot's tickers, by unique_id and h, each from the rows of its universe."""
    frames = []
    for rows, tickers in universes(snapshot, champion):
        frame = make(rows)
        frames.append(frame.loc[frame["unique_id"].isin(tickers)])
    return pd.concat(frames).sort_values(["unique_id", "h"], kind="stable", ignore_index=True)


def _asked(snapshot: Snapshot, method: Method) -> dict[str, JsonValue]:
    """What the run was asked for, where that is not all tickers, or not with announced earnings."""
    facts: dict[str, JsonValue] = {} if snapshot.uses_earnings else {"uses_earnings": False}
    stored = PriceTable(open_store(snapshot.store)).tickers(snapshot.prices.version)
    if method.horizon and set(stored) != set(snapshot.tickers):
        facts["asked_for"] = list(snapshot.tickers)
    return facts


def _widest(snapshot: Snapshot, champion: ModelVersion | None) -> Snapshot:
    """All the rows that the forecasts are made from; the log says which of them are not what a model expects."""
    log, (*_, (rows, tickers)) = get_run_logger(), universes(snapshot, champion)
    if champion and (new := sorted(set(tickers) - set(champion.scaler.features.snapshot.tickers))):
        words = "%s was not trained on %s, which are forecast from the rows of all %d stored tickers"
        log.info(words, champion.artifact, listed(new), len(rows.tickers))
    last = PriceTable(open_store(rows.store)).last_sessions(rows.prices.version)
    late = [ticker for ticker in rows.tickers if last[ticker] < rows.cutoff]
    if late:
        words = "%d of the %d tickers that forecasts are made from have no price of %s: %s"
        log.warning(words, len(late), len(rows.tickers), rows.cutoff, listed(late))
    return rows
