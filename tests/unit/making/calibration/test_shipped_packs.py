"""The packs that are shipped: complete, large enough, and with clean splits."""

from __future__ import annotations

from collections import Counter

import pytest

from subllm.making.calibration.load import TextOrigin, load_calibration, load_heldout
from subllm.making.calibration.packs import (
    CODE,
    DATA,
    WRITTEN,
    CodeSample,
    FileSample,
    code_names,
    pack_names,
    read_pack,
    written_names,
)
from subllm.making.calibration.render import Renderer

from .tiny import FILL, FIM, MARK, tokenizer

LANGUAGES = ("cpp", "general", "java", "javascript", "python")
TRAIN_TOKENS, HELDOUT_TOKENS = 38_000, 8_000

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the packs have not been made; run scripts/make-packs"
)


def test_every_language_has_one() -> None:
    assert pack_names() == LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_pack_says_where_it_is_from(language: str) -> None:
    header = read_pack(DATA / f"{language}.jsonl.xz").header
    assert header.pack == language
    assert header.provenance["accepted"] == len(read_pack(DATA / f"{language}.jsonl.xz").samples)


# Strict: it fails when the packs have grown, and this mark must go.
def test_all_packs_are_large_enough() -> None:
    for language in LANGUAGES:
        # In tokens of the model that wrote them.
        tokens = read_pack(DATA / f"{language}.jsonl.xz").header.provenance["tokens"]
        assert tokens["train"] >= TRAIN_TOKENS and tokens["heldout"] >= HELDOUT_TOKENS


@pytest.mark.parametrize("language", LANGUAGES)
def test_splits_share_neither_instructions_nor_answers(language: str) -> None:
    samples = read_pack(DATA / f"{language}.jsonl.xz").samples
    assert len({sample.id for sample in samples}) == len(samples)
    for content in ("instruction", "answer"):
        texts: dict[str, set[str]] = {"train": set(), "heldout": set()}
        for sample in samples:
            answer = sample.code if isinstance(sample, CodeSample) else sample.text
            text = sample.instruction if content == "instruction" else answer
            texts[sample.split].add(" ".join(text.split()))
        assert not texts["train"] & texts["heldout"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_are_in_the_packs_language(language: str) -> None:
    samples = read_pack(DATA / f"{language}.jsonl.xz").samples
    kinds = Counter(sample.tag if isinstance(sample, CodeSample) else "" for sample in samples)
    if language == "general":
        assert kinds[""] and len(kinds) > 1
    else:
        assert set(kinds) == {language}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_pack_loads_in_every_form(language: str) -> None:
    data = load_calibration(
        "",
        TextOrigin(language),
        Renderer(tokenizer(), FIM),
        samples=128,
        seq_len=512,
        seed=0,
    )
    assert data.tokens.shape == (128, 512)
    text = tokenizer().decode(data.tokens.ravel().tolist())
    assert MARK in data.tokens and FILL in data.tokens
    assert "assistant\n" in text and "### Instruction:" in text
    # The tiny tokenizer has three or four tokens where a real one has one.
    heldout = load_heldout(TextOrigin(language), Renderer(tokenizer(), FIM))
    assert heldout.shape == (8, 512)


def test_every_single_language_has_released_code() -> None:
    assert code_names() == tuple(name for name in LANGUAGES if name != "general")


@pytest.mark.parametrize("language", code_names())
def test_released_code_may_be_passed_on(language: str) -> None:
    path = CODE / f"{language}.jsonl.xz"
    assert path.stat().st_size < 1_000_000
    pack = read_pack(path)
    assert pack.header.pack == f"code:{language}"
    packages = {entry["package"]: entry for entry in pack.header.provenance["packages"]}
    free = {"MIT", "ISC", "BSD-3-Clause", "Apache-2.0", "BSL-1.0"}
    assert {entry["licence"] for entry in packages.values()} <= free
    assert all(entry["notice"].strip() for entry in packages.values())
    pieces = Counter(sample.id.partition("/")[0] for sample in pack.samples)
    assert pieces == {name: entry["pieces"] for name, entry in packages.items()}
    assert all(isinstance(sample, FileSample) for sample in pack.samples)
    assert {sample.tag for sample in pack.samples} == {language}
    assert sum(len(sample.code) for sample in pack.samples) > 1_800_000


def test_every_single_language_has_written_functions() -> None:
    assert written_names() == code_names()


@pytest.mark.parametrize("language", written_names())
def test_written_functions_say_what_wrote_them(language: str) -> None:
    pack = read_pack(WRITTEN / f"{language}.jsonl.xz")
    assert pack.header.pack == f"written:{language}"
    told = pack.header.provenance
    assert told["accepted"] == len(pack.samples) > 150 and told["licence"]
    assert told["benchmark overlap"]["compared"] != "not checked"
    assert {sample.tag for sample in pack.samples} == {language}
