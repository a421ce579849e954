"""What is known of a request before a server is started for it: its mistakes, and what the store already says.

The flows check the same things again. Nothing here imports torch, scipy, matplotlib or Prefect, so that a mistake is
said at once.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from volcast.models.calendar_names import NEW_YORK
from volcast.models.errors import ImpossibleTest, UnknownRecipe
from volcast.models.point_names import USUAL_POINT, point_named
from volcast.models.recipes import TutorialRecipe
from volcast.models.text import listed, meant
from volcast.storage.append_tables import QuarantineTable
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.errors import NotStored
from volcast.storage.integrity import TABLES
from volcast.storage.prices import PriceTable
from volcast.storage.records import Retirement
from volcast.storage.store import Store, children, open_store
from volcast.tasks.settings import (
    CALENDAR_FOLDER,
    SIMULATED_FOLDER,
    BacktestSettings,
    DataSettings,
    TrainingSettings,
    calendar_of,
    root_of,
)
from volcast.tasks.sources.reading import split_location
from volcast.tasks.sources.source import (
    IN_ENVIRONMENT,
    EventSource,
    UnknownSource,
    is_added,
    open_event_source,
    open_source,
)

LAST_INGEST = "ingest"  # kind of the artifact that says where prices came from
RETIREMENT = "retirement"  # kind of the artifacts that say whether a ticker is in use: one a ticker, a version a change
STORED = "stored"  # the source of a run that only uses what the store holds
ROOT_FOLDERS = {*TABLES, "artifacts", "blobs", "aliases", "staging"}
UNTIL_BARS = timedelta(minutes=90)  # after a close, as prefect.yaml has it of New York: its bars have come then
FORECAST_FORMATS, PAGE_FORMATS = (".parquet", ".csv", ".xlsx"), (".html",)


class EmptyStore(NotStored):
    """There is no store, or it holds no prices."""


@dataclass(frozen=True)
class LastIngest:
    """Where the prices of a store last came from, and their announcements; a file by its whole path."""

    source: str
    events: str | None  # None: none was named, which is another thing than `none`: what is stored is used
    events_known_as: str  # the source's name in the table of events, which stays however its path is written


def check(data: DataSettings, training: TrainingSettings | None = None) -> None:
    """Raises ModelError, SourceError or StoreError for what cannot work."""
    if training is not None:
        training.make()
    _ = data.session
    if data.source != STORED:
        open_source(data.source).tickers()
    require_event_source(data)
    open_store(data.root, writable=True)
    if training is not None:
        _check_device(training.device)


def check_backtest(data: DataSettings, request: BacktestSettings) -> None:
    """Raises what `check` does, ImpossibleTest, and ValueError for a file that cannot be written."""
    request.span(data.day, data.calendar)
    request.recipe()
    check_out(request.out)
    today = (data.now or datetime.now(UTC)).date()
    if request.test_end is not None and request.test_end > today:
        raise ImpossibleTest(f"--test-end {request.test_end} is still to come: what is not known cannot be scored.")
    check(data)
    _check_device(request.device)


def check_out(out: Path | None, formats: Sequence[str] = FORECAST_FORMATS) -> None:
    """Raises ValueError for a file whose name ends otherwise, or whose folder is not there."""
    if out is None:
        return
    if out.suffix.lower() not in formats:
        raise ValueError(f"--out {out}: expected a name that ends in {listed(formats, joint=' or ')}.")
    folder = out.resolve().parent
    if not folder.is_dir():
        raise ValueError(f"--out {out}: there is no folder {folder}. Make it first.")
    if out.is_dir() or not os.access(out if out.exists() else folder, os.W_OK):
        raise ValueError(f"--out {out}: expected a file that can be written. Give another name.")


def require_ahead(training: TrainingSettings) -> None:
    """Raises UnknownRecipe for a nowcast: what is not forecast ahead needs no ledger, no fallback and no watch."""
    if isinstance(training.make(), TutorialRecipe):
        raise UnknownRecipe(f"Recipe {training.recipe} is a nowcast. This needs one that looks ahead: --recipe volume")


def check_point(training: TrainingSettings, word: str) -> str:
    """The point of that name. Raises UnknownPoint, and UnknownRecipe of a nowcast, which has the usual one alone."""
    if (point := point_named(word)) != USUAL_POINT:
        require_ahead(training)
    return point


def require_event_source(data: DataSettings) -> EventSource | None:
    """The source of announcements. Raises SourceError for one that is not there, or not of the world of the prices."""
    spec = data.event_source
    source = open_event_source(spec)
    if source is not None and root_of(data.store, spec, data.calendar) != data.root:
        raise UnknownSource(
            f"--events {spec} does not go with --source {data.source}: a simulated exchange has announcements of its "
            "own, and real ones never share a table with them. Leave --events out, or give none."
        )
    return source


def takes_turns(data: DataSettings) -> bool:
    """Whether a source is asked at a pace that all who ask share, which a server keeps."""
    source = None if data.source == STORED else open_source(data.source)
    return any(each is not None and each.pace is not None for each in (source, require_event_source(data)))


def require_prices(store: Store, tickers: Iterable[str]) -> None:
    """Raises NotStored, which names the tickers without prices, and those that have some."""
    stored = PriceTable(store).tickers()
    if lacking := sorted(set(tickers) - set(stored)):
        question = meant(lacking, stored)
        raise NotStored(f"{store.url} holds no prices of {listed(lacking)}. It holds {listed(stored)}.{question}")


def retirements(store: Store, session: date = date.max) -> dict[str, Retirement]:
    """The tickers that are retired at the close of a session, by default by what was said last. Raises StoreError."""
    artifacts, found = ArtifactStore(store), dict[str, Retirement]()
    for ticker in artifacts.names(RETIREMENT):
        for version in reversed(artifacts.versions(RETIREMENT, ticker)):
            said = Retirement.model_validate({"ticker": ticker, **artifacts.get(RETIREMENT, ticker, version).facts})
            if said.since <= session:
                found |= {ticker: said} if said.is_retired else {}
                break
    return found


def tickers_in_use(store: Store, session: date, version: int | None = None) -> list[str]:
    """What a run that names no tickers works on: those that are stored, without those that are retired.

    Raises NotStored where nothing is stored, or none of it is in use.
    """
    stored, retired = PriceTable(store).tickers(version), retirements(store, session)
    in_use = [ticker for ticker in stored if ticker not in retired]
    if stored and not in_use:
        raise NotStored(
            f"{store.url}: every stored ticker is retired: {listed(stored)}. Name one with --tickers, or bring it "
            "back with: volcast retire … --undo"
        )
    return in_use


def stored_parts(data: DataSettings, training: TrainingSettings) -> list[DataSettings]:
    """`data` for each of its models, of the tickers that are asked for or in use. Raises NotStored."""
    parts = training.method().split_tickers(data.tickers or tickers_in_use(open_store(data.root), data.session))
    return [data.model_copy(update={"tickers": tickers}) for tickers in parts]


def artifacts_of(root: str, model: str, kinds: Sequence[str] = ("model",), *, writable: bool = False) -> ArtifactStore:
    """The artifacts of a store that holds the model, or another of `kinds` by its name. Raises NotStored."""
    artifacts = ArtifactStore(open_store(root))
    known = sorted({name for kind in kinds for name in artifacts.names(kind)})
    if model not in known:
        held = listed(known) or "none"
        raise NotStored(f"No model {model[:60]} in {root}. It holds: {held}.{meant([model[:60]], known)}")
    return ArtifactStore(open_store(root, writable=True)) if writable else artifacts


def stored_market(
    store_url: str, asked: str | None = None, calendar: str | None = None, tickers: Sequence[str] = ()
) -> tuple[str, str]:
    """Whose prices the store holds, and their calendar: what is asked for, else real prices before simulated.

    Of several calendars it is the one with the tickers. Raises UnknownSource, NotStored for none, or where several
    calendars or exchanges are stored and none is asked for.
    """
    if asked not in (None, STORED, "yahoo"):
        open_source(asked)
    if asked is not None and asked.startswith("simulated"):
        if not _is_used(store := open_store(root_of(store_url, asked))):
            raise _no_prices(store, store_url, asked)
        return asked, calendar or NEW_YORK
    try:
        store = open_store(store_url)
    except NotStored as error:
        raise EmptyStore(str(error)) from error
    if held := stored_calendars(store):
        return STORED, _only_calendar(store, held, calendar, tickers)
    exchanges = [] if asked or calendar not in (None, NEW_YORK) else _folders_of(store, SIMULATED_FOLDER)
    if not exchanges:
        return STORED, _calendar_of_broken_rows(store, store_url, asked or "…", calendar)
    specs = [f"simulated:{name.removeprefix(SIMULATED_FOLDER).replace('-shift-', '?shift=')}" for name in exchanges]
    if len(specs) > 1:
        raise NotStored(f"{store.url} holds several simulated exchanges; say which by --source: {listed(specs)}.")
    return specs[0], NEW_YORK


def _calendar_of_broken_rows(store: Store, store_url: str, source: str, calendar: str | None) -> str:
    """Of a store without prices: good rows may never have come. Raises EmptyStore."""
    held = _calendars(store, lambda part: QuarantineTable(part).open() is not None)
    if not held or calendar not in (None, *held):
        raise _no_prices(store, store_url, source, calendar or NEW_YORK)
    return calendar or held[0]


def stored_calendars(store: Store) -> list[str]:
    """The calendars whose prices the store holds, New York's first."""
    return _calendars(store, lambda part: PriceTable(part).version() is not None)


def _calendars(store: Store, is_held: Callable[[Store], bool]) -> list[str]:
    parts = [_part(store, folder) for folder in _folders_of(store, CALENDAR_FOLDER)]
    return [NEW_YORK] * is_held(store) + [calendar_of(part.url) for part in parts if is_held(part)]


def usual_market(
    store_url: str, source: str | None = None, calendar: str | None = None, tickers: Sequence[str] = ()
) -> tuple[str, str]:
    """Source and calendar of an ingest; what it does not name is as it last was, or simulated for an empty store.

    Raises NotStored where that cannot be known.
    """
    if source is not None:
        calendar = calendar or _calendar_of_source(store_url, source, tickers)
        return known_reading(source, root_of(store_url, source, calendar)), calendar
    try:
        held, calendar = stored_market(store_url, None, calendar, tickers)
    except EmptyStore:
        if calendar not in (None, NEW_YORK):
            raise
        return "simulated", NEW_YORK
    if last := last_ingest(root_of(store_url, held, calendar)):
        return last.source, calendar
    if held == STORED:
        if not stored_calendars(open_store(store_url)):
            return "simulated", NEW_YORK
        raise NotStored(
            f"{store_url} does not know where its prices came from: release 0.1.0 did not keep it. Say it "
            "once: --source yahoo, or --source files:…"
        )
    return held, calendar


def _calendar_of_source(store_url: str, source: str, tickers: Sequence[str]) -> str:
    """The calendar that its prices last came with; New York's for a new one. Raises NotStored for several."""
    try:
        store = open_store(store_url)
    except NotStored:
        return NEW_YORK
    last = {each: last_ingest(root_of(store_url, STORED, each)) for each in stored_calendars(store)}
    spec = _without_reading(whole_spec(source))
    known = [each for each, ingest in last.items() if ingest and _without_reading(ingest.source) == spec]
    return _only_calendar(store, known, None, tickers) if known else NEW_YORK


def _only_calendar(store: Store, held: Sequence[str], asked: str | None, tickers: Sequence[str]) -> str:
    """The one that is asked for, the only one that there is, or that has the tickers. Raises NotStored."""
    if asked not in (None, *held):
        raise EmptyStore(f"{store.url} holds no prices of the calendar {asked}, but of {listed(held)}.")
    if asked is None and len(held) > 1:
        tables = {each: PriceTable(open_store(root_of(store.url, STORED, each))) for each in held}
        own = [each for each, table in tables.items() if tickers and set(tickers) <= set(table.tickers())]
        if len(own) == 1:
            return own[0]
        raise NotStored(f"{store.url} holds prices of several calendars; say which by --calendar: {listed(held)}.")
    return asked or held[0]


def known_reading(source: str, root: str) -> str:
    """The source with the reading of the last ingest, where that was from the same files and none is said anew."""
    last = last_ingest(root) if source.startswith("files:") else None
    return last.source if last and _without_reading(last.source) == whole_spec(source) else source


def usual_events(data: DataSettings) -> str | None:
    """The source of announcements of an ingest that names none: the last one's, where the prices' source is its own."""
    spec = whole_spec(open_source(data.source).spec)
    last = last_ingest(data.root)
    return last.events if last and _without_reading(last.source) == _without_reading(spec) else None


def last_ingest(root: str) -> LastIngest | None:
    """Where the prices at a root came from; None before the first ingest, and after one by release 0.1.0."""
    try:
        newest = ArtifactStore(open_store(root)).newest(LAST_INGEST, "prices")
    except NotStored:  # there is no store yet
        return None
    facts: Any = newest.facts if newest else None
    return LastIngest(**facts) if facts else None


def named_events(data: DataSettings) -> str | None:
    """The source of announcements in full; None where none was named and the prices' source has none of its own."""
    return None if data.events is None and data.event_source == "none" else whole_spec(data.event_source)


def market_schedule(calendar: str) -> tuple[str, str]:
    """A cron for UNTIL_BARS after each close of a market, and its time zone. A session of 24/7 closes at midnight."""
    from volcast.models.sessions import market_hours

    hours = market_hours(calendar)
    return _cron(hours.close + UNTIL_BARS, hours.weekdays), hours.zone


def deadline_cron(by: str, calendar: str) -> str:
    """A cron, in the market's time zone, for `by` o'clock after each close: the time at which a forecast is due."""
    from volcast.models.sessions import market_hours

    hours, hour = market_hours(calendar), time.fromisoformat(by)
    due = timedelta(hours=hour.hour, minutes=hour.minute)
    while due <= hours.close:
        due += timedelta(days=1)
    return _cron(due, hours.weekdays)


def _cron(after: timedelta, weekdays: Sequence[int]) -> str:
    """So long after the midnight of each of the weekdays."""
    days, minutes = divmod(int(after.total_seconds() // 60), 24 * 60)
    later = sorted((day + 1 + days) % 7 for day in weekdays)  # cron counts from Sunday
    return f"{minutes % 60} {minutes // 60} * * {','.join(map(str, later))}"


def whole_path(path_or_url: str) -> str:
    """A path that means the same in whatever folder a run is; a URL, or the variable that holds it, as it is."""
    if "://" in path_or_url or path_or_url.startswith(IN_ENVIRONMENT):
        return path_or_url
    return str(Path(path_or_url).expanduser().resolve())


def whole_spec(spec: str) -> str:
    """The spec of a source, with the whole path of its file; one that a package adds says it itself."""
    kind, _, location = spec.partition(":")
    if kind == "files":
        return f"files:{whole_path(location)}"
    return open_source(spec).spec if is_added(spec) else spec


def kept_roots(store_url: str) -> list[Store]:
    """The store, and its parts: simulated exchanges and other calendars. Raises NotStored where nothing is kept."""
    top = open_store(store_url)
    parts = _folders_of(top, SIMULATED_FOLDER, CALENDAR_FOLDER)
    if not parts and not _is_used(top):
        raise NotStored(f"{top.url} holds nothing of volcast's. Give the right one with: --store")
    return [top, *(_part(top, folder) for folder in parts)]


def _no_prices(store: Store, store_url: str, source: str, calendar: str = NEW_YORK) -> NotStored:
    of, chosen = ("", "") if calendar == NEW_YORK else (f" of {calendar}", f" --calendar {calendar}")
    fill = f"volcast ingest --source {source}{chosen} --store {store_url}"
    return EmptyStore(f"{store.url} holds no prices{of}. Bring some with: {fill}")


def _folders_of(store: Store, *kinds: str) -> list[str]:
    """The folders of these kinds that hold anything."""
    folders = (folder for folder in _folders(store) if folder.startswith(kinds))
    return sorted(folder for folder in folders if _is_used(store, folder))


def _part(store: Store, folder: str) -> Store:
    return open_store(f"{store.url}/{folder}")


def _is_used(store: Store, root: str = "") -> bool:
    return not _folders(store, root).isdisjoint(ROOT_FOLDERS)


def _folders(store: Store, root: str = "") -> set[str]:
    return set(children(store, root)[1])


def _without_reading(spec: str) -> str:
    return split_location(spec)[0]


def _check_device(device: str) -> None:
    if device == "cuda":  # only torch knows; the CPU is always there
        from volcast.models.weights import choose_device

        choose_device(device)
