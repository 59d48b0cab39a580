"""Packed files: round trip, crashes and full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from subllm.errors import DiskFullError, LayoutError, WeightsError
from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.kernels.sparsity.packed_file import PackedReader, PackedWriter, concat
from subllm.kernels.sparsity.packing import unpack
from unit.kernels.sparsity.packed_samples import (
    KINDS,
    TENSORS,
    VECTORS,
    assert_holds_everything,
    tensor,
    write,
)


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
from subllm.kernels.sparsity.packed_file import PackedWriter
from subllm.kernels.sparsity.packing import pack

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
