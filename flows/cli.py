"""The command line: options, and what happens when something goes wrong. The work is in `flows/commands.py`."""

import os
import re
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from flows.process_exit import leaving
from models.text import brief, listed

if TYPE_CHECKING:
    from pydantic import ValidationError

app = typer.Typer(
    help="Forecasts of daily trading volume, from a retrained, versioned and watched LSTM on Prefect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models = typer.Typer(help="The trained models and where they come from.", no_args_is_help=True)
app.add_typer(models, name="models")

Source = Annotated[
    str | None,
    typer.Option(
        envvar="VOLCAST_SOURCE",
        help="simulated[:SEED], yahoo, or files:PATH-or-URL  "
        "[default: where the store's prices came from; for an empty store: simulated]",
    ),
]
Events = Annotated[
    str | None,
    typer.Option(
        envvar="VOLCAST_EVENTS",
        help="Announced earnings: simulated[:SEED], yahoo, files:PATH-or-URL, or none to use none  "
        "[default: where the store's came from; before: as --source, for files: those that are stored]",
    ),
]
StoredEvents = Annotated[
    str | None,
    typer.Option(
        "--events",
        envvar="VOLCAST_EVENTS",
        help="none: without announced earnings  [default: with those that are stored]",
    ),
]
StoredSource = Annotated[
    str | None,
    typer.Option(
        "--source",
        envvar="VOLCAST_SOURCE",
        help="Whose stored prices: simulated[:SEED], yahoo or files:…  [default: what the store holds]",
    ),
]
Tickers = Annotated[
    str,
    typer.Option(
        help="Comma-separated  [default: for files: all that they hold; else all that are stored, first SBUX]"
    ),
]
StoredTickers = Annotated[str, typer.Option("--tickers", help="Comma-separated  [default: all that are stored]")]
DailyTickers = Annotated[
    str, typer.Option("--tickers", help="Comma-separated  [default: all that are stored; before any are: as ingest]")
]
ServedTickers = Annotated[
    str, typer.Option("--tickers", help="Comma-separated, of every deployment  [default: all that are stored]")
]
MaxModelAge = Annotated[
    int, typer.Option(min=1, help="Sessions since the newest one that the champion was trained on; beyond: har")
]
StoreRoot = Annotated[
    str,
    typer.Option("--store", envvar="VOLCAST_STORE", help="Where everything is kept: a folder, or s3://, gs://, az://"),
]
AsOf = Annotated[
    datetime | None,
    typer.Option(
        formats=["%Y-%m-%d"], metavar="DATE", help="Use nothing after this date  [default: the last closed session]"
    ),
]
TrainThrough = Annotated[
    datetime, typer.Option(formats=["%Y-%m-%d"], metavar="DATE", help="The last session that the first fit sees")
]
TestStart = Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], metavar="DATE", help="The first target")]
TestEnd = Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], metavar="DATE", help="The last target")]
Refit = Annotated[
    Literal["never", "yearly", "quarterly"],
    typer.Option(help="Fit again at the first cutoff of each calendar year or quarter, on all that is known then"),
]
Recipe = Annotated[str, typer.Option(help="volume: the next 10 sessions; tutorial: a nowcast of one ticker")]
Cell = Annotated[
    Literal["lstm", "gru", "rnn", "mlp"],
    typer.Option(help="What carries the past in the volume recipe; mlp sees only the cutoff"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Another setting of the recipe, such as steps=1000; repeatable"),
]
Seed = Annotated[int, typer.Option(help="Seed of the initial weights")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU when there is one")]
FitScalersOn = Annotated[
    Literal["train", "all"],
    typer.Option(help="'all' is the article's own choice: it lets the test rows leak into the scalers"),
]
Sessions = Annotated[str, typer.Option(help="The newest sessions that the tutorial recipe looks at, or 'all'")]
Force = Annotated[
    bool, typer.Option("--force", help="Train even where the same data and settings were trained on before")
]
RequireApproval = Annotated[
    bool, typer.Option("--require-approval", help="A version that passed the gate waits for volcast models promote")
]
ApprovedByPerson = Annotated[
    bool,
    typer.Option(
        "--require-approval",
        envvar="VOLCAST_REQUIRE_APPROVAL",
        help="A retrained model that passed the gate waits for a person's yes in the UI",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option("--name", help="A model of its own beside the recipe's: its registered name  [default: the recipe's]"),
]
NoPromote = Annotated[
    bool, typer.Option("--no-promote", help="An experiment: the version is scored and kept, and does not forecast")
]
Margin = Annotated[
    float, typer.Option(min=0, max=0.5, help="By how much of the champion's error a version may be worse, at the most")
]
Out = Annotated[Path | None, typer.Option(help="Write the forecasts to this .parquet or .csv file")]
AllowShrink = Annotated[
    bool, typer.Option("--allow-shrink", help="Accept a source that has lost sessions which are stored; those stay")
]
MaxFailedShare = Annotated[
    float, typer.Option(min=0, max=1, help="Of the tickers; when more of them fail, the ingest fails")
]
Host = Annotated[
    str, typer.Option(help="The server's address; another than this machine's own demands VOLCAST_AUTH=user:password")
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The UI's port, if it is free; else a free one is taken")]
Database = Annotated[
    str | None,
    typer.Option(
        envvar="VOLCAST_DATABASE",
        metavar="URL",
        help="postgresql+asyncpg://user:password@host:5432/name, where runs and schedules are kept  [default: SQLite]",
    ),
]
ModelNamed = Annotated[str, typer.Argument(help="A model's name, such as volume or tutorial.SBUX")]
Reason = Annotated[str, typer.Option(help="Why; it stays on record beside the move")]

DEFAULT_STORE = "./data"
LONGEST = 1000  # characters of an error's line
INTERRUPTED = 130  # 128 and SIGINT's number, as shells have it


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and everything that Prefect logs")] = False,
) -> None:
    if debug:
        os.environ["VOLCAST_DEBUG"] = "1"


@app.command()
def run(
    source: Source = None,
    tickers: Tickers = "",
    recipe: Recipe = "volume",
    store: StoreRoot = DEFAULT_STORE,
    seed: Seed = 0,
    device: Device = "auto",
    as_of: AsOf = None,
    fit_scalers_on: FitScalersOn = "train",
    sessions: Sessions = "253",
    force: Force = False,
    out: Out = None,
    events: Events = None,
    cell: Cell = "lstm",
    setting: Settings = None,
    name: ModelName = None,
    no_promote: NoPromote = False,
    margin: Margin = 0.01,
) -> None:
    """The whole pipeline: ingest, retrain, forecast, report."""
    from flows import commands
    from tasks.settings import RetrainSettings

    training = commands.training_settings(
        recipe,
        sessions,
        cell=cell,
        fit_scalers_on=fit_scalers_on,
        seed=seed,
        device=device,
        force=force,
        settings=commands.recipe_settings(setting or ()),
        name=name,
    )
    why = RetrainSettings(promote=not no_promote, margin=margin)
    commands.run(commands.data_settings(source, tickers, store, as_of, events), training, why, out)


@app.command()
def ingest(
    source: Source = None,
    tickers: Tickers = "",
    store: StoreRoot = DEFAULT_STORE,
    as_of: AsOf = None,
    allow_shrink: AllowShrink = False,
    max_failed_share: MaxFailedShare = 0.05,
    events: Events = None,
) -> None:
    """Bring the stored prices up to the last closed session."""
    from flows import commands

    accepted = {"allow_shrink": allow_shrink, "max_failed_share": max_failed_share}
    commands.ingest(commands.data_settings(source, tickers, store, as_of, events, **accepted))


@app.command()
def status(source: StoredSource = None, tickers: StoredTickers = "", store: StoreRoot = DEFAULT_STORE) -> None:
    """What is stored, how far it is behind the market, and how the forecasts fare; exit 1 if it needs a person."""
    from flows import commands

    if not commands.status(commands.stored_data_settings(source, tickers, store, None)):
        sys.exit(1)


@app.command()
def quarantine(
    ticker: Annotated[str, typer.Argument(help="One ticker  [default: all]")] = "",
    source: StoredSource = None,
    store: StoreRoot = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(min=1, help="Show so many rows at the most")] = 20,
) -> None:
    """The rows that broke a rule and are never trained on, the newest first."""
    from flows import commands

    commands.quarantine(commands.stored_data_settings(source, ticker, store, None), limit)


@app.command()
def retrain(
    source: StoredSource = None,
    tickers: StoredTickers = "",
    recipe: Recipe = "volume",
    store: StoreRoot = DEFAULT_STORE,
    seed: Seed = 0,
    device: Device = "auto",
    as_of: AsOf = None,
    fit_scalers_on: FitScalersOn = "train",
    sessions: Sessions = "253",
    force: Force = False,
    cell: Cell = "lstm",
    setting: Settings = None,
    require_approval: RequireApproval = False,
    events: StoredEvents = None,
    name: ModelName = None,
    no_promote: NoPromote = False,
    margin: Margin = 0.01,
) -> None:
    """Train on the stored prices; a version that beats har, and is not worse than the present one, forecasts then."""
    from flows import commands
    from tasks.settings import RetrainSettings

    training = commands.training_settings(
        recipe,
        sessions,
        cell=cell,
        fit_scalers_on=fit_scalers_on,
        seed=seed,
        device=device,
        force=force,
        settings=commands.recipe_settings(setting or ()),
        name=name,
    )
    why = RetrainSettings(require_approval=require_approval, promote=not no_promote, margin=margin)
    commands.retrain(commands.stored_data_settings(source, tickers, store, as_of, events), training, why)


@app.command()
def forecast(
    source: StoredSource = None,
    tickers: StoredTickers = "",
    recipe: Recipe = "volume",
    store: StoreRoot = DEFAULT_STORE,
    as_of: AsOf = None,
    out: Out = None,
    events: StoredEvents = None,
    name: ModelName = None,
) -> None:
    """Forecast with the champion from the stored prices."""
    from flows import commands

    training = commands.training_settings(recipe, name=name)
    commands.forecast(commands.stored_data_settings(source, tickers, store, as_of, events), training, out)


@app.command()
def daily(
    source: Source = None,
    tickers: DailyTickers = "",
    recipe: Recipe = "volume",
    store: StoreRoot = DEFAULT_STORE,
    as_of: AsOf = None,
    events: Events = None,
    max_model_age: MaxModelAge = 63,
) -> None:
    """The day's work after the close: ingest, forecast, monitor; har forecasts where the champion cannot be trusted."""
    from flows import commands
    from tasks.settings import WatchSettings

    data = commands.data_settings(source, tickers, store, as_of, events)
    commands.daily(data, commands.training_settings(recipe), WatchSettings(max_model_age=max_model_age))


@app.command()
def monitor(
    source: StoredSource = None,
    tickers: StoredTickers = "",
    recipe: Recipe = "volume",
    store: StoreRoot = DEFAULT_STORE,
    as_of: AsOf = None,
    max_model_age: MaxModelAge = 63,
) -> None:
    """Score what came true, and say how prices, champion and forecasts stand."""
    from flows import commands
    from tasks.settings import WatchSettings

    data = commands.stored_data_settings(source, tickers, store, as_of)
    commands.monitor(data, commands.training_settings(recipe), WatchSettings(max_model_age=max_model_age))


@app.command()
def backtest(
    train_through: TrainThrough,
    test_start: TestStart,
    test_end: TestEnd,
    out: Annotated[Path, typer.Option(help="Write the forecasts to this .parquet or .csv file")],
    refit: Refit = "never",
    source: Source = None,
    events: Events = None,
    tickers: Tickers = "",
    store: StoreRoot = DEFAULT_STORE,
    seed: Seed = 0,
    device: Device = "auto",
    cell: Cell = "lstm",
    setting: Settings = None,
) -> None:
    """Forecast each session of the past with what was known then, and score every forecaster on the same rows.

    Nothing after --test-end is used.
    """
    from flows import commands
    from tasks.settings import BacktestSettings

    request = BacktestSettings(
        train_through=train_through.date(),
        test_start=test_start.date(),
        test_end=test_end.date(),
        refit=refit,
        seed=seed,
        device=device,
        out=out,
        settings={"cell": cell, **commands.recipe_settings(setting or ())},
    )
    commands.backtest(commands.data_settings(source, tickers, store, None, events), request)


@app.command()
def up(
    source: Source = None,
    events: Events = None,
    tickers: ServedTickers = "",
    recipe: Recipe = "volume",
    store: StoreRoot = DEFAULT_STORE,
    seed: Seed = 0,
    device: Device = "auto",
    cell: Cell = "lstm",
    setting: Settings = None,
    host: Host = "127.0.0.1",
    port: Port = 4200,
    database: Database = None,
    require_approval: ApprovedByPerson = False,
) -> None:
    """Keep Prefect's server, a worker and the deployments of prefect.yaml up, until Ctrl-C."""
    began = time.monotonic()
    _ask_a_person(require_approval)
    _move_into_environment("--database", "VOLCAST_DATABASE", database)

    from flows.server_options import ServerOptions

    options = ServerOptions(host=host, port=port, database=database)

    from flows import commands

    training = commands.training_settings(
        recipe, cell=cell, seed=seed, device=device, settings=commands.recipe_settings(setting or ())
    )
    commands.up(commands.data_settings(source, tickers, store, None, events), training, options, began)


@app.command()
def deploy(
    source: Source = None,
    events: Events = None,
    tickers: ServedTickers = "",
    recipe: Recipe = "volume",
    store: StoreRoot = DEFAULT_STORE,
    seed: Seed = 0,
    device: Device = "auto",
    cell: Cell = "lstm",
    setting: Settings = None,
    pool: Annotated[str, typer.Option(help="The work pool; another than volcast must be there already")] = "volcast",
    image: Annotated[str | None, typer.Option(help="The container image, for a pool that runs containers")] = None,
    require_approval: ApprovedByPerson = False,
) -> None:
    """Apply prefect.yaml to the server that is up, with what it no longer has removed; twice changes nothing."""
    _ask_a_person(require_approval)
    from flows import commands

    training = commands.training_settings(
        recipe, cell=cell, seed=seed, device=device, settings=commands.recipe_settings(setting or ())
    )
    commands.deploy(commands.data_settings(source, tickers, store, None, events), training, pool, image)


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="Write the page to this .html file")] = Path("report.html"),
    source: StoredSource = None,
    tickers: StoredTickers = "",
    store: StoreRoot = DEFAULT_STORE,
) -> None:
    """One page with status, forecasts, live skill, calibration and versions; it opens anywhere, without a server."""
    from flows import commands

    commands.report(commands.stored_data_settings(source, tickers, store, None), out)


@app.command()
def verify(store: StoreRoot = DEFAULT_STORE) -> None:
    """Read everything that is stored, and name what is not as it was written; exit 1 if anything is."""
    from flows import commands

    if not commands.verify(store):
        sys.exit(1)


@app.command()
def gc(
    store: StoreRoot = DEFAULT_STORE,
    keep_versions: Annotated[int, typer.Option(min=1, help="The newest versions of the prices that are kept")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go")] = False,
) -> None:
    """Remove what nothing needs any more: old versions of the prices, unused blobs, left-over frames."""
    from flows import commands

    commands.gc(store, keep_versions, dry_run)


@models.command("list")
def list_models(source: StoredSource = None, store: StoreRoot = DEFAULT_STORE) -> None:
    """Every version of every model, and which one forecasts."""
    from flows import commands

    commands.list_models(commands.stored_data_settings(source, "", store, None))


@models.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="A model's name, such as volume or tutorial.SBUX  [default: each]")] = "",
    source: StoredSource = None,
    store: StoreRoot = DEFAULT_STORE,
) -> None:
    """From the newest forecast back to the prices that it came from."""
    from flows import commands

    commands.show_models(commands.stored_data_settings(source, "", store, None), name)


@models.command("promote")
def promote_model(
    name: ModelNamed,
    version: Annotated[int, typer.Option(min=1, help="The version that is to forecast")],
    reason: Reason,
    source: StoredSource = None,
    store: StoreRoot = DEFAULT_STORE,
) -> None:
    """Let a version forecast from now on, whatever its scorecard says."""
    from flows import commands

    commands.promote(commands.stored_data_settings(source, "", store, None), name, version, reason)


@models.command("rollback")
def roll_model_back(
    name: ModelNamed, reason: Reason, source: StoredSource = None, store: StoreRoot = DEFAULT_STORE
) -> None:
    """Go back to the version that forecast before the present one came; twice goes back two."""
    from flows import commands

    commands.roll_back(commands.stored_data_settings(source, "", store, None), name, reason)


def main() -> None:
    """Run the command; an error is one line on stderr and exit 1, or 2 for a request that cannot be right."""
    for ending in (signal.SIGTERM, signal.SIGINT):  # a shell's background job would ignore the second
        signal.signal(ending, signal.default_int_handler)  # so that a server of ours is ended then, too
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _complain("Interrupted. What was committed before is kept; run the same command again to go on.")
        raise
    except Exception as error:  # the last resort of a command line: one line, the traceback on request
        if os.environ.get("VOLCAST_DEBUG"):
            raise
        _complain(_one_line(error))
        sys.exit(_exit_code(error))


def process() -> None:
    """`main`, as all that a process does."""
    with leaving():
        main()


def _ask_a_person(required: bool) -> None:
    """prefect.yaml takes it from the environment."""
    os.environ["VOLCAST_REQUIRE_APPROVAL"] = "true" if required else "false"


def _move_into_environment(option: str, variable: str, value: str | None) -> None:
    """Where the command line holds a value, start anew without it: every user of the machine can read command lines."""
    _, *words = sys.argv
    without = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if option not in (before, word) and not word.startswith(f"{option}=")
    ]
    if value is not None and without != words:
        os.execve(sys.executable, [sys.executable, "-m", "flows.cli", *without], os.environ | {variable: value})


def _one_line(error: Exception) -> str:
    from pydantic import ValidationError

    from flows.commands import EXPECTED
    from storage.errors import UNREADABLE, StoreError, first_line

    if isinstance(error, UNREADABLE) and not isinstance(error, OSError):
        error = StoreError(f"The store cannot be used: {first_line(error)}. See: volcast verify")
    words = re.sub(r"\s*\n\s*", " ", _validation(error) if isinstance(error, ValidationError) else str(error)).strip()
    words = words if len(words) <= LONGEST else f"{words[:LONGEST]}… ({len(words) - LONGEST:,} characters more)"
    if isinstance(error, EXPECTED):
        return words
    return f"{type(error).__name__}: {words} (this was not foreseen; volcast --debug … shows where it happened)"


def _validation(error: "ValidationError") -> str:
    """What pydantic says of each option, without its links."""
    facts = ((" ".join(map(str, each["loc"])), each["msg"], each["input"]) for each in error.errors())
    return listed([f"--{name.replace('_', '-')}: {known}; {brief(came)} came." for name, known, came in facts], 3, " ")


def _exit_code(error: Exception) -> int:
    from flows.commands import MISTAKES

    return 2 if isinstance(error, MISTAKES) else 1


def _complain(words: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold red]Error:[/] {words.replace('[', chr(92) + '[')}"
    )


if __name__ == "__main__":
    process()
