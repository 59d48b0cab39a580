"""Released code as packs: what of a package is taken, and how much of each."""

from __future__ import annotations

import io
import random
import string
import tarfile
import zipfile
from pathlib import Path

import pytest
import registries
import released

from subllm.making.textmaking.known import KnownText

NOTICE = "# Copyright somebody\n# All rights reserved\n\n"


def function(name: str, number: int) -> str:
    """Ten lines that share few 5-grams with those of another name or number."""
    draw = random.Random(f"{name}{number}")
    words = ["".join(draw.choices(string.ascii_lowercase, k=9)) for _ in range(20)]
    body = "".join(f"    {words[i]} = {words[i + 9]} + x * {i}\n" for i in range(9))
    return f"def {name}{number}(x):\n{body}    return {words[8]}\n\n\n"


def package(name: str, functions: int, share: int = 1) -> tuple[dict, registries.Archive]:
    files = {
        f"{name}/code.py": NOTICE + "".join(function(name, i) for i in range(functions)),
        f"{name}/tests/test_code.py": function(name, 999),
        f"{name}/notes.txt": "no code",
    }
    entry = {"registry": "pypi", "package": name, "version": "1", "licence": "MIT", "share": share}
    return entry, registries.Archive("0" * 64, files, "MIT, somebody")


def build(*packages: tuple[dict, registries.Archive], characters: int) -> released.CodePack:
    return released.build("python", list(packages), KnownText([]), characters)


def test_pieces_are_code_alone_and_nearly_all_of_it() -> None:
    pack = build(package("alpha", 30), characters=100_000)
    assert {sample["id"].partition("#")[0] for sample in pack.samples} == {"alpha/alpha/code.py"}
    assert all(sample["answer"] == "file" and sample["tag"] == "python" for sample in pack.samples)
    text = "".join(sample["code"] for sample in pack.samples)
    assert text.count("def alpha") == 30 and "Copyright" not in text


def test_each_package_gives_its_share_and_more_where_another_is_small() -> None:
    one, three, small = package("alpha", 90), package("beta", 90, share=3), package("gamma", 2)
    pack = build(one, three, characters=16_000)
    assert 2.0 < pack.taken["beta"] / pack.taken["alpha"] < 4.0
    filled = build(one, small, characters=16_000)
    assert filled.taken["gamma"] == 1 and filled.characters >= 16_000


def test_text_that_a_pack_must_not_have_is_left_out() -> None:
    entry, archive = package("alpha", 1)
    shown = function("shown", 1).rstrip() + "\n"
    files = {
        "a.py": shown + "    # see https://example.net/page and https://somewhere.org\n",
        "b.py": "".join(f"# line {i} of a comment\n" for i in range(20)) + "x = 1\n",
        "c.py": function("problem", 1),
        "d.py": "x = 1\n",
    }
    texts = registries.Archive(archive.sha256, files, archive.licence)
    problem = KnownText([files["c.py"]])
    pack = released.build("python", [(entry, texts)], problem, 10_000)
    assert pack.samples == []
    assert dict(pack.rejected) == {
        "address on the web": 1, "mostly comments": 1, "benchmark overlap": 1, "too short": 1,
    }  # fmt: skip


def test_archives_are_read_without_their_outer_folder(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, data in {
            "p-1/a.js": b"let x\r\n",
            "p-1/LICENSE": b"MIT",
            "p-1/b": b"\xff",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    (tmp_path / "npm-p-1").mkdir()
    (tmp_path / "npm-p-1/p-1.tgz").write_bytes(raw.getvalue())
    found = registries.fetch("npm", "p", "1", tmp_path)
    assert found.files == {"a.js": "let x\n", "LICENSE": "MIT"} and found.licence == "MIT"
    (tmp_path / "pypi-p-1").mkdir()
    with zipfile.ZipFile(tmp_path / "pypi-p-1/p.whl", "w") as wheel:
        wheel.writestr("p/a.py", "x = 1\n")
        wheel.writestr("p-1.dist-info/licenses/LICENSE", "BSD")
    found = registries.fetch("pypi", "p", "1", tmp_path)
    assert found.files["p/a.py"] == "x = 1\n" and found.licence == "BSD"


def test_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "Sources.xz").write_bytes(__import__("lzma").compress(b"Package: other\n"))
    with pytest.raises(LookupError, match=r"debian has no p 1"):
        registries.fetch("debian", "p", "1", tmp_path)
    assert not (tmp_path / "debian-p-1").exists() or not list((tmp_path / "debian-p-1").iterdir())
