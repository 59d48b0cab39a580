"""Weights that are rounded on load, and layers that wait beside the device: on the CPU, by the
libraries that do it on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles.tiny_models import CONFIGS, VOCAB, MemorySource, oracle, source

from subllm.engine.backend import Chunk, Draw
from subllm.engine.backends.torch.backend import TorchBackend
from subllm.engine.backends.torch.device import failures
from subllm.engine.backends.torch.linear import DenseLinear, Int8Linear, Nf4Linear, linear
from subllm.engine.backends.torch.model import TorchModel
from subllm.engine.backends.torch.weights import Held
from subllm.engine.request import SamplingParams
from subllm.errors import BackendError, DeviceError

CPU = torch.device("cpu")
# Levels of NF4, Dettmers et al., appendix E.
LEVELS = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
])  # fmt: skip


def rounded_nf4(weight: torch.Tensor) -> torch.Tensor:
    """The nearest level times the largest of each 64 values in a row of memory."""
    flat = weight.flatten()
    padded = torch.cat([flat, torch.zeros(-len(flat) % 64)]).view(-1, 64)
    peaks = padded.abs().amax(1, keepdim=True)
    nearest = (padded / peaks).nan_to_num()[..., None].sub(LEVELS).abs().argmin(-1)
    return (LEVELS[nearest] * peaks).flatten()[: len(flat)].view(weight.shape)


def rounded_int8(matrix: torch.Tensor) -> torch.Tensor:
    """127 steps to the largest of each row."""
    peaks = matrix.abs().amax(1, keepdim=True)
    return (matrix * 127 / peaks).round() * peaks / 127


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("shape", [(96, 64), (40, 128)])
def test_a_product_with_rounded_weights(rows: int, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(shape, generator=generator), torch.randn(shape[0])
    x = torch.randn(rows, shape[1], generator=generator)
    nf4 = linear(weight, bias, "nf4")
    torch.testing.assert_close(nf4(x), x @ rounded_nf4(weight).T + bias, rtol=0, atol=1e-3)
    assert isinstance(nf4, Nf4Linear)
    assert nf4.nbytes == weight.numel() // 2 + 4 * -(-weight.numel() // 64)
    int8 = linear(weight, bias, "int8")
    assert isinstance(int8, Int8Linear)
    want = rounded_int8(x) @ rounded_int8(weight.half().float()).T + bias
    assert (int8(x) - want).abs().mean() < 1e-2  # a tie may round either way
    assert int8.nbytes == weight.numel() + 4 * shape[0]


def test_rows_that_are_no_whole_blocks_stay() -> None:
    weight = torch.randn(8, 96)
    assert isinstance(linear(weight, None, "nf4"), DenseLinear)


def test_activations_beyond_float16() -> None:
    weight = torch.eye(64)
    x = torch.full((1, 64), 1.0)
    x[0, 3] = 3e6
    out = linear(weight, None, "int8")(x.bfloat16())
    assert out.isfinite().all()
    assert float(out[0, 3]) == pytest.approx(3e6, rel=0.01)


@pytest.mark.parametrize(("form", "near"), [("nf4", 1e-3), ("int8", 0.05)])
@torch.inference_mode()
def test_a_rounded_model_is_one_of_rounded_blocks(form: Any, near: float) -> None:
    """Of int8, activations are rounded too."""
    given = source(oracle("qwen2", hidden_size=64, intermediate_size=128))
    rounding = {"nf4": rounded_nf4, "int8": rounded_int8}[form]
    tensors = {
        name: rounding(torch.from_numpy(matrix)).numpy()
        if matrix.ndim == 2 and name.startswith("model.layers")
        else matrix
        for name, matrix in given.tensors.items()
    }
    plain = TorchBackend(MemorySource(given.spec, tensors), dtype="float32", threads=1)
    rounded = TorchBackend(given, dtype="float32", form=form, threads=1)
    tokens = torch.randint(VOCAB, (30,), generator=torch.Generator().manual_seed(1))
    logits = []
    for backend in (plain, rounded):
        model: TorchModel = backend._model
        kv = backend._slabs[backend.kv_open()]
        logits.append(model.logits(model.hidden(tokens, [(kv, 0, 30)])))
    assert (logits[1] - logits[0]).abs().mean() < near * logits[0].std()
    bytes_of = [backend._model.weights.layers[0].nbytes for backend in (plain, rounded)]
    assert bytes_of[1] < bytes_of[0] / {"nf4": 6, "int8": 3}[form]  # plain: float32


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("layers", [0, 2])
@torch.inference_mode()
def test_layers_that_wait_beside_the_device_change_nothing(family: str, layers: int) -> None:
    given = source(oracle(family))
    whole, split = (
        TorchBackend(given, dtype="float32", layers=count, threads=1) for count in (None, layers)
    )
    ids = np.arange(20, dtype=np.int32)
    for backend in (whole, split):
        kv = backend.kv_open()
        backend.step([Chunk(kv, 0, ids[:12])])
    draw = Draw(SamplingParams(logprobs=3), ids, 12, 0.0)
    chunk = Chunk(1, 12, ids[12:], (draw,))
    assert split.step([chunk]) == whole.step([chunk])
    held = [isinstance(layer, Held) for layer in split._model.weights.layers]
    assert held == [index >= layers for index in range(3)]
    assert split.resident_bytes == whole.resident_bytes
    for layer in split._model.weights.layers[layers:]:
        assert isinstance(layer, Held)
        assert all(buffer.device.type == "meta" for buffer in layer.buffers())  # between steps
        assert layer().qkv.weight.device == CPU  # type: ignore[attr-defined]


def test_without_bitsandbytes_it_says_what_to_install() -> None:
    """In a process of its own, where it cannot be imported."""
    script = (
        "import sys; sys.modules['bitsandbytes'] = None\n"
        "import torch\n"
        "from subllm.errors import BackendError\n"
        "from subllm.engine.backends.torch.linear import linear\n"
        "try:\n    linear(torch.ones(4, 64), None, 'nf4')\n"
        "except BackendError as error:\n    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env=dict(os.environ), cwd=Path.cwd(),
    )  # fmt: skip
    assert "pip install 'subllm[gpu]'" in ran.stdout


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
            "no memory left on cuda:1 for",
        ),
        (RuntimeError("CUDA error: out of memory\nmore"), "no memory left on cuda:1"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "no memory left"),
        (RuntimeError("CUDA error: GPU is lost\nCompile with"), "the card was lost"),
        (
            RuntimeError("CUDA error: an illegal memory access was encountered\nx"),
            "cuda:1 failed: CUDA",
        ),
    ],
)
def test_what_a_card_fails_with_is_one_typed_line(raised: Exception, said: str) -> None:
    with (
        pytest.raises(DeviceError, match=said) as caught,
        failures(torch.device("cuda:1"), "the weights"),
    ):
        raise raised
    assert "\n" not in str(caught.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), failures(torch.device("cuda"), "x"):
        raise RuntimeError("shapes do not match")
    with pytest.raises(BackendError) as caught, failures(CPU, "x"):
        raise BackendError("as it was")
    assert type(caught.value) is BackendError
