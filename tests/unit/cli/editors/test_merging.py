"""Settings merged into files that people wrote: everything else stays, character by character."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
import yaml

from subllm.cli.editors import jsonc, toml_text, yaml_text
from subllm.cli.editors.scripts_text import LuaFile, VimBlock
from subllm.cli.editors.tool import merged
from subllm.errors import UsageError

NEW = {"a": {"x": 1, "y": [1, 2]}, "b.c": "new"}

JSON_FILES = {
    "": '{\n  "a": {\n    "x": 1,\n    "y": [\n      1,\n      2\n    ]\n  },\n  "b.c": "new"\n}\n',
    "{}": '{\n  "a": {\n    "x": 1,\n    "y": [\n      1,\n      2\n    ]\n  },\n  "b.c": "new"\n}',
    # A comment stays with what it follows, and the style of the file is kept.
    '{\n\t"z": 1 // one\n}\n': (
        '{\n\t"z": 1, // one\n\t"a": {\n\t\t"x": 1,\n\t\t"y": [\n\t\t\t1,\n\t\t\t2\n\t\t]\n\t},'
        '\n\t"b.c": "new"\n}\n'
    ),
    '{"b.c": "old", /* k */ "a": {"x": 0, "y": [1, 2], "k": null},}': (
        '{"b.c": "new", /* k */ "a": {"x": 1, "y": [1, 2], "k": null},}'
    ),
    '{\n  // "a": 1,\n  "a": {\n    "x": 1,\n    "k": {"u": "//"}, // last\n  },\n}\n': (
        '{\n  // "a": 1,\n  "a": {\n    "x": 1,\n    "k": {"u": "//"}, // last\n    "y": [\n'
        '      1,\n      2\n    ]\n  },\n  "b.c": "new"\n}\n'
    ),
    '\ufeff{\r\n    "a": 5\r\n}\r\n': (
        '\ufeff{\r\n    "a": {\r\n        "x": 1,\r\n        "y": [\r\n            1,\r\n'
        '            2\r\n        ]\r\n    },\r\n    "b.c": "new"\r\n}\r\n'
    ),
}


@pytest.mark.parametrize("text", JSON_FILES)
def test_json_with_comments(text: str) -> None:
    changed = jsonc.merge(text, NEW, {})
    assert changed == JSON_FILES[text]
    old = jsonc.parse(text) if text else {}
    assert jsonc.parse(changed) == merged(old, NEW)
    assert jsonc.merge(changed, NEW, {}) == changed


def test_json_gentle_settings_give_way() -> None:
    changed = jsonc.merge('{"a": 1, "n": {"p": 1}}', {"z": 1}, {"a": 2, "n": {"p": 2, "q": 2}})
    assert json.loads(changed) == {"a": 1, "n": {"p": 1, "q": 2}, "z": 1}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", 1),
        ('{\n"a" 1}', 2),
        ('{"a": 1}\n}', 2),
        ("{a: 1}", 1),
        ('{"a": tru}', 1),
        ("{'a': 1}", 1),
    ],
)
def test_json_that_is_none(text: str, line: int) -> None:
    with pytest.raises(UsageError, match=f"line {line} is no JSON"):
        jsonc.merge(text, NEW, {})


def test_json_that_is_no_object() -> None:
    with pytest.raises(UsageError, match="no JSON object"):
        jsonc.merge("[1]", NEW, {})


def test_json_of_great_depth() -> None:
    with pytest.raises(UsageError, match="no JSON"):
        jsonc.merge("[" * 100_000, NEW, {})


MODELS: dict[str, Any] = {"models": [{"name": "one", "roles": ["chat"]}, {"name": "two", "k": "v"}]}
OWN = "models:\n- name: one\n  roles:\n  - chat\n- name: two\n  k: v\n"

YAML_FILES = {
    "": f"version: 1\n{OWN}",
    "# mine\n": f"# mine\nversion: 1\n{OWN}",
    "version: 9  # nine": f"version: 9  # nine\n{OWN}",
    "models:\nversion: 9\n": (
        "models:\n  - name: one\n    roles:\n    - chat\n  - name: two\n    k: v\nversion: 9\n"
    ),
    "version: 9\nmodels: []\n": (
        "version: 9\nmodels: \n  - name: one\n    roles:\n    - chat\n  - name: two\n    k: v\n"
    ),
    # An item of ours is replaced, those of others and all comments stay.
    "models:\n  - name: mine # first\n    k: 1\n  - k: old\n    name: one\n\n# v\nversion: 9\n": (
        "models:\n  - name: mine # first\n    k: 1\n  - name: one\n    roles:\n    - chat\n"
        "  - name: two\n    k: v\n\n# v\nversion: 9\n"
    ),
}


@pytest.mark.parametrize("text", YAML_FILES)
def test_yaml(text: str) -> None:
    changed = yaml_text.merge(text, MODELS, {"version": 1})
    assert changed == YAML_FILES[text]
    assert yaml_text.merge(changed, MODELS, {"version": 1}) == changed


def test_yaml_of_plain_values() -> None:
    text = "# mine\nmodel: 'old'  # why\nkeep: yes\n"
    changed = yaml_text.merge(text, {"model": "openai/a:b", "n": 0}, {"keep": False})
    assert changed == "# mine\nmodel: openai/a:b  # why\nkeep: yes\nn: 0\n"
    assert yaml.safe_load(changed) == {"model": "openai/a:b", "keep": True, "n": 0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "is no YAML"),
        ("- a\n", "cannot be changed safely"),
        ("{a: 1}", "cannot be changed safely"),
        ("models: [{name: x}]\n", "cannot be changed safely"),
        ("a: 1\n---\nb: 2\n", "is no YAML"),
        ("base: &m [{name: x}]\nmodels: *m\n", "cannot be changed safely"),
    ],
)
def test_yaml_that_is_left_alone(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        yaml_text.merge(text, MODELS, {})


SERVER = {"server": {"endpoint": "http://h:1", "token": ""}}
TOML_FILES = {
    "": '[server]\nendpoint = "http://h:1"\ntoken = ""\n',
    '# mine\n[logs]\nlevel = "info"': (
        '# mine\n[logs]\nlevel = "info"\n\n[server]\nendpoint = "http://h:1"\ntoken = ""\n'
    ),
    '[server] # here\nendpoint = "x" # old\nmore = 1\n\n[logs]\ntoken = "other"\n': (
        '[server] # here\ntoken = ""\nendpoint = "http://h:1" # old\nmore = 1\n\n[logs]\n'
        'token = "other"\n'
    ),
}


@pytest.mark.parametrize("text", TOML_FILES)
def test_toml(text: str) -> None:
    changed = toml_text.merge(text, SERVER, {})
    assert tomllib.loads(changed) == merged(tomllib.loads(text), SERVER)
    assert sorted(changed.splitlines()) == sorted(TOML_FILES[text].splitlines())
    assert toml_text.merge(changed, SERVER, {}) == changed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[server", "is no TOML"),
        ('server = {endpoint = "x"}\n', "cannot be changed safely"),
        ('server.endpoint = "x"\n', "cannot be changed safely"),
    ],
)
def test_toml_that_is_left_alone(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        toml_text.merge(text, SERVER, {})


def test_vim_block() -> None:
    block = VimBlock("llama_config")
    text = block.merge("set nu\n", {"a": "it's", "b": True, "n": 3}, {})
    lines = text.splitlines()
    assert lines[1:5] == [
        "let g:llama_config = {",
        "    \\ 'a': 'it''s',",
        "    \\ 'b': v:true,",
        "    \\ 'n': 3,",
    ]
    assert lines[-1] == "set nu"
    again = block.merge(text, {"a": "new"}, {})
    assert again.count("let g:llama_config") == 1
    assert "'a': 'new'" in again
    assert again.endswith("\nset nu\n")
    with pytest.raises(UsageError, match="sets g:llama_config itself"):
        block.merge("let g:llama_config = {}\n", {"a": "x"}, {})


def test_lua_file() -> None:
    lua = LuaFile("a/b")
    text = lua.merge("", {"k": {"list": ["x"], "n": 1, "t": True}}, {})
    assert '    "a/b",' in text
    assert 'list = { "x" },' in text
    assert lua.merge(text, {"k": "v"}, {}).count("a/b") == 1
    with pytest.raises(UsageError, match="not of subllm's making"):
        lua.merge("return {}\n", {}, {})
