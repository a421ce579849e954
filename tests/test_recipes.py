import json

import pytest

from models.errors import UnknownRecipe
from models.recipes import TutorialRecipe, digest, make_recipe, settings


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


def test_settings_come_back_from_json_as_the_same_recipe() -> None:
    recipe = make_recipe("tutorial", features=("open", "close"), window_sessions=None, fit_scalers_on="all")
    assert make_recipe(**json.loads(json.dumps(settings(recipe)))) == recipe


def test_equal_recipes_have_equal_digests_and_any_change_shows() -> None:
    assert digest(TutorialRecipe()) == digest(make_recipe("tutorial", epochs=1000))
    assert digest(TutorialRecipe()) != digest(make_recipe("tutorial", epochs=999))
    assert len(digest(TutorialRecipe())) == 64
