"""Export models and ask those who read them; fails where they disagree.

    scripts/test export                      the dense 0.5B, made where it is not there
    scripts/test export --model NAME         a model of SUBLLM_HOME
    scripts/test export --tiny               the tiny models alone: a minute

Readers are transformers, llama.cpp (llama-cpp-python, the same environment as that of
`scripts/bench engine`) and compressed-tensors. Tiny models of every family first, then a real
one, whose differences in logits and greedy text are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from benchmarks.engines.models import dense, run_cli
from benchmarks.engines.peer import bench_cache, peer_python
from oracles.exported_models import FAMILIES, exportable
from oracles.packed_models import NAME

from subllm.engine.backends.native import NativeBackend
from subllm.engine.computing import Computing
from subllm.engine.loader import PackedSource, load_engine
from subllm.engine.request import Request, SamplingParams
from subllm.kernels.sparsity.packing import unpack
from subllm.models.store.model_files import open_model
from subllm.models.store.store import Store
from subllm.sharing.export.export import export_model

WORKER = Path(__file__).parents[2] / "scripts/benchmarks/engines/llama_cpp_logits.py"
Logits = npt.NDArray[np.float32]

# The last that reads 2:4; it would not be installed beside transformers 5 but for --no-deps.
COMPRESSED = ("compressed-tensors==0.14.0.1", "loguru==0.7.3")
TEXTS = (
    'def is_prime(n: int) -> bool:\n    """Whether n is prime."""\n    if n < 2:\n',
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "import json\n\n\ndef read_lines(path):\n    with open(path) as file:\n",
    "# naïve Ünïcode 日本語 🚀\nx = [3.14, 42]  # isn't\r\n\tif (a!=b) { return a->b; }\n",
)
GREEDY = 24


@dataclass
class Said:
    """What a reader says: logits [tokens, vocabulary] and greedy ids of each prompt, ids of each
    text."""

    logits: list[Logits]
    greedy: list[list[int]]
    ids: list[list[int]]


def llama_cpp(python: str, file: Path, prompts: list[list[int]], texts: tuple[str, ...],
              greedy: int, threads: int) -> Said:  # fmt: skip
    request = {"model": str(file), "prompts": prompts, "texts": texts, "greedy": greedy,
               "threads": threads}  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "said.npz")
        done = subprocess.run([python, str(WORKER), str(out)], input=json.dumps(request),
                              text=True, capture_output=True)  # fmt: skip
        if done.returncode:
            sys.exit(f"llama.cpp does not read {file}:\n{done.stderr[-2000:]}")
        found = np.load(out)
        count, many = range(len(prompts)), range(len(texts))
        return Said([found[f"logits{i}"] for i in count],
                    [found[f"greedy{i}"].tolist() for i in count],
                    [found[f"ids{i}"].tolist() for i in many])  # fmt: skip


def by_transformers(directory: Path, prompts: list[list[int]], texts: tuple[str, ...],
                    greedy: int) -> Said:  # fmt: skip
    """In float32 on the weights of the file."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    logits, texts_out = [], []
    with torch.no_grad():
        for prompt in prompts:
            ids = torch.tensor([prompt])
            logits.append(model(ids).logits[0].numpy())
            kept = model.generate(ids, max_new_tokens=greedy) if greedy else ids
            texts_out.append(kept[0, len(prompt) :].tolist())
    return Said(logits, texts_out, [tokenizer(t)["input_ids"] for t in texts])


def ours(store: Store, name: str, texts: tuple[str, ...], threads: int) -> Said:
    """Logits by the reference products in float32, greedy text as it is served."""
    with open_model(store, name) as files:
        tokenizer = files.tokenizer()
        ids = [tokenizer.encode(text) for text in texts]
        backend = NativeBackend(PackedSource(files), threads=threads, kv="float32", exact=True)
        logits = [backend.logits(backend.kv_open(), 0, np.array(p, np.int32)) for p in ids]
        backend.close()
    engine = load_engine(store, name, computing=Computing(threads=threads))
    for number, prompt in enumerate(ids):
        params = SamplingParams(max_tokens=GREEDY, temperature=0)
        engine.add(Request(str(number), tuple(prompt), params))
    greedy: list[list[int]] = [[] for _ in ids]
    while engine.has_work():
        for event in engine.step():
            greedy[int(event.request_id)] += event.tokens
    engine.close()
    return Said(logits, greedy, ids)


def log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def compare(title: str, said: Said, want: Said, least: float, ends: set[int]) -> None:
    """Prints how far apart they are; `least` is the share of equal first choices that is enough."""
    got, wanted = (np.concatenate(s.logits)[:, : want.logits[0].shape[1]] for s in (said, want))
    error = np.abs(got - wanted)
    same = (got.argmax(-1) == wanted.argmax(-1)).mean()
    p, q = log_softmax(wanted), log_softmax(got)
    kl = float((np.exp(p) * (p - q)).sum(-1).mean())
    equal = sum(cut(a, ends) == cut(b, ends) for a, b in zip(said.greedy, want.greedy, strict=True))
    print(
        f"  {title:32} logits off by {error.mean() / wanted.std():.4f} of their spread (worst "
        f"{error.max() / wanted.std():.3f}), KL {kl:.5f}, first choice equal in {same:.1%} of "
        f"{len(got)}, greedy texts equal {equal} of {len(want.greedy)}", flush=True
    )  # fmt: skip
    if said.ids != want.ids:
        sys.exit(f"{title}: texts become other tokens")
    if same < least:
        sys.exit(f"{title}: fewer than {least:.0%} of the first choices are equal")


def cut(ids: list[int], ends: set[int]) -> list[int]:
    return ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]


def tiny(python: str, scratch: Path) -> None:
    """Every family through llama.cpp, in every type; 2:4 through compressed-tensors."""
    prompt = np.random.default_rng(1).integers(0, 256, 40).tolist()
    for family in FAMILIES:
        worst = {}
        for values, kind, most in (("bf16", "f16", 0.01), ("bf16", "auto", 0.02),
                                   ("int8", "auto", 0.08), ("int4", "auto", 0.08),
                                   ("int4", "q8_0", 0.1)):  # fmt: skip
            directory = scratch / f"{family}-{values}-{kind}"
            store, _, model = exportable(scratch / f"{directory.name}-home", family, values)
            export_model(store, NAME, directory, "gguf", kind)
            (file,) = directory.glob("*.gguf")
            said = llama_cpp(python, file, [prompt], (), 0, 1)
            with torch.no_grad():
                want = model(torch.tensor([prompt])).logits[0].numpy()
            off = float(np.abs(said.logits[0] - want).mean() / want.std())
            worst[f"{values} {kind}"] = off
            if off > most:
                sys.exit(f"{family} {values} as {kind}: logits off by {off:.3f} of their spread")
        print(f"  {family:18} " + ", ".join(f"{k} {v:.4f}" for k, v in worst.items()), flush=True)


def compressed(scratch: Path) -> None:
    packages = bench_cache() / "compressed-tensors"
    if not (packages / "compressed_tensors").is_dir():
        subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "install",
                        "--quiet", "--no-deps", "--target", str(packages), *COMPRESSED],
                       check=True)  # fmt: skip
    sys.path.insert(0, str(packages))
    from compressed_tensors.compressors.model_compressors.model_compressor import ModelCompressor

    store, packed, _ = exportable(scratch / "ct-home", "qwen2", "int8", "2:4")
    export_model(store, NAME, scratch / "ct", "compressed-tensors")
    config = json.loads((scratch / "ct" / "config.json").read_text())
    compressor = ModelCompressor.from_compression_config(config["quantization_config"])
    read: dict[str, Any] = dict(compressor.sparsity_compressor.decompress(str(scratch / "ct")))
    stored = {n: t for n, t in packed.packed.items() if n != "lm_head.weight"}  # it is tied
    for name, tensor in stored.items():
        if not torch.equal(read[name], torch.from_numpy(unpack(tensor)).bfloat16()):
            sys.exit(f"compressed-tensors reads {name} otherwise")
    print(f"  {COMPRESSED[0]} reads all {len(stored)} matrices as they are", flush=True)


def real(python: str, store: Store, name: str, scratch: Path, threads: int) -> None:
    want = ours(store, name, TEXTS, threads)
    prompts = want.ids
    ends = end_ids(store, name)
    report = export_model(store, name, scratch / "hf", "hf")
    print(f"  hf {report.type}: {report.nbytes / 1e6:,.0f} MB in {report.seconds:.0f} s")
    said = by_transformers(report.directory, prompts, TEXTS, GREEDY)
    compare(f"transformers, {report.type}", said, want, 0.97, ends)
    for kind, least in (("auto", 0.9), ("f16", 0.95)):
        report = export_model(store, name, scratch / f"gguf-{kind}", "gguf", kind)
        print(f"  gguf {kind}: {report.nbytes / 1e6:,.0f} MB in {report.seconds:.0f} s, "
              f"{report.tensors}")  # fmt: skip
        (file,) = report.directory.glob("*.gguf")
        said = llama_cpp(python, file, prompts, TEXTS, GREEDY, threads)
        compare(f"llama.cpp, {kind}", said, want, least, ends)


def end_ids(store: Store, name: str) -> set[int]:
    with open_model(store, name) as files:
        tokenizer = files.tokenizer()
        stops = map(tokenizer.id_of, files.manifest.prompt.stop_tokens)
        return {*tokenizer.eos_ids, *(i for i in stops if i is not None)}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/test export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="")
    parser.add_argument("--base", default="qwen2.5-coder:0.5b")
    parser.add_argument("--tiny", action="store_true", help="no real model")
    parser.add_argument("--no-tiny", action="store_true", help="no tiny models")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--peer-python", default="", help="that has llama-cpp-python already")
    arguments = parser.parse_args()
    threads = arguments.threads or len(os.sched_getaffinity(0))
    began = time.monotonic()
    transformers.utils.logging.disable_progress_bar()
    python = peer_python(arguments.peer_python)
    with tempfile.TemporaryDirectory(prefix="subllm-export-") as scratch:
        if not arguments.no_tiny:
            print("tiny models of every family, llama.cpp: mean error of logits in their spread")
            tiny(python, Path(scratch))
            compressed(Path(scratch))
        if not arguments.tiny:
            store = Store(Path(os.environ["SUBLLM_HOME"]))
            name = arguments.model
            if not name:
                run_cli("pull", arguments.base)
                name = dense(store, arguments.base, "int4")
            print(f"{name}, beside our own float32 reference on the packed weights")
            real(python, store, name, Path(scratch), threads)
    print(f"done in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
