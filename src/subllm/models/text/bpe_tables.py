"""A byte pair encoding as flat arrays, which need no reading: they can lie in a mapped file.

The pipeline around the vocabulary (added tokens, normalisation, cutting into words,
decoding) stays with the `tokenizers` library, as a definition whose vocabulary has only
what a word can start from: single characters, bytes, and the tokens of the pipeline.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from subllm.models.text.coder import LibraryCoder
from subllm.models.text.token_bytes import is_byte_token

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class BpeTables:
    """For V ids, T tokens and M merges, M' of different pairs:

    pipeline  a `tokenizer.json` with a vocabulary of single symbols and no merges
    pairs     [M'] left << 32 | right, rising
    ranks     [M'] which of several pairs is merged first, the lowest
    results   [M'] the token that each becomes
    text      [bytes] spellings of all tokens by id, UTF-8
    ends      [V + 1] where each spelling begins and ends in `text`; empty where an id has
              no token
    order     [T] ids by their spelling's bytes
    """

    pipeline: str
    pairs: U64
    ranks: U32
    results: U32
    text: U8
    ends: U32
    order: U32


def tables_of(coder: LibraryCoder) -> BpeTables | None:
    """The same vocabulary as tables; None for one that they cannot express: not a BPE,
    merges left to chance or ignored for whole words, word prefixes or suffixes, ids
    shared by several tokens, added tokens that would be read as single symbols."""
    definition = json.loads(coder.definition)
    model = definition["model"]
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not _plain(definition, model):
        return None
    added = {
        token.content: number
        for number, token in coder.tokenizer.get_added_tokens_decoder().items()
    }
    unique = len(set(vocab.values())) == len(vocab) and "" not in vocab
    if not unique or any(_is_symbol(token) and token not in vocab for token in added):
        return None
    kept = {token: number for token, number in vocab.items() if _is_symbol(token)} | added
    if (unknown := model.get("unk_token")) in vocab:
        kept[unknown] = vocab[unknown]
    definition["model"] = {**model, "vocab": kept, "merges": []}
    pipeline = json.dumps(definition, ensure_ascii=False, separators=(",", ":"))
    return BpeTables(pipeline, *_merges(model["merges"], vocab), *_spellings(vocab))


def _plain(definition: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    odd = ("dropout", "ignore_merges", "continuing_subword_prefix", "end_of_word_suffix")
    return (
        model.get("type") == "BPE"
        and not any(map(model.get, odd))
        and not any(map(definition.get, ("truncation", "padding")))
        and not any(isinstance(merge, str) and merge[:1] == "#" for merge in model["merges"][:1])
    )


def _is_symbol(token: str) -> bool:
    """Whether a word may have it as a symbol before anything is merged."""
    return len(token) == 1 or is_byte_token(token)


def _merges(merges: list[Any], vocab: Mapping[str, int]) -> tuple[U64, U32, U32]:
    """Of a pair that is there twice the last counts, as in the library."""
    split = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    left = np.array([vocab[a] for a, _ in split], np.uint64)
    right = np.array([vocab[b] for _, b in split], np.uint64)
    results = np.array([vocab[a + b] for a, b in split], np.uint32)
    pairs = left << np.uint64(32) | right
    ranks = np.argsort(pairs, kind="stable")
    last = np.ones(len(ranks), bool)
    last[:-1] = pairs[ranks][1:] != pairs[ranks][:-1]
    ranks = ranks[last]
    return pairs[ranks], ranks.astype(np.uint32), results[ranks]


def _spellings(vocab: Mapping[str, int]) -> tuple[U8, U32, U32]:
    spelt = {number: token.encode() for token, number in vocab.items()}
    by_id = [spelt.get(number, b"") for number in range(max(spelt, default=-1) + 1)]
    ends = np.array([0, *accumulate(map(len, by_id))], np.uint32)
    order = np.array(sorted(spelt, key=spelt.__getitem__), np.uint32)
    return np.frombuffer(b"".join(by_id), np.uint8), ends, order
