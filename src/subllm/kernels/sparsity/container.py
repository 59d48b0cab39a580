"""The header of a packed file: a safetensors header whose metadata hold a tensor table.

    u64 length | JSON, padded with spaces to a multiple of 64 | data

Each plane of a packed tensor is a U8 tensor `<name>.mask|values|scales|subscales|offsets`, zero
padded to a multiple of 64 bytes, so that planes are 64-byte aligned in the file. Vectors
are F32 tensors of one dimension and come after all planes. Any safetensors reader opens
the file. A head may have a screening plane (see `screen`): U8 tensors
`<name>.screen.codes|steps|columns` and, in its row of the table, the digest of the head.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from subllm.errors import LayoutError, PatternError
from subllm.kernels.sparsity.layout import (
    ALIGN,
    LAYOUT_VERSION,
    VALUES,
    Geometry,
    elements,
    padded,
)
from subllm.kernels.sparsity.pattern import Pattern
from subllm.kernels.sparsity.screen import screen_shapes

FORMAT = "subllm-packed"
METADATA = "__metadata__"  # the header's one entry that is no tensor
MAX_HEADER = 100_000_000  # the limit of safetensors itself
MAX_SIDE = 2**31
PREFIX = 8  # bytes of the length field


@dataclass(frozen=True)
class Entry:
    """One tensor of the container; `start` and `end` are bytes of the data part."""

    name: str
    dtype: str  # "U8" or "F32"
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class TableRow:
    """What a packed tensor is, beside its planes."""

    shape: tuple[int, int]
    pattern: str
    values: str
    screen: str = ""  # digest of the head that the screening plane was made of; empty: no plane


@dataclass(frozen=True)
class Header:
    """A validated header. `data_start` is where the data part begins in the file."""

    data_start: int
    entries: Mapping[str, Entry]
    table: Mapping[str, TableRow]

    @property
    def vectors(self) -> tuple[str, ...]:
        return tuple(e.name for e in self.entries.values() if e.dtype == "F32")


def planes_of(geometry: Geometry) -> dict[str, int | None]:
    """Planes that a packed tensor has -> their bytes in the file (None: told by offsets)."""
    planes: dict[str, int | None] = {}
    if geometry.mask_shape:
        planes["mask"] = padded(8 * elements(geometry.mask_shape))
    planes["values"] = None if geometry.offsets_shape else geometry.values_bytes()
    if geometry.scales_shape:
        planes["scales"] = padded(2 * elements(geometry.scales_shape))
    if geometry.subscales_shape:
        planes["subscales"] = padded(elements(geometry.subscales_shape))
    if geometry.offsets_shape:
        planes["offsets"] = padded(4 * elements(geometry.offsets_shape))
    return planes


def screen_planes(shape: tuple[int, int]) -> dict[str, int]:
    """Planes of a screen of that shape -> their bytes in the file."""
    return {
        f"screen.{plane}": padded(elements(of) * np.dtype(dtype).itemsize)
        for plane, (dtype, of) in screen_shapes(shape).items()
    }


def encode_header(
    entries: Sequence[Entry], table: Mapping[str, TableRow], minimum: int = 0
) -> bytes:
    """The file's bytes before the data part, at least `minimum` of them."""
    rows: dict[str, Any] = {}
    for name, row in table.items():
        rows[name] = {"shape": list(row.shape), "pattern": row.pattern, "values": row.values}
        if row.screen:
            rows[name]["screen"] = row.screen
    header: dict[str, Any] = {
        METADATA: {
            "format": FORMAT,
            "layout": str(LAYOUT_VERSION),
            "table": json.dumps(rows, separators=(",", ":")),
        }
    }
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.end],
        }
    body = json.dumps(header, separators=(",", ":")).encode()
    total = max(padded(PREFIX + len(body)), padded(minimum))
    return (total - PREFIX).to_bytes(PREFIX, "little") + body.ljust(total - PREFIX)


def decode_header(head: bytes, file_size: int) -> Header:
    """Checks everything that the header claims against the file's size and the layout.

    `head` holds the file's first bytes, the header at least. Raises LayoutError.
    """
    length = int.from_bytes(head[:PREFIX], "little")
    if len(head) < PREFIX or length > min(file_size - PREFIX, MAX_HEADER):
        raise _damaged("its header is longer than the file")
    raw = _parse(head[PREFIX : PREFIX + length])
    table = _table(raw.pop(METADATA, None))
    data_start = PREFIX + length
    entries = {name: _entry(name, value) for name, value in raw.items()}
    ordered = sorted(entries.values(), key=lambda e: (e.start, e.end))
    edges = [0, *(e.end for e in ordered)]
    if [e.start for e in ordered] != edges[:-1] or edges[-1] != file_size - data_start:
        raise _damaged("its tensors do not cover the data exactly")
    _check_planes(entries, table, data_start)
    return Header(data_start, entries, table)


def _damaged(why: str) -> LayoutError:
    return LayoutError(f"not a usable packed file: {why}; extract or add the model again")


def _parse(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a name occurs twice")
        return result

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(f"its header is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise _damaged("its header is not a JSON object")
    return value


def _table(metadata: object) -> dict[str, TableRow]:
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise _damaged("it was not written by subllm")
    version = metadata.get("layout")
    if version != str(LAYOUT_VERSION):
        raise LayoutError(
            f"packed layout {version!r} cannot be read by this subllm (it reads "
            f"{LAYOUT_VERSION}); make the model again with `subllm add` or `subllm extract`, "
            "or update subllm"
        )
    text = metadata.get("table")
    if not isinstance(text, str):
        raise _damaged("it has no tensor table")
    return {
        name: _row(name, value) for name, value in _parse(text.encode("utf-8", "replace")).items()
    }


def _row(name: str, value: object) -> TableRow:
    if not isinstance(value, dict) or set(value) - {"screen"} != {"shape", "pattern", "values"}:
        raise _damaged(f"the table's row of {name!r} is malformed")
    shape = _integers(value["shape"])
    if shape is None or len(shape) != 2 or not all(1 <= side <= MAX_SIDE for side in shape):
        raise _damaged(f"the shape of {name!r} is malformed")
    if not isinstance(value["pattern"], str) or value["values"] not in VALUES:
        raise _damaged(f"the pattern or value type of {name!r} is unknown")
    try:
        pattern = Pattern.parse(value["pattern"])
        pattern.check(*shape)
    except PatternError as error:
        raise _damaged(f"{name!r}: {error}") from error
    screen = value.get("screen", "")
    if not isinstance(screen, str):
        raise _damaged(f"the screening plane of {name!r} is malformed")
    return TableRow((shape[0], shape[1]), str(pattern), value["values"], screen)


def _entry(name: str, value: object) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(f"the entry of {name!r} is malformed")
    shape, span = _integers(value["shape"]), _integers(value["data_offsets"])
    width = {"U8": 1, "F32": 4}.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if shape is None or len(shape) != 1 or span is None or len(span) != 2 or width is None:
        raise _damaged(f"the entry of {name!r} is malformed")
    if span[1] - span[0] != shape[0] * width:
        raise _damaged(f"the size of {name!r} does not fit its shape")
    return Entry(name, value["dtype"], shape, span[0], span[1])


def _integers(value: object) -> tuple[int, ...] | None:
    """A list of integers from 0 up, or None."""
    if not isinstance(value, list) or not all(type(v) is int and v >= 0 for v in value):
        return None
    return tuple(cast("list[int]", value))


def _check_planes(
    entries: Mapping[str, Entry], table: Mapping[str, TableRow], data_start: int
) -> None:
    expected: set[str] = set()
    for name, row in table.items():
        geometry = Geometry(*row.shape, Pattern.parse(row.pattern), row.values)  # type: ignore[arg-type]
        planes = planes_of(geometry) | (screen_planes(row.shape) if row.screen else {})
        for plane, size in planes.items():
            entry = entries.get(f"{name}.{plane}")
            if entry is None or entry.dtype != "U8":
                raise _damaged(f"the {plane} plane of {name!r} is missing")
            if size is not None and entry.shape[0] != size:
                raise _damaged(f"the {plane} plane of {name!r} has the wrong size")
            if entry.shape[0] % ALIGN or (data_start + entry.start) % ALIGN:
                raise _damaged(f"the {plane} plane of {name!r} is not aligned")
            expected.add(entry.name)
    for entry in entries.values():
        if entry.dtype == "U8" and entry.name not in expected:
            raise _damaged(f"{entry.name!r} belongs to no tensor of its table")
        if entry.dtype == "F32" and (entry.name in table or (data_start + entry.start) % 4):
            raise _damaged(f"the vector {entry.name!r} is misplaced")
