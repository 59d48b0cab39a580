"""GGUF files made to hurt: only WeightsError comes out, quickly and with little memory."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles.tiny_ggufs import write_gguf

from subllm.errors import WeightsError
from subllm.models.text.tokenizer import Tokenizer
from subllm.models.weights.gguf import GgufReader
from subllm.models.weights.gguf_file import GgufFile


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file(
    path: Path,
    entries: list[bytes],
    tensors: list[bytes],
    data: bytes = b"",
    counts: tuple[int, int] | None = None,
    version: int = 3,
) -> Path:
    counts = counts or (len(tensors), len(entries))
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(entries + tensors)
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def test_what_these_tests_write_is_valid(tmp_path: Path) -> None:
    entries = [
        entry("a", 4, struct.pack("<I", 7)),
        entry("b", 8, text("é")),
        entry("c", 9, struct.pack("<IQ", 8, 2) + text("x") + text("")),
        entry("d", 9, struct.pack("<IQ3f", 6, 3, 1, 2, 3)),
        entry("e", 9, struct.pack("<IQ", 5, 0)),
        entry("f", 7, b"\1"),
    ]
    data = np.arange(6, dtype=np.float32).tobytes()
    opened = GgufFile(file(tmp_path / "f", entries, [tensor("t", (3, 2), 0, 0)], data))
    assert opened.metadata == {"a": 7, "b": "é", "f": True}
    assert opened.array("c") == ["x", ""]
    assert opened.array("d") == [1.0, 2.0, 3.0]
    assert opened.array("e") == [] and opened.array("a") is None and opened.array("z") is None
    assert opened.tensors["t"].shape == (2, 3)
    assert opened.data("t").view(np.float32).tolist() == [0, 1, 2, 3, 4, 5]
    assert list(gguf.GGUFReader(tmp_path / "f").tensors[0].data.shape) == [2, 3]


HUGE = 2**64 - 1
F32_ROW = tensor("t", (32,), 0, 0)


@pytest.mark.parametrize(
    ("entries", "tensors", "options"),
    [
        ([], [], {"version": 1}),
        ([], [], {"version": 4}),
        ([], [], {"version": 3 << 24}),  # big-endian
        ([], [], {"counts": (HUGE, 0)}),
        ([], [], {"counts": (0, HUGE)}),
        ([], [], {"counts": (1 << 20, 0)}),
        ([], [], {"counts": (0, 1 << 16)}),
        ([struct.pack("<Q", HUGE)], [], {}),
        ([struct.pack("<Q", 2**63)], [], {}),
        ([entry("a", 8, struct.pack("<Q", HUGE))], [], {}),
        ([entry("a", 99, b"\0" * 8)], [], {}),
        ([entry("a", 9, struct.pack("<IQ", 9, 1))], [], {}),  # an array of arrays
        ([entry("a", 9, struct.pack("<IQ", 6, HUGE))], [], {}),
        ([entry("a", 9, struct.pack("<IQ", 8, HUGE))], [], {}),
        ([entry("a", 9, struct.pack("<IQQ", 8, 1, HUGE))], [], {}),
        ([entry("a", 9, struct.pack("<IQQQ", 8, 2, 2**64 - 16, 0))], [], {}),
        ([entry("a", 9, struct.pack("<IQ", 77, 1))], [], {}),
        ([entry("a", 4, b"\1\0\0\0"), entry("a", 4, b"\2\0\0\0")], [], {}),
        ([entry("a", 8, text(b"\xff\xfe"))], [], {}),
        ([text(b"\xc3") + struct.pack("<II", 4, 1)], [], {}),
        ([entry("general.alignment", 4, struct.pack("<I", 0))], [F32_ROW], {}),
        ([entry("general.alignment", 4, struct.pack("<I", 24))], [F32_ROW], {}),
        ([entry("general.alignment", 8, text("32"))], [F32_ROW], {}),
        ([entry("general.alignment", 6, struct.pack("<f", 32))], [F32_ROW], {}),
        ([entry("general.alignment", 11, struct.pack("<q", -32))], [F32_ROW], {}),
        ([entry("general.alignment", 10, struct.pack("<Q", 2**63))], [F32_ROW], {}),
        ([], [F32_ROW, F32_ROW], {}),
        ([], [tensor("t", (), 0, 0)], {}),
        ([], [tensor("t", (2, 2, 2, 2, 2), 0, 0)], {}),
        ([], [text("t") + struct.pack("<I", 2**32 - 1)], {}),
        ([], [tensor("t", (0,), 0, 0)], {}),
        ([], [tensor("t", (33,), 0, 0)], {}),
        ([], [tensor("t", (2**63, 2), 0, 0)], {}),
        ([], [tensor("t", (2**32, 2**32), 0, 0)], {}),  # 2**64 elements wrap to none
        ([], [tensor("t", (32,), 0, 1)], {}),
        ([], [tensor("t", (32,), 0, 2**64 - 128)], {}),
        ([], [tensor("t", (31,), 8, 0)], {}),  # Q8_0 in part of a block
        ([], [tensor("t", (32,), 12, 0)], {}),  # Q4_K likewise
        ([], [tensor("t", (32,), 99, 0)], {}),
        ([], [tensor("t", (32,), 16, 0)], {}),  # IQ2_XXS is real, and not supported
    ],
)
def test_headers_that_lie(
    tmp_path: Path, entries: list[bytes], tensors: list[bytes], options: dict[str, object]
) -> None:
    path = file(tmp_path / "bad.gguf", entries, tensors, bytes(128), **options)  # type: ignore[arg-type]
    with pytest.raises(WeightsError) as caught:
        GgufFile(path)
    assert "\n" not in str(caught.value) and "bad.gguf" in str(caught.value)


def test_text_that_is_not_utf8_in_an_array(tmp_path: Path) -> None:
    array = entry("a", 9, struct.pack("<IQ", 8, 1) + text(b"\xff"))
    opened = GgufFile(file(tmp_path / "f", [array], []))
    with pytest.raises(WeightsError, match="UTF-8"):
        opened.array("a")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "m.gguf"
    write_gguf(path, kinds={"attn_q": "Q8_0", "ffn_up": "F16"})
    return path.read_bytes()


def use(path: Path) -> None:
    reader = GgufReader(path)
    for name in reader.names():
        reader.read(name)
    Tokenizer.from_files(reader.tokenizer_files())
    reader.close()


def test_truncated_anywhere(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "cut.gguf"
    sizes = {0, 1, 3, 4, 7, 8, 23, 24, 25, len(whole) - 1, *range(30, len(whole) - 1, 4001)}
    for size in sorted(sizes):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError):
            use(path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_damage_never_crashes(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    head = len(whole) - 4 * 264 * 32  # metadata, tensor table and a little more
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.one_of(st.integers(0, 1200), st.integers(0, min(head, len(whole)) - 9)))
        size = data.draw(st.sampled_from([1, 1, 2, 4, 8]))
        damaged[at : at + size] = data.draw(
            st.one_of(
                st.binary(min_size=size, max_size=size),
                st.sampled_from([b"\0" * size, b"\xff" * size, b"\1" + b"\0" * (size - 1)]),
            )
        )
    path = tmp_path / "fuzzed.gguf"
    path.write_bytes(damaged)
    with contextlib.suppress(WeightsError):
        use(path)
