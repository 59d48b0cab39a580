"""The thread pool, seen from Python: forks, sleep, the environment's choice of kernels."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from subllm.kernels import native
from subllm.kernels.products import ops
from subllm.kernels.sparsity.packing import pack


def product(pool: ops.Pool) -> np.ndarray:
    rng = np.random.default_rng(0)
    packed = pack(rng.standard_normal((512, 256)).astype(np.float32), None, "dense", "int8")
    out = np.empty((3, 512), np.float32)
    x = rng.standard_normal((3, 256)).astype(np.float32)
    ops.multiply_all(pool, [ops.Matrix(packed)], x, [out])
    return out


def test_never_more_threads_than_cpus() -> None:
    assert ops.Pool(1).threads == 1
    assert ops.Pool(10_000).threads == ops.Pool().threads == native.core().usable_cpus()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_works_on_both_sides_of_a_fork() -> None:
    pool = ops.Pool()
    before = product(pool)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(product(pool), before) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(product(pool), before)


def test_idle_threads_sleep() -> None:
    pool = ops.Pool()
    product(pool)
    start = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - start < 0.1


def run_with(isa: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import numpy as np; from subllm.kernels.products import ops; "
        "from subllm.kernels.sparsity.packing import pack; w = np.eye(64, dtype=np.float32); "
        "print(ops.multiply(pack(w, None, 'dense', "
        "'int8'), w).trace())"
    )
    env = {**os.environ, "SUBLLM_ISA": isa}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )


def test_the_environment_chooses_kernels() -> None:
    good = run_with("scalar")
    assert good.returncode == 0
    assert float(good.stdout) == pytest.approx(64, rel=0.01)
    bad = run_with("vax")
    assert bad.returncode != 0
    assert "BackendError" in bad.stderr
    assert "vax" in bad.stderr
