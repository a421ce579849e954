import json
import math
from dataclasses import fields
from typing import Any

import pytest
from pydantic import ValidationError

from volcast.models.errors import UnknownRecipe
from volcast.models.recipes import (
    OLD_SETTINGS,
    TutorialRecipe,
    VolumeRecipe,
    digest,
    make_recipe,
    settings,
    stored_recipe,
)
from volcast.tasks.settings import TrainingSettings


def test_the_tutorial_recipe_is_the_articles_except_for_the_leak() -> None:
    recipe = make_recipe("tutorial")
    assert recipe.features == ("open", "high", "low", "close", "adj_close")
    assert (recipe.target, recipe.horizon) == ("volume", 0)
    assert (recipe.window_sessions, recipe.train_sessions) == (253, 200)
    assert (recipe.hidden_size, recipe.layers, recipe.head_size) == (2, 1, 128)
    assert (recipe.epochs, recipe.learning_rate, recipe.log_every_epochs) == (1000, 0.001, 100)
    assert recipe.fit_scalers_on == "train"


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownRecipe, match=r"no recipe 'volumes'. Known recipes: tutorial, volume"):
        make_recipe("volumes")


def test_an_unknown_setting_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownRecipe, match=r"no setting epoch\. Its settings: name, features, .*epochs"):
        make_recipe("tutorial", epoch=5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fit_scalers_on", "test"),
        ("features", ()),
        ("features", ("open", "open")),
        ("features", ("open", "volume")),
        ("epochs", 0),
        ("epochs", 10**9),
        ("epochs", 10.0),
        ("hidden_size", True),
        ("train_sessions", 19),
        ("learning_rate", 0.0),
        ("learning_rate", "0.001"),
        ("window_sessions", 200),
        ("horizon", 1),
        ("target", "close"),
    ],
)
def test_a_setting_that_is_not_allowed_is_named_with_its_value(setting: str, value: object) -> None:
    with pytest.raises(UnknownRecipe, match=f"{setting} must be .*came"):
        make_recipe("tutorial", **{setting: value})


@pytest.mark.parametrize("setting", [each.name for each in fields(VolumeRecipe) if each.type is int])
def test_every_count_of_the_volume_recipe_has_an_upper_limit(setting: str) -> None:
    with pytest.raises(UnknownRecipe, match=f"{setting} must be a whole number from [01] to [0-9,]+; 1000000000 came"):
        make_recipe("volume", **{setting: 10**9})


@pytest.mark.parametrize("value", [math.inf, math.nan, 0.0, 1e9])
def test_a_gradient_clip_that_clips_nothing_or_everything_is_refused(value: float) -> None:
    with pytest.raises(UnknownRecipe, match=r"gradient_clip must be above 0, up to .* came"):
        make_recipe("volume", gradient_clip=value)


def test_a_whole_number_does_where_a_number_is_asked_for() -> None:
    recipe = make_recipe("volume", dropout=0, gradient_clip=1)
    assert recipe == make_recipe("volume", dropout=0.0, gradient_clip=1.0)
    assert digest(recipe) == digest(make_recipe("volume", dropout=0.0))


def test_a_recipe_of_release_0_1_0_loads_and_keeps_its_digest() -> None:
    """Its settings as that release stored them, and the digests that it gave."""
    later = ("validate_every_steps", *OLD_SETTINGS)
    stored = {name: value for name, value in settings(VolumeRecipe()).items() if name not in later}
    old: dict[str, Any] = dict(OLD_SETTINGS)
    recipe = stored_recipe(stored | {"log_every_steps": 50})
    assert recipe == VolumeRecipe(**old)
    assert digest(recipe) == "3f5f98fd68496304d7873f9e6c6ffe4bff64739b05a2ae7ec39a819a82979a55"
    other = stored_recipe(stored | {"log_every_steps": 10})
    assert other == VolumeRecipe(**old, validate_every_steps=10)
    assert digest(other) == "c59c8504667587a5d4c5dd71a6091a044884812f66c504257e2efaf24865bc51"
    assert digest(VolumeRecipe()) != digest(recipe)
    assert stored_recipe(settings(VolumeRecipe())) == VolumeRecipe()
    assert digest(TutorialRecipe()) == "9d41a75f4bfa01ad17ef7cfa6684c28f5dd4dc24c207cdd2070631e8719205c1"


def test_settings_come_back_from_json_as_the_same_recipe() -> None:
    recipe = make_recipe("tutorial", features=("open", "close"), window_sessions=None, fit_scalers_on="all")
    assert make_recipe(**json.loads(json.dumps(settings(recipe)))) == recipe


def test_equal_recipes_have_equal_digests_and_any_change_shows() -> None:
    assert digest(TutorialRecipe()) == digest(make_recipe("tutorial", epochs=1000))
    assert digest(TutorialRecipe()) != digest(make_recipe("tutorial", epochs=999))
    assert len(digest(TutorialRecipe())) == 64


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused_before_anything_runs(seed: int) -> None:
    with pytest.raises(ValidationError, match="seed"):
        TrainingSettings(seed=seed)
