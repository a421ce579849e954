"""The command line: a command's options are the fields of the settings that it takes, and an error is one line.

What a command has found is an `Answer`: shown to people or, with --json, given to a program. What is heavy is imported
by the command that needs it, after its request has been checked.
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
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from volcast.models.calendar_names import NEW_YORK, calendar_named
from volcast.models.errors import ImpossibleTest, ModelError, UnknownCalendar, UnknownPoint, UnknownRecipe
from volcast.models.point_names import USUAL_POINT, point_named
from volcast.models.text import brief, counted, line_starts, listed
from volcast.storage.locations import shown
from volcast.tasks.settings import (
    DEFAULT_STORE,
    BacktestSettings,
    DataSettings,
    ForecasterSettings,
    OrderSettings,
    RetrainSettings,
    TrainingSettings,
    WatchSettings,
    supposition_of,
)

if TYPE_CHECKING:
    from volcast.flows.server import Server
    from volcast.storage.records import AliasEntry, ForecastBatch

LONGEST = 1000  # characters of an error's line
BEGAN = time.monotonic()
INTERRUPTED = 130  # 128 and SIGINT's number, as shells have it
LABEL = " " * 10  # as wide as what tasks/reports/render.py has before a line
WIDE = 1000  # columns of a pipe: its reader breaks lines


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command has found: `facts` for a program that asks by --json, and `show`, which prints it for people."""

    facts: Callable[[], Mapping[str, Any]]
    show: Callable[[], None]
    is_good: bool = True  # else the exit status is 1
    failed: Exception | None = None  # raised once the rest has been shown


Body = TypeVar("Body", bound=Callable[..., bool | Answer | None])


class Lines(Console):
    """A console whose lines break between words on a terminal, below their label; a pipe gets them whole."""

    def print(self, *objects: Any, **how: Any) -> None:
        if not (self.is_terminal and len(objects) == 1 and isinstance(objects[0], str)):
            super().print(*objects, **how)
            return
        whole = Text.from_markup(objects[0]) if how.get("markup", True) else Text(objects[0])
        for line in whole.split("\n", allow_blank=True) if whole else [whole]:
            below = len(LABEL) if line.plain[len(LABEL) - 2 : len(LABEL)] == "  " else 0
            starts = line_starts(line.plain[below:], self.width - below)
            for place, each in enumerate(line.divide([below + start for start in starts])):
                super().print(Text.assemble(LABEL[:below] if place else "", each), **how)


is_narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
console = Lines(highlight=False, soft_wrap=True, width=None if is_narrow else WIDE)
app = App(
    name="volcast",
    help="Forecasts of daily trading volume, from a retrained, versioned and watched LSTM on Prefect.",
    help_format="plaintext",
    help_flags=["--help"],
    version=lambda: _version(),
    default_parameter=Parameter(negative=(), show_default=False, allow_repeating=True),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
LAST = 100  # in the order of the commands
models = App(name="models", help="The trained models and where they come from.", version_flags=[], sort_key=LAST)
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


def number_of(word: str) -> float | str:
    """A number with commas between thousands, or a percentage: 2,000,000, 10%; any other text as it is."""
    text = word.strip().replace(",", "")
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return word


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
    "ticker": (str, lambda word: word.strip().upper()),
    "shares": (str, number_of),
    "rate": (str, number_of),
    "name": (str, str),  # the settings check it
    "point": (str, point_named),
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
    "cell": {"metavar": "NAME"},
    "date_format": {"metavar": "FORMAT"},
    "decimal": {"metavar": ".|,"},
    "columns": {"metavar": "HEADING=NAME"},
    "shares": {"metavar": "NUMBER"},
    "rate": {"metavar": "PERCENT"},
    "point": {"metavar": "NAME"},
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
    "out": "Write the forecasts to this .parquet, .csv or .xlsx file",
}
PRICES, DATED = "source calendar tickers store as_of events", "source calendar tickers store as_of"  # of DataSettings
READING = "date_format decimal columns"  # those that become part of the source
SHARES = "max_failed_share max_broken_share"  # what an ingest lets pass
ACCEPTED = f"allow_shrink {SHARES}"
SERVED_DATA = f"source calendar events tickers store {READING} {SHARES}"  # of a service
SERVED_MODEL = "recipe cell seed device settings from_scratch"  # of TrainingSettings
MODEL = f"{SERVED_MODEL} fit_scalers_on window_sessions force name"
Store = Annotated[
    str,
    Parameter(env_var="VOLCAST_STORE", help=DataSettings.model_fields["store"].description, show_default=True),
]
Approve = Annotated[
    bool, Parameter(env_var="VOLCAST_REQUIRE_APPROVAL", help="A person says yes to each model in the UI")
]
Out = Annotated[Path | None, Parameter(help="Write the forecasts to this .parquet, .csv or .xlsx file")]
ShownPoint = Annotated[
    str, Parameter(metavar="NAME", help=BacktestSettings.model_fields["point"].description, show_default=True)
]
Runner = Annotated[
    str | None,
    Parameter(
        name="--runner",
        env_var="VOLCAST_RUNNER",
        metavar="dask[:ADDRESS]",
        validator=lambda _, chosen: _choose_runner(chosen),
        help="Where steps that can be divided are done: dask, by worker processes of this machine, or "
        "dask:tls://host:8786, by those of the Dask cluster there; by default in one process",
    ),
]
AS_JSON = inspect.Parameter(
    "json",
    inspect.Parameter.KEYWORD_ONLY,
    annotation=Annotated[bool, Parameter(help="Print what was found as JSON, for a program")],
    default=False,
)
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
    example: str = "",
    **fields: str,
) -> Callable[[Body], Body]:
    """Make a function a command: of each argument named here, these fields of its settings become options.

    With `stored` the data are those of the store. `texts` stand in the place of a field's description, `begins` is
    said before anything else is done, and the help ends with `example`. A command that returns False ends with exit
    status 1, and one that returns an Answer has the option --json.
    """
    described = {**(STORED if stored else INGESTED), **(texts or {})}

    def register(body: Body) -> Body:
        own = inspect.signature(body).parameters
        kinds = {argument: own[argument].annotation for argument in fields}
        options = [option(kinds[argument], each, described) for argument in fields for each in fields[argument].split()]
        others = [each for each in own.values() if each.name not in fields]
        named = [each for each in others if each.kind is inspect.Parameter.KEYWORD_ONLY]
        placed = [each.replace(kind=inspect.Parameter.POSITIONAL_ONLY) for each in others if each not in named]
        answers = [AS_JSON] * (inspect.signature(body).return_annotation is Answer)
        shown = inspect.Signature([*placed, *options, *named, *answers])

        def run(*given: Any, **more: Any) -> bool | None:
            came = shown.bind(*given, **more).arguments
            console.stderr = as_json = came.pop("json", False)  # what is said on the way is not the answer
            if begins:
                console.print(begins)
            for argument, kind in sorted(kinds.items(), key=lambda each: each[1] is DataSettings):  # which need a store
                names = fields[argument].replace("!", "").split()
                came[argument] = _settings(kind, {each: came.pop(each) for each in names if each in came}, stored)
            result = body(**came)
            return _give(result, as_json) if isinstance(result, Answer) else result

        run.__doc__, run.__name__ = body.__doc__, body.__name__
        run.__signature__ = shown  # type: ignore[attr-defined]
        end = f"Example: {example}" if example else None
        into.command(run, name=name, sort_key=next(order), version_flags=[], help_epilogue=end)
        return body

    return register


def _give(answer: Answer, as_json: bool) -> bool:
    """Whether it is good. Raises the error that it comes with."""
    if as_json:
        sys.stdout.write(f"{to_json(answer.facts(), indent=1, inf_nan_mode='null', fallback=str).decode()}\n")
    else:
        answer.show()
    if answer.failed:
        raise answer.failed
    return answer.is_good


def _version() -> str:
    from volcast.tasks.run_tools import code_version

    return f"volcast {code_version()}"


def _settings(kind: type[BaseModel], chosen: dict[str, Any], stored: bool) -> BaseModel:
    for name in WRITTEN.keys() & chosen.keys():
        chosen[name] = WRITTEN[name][1](chosen[name])
    return _data_settings(stored, **chosen) if kind is DataSettings else kind(**chosen)


def _data_settings(stored: bool, store: str = DEFAULT_STORE, **chosen: Any) -> DataSettings:
    """Of what is stored; or of what is to be brought in, as the store's came before, unless told otherwise."""
    from volcast.tasks.preflight import stored_market, usual_events, usual_market

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


@command(
    data=f"{PRICES} {READING} {ACCEPTED}",
    training=MODEL,
    why="require_approval promote margin",
    example="volcast run --source files:SBUX.csv --out forecasts.csv",
)
def run(
    data: DataSettings,
    training: TrainingSettings,
    why: RetrainSettings,
    *,
    out: Out = None,
    point: ShownPoint = USUAL_POINT,
    _runner: Runner = None,
) -> Answer:
    """The whole pipeline: ingest, retrain, forecast, report."""
    from volcast.tasks.preflight import check, check_out, check_point

    check_out(out)
    check(data, training)
    point = check_point(training, point)

    failed: Exception | None = None
    with _server("pipeline") as (server, pipeline):
        from volcast.tasks.runs import SomeModelsFailed

        try:
            result = pipeline(data, training, why, point)
        except SomeModelsFailed as error:
            failed, result = error, error.result
    exported = _export([report.batch for report in result.reports], out, point)
    from volcast.tasks.reports import render

    show = partial(render.show_result, console, result, point)
    return _ran(server, show, lambda: {"result": result}, exported=exported, failed=failed)


@command(data=f"{PRICES} {READING} {ACCEPTED}", example="volcast ingest --source yahoo --tickers SBUX,AAPL")
def ingest(data: DataSettings, *, _runner: Runner = None) -> Answer:
    """Bring the stored prices up to the last closed session."""
    from volcast.tasks.preflight import check

    check(data)
    with _server("ingest") as (server, ingest_flow):
        from volcast.tasks.fetch_prices import FetchFailed
        from volcast.tasks.reports import render

        try:
            snapshot = ingest_flow(data)
        except FetchFailed as error:
            counts, failed = error.counts, error
            show_counts = partial(render.show_counts, console, counts, ingested=True)
            return Answer(facts=lambda: {"counts": counts}, show=show_counts, failed=failed)

    def show() -> None:
        render.show_prices(console, snapshot)
        render.show_counts(console, snapshot.counts, ingested=True)

    return _ran(server, show, lambda: {"snapshot": snapshot})


@command(stored=True, data="source calendar tickers store", example="volcast status --tickers SBUX")
def status(data: DataSettings) -> Answer:
    """What is stored, how the forecasts fare, and what runs; exit 1 if it needs a person."""
    from volcast.flows.service import service_of
    from volcast.tasks.count_prices import status_of
    from volcast.tasks.monitor import present_health
    from volcast.tasks.reports import render

    root = data.root
    counts, health, service = status_of(root, data.tickers, data.session), present_health(data), service_of(root)

    def show() -> None:
        render.show_status(console, root, counts)
        render.show_health(console, health)
        render.show_service(console, service.lines, service.runs, service.findings)

    needs_person = health.needs_person or any(finding.needs_person for finding in service.findings)
    facts = {"needs_person": needs_person, "prices": counts, "health": health, "service": service}
    return Answer(facts=lambda: facts, show=show, is_good=not needs_person)


@command(example="volcast doctor")
def doctor(*, store: Store = DEFAULT_STORE) -> Answer:
    """Look whether versions, device, store, source, clock, service and disk are in order; exit 1 if one is not."""
    from volcast.flows.service import service_checks
    from volcast.tasks.doctor import checks_of
    from volcast.tasks.reports import render

    checks = list(checks_of(store, service_checks))
    is_good = not any(check.remedy for check in checks)
    return Answer(facts=lambda: {"checks": checks}, show=partial(render.show_checks, console, checks), is_good=is_good)


@command(stored=True, data="source calendar store", example="volcast quarantine SBUX --limit 5")
def quarantine(
    data: DataSettings,
    ticker: Annotated[str, Parameter(help="One ticker; by default all")] = "",
    *,
    limit: Annotated[int, Parameter(validator=Count, help="Show so many rows at the most", show_default=True)] = 20,
) -> Answer:
    """The rows that broke a rule and are never trained on, the newest first."""
    from volcast.tasks.count_prices import quarantined_rows
    from volcast.tasks.reports import render

    root = data.root
    rows, total = quarantined_rows(root, tickers_of(ticker), limit)
    facts = {"total": total, "rows": [dict(zip(render.QUARANTINED, row, strict=True)) for row in rows]}
    return Answer(facts=lambda: facts, show=partial(render.show_quarantine, console, root, rows, total))


@command(
    stored=True, data="source calendar store as_of", texts=RETIRED, example="volcast retire TWTR --reason 'delisted'"
)
def retire(
    data: DataSettings,
    tickers: Annotated[str, Parameter(help="Comma-separated", allow_leading_hyphen=True)],
    *,
    reason: Reason,
    undo: Annotated[bool, Parameter(help="Bring them back")] = False,
) -> None:
    """Take tickers out of ingests, forecasts, retrainings and findings that name none; their history stays."""
    from volcast.tasks.maintenance import retire as retire_tickers

    for each in retire_tickers(data, tickers_of(tickers), reason, undo=undo):
        console.print(each.words, markup=False)


@command(
    stored=True,
    data=PRICES,
    training=MODEL,
    why="require_approval promote margin",
    example="volcast retrain --seed 1 --set tuning_steps=200",
)
def retrain(data: DataSettings, training: TrainingSettings, why: RetrainSettings) -> Answer:
    """Train on the stored prices; a version that beats har, and is not worse than the present one, forecasts then."""
    from volcast.tasks.preflight import check, stored_parts

    check(data, training)
    parts = stored_parts(data, training)
    with _server("retrain") as (server, retrain_flow):
        scorecards = [retrain_flow(part, training, why) for part in parts]
    from volcast.tasks.reports import render

    def show() -> None:
        for scorecard in scorecards:
            render.show_scorecard(console, scorecard, outcome=scorecard.outcome)
            console.print(f"\n[bold]Outcome[/]   {escape(scorecard.outcome)}")

    return _ran(server, show, lambda: {"scorecards": scorecards})


@command(
    stored=True,
    data=PRICES,
    training="recipe name",
    chosen="version allow_future_model",
    example="volcast forecast --out forecasts.xlsx",
)
def forecast(
    data: DataSettings,
    training: TrainingSettings,
    chosen: ForecasterSettings,
    *,
    out: Out = None,
    point: ShownPoint = USUAL_POINT,
    what_if: Annotated[
        str | None,
        Parameter(
            metavar="WORDS",
            validator=lambda _, words: words is None or supposition_of(words),
            help='Show beside it what it would be if "SBUX earnings 2026-12-03 amc" were announced; or '
            '"SBUX earnings 2026-12-03 withdrawn", or "… to 2026-12-08". Nothing of that is stored',
        ),
    ] = None,
) -> Answer:
    """Forecast with the champion from the stored prices; as of a past session, from what was known then."""
    from volcast.tasks.preflight import check, check_out, check_point, stored_parts

    check_out(out)
    check(data, training)
    point = check_point(training, point)
    parts = stored_parts(data, training)
    with _server("forecast", is_needed=False) as (server, forecast_flow):
        batches = [forecast_flow(part, training, chosen=chosen) for part in parts]
    from volcast.tasks.forecast import forecast_records
    from volcast.tasks.reports import render
    from volcast.tasks.what_if import what_if as suppose

    exported = _export(batches, out, point)
    supposed = [] if what_if is None else [suppose(batch, supposition_of(what_if)) for batch in batches]

    def show() -> None:
        for batch in batches:
            render.show_forecast(console, batch, point)
        for each in supposed:
            render.show_what_if(console, each)

    more = {"what_if": [each.facts for each in supposed]} if supposed else {}
    return _ran(
        server,
        show,
        lambda: {"forecasts": batches, "rows": forecast_records(batches, point), **more},
        exported=exported,
    )


@command(
    stored=True,
    data="source calendar store",
    order="ticker shares portfolio rate settlement name",
    example="volcast participation --ticker SBUX --shares 2,000,000 --rate 10%",
)
def participation(data: DataSettings, order: OrderSettings) -> Answer:
    """How long an order takes at a share of the volume, by the newest forecast; how liquid a portfolio is by it."""
    from volcast.tasks.participation import participation_of
    from volcast.tasks.reports import render

    found = participation_of(data, order)
    return Answer(facts=lambda: found.facts, show=partial(render.show_participation, console, found))


@command(stored=True, data="source calendar store", example="volcast explain SBUX --session 2026-11-30")
def explain(
    data: DataSettings,
    ticker: Annotated[str, Parameter(help="Whose forecast", show_default=False)],
    *,
    session: Annotated[
        date | None, Parameter(metavar="DATE", help="A session of the newest forecast; by default the next one")
    ] = None,
    name: Annotated[str, Parameter(help="The model's name", show_default=True)] = "volume",
) -> Answer:
    """Why a ticker's forecast is as it is: factors of its median against the ticker's normal, which multiply to it."""
    from volcast.storage.store import open_store
    from volcast.tasks.reports import render
    from volcast.tasks.reports.views import explained, explained_row

    (known_as,) = tickers_of(ticker) or ("",)
    store = open_store(data.root)
    found = explained(store, name, known_as)
    row = explained_row(store, found, known_as, session)
    facts = {"forecast": found.made, "simulated": found.simulated, "explained": row}
    return Answer(facts=lambda: facts, show=partial(render.show_reasons, console, store, found, row))


@command(
    data=f"{PRICES} {READING} {ACCEPTED}",
    training="recipe",
    watch="max_model_age",
    texts=DAILY,
    example="volcast daily --source yahoo",
)
def daily(data: DataSettings, training: TrainingSettings, watch: WatchSettings, *, _runner: Runner = None) -> Answer:
    """The day's work after the close: ingest, forecast, monitor; har forecasts where the champion cannot be trusted."""
    from volcast.tasks.preflight import check, require_ahead

    check(data, training)
    require_ahead(training)
    with _server("daily") as (server, daily_flow):
        result = daily_flow(data, training, watch)
    from volcast.tasks.reports import render

    return _ran(server, partial(render.show_daily, console, result), lambda: {"daily": result})


@command(
    stored=True, data=DATED, training="recipe", watch="max_model_age", example="volcast monitor --as-of 2026-11-25"
)
def monitor(data: DataSettings, training: TrainingSettings, watch: WatchSettings) -> Answer:
    """Score what came true, and say how prices, champion and forecasts stand."""
    from volcast.tasks.preflight import check, require_ahead

    check(data, training)
    require_ahead(training)
    with _server("monitor") as (server, monitor_flow):
        health = monitor_flow(data, training, watch)
    from volcast.tasks.reports import render

    return _ran(server, partial(render.show_health, console, health), lambda: {"health": health})


@command(
    request="train_through! test_start! test_end! out! refit seed device point settings",
    data=f"source calendar tickers store events {READING} {ACCEPTED}",
    training="cell from_scratch",
    texts=TEST,
    example="volcast backtest --train-through 2021-12-31 --test-start 2022-01-03 --test-end 2022-12-30 --out f.parquet",
)
def backtest(
    data: DataSettings, request: BacktestSettings, training: TrainingSettings, *, runner: Runner = None
) -> Answer:
    """Forecast each session of the past with what was known then, and score every forecaster on the same rows.

    Nothing after --test-end is used.
    """
    from volcast.tasks.preflight import check_backtest, takes_turns

    request = request.model_copy(update={"settings": {**training.backtested, **request.settings}})
    check_backtest(data, request)
    with _server("backtest", is_needed=runner is not None or takes_turns(data)) as (server, backtest_flow):
        result = backtest_flow(data.model_copy(update={"as_of": request.test_end}), request)
    from volcast.tasks.reports import render

    return _ran(server, partial(render.show_backtest, console, result), lambda: {"backtest": result})


@command(
    data=SERVED_DATA,
    training=SERVED_MODEL,
    watch="forecast_by",
    texts=SERVED,
    begins="Starting server, worker and deployments; it takes half a minute, and longer on a busy machine …",
    example="volcast up --source yahoo --tickers SBUX,AAPL --forecast-by 18:15",
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
    _runner: Runner = None,
) -> None:
    """Keep Prefect's server, a worker and the deployments of prefect.yaml up, until Ctrl-C."""
    _ask_a_person(require_approval)
    _move_into_environment("--database", "VOLCAST_DATABASE", database)
    from volcast.flows.server_options import ServerOptions
    from volcast.tasks.preflight import check, require_ahead

    names = tuple(name.strip().lower() for name in known_as.split(",") if name.strip())
    options = ServerOptions(host=host, port=port, database=database, names=names)
    check(data, training)
    require_ahead(training)
    _filter_console()
    from volcast.flows.deploy import Served
    from volcast.flows.up import stay_up

    stay_up(console, Served(data, training, watch), options, BEGAN)


@command(example="volcast ui")
def ui() -> None:
    """A link that logs a browser in to Prefect's UI, which volcast up serves."""
    from volcast.flows.up import show_ui

    show_ui(console)


@command(example="PREFECT_API_URL=http://host:4200/api volcast alerts")
def alerts() -> None:
    """Send the alerts of the server in PREFECT_API_URL, until Ctrl-C; volcast up sends those of its own server."""
    _filter_console()
    from volcast.flows.up import send_alerts

    send_alerts(console)


@command(
    data=SERVED_DATA,
    training=SERVED_MODEL,
    watch="forecast_by",
    texts=SERVED,
    example="volcast deploy --pool kubernetes --image registry.example/volcast:0.1",
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
    from volcast.tasks.preflight import require_ahead
    from volcast.tasks.sources.source import open_source

    _ask_a_person(require_approval)
    open_source(data.source)  # what it holds may be seen only from where the runs are
    require_ahead(training)
    _filter_console()
    from volcast.flows.deploy import Served
    from volcast.flows.up import deploy_to

    deploy_to(console, Served(data, training, watch), pool=pool, image=image)


@command(stored=True, data="source calendar tickers store", example="volcast report --out report.html")
def report(
    data: DataSettings,
    *,
    out: Annotated[Path, Parameter(help="Write the page to this .html file", show_default=True)] = Path("report.html"),
) -> None:
    """One page with status, forecasts, live skill, calibration and versions; it opens anywhere, without a server."""
    from volcast.tasks.preflight import PAGE_FORMATS, check_out

    check_out(out, PAGE_FORMATS)
    from volcast.tasks.reports import render
    from volcast.tasks.reports.page import page

    out.write_text(page(data), encoding="utf-8")
    console.print(f"The page is {render.nice_path(str(out.resolve()))}", markup=False)


@command(example="volcast verify --store s3://bucket/prices")
def verify(*, store: Store = DEFAULT_STORE) -> Answer:
    """Read everything that is stored, and name what is not as it was written; exit 1 if anything is."""
    from volcast.tasks.preflight import kept_roots

    kept_roots(store)
    from volcast.tasks.maintenance import find_faults

    findings = list(find_faults(store))
    damaged = sum(finding.damage for finding in findings)

    def show() -> None:
        for finding in findings:
            console.print(finding.words, markup=False)
        console.print(
            f"{counted(damaged, 'fault')} found." if damaged else "Everything that is stored is as it was written."
        )

    return Answer(facts=lambda: {"faults": damaged, "findings": findings}, show=show, is_good=not damaged)


@command(example="volcast gc --dry-run")
def gc(
    *,
    store: Store = DEFAULT_STORE,
    keep_versions: Annotated[
        int, Parameter(validator=Count, help="The newest versions of the prices that are kept", show_default=True)
    ] = 30,
    dry_run: Annotated[bool, Parameter(help="Only list what would go")] = False,
) -> Answer:
    """Remove what nothing needs any more: old versions of the prices, unused blobs, left-over frames."""
    from volcast.tasks.preflight import kept_roots

    kept_roots(store)
    from volcast.tasks.maintenance import collect_garbage

    garbage = collect_garbage(store, keep_versions=keep_versions, dry_run=dry_run)

    def show() -> None:
        for url in garbage if dry_run else ():
            console.print(url, markup=False)
        done = "Would remove" if dry_run else "Removed"
        console.print(f"{done} {counted(len(garbage), 'file')}, {sum(garbage.values()) / 1e6:,.1f} MB.")

    return Answer(facts=lambda: {"removed": not dry_run, "bytes_of": garbage}, show=show)


@command(models, "list", stored=True, data="source calendar store", example="volcast models list --json")
def list_models(data: DataSettings) -> Answer:
    """Every version of every model, and which one forecasts."""
    from volcast.tasks.reports import render
    from volcast.tasks.reports.views import histories

    found = histories(data.root)
    return Answer(facts=lambda: {"models": found}, show=partial(render.show_models, console, data.root, found))


@command(models, "compare", stored=True, data="source calendar store", example="volcast models compare volume,liquid")
def compare_models(
    data: DataSettings,
    names: Annotated[str, Parameter(help="Comma-separated, such as volume,liquid; by default every model")] = "",
) -> Answer:
    """Versions and experiments beside each other, where they were tested on the same rows."""
    from volcast.storage.artifacts import ArtifactStore
    from volcast.storage.store import open_store
    from volcast.tasks.preflight import artifacts_of
    from volcast.tasks.reports import render
    from volcast.tasks.reports.views import history_of, same_tests

    chosen = [name for word in names.split(",") if (name := word.strip())]
    for name in chosen:
        artifacts_of(data.root, name)
    artifacts = ArtifactStore(open_store(data.root))
    found = [history_of(artifacts, name) for name in chosen or artifacts.names("model")]
    tests = same_tests(found)

    def show() -> None:
        if found:
            render.show_comparison(console, tests, found)
        else:
            render.show_models(console, data.root, ())

    return Answer(facts=lambda: {"tests": tests}, show=show)


@command(models, "show", stored=True, data="source calendar store", example="volcast models show volume")
def show_models(
    data: DataSettings,
    name: Annotated[str, Parameter(help="A model's name, such as volume or tutorial.SBUX; by default each")] = "",
) -> Answer:
    """From the newest forecast back to the prices that it came from."""
    from volcast.storage.artifacts import ArtifactStore
    from volcast.storage.store import open_store
    from volcast.tasks.preflight import artifacts_of

    root = data.root
    if name:
        artifacts_of(root, name, kinds=("model", "forecast"))
    from volcast.tasks.reports import render
    from volcast.tasks.reports.views import history_of, lineage_of

    artifacts = ArtifactStore(open_store(root))
    names = [name] if name else artifacts.names("model")
    found = {each: (lineage_of(artifacts, each), history_of(artifacts, each)) for each in names}

    def show() -> None:
        for lineage, history in found.values():
            render.show_lineage(console, lineage, history)
        if not found:
            render.show_models(console, root, ())

    facts = {each: {"lineage": lineage, "history": history} for each, (lineage, history) in found.items()}
    return Answer(facts=lambda: {"models": facts}, show=show)


@command(
    models,
    "promote",
    stored=True,
    data="source calendar store",
    example="volcast models promote volume --version 3 --reason 'better over the last month'",
)
def promote(
    data: DataSettings,
    name: ModelNamed,
    *,
    version: Annotated[int, Parameter(validator=Count, help="The version that is to forecast")],
    reason: Reason,
) -> None:
    """Let a version forecast from now on, whatever its scorecard says."""
    from volcast.tasks.preflight import artifacts_of

    root = data.root
    artifacts_of(root, name)
    from volcast.tasks import gate

    _tell_move(root, gate.promote(root, name, version, reason), "Promoted by hand")


@command(
    models,
    "rollback",
    stored=True,
    data="source calendar store",
    example="volcast models rollback volume --reason 'its forecasts are too high'",
)
def roll_back(data: DataSettings, name: ModelNamed, *, reason: Reason) -> None:
    """Go back to the version that forecast before the present one came; twice goes back two."""
    from volcast.tasks.preflight import artifacts_of

    root = data.root
    artifacts_of(root, name)
    from volcast.tasks import gate

    _tell_move(root, gate.roll_back(root, name, reason), "Rolled back")


app.register_install_completion_command(
    "completion",
    help="Let this shell complete commands and options at Tab, from its next start on.",
    help_epilogue="Example: volcast completion --shell zsh",
    sort_key=LAST + 1,
    version_flags=[],
)


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
        raise  # to volcast/__main__.py: the words for another error would need memory themselves
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
    from volcast.tasks.preflight import last_ingest

    known = last_ingest(data.root) is not None
    why = "as they last did" if known else "the store is empty" if data.source == "simulated" else "what it holds"
    sessions = "" if data.calendar == NEW_YORK else f"sessions of {data.calendar}, "
    text = (
        f"{data.source}, {sessions}announcements of {data.event_source}, for {data.store}: {why}; another by --source"
    )
    console.print(f"[bold]Source[/]    {escape(text)}")


def _ran(
    server: "Server | None",
    show: Callable[[], None],
    facts: Callable[[], Mapping[str, Any]],
    *,
    exported: str = "",
    failed: Exception | None = None,
) -> Answer:
    """What a flow has found; for people also what was written to a file, and where to look at the run."""

    def show_all() -> None:
        show()
        if exported:
            console.print(f"          {exported}", markup=False)
        if server is None:
            console.print("[bold]UI[/]        No server was up to keep this run; one that keeps the next: volcast up")
        elif server.own:
            console.print("[bold]UI[/]        Prefect keeps this run; to look at it: volcast up")
        else:
            console.print(f"[bold]UI[/]        {server.ui_url}/runs")

    return Answer(facts=facts, show=show_all, failed=failed)


def _tell_move(root: str, entry: "AliasEntry", how: str) -> None:
    """To the person, and to a server that is up, which starts a forecast."""
    from volcast.flows.server import present_server
    from volcast.tasks import gate

    console.print(gate.move_words(entry), markup=False)
    with present_server() as server:
        if server is None:
            console.print("To publish a forecast by it before the next daily run: volcast forecast")
        else:
            gate.tell_move(root, entry, how)
            console.print(f"Prefect at {server.ui_url} was told, and starts `forecast` if it is deployed there.")


def _export(batches: "Sequence[ForecastBatch]", out: Path | None, point: str) -> str:
    """What was written, in words; empty where no file is asked for."""
    if out is None:
        return ""
    from volcast.tasks.forecast import write_forecasts

    return f"{counted(write_forecasts(batches, out, point), 'row')} in {out}"


@contextmanager
def _server(flow: str, *, is_needed: bool = True) -> "Iterator[tuple[Server | None, Callable[..., Any]]]":
    """Prefect's server for the length of a command, which logs the steps alone; and the flow of that name.

    One is started where it `is_needed` and none is up. What the flow needs is imported meanwhile: each takes some
    seconds.
    """
    from volcast.flows.server import prefect_server, server_if_up

    _filter_console()
    module = f"volcast.flows.{flow}"
    with prefect_server(meanwhile=lambda: import_module(module)) if is_needed else server_if_up() as server:
        yield server, getattr(import_module(module), flow)


def _filter_console() -> None:
    if not os.environ.get("VOLCAST_DEBUG"):
        from volcast.flows.prefect_processes import filter_console

        filter_console()


def _choose_runner(chosen: str | None) -> None:
    """Flows, and the processes that they are in, take it from the environment. Raises ValueError."""
    if chosen is not None:
        from volcast.flows.task_runner import VARIABLE, address_of

        address_of(chosen)
        os.environ[VARIABLE] = chosen


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
        os.execve(sys.executable, [sys.executable, "-m", "volcast", *without], os.environ | {variable: value})


def _described(error: Exception) -> tuple[str, int]:
    """An error in one line, and the exit status that goes with it."""
    from volcast.flows.server_options import ServerError
    from volcast.storage.errors import UNREADABLE, StoreError, first_line
    from volcast.tasks.sources.source import SourceError, UnknownSource

    mistakes = (
        ImpossibleTest,
        UnknownCalendar,
        UnknownPoint,
        UnknownRecipe,
        UnknownSource,
        ValidationError,
        CycloptsError,
    )
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
