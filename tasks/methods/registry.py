"""Which method goes with which recipe."""

from typing import TYPE_CHECKING, Any

from models.recipes import Recipe, TutorialRecipe, make_recipe

if TYPE_CHECKING:
    from tasks.methods.method import Method


def method_of(recipe: Recipe, name: str | None = None) -> "Method":
    """The method of a recipe, whose models are registered under `name` or, without one, the recipe's.

    Methods are imported here, so that settings can be checked without torch.
    """
    if isinstance(recipe, TutorialRecipe):
        from tasks.methods.tutorial import TutorialMethod

        return TutorialMethod(recipe, name)
    from tasks.methods.volume import VolumeMethod

    return VolumeMethod(recipe, name)


def method_from(settings: dict[str, Any]) -> "Method":
    """The method of a recipe that was stored by its settings. Raises UnknownRecipe."""
    return method_of(make_recipe(**settings))
