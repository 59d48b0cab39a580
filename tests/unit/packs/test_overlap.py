from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import overlap
import pytest

from subllm.making.calibration.packs import DATA, code_names, pack_names, written_names

SHARED = Path(__file__).parents[4] / "shared" / "data"

SOLUTION = (
    "def rotate(values, count):\n"
    "    middle = len(values) - count % len(values)\n"
    "    return values[middle:] + values[:middle]\n"
)
HUMANEVAL = {"task_id": "HumanEval/7", "prompt": "def f():\n", "canonical_solution": SOLUTION}
MBPP = {
    "task_id": 11,
    "text": "Write a function to rotate the values of a list by the given count to the right.",
    "code": "x = 1",
    "test_list": ["assert x", "other = lambda a, b, c: tail(a, b, c, size, step, seed)"],
    "challenge_test_list": [],
}  # fmt: skip
MULTIPL_E = {"name": "HumanEval_3_rotate", "prompt": "", "tests": SOLUTION, "stop_tokens": ["\n"]}


def write_pack(directory: Path, name: str = "python", **changes: str) -> Path:
    """A pack of one clean sample and one with `changes` in it."""
    header = {"pack": name, "version": 1, "provenance": {}}
    clean = {
        "id": "a", "split": "train", "instruction": "Say hello.", "answer": "code",
        "tag": "python", "code": "print('hello')\n",
    }  # fmt: skip
    lines = [header, clean, {**clean, "id": "b", "split": "heldout", **changes}]
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}.jsonl.xz"
    path.write_bytes(lzma.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    return path


def write_problems(path: Path, *rows: dict[str, Any]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    ("row", "changes", "problem", "words"),
    [
        (HUMANEVAL, {"code": f"# mine\n{SOLUTION}"}, "HumanEval/7", "count middle len values"),
        (MULTIPL_E, {"code": SOLUTION.upper()}, "HumanEval_3_rotate", "count middle len v"),
        (MBPP, {"instruction": str(MBPP["text"])}, "11", "a function to rotate the values of a"),
        (MBPP, {"code": MBPP["test_list"][1]}, "11", "a b c tail a b c size step seed"),
    ],
)
def test_a_problem_in_a_pack_is_found_wherever_it_stands(
    row: dict[str, Any], changes: dict[str, str], problem: str, words: str, tmp_path: Path
) -> None:
    pack = write_pack(tmp_path / "packs", **changes)
    other = {"task_id": "HumanEval/8", "prompt": "nothing of the kind"}
    problems = overlap.read_problems(write_problems(tmp_path / "p.jsonl.gz", other, row))
    (found,) = overlap.find([pack], problems)
    assert (found.pack, found.sample, found.split) == ("python", "b", "heldout")
    assert (found.file, found.problem) == ("p.jsonl.gz", problem)
    assert found.words.startswith(words)
    assert len(found.words.split()) == 10


def test_nine_words_in_a_row_are_none(tmp_path: Path) -> None:
    words = "one two three four five six seven eight nine ten"
    problems = [overlap.Problem("p", "1", (words,))]
    near = write_pack(tmp_path / "near", code=words.replace("five", "5") + "\n")
    exact = write_pack(tmp_path / "exact", code=words + "\n")
    assert list(overlap.find([near], problems)) == []
    assert len(list(overlap.find([exact], problems))) == 1


def test_the_command_tells_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_problems(tmp_path / "data.jsonl", HUMANEVAL)
    packs = str(write_pack(tmp_path / "packs", code=SOLUTION).parent)
    assert overlap.main([str(tmp_path / "data.jsonl"), "--packs", packs]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[0] == (
        "python b (heldout) and data.jsonl HumanEval/7: "
        "count middle len values count len values return values middle"
    )
    assert out.endswith("1 problems of data.jsonl\n2 samples of python\n1 samples overlap\n")
    assert overlap.main([str(tmp_path), "--packs", packs, "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["problem"] == "HumanEval/7"
    write_pack(tmp_path / "packs")
    assert overlap.main([str(tmp_path), "--packs", packs]) == 0
    assert "\n0 samples overlap\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{there}"], "no problems given"),
        (["{there}/nowhere"], "nowhere is not there"),
        (["{there}", "{there}/broken.jsonl"], "broken.jsonl cannot be read"),
        (["{there}/good.jsonl", "--packs", "{there}"], "no packs in"),
    ],
)
def test_nothing_to_compare_is_no_success(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if any("jsonl" in argument for argument in arguments):
        write_problems(tmp_path / "good.jsonl", HUMANEVAL)
        (tmp_path / "broken.jsonl").write_text("{")
    given = [argument.replace("{there}", str(tmp_path)) for argument in arguments]
    assert overlap.main(given) == 2
    assert message in capsys.readouterr().err


@pytest.mark.shared
def test_shipped_packs_hold_no_benchmark_text(capsys: pytest.CaptureFixture[str]) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"NO BENCHMARK DATA: {SHARED} is not there")
    status = overlap.main([str(SHARED)])
    out = capsys.readouterr().out
    assert status == 0, out
    others = [*(f"code:{name}" for name in code_names())]
    others += [f"written:{name}" for name in written_names()]
    names = (*pack_names(), *others)
    assert f"samples of {', '.join(names)}" in out
    files = out.splitlines()[-3]
    for name in (
        "HumanEval",
        "humaneval_python",
        "humaneval_java",
        "humaneval_cpp",
        "humaneval_js",
    ):
        assert name in files


@pytest.mark.shared
def test_a_real_problem_in_a_shipped_pack_would_be_found(tmp_path: Path) -> None:
    path = SHARED / "HumanEval.jsonl.gz"
    if not path.exists():
        pytest.skip(f"NO BENCHMARK DATA: {path} is not there")
    with gzip.open(path, "rt") as lines:
        row = json.loads(next(lines))
    text = lzma.decompress((DATA / "python.jsonl.xz").read_bytes()).decode().splitlines()
    sample = json.loads(text[1])
    sample["code"] += row["prompt"] + row["canonical_solution"]
    pack = tmp_path / "python.jsonl.xz"
    pack.write_bytes(lzma.compress("\n".join([text[0], json.dumps(sample), *text[2:]]).encode()))
    found = list(overlap.find([pack], overlap.read_problems(path)))
    assert {each.sample for each in found} == {sample["id"]}
    assert row["task_id"] in {each.problem for each in found}  # others hold some of its words
