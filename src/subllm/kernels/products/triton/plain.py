"""The operations of `kernels.triton_ops` in plain torch, on any device: slow, obvious, and
what the Triton kernels are held to beside numpy. Arguments and results as told there."""

from __future__ import annotations

import torch

from subllm.kernels.products.triton.operands import KvPlanes, Rotation, Scores, SeenKeys
from subllm.kernels.products.triton.planes import NIBBLES, DevicePacked
from subllm.kernels.sparsity.layout import GROUP, SUB, SUPER


def codes(weight: DevicePacked) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes float32 [128 * groups, stride] as stored, and bool alike: which are kept."""
    device, stride, cols = weight.device, weight.stride, weight.groups * GROUP
    if weight.mask is None:
        bits = torch.ones((cols, stride), dtype=torch.int32, device=device)
    else:
        shifts = torch.arange(SUB, device=device)[:, None]
        bits = (weight.mask[:, None] >> shifts & 1).reshape(cols, stride)
    width = {"dense": GROUP, "nm": 16, "n32": SUB, "rows": GROUP}[weight.form]
    by_piece = bits.view(-1, width, stride)
    rank = (by_piece.cumsum(1) - by_piece).view(cols, stride)
    piece = torch.arange(cols, device=device)[:, None] // width
    if weight.starts is not None:
        index = weight.starts[piece[:, 0]] + rank
        return torch.where(bits.bool(), _flat_values(weight, index), 0), bits.bool()
    index = torch.where(bits.bool(), piece * weight.kept + rank, 0)
    return torch.where(bits.bool(), _plane_values(weight, index), 0), bits.bool()


def _plane_values(weight: DevicePacked, index: torch.Tensor) -> torch.Tensor:
    """Values [cols, stride] at `index` of each row's values, all groups counted."""
    per_group = weight.kept * {"dense": 1, "nm": 8, "n32": 4, "rows": 0}[weight.form]
    if weight.values != "int4":
        return weight.codes.flatten(0, 1).gather(0, index).float()
    group, place = index // per_group, index % per_group
    flat = weight.codes.flatten(0, 1)
    words = flat.gather(0, group * weight.codes.shape[1] + place // NIBBLES)
    return (words >> 4 * (place % NIBBLES) & 15).float()


def _flat_values(weight: DevicePacked, index: torch.Tensor) -> torch.Tensor:
    last = len(weight.codes) * (NIBBLES if weight.values == "int4" else 1) - 1
    index = index.clamp(max=last).to(torch.int64)  # dropped weights point anywhere
    if weight.values != "int4":
        return weight.codes[index].float()
    return (weight.codes[index // NIBBLES] >> 4 * (index % NIBBLES) & 15).float()


def expand(weight: DevicePacked) -> torch.Tensor:
    """float32 [rows, cols], the same bits as `sparsity.packing.unpack`."""
    rows, cols = weight.shape
    found, bits = codes(weight)
    if weight.scales is not None:
        scales = weight.scales.float()
        if weight.values == "int8":
            found = found * scales.repeat_interleave(GROUP, 0)
        else:
            assert weight.subscales is not None
            wide = scales.repeat_interleave(SUPER // SUB, 0)[: len(weight.subscales)]
            steps = (wide * weight.subscales.float()).repeat_interleave(SUB, 0)
            if weight.terms == 2:
                found = steps[:, 0] * found - steps[:, 1]
            else:
                found = steps[:, 0] * torch.where(bits, found - 8, 0)
    return (found[:cols, :rows] + 0.0).T.contiguous()  # no -0


def packed_matmul(
    x: torch.Tensor,
    weight: DevicePacked,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    product = x.float() @ expand(weight).T
    if bias is not None:
        product += bias
    if residual is not None:
        product += residual.float()
    out.copy_(product)


def norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    eps: float,
    add: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    if add is not None:
        x.copy_(x.float() + add.float())
    wide = x.float()
    if bias is not None:
        normed = torch.nn.functional.layer_norm(wide, (wide.shape[-1],), weight, bias, eps)
    else:
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight
    out.copy_(normed)


def rotate_and_store(
    qkv: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    rotation: Rotation,
    kv: KvPlanes,
) -> None:
    kv_heads = kv.keys.shape[2]
    heads = qkv.shape[1] - 2 * kv_heads
    rotated = qkv[:, : heads + kv_heads]
    wide = rotated.float()
    if rotation.qk_norm is not None:
        mean = wide.square().mean(-1, keepdim=True)
        wide = wide * torch.rsqrt(mean + rotation.eps) * rotation.qk_norm
    first, second = wide.chunk(2, dim=-1)
    c, s = (table[positions.long()][:, None] for table in (rotation.cos, rotation.sin))
    rotated.copy_(torch.cat((first * c - second * s, second * c + first * s), dim=-1))
    kept = slots >= 0
    at = slots[kept].long()
    kv.keys.flatten(0, 1)[at] = rotated[kept, heads:].to(kv.keys.dtype)
    kv.values.flatten(0, 1)[at] = qkv[kept, heads + kv_heads :].to(kv.values.dtype)


def activate(x: torch.Tensor, kind: str, gated: bool, out: torch.Tensor) -> None:
    gate, up = x.float().chunk(2, dim=-1) if gated else (x.float(), None)
    if kind == "silu":
        active = torch.nn.functional.silu(gate)
    else:
        approximate = "tanh" if kind == "gelu_tanh" else "none"
        active = torch.nn.functional.gelu(gate, approximate=approximate)
    out.copy_(active if up is None else active * up)


def paged_attention(
    queries: torch.Tensor,
    kv: KvPlanes,
    seen: SeenKeys,
    scores: Scores,
    out: torch.Tensor,
) -> None:
    tables, lengths, window = seen.tables, seen.lengths, scores.window
    group = queries.shape[1] // kv.keys.shape[2]
    room = tables.shape[1] * kv.keys.shape[1]
    places = torch.arange(room, device=queries.device)
    hidden = places >= lengths[:, None]
    if window is not None:
        hidden |= places < lengths[:, None] - window
    blocks = tables.long().clamp(min=0)
    k = kv.keys[blocks].flatten(1, 2).float().repeat_interleave(group, 2)  # [B, room, heads, dim]
    v = kv.values[blocks].flatten(1, 2).float().repeat_interleave(group, 2)
    v = v.masked_fill(hidden[:, :, None, None], 0)  # what was never written may be NaN
    found = torch.einsum("bhd,bthd->bht", queries.float(), k) * scores.scale
    if scores.softcap is not None:
        found = torch.tanh(found / scores.softcap) * scores.softcap
    found = found.masked_fill(hidden[:, None], float("-inf"))
    peak = found.amax(-1, keepdim=True)
    shares = torch.where(hidden[:, None], 0, (found - peak.clamp(min=-3e38)).exp())
    total = shares.sum(-1, keepdim=True).clamp(min=1e-30)
    out.copy_(torch.einsum("bht,bthd->bhd", shares / total, v))


def greedy(logits: torch.Tensor, out: torch.Tensor) -> None:
    clean = logits.float().nan_to_num(-torch.inf, torch.inf, -torch.inf)
    peak = clean.amax(-1)
    first = (clean == peak[:, None]).to(torch.uint8).argmax(-1)  # the lowest of equal ones
    out.copy_(torch.where(peak.isfinite(), first, -1))
