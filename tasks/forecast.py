"""Forecast with the champion, or with har in its place, and publish what was forecast.

har forecasts where
1. there is no champion: no version has passed the gate yet, or the one that did is damaged and cannot be used;
   and, where a run is told to watch:
2. the champion was trained on later sessions than the cutoff: a forecast of the past must not know them
3. the input is stale: the prices end more than `max_behind` sessions before the last closed one
4. the champion is too old: the newest session that it was trained on is more than `max_model_age` sessions ago, and
   har's errors over the last sessions are not above its own
5. its errors breach: they have grown beyond noise since its test, and har would have been better (models/drift.py)

Without a watch a model from the future is refused, unless the run is told otherwise. A row that cannot be believed
(models/plausibility.py) is held back, and har's is published, or else the seasonal naive's; the log, the version, the
ledger and the health name it.

The forecast is a version. A live one also goes into the ledger, beside those of har, of naive and of a champion that
har stands in for, from the same cutoff; and the run shows it as the artifacts `volcast-forecast-<ticker>-<store>` of
the leading tickers. A forecast of the past is not live: once a later session is stored, its volumes may have been seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import get_run_logger, task
from pydantic import JsonValue

from volcast.models.drift import RECENT, error_drift
from volcast.models.errors import FutureModel, NotEnoughSessions
from volcast.models.forecast_columns import LEDGER_COLUMNS, in_whole_shares, share_columns
from volcast.models.forecasters import FALLBACK, MODEL
from volcast.models.panel import Panel
from volcast.models.scores import GATE_METRIC, bounded_errors
from volcast.models.sessions import session_before, sessions_after
from volcast.models.text import counted, listed
from volcast.storage.announced_dates import EventTable
from volcast.storage.artifacts import ArtifactStore, to_parquet
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.storage.records import Choice, Errors, ForecastBatch, HeldBack, ModelVersion, Snapshot
from volcast.storage.schemas import FORECASTS
from volcast.storage.store import Store, open_store
from volcast.tasks.gate import scorecard_of_model
from volcast.tasks.methods.method import Method
from volcast.tasks.preflight import require_ahead, retirements
from volcast.tasks.reports.render import forecast_markdown, slug
from volcast.tasks.reports.views import forecast_frame, read_forecast, ticker_forecasts
from volcast.tasks.run_tools import has_server, publish_artifact
from volcast.tasks.settings import DataSettings, ForecasterSettings, TrainingSettings, WatchSettings, calendar_of
from volcast.tasks.snapshot import prepare, read_panel, universes
from volcast.tasks.stored_models import (
    CHAMPION,
    FORECAST_FILE,
    Champion,
    features_of,
    find_champion,
    forecasting_version,
    read_frame,
    read_model,
    read_or_fault,
    store_version,
    trained_through,
)

HELD_BACK = "held back"  # begins the reason of a row in the ledger that stands in for another one
MOST_NAMED = 20  # rows that are held back, in the log
LOOK_BACK = 3 * RECENT  # sessions of scores, among which RECENT ones with a score are looked for


@task(task_run_name="choose who forecasts from {snapshot.cutoff}")
def choose_forecaster(
    snapshot: Snapshot,
    data: DataSettings,
    training: TrainingSettings,
    watch: WatchSettings | None,
    chosen: ForecasterSettings,
) -> Choice:
    """The champion or the chosen version, or har where none can be read, or where with `watch` it cannot be trusted.

    Raises NotStored for a nowcast without a champion: har forecasts ahead and cannot stand in for it. FutureModel
    without `watch`, or for a chosen version, unless it is allowed.
    """
    method, store, log = training.method(), open_store(snapshot.store), get_run_logger()
    name, artifacts = method.model_name(snapshot.tickers), ArtifactStore(store)
    champion = find_champion(artifacts, name, load=True)
    if chosen.version is not None or (watch is None and (champion.model or not method.horizon)):
        model = forecasting_version(artifacts, store.url, name, chosen.version)
        future = from_future(artifacts, model, snapshot.cutoff)
        if future and not chosen.allow_future_model:
            raise FutureModel(f"{future}. {_allowed(artifacts, name, snapshot.cutoff)}")
        return _marked(Choice(name=name, champion=model), future, snapshot)
    require_ahead(training)
    trust = trust_in(store, name, champion, snapshot.cutoff, data.session)
    refused = "" if chosen.allow_future_model else trust.from_future
    if why := refused or trust.why_not(watch or WatchSettings()):
        log.warning("%s forecasts in place of %s: %s", FALLBACK, name, why)
        return Choice(name=name, champion=None if refused else trust.champion, why=why)
    return _marked(Choice(name=name, champion=trust.champion), trust.from_future, snapshot)


def from_future(artifacts: ArtifactStore, model: ModelVersion, cutoff: date) -> str:
    """What the weights of a model have seen of after a cutoff; empty for nothing."""
    ref = model.features.artifact
    through = trained_through(artifacts, artifacts.get(ref.kind, ref.name, ref.version))
    if through <= cutoff:
        return ""
    return f"{model.artifact} was trained on sessions up to {through}, after the cutoff {cutoff}"


def _marked(choice: Choice, future: str, snapshot: Snapshot) -> Choice:
    """The choice with what its model knows of after the cutoff: at least by which sessions it was chosen."""
    assert choice.champion is not None
    newest = choice.champion.snapshot.cutoff
    if not future and newest > snapshot.cutoff:
        tested = f"was tested and chosen on sessions up to {newest}, after the cutoff {snapshot.cutoff}"
        future = f"{choice.champion.artifact} {tested}"
    if future:
        get_run_logger().warning("not as of then: %s", future)
    return choice.model_copy(update={"from_future": future})


def _allowed(artifacts: ArtifactStore, name: str, cutoff: date) -> str:
    """What may forecast from a cutoff: the newest version of then that ever was champion, or else that there is."""
    of_then = [
        version
        for version in artifacts.versions("model", name)
        if trained_through(artifacts, features_of(artifacts, name, version)) <= cutoff
    ]
    champions = {entry.version for entry in artifacts.history("model", name, CHAMPION)}
    insist = "To forecast with it all the same: --allow-future-model"
    if not of_then:
        return f"No version of {name} knows less. Train one: volcast retrain --as-of {cutoff}. {insist}"
    version = max(champions.intersection(of_then) or of_then)
    known_as = "that was champion" if version in champions else "that there is"
    return f"The newest one {known_as} and knows nothing later is v{version}: --version {version}. {insist}"


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What speaks for or against a champion."""

    name: str
    champion: ModelVersion | None
    cutoff: date
    behind: int  # sessions
    model_age: int | None  # sessions from the newest one that the champion was made from to the cutoff; None: later
    errors: Errors | None
    fault: str = ""  # why it cannot be used; there is no champion then
    from_future: str = ""  # what its weights have seen of after the cutoff

    def too_old(self, watch: WatchSettings) -> str:
        """How old the champion is, where that is too old; else empty."""
        if self.champion is None or self.model_age is None or self.model_age <= watch.max_model_age:
            return ""
        return f"{self.champion.artifact} is {counted(self.model_age, 'session')} old, more than {watch.max_model_age}"

    def why_not(self, watch: WatchSettings) -> str:
        """Why it should not forecast; empty when it should."""
        if self.fault:
            return self.fault
        if self.champion is None:
            return f"no version of {self.name} has passed the gate yet"
        if self.behind > watch.max_behind:
            behind = counted(self.behind, "session")
            return f"its input is stale: the prices end on {self.cutoff}, {behind} behind the market"
        is_better = self.errors is not None and self.errors.recent < self.errors.har
        if (old := self.too_old(watch)) and not is_better:
            return old
        if self.errors is not None and self.errors.breached:
            return f"{self.champion.artifact} errs too much: {self.errors.words}"
        return ""


def trust_in(store: Store, name: str, champion: Champion, cutoff: date, session: date) -> Trust:
    """The trust in the champion of a name at a cutoff, when `session` is the market's last closed one."""
    artifacts, calendar, model = ArtifactStore(store), calendar_of(store.url), champion.model
    is_older = model is not None and model.snapshot.cutoff <= cutoff
    return Trust(
        name=name,
        champion=model,
        cutoff=cutoff,
        behind=sessions_after(cutoff, session, calendar),
        model_age=sessions_after(model.snapshot.cutoff, cutoff, calendar) if model and is_older else None,
        errors=_errors_of(store, model, cutoff) if model else None,
        fault=champion.fault,
        from_future=from_future(artifacts, model, cutoff) if model else "",
    )


def _errors_of(store: Store, model: ModelVersion, cutoff: date) -> Errors | None:
    """The model's live errors against those of its test; None as long as too few are known, or it has no scorecard."""
    scorecard, _ = read_or_fault(lambda: scorecard_of_model(store.url, model.artifact))
    if scorecard is None:
        return None
    expected = scorecard.scores[MODEL][GATE_METRIC]
    first = session_before(cutoff, LOOK_BACK, calendar_of(store.url))
    scores = Ledger(store).scores(model.artifact.name, first=first)
    scores = scores.loc[scores["ds"] <= pd.Timestamp(cutoff)]
    own = scores.loc[(scores["model"] != MODEL) | (scores["model_version"] == model.artifact.version)]
    found = error_drift(bounded_errors(own), expected=expected, model=MODEL)
    return None if found is None else Errors(**asdict(found))


@task(task_run_name="forecast by {training.recipe}")
def forecast_volume(snapshot: Snapshot, training: TrainingSettings, choice: Choice) -> ForecastBatch:
    """A row a ticker and target session: the champion's, by the settings that it was trained with, or the fallback's.

    Those of a ticker are the same whichever others are asked for. Raises NotEnoughSessions when none can be forecast.
    """
    from volcast.models.volume_evaluation import fallback_frame

    model = None if choice.why else choice.champion
    if model is None:
        method, forecasts = training.method(), panel_frame(snapshot, choice.champion, fallback_frame)
    else:
        method, forecasts = model_frame(snapshot, model)
    universe, by = _widest(snapshot, choice.champion), MODEL if model else FALLBACK
    forecasts, held_back = _believed(snapshot, choice, by, forecasts) if method.horizon else (forecasts, ())
    left_out = sorted(set(snapshot.tickers) - set(forecasts["unique_id"]))
    if forecasts.empty:
        reasons = "; ".join(each.words for each in held_back[:3]) or f"too few sessions before {snapshot.cutoff}"
        raise NotEnoughSessions(f"None of {listed(left_out)} can be forecast: {reasons}.")
    marks: dict[str, Any] = {} if model else {"by": FALLBACK, "why": choice.why}
    marks |= {"from_future": choice.from_future} if choice.from_future else {}
    marks |= {"dated": dated} if model and (dated := _dated_ahead(snapshot, forecasts)) else {}
    held = {"held_back": [each.model_dump(mode="json") for each in held_back]} if held_back else {}
    asked = _asked(snapshot, method)
    stored = store_version(
        snapshot,
        ("forecast", choice.name),
        files={FORECAST_FILE: to_parquet(forecasts)},
        parents=(universe.prices,) if model is None else (model.artifact, universe.prices),
        facts={"cutoff": str(snapshot.cutoff), "rows": len(forecasts), "horizon": method.horizon, **marks, **held}
        | asked,
    )
    batch = ForecastBatch(
        artifact=stored.ref,
        model=model,
        snapshot=snapshot,
        rows=len(forecasts),
        first_session=forecasts["ds"].min().date(),
        last_session=forecasts["ds"].max().date(),
        left_out=tuple(left_out),
        held_back=held_back,
        **marks,
    )
    get_run_logger().info(batch.words)
    return batch


def _believed(
    snapshot: Snapshot, choice: Choice, by: str, forecasts: pd.DataFrame
) -> tuple[pd.DataFrame, tuple[HeldBack, ...]]:
    """What is published: the rows that can be believed, and others in the place of those that are held back."""
    from volcast.models.plausibility import bounds_now, hold_back
    from volcast.models.volume_evaluation import stand_ins

    log, champion = get_run_logger(), choice.champion
    bounds = per_ticker(snapshot, champion, bounds_now)
    others = {name: partial(panel_frame, snapshot, champion, make) for name, make in stand_ins().items() if name != by}
    published, held = hold_back(forecasts, by, bounds, others)
    found = tuple(HeldBack(**asdict(each)) for each in held)
    for each in found[:MOST_NAMED]:
        log.warning("%s: %s", HELD_BACK, each.words)
    if len(found) > MOST_NAMED:
        log.warning("%d rows were held back in all; the version of the forecast names each", len(found))
    return published, found


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


def per_ticker(snapshot: Snapshot, champion: ModelVersion | None, find: Callable[[Panel], Any]) -> Any:
    """What `find` says of each of the snapshot's tickers, which are the index, from the rows of its universe."""
    return pd.concat([find(read_panel(rows)).reindex(own) for rows, own in universes(snapshot, champion)])


def _dated_ahead(snapshot: Snapshot, forecasts: pd.DataFrame) -> list[str]:
    """The kinds of dated events, but for earnings, that are known on the sessions that are forecast."""
    if not snapshot.uses_earnings:
        return []
    known = EventTable(open_store(snapshot.store)).dated(snapshot.tickers, as_of=snapshot.cutoff)
    is_ahead = known["announced_for"].between(forecasts["ds"].min(), forecasts["ds"].max())
    return sorted(set(known.loc[is_ahead, "kind"]))


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
    if champion and (new := sorted(set(tickers) - set(champion.snapshot.tickers))):
        words = "%s was not trained on %s, which are forecast from the rows of all %d stored tickers"
        log.info(words, champion.artifact, listed(new), len(rows.tickers))
    last = PriceTable(open_store(rows.store)).last_sessions(rows.prices.version)
    retired = retirements(open_store(rows.store))
    late = [ticker for ticker in rows.tickers if last[ticker] < rows.cutoff and ticker not in retired]
    if late:
        words = "%d of the %s that forecasts are made from: no price of %s: %s"
        log.warning(words, len(late), counted(len(rows.tickers), "ticker"), rows.cutoff, listed(late))
    return rows


@task(task_run_name="publish {batch.artifact}")
def publish_forecast(batch: ForecastBatch, training: TrainingSettings, choice: Choice) -> ForecastBatch:
    """The batch as it was, in the ledger once, where it is live."""
    if why := why_not_live(batch, training):
        get_run_logger().info("%s %s: not in the ledger", batch.artifact, why)
    else:
        added = Ledger(open_store(batch.snapshot.store, writable=True)).record_forecasts(ledger_rows(batch, choice))
        get_run_logger().info("%s: %s new in the ledger", batch.artifact, counted(added, "row"))
    return batch


def why_not_live(batch: ForecastBatch, training: TrainingSettings) -> str:
    """Why a forecast is none of what is to come; empty for one that is."""
    if not training.method().horizon:
        return "is a nowcast"
    last = PriceTable(open_store(batch.snapshot.store)).coverage()["last"]
    newest = last.reindex(list(batch.snapshot.tickers)).max().date()
    return f"is of the past, prices are stored up to {newest}" if newest > batch.snapshot.cutoff else ""


def ledger_rows(batch: ForecastBatch, choice: Choice) -> pd.DataFrame:
    """The columns of FORECASTS: what is published, and its rivals of the same tickers, where these are finite."""
    from volcast.models.volume_evaluation import fallback_frame, naive_frame, scales_now

    artifacts, snapshot, champion = ArtifactStore(open_store(batch.snapshot.store)), batch.snapshot, choice.champion
    published = read_frame(artifacts, batch.artifact, FORECAST_FILE).assign(published=True)
    frames = {batch.by: published, "naive": panel_frame(snapshot, champion, naive_frame)}
    if batch.by != FALLBACK:
        frames[FALLBACK] = panel_frame(snapshot, champion, fallback_frame)
    elif champion is not None:
        frames[MODEL] = model_frame(snapshot, champion)[1]
    if batch.held_back and batch.model:
        frames["held back"] = model_frame(snapshot, batch.model)[1].assign(by=MODEL)
    rows = pd.concat([frame.assign(model=frame.get("by", model)) for model, frame in frames.items()], ignore_index=True)
    rows = rows.drop_duplicates(["unique_id", "h", "model"])  # a row that stands in is its own rival
    is_finite = np.isfinite(rows[list(LEDGER_COLUMNS)]).all(axis=1)
    rows = rows.loc[is_finite & rows["unique_id"].isin(published["unique_id"])]
    is_published, is_model = rows["published"].eq(True), rows["model"] == MODEL
    reasons = {(each.ticker, each.h): each.reason for each in batch.held_back}
    keys = zip(rows["unique_id"], rows["h"], strict=True)
    why = pd.Series(
        [f"held back: {reasons[key]}" if key in reasons else batch.marked for key in keys], index=rows.index
    )
    facts = {
        "published": is_published,
        "name": batch.artifact.name,
        "version": batch.artifact.version,
        "model_version": pd.Series(
            champion.artifact.version if champion else None, index=rows.index, dtype="Int64"
        ).where(is_model),
        "prices_version": snapshot.prices.version,
        "why": pd.Series(why, index=rows.index).where(is_published, ""),
        "scale": rows["unique_id"].map(per_ticker(snapshot, champion, scales_now)).astype("float64"),
        "published_at": pd.Timestamp(datetime.now(UTC)),
    }
    named = rows.rename(columns={"unique_id": "ticker", **LEDGER_COLUMNS}).assign(**facts)
    return named.loc[:, FORECASTS.names]


CHARTS = 6  # 80 ms each, and as much again to store them


@task(task_run_name="publish charts of {batch.artifact}")
def publish_charts(batch: ForecastBatch, training: TrainingSettings) -> int:
    """Markdown with the fan chart in it, of the first CHARTS tickers; of a nowcast, of the past, or for nobody, none.

    Returns how many.
    """
    if why := why_not_live(batch, training) or ("" if has_server() else "is shown by no server"):
        get_run_logger().info("%s %s: no charts", batch.artifact, why)
        return 0
    from volcast.tasks.methods.volume import in_order

    store = open_store(batch.snapshot.store)
    forecast = read_forecast(store, batch.artifact.name, batch.artifact.version)
    shown = ticker_forecasts(store, forecast, in_order(forecast.frame)[:CHARTS])
    for coming in shown:
        name, markdown = f"forecast-{slug(coming.ticker)}", forecast_markdown(coming, forecast)
        publish_artifact(name, store.url, markdown=markdown, description=coming.summary)
    get_run_logger().info("%s: %d charts are among this run's artifacts", batch.artifact, len(shown))
    return len(shown)


def write_forecasts(batches: Sequence[ForecastBatch], out: Path, point: str) -> int:
    """All rows of the batches in one file, with that point; returns how many."""
    forecasts = _rows_of(batches, point)
    write_frame(forecasts, out)
    return len(forecasts)


def forecast_records(batches: Sequence[ForecastBatch], point: str) -> list[dict[str, Any]]:
    """All rows of the batches, in whole shares, with that point."""
    return in_whole_shares(_rows_of(batches, point)).to_dict("records")


def _rows_of(batches: Sequence[ForecastBatch], point: str) -> pd.DataFrame:
    """By ticker and target session: unique_id, cutoff, ds, h, volcast (shares), and intervals where there are any."""
    frames = [forecast_frame(batch, point) for batch in batches]
    return pd.concat(frames, ignore_index=True).sort_values(["unique_id", "ds", "h"], ignore_index=True)


def write_frame(frame: pd.DataFrame, out: Path) -> None:
    """Parquet, or in whole shares CSV or a sheet, by the file's name (preflight.FORECAST_FORMATS)."""
    kind = out.suffix.lower()
    if kind == ".csv":
        out.write_text(to_csv(frame))
    elif kind == ".xlsx":
        with pd.ExcelWriter(out, datetime_format="YYYY-MM-DD") as book:
            in_whole_shares(frame).to_excel(book, index=False)
    else:
        frame.to_parquet(out, index=False)


def to_csv(frame: pd.DataFrame) -> str:
    """CSV in whole shares."""
    whole = in_whole_shares(frame)
    return whole.astype(dict.fromkeys(share_columns(whole), "Int64")).to_csv(index=False, date_format="%Y-%m-%d")
