"""Who takes part in a test: the list of every forecaster of volume, the leading one first."""

from collections.abc import Callable

import torch

from models.forecasters import Forecaster
from models.har import Har
from models.naive import naive_forecasters
from models.recipes import VolumeRecipe
from models.training import silent
from models.volume_training import VolumeForecaster

REFERENCE = "har"  # the forecaster to beat


def forecasters(
    *,
    seed: int,
    device: torch.device,
    recipe: VolumeRecipe | None = None,
    on_epoch: Callable[[int, float], None] = silent,
) -> tuple[Forecaster, ...]:
    """The forecasters of a test, unfitted; all arguments are for the one that trains networks."""
    network = VolumeForecaster(recipe or VolumeRecipe(), seed=seed, device=device, on_epoch=on_epoch)
    return (network, *baselines())


def baselines() -> tuple[Forecaster, ...]:
    """Those that train no network, the one to beat first."""
    return (Har(), *naive_forecasters())
