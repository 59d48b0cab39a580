"""llama.cpp beside us: its environment, its files of the same base, its own quantizer."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from gguf import GGUFReader

from subllm.machine import cpu_name, usable_cores
from subllm.models.acquire.pull import base_files
from subllm.models.store.store import Store

SOURCES = Path(__file__).resolve().parents[3] / "src"
PACKAGE = "llama-cpp-python==0.3.36"
SERVER_PACKAGE = "xllamacpp==2026.10.11549"
QUANTIZED = {"Q4_0": 2, "Q8_0": 7, "Q3_K_S": 11}
"""Types made from the base's file, with their numbers in enum llama_ftype."""

_QUANTIZE = """
import ctypes, sys, llama_cpp as lib
source, target, ftype = sys.argv[1:]
params = lib.llama_model_quantize_default_params()
params.ftype = int(ftype)
params.allow_requantize = True
sys.exit(lib.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))
"""


def bench_cache() -> Path:
    """Where benchmarks keep what takes long to make, for all checkouts of this user:
    SUBLLM_BENCH_CACHE, or a directory in the user's cache."""
    given = os.environ.get("SUBLLM_BENCH_CACHE")
    if given:
        return Path(given).expanduser().resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "subllm-bench"


def peer_python(given: str) -> str:
    """The interpreter of an environment with llama-cpp-python: `given`, or our own, made on
    the first call."""
    if given:
        return given
    home = bench_cache() / "peer-venv"
    python, stamp = home / "bin" / "python", home / "stamp"
    made_for = f"{PACKAGE} for {cpu_name()}\n"
    if stamp.exists() and stamp.read_text() == made_for:
        return str(python)
    print(f"making {home} with {PACKAGE}: it is compiled for this machine, which takes "
          "10 to 30 minutes", file=sys.stderr)  # fmt: skip
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    jobs = {"CMAKE_BUILD_PARALLEL_LEVEL": str(usable_cores())}
    environment = {**os.environ, **jobs, "CMAKE_ARGS": "-DGGML_NATIVE=ON"}
    subprocess.run([*pip, PACKAGE], check=True, env=environment)
    stamp.write_text(made_for)
    return str(python)


def server_python(given: str) -> str:
    """The interpreter of an environment with llama.cpp's own server: `given`, or our own, made on
    the first call; nothing is compiled."""
    if given:
        return given
    home = bench_cache() / "server-venv"
    python, stamp = home / "bin" / "python", home / "stamp"
    if not stamp.exists() or stamp.read_text() != SERVER_PACKAGE:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--only-binary", ":all:", SERVER_PACKAGE], check=True)
        stamp.write_text(SERVER_PACKAGE)
    return str(python)


def base_gguf(store: Store, base: str, given: str) -> Path:
    """The file that llama.cpp runs: `given`, or the base's own when it is a GGUF."""
    if given:
        return Path(given).resolve()
    manifest = store.base(base)
    if manifest.weights != "gguf":
        sys.exit(f"{base} in this store is no GGUF; name one of the same model with --gguf FILE, "
                 "or use --peer no")  # fmt: skip
    return base_files(manifest, store)[0]


def quantized(python: str, source: Path, kind: str) -> Path:
    """`source` in another of llama.cpp's types, made by its quantizer unless it is there."""
    target = bench_cache() / "peer-gguf" / f"{source.name}-{kind}.gguf"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        print(f"making {kind} of {source.name[:24]}... with llama.cpp", file=sys.stderr)
        command = [python, "-c", _QUANTIZE, str(source), str(partial), str(QUANTIZED[kind])]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            partial.unlink(missing_ok=True)
            sys.exit(f"llama.cpp could not make {kind}: {done.stdout.strip().splitlines()[-1]}")
        partial.rename(target)
    return target


def peer_environment() -> dict[str, str]:
    """What a worker in the peer's environment needs to import the rules that end a text."""
    return {"PYTHONPATH": str(SOURCES), "PYTHONDONTWRITEBYTECODE": "1"}


@cache
def gguf_bytes_per_token(path: Path) -> int:
    """Bytes of weights that a decoded token reads: every tensor, of the embedding one row
    where the head is a tensor of its own."""
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    total = sum(int(tensor.n_bytes) for tensor in tensors.values())
    if "output.weight" in tensors:
        embedding = tensors["token_embd.weight"]
        size, rows = int(embedding.n_bytes), int(embedding.shape[1])
        total += -(-size // rows) - size
    return total


def gguf_types(path: Path) -> str:
    """What the matrices are really in, by share of bytes: types fall back where the width
    of a matrix does not fit them."""
    sizes: dict[str, int] = {}
    for tensor in GGUFReader(path).tensors:
        if len(tensor.shape) > 1:
            name = tensor.tensor_type.name
            sizes[name] = sizes.get(name, 0) + int(tensor.n_bytes)
    total = sum(sizes.values())
    parts = sorted(sizes.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {size / total:.0%}" for name, size in parts)
