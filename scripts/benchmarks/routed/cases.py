"""What the router is asked when it is measured: real files, cut at random.

A row is a query and the language whose sub-model should answer; None where none of the four
should (Kotlin, Ruby, YAML, ...). No row tells a path: that would answer most of them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from detector.corpus import File

from subllm.languages import LANGUAGES, words
from subllm.serving.routing.router import Message, Query

QUESTIONS = Path(__file__).with_name("questions.yaml")
FEWEST = 10  # files of a language that a package must have: few are seldom what it is written in
LINES_BEFORE, LINES_AFTER = 256, 64
ROWS = 100  # of each of the four languages and kind, as many of all others together
NAMES = {
    "python": ["Python", "python", "Python 3"],
    "java": ["Java", "Java", "java"],
    "cpp": ["C++", "c++", "C++17"],
    "c": ["C"],
    "javascript": ["JavaScript", "javascript", "JS"],
    "typescript": ["TypeScript"],
    "csharp": ["C#"],
    "php": ["PHP"],
    "objectivec": ["Objective-C"],
    "ocaml": ["OCaml"],
    "shell": ["Bash", "bash"],
    "r": ["R"],
    **{
        name: [name.capitalize()]
        for name in words("kotlin ruby go rust swift scala perl lua haskell elixir erlang groovy")
    },
}
TAGS = {"csharp": "csharp", "objectivec": "objc", "shell": "bash"}
_MARKED = [
    "<|fim_prefix|>{0}<|fim_suffix|>{1}<|fim_middle|>",
    "<fim_prefix>{0}<fim_suffix>{1}<fim_middle>",
    "<|fim▁begin|>{0}<|fim▁hole|>{1}<|fim▁end|>",
]


@dataclass(frozen=True)
class Row:
    """kind: file, fim, fragment, chat or editor; name: of the file, and of the kind of question;
    written: the language of the file."""

    kind: str
    name: str
    written: str
    expected: str | None
    query: Query


def rows(files: Iterator[File], part: str, count: int = ROWS) -> list[Row]:
    """The same for the same files."""
    by_language: dict[str, dict[str, list[File]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        if file.language != "prose":
            by_language[file.language][file.name.split("/")[0]].append(file)
    for packages in by_language.values():
        for name in [name for name, found in packages.items() if len(found) < FEWEST]:
            del packages[name]
    draw = random.Random(7)
    questions = yaml.safe_load(QUESTIONS.read_text())[part]
    others = sorted(name for name, found in by_language.items() if found and name not in LANGUAGES)
    kinds: list[tuple[str, Callable[[File], Row | None]]] = [
        ("file", _file),
        ("fim", lambda file: _fim(file, draw)),
        ("fragment", lambda file: _fragment_row(file, draw)),
        ("chat", lambda file: _chat(file, draw, questions)),
        ("editor", lambda file: _editor(file, draw)),
    ]
    found = []
    for _, make in kinds:
        for group in [[name] for name in LANGUAGES] + [others]:
            rows_of_group = 0
            while rows_of_group < count:
                # A package of a language as often as another, a large one not more.
                packages = by_language[draw.choice(group)]
                row = make(draw.choice(packages[draw.choice(sorted(packages))]))
                if row is not None:
                    found.append(row)
                    rows_of_group += 1
    return found


def _row(kind: str, file: File, query: Query, expected: str | None = None) -> Row:
    own = file.language if file.language in LANGUAGES else None
    return Row(kind, file.name, file.language, expected or own, query)


def _file(file: File) -> Row:
    return _row("file", file, Query(prompt=file.text))


def _fim(file: File, draw: random.Random) -> Row:
    """Around a cursor; as long as editors send it, between 200 and 4,000 characters before and
    up to half of that after, cut at lines but for the cursor."""
    at = draw.randrange(len(file.text))
    reach = round(200 * 20 ** draw.random())
    before = file.text[max(0, at - reach) : at]
    after = file.text[at : at + draw.randrange(reach // 2 + 1)]
    if at > reach:
        before = before.partition("\n")[2] or before
    if draw.random() < 0.5:
        return _row("fim", file, Query(prompt=before, suffix=after))
    return _row("fim", file, Query(prompt=draw.choice(_MARKED).format(before, after)))


def _editor(file: File, draw: random.Random) -> Row:
    """Around a cursor, with as many lines as llama.vim and llama.vscode send."""
    at = draw.randrange(len(file.text))
    before = file.text[:at].split("\n")[-1 - LINES_BEFORE :]
    after = file.text[at:].split("\n")[: 1 + LINES_AFTER]
    return _row("editor", file, Query(prompt="\n".join(before), suffix="\n".join(after)))


def _fragment(file: File, draw: random.Random) -> str | None:
    lines = file.text.splitlines()
    wanted = draw.randint(5, 30)
    start = draw.randrange(max(1, len(lines) - wanted))
    cut = lines[start : start + wanted]
    if sum(bool(line.strip()) for line in cut) < 5:
        return None
    return "\n".join(cut)


def _fragment_row(file: File, draw: random.Random) -> Row | None:
    text = _fragment(file, draw)
    return None if text is None else _row("fragment", file, Query(prompt=text))


def _chat(file: File, draw: random.Random, questions: dict[str, Any]) -> Row | None:
    code = _fragment(file, draw)
    if file.language not in (*LANGUAGES, *NAMES) or code is None:
        return None  # nobody asks for a program in YAML
    name, tag = _name(file, draw)
    kind = draw.choices(
        ["tagged", "named", "plain", "target", "about"], weights=[15, 25, 40, 10, 10]
    )[0]
    if kind == "about" and file.language not in LANGUAGES:
        kind = "plain"
    asked = questions[kind]
    text = draw.choice(asked[file.language] if kind == "about" else asked)
    expected = None
    if kind == "target":
        # The code is in the other language.
        expected = draw.choice([x for x in LANGUAGES if x != file.language])
        other, name = name, draw.choice(NAMES[expected])
    else:
        other = ""
    for slot, value in {
        "{name}": name, "{tag}": tag, "{other}": other,
        "{file}": PurePosixPath(file.name).name, "{code}": code,
    }.items():  # fmt: skip
        text = text.replace(slot, value)
    row = _row("chat", file, Query(messages=(Message("user", text),)), expected)
    return Row(row.kind, f"{kind}: {row.name}", row.written, row.expected, row.query)


def _name(file: File, draw: random.Random) -> tuple[str, str]:
    """What people call the language of a file, and the tag of its fences."""
    called = _dialect(file.name, file.language)
    return draw.choice(NAMES[called]), TAGS.get(called, called)


def dialect(row: Row) -> str:
    """What a row is written in, C and TypeScript apart."""
    return _dialect(row.name, row.written)


def _dialect(name: str, language: str) -> str:
    extension = PurePosixPath(name).suffix.lower()
    if extension == ".c":
        return "c"
    return "typescript" if extension in (".ts", ".tsx", ".mts") else language
