"""`subllm study` from end to end: a tiny base, real extraction, real programs, real pictures.

The tiny model writes printable characters and never a line end. So where a problem's prompt
ends in a comment, every completion is a comment, and the problem passes.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oracles.domain_rows import rows_of

from subllm.cli.study_options import told
from subllm.located_toml import read_toml
from subllm.measuring.evaluation.study.file import StudyFile, default_text
from subllm.measuring.report.masks.records import read_comparison
from subllm.measuring.report.study.records import read_study
from subllm.models.store.collect import remove
from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE, write_checkpoint

Command = Callable[..., Ran]
SMALL = (
    "--set",
    "sequences=4",
    "--set",
    "seq_len=64",
    "--set",
    "max_tokens=12",
    "--set",
    "batch=4",
)
PYTHON_FILE, JAVASCRIPT_FILE = "problems_python.jsonl", "problems_js.jsonl"


def python_problem(number: int, *, passes: bool) -> dict[str, Any]:
    end = "    return a + b #" if passes else ""
    return {
        "task_id": f"Python/{number}",
        "declaration": "def add(a, b):\n",
        "prompt": f"# {number}\ndef add(a, b):\n{end}",
        "canonical_solution": "\n" if passes else "    return a + b\n",
        "test": "def check(add):\n    assert add(1, 2) == 3\n\ncheck(add)\n",
    }


def javascript_problem(number: int, *, passes: bool) -> dict[str, Any]:
    end = "  return a + b //" if passes else ""
    return {
        "task_id": f"JavaScript/{number}",
        "declaration": "\nconst add = (a, b) => {\n",
        "prompt": f"// {number}\nconst add = (a, b) => {{\n{end}",
        "canonical_solution": "\n}\n" if passes else "  return a + b\n}\n",
        "test": "const testAdd = () => {\n  console.assert(add(1, 2) === 3)\n}\n\ntestAdd()\n",
    }


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def known_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    """What estimates of time start from: a second of measuring, which each run would spend."""
    monkeypatch.setattr("subllm.measuring.evaluation.study.run.read_bandwidth", lambda threads: 2e9)


@pytest.fixture
def data(tmp_path: Path) -> tuple[str, ...]:
    """Two Python problems of which one can pass, one of JavaScript that cannot."""
    python = write(
        tmp_path / PYTHON_FILE,
        python_problem(0, passes=True),
        python_problem(1, passes=False),
    )
    javascript = write(tmp_path / JAVASCRIPT_FILE, javascript_problem(0, passes=False))
    return "--set", f"data={python}", "--set", f"data={javascript}"


@pytest.fixture
def study(subllm: Command, data: tuple[str, ...], tmp_path: Path) -> Command:
    def run(*more: str) -> Ran:
        out = () if "--out" in more else ("--out", str(tmp_path / "study"))
        return subllm("study", "--set", f"base={BASE}", *data, *SMALL, *out, *more)

    return run


def place(ran: Ran) -> dict[tuple[str, str, str], float]:
    """(sub-model's language, task's language, score) -> value"""
    assert ran.status == 0, ran.err
    return {
        (cell["model"]["language"], cell["language"], score["name"]): score["value"]
        for cell in ran.json["cells"]
        for score in cell["scores"]
    }


def test_grid_records_tables_and_pictures(
    tiny: Store, study: Command, subllm: Command, tmp_path: Path
) -> None:
    options = ("--set", "calibration=general,python,javascript")
    ran = study(*options, "--json")
    scores = place(ran)
    models = ("dense", "general", "python", "javascript")
    assert scores == {
        **{(model, "python", "pass@1"): 0.5 for model in models},
        **{(model, "javascript", "pass@1"): 0.0 for model in models},
    }
    assert "humaneval-x: the data has no java problems" in ran.err
    # The names of other models are left to them; the dense base was there.
    names = {cell["model"]["name"] for cell in ran.json["cells"]}
    tagged = f"{BASE}-python-wanda_8_16"
    assert names == {f"{BASE}-dense", f"{BASE}-general", tagged, f"{BASE}-javascript"}
    assert tiny.model(f"{BASE}-python").pattern == "dense"
    made = tiny.model(tagged)
    assert (made.pattern, made.calibration and made.calibration.samples) == ("8:16", 4)

    out = tmp_path / "study"
    cells = {
        (c.model.name, c.language): c for c in read_study((out / "study.jsonl").read_text()).cells
    }
    cell = cells[tagged, "python"]
    assert cell.passed == {"Python/0": 1}
    assert (cell.asked, cell.samples, cell.data.source) == (2, 1, PYTHON_FILE)
    assert cell.model.digest == tiny.resolve(tagged)
    assert cell.solutions is not None and cell.solutions.passed == 2
    kept = [c for c in ran.json["contrasts"] if c["kind"] == "retention"]
    assert {c["value"] for c in kept} == {1.0}  # nothing can be kept of no JavaScript
    assert len(kept) == 3

    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    masks = f"masks/{BASE.replace(':', '-')}-wanda-8-16-int8-4x64"
    assert files == {
        *("study.jsonl", "study.md", "study.csv", "table3.csv", "table4.csv"),
        *("table4.png", "scores.png", "table3.png"),
        *(f"{masks}/masks{end}" for end in (".jsonl", ".md", ".csv")),
        *(f"{masks}/masks-{what}.png" for what in ("models", "types", "layers")),
        *(f"{masks}/overlay{end}" for end in (".jsonl", ".html")),
    }
    assert {Path(path) for path in ran.json["files"]} == {out / name for name in files}
    comparison = read_comparison((out / masks / "masks.jsonl").read_text())
    assert comparison.labels == ("general", "python-wanda_8_16", "javascript")
    for name in files:
        text = (out / name).read_bytes()
        assert str(tmp_path).encode() not in text, name
    page = (out / "study.md").read_text()
    assert f"--set data={PYTHON_FILE} --set data={JAVASCRIPT_FILE}" in page
    rows = list(csv.DictReader((out / "table4.csv").open()))
    ours = {(r["calibrated_on"], r["language"]): float(r["value"]) for r in rows
            if r["source"] == "ours"}  # fmt: skip
    assert ours[("general", "python")] == 0.5
    paper = {(r["calibrated_on"], r["language"]): float(r["kept"] or 1) for r in rows
             if r["source"] != "ours"}  # fmt: skip
    assert paper[("python", "python")] == pytest.approx(0.859, abs=5e-4)

    # Finished: nothing is measured again, and every file is the same.
    before = {name: (out / name).read_bytes() for name in files}
    again = study(*options, "--json")
    assert place(again) == scores
    assert {name: (out / name).read_bytes() for name in files} == before
    assert "8 cells (8 done)" in again.err

    # All but the records can be made again from them, without models or data.
    for name in files - {"study.jsonl", f"{masks}/masks.jsonl", f"{masks}/overlay.jsonl"}:
        (out / name).unlink()
    remove(tiny, tagged)
    ran = subllm("study", "--out", str(out), "--report-only")
    assert ran.status == 0, ran.err
    drawn = f"{masks}/overlay.html"  # its drawing library numbers elements at random
    assert (out / drawn).exists()
    after = {name: (out / name).read_bytes() for name in files}
    assert {**after, drawn: b""} == {**before, drawn: b""}
    table = ran.out.splitlines()
    assert max(map(len, table)) <= 80
    python = next(line for line in table if line.startswith("python "))
    assert python.split()[1] == "50.0*"


def test_runs_of_other_options_add_up(tiny: Store, study: Command, tmp_path: Path) -> None:
    first = study("--set", "calibration=general,python", "--json")
    sampled = (
        "--set",
        "calibration=python",
        "--set",
        "language=python",
        "--set",
        "k=1,2",
        "--set",
        "samples=2",
    )
    ran = study(*sampled, "--json")
    assert "2 models (0 to be made), 2 cells (0 done)" in ran.err
    scores = [
        (cell["model"]["language"], cell["language"], cell["drawing"]["temperature"], s["name"])
        for cell in ran.json["cells"]
        for s in cell["scores"]
    ]
    greedy = [(model, language, 0.0, "pass@1") for model in ("dense", "general", "python")
              for language in ("python", "javascript")]  # fmt: skip
    drawn = [(model, "python", 0.8, f"pass@{k}") for model in ("dense", "python") for k in (1, 2)]
    assert sorted(scores) == sorted(greedy + drawn)
    assert len(ran.json["commands"]) == 2
    page = (tmp_path / "study" / "study.md").read_text()
    assert "humaneval-x, greedy pass@1" in page
    assert "humaneval-x, pass@2 of 2 samples at temperature 0.8" in page
    # The masks are those of all sub-models, not of the last run.
    (masks,) = (tmp_path / "study" / "masks").glob("*/masks.jsonl")
    assert [m.language for m in read_comparison(masks.read_text()).models] == ["general", "python"]
    # Fewer problems do not take the place of more.
    ran = study("--set", "calibration=general,python", "--set", "limit=1", "--json")
    assert len(ran.json["cells"]) == len(first.json["cells"]) + 2 + 3
    ran = study("--set", "calibration=general,python", "--report-only")
    assert "3 cells of other data, fewer problems" in " ".join(ran.out.split())


@pytest.mark.usefixtures("small")
def test_models_of_the_store_as_they_are(
    tiny: Store, subllm: Command, data: tuple[str, ...], code: str, tmp_path: Path
) -> None:
    """Recovered ones, which no grid of methods and patterns makes, beside the dense one."""
    where = ["--base", BASE, "--calibration", code, "calibration.samples=4"]
    where += ["calibration.seq_len=64", "report.problems=false"]
    for language in ("python", "general"):
        ran = subllm("extract", language, *where, "--recover", "2048tok")
        assert ran.status == 0, ran.err
    assert subllm("add", BASE, "--values", "int4").status == 0
    names = tiny.names()
    models = [f"{BASE}-{language}" for language in ("dense", "python", "general")]
    out = ("--out", str(tmp_path / "study"))
    small = ("--set", "max_tokens=12", "--set", "batch=4")
    ran = subllm("study", "--set", "models=" + ",".join(models), *data, *small, *out, "--json")
    assert ran.status == 0, ran.err
    assert "3 models (0 to be made), 6 cells (0 done)" in ran.err
    assert tiny.names() == names
    assert {cell["model"]["name"] for cell in ran.json["cells"]} == set(models)
    budgets = {c["model"]["language"]: c["model"]["recovery"] for c in ran.json["cells"]}
    assert budgets == {"dense": "", "python": "2048tok", "general": "2048tok"}
    assert {c["kind"] for c in ran.json["contrasts"]} == {"retention", "margin"}
    command = ran.json["commands"][0]["command"]
    assert command.startswith(
        f"subllm study --set models={','.join(models)} --set tasks=humaneval-x "
    )
    assert ", recovered for 2048tok" in (tmp_path / "study" / "study.md").read_text()
    again = subllm("study", "--set", f"models={models[0]}", *data, *small, *out)
    assert "1 models (0 to be made), 2 cells (2 done)" in again.err
    for wrong, message in ((BASE, "is a base"), (f"{BASE}-jva", "did you mean")):
        ran = subllm("study", "--set", f"models={wrong}", *data, *out)
        assert (ran.status, ran.out) == (2, "")
        assert message in ran.err and "Traceback" not in ran.err


def test_plan_writes_nothing(tiny: Store, study: Command, tmp_path: Path) -> None:
    names = tiny.names()
    options = ("--set", "calibration=python,general", "--set", "tasks=humaneval-x,perplexity")
    ran = study(*options, "--set", "language=python", "--plan")
    assert ran.status == 0, ran.err
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[0] == ["MODEL", "WEIGHTS", "DONE", "ABOUT"]
    assert lines[1][:3] == [f"{BASE}-dense", "stored", "0/2"]
    assert lines[2][:2] == [f"{BASE}-python-wanda_8_16", "make,"]
    assert ["humaneval-x", "python", "2", "1", "0/3"] in [line[:5] for line in lines]
    assert ran.out.splitlines()[-1].startswith("6 cells to measure, about ")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert tiny.names() == names
    assert not (tmp_path / "study").exists()
    document = study(*options, "--set", "language=python", "--plan", "--json").json
    assert [cell["done"] for cell in document["cells"]] == [False] * 6
    assert document["seconds"] > 0


def test_methods_and_patterns_make_recipes_of_their_own(
    tiny: Store, study: Command, tmp_path: Path
) -> None:
    grid = ("--set", "calibration=general,python", "--set", "language=python", "--set", "limit=1")
    methods = ("--set", "methods=wanda,magnitude", "--set", "patterns=8:16,2:4")
    plan = study(*grid, *methods, "--plan", "--json").json
    assert [model["name"].removeprefix(f"{BASE}-") for model in plan["models"]] == [
        "dense", "general", "python-wanda_8_16", "general-wanda_2_4", "python-wanda_2_4",
        "general-magnitude_8_16", "general-magnitude_2_4",
    ]  # fmt: skip
    ran = study(*grid, "--set", "methods=magnitude", "--set", "patterns=8:16,2:4", "--json")
    assert ran.status == 0, ran.err
    models = {cell["model"]["name"]: cell["model"] for cell in ran.json["cells"]}
    assert [models[name]["pattern"] for name in sorted(models)] == ["dense", "2:4", "8:16"]
    assert tiny.model(f"{BASE}-general-magnitude_2_4").method.name == "magnitude"
    assert len(ran.json["contrasts"]) == 2
    page = (tmp_path / "study" / "study.md").read_text()
    for pattern in ("8:16", "2:4"):
        assert f"{BASE}, magnitude {pattern}, int8, head int8**" in page
    assert not (tmp_path / "study" / "masks").exists()  # nothing to compare with


def test_perplexity_agreement_and_a_domain(tiny: Store, study: Command, tmp_path: Path) -> None:
    rows = tmp_path / "math" / "gsm8k"
    rows.mkdir(parents=True)
    for split, count in (("train", 8), ("test", 3)):
        write(rows / f"{split}.jsonl", *rows_of("gsm8k", count))
    text = tmp_path / "own.jsonl"
    text.write_text(json.dumps({"text": "some text to measure on, " * 120}) + "\n")
    ran = study(
        *(
            "--set",
            "calibration=general,python",
            "--set",
            "tasks=humaneval-x,perplexity,agreement,math",
        ),
        *(
            "--set",
            "language=python",
            "--set",
            f"data=perplexity={text}",
            "--set",
            f"data=agreement={text}",
        ),
        *("--set", f"data=math={tmp_path / 'math'}", "--json"),
    )
    scores = place(ran)
    assert {key[0] for key in scores} == {"dense", "general", "python"}
    assert scores["python", "python", "perplexity"] > 1
    assert (
        0 < scores["python", "python", "agreement"] <= scores["dense", "python", "agreement"] == 1
    )
    (metric,) = {name for _, language, name in scores if language == "math"}
    assert metric.startswith("exact_match")
    out = tmp_path / "study"
    assert (out / "figure2.png").exists()
    with (out / "table3.csv").open() as file:
        ours = [row for row in csv.DictReader(file) if row["MODEL"] == f"{BASE} (ours)"]
    assert [row["DOMAIN"] for row in ours] == ["code", "math"]
    page = (out / "study.md").read_text()
    assert str(tmp_path) not in page
    assert (
        "--set data=perplexity=own.jsonl --set data=agreement=own.jsonl --set data=math=math"
        in page
    )
    assert "prompts a column" in page


def test_a_base_of_ones_own(tiny: Store, subllm: Command, tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "My-Coder-2M-Instruct", seed=1)
    text = tmp_path / "own.jsonl"
    text.write_text(json.dumps({"text": "some text to measure on, " * 120}) + "\n")
    ran = subllm(
        *("study", "--set", f"base={base}", "--set", "base_name=mine:1b"),
        *("--set", "calibration=general", "--set", "methods=magnitude"),
        *(
            "--set",
            "tasks=perplexity",
            "--set",
            "language=python",
            "--set",
            f"data=perplexity={text}",
        ),
        *("--out", str(tmp_path / "out"), "--json"),
    )
    assert ran.status == 0, ran.err
    names = {cell["model"]["name"] for cell in ran.json["cells"]}
    assert names == {"mine:1b-dense", "mine:1b-general-magnitude_8_16"}
    assert str(tmp_path) not in (tmp_path / "out" / "study.md").read_text()


@pytest.mark.long
def test_goes_on_after_ctrl_c(tiny: Store, tmp_path: Path, subllm: Command) -> None:
    slow = "import time\ntime.sleep(0.15)\n"
    rows = [{**python_problem(n, passes=True), "test": slow} for n in range(20)]
    many = write(tmp_path / "many.jsonl", *rows)
    out = tmp_path / "out"
    options = [
        "study",
        "--set",
        f"base={BASE}",
        "--set",
        "calibration=python",
        "--set",
        f"data={many}",
    ]
    options += [*SMALL, "--set", "batch=1", "--out", str(out), "--json"]
    environment = {**os.environ, "SUBLLM_HOME": str(tiny.root), "SUBLLM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "subllm", *options],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 400
        begun: list[Path] = []
        while not (begun and begun[0].read_bytes().count(b'"kind":"sample"') >= 2):
            assert time.monotonic() < until
            assert process.poll() is None, process.stderr and process.stderr.read()
            begun = list((tiny.root / "evaluations").glob("*-python-wanda_8_16-*.jsonl"))
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=240)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert "the same command goes on from here" in said
    done = read_study((out / "study.jsonl").read_text()).cells
    assert [cell.model.language for cell in done] == ["dense"]
    ran = subllm(*options)
    assert ran.status == 0, ran.err
    assert "2 cells (1 done)" in ran.err
    assert "samples are there already" in ran.err
    assert ran.json["cells"][0] == done[0].model_dump(mode="json")
    assert {len(cell["passed"]) for cell in ran.json["cells"]} == {20}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--set", "tasks=humanevl-x"], 2, "did you mean humaneval-x"),
        (["--set", "tasks=,"], 2, "a study without tasks measures nothing"),
        (["--set", "calibration=python,python"], 2, "calibration names python twice"),
        (["--set", f"base={BASE},b:1b", "--set", "base_name=c:1b"], 2, "base_name is for one base"),
        (["--set", "calibration=dense"], 2, "'dense' is reserved for the unpruned base"),
        (["--set", "calibration=python=/no/such/place"], 2, "/no/such/place"),
        (["--set", "methods=wand"], 2, "did you mean wanda"),
        (["--set", "patterns=9:16x"], 2, "9:16x"),
        (["--set", "values=int3"], 2, "int3"),
        (["--set", "language=pyton"], 2, "did you mean python"),
        (["--set", "language=java"], 2, "has no java problems"),
        (["--set", "k=10", "--set", "samples=5"], 2, "raise --samples"),
        (["--set", "tasks=perplexity"], 2, 'write TASK=PATH, as in data = ["perplexity=PATH"]'),
        (["--set", "base=tiny-coder:2m", "--plan"], 2, f"did you mean {BASE}"),
        (["--limit", "3"], 2, "--limit moved into the study's file or --set: limit = 3; see"),
        (["--tasks", "a,b"], 2, "tasks = ['a', 'b']; see 'subllm study --show'"),
        (["--set", "limt=3"], 2, "--set: unknown key 'limt'; did you mean limit?"),
        (["--set", "limit=few"], 2, "--set: key 'limit': "),
        (["--set", "limit"], 2, "write KEY=VALUE"),
        (["--report-only"], 2, "has no study.jsonl; run 'subllm study' there first"),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    arguments: list[str], status: int, message: str, tiny: Store, study: Command, tmp_path: Path
) -> None:
    ran = study(*arguments)
    assert (ran.status, ran.out) == (status, "")
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "study").exists()


def test_without_the_drawing_libraries_nothing_begins(
    tiny: Store, study: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tiny.names()
    monkeypatch.setitem(sys.modules, "treescope", None)
    ran = study("--set", "calibration=general")
    assert (ran.status, ran.out) == (2, "")
    assert "run: pip install 'subllm[report]'" in ran.err
    assert tiny.names() == names


def test_the_command_that_is_recorded_says_how_many_sequences() -> None:
    """Also where nobody did: another version may have another default."""
    options = StudyFile(base=["a:1b"]).options()
    command = told(options, Path("out"))
    assert f"--set sequences={options.sequences} --out out" in command
    assert command.startswith("subllm study --set base=a:1b --set calibration=general,python,")


def test_the_built_in_study_is_what_a_file_leaves_out(subllm: Command, tmp_path: Path) -> None:
    shown = subllm("study", "--show")
    assert (shown.status, shown.out) == (0, default_text())
    assert read_toml(shown.out, StudyFile, "", newest=1) == StudyFile()
    commented = shown.out.replace("# ", "")
    assert all(f"{key} = " in commented for key in StudyFile.model_fields)
    own = tmp_path / "own.toml"
    own.write_text('base = ["a:1b"]\nlimit = 3\n')
    ran = subllm("study", str(own), "--set", "limit=4", "--set", "k=1,10", "--show")
    assert ran.status == 0, ran.err
    read = read_toml(ran.out, StudyFile, "", newest=1)
    assert read == StudyFile(base=["a:1b"], limit=4, k=[1, 10])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limit = 3\nmethds = ['ria']", "own.toml:2: unknown key 'methds'; did you mean methods?"),
        ("\nlimit = 'few'", "own.toml:2: key 'limit': "),
        ("format = 2\nnew_key = 1", "own.toml:1: format 2 is newer than this version reads (1)"),
    ],
)
def test_a_bad_file_is_one_line(text: str, message: str, subllm: Command, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(text)
    ran = subllm("study", str(tmp_path / "own.toml"), "--out", str(tmp_path / "out"))
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err and ran.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_and_settings_ask_the_same(
    tiny: Store, study: Command, subllm: Command, data: tuple[str, ...], tmp_path: Path
) -> None:
    by_set = study("--set", "calibration=python", "--plan", "--json")
    files = [text.removeprefix("data=") for text in data[1::2]]
    own = tmp_path / "own.toml"
    own.write_text(
        f'base = ["{BASE}"]\ncalibration = ["python"]\ndata = {json.dumps(files)}\n'
        "sequences = 4\nseq_len = 64\nmax_tokens = 12\nbatch = 4\n"
    )
    by_file = subllm("study", str(own), "--out", str(tmp_path / "study"), "--plan", "--json")
    assert by_file.status == 0, by_file.err
    keep = ("model", "task", "language", "problems", "samples", "identity", "done")
    cells = [
        [{key: c[key] for key in keep} for c in ran.json["cells"]] for ran in (by_set, by_file)
    ]
    assert cells[0] == cells[1] != []


@pytest.mark.parametrize("command", ["eval", "study", "complete", "chat"])
def test_help_has_at_most_twelve_options(command: str, subllm: Command) -> None:
    lines = subllm(command, "--help").out.splitlines()
    shown = [line for line in lines if line.startswith("  -")]
    assert 5 <= len(shown) <= 12
