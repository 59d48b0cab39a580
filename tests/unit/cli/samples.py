"""A small store that commands can look at."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subllm.models.catalog.prompt import FimSpec, PromptSpec
from subllm.models.store.manifest import (
    BaseManifest,
    BaseRef,
    CalibrationRecord,
    FileEntry,
    Licence,
    MethodRecord,
    ModelBlobs,
    ModelManifest,
    Perplexity,
    RunRecord,
    TensorEntry,
    sha256_of,
)
from subllm.models.store.store import Store

BASE = "tiny-coder:1m"
PROMPT = PromptSpec(
    context_length=4096, fim=FimSpec(prefix="<p>", suffix="<s>", middle="<m>"), stop_tokens=("<e>",)
)
CONFIG = (
    b'{"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,'
    b'"num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 2048}'
)
HUB_FILES = {"config.json": CONFIG, "tokenizer.json": b"{}", "model.safetensors": b"w" * 2_000_000}
LICENCE = Licence(id="Apache-2.0", text="Do as you like.")


@dataclass(frozen=True)
class Ran:
    """What one command line left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def fill(root: Path) -> Store:
    """A store at `root` with a base and two sub-models that share a blob."""
    store = Store(root)
    weights = b"w" * 3_000_000
    base = BaseManifest(
        name=BASE,
        source="path:/models/tiny.gguf",
        weights="gguf",
        files=(FileEntry(name="tiny.gguf", size=len(weights), digest=store.blobs.put(weights)),),
        licence=LICENCE,
        prompt=PROMPT,
    )
    digest = store.put_manifest(base)
    store.set_ref(BASE, digest)
    shared, tokenizer = store.blobs.put(b"s" * 2_000_000), store.blobs.put(b"t" * 1000)
    for language in ("python", "java"):
        model = ModelManifest(
            layout=1,
            name=f"{BASE}-{language}",
            language=language,
            base=BaseRef(name=BASE, manifest=digest, source=base.source, licence=LICENCE),
            plan=sha256_of(language.encode()),
            method=MethodRecord(name="wanda", params={"norm": "l2"}),
            pattern="8:16",
            values="int8",
            head="int8",
            calibration=CalibrationRecord(
                source=f"pack:{language}",
                digest=sha256_of(b"tokens"),
                samples=128,
                seq_len=512,
                seed=0,
            ),
            arch={},
            prompt=PROMPT,
            tensors=(
                TensorEntry(
                    name="a", shape=(8, 16), blob="own", pattern="8:16", values="int8", kept=64
                ),
            ),
            blobs=ModelBlobs(
                own=store.blobs.put(language.encode() * 200_000),
                shared=shared,
                tokenizer=tokenizer,
            ),
            perplexity={language: Perplexity(before=2.5, after=2.75, tokens=4096)},
            density=0.5,
        )
        digest_of_model = store.put_manifest(model)
        store.set_ref(model.name, digest_of_model)
        store.put_run_record(
            digest_of_model,
            RunRecord(
                created="2026-01-02T03:04:05Z",
                seconds=95.0,
                peak_memory_bytes=900_000_000,
                host="here",
                threads=2,
            ),
        )
    return store


def with_recipe(directory: Path, *arguments: str) -> list[str]:
    """`arguments`, where a recipe takes the place of those that are keys of one, such as
    "prune.pattern='8:16'"."""
    keys = [word for word in arguments if re.match(r"[a-z]+\.[a-z_.]+=", word)]
    words = [word for word in arguments if word not in keys]
    if not keys:
        return words
    path = directory / "own.toml"
    path.write_text("\n".join(keys))
    return [*words, "--recipe", str(path)]
