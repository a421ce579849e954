"""How alerts reach a person: kept until they are sent, on each channel in order, and again after a failure.

    Prefect's automations -> their events -> the outbox -> a webhook, Apprise's services

1. an automation of flows/deploy.py fires, which the server records as an event (prefect.automation.triggered)
2. whoever runs an `Alerting` (`volcast up`, `volcast alerts`) reads these events, and keeps each as a message in the
   outbox, once, by the event's id; what it finds out by itself (`tell`) is kept alike
3. each channel has a thread of its own, which sends what the outbox has for it, one message after the other, so that
   a channel that is down or slow holds up neither another one nor the server, whose actions would wait in line
4. a message counts as sent when the channel has accepted it. Without an answer nobody can know whether it arrived: it
   is sent again, with the same id

The channels of a store are kept in a secret block on the server, where `volcast deploy` puts them.
"""

import json
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args
from uuid import UUID, uuid4

import httpx
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.events import EventPage
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventOrder
from prefect.exceptions import ObjectNotFound
from prefect.utilities.urls import url_for
from pydantic import SecretStr
from rich.console import Console

from volcast.flows.server_options import ServerError
from volcast.storage.locations import shown

Severity = Literal["info", "warning", "critical"]
WEBHOOK, URLS = "VOLCAST_ALERT_WEBHOOK", "VOLCAST_ALERT_URLS"
BLOCK = "volcast-alert"  # and the store's label: the secret block that has its channels
NAME = re.compile(r"volcast alert (?P<code>[\w-]+): .*\((?P<store>[\w-]+)\)")  # of the automation of an alert
CONNECT_SECONDS, ANSWER_SECONDS = 10, 120  # a slow channel is waited for: sent again, the message would come twice
LOOK_SECONDS = 2  # between two looks into the outbox
LONGEST_WAIT = 300  # seconds from a failure to the next attempt: 2, 4, 8 … up to this
LAST_SECONDS = 10  # for what is left to send when a command ends; the next one sends the rest
OVERLAP = timedelta(minutes=10)  # by which the server may record an event later than it occurred
KEPT = timedelta(days=30)  # after which a message is not sent any more
LATE = timedelta(seconds=45)  # from which on a message says when it is of
PAGE = 50  # the most events that the API gives at once
LOOKED = "looked at"  # under which the outbox knows when the events were read last
SAVE_SECONDS = 60  # between two times at which that is written, and the channels are read again

for library, least in (("httpx", logging.WARNING), ("apprise", logging.CRITICAL)):
    logging.getLogger(library).setLevel(least)  # their lines name URLs, and a webhook's secret is part of its path


def subject_of(code: str, what: str, store: str) -> str:
    """An alert's subject, which is its automation's name as well, and which NAME takes apart."""
    return f"volcast alert {code}: {what} ({store})"


def guide_to(code: str) -> str:
    """The last line of an alert's message."""
    return f"What to do: docs/operate.md, {code}"


@dataclass(frozen=True, kw_only=True)
class Message:
    """An alert, in words."""

    code: str  # its section in docs/operate.md
    severity: Severity
    subject: str
    body: str
    store: str  # the label of the store that it is about
    id: str = field(default_factory=lambda: str(uuid4()))
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def title(self) -> str:
        """The first line."""
        return f"{self.severity.upper()} {self.subject}"

    @property
    def words(self) -> str:
        """The other lines."""
        at = datetime.fromisoformat(self.at)
        late = f"\nSent late: it is of {at:%Y-%m-%d %H:%M} UTC." if datetime.now(UTC) - at > LATE else ""
        return f"{self.body}{late}"


class NotSent(Exception):
    """A channel did not accept a message; the text names no URL."""


@dataclass(frozen=True)
class Channel:
    """Where the messages about a store are sent."""

    store: str
    name: str  # the variable that has its URL, and which of several it is
    url: str = field(repr=False)

    @property
    def key(self) -> str:
        """Under which the outbox knows it; a URL that is mended gets what could not be sent before."""
        return f"{self.store} {self.name}"

    def send(self, message: Message) -> None:
        """Raises NotSent."""
        if self.name == WEBHOOK:
            _post(self.url, message)
        else:
            _notify(self.url, message)


def channels_of(environment: Mapping[str, str], store: str) -> list[Channel]:
    """The channels that the variables name for a store. Raises ServerError for a URL that cannot be one."""
    webhook, urls = environment.get(WEBHOOK, ""), environment.get(URLS, "").split()
    if webhook and not re.match(r"https?://[^/\s]+", webhook):
        raise ServerError(f"{WEBHOOK} must be a URL that begins with http:// or https://.")
    named = [(WEBHOOK, webhook)] if webhook else []
    named += [(f"{URLS} {number}", url) for number, url in enumerate(urls, 1)]
    for name, url in named:
        if name != WEBHOOK and _service(url) is None:
            raise ServerError(
                f"{name} is no URL that Apprise knows. Expected URLs such as mailto://…, with spaces between."
            )
    return [Channel(store, *each) for each in named]


def save_channels(client: SyncPrefectClient, environment: Mapping[str, str], store: str) -> None:
    """Keep the channels of a store on the server, as a secret; without any, nothing is kept. Raises ServerError."""
    channels = {channel.name: channel.url for channel in channels_of(environment, store)}
    if channels:
        Secret(value=SecretStr(json.dumps(channels))).save(f"{BLOCK}-{store}", overwrite=True)
    for kind in ("custom-webhook", *(() if channels else ("secret",))):  # the first by an earlier release
        try:
            client.delete_block_document(client.read_block_document_by_name(f"{BLOCK}-{store}", kind).id)
        except ObjectNotFound:
            continue


def saved_channels(client: SyncPrefectClient) -> list[Channel]:
    """The channels of every store on the server."""
    try:
        blocks = client.read_block_documents_by_type("secret", include_secrets=True)
    except ObjectNotFound:  # no secret was ever kept there
        return []
    own = {str(block.name).removeprefix(f"{BLOCK}-"): block for block in blocks if str(block.name).startswith(BLOCK)}
    return [
        Channel(store, name, url)
        for store, block in own.items()
        for name, url in json.loads(block.data["value"]).items()
    ]


class Outbox:
    """The messages, and how far each channel is with them, in a SQLite database."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / "alerts.db"
        with self._open() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, "
                "store TEXT, at TEXT, message TEXT)"
            )
            database.execute("CREATE TABLE IF NOT EXISTS progress (key TEXT PRIMARY KEY, number INTEGER)")

    def keep(self, message: Message) -> None:
        """Once, by its id."""
        row = (message.id, message.store, message.at, json.dumps(asdict(message)))
        with self._open() as database:
            database.execute("INSERT OR IGNORE INTO messages (id, store, at, message) VALUES (?, ?, ?, ?)", row)
            oldest = (datetime.now(UTC) - KEPT).isoformat(timespec="seconds")
            database.execute("DELETE FROM messages WHERE at < ?", (oldest,))

    def newest(self) -> int:
        """The number of the newest message; 0 before the first."""
        with self._open() as database:
            return database.execute("SELECT coalesce(max(number), 0) FROM messages").fetchone()[0]

    def begin(self, key: str, at: int) -> int:
        """How far a channel was, or `at` for one that begins."""
        with self._open() as database:
            database.execute("INSERT OR IGNORE INTO progress VALUES (?, ?)", (key, at))
            return database.execute("SELECT number FROM progress WHERE key = ?", (key,)).fetchone()[0]

    def next(self, channel: Channel, after: int) -> tuple[int, Message] | None:
        """The first message for it behind a number; None where there is none."""
        with self._open() as database:
            found = database.execute(
                "SELECT number, message FROM messages WHERE store = ? AND number > ? ORDER BY number LIMIT 1",
                (channel.store, after),
            ).fetchone()
        return (found[0], Message(**json.loads(found[1]))) if found else None

    def reach(self, key: str, number: int) -> None:
        """The channel has the messages up to this number."""
        with self._open() as database:
            database.execute("UPDATE progress SET number = ? WHERE key = ?", (number, key))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=60)) as database, database:
            yield database


def tell(code: str, what: str, body: str, store: str, *, severity: Severity, folder: Path) -> None:
    """Keep a message that no automation tells, such as one about the server itself, in the folder's outbox.

    It is sent by the `Alerting` that is open on the folder, or by the next one.
    """
    words = f"{shown(body)}\n{guide_to(code)}"
    message = Message(code=code, severity=severity, subject=subject_of(code, what, store), body=words, store=store)
    Outbox(folder).keep(message)


class Alerting:
    """Messages on their way from the server's events to the channels, as long as this is open.

    `own` are channels that hold whatever the server has saved, which a `volcast deploy` elsewhere may take away.
    """

    def __init__(self, folder: Path, console: Console, own: Sequence[Channel] = ()) -> None:
        self._outbox, self._console, self._own = Outbox(folder), console, own
        first = int((datetime.now(UTC) + OVERLAP).timestamp())  # a new outbox is told nothing of before
        self._saved = self._looked = datetime.fromtimestamp(self._outbox.begin(LOOKED, first), UTC)
        self._known: set[UUID] = set()  # the events that were read last
        self._has_failed = False
        self._channels: dict[str, Channel] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._is_ending = threading.Event()

    def __enter__(self) -> Self:
        self.use(())
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Each channel tries once more; what then is left stays in the outbox."""
        self._is_ending.set()
        end = time.monotonic() + LAST_SECONDS
        for thread in self._threads.values():
            thread.join(max(0, end - time.monotonic()))

    def use(self, channels: Sequence[Channel]) -> None:
        """Send by these channels and its own, and no others, from now on."""
        self._channels = {channel.key: channel for channel in (*channels, *self._own)}
        for key in self._channels:
            if key not in self._threads or not self._threads[key].is_alive():
                number = self._outbox.begin(key, self._outbox.newest())
                thread = threading.Thread(target=self._deliver, args=(key, number), name=key, daemon=True)
                self._threads[key] = thread
                thread.start()

    def collect(self, client: SyncPrefectClient) -> None:
        """Keep what the automations have told since the last time; what cannot be read now is read the next time."""
        try:
            self._collect(client)
        except (httpx.HTTPError, ObjectNotFound, sqlite3.Error) as error:
            if not self._has_failed:
                self._say(f"Alerts cannot be collected, and are later: {shown(str(error))}")
            self._has_failed = True
        else:
            self._has_failed = False

    def _collect(self, client: SyncPrefectClient) -> None:
        now = datetime.now(UTC)
        fired = list(_fired(client, self._looked - OVERLAP))
        messages = [_message(client, event) for event in fired if event.id not in self._known]
        is_time = (now - self._saved).total_seconds() > SAVE_SECONDS
        if is_time or any(messages) or not self._channels:
            self.use(saved_channels(client))
        for message in filter(None, messages):
            self._outbox.keep(message)
        self._known, self._looked = {event.id for event in fired}, max(self._looked, now)
        if is_time:
            self._saved = self._looked
            self._outbox.reach(LOOKED, int(self._looked.timestamp()))

    def _deliver(self, key: str, number: int) -> None:
        failures = 0
        while channel := self._channels.get(key):
            is_last = self._is_ending.is_set()
            try:
                while found := self._outbox.next(channel, number):
                    channel.send(found[1])
                    number, failures = found[0], 0
                    self._outbox.reach(key, number)
            except (NotSent, sqlite3.Error) as error:
                if not failures:
                    self._say(f"Alerts are kept, and sent later, for {channel.name} fails: {error}")
                failures += 1
            if is_last:
                return
            self._is_ending.wait(min(2**failures, LONGEST_WAIT) if failures else LOOK_SECONDS)

    def _say(self, words: str) -> None:
        self._console.print(words, style="bold red", markup=False)


def _fired(client: SyncPrefectClient, since: datetime) -> Iterator[Any]:
    """The events of the alerts' automations since then, in order."""
    wanted = EventFilter(
        event=EventNameFilter(name=["prefect.automation.triggered"]),
        occurred=EventOccurredFilter.model_validate({"since": since}),
        order=EventOrder.ASC,
    )
    page: EventPage | None = client.read_events(wanted, limit=PAGE)
    while page:
        yield from page.events
        page = client.read_events_page(str(page.next_page)) if page.next_page else None


def _message(client: SyncPrefectClient, event: Any) -> Message | None:
    """What an automation tells; None for one that is no alert."""
    subject = event.resource.get("prefect.resource.name", "")
    if not (name := NAME.fullmatch(subject)):
        return None
    automations = client.read_automations_by_name(subject)  # none where it has been removed since
    severity: Any = next((tag for each in automations for tag in each.tags if tag in get_args(Severity)), "warning")
    caused_by = event.payload.get("triggering_event") or {}
    guides = [each.description.partition("\n")[2] for each in automations[:1]]  # its first line is for the UI
    lines = [*_facts(caused_by), *guides]
    return Message(
        code=name["code"],
        severity=severity,
        subject=subject,
        body=shown("\n".join(filter(None, lines))),
        store=name["store"],
        id=str(event.id),
        at=event.occurred.astimezone(UTC).isoformat(timespec="seconds"),
    )


def _facts(event: Mapping[str, Any]) -> Iterator[str]:
    """What the event says that an automation waited for, and where to look at its run."""
    about, payload = event.get("resource", {}), event.get("payload", {})
    if state := payload.get("validated_state"):
        yield f"{about.get('prefect.resource.name')} is {state['name']}. {state.get('message') or ''}".rstrip()
    yield payload.get("words", "")
    for each in (about, *event.get("related", [])):
        kind, _, run = str(each.get("prefect.resource.id")).rpartition(".")
        if kind == "prefect.flow-run":
            yield url_for("flow-run", obj_id=run) or ""
            return


def _post(url: str, message: Message) -> None:
    """To a Slack-compatible webhook. Raises NotSent."""
    content = {"text": f"{message.title}\n{message.words}", **asdict(message)}
    timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    try:
        answer = httpx.post(url, json=content, timeout=timeout)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NotSent(f"it does not answer ({type(error).__name__})") from error
    if not answer.is_success:
        raise NotSent(f"it answers {answer.status_code}")


def _notify(url: str, message: Message) -> None:
    """By Apprise. Raises NotSent."""
    from apprise import Apprise, NotifyFormat, NotifyType

    kinds = {"info": NotifyType.INFO, "warning": NotifyType.WARNING, "critical": NotifyType.FAILURE}
    service, channel = _service(url), Apprise()
    if service is None:
        raise NotSent("it is no URL that Apprise knows")
    service.socket_read_timeout = ANSWER_SECONDS
    channel.add(service)
    kind, plain = kinds[message.severity], NotifyFormat.TEXT
    if not channel.notify(title=message.title, body=message.words, notify_type=kind, body_format=plain):
        raise NotSent(f"{service.service_name} did not accept it")


def _service(url: str) -> Any:
    """Apprise's service of a URL; None where it knows none."""
    from apprise import Apprise

    return Apprise.instantiate(url, suppress_exceptions=True)
