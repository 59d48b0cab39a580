"""The whole product on a real 0.5B code model."""

from __future__ import annotations

import ast
import json
import lzma
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from openai import OpenAI

from .conftest import BASE, HALF, PLAIN, PROGRAM, ROOT, SAMPLES, Machine, Run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

PROMPTS = {
    "python": "def count_vowels(text: str) -> int:\n"
    '    """Number of vowels in text."""\n    return sum(',
    "java": "import java.util.List;\n\npublic class Numbers {\n"
    "    public static int sum(List<Integer> values) {\n        int total = 0;\n",
    "cpp": "#include <vector>\n\nint sum(const std::vector<int>& values) {\n    int total = 0;\n",
    "javascript": "// Sum of an array of numbers\nconst sum = (values) => {\n  let total = 0;\n",
}


def test_tour_of_the_readme(tour: list[Run]) -> None:
    assert len(tour) == 8
    for run in tour:
        assert run.code == 0, f"{run.command}\n{run.out}\n{run.err}"
    pull, extract, add, listed, ask, route, serve, running = tour
    assert "Apache-2.0" in pull.out
    assert "python perplexity" in extract.out and "peak memory" in extract.out
    assert f"{BASE}-dense" in add.out
    assert f"{BASE}-dense" in listed.out and f"{BASE}-python" in listed.out
    assert "return" in ask.out and f"{BASE}-python" in ask.err
    assert f"{BASE}-python" in route.out and "by the file's name" in route.out
    assert "listening" in serve.out + serve.err and "http://127.0.0.1:" in running.out


@pytest.mark.long
def test_a_completion_over_http(server: Machine) -> None:
    body = {"model": "auto", "prompt": "def add(a, b):\n    ", "suffix": "\n    return total"}
    asked = httpx.post(f"{server.url}/v1/completions", json={**body, "max_tokens": 16})
    assert asked.status_code == 200 and asked.json()["object"] == "text_completion"


def test_cached_plan_answers_at_once(machine: Machine, tour: list[Run]) -> None:
    started = time.monotonic()
    document = machine.ok("extract", "python", *PLAIN, "--json").document
    assert document["cached"] and document["name"] == f"{BASE}-python"
    assert time.monotonic() - started < 30
    loss = document["perplexity"]["python"]
    assert 1 < loss["before"] < loss["after"] < 2 * loss["before"]


@pytest.mark.long
@pytest.mark.parametrize("language", PROMPTS)
def test_openai_client_gets_each_language_from_its_own_sub_model(
    server: Machine, language: str
) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
    stream = client.completions.create(
        model="auto", prompt=PROMPTS[language], max_tokens=32, temperature=0, stream=True
    )
    chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {f"{BASE}-{language}"}
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert len(text.strip()) > 10
    if language == "python":
        assert any(word in text for word in ("vowel", "char", "aeiou", "1 for"))
    else:
        assert "total" in text


@pytest.mark.long
def test_chat_and_fill_in_the_middle(server: Machine) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
    reply = client.chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": "Write a Python function that adds two numbers."}],
        max_tokens=64,
        temperature=0,
    )
    assert reply.model == f"{BASE}-python"
    assert "def " in (reply.choices[0].message.content or "")
    # The dense base: whether a sub-model of this size keeps it is a question of quality.
    filled = client.completions.create(
        model=f"{BASE}-dense",
        prompt="def area(width, height):\n    return ",
        suffix="\n\nprint(area(2, 3))\n",
        max_tokens=24,
        temperature=0,
    )
    middle = filled.choices[0].text.partition("\n")[0]
    assert "width * height" in middle
    ast.parse(f"def area(width, height):\n    return {middle}\n")
    # Somebody stopped inside a word, with text after the cursor and without.
    for begun, rest, suffix in (
        ("    retu", "rn width * height", "\n\nprint(area(2, 3))\n"),
        ("    return wid", "th * height", None),
    ):
        prompt = f"def area(width, height):\n{begun}"
        options = {"max_tokens": 24, "temperature": 0, "suffix": suffix}
        typed = client.completions.create(model=f"{BASE}-dense", prompt=prompt, **options)
        assert typed.choices[0].text.partition("\n")[0] == rest


@pytest.mark.long
def test_language_without_sub_model_falls_back_to_dense(server: Machine) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
    raw = client.completions.with_raw_response.create(
        model="auto", prompt="fn main() {\n    let mut total: u32 = 0;\n", max_tokens=8
    )
    assert raw.headers["x-subllm-model"] == f"{BASE}-dense"
    assert "fallback" in raw.headers["x-subllm-route"]


@pytest.mark.long
def test_server_and_local_answers_are_equal_and_need_no_network(server: Machine) -> None:
    arguments = ("complete", PROMPTS["python"], "-n", "24", "--json")
    served = server.ok(*arguments, SUBLLM_PORT=str(server.port)).document
    local = server.ok(*arguments, "--local", SUBLLM_OFFLINE="1").document
    assert served["text"] == local["text"]
    assert served["model"] == local["model"] == f"{BASE}-python"


@pytest.mark.long
def test_drafts_change_no_text(server: Machine) -> None:
    """N-grams, a sub-model for its dense base, and what the client predicts."""
    dense, large, sub_model = f"{BASE}-dense", f"{BASE}-dense-int8", f"{BASE}-python"
    server.ok("add", BASE, "--values", "int8", "--tag", "int8")  # larger than what drafts for it
    for model, speculation, prompt in (
        (dense, "ngram", PROMPTS["python"] * 2),
        (large, sub_model, PROMPTS["python"]),
    ):
        ask = ("complete", prompt, "-m", model, "-n", "96", "--json", "--set")
        port = str(server.port)
        plain = server.ok(*ask, "speculation=off", SUBLLM_PORT=port).document
        drafted = server.ok(*ask, f"speculation={speculation}", SUBLLM_PORT=port).document
        assert drafted["text"] == plain["text"]
        counts = ("accepted_prediction_tokens", "rejected_prediction_tokens")
        assert [plain[count] for count in counts] == [0, 0]
        assert speculation != "ngram" or sum(drafted[count] for count in counts) > 0
    # A draft is loaded beside the reply that it is for, and may come after the end of a short one.
    deadline = time.monotonic() + 60
    while _draft_of(server, large) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _draft_of(server, large) == sub_model
    again = server.ok(*ask, f"speculation={speculation}", SUBLLM_PORT=port).document
    assert again["text"] == plain["text"]
    # A draft about as slow as the model is tried, and then left alone where it does not pay.
    assert sum(again[count] for count in counts) > 0
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
    question = "Write a Python function that sorts a list."
    asked: dict[str, Any] = {
        "model": dense,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 64,
    }
    alone = client.chat.completions.create(**asked, extra_body={"speculation": "off"})
    text = alone.choices[0].message.content or ""
    edited = client.chat.completions.create(
        **asked, prediction={"type": "content", "content": text}
    )
    assert edited.choices[0].message.content == text
    assert edited.usage is not None and edited.usage.completion_tokens_details is not None
    assert (edited.usage.completion_tokens_details.accepted_prediction_tokens or 0) > 32


def _draft_of(server: Machine, model: str) -> str | None:
    (running,) = server.ok("ps", "--json").document
    found: dict[str, str | None] = {m["model"]: m["draft"] for m in running["loaded"]}
    return found[model]


@pytest.mark.long
def test_killed_extraction_resumes(machine: Machine, tour: list[Run]) -> None:
    command = ["extract", "general", *PLAIN, "--tag", "killed"]
    child = subprocess.Popen(
        [PROGRAM, *command], env=machine.environment, stderr=subprocess.PIPE, text=True
    )
    partial = machine.home / "partial"
    deadline = time.monotonic() + 600
    while not list(partial.glob("*/state.safetensors")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    names = [row["name"] for row in machine.ok("list", "--json").document]
    assert f"{BASE}-general-killed" not in names
    document = machine.ok(*command, "--json").document
    assert document["resumed_at_block"] > 0
    assert machine.ok("verify").code == 0


@pytest.mark.long
def test_masks_agree_with_the_authors_schedule(machine: Machine, tour: list[Run]) -> None:
    """In the same dtype, on the real weights: whole model in memory, hooks, one sample at a
    time."""
    ours = machine.ok("extract", "python", *HALF, "--tag", "half", "--json").document
    out = machine.home / "plain.json"
    subprocess.run(
        [
            sys.executable, ROOT / "scripts" / "benchmarks", "extract", "--plain-worker", out,
            "--samples", SAMPLES, "--json", ours["name"], "--compute", ours["compute"],
            *(["--itself"] if ours["compute"] == "bfloat16" else []),
        ],
        env=machine.environment, check=True,
    )  # fmt: skip
    plain = json.loads(out.read_text())
    if ours["compute"] == "bfloat16":
        # 0.9991 on AMD; with AMX 0.9981, where the plain one agrees with itself, its samples in
        # another order, no better: a near-tie that flips in one layer flips more in the next.
        assert plain["agreement"] >= min(0.999, plain["agreement_with_itself"] - 0.0003)
        assert plain["agreement_by_layer"][0] >= 0.99999
    else:
        # Exact while nothing has rounded differently; from layer 7 on they drift (0.9989 in all).
        assert min(plain["agreement_by_layer"][:6]) >= 0.9999
        assert plain["agreement"] >= 0.998


def test_a_gguf_file_is_a_base_too(machine: Machine, tmp_path: Path) -> None:
    """And its weights are those of the pulled base, bit for bit."""
    from subllm.making.extraction.prepare import open_base
    from subllm.models.store.store import Store

    store = Store(machine.home)
    path = store.blobs.path(store.base(BASE).files[0].digest)
    copy = tmp_path / "model.gguf"
    copy.symlink_to(path)
    machine.ok("pull", str(copy), "--name", "mine:0.5b")
    try:
        ours, theirs = open_base(store, "mine:0.5b")[2], open_base(store, BASE)[2]
        name = "model.layers.3.mlp.up_proj.weight"
        assert np.array_equal(ours.read(name), theirs.read(name))
    finally:
        machine.ok("rm", "--yes", "mine:0.5b")


@pytest.mark.long
def test_the_mapped_tokenizer_says_what_the_library_says(machine: Machine, tour: list[Run]) -> None:
    from subllm.models.store.store import Store
    from subllm.models.store.tokenizers import open_tokenizer
    from subllm.models.text.table_coder import TableCoder
    from subllm.models.text.tokenizer import Tokenizer

    store = Store(machine.home)
    manifest = store.model(f"{BASE}-python")
    library = Tokenizer.from_bundle(store.blobs.read_bytes(manifest.blobs.tokenizer))
    ours = open_tokenizer(store, manifest)
    assert isinstance(ours.coder, TableCoder)
    packs = sorted((ROOT / "src/subllm/making/calibration/data").glob("*.jsonl.xz"))
    assert len(packs) >= 5
    for pack in packs:
        text = lzma.decompress(pack.read_bytes()).decode()
        ids = library.encode(text)
        assert ours.encode(text) == ids
        assert ours.decode(ids) == library.decode(ids)


@pytest.mark.long
def test_the_screened_head_chooses_as_the_whole_one(machine: Machine, tour: list[Run]) -> None:
    """1,024 tokens in the middle of the head's usual work; `scripts/bench head` takes 20,000."""
    from subllm.engine.backend import Chunk, Draw
    from subllm.engine.backends.native import NativeBackend
    from subllm.engine.loader import PackedSource
    from subllm.engine.request import SamplingParams
    from subllm.models.store.model_files import open_model
    from subllm.models.store.store import Store

    greedy = SamplingParams(temperature=0.0)
    with open_model(Store(machine.home), f"{BASE}-dense") as files:
        source, tokenizer = PackedSource(files), files.tokenizer()
        backends = [NativeBackend(source, screen=screen) for screen in (True, False)]
        text = Path(ast.__file__).read_text(encoding="utf-8")
        for tokens in np.array(tokenizer.encode(text)[:1024], np.int32).reshape(2, -1):
            draws = [Draw(greedy, tokens[:1], 1, 0.0) for _ in tokens]
            one, other = (
                backend.step([Chunk(backend.kv_open(), 0, tokens, draws)]) for backend in backends
            )
            assert one == other
        decided, _, left = backends[0]._decoder.verdicts
        assert decided + left == 1024 and left < 10
        for backend in backends:
            backend.close()
