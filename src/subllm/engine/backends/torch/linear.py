"""Products of the torch backend, by how their weights lie in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from subllm.engine.placement import Form
from subllm.errors import BackendError


class Linear(Protocol):
    """x [rows, in] -> [rows, out], in the dtype of x; bytes of the weights."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True)
class DenseLinear:
    """weight [out, in] and bias [out], both in the compute dtype."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes


@dataclass(frozen=True)
class Nf4Linear:
    """Codes of 4 bits at quantiles of a normal distribution and a float32 scale for each 64
    weights (Dettmers et al., arXiv 2305.14314), by bitsandbytes. One row is multiplied with the
    codes, more with the weights unpacked."""

    codes: torch.Tensor
    state: Any
    bias: torch.Tensor | None

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None) -> Nf4Linear:
        codes, state = _library().functional.quantize_4bit(
            weight, blocksize=BLOCK, compress_statistics=False, quant_type="nf4"
        )
        return cls(codes, state, bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = _library().matmul_4bit(x, self.codes.t(), quant_state=self.state)
        product: torch.Tensor = out if self.bias is None else out + self.bias
        return product

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + int(self.state.absmax.nbytes)


@dataclass(frozen=True)
class Int8Linear:
    """A code of 8 bits for each weight and a scale for each row, multiplied with activations
    rounded so for each token (Dettmers et al., arXiv 2208.07339, without its outliers), by
    bitsandbytes."""

    codes: torch.Tensor
    scales: torch.Tensor
    bias: torch.Tensor | None

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None) -> Int8Linear:
        codes, scales, _ = _library().functional.int8_vectorwise_quant(weight.half())
        return cls(codes, scales, bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        # Activations of some models are beyond float16, which the library would round them in.
        peaks = x.float().abs().amax(-1, keepdim=True).clamp(min=1e-30)
        codes = (x.float() * (127.0 / peaks)).round().to(torch.int8)
        sums: torch.Tensor = _library().functional.int8_linear_matmul(codes, self.codes)
        out = (sums.float() * (peaks / 127.0) * (self.scales / 127.0)).to(x.dtype)
        return out if self.bias is None else out + self.bias

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scales.nbytes


BLOCK = 64  # weights of NF4 that share a scale

_FORMS: dict[Form, Callable[[torch.Tensor, torch.Tensor | None], Linear]] = {
    "nf4": Nf4Linear.of,
    "int8": Int8Linear.of,
}


def linear(weight: torch.Tensor, bias: torch.Tensor | None, form: Form) -> Linear:
    """A product with weight [out, in], which "nf4" and "int8" round; other forms keep it, as nf4
    does where blocks would cross rows: there the library's kernels differ. Raises BackendError
    without bitsandbytes."""
    if form == "nf4" and weight.shape[1] % BLOCK:
        form = "bf16"
    return _FORMS.get(form, DenseLinear)(weight, bias)


@cache
def _library() -> Any:
    try:
        return import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendError(
            f"weights are rounded on load by bitsandbytes, which cannot be imported ({error}); "
            "install it with pip install 'subllm[gpu]'"
        ) from error
