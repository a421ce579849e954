"""What a command prints of Prefect's log: the steps' own lines, and not the engine's, unless asked for."""

import logging
from pathlib import Path

import prefect
from prefect.logging.handlers import PrefectConsoleHandler

ENGINE = Path(prefect.__file__).parent


class OwnLinesOnly(logging.Filter):
    """Lets lines through that volcast's code logged, and errors of Prefect that are no run's traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        from_engine = Path(record.pathname).is_relative_to(ENGINE)
        return not from_engine or (
            record.levelno >= logging.ERROR and not record.name.startswith(("prefect.flow_runs", "prefect.task_runs"))
        )


def quiet_console() -> None:
    """Put the filter on every console handler of this process; Prefect's API still gets every line."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in logging.root.manager.loggerDict)]
    for handler in {
        handler for logger in loggers for handler in logger.handlers if isinstance(handler, PrefectConsoleHandler)
    }:
        handler.addFilter(OwnLinesOnly())
