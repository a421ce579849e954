"""Weights that come with volcast: trained before on many tickers, for whoever has few of them, or little history.

Each vintage knows nothing after its last session, so that there is one for the tests of past years, too: a training
takes the newest that has seen none of the sessions that it is tested on. `benchmarks/pretrain.py` makes them.
"""

import json
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from volcast.models.recipes import VolumeRecipe, stored_recipe
from volcast.models.text import counted
from volcast.models.volume_model import VolumeModel, volume_from_bytes

FOLDER, PROVENANCE = "pretrained", "provenance.json"
SHAPE = ("cell", "hidden_size", "head_size", "market", "adaptation", "rare_dates")  # what a recipe must have as they do


@dataclass(frozen=True, kw_only=True)
class Vintage:
    """Weights, and what they were made of."""

    file: str
    last_session: date  # the last one that they have seen
    tickers: int
    loss: float  # mean pinball loss of the members on the sessions that stopped them
    recipe: VolumeRecipe

    @property
    def words(self) -> str:
        """What they are, in a clause."""
        return f"weights pretrained on {counted(self.tickers, 'ticker')} of real prices up to {self.last_session}"

    def model(self, recipe: VolumeRecipe) -> VolumeModel:
        """The first members, as many as the recipe has. Raises WrongWeights."""
        model = volume_from_bytes((files("volcast.models") / FOLDER / self.file).read_bytes(), self.recipe)
        del model.members[recipe.members :]
        if not recipe.linear_share:
            model.linear = None
        return model


def vintage_for(recipe: VolumeRecipe, *, through: date) -> Vintage | None:
    """The newest vintage that a training of this recipe up to `through` may start from; None for none."""
    if recipe.start != "pretrained":
        return None
    fitting = [
        vintage
        for vintage in vintages()
        if vintage.last_session <= through
        and vintage.recipe.members >= recipe.members
        and all(getattr(vintage.recipe, name) == getattr(recipe, name) for name in SHAPE)
    ]
    return max(fitting, key=lambda vintage: vintage.last_session, default=None)


@cache
def vintages() -> tuple[Vintage, ...]:
    """All that there are."""
    provenance: dict[str, Any] = json.loads((files("volcast.models") / FOLDER / PROVENANCE).read_text())
    return tuple(_vintage(own) for own in provenance["vintages"])


def _vintage(own: dict[str, Any]) -> Vintage:
    recipe = stored_recipe(own["recipe"])
    assert isinstance(recipe, VolumeRecipe)
    last_session = date.fromisoformat(own["last_session"])
    return Vintage(file=own["file"], last_session=last_session, tickers=own["tickers"], loss=own["loss"], recipe=recipe)
