"""A module's tensors as safetensors bytes, and back into a module that must fit them exactly."""

from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from models.errors import WrongWeights
from models.words import listed

Module = TypeVar("Module", bound=nn.Module)


def to_bytes(module: nn.Module) -> bytes:
    """Weights and buffers, each in its own dtype; equal tensors give equal bytes."""
    return save({name: tensor.contiguous().cpu() for name, tensor in module.state_dict().items()})


def load_exactly(module: Module, data: bytes) -> Module:
    """`module` with the tensors that `to_bytes` saved, on the CPU and in evaluation mode.

    Raises WrongWeights unless names, shapes and dtypes are exactly the module's own.
    """
    try:
        came = load(data)
    except SafetensorError as error:
        raise WrongWeights(f"The {len(data)} bytes are not safetensors: {error}. Save the model again.") from error
    expected_kinds, came_kinds = _kinds(module.state_dict()), _kinds(came)
    if came_kinds != expected_kinds:
        raise WrongWeights(
            f"These are not the tensors of {type(module).__name__}. "
            f"Expected and not there: {_listed(expected_kinds - came_kinds)}. "
            f"There and not expected: {_listed(came_kinds - expected_kinds)}. "
            "Load them with the recipe that they were trained with."
        )
    module.load_state_dict(came, assign=True)
    return module.eval()


def _kinds(tensors: dict[str, Tensor]) -> set[str]:
    return {f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors.items()}


def _listed(kinds: set[str]) -> str:
    return listed(sorted(kinds), joint="; ") or "none"
