"""What text says of its language: content, paths, fences, names."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subllm.languages import canonical, is_known, of_path
from subllm.serving.routing.content import of_content, of_head, window
from subllm.serving.routing.detect import of_fences, of_prompt_path
from subllm.serving.routing.model import detector
from subllm.serving.routing.names import of_conversion, of_names
from subllm.serving.routing.prose import split
from unit.serving.routing.snippets import PREFIXES, SERVED_BY, UNCLEAR, WHOLE


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
        ("C/C++ pointers", "cpp"),
        ("C: how do I compare strings?", "cpp"),
        ("python3.11 syntax", "python"),
        ("a C function", "cpp"),
        ("go on", None),
        ("How do I test for an exception with JUnit?", "java"),
        ("a pandas frame in Java", "java"),  # a name before what belongs to one
        ("When is std::move needed?", "cpp"),
        ("npm does not start", "javascript"),
        ("see https://example.org/x.py", None),
        ("reverse a linked list", None),
    ],
)
def test_names(text: str, language: str | None) -> None:
    assert of_names(split(text)[0]) == language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Translate this Java code to Python:", "python"),
        ("convert the following from Ruby into C++, please", "cpp"),
        ("Explain this Java code in simple words", None),
        ("How do I convert a string to a number in Java?", "java"),
        ("translate the comments", None),
    ],
)
def test_conversions(text: str, language: str | None) -> None:
    assert of_conversion(text) == language


def test_prose_and_code_without_fences() -> None:
    code = "class A:\n    # written in Java\n    def f(self):\n        return 1"
    prose, found = split(f"What does this do?\n\n{code}\n\nI am not sure at all.")
    assert prose.split("\n") == ["What does this do?", "", "", "I am not sure at all."]
    assert found == code
    assert split("Why?\n```\nint x;\n```\nThanks") == ("Why?\n\n\nThanks", "int x;\n")


def test_languages_that_editors_send_are_known() -> None:
    for name in ("C++", "typescriptreact", "objective-c", "shellscript", "zig", "", "plaintext"):
        assert is_known(name)
    assert not is_known("klingon")


JAVA_NOTICE = (
    "/*\n" + " * Licensed to the Foundation under one or more agreements.\n" * 40 + " */\n"
)
WORST = [
    (JAVA_NOTICE + "package org.example;\n\nimport java.util.List;\n\n", "java"),
    ("    /**\n     * Returns the name.\n     *\n     * @param key the key, never {@code null}\n"
     "     * @return the name\n     * @throws IllegalStateException if closed\n     */\n"
     "    public String name(Key key) {\n", "java"),
    ("public class A { void f() {} }", "java"),
    ("class Greeter(private val name: String) {\n    fun greet(): String {\n"
     "        val text = \"Hello, $name\"\n        println(text)\n        return text\n    }\n}\n",
     "kotlin"),
    ("require 'json'\n\nmodule Shop\n  class Cart\n    attr_reader :items\n\n"
     "    def initialize(items = [])\n      @items = items\n    end\n\n"
     "    def total\n      items.map(&:price).sum\n    end\n  end\nend\n", "ruby"),
    ("static void\nqueue_item_finalize (GObject *object)\n{\n"
     "  QueueItem *self = QUEUE_ITEM (object);\n\n  g_free (self->title);\n", "cpp"),
    ("    event.preventDefault()\n    view.domObserver.flush()\n"
     "    let start = view.state.doc.resolve(pos)\n"
     "    if (start.parent != end.parent) return null\n", "javascript"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "language"), WORST)
def test_what_was_once_taken_for_another(text: str, language: str) -> None:
    assert of_content(text) == language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("#!/usr/bin/env python3\n\n", "python"),
        ("#!/usr/bin/env -S node --no-warnings\nx", "javascript"),
        ("#!/bin/sh\nx", "shell"),
        ("// -*- mode: c++; tab-width: 4 -*-\nx", "cpp"),
        ("# vim: set ft=ruby :\nx", "ruby"),
        ("<?php\nx", "php"),
        ("<!DOCTYPE html>\nx", "html"),
        ("# -*- coding: utf-8 -*-\n", None),
    ],
)
def test_what_a_head_says(text: str, language: str | None) -> None:
    assert of_head(text) == language


def test_the_suffix_counts_and_of_long_texts_a_part_is_read() -> None:
    assert of_content("x", "\n" + WHOLE["java"]) == "java"
    assert len(window("a" * 10**6, "b" * 10**6)) < 8_000
    assert of_content(JAVA_NOTICE * 50 + WHOLE["python"]) == "python"


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


@pytest.mark.parametrize(
    "piece", ["\n", " ", "x = 1\n", "```\n", "a b c. ", "<|file_sep|>x\n", "/*"]
)
def test_megabytes_take_as_long_as_a_page(piece: str) -> None:
    text = piece * (4_000_000 // len(piece))
    detector()
    started = time.process_time()
    of_prompt_path(text), of_fences(text), of_content(text, text)
    assert time.process_time() - started < 0.25
