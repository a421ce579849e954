"""What an operator asks in the morning: what came of the last forecast, and what has changed since the session before.

It all follows from the ledger and from the healths that the store keeps of each session.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import pandas as pd

from volcast.models.forecasters import FALLBACK
from volcast.models.text import format_millions
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.ledger import Ledger
from volcast.storage.records import Health, InputDrift, Manifest
from volcast.tasks.reports.views import History, Rows

ACTUAL_ROWS = 20  # tickers, of a session that has come
OF_ONE = ["ticker", "cutoff", "h"]  # what a forecast of the ledger is of
VALUES = ("median", "lo_80", "hi_80")
COMPARED = {
    "champion": "The champion",
    "by": "Forecast by",
    "tickers": "Tickers",
    "quarantined": "Quarantined sessions of the last 20",
    "restated": "Restated sessions of the last 20",
    "held_back": "Rows held back",
}  # fields of a health -> words
REVISED, REVISIONS = 0.1, 5  # of a median; so many are named


def forecast_against_actual(ledger: Ledger, name: str, session: date) -> tuple[str, Rows]:
    """What was published last of a session that has come, in a line and a row a ticker; nothing where none is scored.

    Of more than ACTUAL_ROWS tickers those whose forecast was furthest off, in units of the ticker's scale.
    """
    scores = ledger.scores(name, first=session)
    scores = scores.loc[scores["ds"] == pd.Timestamp(session)]
    published = scores.loc[scores["published"]].sort_values("h").drop_duplicates("ticker")
    if published.empty:
        return "", []
    har = scores.loc[scores["model"] == FALLBACK, [*OF_ONE, "absolute_error", "over"]]
    made = ledger.forecasts(name, first=published["cutoff"].min().date())
    rows = published.merge(made[[*OF_ONE, "model", "version", *VALUES]], on=[*OF_ONE, "model", "version"])
    rows = rows.merge(har, on=OF_ONE, how="left", suffixes=("", "_har"))
    errors, har_errors = rows["absolute_error"] / rows["scale"], rows["absolute_error_har"] / rows["scale"]
    line = (
        f"{session}: of {len(rows):,} tickers {rows['in_80'].sum():,} inside of the 80 % interval, "
        f"{rows['in_95'].sum():,} of the 95 %; MASE {errors.mean():.3f}, har {har_errors.mean():.3f}."
    )
    if len(rows) > ACTUAL_ROWS:
        rows = rows.loc[errors.sort_values(ascending=False).index[:ACTUAL_ROWS]]
    return line, [_actual_row(row) for row in rows.to_dict("records")]


def _actual_row(row: Mapping[str, Any]) -> dict[str, str]:
    inside = "80 %" if row["in_80"] else "95 %" if row["in_95"] else "neither"
    return {
        "ticker": row["ticker"],
        "forecast": format_millions(row["median"]),
        "80 %": f"{format_millions(row['lo_80'])}-{format_millions(row['hi_80'])}",
        "came": format_millions(row["actual"]),
        "off": _off(row["absolute_error"], row["over"], row["actual"]),
        "har off": _off(row["absolute_error_har"], row["over_har"], row["actual"]),
        "inside of": inside,
        "ahead": f"{row['h']}",
    }


def _off(error: float, is_over: object, actual: float) -> str:
    """By how much of the volume a forecast was above or below it; - where there was none."""
    return "-" if error != error else f"{error / actual * (1 if is_over else -1):+.0%}"


def health_history(artifacts: ArtifactStore, name: str, sessions: int) -> list[Manifest]:
    """The newest version of the health of each session, newest first, so many at the most. Raises Corrupt."""
    found: dict[str, Manifest] = {}
    for version in reversed(artifacts.versions("health", name)):
        manifest = artifacts.get("health", name, version)
        found.setdefault(manifest.fact("session"), manifest)
        if len(found) == sessions:
            break
    return list(found.values())


def drift_shares(history: Iterable[Manifest]) -> pd.Series:
    """Of the sessions of a health history: the share of the features that had drifted, by session, ascending."""
    measured = [InputDrift.model_validate(each.fact("drift")) for each in history if each.fact("drift")]
    shares = {pd.Timestamp(each.cutoff): len(each.drifted) / len(each.features) for each in measured if each.features}
    return pd.Series(shares, dtype="float64").sort_index()


def changes_since(before: Manifest, health: Health, models: History, ledger: Ledger) -> list[str]:
    """What is other than it was by the health of an earlier session, a line each."""
    then: Any = before.facts
    codes, now = {each["code"] for each in then["findings"]}, {finding.code for finding in health.findings}
    lines = [f"New: {code}" for code in sorted(now - codes)] + [f"No longer: {code}" for code in sorted(codes - now)]
    lines += [
        f"{words}: {then.get(name) or 'none'} then, {getattr(health, name) or 'none'} now"
        for name, words in COMPARED.items()
        if then.get(name) != getattr(health, name)
    ]
    lines += [
        f"{health.name} v{move.version} is {move.alias} since {move.set_at:%Y-%m-%d %H:%M} UTC. {move.reason}"
        for move in models.moves
        if move.set_at > before.created_at
    ]
    if cutoff := before.fact("forecast_cutoff"):
        lines += _revisions(ledger.forecasts(health.name, first=date.fromisoformat(cutoff)))
    return lines


def _revisions(forecasts: pd.DataFrame) -> list[str]:
    """Of the sessions that were forecast from both of the newest two cutoffs: whose median has moved by a tenth."""
    published = forecasts.loc[forecasts["published"]].sort_values("version")
    by_cutoff, key = [own for _, own in published.groupby("cutoff")], ["ticker", "ds"]
    before, now = by_cutoff[-2:] if len(by_cutoff) > 1 else (published, published)
    both = now.drop_duplicates(key, keep="last").merge(before.drop_duplicates(key, keep="last"), on=key)
    moved = both.assign(change=both["median_x"] / both["median_y"] - 1)
    moved = moved.loc[moved["change"].abs() >= REVISED].sort_values("change", key=abs, ascending=False)
    lines = [
        f"{row['ticker']}, {row['ds']:%a %Y-%m-%d}: {format_millions(row['median_x'])} M shares, "
        f"{format_millions(row['median_y'])} M before ({row['change']:+.0%})"
        for row in moved.head(REVISIONS).to_dict("records")
    ]
    return lines + (
        [f"{len(moved):,} forecasts in all moved by {REVISED:.0%} or more"] if len(moved) > REVISIONS else []
    )
