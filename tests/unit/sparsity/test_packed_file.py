"""Packed files: round trip, crashes, full disks, and files made to hurt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subllm.errors import DiskFullError, LayoutError, WeightsError
from subllm.sparsity.layout import LAYOUT_VERSION
from subllm.sparsity.mask import select
from subllm.sparsity.packed_file import PackedReader, PackedWriter, concat
from subllm.sparsity.packing import PackedTensor, pack, unpack, unpack_mask, unpack_rows
from subllm.sparsity.pattern import Pattern

KINDS = {
    "model.layers.0.mlp.up_proj.weight": ("8:16", "int8", (9, 576)),
    "b": ("50%", "int4", (17, 70)),
    "c": ("dense", "bf16", (3, 5)),
    "d": ("2:4", "bf16", (8, 64)),
    "e": ("62.5%", "bf16", (1, 1)),
}


def tensor(pattern: str, values: str, shape: tuple[int, int]) -> PackedTensor:
    weights = np.random.default_rng(shape[1]).standard_normal(shape).astype(np.float32)
    parsed = Pattern.parse(pattern)
    mask = None if pattern == "dense" else select(np.abs(weights), parsed)
    return pack(weights, mask, pattern, values)


TENSORS = {name: tensor(*kind) for name, kind in KINDS.items()}
VECTORS = {
    "model.norm.weight": np.arange(7, dtype=np.float32),
    "ø": np.array([-1.5], np.float32),
    "empty": np.zeros(0, np.float32),
}


def write(path: Path, names: Any = KINDS, vectors: Any = VECTORS, **options: Any) -> Path:
    with PackedWriter(path, **options) as writer:
        for name in names:
            writer.add_packed(name, TENSORS[name])
        for name in vectors:
            writer.add_vector(name, VECTORS[name])
    return path


def assert_holds_everything(path: Path) -> None:
    with PackedReader(path) as reader:
        assert reader.names() == (*KINDS, *VECTORS)
        reader.verify()
        for name, want in TENSORS.items():
            have = reader.tensor(name)
            assert (have.shape, have.pattern, have.values) == (
                want.shape, want.pattern, want.values,
            )  # fmt: skip
            for plane in ("mask", "data", "scales", "offsets"):
                a, b = getattr(have, plane), getattr(want, plane)
                assert (a is None) == (b is None)
                if b is not None:
                    assert a.shape == b.shape and a.dtype == b.dtype
                    assert a.tobytes() == b.tobytes()
                    assert a.ctypes.data % 64 == 0 and not a.flags.writeable
            assert unpack(have).tobytes() == unpack(want).tobytes()
        for name, vector in VECTORS.items():
            assert np.array_equal(reader.vector(name), vector)


@pytest.mark.parametrize("reserve", [0, 64, 1 << 16])
def test_round_trip(tmp_path: Path, reserve: int) -> None:
    path = write(tmp_path / "model", reserve=reserve)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert_holds_everything(path)


def test_the_safetensors_library_reads_it(tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors")
    loaded = safetensors.numpy.load_file(path)
    first = next(iter(KINDS))
    assert loaded[f"{first}.mask"].dtype == np.uint8
    assert TENSORS[first].mask is not None
    have = loaded[f"{first}.mask"].tobytes()
    assert have[: TENSORS[first].mask.nbytes] == TENSORS[first].mask.tobytes()
    assert np.array_equal(loaded["ø"], VECTORS["ø"])
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata()["layout"] == str(LAYOUT_VERSION)
        planes = {f"{name}.values" for name in KINDS}
        assert planes <= set(file.keys())


def test_views_outlive_the_reader(tmp_path: Path) -> None:
    with PackedReader(write(tmp_path / "model")) as reader:
        kept = reader.tensor("b")
        vector = reader.vector("ø")
    assert unpack(kept).tobytes() == unpack(TENSORS["b"]).tobytes()
    assert vector[0] == -1.5


def test_unknown_names(tmp_path: Path) -> None:
    with PackedReader(write(tmp_path / "model")) as reader:
        for name in ("nothing", "ø", "b.mask"):
            with pytest.raises(WeightsError, match="not in this file"):
                reader.tensor(name)
        for name in ("nothing", "b", "b.mask"):
            with pytest.raises(WeightsError, match="not in this file"):
                reader.vector(name)


def test_an_empty_file_of_tensors(tmp_path: Path) -> None:
    with PackedReader(write(tmp_path / "model", (), ())) as reader:
        assert reader.names() == ()
        reader.verify()


def test_concat_depends_on_the_tensors_alone(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", reserve=0)
    names = list(KINDS)
    for cut in range(len(names) + 1):
        parts = [
            write(tmp_path / "1", names[:cut], ("model.norm.weight",)),
            write(tmp_path / "2", names[cut:], ("ø", "empty"), reserve=128),
        ]
        concat(parts, tmp_path / "joined")
        assert_holds_everything(tmp_path / "joined")
        assert (tmp_path / "joined").read_bytes() == whole.read_bytes()


def test_concat_refuses_a_name_twice(tmp_path: Path) -> None:
    parts = [write(tmp_path / "1", ("b",), ()), write(tmp_path / "2", ("c", "b"), ())]
    with pytest.raises(LayoutError, match="'b' is there twice"):
        concat(parts, tmp_path / "joined")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2"]


def test_names_that_would_collide(tmp_path: Path) -> None:
    vector = VECTORS["ø"]
    clashes: list[list[Callable[[PackedWriter], None]]] = [
        [lambda w: w.add_packed("b", TENSORS["b"]), lambda w: w.add_packed("b", TENSORS["b"])],
        [lambda w: w.add_packed("b", TENSORS["b"]), lambda w: w.add_vector("b", vector)],
        [lambda w: w.add_vector("b", vector), lambda w: w.add_packed("b", TENSORS["b"])],
        [lambda w: w.add_packed("b", TENSORS["b"]), lambda w: w.add_vector("b.mask", vector)],
        [lambda w: w.add_vector("b.mask", vector), lambda w: w.add_packed("b", TENSORS["b"])],
        [lambda w: None, lambda w: w.add_vector("__metadata__", vector)],
    ]
    for first, second in clashes:
        with PackedWriter(tmp_path / "model") as writer:
            first(writer)
            with pytest.raises(LayoutError, match="may be added once"):
                second(writer)
        with PackedReader(tmp_path / "model") as reader:
            assert len(reader.names()) <= 1


def test_vectors_are_float32_and_flat(tmp_path: Path) -> None:
    with PackedWriter(tmp_path / "model") as writer:
        for wrong in (np.zeros(3), np.zeros((1, 3), np.float32)):
            with pytest.raises(WeightsError, match="not a float32 vector"):
                writer.add_vector("v", wrong)  # type: ignore[arg-type]


class Stop(Exception):
    pass


def test_an_exception_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")
    with pytest.raises(Stop), PackedWriter(path) as writer:
        writer.add_packed("b", TENSORS["b"])
        raise Stop
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")
    writer = PackedWriter(path)
    writer.add_packed("b", TENSORS["b"])
    pid = os.fork()
    if pid == 0:  # the child dies in the middle of its work
        writer.add_packed("c", TENSORS["c"])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert path.read_bytes() == b"old"
    writer.discard()
    assert_holds_everything(write(path))  # what was left behind is no hindrance


LIMITED = """
import errno, resource, signal, sys
from pathlib import Path
import numpy as np
from subllm.errors import WeightsError
from subllm.sparsity.packed_file import PackedWriter
from subllm.sparsity.packing import pack

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size, limit = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
tensor = pack(np.ones((size, 64), np.float32), None, "dense", "int8")
try:
    with PackedWriter(Path(sys.argv[1]), reserve=0) as writer:
        writer.add_packed("a", tensor)
        writer.add_vector("v", np.ones(16, np.float32))
except WeightsError as error:
    print(error)
"""


@pytest.mark.parametrize(("rows", "limit"), [(8, 0), (8, 500), (8, 700), (4096, 1 << 16)])
def test_no_room_leaves_nothing_behind(tmp_path: Path, rows: int, limit: int) -> None:
    """The limit is met while buffers are flushed, in the header, and in the planes."""
    path = tmp_path / "model"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(rows), str(limit)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "cannot write a packed file" in done.stdout, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("rows", [8, 4096])
def test_a_full_disk(tmp_path: Path, rows: int) -> None:
    partial = tmp_path / "model.partial"
    partial.symlink_to("/dev/full")
    packed = tensor("dense", "int8", (rows, 64))
    with (
        pytest.raises(DiskFullError, match="free some space"),
        PackedWriter(tmp_path / "model") as writer,
    ):
        writer.add_packed("a", packed)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot write"):
        PackedWriter(tmp_path / "missing" / "model")
    with pytest.raises(WeightsError, match="cannot read"):
        PackedReader(tmp_path / "missing")
    with pytest.raises(WeightsError, match="cannot read"):
        PackedReader(tmp_path)


def test_a_rename_that_fails(tmp_path: Path) -> None:
    (tmp_path / "model" / "in the way").mkdir(parents=True)
    with pytest.raises(WeightsError, match="cannot write"):
        write(tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


# --- files made to hurt ---------------------------------------------------------------


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


def split(whole: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def join(header: object, data: bytes) -> bytes:
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = body.ljust(-(-(len(body) + 8) // 64) * 64 - 8)
    return len(body).to_bytes(8, "little") + body + data


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
    for wrong in ([1, 1, 2, plane[3]], [0, plane[3], 0, plane[3]], [0, 0, 0, 2**32 - 1],
                  [0, 0, 0, plane[3]], [0, plane[3], plane[3], plane[3]], [0, 0, 0, 0]):  # fmt: skip
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
    try:
        use(path)
    except LayoutError:
        pass
