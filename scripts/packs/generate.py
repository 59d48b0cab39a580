"""Batched sampling from a transformers model on the CPU, one text per prompt.

A fixed number of slots decode together; a slot whose text ends takes the next
prompt, so that every matrix product stays wide (narrow ones waste the CPU). Each
prompt draws from its own random stream, whatever slot it lands in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from answers import Sampling
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

ATTENTION_NAME = "grouped_slots"
CANDIDATES = 64  # top_p is applied inside the most likely CANDIDATES tokens
REFILL = 8  # prompts prefilled together, when that many slots are free


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [B, heads, T, D]
    key: torch.Tensor,  # [B, kv_heads, S, D]
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention that never repeats keys and values for the heads that share them.

    One decoded token: the heads of a group are the query's rows. A prompt: causal.
    """
    batch, heads, length, dim = query.shape
    if length == 1:
        rows = query.view(batch, key.shape[1], -1, dim)
        out = torch.nn.functional.scaled_dot_product_attention(
            rows, key, value, attn_mask=attention_mask, scale=scaling
        ).view(batch, heads, 1, dim)
    else:
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=True
        )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION_NAME, grouped_attention)


@dataclass
class Finished:
    """The text of prompt number `index`; `ended` is False where `max_new` cut it."""

    index: int
    tokens: list[int]
    ended: bool


@dataclass
class _Slot:
    index: int
    rng: np.random.Generator
    length: int  # tokens in the cache
    tokens: list[int] = field(default_factory=list)


class SlotCache:
    """Keys and values of all slots in two buffers per layer, [slots, kv_heads, room, D]."""

    is_compileable = False

    def __init__(self, layers: int, slots: int, kv_heads: int, room: int, dim: int) -> None:
        shape = (slots, kv_heads, room, dim)
        self.keys = [torch.zeros(shape, dtype=torch.bfloat16) for _ in range(layers)]
        self.values = [torch.zeros(shape, dtype=torch.bfloat16) for _ in range(layers)]
        self.rows = torch.arange(slots)
        self.positions = torch.zeros(slots, dtype=torch.long)
        self.visible = 0

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store one token per slot at its own position; return what is visible."""
        keys, values = self.keys[layer], self.values[layer]
        keys[self.rows, :, self.positions] = key[:, :, 0]
        values[self.rows, :, self.positions] = value[:, :, 0]
        return keys[:, :, : self.visible], values[:, :, : self.visible]

    def load(self, slot: int, row: int, length: int, prefill: DynamicCache) -> None:
        """Copy the first `length` positions of a prefilled row into a slot."""
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            keys[slot, :, :length] = prefill.layers[layer].keys[row, :, :length]
            values[slot, :, :length] = prefill.layers[layer].values[row, :, :length]

    def get_seq_length(self, *_: Any) -> int:
        return self.visible


class Generator:
    """Samples texts for many prompts with `slots` of them in flight."""

    def __init__(
        self, model: PreTrainedModel, stop_ids: frozenset[int], sampling: Sampling, slots: int
    ) -> None:
        self.model = model.eval()
        self.model.set_attn_implementation(ATTENTION_NAME)
        self.stop_ids = stop_ids
        self.sampling = sampling
        self.slots = slots

    @torch.inference_mode()
    def run(self, prompts: Sequence[tuple[int, list[int]]]) -> Iterator[Finished]:
        """Yields a Finished per (index, token ids), in the order in which they end."""
        config = self.model.config
        dim = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        room = max(len(ids) for _, ids in prompts) + self.sampling.max_new
        cache = SlotCache(
            config.num_hidden_layers, self.slots, config.num_key_value_heads, room, dim
        )
        waiting = list(reversed(prompts))
        active: dict[int, _Slot] = {}
        while waiting or active:
            free = [s for s in range(self.slots) if s not in active]
            while waiting and len(free) >= min(REFILL, self.slots, len(waiting)):
                taken = [waiting.pop() for _ in range(min(REFILL, len(waiting), len(free)))]
                yield from self._prefill(taken, free, active, cache)
                free = [s for s in range(self.slots) if s not in active]
            if active:
                yield from self._step(active, cache)

    def _prefill(
        self,
        taken: Sequence[tuple[int, list[int]]],
        free: Sequence[int],
        active: dict[int, _Slot],
        cache: SlotCache,
    ) -> Iterator[Finished]:
        """Run prompts padded on the right (causal: the padding is never seen)."""
        longest = max(len(ids) for _, ids in taken)
        batch = torch.zeros((len(taken), longest), dtype=torch.long)
        for row, (_, ids) in enumerate(taken):
            batch[row, : len(ids)] = torch.tensor(ids)
        prefill = DynamicCache()
        mask = torch.zeros((1, 1, 1, 1))  # four dimensions: taken as it is, so no mask is built
        hidden = self.model.model(
            input_ids=batch, attention_mask=mask, cache=prefill, use_cache=True
        )[0]
        last = torch.stack([hidden[row, len(ids) - 1] for row, (_, ids) in enumerate(taken)])
        slots = []
        for row, (index, ids) in enumerate(taken):
            rng = np.random.Generator(np.random.PCG64([self.sampling.seed, index]))
            cache.load(free[row], row, len(ids), prefill)
            active[free[row]] = _Slot(index, rng, len(ids))
            slots.append(free[row])
        yield from self._sample(slots, last, active)

    def _step(self, active: dict[int, _Slot], cache: SlotCache) -> Iterator[Finished]:
        """Decode one token in every active slot."""
        slots = sorted(active)
        lengths = torch.tensor([active[s].length for s in slots])
        full = len(slots) == self.slots
        rows = torch.tensor(slots)
        view = cache if full else _narrow(cache, rows)
        view.positions = lengths
        view.visible = int(lengths.max()) + 1
        mask = torch.zeros((len(slots), 1, 1, view.visible), dtype=torch.bfloat16)
        mask.masked_fill_(
            torch.arange(view.visible)[None, None, None] > lengths[:, None, None, None],
            float("-inf"),
        )
        ids = torch.tensor([[active[s].tokens[-1]] for s in slots])
        hidden = self.model.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=lengths[:, None],
            cache=view,
            use_cache=True,
        )[0][:, 0]
        for slot in slots:
            active[slot].length += 1
        yield from self._sample(slots, hidden, active)

    def _sample(
        self, slots: Sequence[int], hidden: torch.Tensor, active: dict[int, _Slot]
    ) -> Iterator[Finished]:
        logits = self.model.lm_head(hidden)
        values, tokens = logits.topk(CANDIDATES)
        scaled = values.float() / self.sampling.temperature
        probs = torch.softmax(scaled, dim=-1)
        before = probs.cumsum(-1) - probs
        probs = torch.where(before < self.sampling.top_p, probs, 0.0)
        bounds = (probs.cumsum(-1) / probs.sum(-1, keepdim=True)).double().numpy()
        for row, slot in enumerate(slots):
            state = active[slot]
            pick = int(np.searchsorted(bounds[row], state.rng.random(), side="right"))
            token = int(tokens[row, min(pick, CANDIDATES - 1)])
            ended = token in self.stop_ids
            if not ended:
                state.tokens.append(token)
            if ended or len(state.tokens) >= self.sampling.max_new:
                del active[slot]
                yield Finished(state.index, state.tokens, ended)


class _Narrowed(SlotCache):
    """A few rows of a SlotCache: writes go through, reads gather the rows."""

    def __init__(self, cache: SlotCache, rows: torch.Tensor) -> None:
        self.keys, self.values, self.rows = cache.keys, cache.values, rows

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = super().update(key, value, layer)
        return keys[self.rows], values[self.rows]


def _narrow(cache: SlotCache, rows: torch.Tensor) -> _Narrowed:
    return _Narrowed(cache, rows)
