import json
from pathlib import Path

import pytest
import torch

from models.lstm import from_bytes
from models.recipes import make_recipe

SAVED = sorted((Path(__file__).parent / "data").glob("*.safetensors"))


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_a_model_saved_by_an_earlier_release_loads_and_says_the_same(path: Path) -> None:
    answers = json.loads(path.with_suffix(".json").read_text())
    nowcaster = from_bytes(path.read_bytes(), make_recipe(**answers["recipe"]))
    prices_NF = torch.tensor(answers["prices"], dtype=torch.float64)
    assert nowcaster.predict(prices_NF) == pytest.approx(answers["volume_shares"], rel=1e-5)


def test_there_is_a_saved_model_of_each_release() -> None:
    assert [path.stem for path in SAVED] == ["tutorial_0.1.0"]
