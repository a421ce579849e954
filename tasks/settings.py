"""What a person may ask of a run: which prices, and which model of them.

The forms of Prefect's UI and the options of the command line are made of these fields and their descriptions; nothing
heavy is imported for them.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)

from volcast.models.calendar_names import NEW_YORK, calendar_named
from volcast.models.errors import NotASession, UnknownRecipe
from volcast.models.point_names import USUAL_POINT, point_named
from volcast.models.recipes import (
    DEFAULT_RECIPE,
    MARGIN,
    Recipe,
    Refit,
    VolumeRecipe,
    known_cells,
    make_recipe,
    setting_names,
)
from volcast.models.text import listed
from volcast.storage.locations import PATTERN, shown
from volcast.storage.records import Name
from volcast.tasks.methods.method import Method, method_of

if TYPE_CHECKING:
    from volcast.models.backtest import TestSpan

DEFAULT_STORE = "./data"
SIMULATED_FOLDER = "simulated-"  # and the exchange's seed and shift: what is simulated shares no table with real prices
CALENDAR_FOLDER = "calendar-"  # and the calendar's name, but for New York's: a market has tables and models of its own
TESTED_SESSIONS = 63  # of a backtest that names no dates; a quarter
MAX_BROKEN_SHARE = 0.05  # of a ticker's rows; beyond it the ticker has failed
RECIPE_FIELDS = ("cell", "fit_scalers_on", "window_sessions")  # of TrainingSettings, each of one recipe

Seed = Annotated[int, Field(ge=0, lt=2**32, description="Seed of the initial weights")]  # as numpy and torch take it
Device = Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto takes a GPU when there is one")]
Sessions = Annotated[int, Field(le=2520)]  # a count of them, ten years at the most


# A URL's credentials are masked before anything keeps them, be it an error's message; what opens it refuses it then.
Location = Annotated[str, AfterValidator(shown), Field(json_schema_extra={"pattern": PATTERN})]


def _form(schema: dict[str, Any], settings: type["_Settings"]) -> None:
    """Leave the fields that are asked for every day in the form of Prefect's UI, which shows `properties` alone.

    The others stay as strictly checked, each as a pattern of its name, and the form's text names them.
    """
    fields = schema["properties"]
    if others := {name: fields.pop(name) for name in list(fields) if name not in settings.in_form}:
        schema["patternProperties"] = {f"^{name}$": facts for name, facts in others.items()}
        schema["description"] += f" By the menu's JSON input also: {', '.join(others)}."


Point = Annotated[
    str,
    AfterValidator(point_named),
    Field(
        description="The number that a forecast is read as: median, mean, quantile:0.4, or ale, the quantile 1/3, for "
        "whoever pays twice as much for too much as for too little"
    ),
]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_form)

    in_form: ClassVar[frozenset[str]]


class DataSettings(_Settings):
    """Which prices to use, and where they are kept."""

    in_form = frozenset({"source", "tickers", "as_of"})

    source: Location = Field(default="simulated", description="simulated[:SEED], yahoo, or files:PATH-or-URL")
    events: Location | None = Field(
        default=None,
        description="Announced earnings and other dated events: simulated[:SEED], yahoo, files:PATH-or-URL, or none to "
        "use none; by default simulated and yahoo are asked where the prices are theirs, and what is stored is used",
    )
    calendar: str = Field(
        default=NEW_YORK,
        description="The market's calendar, as exchange_calendars names it: XNYS, XLON, XETR, XTKS, 24/7, …",
    )
    tickers: tuple[str, ...] = Field(
        default=(),
        description="Tickers; none means all that are stored, or that the files hold (of an empty store: SBUX for "
        "simulated and yahoo)",
    )
    date_format: str | None = Field(
        default=None, description="Of files: how dates are written, such as %d/%m/%Y, or s, ms, us, ns, days, excel"
    )
    decimal: Literal[".", ","] | None = Field(default=None, description="Of files: the decimal sign, . or ,")
    columns: str | None = Field(
        default=None,
        description="Of files: what columns are where their headings do not say it: Vol.=volume*1000,Kurs=close",
    )
    store: Location = Field(
        default_factory=lambda: os.environ.get("VOLCAST_STORE", DEFAULT_STORE),
        description="The root of everything that is kept: a folder, or s3://, gs://, az://",
    )
    as_of: date | None = Field(
        default=None, description="Use nothing after this date; none means the last closed session"
    )
    prices_version: int | None = Field(
        default=None,
        ge=0,
        description="The version of the prices to read, with its own values; none means that of the day of as_of",
    )
    now: AwareDatetime | None = Field(default=None, description="The time that counts as now; none means the clock")
    allow_shrink: bool = Field(
        default=False, description="Accept a source that has lost sessions which are stored; stored rows stay"
    )
    max_failed_share: float = Field(
        default=0.05, ge=0, le=1, description="Of the tickers; when more of them fail, the ingest fails"
    )
    max_broken_share: float = Field(
        default=MAX_BROKEN_SHARE,
        ge=0,
        le=1,
        description="Of a ticker's rows; when more of them break a rule, it has failed and none of them is stored",
    )
    recheck_sessions: int = Field(
        default=10, ge=0, description="Stored sessions that a source is asked for again, in case they changed"
    )
    deadline_hours: float = Field(default=2, gt=0, description="No ticker is asked for after this time")

    @model_validator(mode="after")
    def _reading_in_source(self) -> "DataSettings":
        """How files are read is part of their source's spec, so that it is kept with that."""
        said = {"date-format": self.date_format, "decimal": self.decimal, "columns": self.columns}
        if any(value is not None for value in said.values()):
            from volcast.tasks.sources.reading import with_reading

            object.__setattr__(self, "source", with_reading(self.source, said))
            for name in said:
                object.__setattr__(self, name.replace("-", "_"), None)
        return self

    @field_validator("calendar")
    @classmethod
    def _own_name(cls, word: str, info: ValidationInfo) -> str:
        name = calendar_named(word)
        if name != NEW_YORK and info.data.get("source", "").startswith("simulated"):
            raise ValueError("the simulated exchange has New York's calendar, XNYS")
        return name

    @field_validator("store")
    @classmethod
    def _whole_store(cls, url: str) -> str:
        if (calendar := calendar_of(url)) != NEW_YORK:
            raise ValueError(f"this is a part of a store. Give the folder above it, and --calendar {calendar}")
        return url

    @property
    def root(self) -> str:
        """The root of these prices in the store, and of all that is made of them."""
        return root_of(self.store, self.source, self.calendar)

    @property
    def session(self) -> date:
        """The last closed session, or the newest one up to as_of. Raises NotASession for an as_of to come."""
        return last_session(self.as_of, self.now, self.calendar)

    def due(self, by: str | None) -> date | None:
        """The newest session from which a forecast had to be there by now, `by` the market's time.

        None without a deadline, and for a run about the past.
        """
        return None if self.as_of is not None else due_session_of(by, self.calendar, self.now)

    @property
    def event_source(self) -> str:
        """The spec of the source of announcements."""
        own = self.source if self.source.startswith(("simulated", "yahoo")) else "none"
        return own if self.events is None else self.events

    @property
    def uses_earnings(self) -> bool:
        """Whether the announced earnings that are stored are used: always, unless a run is asked for none."""
        return self.events != "none"

    @property
    def day(self) -> date:
        """The date that a run is about: as_of, else the last closed session."""
        return self.as_of or self.session

    @property
    def label(self) -> str:
        """The tickers, short enough for the name of a run."""
        return listed(self.tickers, 3) or f"all of {self.source}"


class TrainingSettings(_Settings):
    """Which model to train, and how."""

    in_form = frozenset({"recipe", "seed", "force", "settings"})

    recipe: str = Field(
        default=DEFAULT_RECIPE,
        description="volume: the next 10 sessions; tutorial: a nowcast of one ticker",
        json_schema_extra={"enum": ["volume", "tutorial"]},  # a list to choose from in the UI's form
    )
    cell: str = Field(
        default="lstm",
        description="Volume: what carries the past: lstm, gru, rnn, mlp (sees only the cutoff), or what a package adds",
        json_schema_extra=lambda schema: schema.update(enum=[*known_cells()]),  # a list to choose from
    )
    fit_scalers_on: Literal["train", "all"] = Field(
        default="train",
        description="Tutorial: 'all', the article's own choice, lets the test rows leak into the scalers",
    )
    window_sessions: int | None = Field(
        default=253,
        description="Tutorial: the newest sessions that the recipe looks at; none, on the command line all, means all",
    )
    seed: Seed = 0
    device: Device = "auto"
    force: bool = Field(
        default=False, description="Train even where the same data and settings have been trained on before"
    )
    settings: dict[str, JsonValue] = Field(
        default={}, description="Other settings of the recipe, by name, such as steps=1000"
    )
    from_scratch: bool = Field(
        default=False, description="Volume: train new weights, instead of tuning those that come with volcast"
    )
    name: Name | None = Field(
        default=None,
        description="The model's registered name, for a model beside the recipe's own; none means the recipe's name",
    )

    def make(self) -> Recipe:
        """The recipe with these settings; one that it lacks must stand at its default. Raises UnknownRecipe."""
        known, chosen = setting_names(self.recipe), self._chosen
        for name in RECIPE_FIELDS:
            if name in known or getattr(self, name) != TrainingSettings.model_fields[name].default:
                chosen.setdefault(name, getattr(self, name))
        return make_recipe(self.recipe, **_without_name(chosen))

    @property
    def backtested(self) -> dict[str, JsonValue]:
        """The settings by which a backtest tests the same model."""
        cell = {} if self.cell == TrainingSettings.model_fields["cell"].default else {"cell": self.cell}
        return {**cell, **self._chosen}

    @property
    def _chosen(self) -> dict[str, JsonValue]:
        return self.settings | ({"start": "scratch"} if self.from_scratch else {})

    def method(self) -> Method:
        """The steps of the recipe. Raises UnknownRecipe."""
        return method_of(self.make(), self.name)


class WatchSettings(_Settings):
    """When a champion is no longer trusted, and har publishes in its place."""

    in_form = frozenset({"max_model_age"})

    max_model_age: Sessions = Field(
        default=63,
        ge=1,
        description="Sessions since the newest one that the champion was trained on; beyond them har forecasts, but "
        "where the champion's live errors are below har's",
    )
    max_behind: Sessions = Field(
        default=1, ge=0, description="Sessions that the prices may be behind; a bar that is an evening late is common"
    )
    drift_sessions: Sessions = Field(default=63, ge=20, description="The newest sessions whose features are looked at")
    forecast_by: str | None = Field(
        default=None,
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        description="The market's time by which a forecast must be there after each close, such as 18:15",
    )
    retrain_sessions: Sessions = Field(
        default=5, ge=1, description="New sessions since the newest training that are enough for another one"
    )


class ForecasterSettings(_Settings):
    """Which version of the model forecasts."""

    in_form = frozenset({"version", "allow_future_model"})

    version: int | None = Field(
        default=None, ge=1, description="The version that forecasts; none means the champion, or what stands in for it"
    )
    allow_future_model: bool = Field(
        default=False,
        description="Forecast with a model that was trained on later sessions than the forecast may know, and say so",
    )


class RetrainSettings(_Settings):
    """Why a retraining runs, and who lets its result forecast."""

    in_form = frozenset({"promote", "require_approval"})

    cause: Literal["person", "schedule", "sessions", "drift", "quality", "intervals"] = Field(
        default="person", description="What started it: a person, the schedule, or an event"
    )
    cool_down_sessions: Sessions = Field(
        default=5, ge=0, description="Since the newest training; an event starts no other one before they have passed"
    )
    promote: bool = Field(
        default=True, description="Off for an experiment: the version is scored and kept, whatever its scorecard says"
    )
    margin: float = Field(
        default=MARGIN,
        ge=0,
        le=0.5,
        description="Of the champion's error: a version that may be worse by more stays out",
    )
    require_approval: bool = Field(
        default=False, description="A version that passed the gate waits for a person's yes before it forecasts"
    )


class BacktestSettings(_Settings):
    """Which sessions to test on, with what was known before, and where the forecasts go."""

    in_form = frozenset({"train_through", "test_start", "test_end", "refit", "settings"})

    train_through: date | None = Field(
        default=None, description="The last session that the first fit sees; none means the one before the test"
    )
    test_start: date | None = Field(
        default=None, description="The first session that is forecast; none means 63 sessions before the end"
    )
    test_end: date | None = Field(
        default=None, description="The last session that is forecast; nothing after it is used; none means the newest"
    )
    refit: Refit = Field(default="never", description="When the forecasters are fitted again during the test")
    seed: Seed = 0
    device: Device = "auto"
    out: Path | None = Field(
        default=None,
        description="The forecasts' file, .parquet, .csv or .xlsx; none means only the artifact in the store",
    )
    point: Point = USUAL_POINT
    settings: dict[str, JsonValue] = Field(
        default={}, description="Settings of the volume recipe, by name, such as steps=1000"
    )

    def recipe(self) -> VolumeRecipe:
        """The recipe of volcast's own forecaster. Raises UnknownRecipe."""
        return make_recipe("volume", **_without_name(self.settings))

    def span(self, newest: date, calendar: str = NEW_YORK) -> "TestSpan":
        """The dates, checked against each other, where `newest` is the last known session. Raises ImpossibleTest."""
        from volcast.models.backtest import TestSpan
        from volcast.models.sessions import last_session_on_or_before, session_before

        end = self.test_end or newest
        start = self.test_start
        if start is None:
            start = session_before(last_session_on_or_before(end, calendar), TESTED_SESSIONS - 1, calendar)
        before = last_session_on_or_before(start - timedelta(days=1), calendar)
        return TestSpan(train_through=self.train_through or before, test_start=start, test_end=end, refit=self.refit)


class OrderSettings(_Settings):
    """What is to be traded, and how fast."""

    in_form = frozenset()

    ticker: str | None = Field(default=None, min_length=1, description="What is traded; its shares by --shares")
    shares: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="How many, such as 2000000 or 2,000,000"
    )
    portfolio: Path | None = Field(
        default=None, description="Instead of both: a .csv or .parquet file with the columns ticker and shares"
    )
    rate: float = Field(
        default=0.1, gt=0, le=1, description="The share of each session's volume that is traded, such as 10% or 0.1"
    )
    settlement: int = Field(
        default=1, ge=0, le=5, description="Sessions from a sale to the cash: New York's since May 2024, 2 before"
    )
    name: Name = Field(default=DEFAULT_RECIPE, description="Whose newest forecast")

    @model_validator(mode="after")
    def _is_one_or_many(self) -> "OrderSettings":
        if len({self.ticker is None, self.shares is None, self.portfolio is not None}) > 1:
            raise ValueError("Name --ticker and --shares, or a file by --portfolio: one of both.")
        return self


Settings = TypeVar("Settings", TrainingSettings, BacktestSettings)


def as_asked(settings: Settings, data: DataSettings) -> Settings:
    """The same settings, but without announced earnings where the run is asked to use none (`--events none`)."""
    recipe = settings.recipe if isinstance(settings, TrainingSettings) else DEFAULT_RECIPE
    if data.uses_earnings or "use_earnings" not in setting_names(recipe):
        return settings
    return settings.model_copy(update={"settings": {**settings.settings, "use_earnings": False}})


def root_of(store: str, source: str, calendar: str = NEW_YORK) -> str:
    """The root for a source's prices: `store` itself for those of New York, else a folder of it.

    Each simulated exchange has one, and each other calendar.
    """
    found = re.match(r"simulated(?::(\d+))?(?:.*\bshift=([\d-]+))?", source)
    if not store.strip() or not (found or calendar != NEW_YORK):
        return store
    folder = CALENDAR_FOLDER + calendar.replace("/", "-")
    if found:
        folder = f"{SIMULATED_FOLDER}{(found[1] or '').lstrip('0') or 0}" + (f"-shift-{found[2]}" if found[2] else "")
    return f"{store if store.endswith('://') else store.rstrip('/')}/{folder}"


def due_session_of(by: str | None, calendar: str, now: datetime | None = None) -> date | None:
    """The newest session from which a forecast had to be there by now, `by` the market's time; None without one."""
    if by is None:
        return None
    from volcast.models.sessions import due_session

    return due_session(now or datetime.now(UTC), time.fromisoformat(by), calendar)


def is_simulated(root: str) -> bool:
    """Whether the prices at a root are of a simulated exchange: its folder's name says it."""
    return root.rstrip("/").rsplit("/", 1)[-1].startswith(SIMULATED_FOLDER)


def calendar_of(root: str) -> str:
    """The calendar of the prices at a root: its folder's name says it."""
    found = re.search(rf"(?:^|/){CALENDAR_FOLDER}([A-Z]{{4}}|24-[57]|us_futures)/*$", root)
    return found[1].replace("-", "/") if found else NEW_YORK


def last_session(as_of: date | None, now: datetime | None = None, calendar: str = NEW_YORK) -> date:
    """The newest closed session at `now` (none: the clock), or the newest one up to `as_of`.

    Raises NotASession for a date to come.
    """
    from volcast.models.sessions import last_closed_session, last_session_on_or_before

    now = now or datetime.now(UTC)
    newest = last_closed_session(now, calendar)
    if as_of is None:
        return newest
    if as_of > now.astimezone(UTC).date():
        raise NotASession(f"--as-of {as_of} is still to come. The last closed session is {newest}.")
    return min(last_session_on_or_before(as_of, calendar), newest)


def _without_name(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    if "name" in settings:
        raise UnknownRecipe("name is no setting: the recipe itself is chosen by --recipe.")
    return settings


SUPPOSITION = re.compile(
    r"(?P<ticker>\S+) +earnings +(?P<day>\d{4}-\d\d-\d\d)"
    r"(?: +(?P<when>bmo|amc)| +(?P<withdrawn>withdrawn)| +to +(?P<to>\d{4}-\d\d-\d\d))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Supposition:
    """Announced earnings of a ticker that are other than they are known: a date is added, taken out, or both."""

    ticker: str
    gone: date | None
    new: date | None
    when: str  # bmo, amc, or empty

    @property
    def words(self) -> str:
        """What is supposed, in a clause."""
        if self.new is None:
            return f"{self.ticker} announced nothing for {self.gone}"
        moved = f", not {self.gone}" if self.gone else ""
        return f"{self.ticker} announced earnings for {self.new}{moved}"


def supposition_of(text: str) -> Supposition:
    """From words such as "SBUX earnings 2026-12-03 amc". Raises ValueError."""
    found = SUPPOSITION.fullmatch(text.strip())
    if found is None:
        raise ValueError(
            'Expected "SBUX earnings 2026-12-03", with bmo or amc, or with withdrawn, or with "to 2026-12-08".'
        )
    ticker, when = found["ticker"].upper(), (found["when"] or "").lower()
    day, to = (date.fromisoformat(word) if word else None for word in found.group("day", "to"))
    is_change = to is not None or found["withdrawn"] is not None
    return Supposition(ticker=ticker, gone=day if is_change else None, new=to if is_change else day, when=when)
