"""Products measured on a GPU."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.launches.specimens import random_packed

from subllm.kernels.products.triton_ops import DevicePacked, packed_matmul

SHAPES = {"0.5b": [(4864, 896), (896, 4864)], "7b": [(18944, 3584), (3584, 18944)]}
FORMS = (
    ("8:16", "int4"),
    ("11:16", "int4"),
    ("dense", "int4"),
    ("8:16", "int8"),
    ("dense", "int8"),
)
COLD_BYTES = 256 << 20
ROUNDS = 50


def measure(shapes: list[str], tokens: list[int]) -> list[dict[str, Any]]:
    print(f"{torch.cuda.get_device_name()}, microseconds a product (GB/s of weights)")
    found: list[dict[str, Any]] = []
    for shape in (pair for name in shapes for pair in SHAPES[name]):
        for count in tokens:
            row: dict[str, Any] = {"shape": shape, "tokens": count}
            x = torch.randn((count, shape[1]), device="cuda", dtype=torch.bfloat16)
            for name, (nbytes, calls) in _ways(shape, x).items():
                seconds = _median(calls)
                row[name] = seconds * 1e6
                print(
                    f"{shape[0]} x {shape[1]}, {count:>2} tokens  {name:<16}"
                    f"{seconds * 1e6:>9.1f} ({nbytes / seconds / 1e9:.0f})",
                    flush=True,
                )
            found.append(row)
    return found


Calls = list[Callable[[], Any]]


def _ways(shape: tuple[int, int], x: torch.Tensor) -> dict[str, tuple[int, Calls]]:
    """Bytes of the weights and a call for each of enough copies, by name."""
    found: dict[str, tuple[int, Calls]] = {}
    dense = [
        torch.randn(shape, device="cuda", dtype=torch.bfloat16)
        for _ in range(_copies(shape[0] * shape[1] * 2))
    ]
    found["torch bf16"] = (
        dense[0].nbytes,
        [lambda w=w: torch.nn.functional.linear(x, w) for w in dense],
    )
    out = torch.empty((len(x), shape[0]), device="cuda", dtype=torch.bfloat16)
    for pattern, values in FORMS:
        one = random_packed(*shape, pattern, values)
        ours = [_on_gpu(one) for _ in range(_copies(one.nbytes))]
        found[f"{pattern} {values}"] = (
            one.nbytes,
            [lambda w=w: packed_matmul(x, w, out=out) for w in ours],
        )
    try:
        import bitsandbytes.functional as bnb
    except ImportError:
        return found
    made = bnb.quantize_4bit(dense[0], quant_type="nf4")
    nbytes = made[0].nbytes + made[1].absmax.nbytes
    import bitsandbytes

    copies = [bnb.quantize_4bit(w, quant_type="nf4") for w in dense]
    found["bnb nf4"] = (
        nbytes,
        [lambda q=q, s=s: bitsandbytes.matmul_4bit(x, q.t(), quant_state=s) for q, s in copies],
    )
    return found


def _on_gpu(weight: DevicePacked) -> DevicePacked:
    planes = {
        name: None if plane is None else plane.to("cuda", copy=True)
        for name in ("mask", "codes", "scales", "subscales", "starts")
        for plane in [getattr(weight, name)]
    }
    return DevicePacked(weight.shape, weight.values, weight.form, weight.kept, **planes)  # type: ignore[arg-type]


def _copies(nbytes: int) -> int:
    return max(2, COLD_BYTES // nbytes)


def _median(calls: Calls) -> float:
    for call in calls[:3]:
        call()
    durations = []
    for turn in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        calls[turn % len(calls)]()
        end.record()
        end.synchronize()
        durations.append(start.elapsed_time(end) / 1e3)
    return statistics.median(durations)
