"""Packed files that are damaged or made to hurt."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.packed_bytes import join, split
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subllm.errors import LayoutError
from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.kernels.sparsity.packed_file import PackedReader
from subllm.kernels.sparsity.packing import unpack, unpack_mask, unpack_rows
from unit.kernels.sparsity.packed_samples import KINDS, assert_holds_everything, write


def use(path: Path) -> None:
    """Everything that a consumer does with a file."""
    with PackedReader(path) as reader:
        reader.verify()
        for name in reader.table:
            packed = reader.tensor(name)
            unpack(packed)
            unpack_mask(packed)
            unpack_rows(packed, np.array([0, packed.shape[0] - 1]))
        for name in reader.vectors:
            reader.vector(name).sum()


def refused(path: Path) -> LayoutError:
    with pytest.raises(LayoutError) as caught:
        use(path)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("whole") / "model", reserve=0).read_bytes()


def test_the_tools_of_these_tests(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "same").write_bytes(join(*split(whole)))
    assert_holds_everything(tmp_path / "same")


def test_truncated_anywhere(tmp_path: Path, whole: bytes) -> None:
    header, data = split(whole)
    edges = {0, 1, 7, 8, 9, len(whole) - len(data), len(whole) - len(data) - 1, len(whole) - 1}
    for entry in header.values():
        for offset in entry.get("data_offsets", ()):
            edges |= {len(whole) - len(data) + offset + by for by in (-1, 0, 1)}
    for size in sorted(edge for edge in edges if edge < len(whole)):
        (tmp_path / "cut").write_bytes(whole[:size])
        refused(tmp_path / "cut")
    (tmp_path / "cut").write_bytes(whole + b"\0")
    refused(tmp_path / "cut")


def test_a_layout_of_the_future(tmp_path: Path, whole: bytes) -> None:
    header, data = split(whole)
    for version in (str(LAYOUT_VERSION + 1), "", None, 1, ["1"]):
        header["__metadata__"]["layout"] = version
        (tmp_path / "new").write_bytes(join(header, data))
        assert "update subllm" in str(refused(tmp_path / "new"))


FIRST = next(iter(KINDS))


def attack(header: dict[str, Any]) -> list[Callable[[], None]]:
    """Changes to a valid header, each of which must be noticed."""

    def table(change: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
        def apply() -> None:
            rows = json.loads(header["__metadata__"]["table"])
            change(rows)
            header["__metadata__"]["table"] = json.dumps(rows)

        return apply

    def row(**fields: object) -> Callable[[], None]:
        return table(lambda rows: rows[FIRST].update(fields))

    def entry(name: str, **fields: object) -> Callable[[], None]:
        return lambda: header[name].update(fields)

    def offsets(name: str, start: int, end: int) -> Callable[[], None]:
        def apply() -> None:
            a, b = header[name]["data_offsets"]
            header[name].update(data_offsets=[a + start, b + end], shape=[b + end - a - start])

        return apply

    mask = f"{FIRST}.mask"
    return [
        header.clear,
        lambda: header.pop("__metadata__"),
        lambda: header.update(__metadata__=[]),
        lambda: header["__metadata__"].update(format="pt"),
        lambda: header["__metadata__"].pop("table"),
        lambda: header["__metadata__"].update(table="["),
        lambda: header["__metadata__"].update(table="[]"),
        lambda: header["__metadata__"].update(table="[" * 100_000),
        lambda: header["__metadata__"].update(table={}),
        lambda: header["__metadata__"].update(table="{}"),
        lambda: header["__metadata__"].update(table='{"\ud800": 1}'),
        table(lambda rows: rows.pop(FIRST)),
        table(lambda rows: rows.update(other=rows[FIRST])),
        table(lambda rows: rows.update({FIRST: 7})),
        table(lambda rows: rows[FIRST].pop("pattern")),
        table(lambda rows: rows[FIRST].update(more=1)),
        table(lambda rows: rows.update({"model.norm.weight": rows[FIRST]})),
        *(
            row(shape=shape)
            for shape in (
                [9], [9, 576, 1], [0, 576], [-9, 576], [9, 560], [17, 576], [9.0, 576],
                ["9", 576], [True, 576], [2**31, 2**31], [2**63, 576], [2**200, 1], [576, 9],
                None, {}, 9,
            )
        ),
        *(
            row(pattern=p)
            for p in ("dense", "50%", "4:16", "9:16", "8:17", "", "0%", None, 8, ["8:16"])
        ),
        *(row(values=v) for v in ("bf16", "int4", "int9", "", None, ["int8"], {}, 8)),
        entry(mask, dtype="F32"),
        entry(mask, dtype="I8"),
        entry(mask, dtype=None),
        entry(mask, dtype=["U8"]),
        entry(mask, shape=[[1]]),
        entry(mask, shape=[2**63]),
        entry(mask, shape=[]),
        entry(mask, shape=None),
        entry(mask, data_offsets=[0]),
        entry(mask, data_offsets=[0, 2**70]),
        entry(mask, data_offsets=[-64, 0]),
        entry(mask, data_offsets=[0.0, 1.0]),
        entry(mask, more=1),
        lambda: header[mask].pop("dtype"),
        lambda: header.update({mask: None}),
        lambda: header.pop(mask),
        lambda: header.update(stray=header.pop(mask)),
        lambda: header.update(stray={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
        lambda: header.update({FIRST: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
        offsets(mask, 0, 64),
        offsets(mask, 0, -64),
        offsets(mask, 64, 0),
        offsets(mask, 64, 64),
        offsets(mask, 0, 1),
        lambda: header[mask].update(header[f"{FIRST}.values"]),
        lambda: header["b.mask"].update(header[mask]),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(len(attack({}))))
def test_header_fields_that_lie(tmp_path: Path, whole: bytes, number: int) -> None:
    header, data = split(whole)
    attack(header)[number]()
    (tmp_path / "bad").write_bytes(join(header, data))
    refused(tmp_path / "bad")


def test_headers_that_are_no_header(tmp_path: Path, whole: bytes) -> None:
    data = split(whole)[1]
    text = json.dumps(split(whole)[0])
    twice = text.replace('"ø"', '"model.norm.weight"').replace('"\\u00f8"', '"model.norm.weight"')
    assert twice != text
    for header in (b"", b"[]", b"null", b"{", b'{"a":}', b"\xff\xfe", b"[" * 100_000,
                   b'{"__metadata__":' + b"9" * 5000 + b"}", twice.encode()):  # fmt: skip
        (tmp_path / "bad").write_bytes(join(header, data))
        refused(tmp_path / "bad")
    for length in (0, 1, len(whole) - 8, len(whole) - 7, 2**31, 2**63, 2**64 - 1):
        (tmp_path / "bad").write_bytes(length.to_bytes(8, "little") + whole[8:])
        refused(tmp_path / "bad")


def test_offsets_that_lie(tmp_path: Path, whole: bytes) -> None:
    header, data = split(whole)
    start = header["b.offsets"]["data_offsets"][0]
    plane = np.frombuffer(data, np.uint32, 4, start)
    assert plane[0] == 0 and plane[3] > 0
    end = int(plane[3])
    for wrong in ([1, 1, 2, end], [0, end, 0, end], [0, 0, 0, 2**32 - 1], [0, 0, 0, end],
                  [0, end, end, end], [0, 0, 0, 0]):  # fmt: skip
        changed = bytearray(data)
        changed[start : start + 16] = np.array(wrong, np.uint32).tobytes()
        (tmp_path / "bad").write_bytes(join(header, bytes(changed)))
        refused(tmp_path / "bad")


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_damage_never_crashes(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    """Whatever the bytes, a reader gives values or one of its own errors."""
    damaged = bytearray(whole)
    header = int.from_bytes(whole[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        limit = data.draw(st.sampled_from([8, 8 + header, len(damaged)]))
        at = data.draw(st.integers(0, min(limit, len(damaged)) - 1))
        match data.draw(st.sampled_from(["flip", "set", "digit", "cut", "insert"])):
            case "flip":
                damaged[at] ^= 1 << data.draw(st.integers(0, 7))
            case "set":
                damaged[at] = data.draw(st.sampled_from([0, 0x7F, 0x80, 0xFF]))
            case "digit":
                damaged[at] = ord(data.draw(st.sampled_from('0123456789"[]{},:%')))
            case "cut":
                del damaged[at : at + data.draw(st.integers(1, 70))]
            case "insert":
                damaged[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        if not damaged:
            break
    path = tmp_path / "fuzzed"
    path.write_bytes(damaged)
    with contextlib.suppress(LayoutError):
        use(path)
