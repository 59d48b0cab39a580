"""Kernels compiled without a GPU: what a launch would compile, for any architecture.

Launch functions are called with tensors on the CPU while `JITFunction.run` only takes down with
what, so that exactly what is launched is compiled. Registers and stack are read from the binary
with the tools that come with Triton.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import JITFunction

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int8: "*i8",
    torch.uint8: "*u8",
}


@dataclass(frozen=True)
class Launch:
    kernel: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """Registers of a thread, bytes of shared memory and of stack (spills), instructions of the
    largest loop (of all, where there is none)."""

    registers: int
    shared: int
    stack: int
    instructions: int


def launches(call: Callable[[], Any]) -> list[Launch]:
    """What `call` launches; nothing runs."""
    found: list[Launch] = []

    def take_down(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        found.append(Launch(kernel, arguments, options))

    run, JITFunction.run = JITFunction.run, take_down
    try:
        call()
    finally:
        JITFunction.run = run
    return found


def compiled(launch: Launch, architecture: int) -> Cost:
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    divisible: dict[tuple[int], Any] = {}
    for index, (parameter, value) in enumerate(
        zip(launch.kernel.params, launch.arguments, strict=True)
    ):
        name = parameter.name
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            divisible[index,] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32"
            if value % 16 == 0:
                divisible[index,] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constexprs=constants, attrs=divisible)
    target = GPUTarget("cuda", architecture, 32)
    binary = triton.compile(source, target=target, options=launch.options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "-res-usage", file.name)
        listing = _tool("nvdisasm", file.name)
    registers, stack = (
        max((int(n) for n in re.findall(rf"{what}:(\d+)", usage)), default=-1)
        for what in ("REG", "STACK")
    )
    return Cost(registers, binary.metadata.shared, stack, _largest_loop(listing))


def _largest_loop(listing: str) -> int:
    """Instructions between a label and the branch back to it, the most there are."""
    at: dict[str, int] = {}
    count = most = 0
    for line in listing.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line.strip()):
            at[label[1]] = count
        elif re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+\S", line) and ";" in line:
            count += 1
            back = re.search(r"\bBRA.*?(\.L_x_\d+)", line)
            if back and back[1] in at and at[back[1]] < count - 1:
                most = max(most, count - at[back[1]])
    return most or count


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run(
        [TOOLS / name, *arguments], check=True, capture_output=True, text=True
    ).stdout
