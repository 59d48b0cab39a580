"""The device that blocks run on."""

from __future__ import annotations

import torch

from subllm.engine.cards import find_cards
from subllm.engine.choice import named
from subllm.engine.placement import Card
from subllm.errors import DeviceError, UsageError
from subllm.making.extraction.card import card_for, too_small

END_OTHERS = (
    "end what else uses it and give the same command again, which goes on from what was saved"
)
"""What to do where its memory runs out meanwhile."""
_CPU = torch.device("cpu")


def choose_device(name: str, needed: int = 0) -> torch.device:
    """The device alone of `choose_card`."""
    return choose_card(name, needed)[0]


def choose_card(name: str, needed: int = 0) -> tuple[torch.device, Card | None]:
    """ "auto" is the GPU with the most free memory where that has `needed` bytes, else the CPU.
    None for that. Raises UsageError for anything but auto, cpu, cuda and cuda:N, for a device
    that this machine does not have, and for one that was asked for and is too small."""
    try:
        device = None if name == "auto" else torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device is not None and device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N")
    if device == _CPU or (device is not None and device.type == "cpu"):
        return _CPU, None
    cards = find_cards()
    if device is None:
        found = card_for(cards.usable, needed)
        return (_CPU, None) if found is None else (torch.device(found.device), found)
    if not cards.usable:
        why = f" that works ({cards.problem})" if cards.problem else ""
        raise UsageError(f"no CUDA device on this machine{why}; use --device cpu")
    try:
        asked = named(cards, name)
    except DeviceError as error:
        raise UsageError(str(error)) from error
    found = card_for(asked, needed)
    if found is None:
        raise too_small(asked, needed)
    return torch.device(found.device), found
