"""Test the forecasters of volume on the stored prices: forecast each session of the past with what was known then."""

import numpy as np
import pandas as pd
from prefect import get_run_logger, task

from models.all_forecasters import forecasters
from models.backtest import backtest, train_volumes
from models.devices import choose_device
from models.duels import Duel, duels, verdict
from models.scores import models_of, score
from storage.records import BacktestResult, DuelScore, ForecasterScore, Snapshot
from tasks.export import write_frame
from tasks.prepared import read_panel
from tasks.progress import progress
from tasks.settings import BacktestSettings


@task(task_run_name="backtest {request.test_start} to {request.test_end}, refit {request.refit}", tags=["gpu"])
def run_backtest(snapshot: Snapshot, request: BacktestSettings) -> BacktestResult:
    """The forecasts as a file, and their scores. Raises ImpossibleTest, NotEnoughSessions, DeviceUnavailable."""
    log, span = get_run_logger(), request.span()
    panel = read_panel(snapshot)
    log.info("%d tickers, %d sessions up to %s", len(panel.tickers), panel.known, panel.cutoff)
    taking_part = forecasters(
        seed=request.seed,
        device=choose_device(request.device),
        recipe=request.recipe(),
        on_epoch=lambda step, loss: log.info("Step: %d, loss: %.5f", step, loss),
    )
    with progress("backtest", log) as advance:

        def on_step(done: int, steps: int, words: str) -> None:
            advance(f"{done} of {steps}: {words}", completed=done, total=steps)

        frame = backtest(panel, taking_part, span, on_step=on_step)
    write_frame(frame, request.out)
    log.info("%s forecasts in %s", f"{len(frame):,}", request.out)
    result = _result(snapshot, request, frame, train_volumes(panel, span))
    log.info("%s", result.verdict)
    return result


def _result(snapshot: Snapshot, request: BacktestSettings, frame: pd.DataFrame, train: pd.DataFrame) -> BacktestResult:
    """The scores of a frame; the leading forecaster, the first one, stands against each other."""
    scores = score(frame, train)
    fought = duels(frame, train, scores, model=models_of(frame)[0])
    own = {str(ticker): _scores(table) for ticker, table in scores.by_ticker.groupby("unique_id", sort=False)}
    return BacktestResult(
        snapshot=snapshot,
        path=str(request.out),
        rows=len(frame),
        cutoffs=len(frame["cutoff"].unique()),
        tickers=len(own),
        scores=_scores(scores.panel),
        ticker_scores=own,
        duels=tuple(_duel_score(duel) for duel in fought),
        verdict=verdict(fought),
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
