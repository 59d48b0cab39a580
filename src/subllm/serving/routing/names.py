"""What a person calls a language: its name, a library or tool that belongs to it, a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from subllm.languages import of_path, words

# In lower case, found whatever the case.
_NAMES: dict[str, str] = {
    **dict.fromkeys(("javascript", "typescript", "ecmascript"), "javascript"),
    **dict.fromkeys(("node.js", "nodejs", "react", "react.js", "vue.js"), "javascript"),
    "java": "java",
    **dict.fromkeys(("python", "py3", "django", "numpy", "pandas", "pytest"), "python"),
    **dict.fromkeys(("c++", "cpp"), "cpp"),
    **dict.fromkeys(("c#", "csharp"), "csharp"),
    **dict.fromkeys(("objective-c", "objective-c++"), "objectivec"),
    **dict.fromkeys(("golang", "go-lang"), "go"),
    **dict.fromkeys(("rustlang", "rust-lang"), "rust"),
    **dict.fromkeys(("bash", "zsh"), "shell"),
    **{
        name: name
        for name in words(
            "kotlin php haskell sql ocaml erlang groovy powershell clojure fortran cobol matlab vba"
        )
    },
}
# Words of another meaning too: as they are written here.
_WRITTEN: dict[str, str] = {
    **dict.fromkeys(("JS", "TS", "js", "ts", "Node"), "javascript"),
    "py": "python",
    **{name: name.lower() for name in words("Rust Ruby Swift Scala Perl Lua Julia Elixir Dart")},
}
_LIBRARIES: dict[str, str] = {
    name: language
    for language, names in {
        "python": "pip virtualenv venv conda flask fastapi asyncio pytorch tensorflow scipy "
        "scikit-learn sklearn matplotlib sqlalchemy pydantic celery jupyter dataframe dataframes "
        "pyproject.toml requirements.txt setup.py poetry mypy pylint pyqt tkinter __init__ "
        "argparse itertools kwargs pickle",
        "java": "junit maven spring hibernate lombok jvm jdk jre mockito gradle jpa javac tomcat "
        "javafx hashmap concurrenthashmap arraylist nullpointerexception classnotfoundexception "
        "pom.xml jackson servlet servlets quarkus",
        "cpp": "cmake boost gcc g++ clang clang++ gdb lldb valgrind malloc stl qt qobject eigen "
        "unique_ptr shared_ptr constexpr segfault cuda vtable opengl mfc makefile ifdef "
        "cmakelists.txt iostream pthread pthreads",
        "javascript": "npm yarn pnpm express jquery vue angular svelte next.js nuxt webpack vite "
        "jest mocha eslint useeffect usestate redux nestjs deno babel package.json dom "
        "promise.all three.js d3 electron async/await settimeout localstorage",
    }.items()
    for name in words(names)
}
_PHRASES: tuple[tuple[str, str], ...] = (
    ("list comprehension", "python"),
    ("generator expression", "python"),
    ("segmentation fault", "cpp"),
    ("header guard", "cpp"),
    ("class template", "cpp"),
    ("header file", "cpp"),
    ("arrow function", "javascript"),
    ("promises", "javascript"),
    ("*args", "python"),
    ("std::", "cpp"),
    ("#pragma", "cpp"),
    ("#include", "cpp"),
    ("operator<<", "cpp"),
    ("===", "javascript"),
)
_CHUNK = re.compile(r"[\w./\\@+#:-]{1,200}")
_VERSION = re.compile(r"[ \d.]{1,8}$")
_FILE = re.compile(r"[\w./\\:-]*\w\.(?:[A-Za-z]{1,5}|[ch]\+\+)$")
_DATA = words("json yaml toml xml markdown html css sql latex shell dockerfile makefile")
_BEFORE = words("in to into using with as")
_BETWEEN = words("a an the some modern plain pure idiomatic valid clean vanilla")
_OF_C = words("code program programs function functions source struct header library language")
_OF_GO = frozenset(("code", "program", "function"))
_CONVERSIONS = words(
    "translate translated translating convert converted converting port porting rewrite "
    "rewriting rewritten transpile migrate migrating moving"
)
_ENDS = frozenset(".,:;!?")


@dataclass(frozen=True)
class Named:
    """target: the text wants its answer in it ("to Python", "in Java")."""

    language: str
    kind: Literal["name", "library"]
    target: bool


def of_names(text: str) -> str | None:
    """The language that a person names in `text` ("in C++", "a JavaScript function",
    "fix utils.py"). Of several, one that is a target wins, the last such one; else the first.
    Without any, a library or tool that belongs to one language."""
    found = list(_named(text))
    names = [named for named in found if named.kind == "name"]
    targets = [named.language for named in names if named.target]
    if targets:
        return targets[-1]
    if names or found:
        return (names or found)[0].language
    low = text.lower()
    return next((language for phrase, language in _PHRASES if phrase in low), None)


def of_conversion(text: str) -> str | None:
    """The language that `text` wants code to be translated to."""
    if not _CONVERSIONS & set(re.findall(r"[a-z]+", text.lower())):
        return None
    targets = [named.language for named in _named(text) if named.kind == "name" and named.target]
    return targets[-1] if targets else None


def _named(text: str) -> Iterator[Named]:
    chunks = [
        (match[0].rstrip(".:-/\\"), match.end() - len(match[0]) + len(match[0].rstrip(".:-/\\")))
        for match in _CHUNK.finditer(text)
    ]
    for at, (chunk, end) in enumerate(chunks):
        following = chunks[at + 1][0] if at + 1 < len(chunks) else ""
        closed = end >= len(text) or text[end] in _ENDS or text[end : end + 1] in ")\n"
        previous = [word.lower() for word, _ in chunks[max(0, at - 3) : at]]
        kind: Literal["name", "library"] = "name"
        leads = text[:end].strip() == chunk and text[end : end + 1] == ":"  # "C: how do I"
        language = _language(chunk, previous[-1:] == ["in"] and closed, leads, following)
        if language is None:
            language = _LIBRARIES.get(chunk.lower())
            kind = "library"
        if language is not None:
            while previous and previous[-1] in _BETWEEN:
                previous.pop()
            yield Named(language, kind, bool(previous) and previous[-1] in _BEFORE)


def _language(chunk: str, target: bool, leads: bool, following: str) -> str | None:
    if chunk == "C":
        return "cpp" if target or leads or following in _OF_C else None
    if chunk == "Go":
        return "go" if target or following in _OF_GO else None
    low = chunk.lower()
    language = _WRITTEN.get(chunk) or _NAMES.get(low) or _NAMES.get(_VERSION.sub("", low))
    if language is not None:
        return language
    if low == "c" or len(low) < 3:
        return None
    if _FILE.match(chunk) and not chunk.startswith(("http:", "https:")):
        of_file = of_path(chunk)
        return of_file if of_file not in _DATA else None
    if "/" in chunk and "." not in chunk:  # C/C++
        return _NAMES.get(low.rpartition("/")[2])
    return None
