"""Who takes part in a test: the list of every forecaster of volume, the leading one first."""

import torch

from models.forecasters import Forecaster
from models.har import Har
from models.naive import naive_forecasters

REFERENCE = "har"  # the forecaster to beat


def forecasters(*, seed: int, device: torch.device) -> tuple[Forecaster, ...]:  # noqa: ARG001 (for a network's fit)
    """The forecasters of a test, unfitted; `seed` and `device` are for those that train a network."""
    return (Har(), *naive_forecasters())
