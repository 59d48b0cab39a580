"""What text says of its language: content, paths, fences, names."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.snippets import PREFIXES, SERVED_BY, UNCLEAR, WHOLE
from subllm.routing.content import of_content
from subllm.routing.detect import of_fences, of_names, of_prompt_path
from subllm.routing.languages import canonical, of_path


@pytest.mark.parametrize("language", WHOLE)
def test_content_of_whole_files(language: str) -> None:
    assert of_content(WHOLE[language]) == SERVED_BY.get(language, language)


@pytest.mark.parametrize(("prefix", "language"), PREFIXES)
def test_content_of_what_editors_complete(prefix: str, language: str) -> None:
    assert of_content(prefix) == language


@pytest.mark.parametrize("text", UNCLEAR)
def test_content_without_evidence_is_not_guessed(text: str) -> None:
    assert of_content(text) is None


def test_content_looks_at_both_ends_of_a_long_file() -> None:
    filler = "x y z\n" * 5000
    assert of_content(WHOLE["java"] + filler) == "java"
    assert of_content(filler + WHOLE["python"]) == "python"


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("src/app.py", "python"),
        ("C:\\work\\Main.java", "java"),
        ("a/b.H", "cpp"),
        ("x.tsx", "javascript"),
        ("page.vue", "javascript"),
        ("lib.rs", "rust"),
        ("Dockerfile", "dockerfile"),
        ("archive.tar.gz", None),
        ("README", None),
        (".", None),
        ("", None),
    ],
)
def test_paths(path: str, language: str | None) -> None:
    assert of_path(path) == language


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("C++", "cpp"),
        ("js", "javascript"),
        (".tsx", "javascript"),
        ("PY", "python"),
        ("Zig", "zig"),
    ],
)
def test_aliases(name: str, language: str) -> None:
    assert canonical(name) == language


@pytest.mark.parametrize(
    ("prompt", "language"),
    [
        ("<|file_sep|>src/main.cpp\nint x;", "cpp"),
        # repository level: the last file is the one being written
        ("<|repo_name|>r\n<|file_sep|>a.py\nx=1\n<|file_sep|>b.java\n", "java"),
        ("<|file_sep|>a.py\nx\n<|file_sep|>notes\n", "python"),
        ("<file_sep>web/app.ts\n", "javascript"),
        ("<filename>x.py\n", "python"),
        ("// Path: src/index.js\nfoo()", "javascript"),
        ("# file: a.py\nx\n# file: b.cpp\ny", "cpp"),
        ("<!-- path: page.vue -->\n", "javascript"),
        ("// src/main.cpp\nint x;", "cpp"),
        ("<|fim_prefix|># tools/run.py\n", "python"),
        ("int x;\n// src/main.cpp\n", None),  # a bare path counts in the first line only
        ("# see https://example.org/a.py for more", None),
        ("<|file_sep|>no extension\n", None),
    ],
)
def test_paths_in_prompts(prompt: str, language: str | None) -> None:
    assert of_prompt_path(prompt) == language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("```python\nx\n```", "python"),
        ("```c++\nx", "cpp"),
        ("~~~ts\nx\n~~~", "javascript"),
        ("> ```java\n> x", "java"),
        ("```{.js}\nx", "javascript"),
        ("```python:src/app.py\nx", "python"),
        ("```src/App.java\nx", "java"),
        ("```py\na\n```\n```cpp\nb\n```", "cpp"),  # the last one
        ("```py\na\n```\n```json\n{}\n```", "python"),  # data is no language to write in
        ("```bash\nls\n```", None),
        ("```\nx\n```", None),
        ("inline ```python``` code", None),
    ],
)
def test_fences(text: str, language: str | None) -> None:
    assert of_fences(text) == language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Write a function in Python that sorts.", "python"),
        ("a JavaScript closure, please", "javascript"),
        ("use C++17 for this", "cpp"),
        ("Write it in C.", "cpp"),
        ("Write a C program", "cpp"),
        ("vitamin C is good", None),
        ("translate this Java code to Python", "python"),
        ("rewrite this Python script in Java", "java"),
        ("fix utils.py", "python"),
        ("what does src/net/Client.java do?", "java"),
        ("explain java.util.List", None),
        ("in Go", "go"),
        ("let us go there", None),
        ("a C# class", "csharp"),
        ("like\n```\nimport java\n```\nbut in typescript", "javascript"),
        ("javascripty or pythonic", None),
        ("reverse a linked list", None),
    ],
)
def test_names(text: str, language: str | None) -> None:
    assert of_names(text) == language


PIECES = st.sampled_from(
    [
        *("\n", " ", "\t", "-", "a", ".", "/", "\\", "(", "[x for x in ", "const {", "function("),
        *("$x", "```", "<|", "#", "//", "public ", "List<", "`${", "\x00", "é", "\ud800", "in C"),
    ]
)


@given(st.lists(PIECES, max_size=60).map("".join))
def test_nothing_raises(text: str) -> None:
    for detect in (of_content, of_prompt_path, of_fences, of_names, of_path, canonical):
        detect(text)


@pytest.mark.parametrize("piece", ["\n", " \n", " ", "-", "./", "$x", "a.", "const {", "function("])
def test_time_is_bounded_whatever_a_client_sends(piece: str) -> None:
    text = (piece * 20_000)[:20_000] + "!"
    started = time.process_time()
    for detect in (of_content, of_prompt_path, of_fences, of_names):
        detect(text)
    assert time.process_time() - started < 2.0  # quadratic ones took 20
