"""Devices as torch knows them, and what goes wrong with them in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from subllm.engine.cards import why_unusable
from subllm.errors import DeviceError

_SERVING = "lower the context length or the number of parallel requests, unload another model"
_AS_TORCH_SAYS = ("CUDA error", "CUDA driver error", "HIP error", "cuDNN error", "CUBLAS_STATUS")


def pick_device(device: str) -> torch.device:
    """Raises DeviceError for a device that torch does not know or this machine does not have."""
    try:
        picked = torch.device(device)
        torch.empty(1, device=picked).cpu()  # an absent one shows only when it is used
    except (RuntimeError, AssertionError) as error:
        if device.partition(":")[0] == "cuda":
            reason = (
                f"{device} is not usable here: {why_unusable(str(error))}; "
                "choose cpu (--device or SUBLLM_DEVICE)"
            )
        else:
            reason = f"device {device!r} is unknown here; use auto, cpu or cuda"
        raise DeviceError(reason) from error
    return picked


@contextmanager
def failures(device: torch.device, what: str, advice: str = _SERVING) -> Iterator[None]:
    """Turns what a device fails with into DeviceError; `what` did not fit where that is it, and
    `advice` says what else to do. Other errors pass."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(_no_room(device, what, advice)) from error
    except RuntimeError as error:
        if "out of memory" in str(error) or "CUBLAS_STATUS_ALLOC_FAILED" in str(error):
            raise DeviceError(_no_room(device, what, advice)) from error
        if device.type != "cuda" or not any(word in str(error) for word in _AS_TORCH_SAYS):
            raise
        raise DeviceError(
            f"{device} failed: {why_unusable(str(error))}; what runs elsewhere goes on"
        ) from error


def _no_room(device: torch.device, what: str, advice: str) -> str:
    return (
        f"there is no memory left on {device} for {what}; {advice}, or choose cpu (--device or "
        "SUBLLM_DEVICE)"
    )
