"""The tables of a store of the pipeline as frames, for reading alone: nothing of it is ever written, or locked.

Tickers are unique_id and target sessions ds, as in the frames of `volcast.frames`.
"""

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import pandas as pd

from volcast.frames import Model
from volcast.models.calendar_names import NEW_YORK
from volcast.models.errors import UnknownRecipe
from volcast.models.recipes import VolumeRecipe
from volcast.models.sessions import FIRST_DATE
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.ledger import Ledger
from volcast.storage.prices import PriceTable
from volcast.storage.store import Store
from volcast.storage.store import open_store as open_root
from volcast.tasks.reports.views import histories, read_forecast
from volcast.tasks.settings import calendar_of, root_of
from volcast.tasks.stored_models import CHAMPION, features_of, read_model, trained_through, universe


class StoredFrames:
    """What a store holds: its prices at any version, what was forecast and how good it was, and its models."""

    def __init__(self, store: Store) -> None:
        self._store, self._artifacts, self._ledger = store, ArtifactStore(store), Ledger(store)
        self.url, self.calendar = store.url, calendar_of(store.url)

    def __repr__(self) -> str:
        return f"StoredFrames({self.url!r})"

    def prices(
        self,
        tickers: Iterable[str] | None = None,
        *,
        first: date | None = None,
        last: date | None = None,
        version: int | None = None,
    ) -> pd.DataFrame:
        """The prices of a version, by default the newest, as `load_prices` gives them; of all tickers by default.

        `last` means as known at that close: no dividend and no split of later counts. Raises NotStored.
        """
        rows = PriceTable(self._store).read(tickers, first=first, last=last, version=version)
        named = rows.rename(columns={"ticker": "unique_id", "session": "ds", "volume": "y"}).astype({"y": "float64"})
        leading = ["unique_id", "ds", "y"]
        return named.loc[:, [*leading, *(name for name in named.columns if name not in leading)]]

    def forecast(self, name: str = "volume", version: int | None = None) -> pd.DataFrame:
        """A forecast as it was published, by default the newest, as `volcast.forecast` gives one.

        Raises NotStored.
        """
        number = self._artifacts.get("forecast", name, version).ref.version
        frame = read_forecast(self._store, name, number).frame
        frame = frame.astype({"cutoff": "datetime64[s]", "ds": "datetime64[s]"})
        frame.attrs["calendar"] = self.calendar
        return frame

    def forecasts(self, name: str = "volume", *, first: date = FIRST_DATE) -> pd.DataFrame:
        """Every row of the ledger with a cutoff from `first` on: who forecast what, and whether it was published."""
        return self._ledger.forecasts(name, first=first).rename(columns={"ticker": "unique_id"})

    def scores(self, name: str = "volume", *, first: date = FIRST_DATE) -> pd.DataFrame:
        """What each forecast of a target from `first` on was worth, once its volume had come."""
        return self._ledger.scores(name, first=first).rename(columns={"ticker": "unique_id"})

    def models(self) -> pd.DataFrame:
        """A row a version of every model: name, version, trained, cutoff, test_sessions, tickers (a tuple), score,
        verdict, is_champion.
        """
        columns = ["version", "trained", "cutoff", "test_sessions", "tickers", "score", "verdict", "is_champion"]
        rows = [
            {"name": history.name, **{column: getattr(line, column) for column in columns}}
            for history in histories(self.url)
            for line in history.versions
        ]
        return pd.DataFrame(rows, columns=["name", *columns])

    def model(self, name: str = "volume", version: int | None = None) -> Model:
        """A stored volume model, by default the champion, for `forecast(prices, model=…)`.

        Raises NotStored, Corrupt, UnknownRecipe for a model of another recipe.
        """
        number = self._artifacts.get("model", name, version).ref.version if version else self._champion(name)
        method, predictor = read_model(self._artifacts, name, number)
        if not isinstance(method.recipe, VolumeRecipe):
            raise UnknownRecipe(f"{name} v{number} is of the recipe {method.recipe.name}, which forecasts no frame.")
        return Model(
            predictor=predictor,
            tickers=universe(self._artifacts, name, number),
            trained_through=trained_through(self._artifacts, features_of(self._artifacts, name, number)),
        )

    def _champion(self, name: str) -> int:
        entry = self._artifacts.alias("model", name, CHAMPION)
        return entry.version if entry else self._artifacts.get("model", name).ref.version


def open_store(location: str | Path = "data", *, source: str = "", calendar: str = NEW_YORK) -> StoredFrames:
    """The store at a path or a URL (s3://, gs://, az://), of a market; of `source="simulated"` that exchange's part.

    Raises NotStored where nothing is there, StoreError.
    """
    return StoredFrames(open_root(root_of(str(location), source, calendar)))
