"""The next-token loss on top of the last block, and its gradient there."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from subllm.models.weights.reader import WeightReader

# Rows of the head decoded at a time.
_HEAD_ROWS = 16384
# Tokens whose logits exist at once: with gradients some 160 MB at 152k tokens of vocabulary.
TOKENS = 64


class HeadLoss:
    """Final norm, head and cross-entropy. The head is whole in memory, in the dtype of the
    blocks; logits never are."""

    def __init__(
        self, reader: WeightReader, norm: nn.Module, device: torch.device, dtype: torch.dtype
    ) -> None:
        spec = reader.spec
        self._norm = norm.requires_grad_(False)
        self._softcap = spec.final_softcap
        self._head = torch.empty(spec.vocab_size, spec.hidden_size, dtype=dtype, device=device)
        for start in range(0, spec.vocab_size, _HEAD_ROWS):
            stop = min(start + _HEAD_ROWS, spec.vocab_size)
            rows = reader.rows(spec.head_name, np.arange(start, stop, dtype=np.int64))
            self._head[start:stop] = torch.from_numpy(rows)
        reader.release()

    def __call__(self, hidden: torch.Tensor, tokens: torch.Tensor) -> tuple[float, torch.Tensor]:
        """hidden: the last block's outputs [sequences, length, hidden_size], on the device;
        tokens int64 [sequences, length]. Returns the loss in nats, summed over tokens[:, 1:],
        and its gradient by `hidden`, in its dtype."""
        with torch.enable_grad():
            hidden = hidden.detach().requires_grad_()
            normed = self._norm(hidden)
            states = normed[:, :-1].reshape(-1, hidden.shape[-1])
            gold = tokens[:, 1:].reshape(-1).to(hidden.device)
            upstream = torch.empty_like(states)
            total = 0.0
            for start in range(0, len(states), TOKENS):
                part = states[start : start + TOKENS].detach().requires_grad_()
                loss = self._loss(part, gold[start : start + TOKENS])
                (upstream[start : start + TOKENS],) = torch.autograd.grad(loss, part)
                total += float(loss.detach())
            (gradient,) = torch.autograd.grad(states, hidden, upstream)
        return total, gradient

    def _loss(self, states: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
        logits = states @ self._head.T
        if logits.dtype != torch.float64:
            logits = logits.float()
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return torch.nn.functional.cross_entropy(logits, gold, reduction="sum")
