"""Architectures as data, against transformers' own configs and models."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers
from oracles.tiny_models import CONFIGS

from subllm.errors import WeightsError
from subllm.models.arch.registry import FAMILIES, spec_from_config
from subllm.models.arch.spec import ArchSpec
from subllm.models.arch.tensors import tensor_shapes

TINY = [name for name in CONFIGS if name != "gemma2"]

MINIMAL: dict[str, Any] = {
    "vocab_size": 264,
    "hidden_size": 256,
    "intermediate_size": 96,
    "num_hidden_layers": 7,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


def tiny(family: str) -> dict[str, Any]:
    """The config as its file would hold it."""
    values: dict[str, Any] = json.loads(CONFIGS[family]().to_json_string(use_diff=False))
    return values


@pytest.mark.parametrize("family", TINY)
def test_tensors_are_those_of_transformers(family: str) -> None:
    spec = spec_from_config(tiny(family))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(CONFIGS[family]())
    want = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if spec.tied_head:
        del want["lm_head.weight"]
    assert tensor_shapes(spec) == want
    linears = {f"{spec.block_prefix(0)}{lin.name}.weight" for lin in spec.linears}
    matrices = {n for n, s in want.items() if ".layers.0." in n and len(s) == 2}
    assert linears == matrices
    assert spec.block_params() == sum(want[name][0] * want[name][1] for name in matrices)
    vectors = {n for n, s in want.items() if ".layers.0." in n and len(s) == 1}
    assert set(spec.block_vectors(0)) == vectors and len(spec.block_vectors(0)) == len(vectors)


@pytest.mark.parametrize("family", TINY)
def test_sizes_and_switches(family: str) -> None:
    config = CONFIGS[family]()
    spec = spec_from_config(tiny(family))
    assert (spec.hidden_size, spec.intermediate_size) == (32, 48)
    assert (spec.num_layers, spec.num_heads, spec.num_kv_heads) == (3, 4, 2)
    assert (spec.vocab_size, spec.context_length) == (264, 256)
    assert spec.head_dim == (getattr(config, "head_dim", None) or 8)
    assert spec.tied_head == config.tie_word_embeddings
    gemma = family.startswith("gemma")
    assert spec.norm_offset == (1.0 if gemma else 0.0)
    assert spec.embed_scale == (32**0.5 if gemma else 1.0)
    assert spec.activation == ("gelu_tanh" if gemma or family == "starcoder2" else "silu")
    assert spec.gated == (family != "starcoder2")
    assert spec.norm == ("layernorm" if family == "starcoder2" else "rmsnorm")
    scale = config.query_pre_attn_scalar if family == "gemma3" else spec.head_dim
    assert spec.attn_scale == scale**-0.5
    assert spec.norm_eps == getattr(config, "rms_norm_eps", getattr(config, "norm_epsilon", None))


def test_sliding_windows() -> None:
    assert spec_from_config(tiny("llama")).sliding_window is None
    assert spec_from_config(tiny("llama")).sliding_layers == (False,) * 3
    for family, window in (("mistral", 7), ("starcoder2", 9)):
        spec = spec_from_config(tiny(family))
        assert (spec.sliding_window, spec.sliding_layers) == (window, (True,) * 3)
    spec = spec_from_config(tiny("gemma3"))
    assert (spec.sliding_window, spec.sliding_layers) == (6, (True, False, True))
    assert spec_from_config({**tiny("mistral"), "sliding_window": None}).sliding_layers == (
        (False,) * 3
    )
    # Qwen2 slides only where it is told to, from max_window_layers on.
    qwen = {**tiny("qwen2"), "layer_types": None, "sliding_window": 5, "max_window_layers": 1}
    assert spec_from_config(qwen).sliding_window is None
    spec = spec_from_config({**qwen, "use_sliding_window": True})
    assert (spec.sliding_window, spec.sliding_layers) == (5, (False, True, True))
    # Gemma 3 without a list: five of six.
    many = {**tiny("gemma3"), "layer_types": None, "num_hidden_layers": 13}
    assert [i for i, s in enumerate(spec_from_config(many).sliding_layers) if not s] == [5, 11]


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_a_config_leaves_out(kind: str) -> None:
    """Absent keys mean what they mean to transformers."""
    full = transformers.AutoConfig.for_model(kind, **MINIMAL)
    want = spec_from_config(json.loads(full.to_json_string(use_diff=False)))
    assert spec_from_config({"model_type": kind, **MINIMAL}) == want
    sparse = json.loads(full.to_json_string(use_diff=True))
    assert spec_from_config({"model_type": kind, **MINIMAL, **sparse}) == want


def test_rotary_parameters_of_old_and_new_files() -> None:
    base = {"model_type": "llama", **MINIMAL}
    assert spec_from_config(base).rope_theta == 10000.0
    assert spec_from_config({**base, "rope_theta": 500000}).rope_theta == 500000.0
    for scaling in (
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 4}},
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}},
    ):
        spec = spec_from_config({**base, **scaling})
        assert spec.rope_theta == 5e5 and spec.rope_scaling is not None
        assert (spec.rope_scaling.kind, spec.rope_scaling.factor) == ("linear", 4.0)
    spec = spec_from_config(tiny("llama3_rope"))
    assert spec.rope_scaling is not None and spec.rope_theta == 500.0
    assert (spec.rope_scaling.low_freq_factor, spec.rope_scaling.high_freq_factor) == (1.0, 4.0)
    assert spec.rope_scaling.original_context == 64
    gemma = spec_from_config(tiny("gemma3"))
    assert (gemma.rope_theta, gemma.local_rope_theta) == (1e6, 1e4)
    assert gemma.rope_scaling is not None and gemma.rope_scaling.factor == 8.0
    old = {
        **tiny("gemma3"),
        "rope_parameters": None,
        "rope_theta": 1e6,
        "rope_local_base_freq": 2e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    again = spec_from_config(old)
    assert (again.rope_theta, again.local_rope_theta) == (1e6, 2e4)
    assert again.rope_scaling == gemma.rope_scaling


def test_gemma_says_gelu_and_means_tanh() -> None:
    for config in ({"hidden_act": "gelu"}, {"hidden_act": "gelu_pytorch_tanh"}, {}):
        spec = spec_from_config({"model_type": "gemma", **MINIMAL, **config})
        assert spec.activation == "gelu_tanh"
    star = {"model_type": "starcoder2", **MINIMAL}
    assert spec_from_config({**star, "hidden_act": "gelu"}).activation == "gelu"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "'mamba' is not supported"),
        ({"model_type": None}, "not supported"),
        ({"model_type": {}}, "not supported"),
        ({"hidden_size": None}, "no 'hidden_size'"),
        ({"hidden_size": 0}, "not a valid size"),
        ({"hidden_size": "32"}, "not a valid size"),
        ({"hidden_size": True}, "not a valid size"),
        ({"hidden_size": 2**31}, "not a valid size"),
        ({"hidden_size": 4}, "head_dim = 0"),
        ({"num_hidden_layers": 1025}, "more than 1024"),
        ({"num_hidden_layers": 2**31 - 1}, "more than 1024"),
        ({"num_key_value_heads": 3}, "not a multiple"),
        ({"rms_norm_eps": 0}, "not a positive number"),
        ({"rms_norm_eps": float("nan")}, "not a positive number"),
        ({"rms_norm_eps": float("inf")}, "not a positive number"),
        ({"rms_norm_eps": 10**400}, "not a positive number"),
        ({"tie_word_embeddings": "no"}, "not true or false"),
        ({"hidden_act": "relu"}, "'relu' is not supported"),
        ({"hidden_act": ["silu"]}, "is not supported"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "'yarn' is not supported"),
        ({"rope_scaling": {"type": ["linear"]}}, "is not supported"),
        ({"rope_scaling": "linear"}, "not a mapping"),
        ({"rope_scaling": {"type": "linear", "factor": -1}}, "not a positive number"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "part of a head"),
        ({"partial_rotary_factor": 0.5}, "part of a head"),
    ],
)
def test_configs_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        spec_from_config({"model_type": "llama", **MINIMAL, **change})
    assert "\n" not in str(caught.value)


def test_more_configs_that_cannot_be() -> None:
    gemma = tiny("gemma3")
    for change, message in [
        ({"layer_types": ["full_attention"]}, "every layer"),
        ({"layer_types": ["chunked_attention"] * 3}, "chunked_attention"),
        ({"layer_types": [["x"]] * 3}, "not supported"),
        ({"use_bidirectional_attention": True}, "bidirectional"),
        ({"rope_parameters": []}, "not a mapping"),
        ({"rope_parameters": {"sliding_attention": {"rope_type": "linear"}}}, "sliding layers"),
    ]:
        with pytest.raises(WeightsError, match=message):
            spec_from_config({**gemma, **change})
    with pytest.raises(WeightsError, match="without text_config"):
        spec_from_config({"model_type": "gemma3"})


@pytest.mark.parametrize("family", TINY)
def test_round_trip_through_json(family: str) -> None:
    spec = spec_from_config(tiny(family))
    again = ArchSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec and hash(again) == hash(spec)
    assert again.to_dict() == spec.to_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"flavour": 1},
        {"hidden_size": None},
        {"hidden_size": "32"},
        {"num_kv_heads": 0},
        {"num_kv_heads": 3},
        {"num_heads": 2.5},
        {"num_layers": 4},
        {"sliding_layers": 3},
        {"sliding_layers": ["yes"] * 3},
        {"rope_scaling": {"kind": "linear"}},
        {"rope_scaling": {"kind": "linear", "factor": 2.0, "more": 1}},
        {"rope_scaling": [1]},
        {"rope_scaling": {"kind": "yarn", "factor": 2.0}},
        {"norm": "batchnorm"},
        {"activation": "relu"},
        {"tied_head": 1},
        {"rope_theta": "much"},
        {"attn_softcap": True},
        {"family": 7},
    ],
)
def test_stored_specs_that_cannot_be(change: dict[str, Any]) -> None:
    stored = spec_from_config(tiny("gemma3")).to_dict()
    with pytest.raises(WeightsError) as caught:
        ArchSpec.from_dict({**stored, **change})
    assert "\n" not in str(caught.value)


def test_stored_specs_that_are_incomplete() -> None:
    stored = spec_from_config(tiny("llama")).to_dict()
    for name in ("family", "hidden_size", "num_layers", "context_length"):
        with pytest.raises(WeightsError, match=name):
            ArchSpec.from_dict({k: v for k, v in stored.items() if k != name})
    # A field that was added later has a default.
    older = {k: v for k, v in stored.items() if k != "final_softcap"}
    assert ArchSpec.from_dict(older).final_softcap is None
