"""When two vocabularies are one, whatever holds them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from subllm.models.text.bpe_tables import tables_of
from subllm.models.text.coder import LibraryCoder
from subllm.models.text.same_ids import same_ids
from subllm.models.text.table_coder import TableCoder
from subllm.models.text.tokenizer import Tokenizer
from unit.models.text.tokenizer_samples import byte_level

Held = Callable[[Tokenizer], Tokenizer]


def in_tables(tokenizer: Tokenizer) -> Tokenizer:
    assert isinstance(tokenizer.coder, LibraryCoder)
    tables = tables_of(tokenizer.coder)
    assert tables is not None
    return Tokenizer(TableCoder(tables), tokenizer.facts, lambda: "")


def as_it_is(tokenizer: Tokenizer) -> Tokenizer:
    return tokenizer


@pytest.fixture(scope="module")
def definition(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A `tokenizer.json` of 600 tokens and two special ones."""
    made = byte_level(tmp_path_factory.mktemp("vocabulary") / "t.gguf", "gpt-2")[1]
    assert isinstance(made.coder, LibraryCoder)
    found: dict[str, Any] = json.loads(made.coder.definition)
    return found


def built(definition: dict[str, Any], **config: str) -> Tokenizer:
    files = {"tokenizer.json": definition, "tokenizer_config.json": config}
    return Tokenizer.from_files({name: json.dumps(data).encode() for name, data in files.items()})


def with_special(definition: dict[str, Any], *texts: str) -> dict[str, Any]:
    first = 1 + max(token["id"] for token in definition["added_tokens"])
    like = definition["added_tokens"][0]
    more = [{**like, "id": first + i, "content": text} for i, text in enumerate(texts)]
    return {**definition, "added_tokens": [*definition["added_tokens"], *more]}


def swapped(definition: dict[str, Any]) -> dict[str, Any]:
    """Two ordinary tokens have changed places; merges and everything else are the same."""
    vocab = dict(definition["model"]["vocab"])
    a, b = list(vocab)[300:302]
    vocab[a], vocab[b] = vocab[b], vocab[a]
    return {**definition, "model": {**definition["model"], "vocab": vocab}}


@pytest.mark.parametrize("second", [as_it_is, in_tables])
@pytest.mark.parametrize("first", [as_it_is, in_tables])
def test_the_same_but_for_what_only_one_has(
    first: Held, second: Held, definition: dict[str, Any]
) -> None:
    mine = first(built(definition, chat_template="a"))
    other = built(with_special(definition, "<|more|>", "<|still more|>"), chat_template="b")
    assert same_ids(mine, second(built(definition)))
    assert same_ids(mine, second(other)) and same_ids(second(other), mine)


@pytest.mark.parametrize("second", [as_it_is, in_tables])
@pytest.mark.parametrize("first", [as_it_is, in_tables])
def test_one_token_elsewhere_is_another_vocabulary(
    first: Held, second: Held, definition: dict[str, Any]
) -> None:
    mine = first(built(definition))
    assert not same_ids(mine, second(built(swapped(definition))))
    one, other = with_special(definition, "<|a|>", "<|b|>"), with_special(definition, "<|b|>")
    assert not same_ids(first(built(one)), second(built(other)))
