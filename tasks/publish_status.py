"""Show an operator how things stand: the artifact `volcast-status`, with its history, on the run."""

from prefect import task
from prefect.artifacts import create_markdown_artifact

from models.skill import ALL
from storage.health import Health
from tasks.report import SIMULATED_NOTE, markdown_table

RATIOS = {"mase": ".3f", "mase_har": ".3f", "mase_naive": ".3f", "pinball_har": ".3f", "pinball_naive": ".3f"}
SHARES = {"coverage_80": ".1%", "coverage_95": ".1%", "over_share": ".1%", "bias": "+.1%"}
HEADINGS = {
    "mase": "MASE",
    "mase_har": "/ har",
    "mase_naive": "/ naive",
    "pinball_har": "pinball / har",
    "pinball_naive": "/ naive ",
    "coverage_80": "in 80%",
    "coverage_95": "in 95%",
    "over_share": "over",
    "bias": "bias",
}


@task(task_run_name="publish the status of {health.name}")
def publish_status(health: Health) -> None:
    """Markdown; its description is the one line that says it all."""
    create_markdown_artifact(key="volcast-status", markdown=markdown(health), description=health.words)


def markdown(health: Health) -> str:
    """How things stand, for a reader."""
    findings = [f"* **{each.code}** {each.words} {each.remedy}" for each in health.findings]
    skill = skill_rows(health)
    parts = [
        f"# {health.name} at the close of {health.session}",
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
    behind = f"{health.behind} sessions behind the market" if health.behind else "up to date"
    prices = f"prices of {health.tickers:,} tickers to {health.cutoff}, {behind}"
    made = f"forecast from {health.forecast_cutoff} by {health.by}" if health.forecast_cutoff else "no forecast yet"
    age = f"{health.champion}, {health.model_age} sessions old" if health.champion else "no champion"
    counts = f"{health.quarantined:,} rows quarantined and {health.restated:,} restated"
    return [
        f"{prices}; {counts} of the last 20 sessions",
        made + (f", a fallback: {health.why}" if health.why else ""),
        age + (f"; {health.errors.words}" if health.errors else "; too few scores to judge its errors by"),
    ]


def skill_rows(health: Health) -> list[dict[str, str]]:
    """Live skill, rounded for a reader, one dictionary a window and ticker."""
    rows = []
    for own in health.skill:
        numbers = {name: (getattr(own, name), form) for name, form in (RATIOS | SHARES).items()}
        shown = {HEADINGS[name]: "-" if value is None else f"{value:{form}}" for name, (value, form) in numbers.items()}
        who = "all tickers" if own.ticker == ALL else own.ticker
        rows.append({"sessions": str(own.sessions), "of": who, "rows": f"{own.rows:,}", **shown})
    return rows


def drift_rows(health: Health) -> list[dict[str, str]]:
    """The features that moved most, rounded for a reader."""
    if health.drift is None:
        return []
    found = health.drift.features[:8]
    return [{"feature": own.name, "PSI": f"{own.index:.2f}", "limit": f"{own.limit:.2f}"} for own in found]
