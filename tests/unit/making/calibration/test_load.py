"""From what a user writes after --calibration to the matrix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subllm.errors import CalibrationError, OfflineError, TableError, UnknownNameError
from subllm.making.calibration.load import (
    Beside,
    TextOrigin,
    load_calibration,
    load_heldout,
    load_heldout_texts,
    load_texts,
    own_heldout,
)
from subllm.making.calibration.render import Renderer
from subllm.making.calibration.sampler import Amount, digest
from subllm.making.calibration.source import CalibrationData, Texts
from subllm.models.catalog.loader import load_catalog
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.text.tokenizer import Tokenizer

from .tiny import CODE, END, FIM, MARK, PLAIN, tokenizer

pytestmark = pytest.mark.usefixtures("pack_directory")
TOKENIZER = tokenizer()


def load(spec: str = "", **changes: Any) -> CalibrationData:
    rows = {"samples": 8, "seq_len": 64, "seed": 0}
    rows |= {name: changes.pop(name) for name in list(changes) if name in rows}
    return load_calibration(spec, *origin_and_renderer(**changes), **rows)


def origin_and_renderer(
    language: str = "python", text: Tokenizer = TOKENIZER, prompt: PromptSpec = FIM, **origin: Any
) -> tuple[TextOrigin, Renderer]:
    return TextOrigin(language, **origin), Renderer(text, prompt)


def tree(root: Path, count: int = 40, suffix: str = "py") -> Path:
    root.mkdir()
    for i in range(count):
        (root / f"m{i}.{suffix}").write_text(CODE.replace("math", f"module_{i}"))
    return root


def test_the_languages_own_pack_is_the_default() -> None:
    data = load()
    assert data.tokens.shape == (8, 64) and data.tokens.dtype == np.int32
    assert data.source == "pack:python" and data.seed == 0
    assert data.digest == digest(data.tokens)
    assert data.unique_tokens == 8 * 64
    assert np.array_equal(load("pack:python").tokens, data.tokens)


def test_same_arguments_same_tokens_and_the_seed_counts() -> None:
    assert load().digest == load().digest
    assert load().digest != load(seed=1).digest
    # Written once: a change of this digest changes every user's sub-models.
    assert (
        load().digest == "sha256-a99d2e3820f95f0ad21cc60a01e8de836829cecebc8af7e1a0f94116a8fd48f6"
    )


def test_small_packs_go_round_in_other_forms() -> None:
    data = load(samples=200)
    assert data.tokens.shape == (200, 64)
    assert 600 < data.unique_tokens < 200 * 64
    rows = {tuple(row) for row in data.tokens.tolist()}
    assert len(rows) > 150


def test_heldout_text_is_not_in_the_training_text() -> None:
    train = TOKENIZER.decode(load(samples=60).tokens.ravel().tolist())
    heldout = load_heldout(*origin_and_renderer(), sequences=3, seq_len=64)
    assert heldout.shape == (3, 64) and heldout.dtype == np.int32
    text = TOKENIZER.decode(heldout.ravel().tolist())
    for i in range(16):
        assert (f"x + {i}\n" in train) == (i < 12)
        assert i >= 12 or f"x + {i}\n" not in text
    assert any(f"x + {i}\n" in text for i in range(12, 16))


def test_heldout_text_is_never_repeated() -> None:
    found = load_heldout(*origin_and_renderer("general"), sequences=100, seq_len=64)
    assert 2 <= len(found) < 20
    with pytest.raises(CalibrationError, match=r"pack:general leaves \d+ tokens of general to"):
        load_heldout(*origin_and_renderer("general"), sequences=2, seq_len=4000)
    with pytest.raises(CalibrationError, match="unknown pack 'fortran'"):
        load_heldout(*origin_and_renderer("fortran"))


def test_rows_of_a_model_with_bos() -> None:
    data = load(text=tokenizer(bos=True), prompt=PLAIN)
    assert data.tokens.shape == (8, 64)
    assert (data.tokens[:, 0] == MARK).all()


def test_a_directory(tmp_path: Path) -> None:
    root = tree(tmp_path / "code")
    data = load(str(root), samples=20)
    moved = load(str(tree(tmp_path / "elsewhere")), samples=20)
    assert moved.digest == data.digest
    assert data.source == f"path:{root}"
    assert END in data.tokens and "module_" in TOKENIZER.decode(data.tokens.ravel().tolist())
    with pytest.raises(CalibrationError, match="no java files"):
        load(str(root), language="java")


def test_a_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path / "code")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/code").source == f"path:{tmp_path}/code"
    assert load("~/code=1,pack:python=1").source.startswith(f"mix:path:{tmp_path}/code=0.5,")


def test_a_language_without_a_pack_keeps_an_eighth_back(tmp_path: Path) -> None:
    root = tree(tmp_path / "code", suffix="go")
    train = load(str(root), language="go", prompt=PLAIN, samples=200).tokens
    heldout = load_heldout(
        *origin_and_renderer("go", prompt=PLAIN), spec=str(root), sequences=50, seq_len=64
    )
    texts = [TOKENIZER.decode(t.ravel().tolist()) for t in (train, heldout)]
    seen = [{i for i in range(40) if f"import module_{i}\n" in text} for text in texts]
    assert seen[0] and seen[1] and not seen[0] & seen[1]
    with pytest.raises(CalibrationError, match="unknown pack 'go'"):
        load("", language="go")


def texts_of(texts: Texts) -> str:
    return "".join(TOKENIZER.decode(document) for document in texts.documents)


def test_own_text_is_held_out_also_where_the_language_has_a_pack(tmp_path: Path) -> None:
    root = str(tree(tmp_path / "code"))
    asked = origin, renderer = origin_and_renderer(prompt=PLAIN)
    learned = load_texts(root, *asked, Amount(60_000, 64), seed=0, own=True)
    judged = load_heldout_texts(*asked, Amount(4096, 64), spec=root, own=True)
    seen = [
        {i for i in range(40) if f"module_{i}.pi" in texts_of(texts)} for texts in (learned, judged)
    ]
    assert seen[0] and seen[1] and not seen[0] & seen[1] and len(seen[0] | seen[1]) == 40
    documents = own_heldout(root, origin)
    assert {int(d.id[1:-3]) for d in documents} == seen[1]
    tokens = load_heldout(origin, renderer, spec=root, seq_len=64, own=True)
    assert any(f"module_{i}" in TOKENIZER.decode(tokens.ravel().tolist()) for i in seen[1])
    # Without being asked for, it is the pack's, and nothing of the code is left out.
    assert judged.source == f"path:{root}"
    assert load_heldout_texts(*asked, Amount(99, 64), spec=root).source == "pack:python"
    whole = load_texts(root, *asked, Amount(60_000, 64), seed=0)
    assert all(f"module_{i}.pi" in texts_of(whole) for i in range(40))
    with pytest.raises(CalibrationError, match=r"has \d+ tokens, left out of learning to judge by"):
        load_heldout_texts(*asked, Amount(99999, 9999), spec=root, own=True)


def test_beside_own_text_comes_other_text_by_share(tmp_path: Path) -> None:
    root = str(tree(tmp_path / "code"))
    texts = load_texts(
        root,
        *origin_and_renderer(prompt=PLAIN),
        Amount(2000, 64),
        seed=0,
        own=True,
        beside=Beside("pack:python=0.5,pack:general=0.5", 0.7),
    )
    assert texts.source == f"mix:path:{root}=0.7,pack:python=0.15,pack:general=0.15"
    assert sum(map(len, texts.documents)) == 2000


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {i} of many"}) + "\n" for i in range(99)))
    data = load(str(path))
    assert data.source == f"jsonl:{path}"
    path.write_text('{"text": "x"}\n{"text": \n')
    with pytest.raises(TableError, match=r"a\.jsonl:2: not valid JSON"):
        load(str(path))
    path.write_text('{"text": "too little"}\n')
    with pytest.raises(CalibrationError, match="has 11 tokens, one sample needs 64"):
        load(str(path))


def test_a_mix_has_its_shares_of_the_tokens(tmp_path: Path) -> None:
    path = tmp_path / "a,b=c.jsonl"
    path.write_text("".join(json.dumps({"text": "#" * 39}) + "\n" for _ in range(1)))
    assert load(str(path), seq_len=32).source == f"jsonl:{path}"
    path = path.rename(tmp_path / "a.jsonl")
    path.write_text("".join(json.dumps({"text": "é" * (6 + i)}) + "\n" for i in range(20)))
    data = load(f"pack:python=6,{path}=2", samples=16)
    assert data.source == f"mix:pack:python=0.75,jsonl:{path}=0.25"
    # No byte of "é" is in the pack; END closes documents of both.
    foreign = np.isin(data.tokens, list("é".encode())).mean()
    assert 0.22 < foreign <= 0.25
    assert np.isin(data.tokens, list("é".encode())).any(axis=1).sum() > 5  # not in one block
    assert load(f"pack:python=6,{path}=2", samples=16).digest == data.digest


def test_what_is_no_source_gets_a_hint() -> None:
    catalog = load_catalog()
    for spec, hint in [
        ("python", r"'python' is no calibration source that exists; did you mean pack:python\?"),
        ("py_alpaca", r"did you mean hub:py_alpaca\?"),
        (
            "/no/such/place",
            "give a directory, a .jsonl file, pack:.*, code:.* or hub:SET",
        ),
        ("pack:pyton", r"unknown pack 'pyton'; did you mean python\?"),
        ("/no/such.jsonl", "give a directory"),
        ("~nobody-here/code", "give a directory"),
        ("x" * 5000, "give a directory"),
        (__file__, "give a directory"),
        ("pack:python=x,b=1", "'x' is no weight"),
    ]:
        with pytest.raises(CalibrationError, match=hint):
            load(spec, catalog=catalog)
    with pytest.raises(UnknownNameError, match=r"'py_alpacca'; did you mean py_alpaca\?"):
        load("hub:py_alpacca", catalog=catalog)


def test_hub_sets_stay_offline_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(OfflineError, match="SUBLLM_OFFLINE is set"):
        load("hub:py_alpaca", catalog=load_catalog(), offline=True)


def texts(spec: str = "", tokens: int = 4000, least: int = 64, seed: int = 0) -> Texts:
    return load_texts(spec, *origin_and_renderer(), Amount(tokens, least), seed=seed)


def test_texts_to_learn_from_are_whole_documents_in_a_seeded_order() -> None:
    found = texts()
    assert (found.source, sum(map(len, found.documents))) == ("pack:python", 4000)
    assert 600 < found.unique_tokens < 4000
    assert texts().documents == found.documents
    assert texts(seed=1).documents != found.documents
    learned = "".join(TOKENIZER.decode(ids) for ids in found.documents)
    heldout = load_heldout_texts(*origin_and_renderer(), Amount(10_000, 64))
    judged = "".join(TOKENIZER.decode(ids) for ids in heldout.documents)
    assert sum(map(len, heldout.documents)) == heldout.unique_tokens < 10_000
    for i in range(16):
        assert (f"x + {i}\n" in learned) == (i < 12)
        assert i >= 12 or f"x + {i}\n" not in judged


def test_texts_join_by_weight_and_have_a_least(tmp_path: Path) -> None:
    own = tree(tmp_path / "app")
    mixed = texts(f"pack:python=0.75,{own}=0.25", tokens=4000)
    assert mixed.source == f"mix:pack:python=0.75,path:{own}=0.25"
    of_own = sum(len(ids) for ids in mixed.documents if "module_" in TOKENIZER.decode(ids))
    assert 0.15 * 4000 < of_own < 0.35 * 4000
    small = tree(tmp_path / "small", count=1)
    with pytest.raises(CalibrationError, match=r"small has \d+ tokens, recovery needs 2048; add"):
        texts(str(small), least=2048)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CalibrationError):
        texts(str(empty))
