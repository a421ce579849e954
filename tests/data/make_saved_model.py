"""Save a model as the present release does: python tests/data/make_saved_model.py 0.1.0

One pair of files a release; a later release must load all of them and say the same.
"""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_features import synthetic_prices

from models.features import build_features, tensors
from models.recipes import make_recipe, settings
from models.scaling import fit_scaler
from models.training import fit
from models.weights import to_bytes

ROWS = 20


def main() -> None:
    """Train on the synthetic prices of the tests, and keep weights, recipe, inputs and answers."""
    recipe = make_recipe("tutorial")
    frame = build_features(synthetic_prices(), recipe)
    fitted = fit(frame, recipe, scaler=fit_scaler(frame, recipe), seed=0, device=torch.device("cpu"))
    x_NF = tensors(frame, recipe)[0][:ROWS]
    path = Path(__file__).parent / f"tutorial_{sys.argv[1]}.safetensors"
    path.write_bytes(to_bytes(fitted.nowcaster))
    answers = {
        "recipe": settings(recipe),
        "prices": x_NF.tolist(),
        "volume_shares": fitted.nowcaster.predict(x_NF).tolist(),
    }
    path.with_suffix(".json").write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
