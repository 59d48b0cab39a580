"""Where a model is put, and in what form: arithmetic on sizes, before anything is loaded.

A form is how weights lie in a device's memory: "packed" as they are in their file, "bf16"
unpacked, "int8" and "nf4" unpacked and rounded on load, "split" unpacked with the last layers
kept in the CPU's memory and copied for every step. What takes least from quality is tried first,
each on the card with the most free memory; where nothing fits, the processor computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from subllm.errors import DeviceError
from subllm.models.arch.kv_size import kv_bytes
from subllm.models.arch.spec import ArchSpec
from subllm.models.store.manifest import ModelManifest
from subllm.quantities import size_text

Form = Literal["packed", "bf16", "int8", "nf4", "split"]

CPU = "cpu"
RESERVED = 512 << 20
"""Bytes that a card keeps for kernels, activations and what its libraries take."""
PACKED_CAPABILITY = (8, 0)
"""Compute capability from which on the packed kernels run: those before multiply no bfloat16."""
_NF4_BITS = 4.5  # a code, and a float32 for 64 of them
_KV_CONTEXTS = 8  # that keys and values may take, where there is room


@dataclass(frozen=True)
class Card:
    """A GPU: total and free memory in bytes, compute capability as (major, minor)."""

    index: int
    name: str
    total: int
    free: int
    capability: tuple[int, int] = (8, 0)

    @property
    def device(self) -> str:
        return f"cuda:{self.index}"

    def __str__(self) -> str:
        return (
            f"{self.device} ({self.name}, {size_text(self.free)} of {size_text(self.total)} free)"
        )


@dataclass(frozen=True)
class Demand:
    """What a model takes.

    packed   bytes of its file
    blocks   weights of its blocks, embedding and head left out
    rows     output rows of the blocks' matrices
    ends     weights of embedding and head, a tied one counted once
    layers   blocks
    largest  weights of the largest matrix of a block
    kv       bytes of keys and values of one context of `context` tokens
    dense    whether it is a base as it is: only those are rounded on load
    values   how its file holds weights
    """

    name: str
    packed: int
    blocks: int
    rows: int
    ends: int
    layers: int
    largest: int
    kv: int
    context: int
    dense: bool
    values: str

    @classmethod
    def of(cls, manifest: ModelManifest, packed: int, context: int, kv_type: str) -> Demand:
        """Raises WeightsError for an architecture that cannot be read."""
        spec = ArchSpec.from_dict(manifest.arch)
        end = spec.vocab_size * spec.hidden_size
        return cls(
            name=manifest.name,
            packed=packed,
            blocks=spec.num_layers * spec.block_params(),
            rows=spec.num_layers * sum(linear.out_features for linear in spec.linears),
            ends=end if spec.tied_head else 2 * end,
            layers=spec.num_layers,
            largest=max(lin.out_features * lin.in_features for lin in spec.linears),
            kv=kv_bytes(spec, context, kv_type),
            context=context,
            dense=manifest.pattern == "dense",
            values=manifest.values,
        )

    def weights(self, form: Form) -> int:
        """Bytes of all weights in this form, on whatever memory."""
        ends = 2 * self.ends
        if form == "packed":
            return self.packed
        if form == "int8":
            return self.blocks + 4 * self.rows + ends
        if form == "nf4":
            return int(self.blocks * _NF4_BITS / 8) + ends
        return 2 * self.blocks + ends

    def working(self, form: Form) -> int:
        """Bytes beside weights and keys: a card's reserve, and a matrix or two in bfloat16 where
        one is unpacked, rounded or copied on the way."""
        return RESERVED + (0 if form == "bf16" else 4 * self.largest)

    def needed(self, form: Form) -> int:
        return self.weights(form) + self.kv + self.working(form)


@dataclass(frozen=True)
class Placement:
    """A device by torch's name, a form, and a line that says what was chosen and why; empty where
    there was no choice.

    kv_room  bytes that keys and values may come to take there; None: no bound of its own
    layers   blocks that stay on the card; None: all
    slow     whether the line is a warning
    """

    device: str
    form: Form
    why: str
    kv_room: int | None = None
    layers: int | None = None
    slow: bool = False


def given(device: str, form: Form = "bf16") -> Placement:
    """As asked for, nothing computed."""
    return Placement(device, form, "")


def on_processor(demand: Demand, reason: str, *, slow: bool = False) -> Placement:
    return Placement(CPU, "packed", f"{demand.name} runs on the processor: {reason}", slow=slow)


def place(
    demand: Demand, cards: Sequence[Card], forms: Sequence[Form], *, must: bool = False
) -> Placement:
    """The first of `forms` that a card has room for, on the one with the most free memory.

    Rounded forms are for dense models only, "packed" for cards of PACKED_CAPABILITY. The
    processor where nothing fits, or, where a card is a `must`, DeviceError that says what is
    missing.
    """
    tried = [form for form in forms if demand.dense or form not in ("int8", "nf4")]
    best = sorted(cards, key=lambda card: (-card.free, card.index))
    for form in tried:
        for card in best:
            if not _runs(form, card):
                continue
            if form == "split":
                if (found := _split(demand, card)) is not None:
                    return found
            elif demand.needed(form) <= card.free:
                return _whole(demand, card, form, tried)
    reason = _too_small(demand, best, [form for form in tried if form != "split"])
    if must:
        raise DeviceError(
            f"{demand.name} cannot be loaded: {reason}; free some of it, choose a smaller "
            "--context-length or model, or cpu (--device or SUBLLM_DEVICE)"
        )
    return on_processor(demand, reason)


def _runs(form: Form, card: Card) -> bool:
    return form != "packed" or card.capability >= PACKED_CAPABILITY


def _whole(demand: Demand, card: Card, form: Form, forms: Iterable[Form]) -> Placement:
    left = card.free - demand.weights(form) - demand.working(form)
    room = max(demand.kv, min(left, _KV_CONTEXTS * demand.kv))
    sizes = f"{size_text(demand.weights(form))} + {_context(demand)}"
    if form == "packed":
        said = f"packed, {sizes}"
    elif form == "bf16":
        said = f"unpacked to bf16, {sizes}"
    else:
        again = " (a second time: its file is int4)" if demand.values == "int4" else ""
        said = (
            f"rounded to {form.upper()} on load{again}, {sizes}, because "
            f"{size_text(demand.needed('bf16'))} in bf16 do not fit"
        )
    return Placement(card.device, form, f"{demand.name} runs on {card}: {said}", kv_room=room)


def _split(demand: Demand, card: Card) -> Placement | None:
    """As many layers on the card as fit beside the rest; None where not even one layer at a time
    does."""
    layer = 2 * demand.blocks // demand.layers
    fixed = 2 * demand.ends + demand.kv + demand.working("split") + layer  # one passes through
    layers = min(demand.layers, (card.free - fixed) // layer)
    if layers < 0:
        return None
    copied = size_text((demand.layers - layers) * layer)
    return Placement(
        card.device,
        "split",
        f"{demand.name} is larger than {card}: {layers} of its {demand.layers} layers stay there, "
        f"the others ({copied}) are copied for every token, which is slow; --device cpu is "
        "usually faster",
        kv_room=demand.kv,
        layers=layers,
        slow=True,
    )


def _too_small(demand: Demand, cards: Sequence[Card], forms: Sequence[Form]) -> str:
    usable = [(form, card) for form in forms for card in cards if _runs(form, card)]
    if not usable:
        names = ", ".join(card.name for card in cards)
        need = ".".join(map(str, PACKED_CAPABILITY))
        return f"the packed kernels need compute capability {need}, which {names} has not"
    form, card = min(usable, key=lambda pair: (demand.needed(pair[0]), -pair[1].free))
    return (
        f"{size_text(demand.weights(form))} ({form}) + {_context(demand)} + "
        f"{size_text(demand.working(form))} to work in do not fit {card}"
    )


def _context(demand: Demand) -> str:
    return f"{size_text(demand.kv)} for a context of {demand.context:,}"
