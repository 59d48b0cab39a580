"""The device that `--device` names."""

from __future__ import annotations

import pytest
import torch

from subllm.errors import UsageError
from subllm.making.extraction.device import choose_device


@pytest.mark.parametrize("name", ["gpu", "foo", "", "cuda:x", "cuda:-1", "mps", "meta"])
def test_a_device_that_nobody_knows(name: str) -> None:
    with pytest.raises(UsageError, match="is unknown; use auto, cpu, cuda or cuda:N"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:99"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_no_cuda_device(name: str) -> None:
    with pytest.raises(UsageError, match="no CUDA device on this machine; use --device cpu"):
        choose_device(name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="has no CUDA device")
def test_a_cuda_device_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="there is no cuda:99 here that works, only cuda:0"):
        choose_device("cuda:99")


def test_a_processor_has_no_number() -> None:
    assert choose_device("cpu:3") == choose_device("cpu") == torch.device("cpu")
