"""Which implementation computes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from subllm.kernels.products import triton_ops
from subllm.kernels.products.triton import plain


def test_the_one_that_is_under_test() -> None:
    """With TRITON_INTERPRET=1 these tests run Triton's kernels; where they cannot, they fail."""
    asked = os.environ.get("TRITON_INTERPRET") == "1"
    assert (triton_ops.implementation("cpu") is not plain) == asked


def test_other_devices_take_torch() -> None:
    assert triton_ops.implementation("mps") is plain


@pytest.mark.parametrize(
    "module", ["subllm.kernels.products.triton_ops", "subllm.kernels.products.ops"]
)
def test_triton_is_imported_when_it_is_used(module: str) -> None:
    code = f"import sys, {module}; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_serving_on_the_cpu_needs_no_torch() -> None:
    code = "import sys, subllm.kernels.products.ops; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
