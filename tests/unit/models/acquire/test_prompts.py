"""Prompts and licences of models that the catalog does not know."""

from __future__ import annotations

import json

import pytest

from subllm.models.acquire.licences import licence_for
from subllm.models.acquire.prompts import guess_prompt, special_tokens
from subllm.models.catalog.loader import load_catalog
from subllm.models.catalog.schema import LicenceEntry

from .samples import CONFIG, TOKENIZER


@pytest.mark.parametrize(
    "name", ["qwen2.5-coder:0.5b", "starcoder2:3b", "deepseek-coder:1.3b", "codellama:7b"]
)
def test_the_markers_of_known_families_are_found(name: str) -> None:
    """From its special tokens alone, a model gets what its catalog entry says."""
    known = load_catalog().base(name).prompt
    assert known.fim is not None
    special = {*known.stop_tokens, known.fim.prefix, known.fim.suffix, known.fim.middle}
    guessed = guess_prompt(CONFIG, special)
    assert guessed.fim == known.fim
    assert guessed.context_length == CONFIG["max_position_embeddings"]
    missing = set(known.stop_tokens) - set(guessed.stop_tokens)
    assert all("pad" in token for token in missing)


def test_a_model_without_markers() -> None:
    guessed = guess_prompt(CONFIG, ("<s>", "</s>", "<|fim_prefix|>"))
    assert guessed.fim is None
    assert guessed.stop_tokens == ("</s>",)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"tokenizer.json": TOKENIZER},
            ("<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
        ),
        ({}, ()),
        ({"tokenizer.json": b"{"}, ()),
        ({"tokenizer.json": b"[]"}, ()),
        ({"tokenizer.json": json.dumps({"added_tokens": [1]}).encode()}, ()),
    ],
)
def test_special_tokens(files: dict[str, bytes], expected: tuple[str, ...]) -> None:
    assert special_tokens(files) == expected


def test_a_licence_text_is_always_there_where_the_licence_is_known() -> None:
    apache = LicenceEntry(id="Apache-2.0", url="https://apache.example")
    other = LicenceEntry(id="LicenseRef-Own", url="https://own.example")
    assert licence_for(apache, "its text").text == "its text"
    assert "Apache License, Version 2.0" in licence_for(apache, "").text
    assert "https://apache.example" in licence_for(apache, "").text
    assert licence_for(other, "").text == (
        "These weights are licensed under LicenseRef-Own; its terms are at https://own.example\n"
    )
    assert licence_for(None, "found").id == "LicenseRef-Unknown"
    assert licence_for(None, "found").text == "found"
    assert licence_for(None, "").text == ""
