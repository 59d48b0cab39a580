"""The device that blocks run on."""

from __future__ import annotations

import torch

from subllm.errors import UsageError


def choose_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one. Raises UsageError for anything but auto, cpu,
    cuda and cuda:N, and for a device that this machine does not have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError("no CUDA device on this machine; use --device cpu")
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise UsageError(f"there is no {name} here, only cuda:0 to cuda:{count - 1}")
    return device
