"""Every set of the catalog as calibration of its domain, over a hub on this machine."""

from __future__ import annotations

import functools
import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from fakes.hub import FakeHub
from huggingface_hub import constants

from subllm.languages import canonical
from subllm.making.calibration.load import TextOrigin, load_calibration, load_heldout
from subllm.making.calibration.render import Renderer
from subllm.making.calibration.source import CalibrationData
from subllm.models.acquire import datasets as acquire_datasets
from subllm.models.acquire.hub_client import HubClient
from subllm.models.catalog.loader import load_catalog
from subllm.models.catalog.schema import CalibrationSetEntry

from .tiny import PLAIN, tokenizer

CATALOG = load_catalog()
MARK = re.compile("q[0-9]{3}z")
LETTERS = ["A", "B", "C", "D"]
DOMAINS = {"math": 3, "csr": 3, "translation": 3, "generic": 1, "code": 6}


def mark(i: int) -> str:
    """Stands once or more in row `i` and in no other."""
    return f"q{i:03}z"


def text_of(tokens: Any) -> str:
    return bytes(tokens[tokens < 256].tolist()).decode()


def _choices(i: int) -> dict[str, Any]:
    return {"text": [f"thing {mark(i)}", "other", "none", "all"], "label": LETTERS}


def _pair(i: int) -> dict[str, str]:
    return {"en": f"{mark(i)} is a red hill.", "fr": f"{mark(i)} est une colline rouge."}


# Rows in the form of each set: the fields that are mapped and some that are not.
ROWS: dict[str, Any] = {
    "py_alpaca": lambda i: {
        "instruction": f"Add {mark(i)}.",
        "input": "",
        "output": f"def f(x):\n    return x + {mark(i)}",
        "prompt": "Below is an instruction",
    },
    "apps": lambda i: {
        "id": i,
        "question": f"Print {mark(i)}.",
        "solutions": json.dumps([f"print({mark(i)})", "pass"]),
        "input_output": "",
    },
    "github-python": lambda i: {"repo_name": "a/b", "path": "c.py", "content": f"{mark(i)} = 1"},
    "code-java": lambda i: {"code": f"int {mark(i)}() {{}}", "docstring": "Is it."},
    "code-cpp": lambda i: {"title": "t", "solution": f"int {mark(i)}() {{ return 0; }}"},
    "code-javascript": lambda i: {"code": f"() => {mark(i)}", "docstring": "Is it."},
    "math_qa": lambda i: {
        "Problem": f"what is {mark(i)} ?",
        "Rationale": f'"{mark(i)} is 3 . answer : b ."',
        "options": "a ) 2 , b ) 3 , c ) 0 , d ) 1 , e ) 4",
        "correct": "b",
        "category": "general",
    },
    "math_instruct": lambda i: {
        "source": "data/CoT/x.json",
        "instruction": f"What is {mark(i)}?",
        "output": "3",
    },
    "math_orca": lambda i: {"question": f"What is {mark(i)}?", "answer": "It is 3."},
    "openbookqa": lambda i: {
        "id": str(i),
        "question_stem": "What is it",
        "choices": _choices(i),
        "answerKey": LETTERS[i % 4],
    },
    "hellaswag": lambda i: {
        "ind": i,
        "activity_label": "Baking",
        "ctx": f"He has {mark(i)}. He",
        "endings": ["eats.", "runs.", "sits.", "sings."],
        "label": str(i % 4),
    },
    "commonsenseqa": lambda i: {
        "id": str(i),
        "question": "Where is it?",
        "choices": _choices(i),
        "answerKey": LETTERS[i % 4],
    },
    "wmt14": lambda i: {"translation": _pair(i)},
    "song_translation": lambda i: {
        "artist_name": "a",
        "original_version": _pair(i)["en"],
        "french_version": _pair(i)["fr"],
    },
    "opus_books": lambda i: {"id": str(i), "translation": _pair(i)},
    "c4": lambda i: {"text": f"There was {mark(i)}.", "timestamp": "t", "url": "u"},
}


def file_of(entry: CalibrationSetEntry, split: str) -> str:
    if entry.files:
        return entry.files[0].replace("*", "00000").replace("train", split)
    folder = "data" if entry.config == "default" else entry.config
    return f"{folder}/{split}-00000-of-00001.parquet"


def encoded(name: str, rows: list[dict[str, Any]]) -> bytes:
    if name.endswith(".parquet"):
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
        return buffer.getvalue()
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return gzip.compress(lines) if name.endswith(".gz") else lines


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with FakeHub() as fake:
        client = functools.partial(HubClient, endpoint=fake.url)
        monkeypatch.setattr(acquire_datasets, "HubClient", client)
        yield fake


def calibration(spec: str, domain: str, seq_len: int) -> CalibrationData:
    origin, renderer = TextOrigin(domain, CATALOG), Renderer(tokenizer(), PLAIN)
    return load_calibration(spec, origin, renderer, samples=6, seq_len=seq_len, seed=0)


def test_there_is_a_row_for_every_set() -> None:
    assert ROWS.keys() == CATALOG.calibration_sets.keys()
    counts: dict[str, int] = {}
    for entry in CATALOG.calibration_sets.values():
        counts[entry.domain] = counts.get(entry.domain, 0) + 1
    assert counts == DOMAINS


@pytest.mark.parametrize("name", ROWS)
def test_a_set_calibrates_its_domain(name: str, hub: FakeHub) -> None:
    """From the training split only; what is measured on afterwards is not among it."""
    entry = CATALOG.calibration_set(name)
    train, test = file_of(entry, "train"), file_of(entry, "test")
    files = {train: encoded(train, [ROWS[name](i) for i in range(120)])}
    if test != train:
        files[test] = encoded(test, [ROWS[name](i) for i in range(900, 920)])
    hub.add_repo(entry.repo, files, "dataset", branch=entry.revision)
    domain = canonical(entry.language) if entry.language else entry.domain
    found = calibration(f"hub:{name}", domain, 96)
    assert found.source == f"hub:{name}"
    assert found.tokens.shape == (6, 96)
    if test != train:
        assert hub.sent(test) == 0
    if entry.language is None:
        held = load_heldout(
            TextOrigin(domain, CATALOG),
            Renderer(tokenizer(), PLAIN),
            spec=f"hub:{name}",
            sequences=3,
            seq_len=96,
        )
        seen, unseen = (set(MARK.findall(text_of(tokens))) for tokens in (found.tokens, held))
        assert len(seen) >= 3 and len(unseen) >= 2
        assert not seen & unseen


def test_a_domain_may_mix_its_sets(hub: FakeHub) -> None:
    names = [n for n, entry in CATALOG.calibration_sets.items() if entry.domain == "math"]
    for name in names:
        entry = CATALOG.calibration_set(name)
        file = file_of(entry, "train")
        rows = encoded(file, [ROWS[name](i) for i in range(60)])
        hub.add_repo(entry.repo, {file: rows}, "dataset", branch=entry.revision)
    mix = ",".join(f"hub:{name}=1" for name in names)
    found = calibration(mix, "math", 64)
    text = text_of(found.tokens)
    assert found.source == "mix:" + ",".join(f"hub:{name}=0.3333" for name in names)
    assert "answer : b" in text and "It is " in text
    again = calibration(mix, "math", 64)
    assert np.array_equal(found.tokens, again.tokens)
