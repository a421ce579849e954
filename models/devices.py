"""Where a model is trained: the CPU, or a CUDA device when there is one."""

from typing import Literal

import torch

from models.errors import DeviceUnavailable

DeviceChoice = Literal["auto", "cpu", "cuda"]


def choose_device(choice: DeviceChoice | str) -> torch.device:
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
