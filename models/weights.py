"""What both recipes' networks share: tensors as safetensors bytes, device and threads, and the epochs' losses."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from volcast.models import arrays
from volcast.models.errors import DeviceUnavailable, WrongWeights
from volcast.models.text import listed

Module = TypeVar("Module", bound=nn.Module)
Found = TypeVar("Found")
EpochLoss = tuple[int, float]


def to_bytes(module: nn.Module, facts: dict[str, str] | None = None) -> bytes:
    """Weights and buffers, each in its own dtype; equal tensors give equal bytes. `facts` stand in the header."""
    return save({name: tensor.contiguous().cpu() for name, tensor in module.state_dict().items()}, metadata=facts)


def shapes_of(data: bytes) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that `to_bytes` saved. Raises WrongWeights."""
    return {name: tuple(tensor.shape) for name, tensor in _tensors(data).items()}


def load_exactly(module: Module, data: bytes) -> Module:
    """`module` with the tensors that `to_bytes` saved, on the CPU and in evaluation mode.

    Raises WrongWeights unless names, shapes and dtypes are exactly the module's own.
    """
    came = _tensors(data)
    expected_kinds, came_kinds = _kinds(module.state_dict()), _kinds(came)
    if came_kinds != expected_kinds:
        raise WrongWeights(
            f"These are not the tensors of {type(module).__name__}. "
            f"Expected and not there: {_listed(expected_kinds - came_kinds)}. "
            f"There and not expected: {_listed(came_kinds - expected_kinds)}. "
            "Load them with the recipe that they were trained with."
        )
    broken = [name for name, tensor in came.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise WrongWeights(f"Expected numbers in every tensor; {_listed(set(broken))}: not a number, or infinite.")
    module.load_state_dict(came, assign=True)
    return module.eval()


def _tensors(data: bytes) -> dict[str, Tensor]:
    try:
        return load(data)
    except SafetensorError as error:
        raise WrongWeights(f"The {len(data)} bytes are not safetensors: {error}. Save the model again.") from error


def _kinds(tensors: dict[str, Tensor]) -> set[str]:
    return {f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors.items()}


def _listed(kinds: set[str]) -> str:
    return listed(sorted(kinds), joint="; ") or "none"


def choose_device(choice: str) -> torch.device:
    """The device for "auto" (CUDA if torch sees it, else the CPU), "cpu" or "cuda".

    Raises DeviceUnavailable for "cuda" on a machine without it, and for any other word.
    """
    if choice not in ("auto", "cpu", "cuda"):
        raise DeviceUnavailable(f"--device must be auto, cpu or cuda; {choice!r} came.")
    if choice == "cpu" or (choice == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceUnavailable(
            f"--device cuda was asked for, but torch sees no CUDA device on this machine (torch {torch.__version__}). "
            "Use --device auto or cpu."
        )
    return torch.device("cuda", torch.cuda.current_device())


def describe_device(device: torch.device) -> str:
    """The device for a reader: "cpu", or "cuda (NVIDIA H200)"."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


THREADS = torch.get_num_threads()  # as many parts of a large computation are worked on side by side


def side_by_side(work: Callable[..., Found], *parts: Iterable[Any], most: int = THREADS) -> Iterator[Found]:
    """What the work gives of each part, in their order; so many parts at a time, each on one of torch's threads.

    Of large arrays (models/arrays.py) nothing stays in memory that only a part of the work was about.
    """

    def done(*part: Any) -> Found:
        found = work(*part)
        arrays.let_go()
        return found

    with ThreadPoolExecutor(most, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(done, *parts)


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes on one CPU thread, in the whole process: these networks are too small to share out.

    Where others keep the cores busy, threads wait for each other at each of thousands of small steps: a forecast of
    five tickers took 48 s so, and takes 0.02 s on one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
