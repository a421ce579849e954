"""Show an operator how things stand: the artifact `volcast-status`, with its history, on the run."""

from collections.abc import Iterable, Mapping
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact

from storage.health import Health
from tasks.report import SIMULATED_NOTE, markdown_table

COLUMNS = {
    "mase": ("MASE", ".3f"),
    "mase_har": ("/ har", ".3f"),
    "mase_naive": ("/ naive", ".3f"),
    "pinball_har": ("pinball / har", ".3f"),
    "coverage_80": ("in 80%", ".0%"),
    "coverage_95": ("in 95%", ".0%"),
    "over_share": ("over", ".0%"),
    "bias": ("bias", "+.1%"),
}  # of models/skill.py -> heading and format; the UI has room for 584 pixels


@task(task_run_name="publish the status of {health.name}")
def publish_status(health: Health) -> None:
    """Markdown; its description is the one line that says it all."""
    create_markdown_artifact(key="volcast-status", markdown=markdown(health), description=health.words)


def markdown(health: Health) -> str:
    """How things stand, for a reader."""
    findings = [f"* **{each.code}** {each.words} {each.remedy}" for each in health.findings]
    skill = skill_rows(map(dict, health.skill))
    parts = [
        f"# {health.name}, close of {health.session}",
        *([SIMULATED_NOTE] if health.simulated else []),
        "\n".join(findings) or "Nothing to report.",
        "\n".join(f"* {line}" for line in lines(health)),
        *(["## Live skill", markdown_table(skill)] if skill else []),
        *(
            ["## Drift of the inputs", markdown_table(drift_rows(health))]
            if health.drift and health.drift.features
            else []
        ),
    ]
    return "\n\n".join(parts)


def lines(health: Health) -> list[str]:
    """Prices, forecast and champion in a line each."""
    behind = f"{health.behind:,} sessions behind the market" if health.behind else "up to date"
    prices = f"prices of {health.tickers:,} tickers to {health.cutoff}, {behind}"
    made = f"forecast from {health.forecast_cutoff} by {health.by}" if health.forecast_cutoff else "no forecast yet"
    age = f"{health.champion}, {health.model_age:,} sessions old" if health.champion else "no champion"
    counts = f"{health.quarantined:,} quarantined and {health.restated:,} restated"
    return [
        f"{prices}; {counts} of each ticker's last 20 sessions",
        made + (f", a fallback: {health.why}" if health.why else ""),
        age + (f"; {health.errors.words}" if health.errors else "; too few scores to judge its errors by"),
    ]


def skill_rows(skill: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Live skill (models/skill.py: live_skill), rounded for a reader, one dictionary a window and ticker."""
    rows = []
    for own in skill:
        numbers = {heading: _shown(own[name], form) for name, (heading, form) in COLUMNS.items()}
        rows.append({"of": own["ticker"], "last": str(own["sessions"]), "rows": f"{own['rows']:,}", **numbers})
    return rows


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None or value != value else f"{value:{form}}"  # NaN: there was no rival


def drift_rows(health: Health) -> list[dict[str, str]]:
    """The features that moved most, rounded for a reader."""
    if health.drift is None:
        return []
    found = health.drift.features[:8]
    return [{"feature": own.name, "PSI": f"{own.index:.2f}", "limit": f"{own.limit:.2f}"} for own in found]
