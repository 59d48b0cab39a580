"""The choice of a token by parameters that lie on the device, in torch: a sort and sums along the
order are what its libraries do well, and the rest is a few operations that a CUDA graph takes in.

Agrees with `engine.sampler`, which defines it. All sums are float64.
"""

from __future__ import annotations

import torch

from subllm.kernels.products.triton.operands import Bias, Penalties


def adjust(
    logits: torch.Tensor,
    bias: Bias | None,
    penalties: Penalties | None,
    allowed: torch.Tensor | None,
) -> None:
    vocab = logits.shape[1]
    if bias is not None:
        # A column more takes what names no token.
        more = torch.zeros((len(logits), vocab + 1), dtype=logits.dtype, device=logits.device)
        at = torch.where(bias.ids >= 0, bias.ids, vocab).long()
        more.scatter_(1, at, bias.values.to(logits.dtype))
        logits += more[:, :vocab]
    if penalties is not None:
        history = penalties.history
        place = torch.arange(history.shape[1], device=logits.device)
        within = place < penalties.lengths[:, None]
        seen = _counts(history, within, vocab) > 0
        penalty = penalties.repetition[:, None]
        changed = torch.where(logits > 0, logits / penalty, logits * penalty)
        logits.copy_(torch.where(seen, changed, logits))
        written = within & (place >= penalties.prompt_lengths[:, None])
        counts = _counts(history, written, vocab)
        often = penalties.frequency[:, None] * counts
        changed = logits - penalties.presence[:, None] - often
        logits.copy_(torch.where(counts > 0, changed, logits))
    if allowed is not None:
        token = torch.arange(vocab, device=logits.device)
        words = allowed[:, torch.clamp(token // 32, max=allowed.shape[1] - 1)]
        bit = (words >> token % 32 & 1).bool() & (token < 32 * allowed.shape[1])
        logits.masked_fill_(~bit, float("-inf"))


def _counts(tokens: torch.Tensor, which: torch.Tensor, vocab: int) -> torch.Tensor:
    """float32 [rows, vocab]: how often each token is among those."""
    counts = torch.zeros((len(tokens), vocab + 1), dtype=torch.int32, device=tokens.device)
    index = torch.where(which, tokens, vocab).long()
    return counts.scatter_add_(1, index, torch.ones_like(index, dtype=torch.int32))[
        :, :vocab
    ].float()


def sample(
    logits: torch.Tensor,
    temperatures: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    uniforms: torch.Tensor,
    out: torch.Tensor,
) -> None:
    vocab = logits.shape[1]
    clean = logits.float().nan_to_num(-torch.inf, torch.inf, -torch.inf)
    ordered, ids = clean.sort(dim=-1, descending=True, stable=True)
    peak = ordered[:, :1].double()
    temperature = torch.where(temperatures > 0, temperatures, 1).double()
    weights = ((ordered.double() - peak) / temperature[:, None]).exp()
    place = torch.arange(vocab, device=logits.device)
    count = torch.where(top_k > 0, top_k.clamp(max=vocab), vocab).long()
    weights = torch.where(place < count[:, None], weights, 0)
    mass = weights.cumsum(-1)
    top_p, min_p = top_p.double()[:, None], min_p.double()[:, None]
    reached = (mass < top_p * mass[:, -1:]).sum(-1) + 1
    count = torch.minimum(count, torch.where(top_p[:, 0] < 1, reached, vocab))
    likely = (weights >= min_p * weights[:, :1]).sum(-1)
    count = torch.minimum(count, torch.where(min_p[:, 0] > 0, likely, vocab))
    last = (count - 1).clamp(min=0)[:, None]
    target = uniforms.double()[:, None] * mass.gather(1, last)
    index = torch.minimum((mass <= target).sum(-1, keepdim=True), last)
    index = torch.where(temperatures[:, None] > 0, index, 0)
    token = torch.where(peak.isfinite(), ids.gather(1, index), -1)
    out.copy_(token[:, 0])
