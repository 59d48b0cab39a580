"""What `attention` launches."""

from __future__ import annotations

import triton
import triton.language as tl

from subllm.kernels.products.triton.rows import tanh


@triton.jit
def rotate_kernel(
    qkv, positions, cos, sin, slots, keys, values, qk_norm,
    heads, kv_heads, half, token_stride, head_stride, cache_stride, cache_head_stride, eps,
    HALF: tl.constexpr,
):  # fmt: skip
    """Program (t, h): a head of a token, queries before keys before values. `half` is half of a
    head's size, HALF a power of two up from it."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    lane = tl.arange(0, HALF)
    inside = lane < half
    own = qkv + token * token_stride + head * head_stride
    first = tl.load(own + lane, mask=inside, other=0).to(tl.float32)
    second = tl.load(own + half + lane, mask=inside, other=0).to(tl.float32)
    slot = tl.load(slots + token).to(tl.int64)
    stored = inside & (lane * 0 + slot >= 0)
    if head >= heads + kv_heads:
        at = values + slot * cache_stride + (head - heads - kv_heads) * cache_head_stride
        tl.store(at + lane, first, mask=stored)
        tl.store(at + half + lane, second, mask=stored)
    else:
        if qk_norm is not None:
            mean = (tl.sum(first * first) + tl.sum(second * second)) / (2 * half)
            scale = 1.0 / tl.sqrt(mean + eps)
            weight = qk_norm + head * 2 * half
            first *= scale * tl.load(weight + lane, mask=inside, other=0)
            second *= scale * tl.load(weight + half + lane, mask=inside, other=0)
        angle = tl.load(positions + token).to(tl.int64) * half + lane
        c = tl.load(cos + angle, mask=inside, other=0)
        s = tl.load(sin + angle, mask=inside, other=0)
        left, right = first * c - second * s, second * c + first * s
        if head < heads:
            tl.store(own + lane, left, mask=inside)
            tl.store(own + half + lane, right, mask=inside)
        else:
            at = keys + slot * cache_stride + (head - heads) * cache_head_stride
            tl.store(at + lane, left, mask=stored)
            tl.store(at + half + lane, right, mask=stored)


@triton.jit
def attention_kernel(
    queries, keys, values, tables, lengths, partial, peaks, totals,
    group, dim, block_size, scale, window, softcap,
    row_stride, head_stride, table_stride, place_stride, cache_head_stride, parts, heads,
    GROUP: tl.constexpr, DIM: tl.constexpr, PART: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Program (r, h, p): the query heads of key head h of row r over keys PART * p and on: a
    weighted sum of values, the largest score and the sum of weights."""
    row, kv_head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + row)
    oldest = 0 if window is None else tl.maximum(length - window, 0)
    first, last = tl.maximum(part * PART, oldest), tl.minimum(part * PART + PART, length)
    member, lane = tl.arange(0, GROUP), tl.arange(0, DIM)
    ours, wide = member < group, lane < dim
    head = kv_head * group + member
    at = row.to(tl.int64) * row_stride + head[:, None] * head_stride + lane[None, :]
    both = ours[:, None] & wide[None, :]
    query = tl.load(queries + at, mask=both, other=0).to(tl.float32)
    peak = tl.full((GROUP,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP,), tl.float32)
    summed = tl.zeros((GROUP, DIM), tl.float32)
    for turn in range(PART // STEP):
        place = part * PART + turn * STEP + tl.arange(0, STEP)
        seen = (place >= first) & (place < last)
        if part * PART + turn * STEP < last:
            block = tl.load(tables + row * table_stride + place // block_size, mask=seen, other=0)
            slot = block.to(tl.int64) * block_size + place % block_size
            where = slot[:, None] * place_stride + kv_head * cache_head_stride + lane[None, :]
            shown = seen[:, None] & wide[None, :]
            key = tl.load(keys + where, mask=shown, other=0).to(tl.float32)
            value = tl.load(values + where, mask=shown, other=0).to(tl.float32)
            score = tl.sum(query[:, None, :] * key[None, :, :], 2) * scale
            if softcap is not None:
                score = tanh(score / softcap) * softcap
            score = tl.where(seen[None, :], score, float("-inf"))
            higher = tl.maximum(peak, tl.max(score, 1))
            base = tl.where(higher == float("-inf"), 0.0, higher)
            fade = tl.exp(peak - base)
            weight = tl.exp(score - base[:, None])
            total = total * fade + tl.sum(weight, 1)
            summed = summed * fade[:, None] + tl.sum(weight[:, :, None] * value[None, :, :], 1)
            peak = higher
    index = (row.to(tl.int64) * heads + head) * parts + part
    tl.store(peaks + index, peak, mask=ours)
    tl.store(totals + index, total, mask=ours)
    tl.store(partial + index[:, None] * dim + lane[None, :], summed, mask=both)


@triton.jit
def gather_kernel(
    partial, peaks, totals, lengths, out, heads, dim, parts, row_stride, head_stride,
    DIM: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """Program (r, h): the parts of a head, one after the other; none behind the length."""
    row, head = tl.program_id(0), tl.program_id(1)
    lane = tl.arange(0, DIM)
    inside = lane < dim
    index = (row.to(tl.int64) * heads + head) * parts
    count = (tl.load(lengths + row) + PART - 1) // PART
    peak = float("-inf")
    total = 0.0
    summed = tl.zeros((DIM,), tl.float32)
    for part in range(count):
        own = tl.load(peaks + index + part)
        higher = tl.maximum(peak, own)
        base = tl.where(higher == float("-inf"), 0.0, higher)
        fade, share = tl.exp(peak - base), tl.exp(own - base)
        total = total * fade + tl.load(totals + index + part) * share
        more = tl.load(partial + (index + part) * dim + lane, mask=inside, other=0)
        summed = summed * fade + more * share
        peak = higher
    summed = tl.where(total + lane * 0 > 0, summed / tl.maximum(total, 1e-30), 0.0)
    tl.store(out + row.to(tl.int64) * row_stride + head * head_stride + lane, summed, mask=inside)
