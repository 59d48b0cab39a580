"""The GPUs of this machine, and why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from subllm.engine.placement import Card

_DRIVER_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl", "/dev/kfd")


@dataclass(frozen=True)
class Cards:
    """Those that can be used now; `problem`: why others, or all, cannot, in a line; empty where
    nothing is wrong, or there is none."""

    usable: tuple[Card, ...] = ()
    problem: str = ""


def find_cards() -> Cards:
    """Importing torch costs seconds and a hundred megabytes, so it is asked only where a driver
    shows a device. Nothing is raised: what is wrong is told."""
    if not any(Path(node).exists() for node in _DRIVER_NODES):
        return Cards()
    try:
        import torch
    except ImportError as error:
        return Cards(problem=f"torch cannot be imported ({error})")
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        count = torch.cuda.device_count()
    except (RuntimeError, AssertionError) as error:
        return Cards(problem=why_unusable(str(error)))
    found, problem = [], "" if count else "torch sees none (is CUDA_VISIBLE_DEVICES empty?)"
    for index in range(count):
        try:
            free, total = torch.cuda.mem_get_info(index)
            about = torch.cuda.get_device_properties(index)
            # What this process had and keeps for later is its to use.
            free += torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
        except RuntimeError as error:  # a lost one must not hide the others
            problem = f"cuda:{index}: {why_unusable(str(error))}"
            continue
        # Nobody has seen the kernels on AMD's cards, whose numbers mean something else.
        capability = (0, 0) if torch.version.hip else (about.major, about.minor)
        found.append(Card(index, about.name, total, free, capability))
    return Cards(tuple(found), problem)


def why_unusable(message: str) -> str:
    """In our words, what torch says when it cannot use a card."""
    first = message.strip().partition("\n")[0]
    if "too old" in message or "driver version is insufficient" in message:
        return f"the NVIDIA driver is too old for this torch; update the driver ({first})"
    if "not compiled with CUDA" in message:
        return "this torch was built without CUDA; install one that has it from pytorch.org"
    if "no NVIDIA driver" in message or "no CUDA-capable device" in message:
        return "no NVIDIA driver answers; is it loaded (nvidia-smi)?"
    if "lost" in message or "fallen off" in message or "unspecified launch failure" in message:
        return (
            f"the card was lost; restart the server, or the machine if that does not help ({first})"
        )
    return first


def has_kernels() -> bool:
    """Whether the packed kernels can be compiled here. Asked where there is a card."""
    if find_spec("triton") is None:
        return False
    try:
        from subllm.kernels.products.triton import plain
        from subllm.kernels.products.triton_ops import implementation

        return implementation("cuda") is not plain
    except (ImportError, RuntimeError):
        return False


def has_bitsandbytes() -> bool:
    return find_spec("bitsandbytes") is not None
