"""Grammars over tokens: whatever is chosen among those that are allowed, the form is kept."""

from __future__ import annotations

import json
import random
import threading
import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from oracles import tiny_models

from subllm.errors import UsageError
from subllm.models.text.grammar import Grammars, schema_grammar
from subllm.models.text.tokenizer import Tokenizer

SHAPE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "kind": {"enum": ["a", "b\n", "ü"]},
        "sizes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}},
    },
    "required": ["name", "kind", "sizes"],
    "additionalProperties": False,
}
SHAPE["properties"]["sizes"]["maxItems"] = 3


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(tiny_models.tokenizer())


def written(grammars: Grammars, grammar: str, seed: int) -> str:
    """Tokens drawn evenly from those that are allowed, up to an end."""
    tokenizer, chance = tiny_models.tokenizer(), random.Random(seed)
    matcher, ids = grammars.matcher(grammar), []
    for _ in range(300):
        bits = np.unpackbits(matcher.allowed().view(np.uint8), bitorder="little")
        token = int(chance.choice(np.flatnonzero(bits)))
        matcher.take(token)
        assert matcher.error is None
        if token in tokenizer.eos_ids:
            return tokenizer.decode(ids)
        assert token not in tokenizer.special_ids
        ids.append(token)
    raise AssertionError("it did not end")


def test_random_choices_keep_the_schema(grammars: Grammars) -> None:
    grammar = schema_grammar(SHAPE)
    for seed in range(20):
        value = json.loads(written(grammars, grammar, seed))
        assert list(value) == ["name", "kind", "sizes"]
        assert isinstance(value["name"], str) and len(value["name"]) <= 5
        assert value["kind"] in SHAPE["properties"]["kind"]["enum"]
        assert len(value["sizes"]) <= 3 and all(0 <= size <= 9 for size in value["sizes"])


def test_each_matcher_is_its_own(grammars: Grammars) -> None:
    grammar = schema_grammar({"const": "ab"})
    first, second = grammars.matcher(grammar), grammars.matcher(grammar)
    first.take(ord('"'))
    assert first.allowed().tolist() != second.allowed().tolist()


def test_a_token_that_is_not_allowed_is_an_error(grammars: Grammars) -> None:
    matcher = grammars.matcher(schema_grammar({"type": "integer"}))
    matcher.take(ord("x"))
    assert matcher.error and "\n" not in matcher.error


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nothing"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/$defs/missing"},
        {"type": "object", "propertyNames": {"maxLength": 3}},
        {"type": "string", "pattern": "("},
    ],
    ids=str,
)
def test_schemas_that_cannot_be_followed(grammars: Grammars, schema: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        grammars.matcher(schema_grammar(schema))
    assert "\n" not in str(caught.value)


def test_other_threads_run_while_the_tokens_are_sorted() -> None:
    """Streams of a server do. Measured by the CPU time that the sorting takes between two beats
    of another thread: seconds mean nothing on a busy machine."""
    grammars = Grammars(of_words(150_000))
    clock = time.pthread_getcpuclockid(threading.get_ident())
    beats: list[float] = []
    over = threading.Event()

    def beat() -> None:
        while not over.is_set():
            beats.append(time.clock_gettime(clock))
            time.sleep(0.001)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        grammars.matcher(schema_grammar(SHAPE))
    finally:
        over.set()
        thread.join()
    assert beats[-1] - beats[0] > 0.2, "it sorts nothing"
    assert max(later - sooner for sooner, later in pairwise(beats)) < 0.15


def of_words(size: int) -> Tokenizer:
    """A vocabulary of so many tokens."""
    definition = json.loads(json.loads(tiny_models.tokenizer().to_bundle())["tokenizer"])
    chance, vocab = random.Random(0), definition["model"]["vocab"]
    letters = list(vocab)
    while len(vocab) < size:
        word = "".join(chance.choices(letters, k=chance.randint(2, 10)))
        vocab.setdefault(word, len(vocab) + 3)  # special tokens are in between
    return Tokenizer.from_files(
        {
            "tokenizer.json": json.dumps(definition).encode(),
            "tokenizer_config.json": b'{"eos_token": "<|end|>"}',
        }
    )
