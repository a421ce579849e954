import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from volcast.models.panel import make_panel
from volcast.models.recipes import VolumeRecipe, make_recipe, stored_recipe
from volcast.models.tutorial import from_bytes
from volcast.models.volume_inputs import volume_data
from volcast.models.volume_model import volume_from_bytes

DATA = Path(__file__).parent / "data"


def answers_of(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("path", sorted(DATA.glob("tutorial_*.safetensors")), ids=lambda path: path.stem)
def test_a_nowcaster_saved_by_an_earlier_release_loads_and_says_the_same(path: Path) -> None:
    answers = answers_of(path)
    nowcaster = from_bytes(path.read_bytes(), make_recipe(**answers["recipe"]))
    prices_NF = torch.tensor(answers["prices"], dtype=torch.float64)
    assert nowcaster.predict(prices_NF) == pytest.approx(answers["volume_shares"], rel=1e-5)


@pytest.mark.parametrize("path", sorted(DATA.glob("volume_*.safetensors")), ids=lambda path: path.stem)
def test_a_forecaster_saved_by_an_earlier_release_loads_and_says_the_same(path: Path) -> None:
    answers = answers_of(path)
    recipe = stored_recipe(answers["recipe"])
    assert isinstance(recipe, VolumeRecipe)
    events = pd.DataFrame(answers["announcements"]).astype({"announced_for": "M8[s]", "first_seen": "M8[s]"})
    prices = pd.DataFrame(answers["prices"]).astype({"session": "M8[s]"})
    data = volume_data(make_panel(prices, events), events, recipe)
    model = volume_from_bytes(path.read_bytes(), recipe)
    said = model.forecast(data.inputs, data.newest - [1, 0])
    np.testing.assert_allclose(said.quantiles_NCHQ, answers["quantiles_NCHQ"], rtol=1e-5)
    np.testing.assert_allclose(said.mean_NCH, answers["mean_NCH"], rtol=1e-5)


def test_there_is_a_saved_model_of_each_recipe_and_release() -> None:
    assert sorted(path.stem for path in DATA.glob("*.safetensors")) == ["tutorial_0.1.0", "volume_0.1.0"]
