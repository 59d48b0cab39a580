"""Reading packs, and what is wrong with damaged ones."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from subllm.errors import CalibrationError
from subllm.making.calibration.packs import PackSource, code_names, pack_names, read_pack
from subllm.making.calibration.source import Document

from .tiny import sample, write_pack


def test_a_pack_is_its_header_and_samples(pack_directory: Path) -> None:
    pack = read_pack(pack_directory / "python.jsonl.xz")
    assert pack.header.pack == "python" and pack.header.provenance == {"licence": "test"}
    assert len(pack.samples) == 16
    assert pack_names() == ("general", "python")


def test_documents_of_a_split(pack_directory: Path) -> None:
    train = list(PackSource("python", "train").documents(0))
    heldout = list(PackSource("python", "heldout").documents(0))
    assert {d.id for d in train} == {f"s{i}" for i in range(12)}
    assert {d.id for d in heldout} == {f"s{i}" for i in range(12, 16)}
    code = "def f3(x):\n    y = x + 3\n    return y * 3\n"
    assert Document("s3", code, "Write function number 3.", "python") in train
    prose = list(PackSource("general", "heldout").documents(0))
    assert Document("s15", "An essay, the 15-th.", "Write function number 15.") in prose


def test_the_seed_decides_the_order(pack_directory: Path) -> None:
    source = PackSource("python", "train")
    first, again = list(source.documents(0)), list(source.documents(0))
    other = list(source.documents(1))
    assert first == again != other
    assert sorted(d.id for d in first) == sorted(d.id for d in other)


def test_an_unknown_pack_comes_with_the_nearest_names(pack_directory: Path) -> None:
    with pytest.raises(CalibrationError, match=r"unknown pack 'pyton'; did you mean python\?"):
        PackSource("pyton", "train")
    with pytest.raises(CalibrationError, match="packs are general, python; or give --calib"):
        PackSource("fortran", "train")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([sample(0), sample(1, split="test")], ":3: code.split"),
        ([sample(0, code=None)], ":2: code.code: Field required"),
        ([sample(0, answer="poem")], ":2: .*'poem'"),
        ([sample(0, extra=1)], ":2: code.extra"),
        ([sample(0), sample(1, id="s0")], ":3: id 's0' occurs twice"),
    ],
)
def test_malformed_samples_are_named(tmp_path: Path, samples: list, message: str) -> None:
    path = tmp_path / "python.jsonl.xz"
    write_pack(path, samples)
    with pytest.raises(CalibrationError, match=message):
        read_pack(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no xz", "cannot be read"),
        (lzma.compress(b"")[:-5], "cannot be read"),
        (lzma.compress(b""), ":1: Invalid JSON"),
        (lzma.compress(b'{"pack": "x", "version": 2, "provenance": {}}\n'), ":1: version"),
        (lzma.compress(b"\xff\n"), "cannot be read"),
    ],
)
def test_damaged_files_are_no_traceback(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.jsonl.xz"
    path.write_bytes(data)
    with pytest.raises(CalibrationError, match=message):
        read_pack(path)


def test_stretches_of_files_are_documents_without_an_instruction(pack_directory: Path) -> None:
    code = "def f(x):\n    return x\n"
    one = {"id": "pkg/a.py", "split": "train", "answer": "file", "tag": "python", "code": code}
    write_pack(pack_directory / "code/python.jsonl.xz", [one])
    assert code_names() == ("python",) and pack_names() == ("general", "python")
    source = PackSource("python", "train", "code")
    assert source.name == "code:python"
    assert list(source.documents(0)) == [Document("pkg/a.py", code, tag="python")]
    assert list(PackSource("python", "heldout", "code").documents(0)) == []
    with pytest.raises(CalibrationError, match="unknown code pack 'general'"):
        PackSource("general", "train", "code")


def test_a_stretch_of_a_file_answers_nothing(tmp_path: Path) -> None:
    one = {"id": "a", "split": "train", "answer": "file", "tag": "python", "code": "x = 1\n"}
    path = tmp_path / "python.jsonl.xz"
    write_pack(path, [one | {"instruction": "Write x."}])
    with pytest.raises(CalibrationError, match=r":2: file\.instruction"):
        read_pack(path)
