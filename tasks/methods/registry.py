"""Which method goes with which recipe."""

from collections.abc import Callable
from typing import Any

from models.recipes import Recipe, make_recipe
from tasks.methods.protocol import Method
from tasks.methods.tutorial import TutorialMethod
from tasks.methods.volume import VolumeMethod

METHODS: dict[str, Callable[[Any, str | None], Method]] = {"tutorial": TutorialMethod, "volume": VolumeMethod}


def method_of(recipe: Recipe, name: str | None = None) -> Method:
    """The method of a recipe, whose models are registered under `name` or, without one, the recipe's."""
    return METHODS[recipe.name](recipe, name)


def method_from(settings: dict[str, Any]) -> Method:
    """The method of a recipe that was stored by its settings. Raises UnknownRecipe."""
    return method_of(make_recipe(**settings))
