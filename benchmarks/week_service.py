"""What the operator's week is lived on: a service that is up, those whom it tells, and what is seen of it."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from playwright.sync_api import Page

from benchmarks import browser as ui
from benchmarks.programs import FINAL, Up, run_volcast
from benchmarks.webhooks import Webhook
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.ledger import Ledger
from volcast.storage.store import Store, open_store
from volcast.tasks.settings import root_of
from volcast.tasks.stored_models import CHAMPION

SOURCE, NAME = "simulated:0", "volume"  # the exchange, and the model
EVENING = "17:30"  # of New York: when daily runs


@dataclass
class Week:
    """A service that is up, those whom it tells, and what was seen of it so far."""

    up: Up
    webhook: Webhook  # in VOLCAST_ALERT_WEBHOOK; its GETs are those of VOLCAST_PING_URL
    second: Webhook  # by Apprise, in VOLCAST_ALERT_URLS
    pictures: Path
    has_browser: bool = False
    database: str | None = None  # the URL of an empty PostgreSQL
    can_mount: bool = False
    facts: dict[str, Any] = field(default_factory=dict)  # what was seen so far, by the names that the checks know
    read: dict[Webhook, int] = field(default_factory=dict)  # how many of its alerts are not looked at any more

    def see(self, **facts: Any) -> None:
        """Note what was seen; the folder of the service is … in it."""
        self.facts |= json.loads(json.dumps(facts).replace(str(self.up.folder), "…"))

    @property
    def data(self) -> Path:
        """The folder of the store."""
        return self.up.folder / "data"

    @property
    def store(self) -> Store:
        """The store of the exchange's prices."""
        return open_store(root_of(str(self.data), SOURCE))

    @property
    def artifacts(self) -> ArtifactStore:
        """Of that store."""
        return ArtifactStore(self.store)

    def set_clock(self, day: str, hour: str = EVENING) -> None:
        """Let it be that hour of New York's summer for every deployment."""
        for deployment in self.up.deployments.values():
            if "data" in deployment["parameters"]:
                parameters = deployment["parameters"]
                data = parameters["data"] | {"now": f"{day}T{hour}:00-04:00"}
                body = {"parameters": parameters | {"data": data}}
                self.up.api.patch(f"/deployments/{deployment['id']}", json=body)

    def run(self, name: str, **parameters: Any) -> dict[str, Any]:
        """Run a deployment to its end; its final state, with the name that its run has then."""
        run = self.up.run(name, **parameters)
        return self.up.ended(run) | {"run": self.up.flow_run(run)["name"], "id": run}

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of the operator in the folder of the service."""
        return run_volcast(self.up.folder, *words)

    def champion(self, name: str = NAME) -> int | None:
        """The version that forecasts; None without one."""
        entry = self.artifacts.alias("model", name, CHAMPION)
        return entry.version if entry else None

    def published(self) -> pd.DataFrame:
        """The rows of the newest published forecast."""
        ledger = Ledger(self.store)
        cutoff = ledger.newest_cutoff(NAME)
        assert cutoff is not None
        rows = ledger.forecasts(NAME, first=cutoff)
        rows = rows.loc[rows["published"]]
        return rows.loc[rows["version"] == rows["version"].max()]

    def authors(self) -> dict[str, list[str]]:
        """Who forecasts -> the tickers, of the newest forecast."""
        return {str(by): sorted(set(rows["ticker"])) for by, rows in self.published().groupby("model")}

    def shown(self, name: str) -> str:
        """The newest artifact of the store of that name: its line, and its text."""
        found = self.up.api.get(f"/artifacts/{self.up.artifact_key(name)}/latest").json()
        return f"{found['description']}\n{found['data']}"

    def turn_the_page(self) -> None:
        """From now on only alerts that are still to come are looked at; both channels have all of the others then."""
        self.up.wait(lambda: len(self.webhook.posts) == len(self.second.posts), "both channels have all")
        self.read = {receiver: len(receiver.posts) for receiver in (self.webhook, self.second)}

    def texts(self, code: str, receiver: Webhook | None = None) -> list[str]:
        """The alerts of that code that have come since the page was turned."""
        receiver = receiver or self.webhook
        texts = receiver.texts[self.read.get(receiver, 0) :]
        return [text for text in texts if f" volcast alert {code}: " in text]

    def told(self, code: str, words: str = "", receiver: Webhook | None = None) -> str:
        """The first alert of that code with those words, once it is there."""

        def found() -> str | None:
            return next((text for text in self.texts(code, receiver) if words in text), None)

        return self.up.wait(found, f"{code} is told: {words}")

    def wait_for_question(self, run: str) -> None:
        """Until a retraining waits for a person's answer."""

        def state() -> str:
            found = self.up.flow_run(run)["state"]
            return found["name"] if found["type"] in ("PAUSED", *FINAL) else ""

        found = self.up.wait(state, "a model waits for a yes")
        assert found == "Suspended", f"No model waits for a yes: {self.up.flow_run(run)['state']}"

    @contextmanager
    def window(self) -> Iterator[Page | None]:
        """A window of the operator's browser, opened for it and logged in; None where none is installed."""
        if not self.has_browser:
            yield None
            return
        with ui.open_browser() as browser, ui.window(browser, self.up, ui.log_in(browser, self.up)) as page:
            yield page

    def photograph(self, page: Page, name: str, *, whole: bool = False) -> None:
        """Keep what the window shows."""
        page.screenshot(path=self.pictures / f"{name}.png", full_page=whole)
