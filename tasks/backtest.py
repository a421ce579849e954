"""Test the forecasters of volume on the stored prices: forecast each session of the past with what was known then."""

import numpy as np
import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from models.backtest import TestSpan, backtest, train_volumes
from models.comparisons import Duel, duels, verdict
from models.forecast_columns import models_of
from models.recipes import settings
from models.scores import score
from models.text import counted
from models.volume_evaluation import forecasters
from models.weights import choose_device
from storage.artifacts import to_parquet
from storage.records import ArtifactRef, BacktestResult, DuelScore, ForecasterScore, Snapshot
from tasks.forecast import write_frame
from tasks.reports.render import markdown_table
from tasks.run_tools import complete, progress
from tasks.settings import BacktestSettings, calendar_of
from tasks.snapshot import read_panel
from tasks.stored_models import FORECAST_FILE, store_version

SHOWN = ("mase", "pinball", "coverage_80", "coverage_95", "bias")  # losses


@task(task_run_name="backtest up to {snapshot.cutoff}, refit {request.refit}", tags=["gpu"])
def run_backtest(snapshot: Snapshot, request: BacktestSettings) -> BacktestResult:
    """The forecasts as a version, and as a file where one is named, and their scores.

    Raises ImpossibleTest, NotEnoughSessions, DeviceUnavailable.
    """
    log, span = get_run_logger(), request.span(snapshot.cutoff, calendar_of(snapshot.store))
    panel = read_panel(snapshot)
    log.info("%s, %s up to %s", counted(len(panel.tickers), "ticker"), counted(panel.known, "session"), panel.cutoff)
    tested = forecasters(
        seed=request.seed,
        device=choose_device(request.device),
        recipe=request.recipe(),
        on_epoch=lambda step, loss: log.info("Step: %d, loss: %.5f", step, loss),
    )
    with progress("backtest", log) as advance:

        def on_step(done: int, steps: int, line: str) -> None:
            advance(f"{done} of {steps}: {line}", completed=done, total=steps)

        frame = backtest(panel, tested, span, on_step=on_step)
    ref = _store(snapshot, request, span, frame)
    if request.out is not None:
        write_frame(frame, request.out)
    path = str(request.out or ref)
    log.info("%s in %s", counted(len(frame), "forecast"), path)
    result = _result(snapshot, path, frame, train_volumes(panel, span))
    log.info("%s", result.verdict)
    return result


def complete_backtest(result: BacktestResult) -> BacktestResult:
    """The final state, with the verdict, and the scores as an artifact of the run."""
    rows = [
        {"h": score.band, "forecaster": score.forecaster, **{name: f"{score.losses[name]:.3f}" for name in SHOWN}}
        for score in result.scores
    ]
    create_markdown_artifact(
        key="volcast-backtest", markdown=f"{result.verdict}\n\n{markdown_table(rows)}", description=result.verdict
    )
    return complete(result, result.verdict)


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


def _result(snapshot: Snapshot, path: str, frame: pd.DataFrame, train: pd.DataFrame) -> BacktestResult:
    """The scores of a frame; the leading forecaster, the first one, stands against each other."""
    scores = score(frame, train)
    found = duels(frame, train, scores, model=models_of(frame)[0])
    own = {str(ticker): _scores(table) for ticker, table in scores.by_ticker.groupby("unique_id", sort=False)}
    return BacktestResult(
        snapshot=snapshot,
        path=path,
        rows=len(frame),
        cutoffs=len(frame["cutoff"].unique()),
        tickers=len(own),
        scores=_scores(scores.panel),
        ticker_scores=own,
        duels=tuple(_duel_score(duel) for duel in found),
        verdict=verdict(found),
    )


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
