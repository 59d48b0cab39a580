"""What lies between products, against numpy: plain torch, or with TRITON_INTERPRET=1 the
kernels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from oracles.packed_matrices import DEVICE

from subllm.kernels.products.triton.operands import KvPlanes, Rotation, Scores, SeenKeys
from subllm.kernels.products.triton_ops import (
    activate,
    greedy,
    norm,
    paged_attention,
    rotate_and_store,
)

Array = npt.NDArray[np.float64]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32)).to(
        DEVICE
    )


def close(got: torch.Tensor, want: Array, atol: float = 2e-6) -> None:
    np.testing.assert_allclose(got.double().cpu().numpy(), want, rtol=2e-5, atol=atol)


@pytest.mark.parametrize("size", [1, 5, 70, 896])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_norm(size: int, layer_norm: bool) -> None:
    x, add, weight, bias = normal(3, size), normal(3, size, seed=1), normal(size), normal(size)
    wide = (x.double() + add.double()).cpu().numpy()
    centred = wide - wide.mean(-1, keepdims=True) if layer_norm else wide
    want = (
        centred
        / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        * weight.double().cpu().numpy()
    )
    if layer_norm:
        want = want + bias.double().cpu().numpy()
    got = norm(x, weight, 1e-5, bias=bias if layer_norm else None, add=add)
    close(got, want, 1e-5)
    close(x, wide)  # the stream took it up


def test_norm_by_hand() -> None:
    got = norm(torch.tensor([[3.0, -4.0]]), torch.tensor([2.0, 1.0]), 0.0)
    close(got, np.array([[6.0, -4.0]]) / math.sqrt(12.5))


@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("gated", [True, False])
def test_activate(kind: str, gated: bool) -> None:
    x = normal(3, 74) * 3
    wide = x.double().cpu().numpy()
    gate, up = (wide[:, :37], wide[:, 37:]) if gated else (wide, np.ones(1))
    if kind == "silu":
        active = gate / (1 + np.exp(-gate))
    elif kind == "gelu":
        active = gate * 0.5 * (1 + np.vectorize(math.erf)(gate / math.sqrt(2)))
    else:
        inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
        active = gate * 0.5 * (1 + np.tanh(inner))
    close(activate(x, kind, gated=gated), active * up)  # type: ignore[arg-type]


def test_activate_by_hand() -> None:
    assert activate(torch.tensor([[0.0, 100.0, 5.0, 2.0]]), "silu").tolist() == [[0.0, 200.0]]


def rotation(positions: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    angles = np.arange(positions)[:, None] * 100.0 ** (-np.arange(0, dim, 2) / dim)
    return torch.from_numpy(np.cos(angles, dtype=np.float32)).to(DEVICE), torch.from_numpy(
        np.sin(angles, dtype=np.float32)
    ).to(DEVICE)


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 2, 8), (3, 1, 10), (7, 7, 64)])
@pytest.mark.parametrize("normed", [False, True])
def test_rotate_and_store(heads: int, kv_heads: int, dim: int, normed: bool) -> None:
    qkv, weight = normal(3, heads + 2 * kv_heads, dim), normal(heads + kv_heads, dim, seed=2)
    cos, sin = rotation(30, dim)
    positions, slots = torch.tensor([7, 0, 29]), torch.tensor([5, -1, 2])
    before = qkv.double().cpu().numpy().copy()
    heads_in = before[:, : heads + kv_heads].copy()
    if normed:
        scale = np.sqrt((heads_in**2).mean(-1, keepdims=True) + 1e-5)
        heads_in = heads_in / scale * weight.double().cpu().numpy()
    first, second = heads_in[..., : dim // 2], heads_in[..., dim // 2 :]
    c, s = (t.double().cpu().numpy()[positions.cpu().numpy()][:, None] for t in (cos, sin))
    want = np.concatenate((first * c - second * s, second * c + first * s), -1)
    keys, values = (torch.full((2, 4, kv_heads, dim), 9.0) for _ in range(2))
    rotate_and_store(
        *(qkv, positions, slots, Rotation(cos, sin, weight if normed else None, 1e-5)),
        KvPlanes(keys, values),
    )
    close(qkv[:, :heads], want[:, :heads])
    for row, slot in ((0, 5), (2, 2)):
        close(keys.flatten(0, 1)[slot], want[row, heads:])
        close(values.flatten(0, 1)[slot], before[row, heads + kv_heads :])
    untouched = [0, 1, 3, 4, 6, 7]
    assert (keys.flatten(0, 1)[untouched] == 9).all()
    assert (values.flatten(0, 1)[untouched] == 9).all()


def attention(
    q: Array, k: Array, v: Array, scale: float, window: int | None, cap: float | None
) -> Array:
    """One query [heads, dim] over keys and values [length, kv_heads, dim]."""
    group = q.shape[0] // k.shape[1]
    if window is not None:
        k, v = k[-window:], v[-window:]
    out = np.zeros_like(q)
    for head in range(q.shape[0] if len(k) else 0):
        scores = k[:, head // group] @ q[head] * scale
        if cap is not None:
            scores = np.tanh(scores / cap) * cap
        shares = np.exp(scores - scores.max())
        out[head] = shares @ v[:, head // group] / shares.sum()
    return out


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "block"), [(4, 2, 8, 4), (3, 1, 20, 16), (2, 2, 64, 16)]
)
@pytest.mark.parametrize(("window", "cap"), [(None, None), (5, None), (None, 2.0), (9, 1.0)])
def test_paged_attention(
    heads: int, kv_heads: int, dim: int, block: int, window: int | None, cap: float | None
) -> None:
    """Blocks anywhere, lengths of all kinds, NaN in what was never written."""
    lengths = [1, block, 2 * block + 3, 0, 3 * block]
    rng, blocks = np.random.default_rng(3), 12
    q = normal(len(lengths), heads, dim)
    keys, values = (
        normal(blocks, block, kv_heads, dim),
        normal(blocks, block, kv_heads, dim, seed=1),
    )
    tables = torch.full((len(lengths), 4), -1, dtype=torch.int32)
    order, wants = rng.permutation(blocks).tolist(), []
    for row, length in enumerate(lengths):
        mine = [order.pop() for _ in range(-(-length // block))]
        tables[row, : len(mine)] = torch.tensor(mine, dtype=torch.int32)
        k, v = (t[mine].flatten(0, 1)[:length].double().cpu().numpy() for t in (keys, values))
        wants.append(attention(q[row].double().cpu().numpy(), k, v, 0.3, window, cap))
        if length % block:
            keys[mine[-1], length % block :] = torch.nan
            values[mine[-1], length % block :] = torch.nan
    got = paged_attention(
        q,
        KvPlanes(keys, values),
        SeenKeys(tables, torch.tensor(lengths, dtype=torch.int32)),
        Scores(0.3, window, cap),
    )
    close(got, np.stack(wants))


def test_paged_attention_by_hand() -> None:
    """Two keys of which the second weighs three times the first."""
    keys = torch.tensor([[[[0.0]], [[math.log(3.0)]]]])
    values = torch.tensor([[[[8.0]], [[4.0]]]])
    tables, lengths = torch.zeros((1, 1), dtype=torch.int32), torch.tensor([2], dtype=torch.int32)
    kv, seen = KvPlanes(keys, values), SeenKeys(tables, lengths)
    got = paged_attention(torch.ones(1, 1, 1), kv, seen, Scores(1.0))
    assert got.item() == pytest.approx(8 / 4 + 4 * 3 / 4)


@pytest.mark.parametrize("vocab", [1, 5, 1000, 3001])
def test_greedy(vocab: int) -> None:
    logits = torch.round(normal(6, vocab) * 2)  # ties
    logits[1, vocab // 2] = torch.nan
    logits[2] = torch.nan
    logits[3, -1] = torch.inf
    logits[4] = -torch.inf
    want = []
    for row in logits.cpu().numpy():
        clean = np.where(np.isnan(row), -np.inf, row)
        best = int(np.argmax(clean))
        want.append(best if np.isfinite(clean[best]) else -1)
    assert greedy(logits).tolist() == want
