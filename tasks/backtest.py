"""Test the forecasters of volume on the stored prices: forecast each session of the past with what was known then.

1. the plan: one fit, or one for each year or quarter of the test
2. each fit by itself, wherever: the forecasts of all forecasters until the next one, staged in the store
3. all forecasts together, as a version, and their scores
"""

import numpy as np
import pandas as pd
from prefect import get_run_logger, task

from volcast.models.backtest import Fit, TestSpan, fits_of, join_fits, rows_of_fit, train_scales
from volcast.models.comparisons import Duel, duels, errors_over_time, verdict
from volcast.models.forecast_columns import models_of
from volcast.models.point_names import USUAL_POINT
from volcast.models.points import score_points
from volcast.models.pretrained import vintage_for
from volcast.models.recipes import settings
from volcast.models.scores import GATE_BAND, ROLLING, score
from volcast.models.sums import score_sums
from volcast.models.text import counted
from volcast.models.volume_evaluation import forecasters
from volcast.models.weights import choose_device
from volcast.storage.artifacts import to_parquet
from volcast.storage.records import ArtifactRef, BacktestResult, DuelScore, ForecasterScore, Snapshot
from volcast.storage.staging import StagedFrame, discard, stage, unstage
from volcast.storage.store import open_store
from volcast.tasks.forecast import write_frame
from volcast.tasks.methods.method import Plot
from volcast.tasks.reports.plots import errors_plot
from volcast.tasks.reports.render import backtest_markdown
from volcast.tasks.reports.views import simulated_note
from volcast.tasks.run_tools import complete, has_server, progress, publish_artifact
from volcast.tasks.settings import BacktestSettings, calendar_of
from volcast.tasks.snapshot import read_panel
from volcast.tasks.stored_models import FORECAST_FILE, store_version


@task(task_run_name="plan backtest up to {snapshot.cutoff}, refit {request.refit}")
def plan_backtest(snapshot: Snapshot, request: BacktestSettings) -> tuple[Fit, ...]:
    """The fits, of which none needs another one. Raises ImpossibleTest."""
    panel, span = read_panel(snapshot), _span(snapshot, request)
    known = f"{counted(len(panel.tickers), 'ticker')}, {counted(panel.known, 'session')} up to {panel.cutoff}"
    fits = fits_of(panel, span)
    get_run_logger().info("%s; %s of each forecaster", known, counted(len(fits), "fit"))
    return fits


@task(task_run_name="backtest {fit.words}", tags=["gpu"])
def backtest_fit(snapshot: Snapshot, request: BacktestSettings, fit: Fit) -> StagedFrame:
    """The forecasts of every forecaster from the cutoffs of one fit. Raises NotEnoughSessions, DeviceUnavailable."""
    log, panel = get_run_logger(), read_panel(snapshot)
    tested = forecasters(
        seed=request.seed,
        device=choose_device(request.device),
        recipe=request.recipe(),
        on_epoch=lambda step, loss: log.info("Step: %d, loss: %.5f", step, loss),
    )
    with progress(f"backtest, {fit.words}", log) as advance:

        def on_step(done: int, steps: int, line: str) -> None:
            advance(f"{done} of {steps}: {line}", completed=done, total=steps)

        rows = rows_of_fit(panel, tested, _span(snapshot, request), fit, on_step=on_step)
    return stage(open_store(snapshot.store, writable=True), rows)


@task(task_run_name="score backtest up to {snapshot.cutoff}")
def score_backtest(snapshot: Snapshot, request: BacktestSettings, fits: list[StagedFrame]) -> BacktestResult:
    """The forecasts as a version, and as a file where one is named, and their scores. Raises NotEnoughSessions."""
    log, span, panel = get_run_logger(), _span(snapshot, request), read_panel(snapshot)
    store = open_store(snapshot.store, writable=True)
    frame = join_fits(panel, span, [unstage(store, staged) for staged in fits])
    for staged in fits:
        discard(store, staged)
    ref = _store(snapshot, request, span, frame)
    if request.out is not None:
        write_frame(frame, request.out)
    path = str(request.out or ref)
    log.info("%s in %s", counted(len(frame), "forecast"), path)
    scale = train_scales(panel, span)
    result, errors = _scored(snapshot, span, path, frame, scale, start=_start(request, span))
    if request.point != USUAL_POINT:
        points = _scores(score_points(frame, scale, request.point))
        result = result.model_copy(update={"points": points, "point": request.point})
    log.info("%s", result.verdict)
    if has_server():
        _publish(result, errors)
    return result


def _span(snapshot: Snapshot, request: BacktestSettings) -> TestSpan:
    return request.span(snapshot.cutoff, calendar_of(snapshot.store))


def complete_backtest(result: BacktestResult) -> BacktestResult:
    """The final state, with the verdict."""
    return complete(result, result.verdict)


def _publish(result: BacktestResult, errors: pd.DataFrame) -> None:
    """The store's artifact `volcast-backtest-…`."""
    title = f"MASE of horizons {GATE_BAND}, mean over the last {ROLLING} target sessions"
    png = errors_plot(errors, title=title + simulated_note(result.snapshot.simulated))
    plot = Plot(file="errors.png", title="Errors over the test", png=png)
    markdown = backtest_markdown(result, plot)
    publish_artifact("backtest", result.snapshot.store, markdown=markdown, description=result.verdict)


def _store(snapshot: Snapshot, request: BacktestSettings, span: TestSpan, frame: pd.DataFrame) -> ArtifactRef:
    stored = store_version(
        snapshot,
        ("backtest", "volume"),
        files={FORECAST_FILE: to_parquet(frame)},
        parents=(snapshot.prices,),
        facts={
            "recipe": settings(request.recipe()),
            "train_through": str(span.train_through),
            "test_start": str(span.test_start),
            "test_end": str(span.test_end),
            "refit": span.refit,
        },
        seed=request.seed,
    )
    return stored.ref


def _start(request: BacktestSettings, span: TestSpan) -> str:
    """What the first fit starts from: it may know nothing of the test."""
    vintage = vintage_for(request.recipe(), through=span.train_through)
    return vintage.words if vintage else "trained from scratch"


def _scored(
    snapshot: Snapshot, span: TestSpan, path: str, frame: pd.DataFrame, scale: pd.DataFrame, *, start: str
) -> tuple[BacktestResult, pd.DataFrame]:
    """The scores of a frame, the leading forecaster, the first one, against each other; and the errors over time."""
    scores = score(frame, scale)
    found = duels(frame, scale, scores, model=models_of(frame)[0])
    own = {str(ticker): _scores(table) for ticker, table in scores.by_ticker.groupby("unique_id", sort=False)}
    result = BacktestResult(
        snapshot=snapshot,
        path=path,
        rows=len(frame),
        cutoffs=len(frame["cutoff"].unique()),
        tickers=len(own),
        scores=_scores(scores.panel),
        ticker_scores=own,
        duels=tuple(_duel_score(duel) for duel in found),
        verdict=verdict(found),
        train_through=span.train_through,
        test_start=span.test_start,
        test_end=span.test_end,
        refit=span.refit,
        start=start,
        sums=_scores(score_sums(frame, scale)),
    )
    return result, errors_over_time(frame, scale, scores)


def _scores(table: pd.DataFrame) -> tuple[ForecasterScore, ...]:
    losses = table.drop(columns=["band", "model", "mean_of", "unique_id", "tickers"], errors="ignore")
    named = zip(table["band"], table["model"], table["mean_of"], losses.to_dict("records"), strict=True)
    return tuple(
        ForecasterScore(
            band=band, forecaster=model, mean_of=mean_of, losses={str(name): value for name, value in row.items()}
        )
        for band, model, mean_of, row in named
    )


def _duel_score(duel: Duel) -> DuelScore:
    return DuelScore(
        band=duel.band,
        rival=duel.rival,
        mase_ratio=duel.mase_ratio,
        pinball_ratio=duel.pinball_ratio,
        ticker_share=duel.ticker_share,
        p_value=None if np.isnan(duel.p_value) else duel.p_value,
    )
