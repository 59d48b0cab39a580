"""Time and peak memory of an extraction, beside a plain implementation of Wanda.

Ours is the command a user types, in a process of its own, on an empty cache. The plain one
(tests/oracles/plain_wanda.py) holds the whole transformers model in the dtype that ours chose
for this machine (the faster of bfloat16 and float32 where ours took int8) and runs hooks, one
sample at a time, as the method's authors do; it gets the same weights and the same tokens, and
its masks are compared with ours, entry by entry.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import frame

from subllm.machine import usable_cores
from subllm.making.extraction.defaults import DEFAULT_SAMPLES, HELDOUT_SEQUENCES

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "scripts/benchmarks"


def main() -> None:
    arguments = parse(sys.argv[1:])
    if arguments.plain_worker:
        plain_worker(arguments)
        return
    host = frame.Machine(usable_cores())
    home = Path(os.environ["SUBLLM_HOME"])
    run_cli("pull", arguments.base)
    ours = measure_ours(arguments, home)
    plain = measure_plain(arguments, home, ours) if arguments.peer == "yes" else None
    show(arguments, host, ours, plain)
    record = {"machine": host.document(), "base": arguments.base, "ours": ours, "plain": plain}
    frame.write(record, arguments.json)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = frame.parser("extract", __doc__, base=True, json=True)
    parser.add_argument("--peer", choices=["yes", "no"], default="yes")
    parser.add_argument("--pattern", default="8:16")
    parser.add_argument("--samples", type=int, default=DEFAULT_SAMPLES)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument(
        "--itself", action="store_true",
        help="with --plain-worker: compare it also with itself, samples in reverse order",
    )  # fmt: skip
    parser.add_argument("--plain-worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--compute", default="bfloat16", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def run_cli(*command: str) -> str:
    program = str(Path(sys.executable).with_name("subllm"))
    return subprocess.run([program, *command], check=True, stdout=subprocess.PIPE, text=True).stdout


def measure_ours(arguments: argparse.Namespace, home: Path) -> dict:
    """`subllm extract python`, as fast as it gets, under a name of its own, which goes first, so
    that the cache cannot answer."""
    name = f"{arguments.base}-python-bench"
    program = str(Path(sys.executable).with_name("subllm"))
    subprocess.run([program, "rm", "--yes", name], capture_output=True, check=False)
    shutil.rmtree(home / "partial", ignore_errors=True)
    recipe = home / "bench.toml"
    recipe.write_text(
        f'[prune]\nmethod = "wanda"\npattern = "{arguments.pattern}"\n[store]\nvalues = "int8"\n'
        f"[calibration]\nfast = true\nsamples = {arguments.samples}\n"
        f"seq_len = {arguments.seq_len}\n"
        '[recovery]\nfor = "off"\n'
    )
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(
        run_cli(
            "extract", "python", "--json", "--tag", "bench", "--base", arguments.base,
            "--recipe", str(recipe),
        )
    )  # fmt: skip
    result["wall_seconds"] = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result["cpu_seconds"] = sum(after[:2]) - sum(before[:2])
    if result["cached"]:
        sys.exit("the cache answered; remove the models of this base from the bench home first")
    return result


def measure_plain(arguments: argparse.Namespace, home: Path, ours: dict) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "plain.json"
        command = [
            *(sys.executable, PROGRAM, "extract", "--plain-worker", str(out)),
            "--base", arguments.base, "--pattern", arguments.pattern,
            "--samples", str(arguments.samples),
            "--seq-len", str(arguments.seq_len), "--json", ours["name"],
            "--compute", plain_dtype(arguments, home, ours),
        ]  # fmt: skip
        start = time.monotonic()
        subprocess.run(command, check=True)
        wall = time.monotonic() - start
        return json.loads(out.read_text()) | {"wall_seconds": wall, "compute": command[-1]}


def plain_dtype(arguments: argparse.Namespace, home: Path, ours: dict) -> str:
    from subllm.making.recovery.compute import DTYPES

    if ours["compute"] in DTYPES:
        return ours["compute"]
    return max(("bfloat16", "float32"), key=rates_of(arguments, home))


def rates_of(arguments: argparse.Namespace, home: Path):
    import torch

    from subllm.making.extraction.estimate import Rates
    from subllm.making.extraction.prepare import open_base
    from subllm.models.store.store import Store

    return Rates(open_base(Store(home), arguments.base)[2].spec, torch.device("cpu"))


def plain_worker(arguments: argparse.Namespace) -> None:
    """Runs in its own process: whole model, hooks, one sample at a time."""
    sys.path.insert(0, str(ROOT / "tests"))
    import numpy as np
    import torch
    from oracles.plain_wanda import prune_blockwise
    from transformers import AutoConfig, AutoModelForCausalLM

    from subllm.kernels.sparsity.packing import unpack_mask
    from subllm.kernels.sparsity.pattern import Pattern
    from subllm.making.calibration.load import TextOrigin, load_calibration
    from subllm.making.calibration.render import Renderer
    from subllm.making.extraction.estimate import peak_memory_bytes
    from subllm.making.extraction.prepare import open_base
    from subllm.making.recovery.compute import DTYPES
    from subllm.models.store.model_files import open_model

    store = frame.store()
    _, manifest, reader, tokenizer = open_base(store, arguments.base)
    data = load_calibration(
        "pack:python",
        TextOrigin("python"),
        Renderer(tokenizer, manifest.prompt),
        samples=arguments.samples,
        seq_len=arguments.seq_len,
        seed=0,
    )
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**reader.config),
        dtype=DTYPES[arguments.compute],
        attn_implementation="sdpa",
    ).eval()
    pattern = Pattern.parse(arguments.pattern)
    ratio = pattern.percent / 100 if pattern.kind == "unstructured" else None

    def load() -> None:
        for key, parameter in model.named_parameters():
            parameter.data.copy_(torch.from_numpy(reader.read(key)))
        reader.release()

    def prune(tokens: torch.Tensor) -> list:
        return prune_blockwise(model, tokens, ratio, pattern.n or 0, pattern.m or 0)

    load()
    tokens = torch.from_numpy(data.tokens.astype(np.int64))
    start, cpu = time.monotonic(), time.process_time()
    masks = prune(tokens)
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    peak = peak_memory_bytes()
    ours = open_model(store, str(arguments.json))
    same, total = [0] * len(masks), [0] * len(masks)
    for layer, kept in enumerate(masks):
        for name, mask in kept.items():
            mine = unpack_mask(ours.tensor(f"model.layers.{layer}.{name}.weight"))
            same[layer] += int((mine == mask.numpy()).sum())
            total[layer] += mask.numel()
    itself = None
    if arguments.itself:
        load()  # pruning zeroed its weights
        other = prune(tokens.flip(0))
        equal = [int((kept[name] == other[layer][name]).sum())
                 for layer, kept in enumerate(masks) for name in kept]  # fmt: skip
        itself = sum(equal) / sum(total)
    Path(arguments.plain_worker).write_text(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": cpu,
                "peak_memory_bytes": peak,
                "agreement": sum(same) / sum(total),
                "agreement_with_itself": itself,
                "agreement_by_layer": [s / t for s, t in zip(same, total, strict=True)],
            }
        )
    )


def show(
    arguments: argparse.Namespace, host: frame.Machine, ours: dict, plain: dict | None
) -> None:
    from subllm.making.extraction.estimate import product_flops
    from subllm.making.extraction.prepare import HELDOUT_LENGTH, open_base
    from subllm.models.store.store import Store

    home = Path(os.environ["SUBLLM_HOME"])
    spec = open_base(Store(home), arguments.base)[2].spec
    rates = rates_of(arguments, home)
    rate = rates(ours["compute"])
    flops = product_flops(
        spec, arguments.samples * arguments.seq_len, HELDOUT_SEQUENCES * HELDOUT_LENGTH, True
    )
    kinds = dict.fromkeys([ours["compute"], *([plain["compute"]] if plain else [])])
    said = ", ".join(f"{kind} {rates(kind) / 1e9:.0f}" for kind in kinds)
    print(f"{host}; products in GFLOP/s: {said}")
    print(
        f"{arguments.base}, wanda {arguments.pattern}, {arguments.samples} x {arguments.seq_len} "
        f"tokens: {flops / 1e12:.0f} TFLOP, at least {flops / rate:.0f} s at that rate"
    )
    rows = [(f"subllm, {ours['compute']}", ours["wall_seconds"], ours)]
    if plain:
        rows.append((f"plain, {plain['compute']}", plain["seconds"], plain))
    cells = [
        [
            name,
            f"{seconds:.1f}",
            f"{had['cpu_seconds']:.1f}",
            f"{had['peak_memory_bytes'] / 1e6:.0f}",
        ]
        for name, seconds, had in rows
    ]
    print(frame.table(["", "seconds", "of CPU", "peak MB"], cells))
    if plain:
        print(
            f"speed {plain['seconds'] / ours['wall_seconds']:.2f}x "
            f"({plain['cpu_seconds'] / ours['cpu_seconds']:.2f}x by CPU time), memory "
            f"{ours['peak_memory_bytes'] / plain['peak_memory_bytes']:.2f}x, masks equal in "
            f"{plain['agreement']:.4%} of entries"
        )


if __name__ == "__main__":
    main()
