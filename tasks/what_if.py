"""What a forecast would be if a company announced its earnings on another date; nothing of it is stored.

The network that made a forecast is asked again, with the announcements changed and everything else as it was: a date is
added, as if it had become known at the cutoff, taken out, or moved. A date that is added less than ten sessions from a
known one counts as its new date, as models/earnings_features.py has it.
"""

from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import pandas as pd

from volcast.models.panel import EARNINGS, is_earnings
from volcast.models.recipes import VolumeRecipe
from volcast.storage.artifacts import ArtifactStore
from volcast.storage.records import ForecastBatch
from volcast.storage.store import open_store
from volcast.tasks.reports.views import forecast_frame
from volcast.tasks.settings import Supposition
from volcast.tasks.snapshot import rows_of, universes
from volcast.tasks.stored_models import read_model


class NothingToSuppose(ValueError):
    """A supposition that says nothing of the forecast; the message says what would."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WhatIf:
    """The forecast of a ticker, and what it would be."""

    supposition: Supposition
    real: pd.DataFrame  # rows of `forecast_frame`, by h
    supposed: pd.DataFrame

    @property
    def facts(self) -> dict[str, Any]:
        """For a program."""
        frames = {"real": self.real, "supposed": self.supposed}
        return {"supposition": self.supposition.words} | {
            name: frame.to_dict("records") for name, frame in frames.items()
        }


def what_if(batch: ForecastBatch, supposition: Supposition) -> WhatIf:
    """Both forecasts of the supposition's ticker. Raises NothingToSuppose, and what reading a model does."""
    ticker, snapshot, model = supposition.ticker, batch.snapshot, batch.model
    real = forecast_frame(batch)
    real = real.loc[real["unique_id"] == ticker]
    if real.empty:
        raise NothingToSuppose(f"--what-if: the forecast has no {ticker}.")
    if model is None:
        raise NothingToSuppose(f"--what-if: {batch.by} forecasts, which knows nothing of announced earnings.")
    artifacts = ArtifactStore(open_store(snapshot.store))
    method, predictor = read_model(artifacts, model.artifact.name, model.artifact.version)
    if not (snapshot.uses_earnings and isinstance(method.recipe, VolumeRecipe) and method.recipe.use_earnings):
        raise NothingToSuppose("--what-if: this forecast is made without announced earnings.")
    (universe,) = [rows for rows, tickers in universes(snapshot, model) if ticker in tickers]
    rows = rows_of(universe)
    changed = supposing(rows.announcements, supposition, cutoff=snapshot.cutoff)
    frame = method.forecast(method.prepare(replace(rows, announcements=changed)), predictor)
    supposed = frame.loc[frame["unique_id"] == ticker]
    return WhatIf(supposition=supposition, real=real, supposed=supposed)


def supposing(known: pd.DataFrame, supposition: Supposition, *, cutoff: date) -> pd.DataFrame:
    """The announcements, as `EventTable.events` gives them, with the supposed change. Raises NothingToSuppose."""
    ticker, gone, new = supposition.ticker, supposition.gone, supposition.new
    is_own = (known["ticker"] == ticker) & is_earnings(known)
    own = known.loc[is_own, "announced_for"].dt.date
    if gone is not None and gone not in set(own):
        ahead = sorted(day for day in own if day > cutoff)
        dates = f"Known to come: {', '.join(map(str, ahead))}." if ahead else "No date to come is known."
        raise NothingToSuppose(f"--what-if: no earnings of {ticker} are announced for {gone}. {dates}")
    if new is not None and new <= cutoff:
        raise NothingToSuppose(f"--what-if: {new} must be after the cutoff {cutoff}.")
    kept = known.loc[~is_own | (known["announced_for"].dt.date != gone)]
    if new is None:
        return kept
    added = {
        "ticker": ticker,
        "announced_for": pd.Timestamp(new),
        "when": supposition.when,
        "first_seen": pd.Timestamp(cutoff),
        "first_seen_assumed": False,
        "source": "supposed",
        **({"kind": EARNINGS} if "kind" in known else {}),
    }
    return pd.concat([kept, pd.DataFrame([added])], ignore_index=True).astype(known.dtypes.to_dict())
