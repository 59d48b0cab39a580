"""Packed files whose header and sizes are right and whose planes are made up."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuzz.packed_bytes import split
from subllm.kernels.sparsity.container import METADATA, Entry, TableRow, encode_header, planes_of
from subllm.kernels.sparsity.layout import (
    ALIGN,
    BITS,
    TILE_COLS,
    VALUES,
    Geometry,
    elements,
    padded,
)
from subllm.kernels.sparsity.mask import pack_bits_reference
from subllm.kernels.sparsity.pattern import Pattern

PATTERNS = ("dense", "8:16", "2:4", "1:4", "31:32", "50%", "3%", "99.99%")
MASK_LIES = ("none", "spills", "one more", "moved", "full", "noise")
OFFSET_LIES = ("none", "less", "more", "swap", "zero", "huge")
MOST_VALUES = 1 << 20  # bytes of a values plane that is made up


@dataclass
class _Part:
    """One tensor of a file that is put together anew."""

    name: str
    dtype: str
    raw: bytes
    shape: tuple[int, ...]


def remake(rng: random.Random, whole: bytes, _: bytes) -> bytes:
    """Some matrices in another pattern and value type, every size right, contents made up:
    what only the masks, the offsets and the kernels themselves can notice."""
    header, data = split(whole)
    rows: dict[str, Any] = json.loads(header.pop(METADATA)["table"])
    table = {
        name: TableRow(tuple(row["shape"]), row["pattern"], row["values"])
        for name, row in rows.items()
    }
    remade = {n for n in table if rng.random() < rng.choice([0.1, 0.5, 1.0])}
    remade = remade or {rng.choice(list(table))} if table else set()
    liar = rng.choice([None, *sorted(remade)])
    parts: list[_Part] = []
    for name, row in table.items():
        if name not in remade:
            continue
        cols = row.shape[1]
        fitting = [p for p in PATTERNS if ":" not in p or cols % int(p.split(":")[1]) == 0]
        table[name] = TableRow(row.shape, rng.choice(fitting), rng.choice(VALUES))
        parts += _made_up(rng, name, table[name], lies=name == liar)
    for key, entry in header.items():
        if key.rpartition(".")[0] not in remade:
            start, end = entry["data_offsets"]
            parts.append(_Part(key, entry["dtype"], data[start:end], tuple(entry["shape"])))
    parts.sort(key=lambda part: part.dtype == "F32")  # vectors come last
    entries, position = [], 0
    for part in parts:
        entries.append(Entry(part.name, part.dtype, part.shape, position, position + len(part.raw)))
        position += len(part.raw)
    return encode_header(entries, table) + b"".join(part.raw for part in parts)


def _made_up(rng: random.Random, name: str, row: TableRow, *, lies: bool) -> list[_Part]:
    """Planes of a matrix: random values, whose mask and offsets are sound unless it `lies`."""
    geometry = Geometry(*row.shape, Pattern.parse(row.pattern), row.values)  # type: ignore[arg-type]
    mask = _mask(rng, geometry, rng.choice(MASK_LIES) if lies else "none")
    planes: dict[str, bytes] = {}
    if mask is not None:
        planes["mask"] = mask.tobytes()
    size = geometry.values_bytes() if geometry.offsets_shape is None else 0
    if geometry.offsets_shape is not None:
        offsets = _offsets(rng, geometry, mask, rng.choice(OFFSET_LIES) if lies else "none")
        planes["offsets"] = offsets.tobytes()
        size = min(int(offsets[-1]) * ALIGN, MOST_VALUES) + ALIGN
    planes["values"] = _values(rng, size)
    if geometry.scales_shape is not None:
        count = elements(geometry.scales_shape)
        small = np.full(count, 0.01, np.float16).tobytes()
        planes["scales"] = rng.choice([small, small, rng.randbytes(2 * count)])
    if geometry.subscales_shape is not None:
        planes["subscales"] = rng.randbytes(elements(geometry.subscales_shape))
    return [
        _Part(f"{name}.{plane}", "U8", raw.ljust(padded(len(raw)), b"\0"), (padded(len(raw)),))
        for plane, raw in ((plane, planes[plane]) for plane in planes_of(geometry))
    ]


def _values(rng: random.Random, size: int) -> bytes:
    noise = rng.randbytes(size)
    finite = (np.frombuffer(noise, "<u2") & 0xBFFF).tobytes()  # below 2, where they are bf16
    return rng.choice([finite, finite, noise, b"\xff" * size, bytes(size)])


def _mask(rng: random.Random, geometry: Geometry, lie: str) -> np.ndarray | None:
    """uint64 [row tiles, blocks, 8]: as the pattern wants, nearly so, or anything."""
    if geometry.mask_shape is None:
        return None
    tiles, blocks, _ = geometry.mask_shape
    noise = np.random.default_rng(rng.getrandbits(32)).random((tiles * 8, blocks * TILE_COLS))
    pattern = geometry.pattern
    if pattern.kind == "nm":
        groups = noise.reshape(-1, pattern.m)
        kept = np.argsort(np.argsort(groups, axis=1), axis=1) < pattern.n
        kept = kept.reshape(noise.shape)
    else:
        kept = noise >= rng.choice([0.01, pattern.percent / 100, 1.0])
    if lie == "full":
        kept[:] = True
    elif lie == "noise":
        kept = noise > rng.random()
    elif lie != "spills":  # which are bits beyond the last column and row
        kept[geometry.rows :] = kept[:, geometry.cols :] = False
        for _i in range(0 if lie == "none" else rng.choice([1, 5])):
            row = rng.randrange(geometry.rows)
            kept[row, rng.randrange(geometry.cols)] = True
            if lie == "moved":
                kept[row, rng.choice(np.flatnonzero(kept[row]).tolist())] = False
    return pack_bits_reference(kept)


def _offsets(
    rng: random.Random, geometry: Geometry, mask: np.ndarray | None, lie: str
) -> np.ndarray:
    """uint32 [row tiles + 1]: where the runs of the mask start, or lies."""
    assert mask is not None
    counts = np.bitwise_count(mask).astype(np.int64)
    tile_bytes = (-(-counts * BITS[geometry.values] // 8)).sum(axis=(1, 2))
    out = np.concatenate([[0], np.cumsum(-(-tile_bytes // ALIGN))])
    at = rng.randrange(out.size)
    if lie in ("less", "more"):
        out[at:] += -1 if lie == "less" else 1
    elif lie == "swap":
        out[at], out[-1] = out[-1], out[at]
    elif lie == "zero":
        out[at:] = 0
    elif lie == "huge":
        out[at:] = rng.choice([2**32 - 1, 2**31, MOST_VALUES // ALIGN])
    return np.clip(out, 0, 2**32 - 1).astype(np.uint32)
