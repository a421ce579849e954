"""Show what is to come: the artifacts `volcast-forecast-<ticker>` of the leading tickers, with their history."""

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from storage.records import ForecastBatch
from storage.store import open_store
from tasks.methods.volume import in_order
from tasks.outlook import LEGEND, Outlook, StoredForecast, outlooks, read_forecast
from tasks.publish_forecast import why_not_live
from tasks.publish_status import skill_rows
from tasks.report import SIMULATED_NOTE, image, markdown_table, slug
from tasks.settings import TrainingSettings

CHARTS = 6  # 80 ms each, and as much again to store them


@task(task_run_name="publish charts of {batch.artifact}")
def publish_charts(batch: ForecastBatch, training: TrainingSettings) -> int:
    """Markdown with the fan chart in it, of the first CHARTS tickers; of a nowcast, or of the past, none.

    Returns how many.
    """
    if why := why_not_live(batch, training):
        get_run_logger().info("%s %s: no charts", batch.artifact, why)
        return 0
    store = open_store(batch.snapshot.store)
    forecast = read_forecast(store, batch.artifact.name, batch.artifact.version)
    shown = outlooks(store, forecast, in_order(forecast.frame)[:CHARTS])
    for outlook in shown:
        key = f"volcast-forecast-{slug(outlook.ticker)}"
        create_markdown_artifact(key=key, markdown=markdown(outlook, forecast), description=outlook.words)
    get_run_logger().info("%s: %d charts are among this run's artifacts", batch.artifact, len(shown))
    return len(shown)


def markdown(outlook: Outlook, forecast: StoredForecast) -> str:
    """The coming sessions of a ticker, for a reader."""
    skill = markdown_table(skill_rows(outlook.skill)) if outlook.skill else "None of its forecasts has been scored yet."
    parts = [
        f"# {outlook.ticker}: volume of the next {len(outlook.rows)} sessions",
        *([SIMULATED_NOTE] if forecast.simulated else []),
        f"{forecast.made}.",
        image(outlook.plot),
        LEGEND,
        markdown_table(outlook.rows),
        "## Live skill",
        skill,
    ]
    return "\n\n".join(parts)
