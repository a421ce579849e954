"""The command line: a command's options are the fields of the settings that it takes, and an error is one line.

What is heavy is imported by the command that needs it, after its request has been checked.
"""

import inspect
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.markup import escape

from models.calendar_names import NEW_YORK, calendar_named
from models.errors import ImpossibleTest, ModelError, UnknownCalendar, UnknownRecipe
from models.text import brief, counted, listed
from storage.locations import shown
from tasks.settings import (
    DEFAULT_STORE,
    BacktestSettings,
    DataSettings,
    ForecasterSettings,
    RetrainSettings,
    TrainingSettings,
    WatchSettings,
)

if TYPE_CHECKING:
    from flows.server import Server
    from storage.records import AliasEntry, ForecastBatch

LONGEST = 1000  # characters of an error's line
BEGAN = time.monotonic()
INTERRUPTED = 130  # 128 and SIGINT's number, as shells have it

Body = TypeVar("Body", bound=Callable[..., bool | None])
console = Console(highlight=False, soft_wrap=True)
app = App(
    name="volcast",
    help="Forecasts of daily trading volume, from a retrained, versioned and watched LSTM on Prefect.",
    help_format="plaintext",
    help_flags=["--help"],
    version_flags=[],
    default_parameter=Parameter(negative=(), show_default=False, allow_repeating=True),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
models = App(name="models", help="The trained models and where they come from.", sort_key=100)  # the last of all
app.command(models)
app.meta.suppress_keyboard_interrupt = False  # `main` says what an interrupt leaves
order = count()  # the order of the commands in the help


def tickers_of(words: str) -> tuple[str, ...]:
    """Tickers from a list with commas, each once."""
    return tuple(dict.fromkeys(ticker.strip().upper() for ticker in words.split(",") if ticker.strip()))


def window_of(word: str) -> int | None:
    """A number of sessions, or None for `all`."""
    if word != "all" and not re.fullmatch("[0-9]{1,9}", word):
        raise UnknownRecipe(f"--sessions must be a whole number or 'all'; {brief(word)} came.")
    return None if word == "all" else int(word)


def recipe_settings(given: Sequence[str]) -> dict[str, Any]:
    """Settings of a recipe from NAME=VALUE, the value as JSON or else a word."""
    found: dict[str, Any] = {}
    for each in given:
        name, _, value = (word.strip() for word in each.partition("="))
        if not (name and value):
            raise UnknownRecipe(f"--set must be NAME=VALUE, such as steps=1000; {brief(each)} came.")
        try:
            found[name] = json.loads(value)
        except ValueError:  # a word, or an integer of more digits than Python reads
            found[name] = value
        except RecursionError:
            found[name] = {}
        members = found[name] if isinstance(found[name], list) else [found[name]]
        if any(isinstance(member, list | dict) for member in members):
            expected = "expected a number, a word or a list of them"
            raise UnknownRecipe(f"--set {brief(name)}: {expected}; {brief(value)} came.")
    return found


# field -> the words that an option takes, and what they mean, where that is not the field's own type
WRITTEN: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "tickers": (str, tickers_of),
    "calendar": (str, str),
    "window_sessions": (str, window_of),
    "settings": (list[str], recipe_settings),
    "name": (str, str),  # the settings check it
    "promote": (bool, lambda is_experiment: not is_experiment),
}
# field -> what only the command line knows of it
SHOWN: dict[str, dict[str, Any]] = {
    "source": {"env_var": "VOLCAST_SOURCE"},
    "events": {"env_var": "VOLCAST_EVENTS"},
    "calendar": {"env_var": "VOLCAST_CALENDAR", "metavar": "NAME"},
    "store": {"env_var": "VOLCAST_STORE"},
    "forecast_by": {"env_var": "VOLCAST_FORECAST_BY", "metavar": "HH:MM"},
    "tickers": {"metavar": "A,B"},
    "date_format": {"metavar": "FORMAT"},
    "decimal": {"metavar": ".|,"},
    "columns": {"metavar": "HEADING=NAME"},
    "window_sessions": {"name": "--sessions", "metavar": "NUMBER|all"},
    "settings": {"name": "--set", "metavar": "NAME=VALUE"},
    "require_approval": {"env_var": "VOLCAST_REQUIRE_APPROVAL"},
    "promote": {
        "name": "--no-promote",
        "help": "An experiment: the version is scored and kept, whatever its scorecard says, and does not forecast",
    },
} | {name: {"metavar": "DATE"} for name in ("as_of", "train_through", "test_start", "test_end")}
# field -> its description, where that is another than the field's own: of commands that bring prices in, …
INGESTED = {
    "source": "simulated[:SEED], yahoo, or files:PATH-or-URL; by default where the store's prices came from, or "
    "simulated where it is empty",
    "events": "Announced earnings and other dated events: simulated[:SEED], yahoo, files:PATH-or-URL, or none to use "
    "none; by default where the store's came from; before any did, as --source, and for files those that are stored",
    "calendar": "The market's calendar, as exchange_calendars names it: XLON, XETR, XTKS, 24/7, …; by default the one "
    "that the source's prices came with before, or XNYS, New York's",
    "tickers": "Comma-separated; by default for files all that they hold, else all that are stored, first SBUX",
}
STORED = {  # … and of those that use what is stored
    "source": "Whose stored prices: simulated[:SEED], yahoo or files:…; by default what the store holds",
    "events": "none: without announced earnings and other dated events; by default with those that are stored",
    "calendar": "The market whose stored prices are meant, such as XLON, where the store holds several",
    "tickers": "Comma-separated; by default all that are stored",
}
DAILY = {"tickers": "Comma-separated; by default all that are stored; before any are, as ingest"}
RETIRED = {"as_of": "From the close of this session on; by default of the last one"}
SERVED = {"tickers": "Comma-separated, of every deployment; by default all that are stored"}
TEST = {
    "train_through": "The last session that the first fit sees",
    "test_start": "The first target",
    "test_end": "The last target",
    "out": "Write the forecasts to this .parquet or .csv file",
}
PRICES, DATED = "source calendar tickers store as_of events", "source calendar tickers store as_of"  # of DataSettings
READING = "date_format decimal columns"  # those that become part of the source
SERVED_MODEL = "recipe cell seed device settings from_scratch"  # of TrainingSettings
MODEL = f"{SERVED_MODEL} fit_scalers_on window_sessions force name"
Store = Annotated[str, Parameter(env_var="VOLCAST_STORE", help=DataSettings.model_fields["store"].description)]
Approve = Annotated[
    bool, Parameter(env_var="VOLCAST_REQUIRE_APPROVAL", help="A person says yes to each model in the UI")
]
Out = Annotated[Path | None, Parameter(help="Write the forecasts to this .parquet or .csv file")]
ModelNamed = Annotated[str, Parameter(help="A model's name, such as volume or tutorial.SBUX", show_default=False)]
Reason = Annotated[str, Parameter(help="Why; it stays on record beside the move", allow_leading_hyphen=True)]
Count = Number(gte=1)


def option(settings: type[BaseModel], name: str, texts: Mapping[str, str]) -> inspect.Parameter:
    """A field of settings as an option; one whose name ends in ! must be given."""
    name, is_required = name.rstrip("!"), name.endswith("!")
    field = settings.model_fields[name]
    default = DEFAULT_STORE if name == "store" else field.default
    is_flag, text = isinstance(default, bool), str(default)
    is_shown = isinstance(default, str | int | float) and not (is_flag or is_required or name in texts)
    shown: Any = {"help": texts.get(name, field.description), "show_default": (lambda _: text) if is_shown else False}
    how = Parameter(**(shown | SHOWN.get(name, {})))
    kind = WRITTEN[name][0] | None if name in WRITTEN else field.annotation
    default = inspect.Parameter.empty if is_required else None if name in WRITTEN else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, how], default=default)


def command(
    into: App = app,
    name: str | None = None,
    *,
    stored: bool = False,
    texts: Mapping[str, str] | None = None,
    begins: str = "",
    **fields: str,
) -> Callable[[Body], Body]:
    """Make a function a command: of each argument named here, these fields of its settings become options.

    With `stored` the data are those of the store. `texts` stand in the place of a field's description, and `begins` is
    said before anything else is done. A command that returns False ends with exit status 1.
    """
    described = {**(STORED if stored else INGESTED), **(texts or {})}

    def register(body: Body) -> Body:
        own = inspect.signature(body).parameters
        kinds = {argument: own[argument].annotation for argument in fields}
        options = [option(kinds[argument], each, described) for argument in fields for each in fields[argument].split()]
        others = [each for each in own.values() if each.name not in fields]
        named = [each for each in others if each.kind is inspect.Parameter.KEYWORD_ONLY]
        placed = [each.replace(kind=inspect.Parameter.POSITIONAL_ONLY) for each in others if each not in named]
        shown = inspect.Signature([*placed, *options, *named])

        def run(*given: Any, **more: Any) -> bool | None:
            if begins:
                console.print(begins)
            came = shown.bind(*given, **more).arguments
            for argument, kind in sorted(kinds.items(), key=lambda each: each[1] is DataSettings):  # which need a store
                names = fields[argument].replace("!", "").split()
                came[argument] = _settings(kind, {each: came.pop(each) for each in names if each in came}, stored)
            return body(**came)

        run.__doc__, run.__name__ = body.__doc__, body.__name__
        run.__signature__ = shown  # type: ignore[attr-defined]
        into.command(run, name=name, sort_key=next(order))
        return body

    return register


def _settings(kind: type[BaseModel], chosen: dict[str, Any], stored: bool) -> BaseModel:
    for name in WRITTEN.keys() & chosen.keys():
        chosen[name] = WRITTEN[name][1](chosen[name])
    return _data_settings(stored, **chosen) if kind is DataSettings else kind(**chosen)


def _data_settings(stored: bool, store: str = DEFAULT_STORE, **chosen: Any) -> DataSettings:
    """Of what is stored; or of what is to be brought in, as the store's came before, unless told otherwise."""
    from tasks.preflight import stored_market, usual_events, usual_market

    source, calendar = chosen.pop("source", None), chosen.pop("calendar", None)
    find = stored_market if stored else usual_market
    known, market = find(store, source, calendar_named(calendar) if calendar else None, chosen.get("tickers", ()))
    data = DataSettings(source=known, calendar=market, store=store, **chosen)
    if stored:
        return data
    data = data if data.events else data.model_copy(update={"events": usual_events(data)})
    if known != source:
        _print_source(data)
    return data


@app.meta.default
def start(
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    debug: Annotated[bool, Parameter(help="Show tracebacks, and everything that Prefect logs")] = False,
) -> bool | None:
    """Forecasts of daily trading volume, from a retrained, versioned and watched LSTM on Prefect."""
    if debug:
        os.environ["VOLCAST_DEBUG"] = "1"
    if words in ((), ("models",)):
        app.meta([*words, "--help"])
        sys.exit(2)
    return app(words, exit_on_error=False, print_error=False)


@command(data=f"{PRICES} {READING}", training=MODEL, why="require_approval promote margin")
def run(data: DataSettings, training: TrainingSettings, why: RetrainSettings, *, out: Out = None) -> None:
    """The whole pipeline: ingest, retrain, forecast, report."""
    from tasks.preflight import check, check_out

    check_out(out)
    check(data, training)
    from flows.pipeline import pipeline
    from tasks.reports import render
    from tasks.runs import SomeModelsFailed

    failed: SomeModelsFailed | None = None
    with _server() as server:
        try:
            result = pipeline(data, training, why)
        except SomeModelsFailed as error:
            failed, result = error, error.result
    render.show_result(console, result)
    _export([report.batch for report in result.reports], out)
    _show_server(server)
    if failed:
        raise failed  # after the summary of the others


@command(data=f"{PRICES} {READING} allow_shrink max_failed_share max_broken_share")
def ingest(data: DataSettings) -> None:
    """Bring the stored prices up to the last closed session."""
    from tasks.preflight import check

    check(data)
    from flows.ingest import ingest as ingest_flow
    from tasks.fetch_prices import FetchFailed
    from tasks.reports import render

    try:
        with _server() as server:
            snapshot = ingest_flow(data)
    except FetchFailed as error:
        render.show_counts(console, error.counts, ingested=True)
        raise
    render.show_prices(console, snapshot)
    render.show_counts(console, snapshot.counts, ingested=True)
    _show_server(server)


@command(stored=True, data="source calendar tickers store")
def status(data: DataSettings) -> bool:
    """What is stored, how the forecasts fare, and what runs; exit 1 if it needs a person."""
    from flows.service import service_of
    from tasks.count_prices import status_of
    from tasks.monitor import present_health
    from tasks.reports import render

    root = data.root
    render.show_status(console, root, status_of(root, data.tickers, data.session))
    health, service = present_health(data), service_of(root)
    render.show_health(console, health)
    render.show_service(console, service.lines, service.runs, service.findings)
    return not (health.needs_person or any(finding.needs_person for finding in service.findings))


@command(stored=True, data="source calendar store")
def quarantine(
    data: DataSettings,
    ticker: Annotated[str, Parameter(help="One ticker; by default all")] = "",
    *,
    limit: Annotated[int, Parameter(validator=Count, help="Show so many rows at the most", show_default=True)] = 20,
) -> None:
    """The rows that broke a rule and are never trained on, the newest first."""
    from tasks.count_prices import quarantined_rows
    from tasks.reports import render

    root = data.root
    render.show_quarantine(console, root, *quarantined_rows(root, tickers_of(ticker), limit))


@command(stored=True, data="source calendar store as_of", texts=RETIRED)
def retire(
    data: DataSettings,
    tickers: Annotated[str, Parameter(help="Comma-separated", allow_leading_hyphen=True)],
    *,
    reason: Reason,
    undo: Annotated[bool, Parameter(help="Bring them back")] = False,
) -> None:
    """Take tickers out of ingests, forecasts, retrainings and findings that name none; their history stays."""
    from tasks.maintenance import retire as retire_tickers

    for each in retire_tickers(data, tickers_of(tickers), reason, undo=undo):
        console.print(each.words, markup=False)


@command(stored=True, data=PRICES, training=MODEL, why="require_approval promote margin")
def retrain(data: DataSettings, training: TrainingSettings, why: RetrainSettings) -> None:
    """Train on the stored prices; a version that beats har, and is not worse than the present one, forecasts then."""
    from tasks.preflight import check, stored_parts

    check(data, training)
    from flows.retrain import retrain as retrain_flow
    from tasks.reports import render

    parts = stored_parts(data, training)
    with _server() as server:
        scorecards = [retrain_flow(part, training, why) for part in parts]
    for scorecard in scorecards:
        render.show_scorecard(console, scorecard)
        console.print(f"\n[bold]Outcome[/]   {scorecard.outcome}", highlight=False)
    _show_server(server)


@command(stored=True, data=PRICES, training="recipe name", chosen="version allow_future_model")
def forecast(data: DataSettings, training: TrainingSettings, chosen: ForecasterSettings, *, out: Out = None) -> None:
    """Forecast with the champion from the stored prices; as of a past session, from what was known then."""
    from tasks.preflight import check, check_out, stored_parts

    check_out(out)
    check(data, training)
    from flows.forecast import forecast as forecast_flow
    from tasks.reports import render

    parts = stored_parts(data, training)
    with _server() as server:
        batches = [forecast_flow(part, training, chosen=chosen) for part in parts]
    for batch in batches:
        render.show_forecast(console, batch)
    _export(batches, out)
    _show_server(server)


@command(data=f"{PRICES} {READING}", training="recipe", watch="max_model_age", texts=DAILY)
def daily(data: DataSettings, training: TrainingSettings, watch: WatchSettings) -> None:
    """The day's work after the close: ingest, forecast, monitor; har forecasts where the champion cannot be trusted."""
    from tasks.preflight import check, require_ahead

    check(data, training)
    require_ahead(training)
    from flows.daily import daily as daily_flow
    from tasks.reports import render

    with _server() as server:
        result = daily_flow(data, training, watch)
    render.show_daily(console, result)
    _show_server(server)


@command(stored=True, data=DATED, training="recipe", watch="max_model_age")
def monitor(data: DataSettings, training: TrainingSettings, watch: WatchSettings) -> None:
    """Score what came true, and say how prices, champion and forecasts stand."""
    from tasks.preflight import check, require_ahead

    check(data, training)
    require_ahead(training)
    from flows.monitor import monitor as monitor_flow
    from tasks.reports import render

    with _server() as server:
        health = monitor_flow(data, training, watch)
    render.show_health(console, health)
    _show_server(server)


@command(
    request="train_through! test_start! test_end! out! refit seed device settings",
    data=f"source calendar tickers store events {READING}",
    training="cell from_scratch",
    texts=TEST,
)
def backtest(data: DataSettings, request: BacktestSettings, training: TrainingSettings) -> None:
    """Forecast each session of the past with what was known then, and score every forecaster on the same rows.

    Nothing after --test-end is used.
    """
    from tasks.preflight import check_backtest

    request = request.model_copy(update={"settings": {**training.backtested, **request.settings}})
    check_backtest(data, request)
    from flows.backtest import backtest as backtest_flow
    from tasks.reports import render

    with _server() as server:
        result = backtest_flow(data.model_copy(update={"as_of": request.test_end}), request)
    render.show_backtest(console, result)
    _show_server(server)


@command(
    data=f"source calendar events tickers store {READING}",
    training=SERVED_MODEL,
    watch="forecast_by",
    texts=SERVED,
    begins="Starting server, worker and deployments; it takes half a minute, and longer on a busy machine …",
)
def up(
    data: DataSettings,
    training: TrainingSettings,
    watch: WatchSettings,
    *,
    host: Annotated[
        str,
        Parameter(
            help="The server's address; another than this machine's own demands VOLCAST_AUTH=user:password",
            show_default=True,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        Parameter(
            validator=Number(gte=0, lte=65535),
            help="The UI's port, if it is free; else a free one is taken",
            show_default=True,
        ),
    ] = 4200,
    database: Annotated[
        str | None,
        Parameter(
            env_var="VOLCAST_DATABASE",
            metavar="URL",
            help="postgresql+asyncpg://user:password@host:5432/name, which keeps runs and schedules; by default SQLite",
        ),
    ] = None,
    known_as: Annotated[
        str,
        Parameter(
            metavar="A,B",
            help="The names by which a proxy or another machine asks for the server, such as volcast.example.org",
            show_default=False,
        ),
    ] = "",
    require_approval: Approve = False,
) -> None:
    """Keep Prefect's server, a worker and the deployments of prefect.yaml up, until Ctrl-C."""
    _ask_a_person(require_approval)
    _move_into_environment("--database", "VOLCAST_DATABASE", database)
    from flows.server_options import ServerOptions
    from tasks.preflight import check, require_ahead

    names = tuple(name.strip().lower() for name in known_as.split(",") if name.strip())
    options = ServerOptions(host=host, port=port, database=database, names=names)
    check(data, training)
    require_ahead(training)
    _filter_console()
    from flows.deploy import Served
    from flows.up import stay_up

    stay_up(console, Served(data, training, watch), options, BEGAN)


@command()
def ui() -> None:
    """A link that logs a browser in to Prefect's UI, which volcast up serves."""
    from flows.up import show_ui

    show_ui(console)


@command()
def alerts() -> None:
    """Send the alerts of the server in PREFECT_API_URL, until Ctrl-C; volcast up sends those of its own server."""
    _filter_console()
    from flows.up import send_alerts

    send_alerts(console)


@command(
    data=f"source calendar events tickers store {READING}", training=SERVED_MODEL, watch="forecast_by", texts=SERVED
)
def deploy(
    data: DataSettings,
    training: TrainingSettings,
    watch: WatchSettings,
    *,
    pool: Annotated[
        str, Parameter(help="The work pool; another than volcast must be there already", show_default=True)
    ] = "volcast",
    image: Annotated[
        str | None, Parameter(env_var="VOLCAST_IMAGE", help="The container image, for a pool that runs containers")
    ] = None,
    require_approval: Approve = False,
) -> None:
    """Apply prefect.yaml to the server that is up, with what it no longer has removed; twice changes nothing."""
    from tasks.preflight import require_ahead
    from tasks.sources.source import open_source

    _ask_a_person(require_approval)
    open_source(data.source)  # what it holds may be seen only from where the runs are
    require_ahead(training)
    _filter_console()
    from flows.deploy import Served
    from flows.up import deploy_to

    deploy_to(console, Served(data, training, watch), pool=pool, image=image)


@command(stored=True, data="source calendar tickers store")
def report(
    data: DataSettings,
    *,
    out: Annotated[Path, Parameter(help="Write the page to this .html file")] = Path("report.html"),
) -> None:
    """One page with status, forecasts, live skill, calibration and versions; it opens anywhere, without a server."""
    from tasks.preflight import PAGE_FORMATS, check_out

    check_out(out, PAGE_FORMATS)
    from tasks.reports import render
    from tasks.reports.page import page

    out.write_text(page(data), encoding="utf-8")
    console.print(f"The page is {render.nice_path(str(out.resolve()))}", markup=False)


@command()
def verify(*, store: Store = DEFAULT_STORE) -> bool:
    """Read everything that is stored, and name what is not as it was written; exit 1 if anything is."""
    from tasks.preflight import kept_roots

    kept_roots(store)
    from tasks.maintenance import find_faults

    findings = list(find_faults(store))
    for finding in findings:
        console.print(finding.words, markup=False)
    damaged = sum(finding.damage for finding in findings)
    console.print(
        f"{counted(damaged, 'fault')} found." if damaged else "Everything that is stored is as it was written."
    )
    return not damaged


@command()
def gc(
    *,
    store: Store = DEFAULT_STORE,
    keep_versions: Annotated[
        int, Parameter(validator=Count, help="The newest versions of the prices that are kept", show_default=True)
    ] = 30,
    dry_run: Annotated[bool, Parameter(help="Only list what would go")] = False,
) -> None:
    """Remove what nothing needs any more: old versions of the prices, unused blobs, left-over frames."""
    from tasks.preflight import kept_roots

    kept_roots(store)
    from tasks.maintenance import collect_garbage

    garbage = collect_garbage(store, keep_versions=keep_versions, dry_run=dry_run)
    for url in garbage if dry_run else ():
        console.print(url, markup=False)
    done = "Would remove" if dry_run else "Removed"
    console.print(f"{done} {counted(len(garbage), 'file')}, {sum(garbage.values()) / 1e6:,.1f} MB.")


@command(models, "list", stored=True, data="source calendar store")
def list_models(data: DataSettings) -> None:
    """Every version of every model, and which one forecasts."""
    from tasks.reports import render

    render.show_models(console, data.root)


@command(models, "show", stored=True, data="source calendar store")
def show_models(
    data: DataSettings,
    name: Annotated[str, Parameter(help="A model's name, such as volume or tutorial.SBUX; by default each")] = "",
) -> None:
    """From the newest forecast back to the prices that it came from."""
    from storage.artifacts import ArtifactStore
    from storage.store import open_store
    from tasks.preflight import artifacts_of

    root = data.root
    if name:
        artifacts_of(root, name, kinds=("model", "forecast"))
    from tasks.reports import render

    names = [name] if name else ArtifactStore(open_store(root)).names("model")
    for each in names:
        render.show_lineage(console, root, each)
    if not names:
        render.show_models(console, root)


@command(models, "promote", stored=True, data="source calendar store")
def promote(
    data: DataSettings,
    name: ModelNamed,
    *,
    version: Annotated[int, Parameter(validator=Count, help="The version that is to forecast")],
    reason: Reason,
) -> None:
    """Let a version forecast from now on, whatever its scorecard says."""
    from tasks.preflight import artifacts_of

    root = data.root
    artifacts_of(root, name)
    from tasks import gate

    _tell_move(root, gate.promote(root, name, version, reason), "Promoted by hand")


@command(models, "rollback", stored=True, data="source calendar store")
def roll_back(data: DataSettings, name: ModelNamed, *, reason: Reason) -> None:
    """Go back to the version that forecast before the present one came; twice goes back two."""
    from tasks.preflight import artifacts_of

    root = data.root
    artifacts_of(root, name)
    from tasks import gate

    _tell_move(root, gate.roll_back(root, name, reason), "Rolled back")


def main() -> None:
    """Run the command; an error is one line on stderr and exit 1, or 2 for a request that cannot be right."""
    os.umask(0o077)  # logs, reports and exports are their owner's alone; a store may say otherwise (storage/store.py)
    for variable in [name for name, value in os.environ.items() if name.startswith("VOLCAST_") and not value]:
        del os.environ[variable]  # an empty one says nothing
    try:
        for ending in (signal.SIGTERM, signal.SIGINT):  # a shell's background job would ignore the second
            signal.signal(ending, signal.default_int_handler)  # so that a server of ours is ended then, too
        result = app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends it at once
        _complain("Interrupted. What was committed before is kept; run the same command again to go on.")
        sys.exit(INTERRUPTED)
    except MemoryError:
        raise  # to flows/__main__.py: the words for another error would need memory themselves
    except Exception as error:  # the last resort of a command line: one line, the traceback on request
        if os.environ.get("VOLCAST_DEBUG"):
            raise
        words, status = _described(error)
        words = shown(words)  # whatever came, and is named in the error
        _complain(words if len(words) <= LONGEST else f"{words[:LONGEST]}… ({len(words) - LONGEST:,} characters more)")
        sys.exit(status)
    sys.exit(1 if result is False else 0)


def _print_source(data: DataSettings) -> None:
    """Where an ingest's prices come from that did not say it."""
    from tasks.preflight import last_ingest

    known = last_ingest(data.root) is not None
    why = "as they last did" if known else "the store is empty" if data.source == "simulated" else "what it holds"
    sessions = "" if data.calendar == NEW_YORK else f"sessions of {data.calendar}, "
    text = (
        f"{data.source}, {sessions}announcements of {data.event_source}, for {data.store}: {why}; another by --source"
    )
    console.print(f"[bold]Source[/]    {escape(text)}")


def _show_server(server: "Server") -> None:
    """Where to look at the runs."""
    if server.own:
        console.print("[bold]UI[/]        Prefect keeps this run; to look at it: volcast up")
    else:
        console.print(f"[bold]UI[/]        {server.ui_url}/runs")


def _tell_move(root: str, entry: "AliasEntry", how: str) -> None:
    """To the person, and to a server that is up, which starts a forecast."""
    from flows.server import present_server
    from tasks import gate

    console.print(gate.move_words(entry), markup=False)
    with present_server() as server:
        if server is None:
            console.print("To publish a forecast by it before the next daily run: volcast forecast")
        else:
            gate.tell_move(root, entry, how)
            console.print(f"Prefect at {server.ui_url} was told, and starts `forecast` if it is deployed there.")


def _export(batches: "Sequence[ForecastBatch]", out: Path | None) -> None:
    if out is not None:
        from tasks.forecast import write_forecasts

        console.print(f"          {counted(write_forecasts(batches, out), 'row')} in {out}")


@contextmanager
def _server() -> "Iterator[Server]":
    """Prefect's server for the length of a command, which logs the steps alone."""
    from flows.server import prefect_server

    _filter_console()
    with prefect_server() as server:
        yield server


def _filter_console() -> None:
    if not os.environ.get("VOLCAST_DEBUG"):
        from flows.prefect_processes import filter_console

        filter_console()


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
        os.execve(sys.executable, [sys.executable, "-m", "flows", *without], os.environ | {variable: value})


def _described(error: Exception) -> tuple[str, int]:
    """An error in one line, and the exit status that goes with it."""
    from flows.server_options import ServerError
    from storage.errors import UNREADABLE, StoreError, first_line
    from tasks.sources.source import SourceError, UnknownSource

    mistakes = (ImpossibleTest, UnknownCalendar, UnknownRecipe, UnknownSource, ValidationError, CycloptsError)
    status = 2 if isinstance(error, mistakes) else 1
    if isinstance(error, UNREADABLE) and not isinstance(error, OSError):
        return f"The store cannot be used: {first_line(error)}. See: volcast verify", status
    if isinstance(error, ValidationError):
        facts = ((" ".join(map(str, each["loc"])), each["msg"], each["input"]) for each in error.errors())
        options = [
            f"--{name.replace('_', '-')}: {known}; {brief(came)} came." if name else known.removeprefix("Value error, ")
            for name, known, came in facts
        ]
        return listed(options, 3, " "), status
    words = re.sub(r"\s*\n\s*", " ", str(error)).strip()
    if isinstance(error, CycloptsError):
        return f"{words} See: {' '.join(['volcast', *(error.command_chain or ())])} --help", status
    if isinstance(error, (ModelError, StoreError, SourceError, ServerError, ValueError, OSError)):
        return words, status
    return f"{type(error).__name__}: {words} (this was not foreseen; volcast --debug … shows where it happened)", status


def _complain(words: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold red]Error:[/] {words.replace('[', chr(92) + '[')}"
    )
