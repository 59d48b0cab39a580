"""A tiny random model that can really be asked, as a checkpoint and in a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from oracles.byte_tokenizers import definition
from safetensors.numpy import save_file

from subllm.engine.loader import load_engine
from subllm.engine.request import Request, SamplingParams
from subllm.making.extraction.dense import DenseForm, add_dense
from subllm.models.acquire.pull import pull
from subllm.models.catalog.loader import Catalog
from subllm.models.store.manifest import Perplexity, sha256_of
from subllm.models.store.store import Store
from subllm.progress import NullProgress

BASE, LARGER = "tiny-coder:1m", "tiny-coder:2m"
HIDDEN, MLP, LAYERS, HEADS, KV_HEADS, VOCAB = 32, 64, 2, 4, 2, 264
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|fim_prefix|>",
    "<|fim_suffix|>",
    "<|fim_middle|>",
)
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}, written as <tool_call>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_checkpoint(
    directory: Path, *, seed: int = 0, context: int = 1024, idle_layers: int = 0
) -> Path:
    """A llama of two layers over bytes. Its head knows printable ASCII only, so that it
    writes text, and never ends by itself.

    idle_layers  layers behind those that add nothing: a larger model that writes the same
    """
    rng = np.random.default_rng(seed)

    def random(*shape: int, scale: float = 0.3) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    head = np.zeros((VOCAB, HIDDEN), np.float32)
    head[32:127] = random(95, HIDDEN, scale=1.0)
    kv = HIDDEN * KV_HEADS // HEADS
    tensors = {
        "model.embed_tokens.weight": random(VOCAB, HIDDEN, scale=1.0),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
        "lm_head.weight": head,
    }
    for layer in range(LAYERS + idle_layers):
        prefix = f"model.layers.{layer}."
        tensors |= {
            f"{prefix}self_attn.q_proj.weight": random(HIDDEN, HIDDEN),
            f"{prefix}self_attn.k_proj.weight": random(kv, HIDDEN),
            f"{prefix}self_attn.v_proj.weight": random(kv, HIDDEN),
            f"{prefix}self_attn.o_proj.weight": random(HIDDEN, HIDDEN),
            f"{prefix}mlp.gate_proj.weight": random(MLP, HIDDEN),
            f"{prefix}mlp.up_proj.weight": random(MLP, HIDDEN),
            f"{prefix}mlp.down_proj.weight": random(HIDDEN, MLP),
            f"{prefix}input_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{prefix}post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
        }
        if layer >= LAYERS:
            for name in ("self_attn.o_proj", "mlp.down_proj"):
                tensors[f"{prefix}{name}.weight"] *= 0
    directory.mkdir(parents=True)
    save_file(tensors, directory / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS + idle_layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text(json.dumps(definition(dict(enumerate(SPECIAL, 256)))))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": SPECIAL[0], "chat_template": TEMPLATE})
    )
    return directory


def made_in(directory: Path) -> Path:
    """The home of a store with `build`'s models, in an empty directory."""
    build(directory / "home", write_checkpoint(directory / "checkpoint"))
    return directory / "home"


def build(root: Path, checkpoint: Path) -> Store:
    """A store at `root` with the base and its dense, Python and Java models.

    The sub-models are the dense one under other names, so that a text tells that the right
    prompt was answered and the name tells that the right model was.
    """
    store = Store(root)
    pull(str(checkpoint), store, Catalog(bases={}, calibration_sets={}), name=BASE)
    dense = store.model(add_dense(store, BASE, NullProgress(), DenseForm(values="int8")).name)
    for language in ("python", "java"):
        name = f"{BASE}-{language}"
        plan = sha256_of(name.encode())
        same = {language: Perplexity(before=2.0, after=2.0, tokens=100, agreement=1.0)}
        model = dense.model_copy(
            update={"name": name, "language": language, "plan": plan, "perplexity": same}
        )
        store.set_ref(name, store.put_manifest(model))
    return store


def add_larger(store: Store, directory: Path, *, context: int = 1024) -> str:
    """The dense model of a larger base of the family, which writes what `BASE` does."""
    checkpoint = write_checkpoint(directory, context=context, idle_layers=6)
    pull(str(checkpoint), store, Catalog(bases={}, calibration_sets={}), name=LARGER)
    return add_dense(store, LARGER, NullProgress(), DenseForm(values="int8")).name


def greedy(store: Store, ids: Sequence[int], count: int) -> str:
    """What follows `ids` greedily, from an engine of its own."""
    engine = load_engine(store, f"{BASE}-dense")
    try:
        engine.add(Request("oracle", tuple(ids), SamplingParams(max_tokens=count)))
        text = ""
        while engine.has_work():
            text += "".join(event.text for event in engine.step())
        return text
    finally:
        engine.close()


def token(text: str) -> int:
    """The id of a special token."""
    return 256 + SPECIAL.index(text)
