"""The page that `volcast report` writes: everything that an operator or a reader of forecasts asks, in one HTML file.

It is made from the store alone, without a server, and needs nothing when it is opened: no script, no other file.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from models.calendar_names import market
from models.scores import ROLLING, live_calibration, rolling_errors
from models.sessions import session_before
from storage.artifacts import ArtifactStore
from storage.ledger import Ledger
from storage.records import Health
from storage.store import Store, open_store
from tasks.count_prices import status_of
from tasks.gate import scorecard_of_model
from tasks.methods.method import Plot
from tasks.methods.volume import DRAWN_TICKERS, in_order
from tasks.monitor import present_health
from tasks.reports.plots import calibration_plot, errors_plot
from tasks.reports.publish import model_plots
from tasks.reports.render import page_html
from tasks.reports.views import (
    LEGEND,
    Rows,
    count_rows,
    drift_rows,
    health_lines,
    history_of,
    move_rows,
    read_forecast,
    short_rows,
    skill_rows,
    ticker_forecasts,
    version_rows,
)
from tasks.settings import DataSettings, calendar_of
from tasks.stored_models import find_champion, read_or_fault

SHORT_TICKERS = 500  # in the short table; with 6,700 nobody would find anything
LIVE_SESSIONS, ERROR_SESSIONS = 60, 250  # target sessions of the calibration, and of the errors over time
AHEAD = {"1": "1 ahead", "1-5": "1-5 ahead", "1-10": "1-10 ahead"}  # bands of models/scores.py


def page(data: DataSettings) -> str:
    """The page as HTML; what of the models is damaged is named. Raises NotStored before any prices are, Corrupt."""
    root = data.root
    store = open_store(root)
    counts = status_of(root, data.tickers, data.session)
    health = present_health(data)
    history = history_of(ArtifactStore(store), health.name)
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
    }
    if health.forecast_cutoff:
        facts |= _forecast_facts(store, health, health.forecast_cutoff, data.tickers)
    return page_html(facts)


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
        "tested": _tested(store, health.name),
    }


def _errors(store: Store, health: Health) -> Plot | None:
    """Live errors over time; None before enough is scored."""
    first = session_before(health.cutoff, ERROR_SESSIONS, calendar_of(store.url))
    errors = Ledger(store).errors(health.name, first=first)
    rolling = rolling_errors(errors) if len(errors) else errors
    if rolling.dropna(how="all").empty:
        return None
    png = errors_plot(rolling, title=f"MASE, mean over the last {ROLLING} target sessions")
    return Plot(file="errors.png", title="Live errors over time, of what was published, har and naive", png=png)


def _calibration(store: Store, health: Health) -> tuple[Plot | None, Rows]:
    """How often volumes were at or below the published quantiles, drawn and as rows; nothing before any score."""
    first = session_before(health.cutoff, LIVE_SESSIONS, calendar_of(store.url))
    below = Ledger(store).shares_below(health.name, first=first)
    if below.empty:
        return None, []
    observed = live_calibration(below)
    png = calibration_plot(observed.dropna(axis="columns"), title=f"{health.name}, live: calibration")
    rows = [
        {"quantile": f"{level:.1%}", **{AHEAD[str(band)]: f"{share:.1%}" for band, share in shares.items()}}
        for level, shares in observed.iterrows()
    ]
    return Plot(file="live.png", title="Calibration of live forecasts", png=png), rows


def _tested(store: Store, name: str) -> list[Plot]:
    """How the champion was calibrated in its test; nothing without one that can be read, and was ever scored."""
    champion = find_champion(ArtifactStore(store), name).model
    if champion is None:
        return []
    return read_or_fault(lambda: model_plots(scorecard_of_model(store.url, champion.artifact)))[0] or []
