"""README and docs say what is there: commands, options, files, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unit.docs.command_lines import commands_of, complaint, options_of
from unit.docs.markdown import Page, read_page

ROOT = Path(__file__).parents[3]
HISTORY = {"docs/LOG.md", "docs/study/study.md"}  # say what was: files and options of their time
PAGES = sorted(str(p.relative_to(ROOT)) for p in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
PRESENT = [page for page in PAGES if page not in HISTORY]

ROOMS = "kernels|models|engine|making|measuring|serving|sharing|cli"
_FILE = re.compile(rf"^(?:src|scripts|docs|tests|{ROOMS})/[\w./-]+")
README_LINES, README_COLUMNS, README_WORDS = 130, 100, 25


def page_at(name: str) -> Page:
    return read_page((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PRESENT)
def test_the_command_line_takes_every_command(name: str) -> None:
    assert not bad_commands(page_at(name))


@pytest.mark.parametrize("name", PRESENT)
def test_options_that_are_named_alone_are_there(name: str) -> None:
    assert not unknown_options(page_at(name))


@pytest.mark.parametrize("name", PRESENT)
def test_files_that_are_named_are_there(name: str) -> None:
    assert not missing_files(page_at(name))


@pytest.mark.parametrize("name", PRESENT)
def test_benchmarks_that_are_named_are_there(name: str) -> None:
    assert not bad_benchmarks(page_at(name))


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    assert not dead_links(name, page_at(name))


def test_every_page_of_docs_is_in_the_index() -> None:
    linked = {target.partition("#")[0] for target in page_at("docs/README.md").links}
    pages = {Path(p).name for p in PAGES if Path(p).parent == Path("docs")} - {"README.md"}
    assert pages <= linked


def test_the_readme_is_short() -> None:
    assert not too_much((ROOT / "README.md").read_text(encoding="utf-8"))


def bad_commands(page: Page) -> list[str]:
    said = [(call, complaint(call)) for call in commands_of(page)]
    return [f"subllm {' '.join(call)}: {what}" for call, what in said if what]


def unknown_options(page: Page) -> list[str]:
    """Of code that begins with an option: those that no command, no script and no call on the
    page has, as pages tell of other programs too."""
    named = {span.split()[0] for span in page.spans if span.startswith("--")}
    scripts = [p for p in ROOT.glob("scripts/**/*") if p.is_file() and p.suffix in ("", ".py")]
    told = " ".join(p.read_text(encoding="utf-8") for p in scripts)
    told += " ".join(line for _, lines in page.blocks for line in lines)
    return sorted(o for o in named - options_of() if not re.search(rf"{o}\b", told))


def missing_files(page: Page) -> list[str]:
    """Of code in the middle of lines that begins as a path, and of scripts that blocks call."""
    firsts = [span.split()[0] for span in page.spans if span.split()]
    for _, lines in page.blocks:
        firsts += [words[0] for line in lines if (words := line.removeprefix("$ ").split())]
    named = {m[0] for first in firsts if (m := _FILE.match(first)) and m[0] == first}
    named = {name for name in named if "NAME" not in name}
    return sorted(
        f for f in named if not any((r / f).exists() for r in (ROOT, ROOT / "src/subllm"))
    )


def bad_benchmarks(page: Page) -> list[str]:
    """Calls of scripts/bench that name none of them, or an option that it does not know."""
    lines = page.spans + [line.removeprefix("$ ") for _, block in page.blocks for line in block]
    bad = []
    for line in lines:
        _, found, rest = line.strip().rpartition("scripts/bench ")
        name, *words = rest.split("#")[0].split() or ["…"]
        if not found or not name.islower():
            continue
        sources = [ROOT / f"scripts/benchmarks/{part}.py" for part in (name, "frame")]
        known = "".join(s.read_text(encoding="utf-8") for s in sources if s.exists())
        options = [word for word in words if word.startswith("--") and word != "--help"]
        if not sources[0].exists() or not all(f'"{option}"' in known for option in options):
            bad.append(line)
    return bad


def dead_links(name: str, page: Page) -> list[str]:
    dead = []
    for target in page.links:
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = ROOT / Path(name).parent / file if file else ROOT / name
        if not path.exists():
            dead.append(target)
        elif anchor and path.suffix == ".md":
            there = page if not file else read_page(path.read_text(encoding="utf-8"))
            dead += [] if anchor in there.anchors else [target]
    return dead


def too_much(text: str) -> list[str]:
    lines = text.splitlines()
    said = [f"{len(lines)} lines"] if len(lines) > README_LINES else []
    said += [f"{len(line)} columns: {line}" for line in lines if len(line) > README_COLUMNS]
    for sentence in read_page(text).sentences:
        words = [word for word in sentence.split() if any(c.isalnum() for c in word)]
        if len(words) > README_WORDS:
            said.append(f"{len(words)} words: {sentence}")
    return said


# What these tests find, shown on text that is wrong.


@pytest.mark.parametrize(
    "line",
    [
        "subllm extract python --fsat",
        "subllm extarct python",
        "SUBLLM_OFFLINE=1 subllm extract python --fsat",
        "git diff | subllm complete --langauge python",
        "subllm extract python \\\n    --fsat",
        "subllm stop && subllm extract python --fsat  # quick",
        "subllm data mkae python",
        "subllm list more",
        "subllm recover NAME --for",
    ],
)
def test_what_the_command_line_does_not_take_is_found(line: str) -> None:
    assert len(bad_commands(read_page(f"text\n\n```bash\n{line}\n```\n"))) == 1
    if "\n" not in line and line.startswith("subllm "):
        assert len(bad_commands(read_page(f"text `{line}` text"))) == 1
        assert len(bad_commands(read_page(f"```console\n$ {line}\n```"))) == 1
    assert (
        len(bad_commands(read_page(f"text\n\n    {line.replace(chr(10), chr(10) + '    ')}\n")))
        == 1
    )


def test_an_option_that_nothing_has_is_found() -> None:
    text = "`--keep-alive`, `--peer no`, `--kep-alive 5m`, `--x`\n\n    other --x\n"
    assert unknown_options(read_page(text)) == ["--kep-alive"]


def test_what_a_command_prints_is_no_command() -> None:
    page = read_page("```console\n$ subllm list\nsubllm says --nothing\n```\n")
    assert list(commands_of(page)) == [["list"]]


def test_a_command_that_is_meant_for_another_is_left_alone() -> None:
    text = '```bash\ncurl -s http://127.0.0.1/v1 -d \'{"model": "subllm"}\'\nls subllm --x\n```\n'
    assert not list(commands_of(read_page(text)))


def test_files_links_and_anchors_that_are_not_there_are_found() -> None:
    page = read_page(
        "# A heading: here\n`scripts/install`, `scripts/nothing`, `kernels/sparsity/layout.py`,\n"
        "`kernels/layout.py` [b](#elsewhere) [c](nothing.md) [d](LOG.md) [e](README.md#more)\n"
        "\n    scripts/none --help\n"
    )
    assert missing_files(page) == ["kernels/layout.py", "scripts/none", "scripts/nothing"]
    assert dead_links("docs/page.md", page) == ["#elsewhere", "nothing.md", "README.md#more"]
    assert page.anchors == {"a-heading-here"}


def test_benchmarks_and_options_of_theirs_that_are_not_there_are_found() -> None:
    page = read_page(
        "`scripts/bench engine --peer no`, `scripts/bench NAME`, `scripts/bench egnine`"
    )
    assert bad_benchmarks(page) == ["scripts/bench egnine"]
    page = read_page(
        "```bash\nscripts/bench engine --pere no\nscripts/bench start --help  # --x\n```"
    )
    assert bad_benchmarks(page) == ["scripts/bench engine --pere no"]


def test_what_is_too_long_for_the_readme_is_found() -> None:
    words = " ".join(["word"] * 13)
    assert not too_much(f"{words}.\n{words}.\n\n| {words} |\n")
    assert too_much(f"{words}\n{words}.\n") == [f"26 words: {words} {words}."]
    assert too_much(f"- {words}\n  {words}\n") == [f"26 words: {words} {words}"]
    assert len(too_much("x" * 101)) == 1
    assert too_much("\n" * 131) == ["131 lines"]
