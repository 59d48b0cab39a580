"""What computes a model, and where: what was asked for, held against what this machine has."""

from __future__ import annotations

from subllm.engine.backends.table import BackendName, backend_for, check_device
from subllm.engine.cards import Cards, find_cards, has_bitsandbytes, has_kernels
from subllm.engine.placement import (
    CPU,
    PACKED_CAPABILITY,
    Card,
    Demand,
    Form,
    Placement,
    given,
    on_processor,
    place,
)
from subllm.errors import DeviceError

PACKED: BackendName = "cuda"
"""The one that computes on packed weights on a card."""


def choose_placement(
    demand: Demand, backend: BackendName, device: str, cards: Cards | None = None
) -> tuple[BackendName, Placement]:
    """The backend by name, and where it puts the model. cards: None for those of this machine,
    which are looked at where a card may be meant. Raises BackendError for a backend that
    does not compute on the device, DeviceError where a GPU that was asked for is not usable or
    has no room."""
    if backend != "auto":
        check_device(backend, device)
    if device == CPU or backend == "native":
        return backend_for(CPU) if backend == "auto" else backend, given(CPU)
    cards = find_cards() if cards is None else cards
    if device == "auto":
        usable = cards.usable
        if not usable and backend != PACKED:
            chosen = backend_for(CPU) if backend == "auto" else backend
            broken = on_processor(demand, cards.problem, slow=True)
            return chosen, broken if cards.problem else given(CPU)
    else:
        usable = named(cards, device)
    if not usable:
        why = cards.problem or "this machine shows none"
        raise DeviceError(f"no GPU is usable here ({why}); choose cpu (--device or SUBLLM_DEVICE)")
    if backend == PACKED and not has_kernels():
        raise DeviceError(
            "the cuda backend's kernels are compiled by triton, which is not installed; install "
            "it with 'pip install triton', or use --backend torch"
        )
    must = device != "auto" or backend == PACKED
    placement = place(demand, usable, forms_of(backend, must=must), must=must)
    if placement.device == CPU:
        return backend_for(CPU) if backend == "auto" else backend, placement
    return PACKED if placement.form == "packed" else "torch", placement


def choose_backend(backend: BackendName, device: str) -> BackendName:
    """The backend that a model gets which fits. Raises BackendError for one that does not
    compute on the device."""
    if backend != "auto":
        check_device(backend, device)
        return backend
    if device == "auto":
        cards = find_cards().usable
        if not cards:
            return backend_for(CPU)
        if not any(card.capability >= PACKED_CAPABILITY for card in cards):
            return "torch"
        device = "cuda"
    return backend_for(device)


def named(cards: Cards, device: str) -> tuple[Card, ...]:
    """Those that "cuda" or "cuda:N" means. Raises DeviceError for a number that is not there."""
    number = device.partition(":")[2]
    if not number or not cards.usable:
        return cards.usable
    found = tuple(card for card in cards.usable if card.device == device)
    if not found:
        here = ", ".join(card.device for card in cards.usable)
        raise DeviceError(f"there is no {device} here that works, only {here}")
    return found


def forms_of(backend: BackendName, *, must: bool) -> tuple[Form, ...]:
    """How weights may lie on a card, in the order in which that is tried."""
    if backend == PACKED:
        return ("packed",)
    packed: tuple[Form, ...] = ("packed",) if has_kernels() else ()
    rounded: tuple[Form, ...] = ("int8", "nf4") if has_bitsandbytes() else ()
    split: tuple[Form, ...] = ("split",) if must else ()
    return (*(packed if backend == "auto" else ()), "bf16", *rounded, *split)
