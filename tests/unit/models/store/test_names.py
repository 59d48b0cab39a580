"""Names: what is one, how it splits, and what hostile strings get."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subllm.errors import UsageError
from subllm.models.store.names import (
    MAX_LENGTH,
    base_name,
    check_language,
    check_name,
    kind_of,
    model_name,
    split_model_name,
)


@pytest.mark.parametrize(
    "name", ["qwen2.5-coder:0.5b", "codellama:7b", "gemma3:270m", "my_own.model:1", "a:8x7b"]
)
def test_bases(name: str) -> None:
    assert check_name(name) == name
    assert kind_of(name) == "base"
    assert base_name(name) == name
    with pytest.raises(UsageError, match="names a base"):
        split_model_name(name)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("qwen2.5-coder:0.5b-python", ("qwen2.5-coder:0.5b", "python", "")),
        ("qwen2.5-coder:0.5b-dense", ("qwen2.5-coder:0.5b", "dense", "")),
        ("a:1-cpp-attn-dense.v2", ("a:1", "cpp", "attn-dense.v2")),
        ("a-python:1-java-dense", ("a-python:1", "java", "dense")),
    ],
)
def test_models_split_and_join(name: str, parts: tuple[str, str, str]) -> None:
    assert kind_of(name) == "model"
    assert split_model_name(name) == parts
    assert model_name(*parts) == name
    assert base_name(name) == parts[0]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        "python",
        "auto",
        "a:",
        ":1b",
        "a:1b-",
        "a:1b--python",
        "a:1b-python-",
        "a:1b-2lang",
        "a:b:c",
        "../../etc/passwd",
        "a:../../etc/passwd",
        "..:..",
        "a..b:1",
        "a/b:1b",
        "a\\b:1b",
        "/a:1b",
        "~:1b",
        "a:1b\n",
        "\na:1b",
        "a:1b ",
        "a:1b\0",
        "a\0b:1b",
        "-a:1b",
        "--rm:1b",
        ".a:1b",
        "Qwen:1b",
        "a:0.5B",
        "а:1b",  # Cyrillic a
        "a：1b",  # full-width colon
        "a:１b",  # full-width digit
        "a:1b-pythοn",  # Greek omicron
        "a:1b‐python",  # Unicode hyphen
        "a\u200b:1b",  # zero-width space
        "a:1b-python\u0301",  # combining accent
        "a%2f:1b",
        "\udc80:1b",  # an undecodable byte of a command line
        "sha256-" + "0" * 64,
        "a" * MAX_LENGTH + ":1b",
    ],
)
def test_everything_else_is_refused_in_one_ascii_line(name: str) -> None:
    for check in (check_name, kind_of, base_name, split_model_name):
        with pytest.raises(UsageError) as caught:
            check(name)
        message = str(caught.value)
        assert message.isascii()
        assert message.isprintable()
        assert len(message) < 300


def test_upper_case_is_told_how_to_write_it() -> None:
    with pytest.raises(UsageError, match=r"did you mean qwen2\.5-coder:0\.5b\?"):
        check_name("Qwen2.5-Coder:0.5B")


def test_the_longest_name_is_accepted_and_one_more_is_not() -> None:
    name = "a:" + "1" * (MAX_LENGTH - 2)
    assert check_name(name) == name
    with pytest.raises(UsageError, match="longer than"):
        check_name(name + "1")


@pytest.mark.parametrize(
    ("base", "language", "tag"),
    [("a:1-python", "java", ""), ("a:1", "java-x", ""), ("a:1", "java", "X"), ("a:1", "", "x")],
)
def test_parts_that_do_not_fit_are_refused(base: str, language: str, tag: str) -> None:
    with pytest.raises(UsageError):
        model_name(base, language, tag)


def test_dense_cannot_be_extracted() -> None:
    assert check_language("clinical_medicine") == "clinical_medicine"
    with pytest.raises(UsageError, match="reserved"):
        check_language("dense")
    for language in ("", "C++", "py thon", "../x", "a-b", "a" * 200):
        with pytest.raises(UsageError, match="no name of a language"):
            check_language(language)


@given(st.text(max_size=30))
def test_only_harmless_characters_pass(name: str) -> None:
    try:
        check_name(name)
    except UsageError:
        return
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789:._-")
    assert ".." not in name
    assert name.count(":") == 1
