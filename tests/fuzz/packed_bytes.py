"""Ways to damage a packed file: its bytes, its header, its planes.

Every damage takes a random generator, a whole file and another one to take parts from,
and returns the bytes of a damaged file. The same generator gives the same bytes.
"""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np

from subllm.kernels.sparsity.container import METADATA

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 63, 64, 65, 1.5, -0.0, 2**31 - 1, 2**31, 2**32, 2**63),
    *(2**64, 2**70, -(2**31), 1e300, "", "0", "1", "2", "dense", "50%", "99.99%", "8:16", "31:32"),
    *("bf16", "int8", "int4", "U8", "F32", "subllm-packed", "\x00", "\ud800", "ø", [], [0, 0], {}),
    *([2**31, 2**31], [1, 1], [-1, 64], [[]], {"dtype": "U8"}, [1.0, 2.0], ["a"]),
)


def split(whole: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data part of a sound file."""
    length = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def join(header: object, data: bytes) -> bytes:
    """A file of a header (an object, or its bytes) and a data part, planes aligned."""
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = body.ljust(-(-(len(body) + 8) // 64) * 64 - 8)
    return len(body).to_bytes(8, "little") + body + data


# --- bytes ------------------------------------------------------------------------------------


def _place(rng: random.Random, whole: bytes) -> int:
    """A position: one of the length field, of the header, or anywhere."""
    length = 8 + min(int.from_bytes(whole[:8], "little"), len(whole))
    return rng.randrange(max(1, min(rng.choice([8, length, len(whole)]), len(whole))))


def flip_bits(rng: random.Random, whole: bytes, _: bytes) -> bytes:
    out = bytearray(whole)
    for _i in range(rng.choice([1, 1, 2, 8, 64])):
        out[_place(rng, whole)] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwrite(rng: random.Random, whole: bytes, _: bytes) -> bytes:
    at, size = _place(rng, whole), rng.choice([1, 2, 4, 8, 64, 4096])
    fill = rng.choice([b"\0", b"\xff", b"\x80", b"\x7f", b"9", b"]", rng.randbytes(size)])
    size = min(size, len(whole) - at)
    return whole[:at] + (fill * size)[:size] + whole[at + size :]


def cut(rng: random.Random, whole: bytes, _: bytes) -> bytes:
    at = _place(rng, whole)
    if rng.random() < 0.5:
        return whole[:at]
    return whole[:at] + whole[at + rng.choice([1, 4, 63, 64, 65, 4096]) :]


def insert(rng: random.Random, whole: bytes, _: bytes) -> bytes:
    at = rng.choice([_place(rng, whole), len(whole)])
    return whole[:at] + rng.randbytes(rng.choice([1, 4, 63, 64, 65, 4096])) + whole[at:]


def splice(rng: random.Random, whole: bytes, other: bytes) -> bytes:
    """The beginning of one file with the end of another, or a header before other data."""
    if rng.random() < 0.5:
        return whole[: _place(rng, whole)] + other[_place(rng, other) :]
    (header, data), (_, foreign) = split(whole), split(other)
    return join(header, foreign[: len(data)].ljust(len(data), rng.choice([b"\0", b"\xff"])))


# --- the header -------------------------------------------------------------------------------


def _slots(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything inside a JSON tree."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(tree, dict):
        inner = list(tree.items())
    elif isinstance(tree, list):
        inner = list(enumerate(tree))
    return [p for key, value in inner for p in ((*path, key), *_slots(value, (*path, key)))]


def _edit(rng: random.Random, tree: Any) -> None:
    """Changes one place of a JSON tree."""
    path = rng.choice(_slots(tree) or [()])
    if not path:
        return
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    value, new = parent[path[-1]], rng.choice(ODD)
    if type(value) is int and rng.random() < 0.6:
        new = value + rng.choice([-128, -64, -1, 1, 64, 128, value])
    elif isinstance(parent, dict) and rng.random() < 0.2:
        del parent[path[-1]]
        if rng.random() < 0.7:
            parent[rng.choice([*parent, str(new), str(path[-1]) + "x"])] = value
        return
    elif rng.random() < 0.2:
        new = parent[rng.choice(list(parent))] if isinstance(parent, dict) else value
    parent[path[-1]] = new


def edit_header(rng: random.Random, whole: bytes, _: bytes) -> bytes:
    header, data = split(whole)
    for _i in range(rng.choice([1, 1, 1, 2, 3])):
        metadata = header.get(METADATA)
        if rng.random() < 0.6 and isinstance(metadata, dict) and "table" in metadata:
            try:
                table = json.loads(metadata["table"])
            except (TypeError, ValueError):
                continue
            _edit(rng, table)
            metadata["table"] = json.dumps(table)
        else:
            _edit(rng, header)
    return join(header, data)


def swap_planes(rng: random.Random, whole: bytes, _: bytes) -> bytes:
    """Planes of other tensors, or of other kinds, that often have the right size."""
    header, data = split(whole)
    names = [name for name in header if name != METADATA]
    first = rng.choice(names)
    sizes = header[first]["shape"]
    same = [n for n in names if n != first and header[n]["shape"] == sizes] or names
    second = rng.choice(same)
    header[first], header[second] = header[second], header[first]
    return join(header, data)


# --- planes -----------------------------------------------------------------------------------


def damage_plane(rng: random.Random, whole: bytes, _: bytes) -> bytes:
    """Words of a plane become extreme, random, or another one's; masks and offsets first."""
    header, data = split(whole)
    names = [name for name in header if name != METADATA and header[name]["shape"][0]]
    chosen = [n for n in names if n.endswith((".mask", ".offsets", ".scales"))] or names
    name = rng.choice(chosen if rng.random() < 0.8 else names)
    start, end = header[name]["data_offsets"]
    plane = np.frombuffer(data[start:end], np.uint32 if (end - start) % 8 else np.uint64).copy()
    limit = (1 << (8 * plane.itemsize)) - 1
    for _i in range(rng.choice([1, 1, 2, 4, plane.size])):
        at = rng.randrange(plane.size)
        word = int(plane[at])
        plane[at] = limit & rng.choice(
            [0, limit, rng.getrandbits(64), word + 1, word - 1, ~word, word | (word << 1),
             word ^ (1 << rng.randrange(64)), int(plane[rng.randrange(plane.size)])]
        )  # fmt: skip
    if rng.random() < 0.1:
        plane[:] = np.sort(plane)
    return join(header, data[:start] + plane.tobytes() + data[end:])
