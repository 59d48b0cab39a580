"""Names of bases and models, and what may not be one.

    base    family:size                    qwen2.5-coder:0.5b
    model   family:size-language[-tag]     qwen2.5-coder:0.5b-python-attn_dense

Everything is lower-case ASCII; a size holds no hyphen, so that a name splits in one
way only. A name is never used as a path: it is looked up in the store's index.
`dense` as a language is the unpruned base in the packed layout.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from subllm.errors import UsageError

DENSE = "dense"
MAX_LENGTH = 96

_FAMILY = r"(?P<family>[a-z0-9]+(?:[._-][a-z0-9]+)*)"
_SIZE = r"(?P<size>[a-z0-9]+(?:[._][a-z0-9]+)*)"
_LANGUAGE = r"(?P<language>[a-z][a-z0-9]*(?:_[a-z0-9]+)*)"
_TAG = r"(?P<tag>[a-z0-9]+(?:[._-][a-z0-9]+)*)"
_NAME = re.compile(rf"{_FAMILY}:{_SIZE}(?:-{_LANGUAGE}(?:-{_TAG})?)?")
_LANGUAGE_ONLY = re.compile(_LANGUAGE)


class ModelName(NamedTuple):
    """The parts of a model's name; `base` is `family:size`, `tag` may be empty."""

    base: str
    language: str
    tag: str

    def __str__(self) -> str:
        return f"{self.base}-{self.language}" + (f"-{self.tag}" if self.tag else "")


def check_name(name: str) -> str:
    """`name` itself when it is well-formed (a base's or a model's); UsageError otherwise."""
    _match(name)
    return name


def kind_of(name: str) -> Literal["base", "model"]:
    """What a well-formed name may refer to; UsageError when it is not well-formed."""
    return "model" if _match(name)["language"] else "base"


def base_name(name: str) -> str:
    """`family:size` of a base's or model's name."""
    match = _match(name)
    return f"{match['family']}:{match['size']}"


def split_model_name(name: str) -> ModelName:
    """The parts of `family:size-language[-tag]`; UsageError for anything else."""
    match = _match(name)
    if not match["language"]:
        raise UsageError(
            f"{_quoted(name)} names a base, not a model; add a language, as in {name}-python"
        )
    return ModelName(base_name(name), match["language"], match["tag"] or "")


def model_name(base: str, language: str, tag: str = "") -> str:
    """`base-language[-tag]`; UsageError when a part does not fit."""
    if kind_of(base) != "base":
        raise UsageError(f"{_quoted(base)} names a model, not a base; use {base_name(base)}")
    name = str(ModelName(base, language, tag))
    if split_model_name(name) != (base, language, tag):
        raise UsageError(
            f"language {language!r} holds a hyphen; write it with '_' or as a tag of its own"
        )
    return name


def check_model_name(name: str, language: str) -> str:
    """`name` when a model for `language` may have it; UsageError otherwise."""
    if split_model_name(name).language != language:
        raise UsageError(f"{name} cannot name a model for {language}; put the language in the name")
    return name


def check_language(language: str) -> str:
    """`language` when one may extract it: well-formed and not the reserved `dense`."""
    if language == DENSE:
        raise UsageError(
            "'dense' is reserved for the unpruned base; make it servable with 'subllm add BASE'"
        )
    if not _LANGUAGE_ONLY.fullmatch(language) or len(language) > MAX_LENGTH:
        raise UsageError(
            f"{_quoted(language)} is no name of a language; use lower-case letters, digits and '_'"
        )
    return language


def _match(name: str) -> re.Match[str]:
    if len(name) > MAX_LENGTH:
        raise UsageError(f"the name {_quoted(name)} is longer than {MAX_LENGTH} characters")
    match = _NAME.fullmatch(name)
    if match is None:
        lower = name.lower()
        hint = (
            f"did you mean {lower}?"
            if lower != name and _NAME.fullmatch(lower)
            else "write family:size or family:size-language[-tag], as in "
            "qwen2.5-coder:0.5b-python, with lower-case letters, digits, '.', '_' and '-'"
        )
        raise UsageError(f"{_quoted(name)} is not a well-formed name; {hint}")
    return match


def _quoted(name: str) -> str:
    """ASCII only and short, so that a hostile name cannot disturb a terminal."""
    return ascii(name if len(name) <= 60 else name[:57] + "...")
